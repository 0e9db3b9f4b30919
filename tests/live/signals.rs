//! Signals, stops and the target's own traps work as if nobody watched.

use memleax_targets::{Process, Target};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use crate::harness::{Monitor, State, assert_truth, check_ground_truth, may_trace, program_symbols, text_differences};

fn watched(check: impl FnOnce(&mut Process)) {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("signals").start();
    let monitor = Monitor::attach(&target, &[]);
    check(&mut target);
    monitor.interrupt();
    assert_eq!(text_differences(target.id()), Vec::<String>::new());
    target.quit();
}

#[test]
fn own_trap_handler_from_before() {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("signals").start();
    target.ask("handler");
    let before = State::of(&target);
    let monitor = Monitor::attach(&target, &[]);
    assert_eq!(target.ask("raise 20"), ["traps 20 wrong 0"]);
    assert_eq!(target.ask("int3 20"), ["traps 20 wrong 0"]);
    monitor.interrupt();
    before.assert_restored_but_for_guard(&target);
    assert_eq!(target.ask("mask"), ["mask 1"]);
    assert_eq!(target.ask("raise 2"), ["traps 2 wrong 0"]);
    target.quit();
}

#[test]
fn own_trap_handler_from_while_watched() {
    watched(|target| {
        target.ask("handler");
        assert_eq!(target.ask("raise 20"), ["traps 20 wrong 0"]);
        assert_eq!(target.ask("int3 20"), ["traps 20 wrong 0"]);
    });
}

/// After memleax was killed, the guard still hands the target's own traps to its handler.
#[test]
fn own_traps_after_a_sigkill() {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("signals").start();
    target.ask("handler");
    let monitor = Monitor::attach(&target, &[]);
    assert_eq!(target.ask("raise 2"), ["traps 2 wrong 0"]);
    monitor.kill();
    assert_eq!(target.ask("raise 20"), ["traps 20 wrong 0"]);
    assert_eq!(target.ask("int3 20"), ["traps 20 wrong 0"]);
    target.quit();
}

#[test]
fn trap_with_the_default_action_kills() {
    if !may_trace() {
        return;
    }
    for killed in [false, true] {
        let mut target = Target::c("signals").start();
        let monitor = Monitor::attach(&target, &[]);
        let watching = if killed {
            monitor.kill();
            None
        } else {
            Some(monitor)
        };
        target.send("raise 1");
        let (status, _) = target.wait();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(Signal::SIGTRAP as i32), "{status}");
        if let Some(monitor) = watching {
            assert!(monitor.finish().says("== Target process exit."));
        }
    }
}

#[test]
fn ignored_trap() {
    watched(|target| assert_eq!(target.ask("ignore"), ["alive"]));
}

#[test]
fn queued_values() {
    watched(|target| assert_eq!(target.ask("value 100"), ["values 100"]));
}

#[test]
fn timer_at_1_khz() {
    watched(|target| assert_eq!(target.ask("timer 500"), ["ticks 500"]));
}

#[test]
fn faults_that_the_target_handles() {
    watched(|target| assert_eq!(target.ask("fault 50"), ["faults 50"]));
}

/// SIGSTOP stops, SIGCONT continues, and the parent hears of both, as without memleax.
#[test]
fn stop_and_continue() {
    for stop in [Signal::SIGSTOP, Signal::SIGTSTP] {
        watched(|target| {
            for _ in 0..3 {
                target.signal(stop);
                let stopped = waitpid(target.pid(), Some(WaitPidFlag::WUNTRACED)).expect("our child");
                assert_eq!(stopped, WaitStatus::Stopped(target.pid(), stop));
                target.signal(Signal::SIGCONT);
                let continued = waitpid(target.pid(), Some(WaitPidFlag::WCONTINUED)).expect("our child");
                assert_eq!(continued, WaitStatus::Continued(target.pid()));
                assert_eq!(target.ask("value 3"), ["values 3"]);
            }
        });
    }
}

/// A target that is stopped stays so through attach and detach, and is observed once it goes on.
#[test]
fn attach_to_a_stopped_target() {
    if !may_trace() {
        return;
    }
    let program = Target::c("signals").build();
    let mut target = program.start();
    target.signal(Signal::SIGSTOP);
    waitpid(target.pid(), Some(WaitPidFlag::WUNTRACED)).expect("our child");
    Monitor::attach(&target, &[]).interrupt();
    assert!(is_stopped(&target), "stopped before, and so after");
    let mut monitor = Monitor::attach(&target, &[]);
    assert!(is_stopped(&target), "attaching starts nothing");
    target.signal(Signal::SIGCONT);
    let truth = target.truth("leak 3");
    monitor.wait_for_leaks(3);
    let symbols = program_symbols(&program, &target);
    assert_truth(&monitor.interrupt(), &truth, &symbols);
    target.quit();
}

fn is_stopped(target: &Process) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", target.id())).expect("a living target");
    // Traced or not.
    status.lines().any(|line| line.starts_with("State:\tT") || line.starts_with("State:\tt"))
}

/// A thread that blocks SIGTRAP is observed like any other, and blocks it again afterwards.
#[test]
fn trap_blocked() {
    if !may_trace() {
        return;
    }
    let program = Target::c("trap_blocked").build();
    check_ground_truth(&program, program.start(), "go 5");
}

/// It survives the death of memleax like any other, too.
#[test]
fn trap_blocked_and_memleax_killed() {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("trap_blocked").start();
    let monitor = Monitor::attach(&target, &[]);
    target.ask("go 5");
    monitor.kill();
    target.ask("go 5");
    target.quit();
}
