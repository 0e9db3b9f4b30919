//! Forks, vforks, exec, and ends.

use super::*;
use crate::ExitStatus;
use crate::freebsd::{Sys, abi};

/// The fake kernel reports the process with the lower id first.
const OLDER_CHILD: Pid = Pid(5);

#[test]
fn a_forked_child_is_reported_once_both_have_told() {
    for child in [CHILD, OLDER_CHILD] {
        let mut rig = rig(2);
        rig.sys.plan(A, &[Act::Fork(child.0)]);
        let stop = rig.next_stop();
        assert_eq!((stop.pid, stop.kind), (child, StopKind::Forked { parent: TARGET }));
        let mut byte = [0];
        assert_eq!(rig.read(&stop, TEXT, &mut byte).expect("its own memory"), 1);
        rig.detach(stop, Resume::Deliver).expect("detached");
        assert!(!rig.sys.process(child.0).was_left_stopped, "the SIGSTOP of its birth is swallowed");
        assert_eq!(rig.traced(), [TARGET]);
        assert_eq!(rig.wait().expect("the parent runs"), Report::Tick);
        rig.leave(Vec::new());
    }
}

/// Its memory is a copy with all breakpoints, so it must not be forgotten.
#[test]
fn a_child_that_has_not_reported_yet_counts_as_traced() {
    let mut rig = rig(1);
    rig.sys.plan(A, &[Act::Fork(CHILD.0)]);
    let stops = rig.halt(TARGET).expect("halted");
    assert_eq!(kinds(&stops), [(A, StopKind::Halted)]);
    for stop in stops {
        rig.detach(stop, Resume::Deliver).expect("detached");
    }
    assert_eq!(rig.traced(), [CHILD]);
    let stop = rig.next_stop();
    assert_eq!((stop.pid, stop.kind), (CHILD, StopKind::Forked { parent: TARGET }));
    rig.detach(stop, Resume::Deliver).expect("detached");
    assert_eq!(rig.traced(), []);
}

#[test]
fn a_child_whose_parent_is_killed_before_it_names_the_child_is_let_go() {
    let mut rig = rig(1);
    rig.sys.plan(A, &[Act::Fork(OLDER_CHILD.0)]);
    // The child is there as soon as the parent has run.
    assert!(rig.sys.waitpid(TARGET.0).is_ok());
    rig.sys.kill_process(TARGET.0);
    let reports = [rig.wait().expect("a report"), rig.wait().expect("another")];
    let ended = Report::ProcessEnded { pid: TARGET, status: ExitStatus::Killed(crate::Signal(libc::SIGKILL)) };
    assert!(reports.contains(&ended), "{reports:?}");
    let [stop] = reports.into_iter().filter_map(stop_of).collect::<Vec<_>>().try_into().expect("one stop");
    assert_eq!((stop.pid, stop.kind), (OLDER_CHILD, StopKind::Forked { parent: TARGET }));
    rig.detach(stop, Resume::Deliver).expect("detached");
}

fn stop_of(report: Report) -> Option<Stop> {
    match report {
        Report::Stopped(stop) => Some(stop),
        _ => None,
    }
}

#[test]
fn a_vforked_child_is_traced_with_its_own_children_until_it_calls_exec() {
    let mut rig = rig(1);
    rig.sys.plan(A, &[Act::Vfork(CHILD.0), Act::LeaveVfork]);
    let stop = rig.next_stop();
    assert_eq!((stop.pid, stop.kind), (CHILD, StopKind::SharingChild { parent: TARGET }));
    rig.sys.plan(stop.tid.0, &[Act::Fork(OLDER_CHILD.0), Act::Exec]);
    rig.resume(stop, Resume::Deliver).expect("resumed");
    let grandchild = loop {
        match rig.wait().expect("a report") {
            Report::Stopped(stop) => break stop,
            Report::Tick => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((grandchild.pid, grandchild.kind), (OLDER_CHILD, StopKind::Forked { parent: CHILD }));
    rig.detach(grandchild, Resume::Deliver).expect("detached");
    let stop = rig.next_stop();
    assert_eq!((stop.pid, stop.kind), (CHILD, StopKind::Exec));
    rig.detach(stop, Resume::Deliver).expect("detached");
    assert_eq!(rig.wait().expect("the parent runs"), Report::Tick);
    rig.leave(Vec::new());
}

/// Nothing stops the only thread of a process while it waits for its vforked child.
#[test]
fn a_process_in_vfork_is_halted_when_it_comes_back() {
    let mut rig = rig(1);
    rig.sys.plan(A, &[Act::Vfork(CHILD.0)]);
    let child = rig.next_stop();
    assert_eq!(rig.halt(TARGET).expect("no thread can be"), []);
    assert!(!rig.sys.requests.contains(&("suspend", A)));
    assert_eq!(rig.traced(), [TARGET, CHILD]);
    rig.detach(child, Resume::Deliver).expect("detached");
    rig.sys.plan(A, &[Act::LeaveVfork]);
    let stop = rig.next_stop();
    assert_eq!((stop.tid, stop.kind), (Tid(A), StopKind::Halted));
    rig.leave(vec![stop]);
}

#[test]
fn of_a_process_with_one_thread_in_vfork_all_are_halted() {
    let mut rig = rig(2);
    rig.sys.plan(A, &[Act::Vfork(CHILD.0)]);
    let child = rig.next_stop();
    let stops = rig.halt(TARGET).expect("halted");
    assert_eq!(kinds(&stops), [(A, StopKind::Halted), (B, StopKind::Halted)]);
    rig.detach(child, Resume::Deliver).expect("detached");
    rig.leave(stops);
}

#[test]
fn exec_leaves_one_thread_and_none_of_the_others_stops() {
    let mut rig = rig(3);
    let at = rig.breakpoint(0x10);
    rig.sys.plan(A, &[Act::Exec]);
    rig.sys.plan(B, &[Act::Execute(at)]);
    let stop = rig.next_stop();
    assert_eq!((stop.tid, stop.kind), (Tid(A), StopKind::Exec));
    assert_eq!(rig.halt(TARGET).expect("the only thread is held"), []);
    rig.resume(stop, Resume::Deliver).expect("resumed");
    assert_eq!(rig.wait().expect("nothing more"), Report::Tick);
}

#[test]
fn the_end_of_a_thread_is_reported_once() {
    let mut rig = rig(3);
    rig.sys.plan(B, &[Act::End]);
    assert_eq!(rig.wait().expect("nobody has stopped"), Report::Tick);
    let stops = rig.halt(TARGET).expect("halted");
    assert_eq!(kinds(&stops), [(A, StopKind::Halted), (C, StopKind::Halted)]);
    assert_eq!(rig.wait().expect("a report"), Report::ThreadEnded { pid: TARGET, tid: Tid(B) });
    rig.leave(stops);
}

/// Threads that come and go are noticed when one of the new ones stops, not at each stop.
#[test]
fn the_threads_are_listed_only_when_an_unknown_one_stops() {
    let mut rig = rig(2);
    let at = rig.breakpoint(0x10);
    rig.sys.plan(A, &[Act::Execute(at)]);
    let stop = rig.next_stop();
    rig.resume(stop, Resume::Swallow).expect("resumed");
    assert!(!rig.sys.requests.iter().any(|(name, _)| *name == "list"));
    let process = rig.sys.process(TARGET.0);
    process.threads.remove(&B);
    process.threads.insert(C, kernel::Thread::at(TEXT));
    rig.sys.plan(C, &[Act::Execute(at)]);
    let stop = rig.next_stop();
    assert_eq!(stop.tid, Tid(C));
    rig.resume(stop, Resume::Swallow).expect("resumed");
    assert_eq!(rig.wait().expect("a report"), Report::ThreadEnded { pid: TARGET, tid: Tid(B) });
}

#[test]
fn the_end_of_the_process_is_reported() {
    let mut rig = rig(2);
    rig.sys.plan(A, &[Act::Exit(3)]);
    let ended = Report::ProcessEnded { pid: TARGET, status: ExitStatus::Exited(3) };
    assert_eq!(rig.wait().expect("a report"), ended);
    assert_eq!(rig.traced(), []);
}

#[test]
fn the_events_asked_for_are_those_of_processes() {
    let mut rig = FreebsdTracer::new(Kernel::with_process(TARGET.0, 1));
    rig.attach(TARGET).expect("attached");
    let events = rig.sys.requests.iter().filter(|(name, _)| *name == "events").count();
    assert_eq!((events, abi::PTRACE_EXEC), (1, 1));
}
