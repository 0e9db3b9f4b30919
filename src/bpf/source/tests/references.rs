//! Calls of functions that the user has named, counted by each kind of probe.

use memleax_targets::Target;

use super::*;

/// The calls that were told of, by reference; the others, that took snapshots.
#[derive(Default)]
struct Told {
    calls: [u64; 3],
    marks: u64,
    lost: u64,
}

impl Sink for Told {
    fn event(&mut self, _: Timestamp, event: Event) {
        match event {
            Event::Called { reference, count } => self.calls[reference as usize] += count,
            Event::Marked(_) => self.marks += 1,
            Event::Lost(Loss::CallNotCounted, count) => self.lost += count,
            _ => {}
        }
    }

    fn counted(&mut self, _: Timestamp, _: StackId, _: &Totals) {}
}

fn served(answer: &[String]) -> u64 {
    let words: Vec<&str> = answer.last().map(|line| line.split(' ').collect()).unwrap_or_default();
    words.get(1).and_then(|number| number.parse().ok()).expect("the number of requests")
}

fn check(variants: &[Attachment]) {
    let mut target = Target::c("requests").libraries(&["-ldl", "-lpthread"]).start();
    // One of them is worth snapshots besides, one allocates: there the kernel must tell two probes at one place apart.
    let names = ["handle_request", "leak", "malloc"].map(str::to_owned).to_vec();
    let config = Config { references: names, ..config(&target, Duration::from_secs(10)) };
    let config = Config { snapshot_at: vec!["leak".into()], ..config };
    let Some(mut source) = attach_as(&config, variants, SIZES) else { return };
    let mut told = Told::default();
    target.ask("serve 7");
    source.observe(&mut told).expect("the target can be observed");
    let requests = served(&target.ask("serve_by_threads 5000"));
    source.detach(&mut told).expect("a source that can be left");
    let has_two = !source.kernel.has_one_probe_an_address();
    assert_eq!((told.calls[0], told.calls[1], told.marks, told.lost), (requests, 7, 7, 0));
    assert_eq!(told.calls[2] >= 3 * 7, has_two, "{:?}", told.calls);
    assert_eq!(requests, 20_007);
    target.quit();
}

#[test]
fn calls_are_counted_to_the_last() {
    check(BEST);
}

#[test]
fn calls_are_counted_by_probes_that_are_set_many_at_a_time() {
    check(&[Attachment::Multi]);
}

#[test]
fn calls_are_counted_by_probes_that_are_set_one_by_one() {
    check(&[Attachment::Perf]);
}

#[test]
fn calls_are_counted_by_old_programs() {
    check(OLD);
}

/// What was counted of a part of the program's work.
#[derive(Default)]
struct Books {
    calls: u64,
    unknown_frees: u64,
    sites: FxHashMap<StackId, Totals>,
}

impl Sink for Books {
    fn event(&mut self, _: Timestamp, event: Event) {
        match event {
            Event::Called { count, .. } => self.calls += count,
            Event::UnknownFrees(count) => self.unknown_frees += count,
            _ => {}
        }
    }

    fn counted(&mut self, _: Timestamp, stack: StackId, totals: &Totals) {
        self.sites.insert(stack, *totals);
    }
}

/// Probes are removed one after the other while the program goes on: what one counted, the others did, too.
#[test]
fn counting_ends_everywhere_at_once() {
    for variants in [BEST, &[Attachment::Multi], &[Attachment::Perf], OLD] {
        let mut target = Target::c("requests").libraries(&["-ldl", "-lpthread"]).start();
        let config = Config { references: vec!["leak".into()], ..config(&target, Duration::from_secs(10)) };
        let Some(mut source) = attach_as(&config, variants, SIZES) else { return };
        let mut books = Books::default();
        let work = "serve 300000";
        target.send(work);
        while books.calls == 0 {
            source.observe(&mut books).expect("the target can be observed");
        }
        source.detach(&mut books).expect("a source that can be left");
        let leaked = books.sites.values().find(|site| site.allocated.bytes == 48 * site.allocated.count);
        let leaked = leaked.expect("the leak's call stack").allocated.count;
        // A call may be in progress then.
        assert!(books.calls.abs_diff(leaked) <= 1, "{} calls, {leaked} blocks", books.calls);
        assert_eq!(books.unknown_frees, 0);
        target.answer(work);
        target.quit();
    }
}
