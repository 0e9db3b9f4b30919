//! Threads that meet breakpoints at the same time: each is reported once, and none is left behind at detach.

use super::*;
use crate::freebsd::abi;

#[test]
fn breakpoints_met_at_the_same_time_are_reported_one_by_one() {
    let mut rig = rig(3);
    let at = rig.breakpoint(0x10);
    for lwp in [A, B, C] {
        rig.sys.plan(lwp, &[Act::Execute(at)]);
    }
    for lwp in [A, B, C] {
        let stop = rig.next_stop();
        assert_eq!((stop.tid, stop.kind), (Tid(lwp), StopKind::Trap));
        assert!(rig.is_breakpoint_trap(&stop).expect("held"));
        assert_eq!(rig.registers(&stop).expect("held").rip, at + 1);
        rig.set_program_counter(&stop, TEXT + 0x100).expect("held");
        rig.resume(stop, Resume::Swallow).expect("resumed");
        assert_eq!(rig.rip(lwp), TEXT + 0x100);
    }
    assert_eq!(rig.wait().expect("nothing more"), Report::Tick);
    let stops = rig.halt(TARGET).expect("halted");
    rig.leave(stops);
}

/// Without draining, the traps of B and C would kill the target. (`drain` in `halt.rs` left out: this fails.)
#[test]
fn halting_hands_out_what_waits_to_be_reported() {
    let mut rig = rig(3);
    let at = rig.breakpoint(0x10);
    for lwp in [A, B, C] {
        rig.sys.plan(lwp, &[Act::Execute(at)]);
    }
    let first = rig.next_stop();
    let rest = rig.halt(TARGET).expect("halted");
    assert_eq!(kinds(&rest), [(B, StopKind::Trap), (C, StopKind::Trap)]);
    rig.leave(std::iter::once(first).chain(rest).collect());
    assert_eq!([A, B, C].map(|lwp| rig.rip(lwp)), [at; 3]);
}

/// While B is drained, C must not run. (`suspend` in `drain` left out: this fails.)
#[test]
fn nothing_else_runs_while_a_report_is_drained() {
    let mut rig = rig(3);
    let at = rig.breakpoint(0x10);
    rig.sys.plan(A, &[Act::Execute(at)]);
    rig.sys.plan(B, &[Act::Execute(at)]);
    let first = rig.next_stop();
    // It would move on, and A would meet the breakpoint again.
    rig.sys.plan(C, &[Act::Execute(TEXT + 0x50)]);
    rig.sys.plan(A, &[Act::Execute(at)]);
    let rest = rig.halt(TARGET).expect("halted");
    assert_eq!(kinds(&rest), [(B, StopKind::Trap), (C, StopKind::Halted)]);
    assert_eq!(rig.rip(C), TEXT);
    assert_eq!(rig.sys.requests.iter().filter(|(name, _)| *name == "continue").count(), 1);
    // Nobody is left suspended.
    let (suspended, resumed) =
        ["suspend", "resume"].map(|what| rig.sys.requests.iter().filter(|(name, _)| *name == what).count()).into();
    assert_eq!(suspended, resumed);
    rig.leave(std::iter::once(first).chain(rest).collect());
}

/// The breakpoint comes first, so the SIGSTOP that was sent to halt is still to come when the process is let go.
#[test]
fn exactly_one_sigstop_is_swallowed() {
    let mut rig = rig(1);
    let at = rig.breakpoint(0x10);
    rig.sys.plan(A, &[Act::Execute(at)]);
    let stops = rig.halt(TARGET).expect("halted");
    assert_eq!(kinds(&stops), [(A, StopKind::Trap)]);
    assert!(!rig.sys.process(TARGET.0).pending.is_empty(), "it waits");
    rig.leave(stops);
    assert!(rig.sys.process(TARGET.0).pending.is_empty());
}

#[test]
fn a_sigstop_that_is_still_to_come_is_swallowed_when_it_does() {
    let mut rig = rig(1);
    let at = rig.breakpoint(0x10);
    rig.sys.plan(A, &[Act::Execute(at)]);
    for stop in rig.halt(TARGET).expect("halted") {
        rig.resume(stop, Resume::Swallow).expect("resumed");
    }
    assert_eq!(rig.wait().expect("nothing to tell"), Report::Tick);
    assert!(rig.sys.process(TARGET.0).pending.is_empty());
    // The next halt sends another, and only one.
    let stops = rig.halt(TARGET).expect("halted");
    assert_eq!(kinds(&stops), [(A, StopKind::Halted)]);
    rig.leave(stops);
}

/// Ours and somebody else's: the kernel may keep both, taken by one thread after the other or by two at once, or make one
/// of them. Ours is swallowed, the other's stops the process.
#[test]
fn a_foreign_sigstop_is_not_taken_for_ours() {
    for (threads, merges) in [(1, false), (2, false), (2, true)] {
        let mut rig = rig(threads);
        rig.sys.merges = merges;
        rig.sys.process(TARGET.0).pending.push_back((abi::SIGSTOP, 1));
        let stops = rig.halt(TARGET).expect("halted");
        assert!(stops.iter().all(|stop| stop.kind == StopKind::Halted));
        for stop in stops {
            rig.detach(stop, Resume::Deliver).expect("detached");
        }
        let process = rig.sys.process(TARGET.0);
        assert_eq!((&process.pending, process.was_left_stopped), (&[].into(), true), "{threads} {merges}");
    }
}

/// A SIGSTOP of which nothing is told is not held to be another's, or the target would stand still.
#[test]
fn a_sigstop_without_a_sender_is_ours() {
    let mut rig = rig(2);
    rig.sys.is_taciturn = true;
    for stop in rig.halt(TARGET).expect("halted") {
        rig.resume(stop, Resume::Swallow).expect("resumed");
    }
    assert_eq!(rig.sys.requests.last().map(|(name, _)| *name), Some("continue"));
    rig.leave(Vec::new());
}

/// A trap that belongs to the program was consumed by draining: it comes again, and is then delivered.
#[test]
fn a_drained_trap_of_the_programs_own_is_not_lost() {
    let mut rig = rig(2);
    let at = rig.breakpoint(0x10);
    rig.sys.plan(A, &[Act::Execute(at)]);
    rig.sys.plan(B, &[Act::Execute(at)]);
    let first = rig.next_stop();
    let rest = rig.halt(TARGET).expect("halted");
    rig.resume(first, Resume::Deliver).expect("resumed");
    assert_eq!(rig.rip(A), at, "it is about to trap again");
    for stop in rest {
        rig.resume(stop, Resume::Swallow).expect("resumed");
    }
}

#[test]
fn a_signal_that_was_drained_is_delivered_where_the_thread_was_put() {
    let mut rig = rig(2);
    let at = rig.breakpoint(0x10);
    rig.sys.plan(A, &[Act::Receive(kernel::SIGURG, Some(0))]);
    rig.sys.plan(B, &[Act::Execute(at)]);
    let first = rig.next_stop();
    let rest = rig.halt(TARGET).expect("halted");
    assert_eq!(rig.sys.process(TARGET.0).delivered, [], "A does not run yet");
    rig.set_program_counter(&first, TEXT + 0x30).expect("held");
    rig.leave(std::iter::once(first).chain(rest).collect());
    assert_eq!(rig.sys.process(TARGET.0).delivered, [(A, kernel::SIGURG, TEXT + 0x30)]);
}

#[test]
fn a_thread_given_back_while_others_are_held_is_halted_again() {
    let mut rig = rig(2);
    let mut stops = rig.halt(TARGET).expect("halted");
    rig.resume(stops.pop().expect("two"), Resume::Swallow).expect("resumed");
    let again = rig.halt(TARGET).expect("halted");
    assert_eq!(kinds(&again), [(B, StopKind::Halted)]);
    stops.extend(again);
    rig.leave(stops);
}
