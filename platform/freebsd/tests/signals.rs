//! Signals: passed on, not mistaken for breakpoints, and kept through a step.

use super::*;
use crate::Signal;
use crate::freebsd::abi;

#[test]
fn a_signal_is_passed_on_to_the_thread_that_received_it() {
    let mut rig = rig(2);
    rig.sys.plan(B, &[Act::Receive(kernel::SIGURG, Some(abi::SI_LWP))]);
    let stop = rig.next_stop();
    assert_eq!((stop.tid, stop.kind), (Tid(B), StopKind::Signal(Signal(kernel::SIGURG))));
    rig.resume(stop, Resume::Deliver).expect("resumed");
    assert_eq!(rig.wait().expect("nothing more"), Report::Tick);
    assert_eq!(rig.sys.process(TARGET.0).delivered, [(B, kernel::SIGURG, TEXT)]);
}

#[test]
fn a_sigtrap_that_somebody_sent_is_no_breakpoint() {
    let mut rig = rig(1);
    rig.sys.plan(A, &[Act::Receive(libc::SIGTRAP, Some(abi::SI_USER))]);
    let stop = rig.next_stop();
    assert_eq!(stop.kind, StopKind::Trap);
    assert!(!rig.is_breakpoint_trap(&stop).expect("held"));
}

/// The kernel may show the siginfo of an earlier signal: of a breakpoint's, while the thread stopped for SIGURG, or
/// because it forked.
#[test]
fn stale_information_is_not_believed() {
    let mut rig = rig(1);
    let at = rig.breakpoint(0x10);
    rig.sys.plan(A, &[Act::Execute(at), Act::Receive(kernel::SIGURG, None), Act::Fork(CHILD.0)]);
    let stop = rig.next_stop();
    rig.resume(stop, Resume::Swallow).expect("resumed");
    let stop = rig.next_stop();
    assert_eq!(stop.kind, StopKind::Signal(Signal(kernel::SIGURG)));
    assert!(!rig.is_breakpoint_trap(&stop).expect("held"));
    rig.resume(stop, Resume::Deliver).expect("resumed");
    assert_eq!(rig.next_stop().kind, StopKind::Forked { parent: TARGET });
}

/// 1 is TRAP_BRKPT of a SIGTRAP, but SEGV_MAPERR of a SIGSEGV.
#[test]
fn what_is_left_of_another_signal_makes_no_breakpoint() {
    let mut rig = rig(1);
    rig.sys.plan(A, &[Act::Receive(libc::SIGSEGV, Some(1)), Act::Receive(libc::SIGTRAP, None)]);
    let stop = rig.next_stop();
    rig.resume(stop, Resume::Deliver).expect("resumed");
    let stop = rig.next_stop();
    assert_eq!(stop.kind, StopKind::Trap);
    assert!(!rig.is_breakpoint_trap(&stop).expect("held"));
}

#[test]
fn a_step_executes_one_instruction_of_one_thread() {
    let mut rig = rig(2);
    let at = rig.breakpoint(0x10);
    rig.sys.plan(A, &[Act::Execute(at)]);
    rig.sys.plan(B, &[Act::Execute(TEXT + 0x50)]);
    let mut stop = rig.next_stop();
    let others = rig.halt(TARGET).expect("halted");
    rig.sys.plan(B, &[Act::Execute(TEXT + 0x60)]);
    rig.set_program_counter(&stop, at).expect("held");
    let before = rig.rip(B);
    rig.step(&mut stop).expect("stepped");
    assert_eq!((stop.kind, rig.rip(A), rig.rip(B)), (StopKind::Trap, at + 1, before));
    assert_eq!(rig.registers(&stop).expect("held").rip, at + 1);
    assert!(!rig.sys.thread(A).is_stepping);
    rig.resume(stop, Resume::Swallow).expect("resumed");
    for other in others {
        rig.resume(other, Resume::Swallow).expect("resumed");
    }
    while rig.wait().expect("no harm") != Report::Tick {}
    assert_eq!(rig.sys.process(TARGET.0).killed_by, None);
}

/// Were the step not taken back, the thread would trap later, and be killed by it. (`Request::ClearStep` in `step.rs` left
/// out: this fails.)
#[test]
fn a_signal_that_preempts_a_step_ends_it() {
    let mut rig = rig(1);
    let at = rig.breakpoint(0x10);
    rig.sys.plan(A, &[Act::Execute(at), Act::Receive(kernel::SIGURG, Some(abi::SI_USER))]);
    let mut stop = rig.next_stop();
    rig.set_program_counter(&stop, at).expect("held");
    rig.step(&mut stop).expect("a signal came first");
    assert_eq!(stop.kind, StopKind::Signal(Signal(kernel::SIGURG)));
    assert_eq!(rig.rip(A), at);
    assert!(!rig.sys.thread(A).is_stepping, "it would step still");
    rig.resume(stop, Resume::Deliver).expect("resumed");
    assert_eq!(rig.wait().expect("nothing more"), Report::Tick);
    assert_eq!(rig.sys.process(TARGET.0).delivered, [(A, kernel::SIGURG, at)]);
    rig.leave(Vec::new());
}

/// The SIGSTOP of an earlier halt comes amid the step.
#[test]
fn our_own_sigstop_does_not_end_a_step() {
    let mut rig = rig(1);
    let at = rig.breakpoint(0x10);
    rig.sys.plan(A, &[Act::Execute(at)]);
    let mut stops = rig.halt(TARGET).expect("halted");
    assert!(!rig.sys.process(TARGET.0).pending.is_empty(), "it waits");
    rig.set_program_counter(&stops[0], at).expect("held");
    rig.step(&mut stops[0]).expect("stepped");
    assert_eq!((stops[0].kind, rig.rip(A)), (StopKind::Trap, at + 1));
    rig.restore(&stops[0]);
    for stop in stops {
        rig.detach(stop, Resume::Swallow).expect("detached");
    }
    rig.assert_unharmed();
}

#[test]
fn a_stop_signal_stops_the_process_until_sigcont() {
    let mut rig = rig(2);
    rig.sys.plan(A, &[Act::Receive(abi::SIGTSTP, Some(abi::SI_USER)), Act::Execute(TEXT + 0x50)]);
    for _ in 0..3 {
        assert_eq!(rig.wait().expect("nothing to tell"), Report::Tick);
    }
    assert_eq!(rig.rip(A), TEXT, "it does not run");
    rig.sys.process(TARGET.0).pending.push_back((abi::SIGCONT, 1));
    assert_eq!(rig.wait().expect("a tick, by which it is noticed"), Report::Tick);
    let stop = rig.next_stop();
    assert_eq!(stop.kind, StopKind::Signal(Signal(abi::SIGCONT)));
    rig.resume(stop, Resume::Deliver).expect("resumed");
    assert_eq!(rig.wait().expect("nothing more"), Report::Tick);
    rig.leave(Vec::new());
}

#[test]
fn a_stop_signal_with_a_handler_is_passed_on() {
    let mut rig = rig(1);
    rig.sys.process(TARGET.0).caught.insert(abi::SIGTSTP);
    rig.sys.plan(A, &[Act::Receive(abi::SIGTSTP, Some(abi::SI_USER))]);
    assert_eq!(rig.next_stop().kind, StopKind::Signal(Signal(abi::SIGTSTP)));
}

#[test]
fn a_stopped_process_is_left_stopped() {
    let mut rig = rig(1);
    rig.sys.plan(A, &[Act::Receive(abi::SIGSTOP, Some(abi::SI_USER))]);
    assert_eq!(rig.wait().expect("nothing to tell"), Report::Tick);
    for stop in rig.halt(TARGET).expect("halted") {
        rig.detach(stop, Resume::Deliver).expect("detached");
    }
    assert!(rig.sys.process(TARGET.0).was_left_stopped);
}
