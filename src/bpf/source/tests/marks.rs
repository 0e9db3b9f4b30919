//! Calls of functions that the user has named, by each kind of probe.

use memleax_targets::Target;

use super::*;

/// The calls that were told of, the losses, and in how many call stacks something was allocated when the first call was told.
#[derive(Default)]
struct Told {
    calls: Vec<u32>,
    lost: u64,
    counted: usize,
    counted_first: Option<usize>,
}

impl Sink for Told {
    fn event(&mut self, _: Timestamp, event: Event) {
        match event {
            Event::Marked(number) => {
                self.counted_first.get_or_insert(self.counted);
                self.calls.push(number);
            }
            Event::Lost(Loss::SnapshotNotTaken, count) => self.lost += count,
            _ => {}
        }
    }

    fn counted(&mut self, _: Timestamp, _: StackId, _: &Totals) {
        self.counted += 1;
    }
}

fn check(variants: &[Attachment]) {
    let mut target = Target::c("marks").libraries(&["-ldl"]).start();
    // One that allocates is told of, too, where the kernel can tell two probes at one place apart.
    let names = ["memtrail_snapshot", "malloc"].map(str::to_owned).to_vec();
    let config = Config { snapshot_at: names, ..config(&target, Duration::from_secs(10)) };
    let Some(mut source) = attach_as(&config, variants, SIZES) else { return };
    let mut told = Told::default();
    target.ask("go 2");
    source.observe(&mut told).expect("the target can be observed");
    target.ask("go 1");
    target.ask("storm 2000");
    source.detach(&mut told).expect("a source that can be left");
    let (marks, others): (Vec<u32>, Vec<u32>) = told.calls.iter().partition(|&&number| number == 0);
    let has_two = !source.kernel.has_one_probe_an_address();
    assert_eq!(others.len(), if has_two { 9 } else { 0 });
    assert_eq!((marks.len() + others.len(), told.lost), (1000, 2003 + others.len() as u64 - 1000));
    assert!(told.counted_first.is_some_and(|stacks| stacks > 0), "counted before it is marked");
    target.quit();
}

#[test]
fn calls_are_told_after_what_was_counted() {
    check(BEST);
}

#[test]
fn calls_are_told_by_probes_that_are_set_many_at_a_time() {
    check(&[Attachment::Multi]);
}

#[test]
fn calls_are_told_by_probes_that_are_set_one_by_one() {
    check(&[Attachment::Perf]);
}

#[test]
fn calls_are_told_by_old_programs() {
    check(OLD);
}
