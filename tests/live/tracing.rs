//! What is so of the ptrace backend only, as it traces its target.

use memleax_targets::Target;

use crate::harness::{Monitor, may_trace};

const PTRACE: [&str; 2] = ["--backend", "ptrace"];

#[test]
fn already_traced() {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("crash").start();
    let first = Monitor::attach(&target, &PTRACE);
    let (status, report) = Monitor::spawn(target.id(), &PTRACE).wait();
    assert_eq!(status.code(), Some(1), "{report:?}");
    for words in ["traces it already", &first.id().to_string()] {
        assert!(report.errors.contains(words), "no {words:?}: {report:?}");
    }
    // The first one is not disturbed.
    target.ask("go 1");
    first.interrupt();
    target.quit();
}
