//! The target survives whatever becomes of memleax.

use memleax_targets::{Process, Program, Target};
use nix::sys::signal::Signal;

use crate::harness::{
    Backend, Monitor, State, assert_truth, may_trace, program_symbols, rounds, since, text_differences, tracer_of,
};

/// Ends memleax by a signal in the middle of four busy threads; the target must be alive, working and as it was.
fn ended_by(signal: Signal, cycles: usize) {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("threads").start();
    let before = State::of(&target);
    target.ask("busy");
    for _ in 0..cycles {
        let monitor = Monitor::attach(&target, &[]);
        target.ask("progress");
        monitor.end(signal);
        assert_eq!(text_differences(target.id()), Vec::<String>::new());
        assert_eq!(tracer_of(target.id()), 0);
        target.ask("progress");
    }
    target.ask("idle");
    before.assert_restored(&target);
    target.quit();
}

#[test]
fn ctrl_c() {
    ended_by(Signal::SIGINT, rounds(15, 100));
}

#[test]
fn term() {
    ended_by(Signal::SIGTERM, rounds(15, 100));
}

#[test]
fn hup() {
    ended_by(Signal::SIGHUP, rounds(3, 20));
}

#[test]
fn second_ctrl_c_does_not_skip_the_detach() {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("threads").start();
    let before = State::of(&target);
    target.ask("busy");
    for _ in 0..rounds(5, 50) {
        let monitor = Monitor::attach(&target, &[]);
        target.ask("progress");
        monitor.signal(Signal::SIGINT);
        monitor.interrupt();
        target.ask("progress");
    }
    target.ask("idle");
    before.assert_restored(&target);
    target.quit();
}

#[test]
fn limit_reached() {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("threads").start();
    let before = State::of(&target);
    for _ in 0..rounds(5, 50) {
        let monitor = Monitor::attach(&target, &["--expired-blocks", "50", "--expire", "10ms"]);
        // Leaks, then goes on churning while the limit is reached.
        target.ask("go 50");
        target.ask("busy");
        let report = monitor.finish();
        assert!(report.says("memory blocks leaked at CallStack["), "{report:?}");
        target.ask("progress");
        target.ask("idle");
        before.assert_restored(&target);
    }
    target.quit();
}

#[test]
fn duration_reached() {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("threads").start();
    let before = State::of(&target);
    target.ask("busy");
    for _ in 0..rounds(5, 50) {
        Monitor::attach(&target, &["--duration", "50ms"]).finish();
        target.ask("progress");
    }
    target.ask("idle");
    before.assert_restored(&target);
    target.quit();
}

/// Probes are the kernel's, and go with who holds them.
fn nothing_is_left_by_the_kernel(target: &Process) {
    if Backend::under_test() == Backend::Bpf {
        assert_eq!(text_differences(target.id()), Vec::<String>::new());
    }
}

/// By ptrace, SIGKILL leaves breakpoints behind, which the guard inside the target handles; the next memleax cleans up.
fn killed(program: &Program, cycles: usize) {
    if !may_trace() {
        return;
    }
    for _ in 0..cycles {
        let mut target = program.start();
        target.ask("busy");
        let monitor = Monitor::attach(&target, &[]);
        target.ask("progress");
        monitor.kill();
        nothing_is_left_by_the_kernel(&target);
        target.ask("progress");
        assert_eq!(tracer_of(target.id()), 0);
        target.quit();
    }
}

#[test]
fn sigkill() {
    killed(&Target::c("threads").build(), rounds(15, 100));
}

#[test]
fn sigkill_static_musl() {
    killed(&Target::c("threads").compiler("musl-gcc").flags(&["-static"]).build(), rounds(3, 20));
}

/// Killed at once, when the first breakpoints and the code beside them are being made.
#[test]
fn sigkill_at_the_first_calls() {
    if !may_trace() {
        return;
    }
    let program = Target::c("threads").build();
    for _ in 0..rounds(15, 100) {
        let mut target = program.start();
        let monitor = Monitor::attach(&target, &[]);
        target.send("busy");
        monitor.kill();
        target.answer("busy");
        target.ask("progress");
        target.quit();
    }
}

/// Killed while it attaches: as soon as the kernel names it as the tracer, or sets its first probe.
#[test]
fn sigkill_while_attaching() {
    if !may_trace() {
        return;
    }
    let program = Target::c("threads").build();
    for _ in 0..rounds(15, 100) {
        let mut target = program.start();
        target.ask("busy");
        let monitor = Monitor::spawn(target.id(), &[]);
        monitor.wait_until_it_attaches(&target);
        monitor.kill();
        nothing_is_left_by_the_kernel(&target);
        target.ask("progress");
        target.quit();
    }
}

/// The same target, killed memleax after killed memleax, and a last one that puts everything right.
#[test]
fn sigkill_then_attach_again() {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("threads").start();
    let before = Signals::of(&target);
    target.ask("busy");
    for _ in 0..rounds(5, 50) {
        let monitor = Monitor::attach(&target, &[]);
        target.ask("progress");
        monitor.kill();
        target.ask("progress");
    }
    let monitor = Monitor::attach(&target, &[]);
    target.ask("progress");
    monitor.interrupt();
    target.ask("progress");
    target.ask("idle");
    assert_eq!(text_differences(target.id()), Vec::<String>::new());
    assert_eq!(before, Signals::of(&target));
    target.quit();
}

/// Leaks planted while nobody watches are seen by nobody; those after the second attach all are.
#[test]
fn counts_are_right_after_a_sigkill() {
    if !may_trace() {
        return;
    }
    let program = Target::c("threads").build();
    let mut target = program.start();
    let monitor = Monitor::attach(&target, &[]);
    target.ask("go 10");
    monitor.kill();
    let unseen = target.truth("go 10");
    let mut monitor = Monitor::attach(&target, &[]);
    let truth = since(&target.truth("go 20"), &unseen);
    monitor.wait_for_leaks(truth.blocks());
    let symbols = program_symbols(&program, &target);
    assert_truth(&monitor.interrupt(), &truth, &symbols);
    target.quit();
}

/// A target killed at any time ends like any other process, with its tracer none the worse.
#[test]
fn target_killed_while_busy() {
    if !may_trace() {
        return;
    }
    for _ in 0..rounds(3, 20) {
        let mut target = Target::c("threads").start();
        target.ask("busy");
        let monitor = Monitor::attach(&target, &[]);
        target.ask("progress");
        target.signal(Signal::SIGKILL);
        let report = monitor.finish();
        assert!(report.says("== Target process exit."), "{report:?}");
    }
}

/// The signal dispositions, without the mappings: what a killed memleax mapped may stay.
#[derive(Debug, PartialEq, Eq)]
struct Signals(Vec<String>);

impl Signals {
    fn of(target: &Process) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{}/status", target.id())).expect("a living target");
        Signals(
            status
                .lines()
                .filter(|line| ["SigBlk", "SigIgn", "SigCgt"].iter().any(|name| line.starts_with(name)))
                .map(str::to_owned)
                .collect(),
        )
    }
}
