//! How often breakpoints are met, to the last one.

use memleax_targets::Target;

use crate::harness::{Monitor, State, may_trace};

/// Four threads make 1,000 pairs each at the same time: at each three breakpoints are met, and none is passed unseen.
#[test]
fn twelve_thousand_of_four_threads() {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("threads").start();
    let before = State::of(&target);
    let monitor = Monitor::attach(&target, &["--log", "info"]);
    target.ask("pairs 1000");
    let report = monitor.interrupt();
    let counted = "12000 stops for 4000 allocations and 4000 releases";
    assert!(report.errors.contains(counted), "{report:?}");
    before.assert_restored(&target);
    target.quit();
}
