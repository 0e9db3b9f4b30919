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
