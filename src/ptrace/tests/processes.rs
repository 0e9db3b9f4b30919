//! Forks, vforks, exec, ends.

use memleax_platform::{ExitStatus, Resume, Signal};

use super::super::fake::Action;
use super::super::isa::native;
use super::*;
use crate::source::Notice;

const CHILD: Pid = Pid(200);

#[test]
fn a_forked_child_gets_its_bytes_back_and_is_let_go() {
    let mut rig = rig();
    rig.call("call_malloc", &[64]);
    let patched = rig.machine().patched(TARGET);
    assert!(!patched.is_empty());
    rig.machine().fork(MAIN, CHILD);
    rig.handle();
    assert_eq!(rig.machine().patched(CHILD), Vec::<u64>::new());
    assert_eq!(rig.machine().patched(TARGET), patched);
    assert_eq!(
        rig.engine.tracer.actions[rig.engine.tracer.actions.len() - 2..],
        [Action::RemovedGuard(CHILD), Action::Detached(Tid(CHILD.0), Resume::Deliver)]
    );
}

#[test]
fn a_child_forked_in_a_slot_goes_on_in_the_program() {
    let mut rig = rig();
    rig.at(MAIN, "call_malloc", &[64]);
    rig.trap(MAIN);
    rig.handle();
    rig.machine().fork(MAIN, CHILD);
    rig.handle();
    let malloc = rig.machine().label("/program", "malloc");
    assert_eq!(rig.machine().thread(Tid(CHILD.0)).rip, malloc);
    // The parent is not disturbed.
    assert_eq!(rig.run(MAIN), 1);
    assert_eq!(rig.events(), [allocated(0)]);
}

#[test]
fn a_vforked_child_is_observed_until_it_calls_exec() {
    let mut rig = rig();
    let patched = rig.machine().patched(TARGET);
    rig.machine().vfork(MAIN, CHILD);
    rig.handle();
    assert_eq!(rig.machine().patched(TARGET), patched);
    rig.at(Tid(CHILD.0), "call_malloc", &[64]);
    assert_eq!(rig.run(Tid(CHILD.0)), 2);
    assert_eq!(rig.events(), [allocated(0)]);
    rig.machine().actions.clear();
    rig.machine().exec(CHILD);
    rig.handle();
    assert_eq!(rig.engine.tracer.actions, [Action::Detached(Tid(CHILD.0), Resume::Deliver)]);
    assert_eq!(rig.call("call_malloc", &[64]), 2);
    assert_eq!(rig.events(), [allocated(0)]);
}

#[test]
fn a_vforked_child_that_could_not_become_root_is_let_go() {
    let mut machine = Machine::new();
    machine.facts.exec_gains_nothing = true;
    let mut rig = attach(machine);
    let patched = rig.machine().patched(TARGET);
    rig.machine().vfork(MAIN, CHILD);
    rig.machine().actions.clear();
    rig.handle();
    assert_eq!(rig.engine.tracer.actions, [Action::Detached(Tid(CHILD.0), Resume::Deliver)]);
    assert_eq!(rig.machine().patched(TARGET), patched);
}

/// Where no guard leads it past the breakpoints, it would be killed by them.
#[test]
fn without_a_guard_a_vforked_child_is_observed_in_any_case() {
    let mut machine = Machine::new();
    machine.facts.exec_gains_nothing = true;
    machine.lacks_guard = true;
    let mut rig = attach(machine);
    assert!(rig.warnings().iter().any(|text| text.contains("killed by SIGKILL")));
    rig.machine().vfork(MAIN, CHILD);
    rig.machine().actions.clear();
    rig.handle();
    assert_eq!(rig.engine.tracer.actions, [Action::Resumed(Tid(CHILD.0), Resume::Deliver)]);
}

#[test]
fn a_vforked_child_may_end_without_exec() {
    let mut rig = rig();
    rig.machine().vfork(MAIN, CHILD);
    rig.handle();
    rig.machine().end_process(CHILD, ExitStatus::Exited(0));
    rig.handle();
    assert_eq!(rig.progress, Progress::Running);
    assert_eq!(rig.call("call_malloc", &[64]), 2);
}

#[test]
fn detaching_lets_a_vforked_child_go_too() {
    let mut rig = rig();
    rig.machine().vfork(MAIN, CHILD);
    rig.handle();
    rig.machine().actions.clear();
    rig.detach(&[TARGET]);
    for tid in [MAIN, Tid(CHILD.0)] {
        assert!(rig.engine.tracer.actions.contains(&Action::Detached(tid, Resume::Deliver)), "{tid}");
    }
}

/// Elsewhere memleax gives up: the kernel lets the thread go.
#[test]
fn a_target_that_would_end_with_its_tracer_is_waited_for() {
    let mut machine = Machine::new();
    machine.ends_with_tracer = Some(1000);
    let mut rig = attach(machine);
    rig.machine().vfork(MAIN, CHILD);
    // Not handled: that would be a tick.
    rig.detach(&[TARGET]);
    assert_eq!(rig.machine().ends_with_tracer, Some(0), "all ticks were waited for");
    assert!(rig.engine.tracer.actions.contains(&Action::Detached(MAIN, Resume::Deliver)));
}

#[test]
fn detaching_cleans_a_forked_child_that_was_not_reported_yet() {
    let mut rig = rig();
    rig.machine().fork(MAIN, CHILD);
    rig.detach(&[TARGET, CHILD]);
    assert!(rig.machine().actions.contains(&Action::Detached(Tid(CHILD.0), Resume::Deliver)));
}

#[test]
fn detaching_right_after_exec_writes_nothing() {
    let mut rig = rig();
    rig.machine().exec(TARGET);
    let malloc = rig.machine().label("/program", "malloc");
    rig.machine().peek(TARGET, malloc, 1).expect("text")[0] = native::BREAKPOINT;
    assert_eq!(rig.engine.detach(), Vec::<String>::new());
    assert_eq!(rig.machine().patched(TARGET), [malloc]);
}

#[test]
fn after_exec_everything_starts_over() {
    let mut rig = rig();
    rig.call("call_malloc", &[64]);
    rig.at(MAIN, "call_malloc", &[64]);
    rig.trap(MAIN);
    rig.handle();
    rig.events();
    rig.engine.notices.clear();
    rig.machine().exec(TARGET);
    rig.handle();
    assert_eq!(rig.events(), [Event::Replaced]);
    assert_eq!(rig.engine.notices[0], Notice::Exec("/program".into()));
    assert!(matches!(&rig.engine.notices[1], Notice::Hooked(module) if module.functions.contains(&"malloc")));
    assert!(rig.machine().actions.contains(&Action::InstalledGuard));
    assert_eq!(rig.call("call_malloc", &[64]), 2);
    assert_eq!(rig.events().len(), 1);
    rig.detach(&[TARGET]);
}

#[test]
fn the_end_of_the_target_is_the_end() {
    let mut rig = rig();
    let status = ExitStatus::Killed(Signal(9));
    rig.machine().end_process(TARGET, status);
    rig.handle();
    assert_eq!(rig.progress, Progress::TargetEnded(status));
    assert_eq!(rig.engine.detach(), Vec::<String>::new());
}

#[test]
fn a_library_loaded_later_is_hooked_and_forgotten_when_unloaded() {
    let mut rig = rig();
    let interpreter = |rig: &mut Rig| {
        let tell = rig.machine().label("/interpreter", "tell");
        rig.at_address(MAIN, tell, &[]);
        assert_eq!(rig.run(MAIN), 1);
    };
    for _ in 0..2 {
        rig.engine.notices.clear();
        rig.machine().map_plugin();
        interpreter(&mut rig);
        assert!(
            matches!(&rig.engine.notices[..], [Notice::Hooked(module)] if module.functions == ["mi_malloc"]),
            "{:?}",
            rig.engine.notices
        );
        let site = rig.machine().label("/plugin", "call_mi_malloc");
        rig.at_address(MAIN, site, &[64]);
        assert_eq!(rig.run(MAIN), 2);
        assert!(matches!(rig.events()[..], [Event::Allocated { size: 64, .. }]));
        rig.machine().unmap("/plugin");
        interpreter(&mut rig);
    }
    assert_eq!(rig.call("call_malloc", &[64]), 2);
    rig.detach(&[TARGET]);
}
