//! Threads that allocate at the same time, and threads that come and go.

use memleax_targets::Target;

use crate::harness::{
    Backend, Monitor, Report, State, assert_truth, may_trace, program_symbols, rounds, wait_until_idle,
};

/// Leaks planted by threads at the same time, ten pairs before each: all found, per site, and nothing else.
fn check_leaks_of_threads(target: &Target, command: &str, leaks: u64, rounds: usize) {
    if !may_trace() {
        return;
    }
    let program = target.build();
    for _ in 0..rounds {
        let mut target = program.start();
        let before = State::of(&target);
        let mut monitor = Monitor::attach(&target, &[]);
        let truth = target.truth(command);
        assert_eq!(truth.blocks(), leaks);
        monitor.wait_for_leaks(leaks);
        let symbols = program_symbols(&program, &target);
        assert_truth(&monitor.interrupt(), &truth, &symbols);
        before.assert_restored(&target);
        target.quit();
    }
}

#[test]
fn four_threads_800_leaks() {
    check_leaks_of_threads(&Target::c("threads"), "go 100", 800, rounds(3, 20));
}

/// 240,000 pairs among them.
#[test]
fn eight_threads_24000_leaks() {
    check_leaks_of_threads(&Target::c("threads").flags(&["-DTHREADS=8"]), "go 1500", 24_000, rounds(1, 20));
}

/// Eight threads create and join others all the while: attaching and detaching succeed, and the target goes on.
#[test]
fn thread_storm() {
    if !may_trace() {
        return;
    }
    let program = Target::c("storm").build();
    // The shim stops all of them for each, one by one.
    let progress = if Backend::under_test() == Backend::FreebsdShim { "go 20" } else { "go 200" };
    for _ in 0..rounds(3, 20) {
        let mut target = program.start();
        // The first thread of a process brings signal handlers of the C library.
        target.ask("storm");
        target.ask("stop");
        wait_until_idle(target.id());
        let before = State::of(&target);
        target.ask("storm");
        let monitor = Monitor::attach(&target, &[]);
        target.ask(progress);
        monitor.interrupt();
        // It makes as much progress again on its own.
        target.ask(progress);
        target.ask("stop");
        wait_until_idle(target.id());
        before.assert_restored(&target);
        target.quit();
    }
}

/// Attach and detach again and again while four threads are busy in the allocator.
#[test]
fn attach_and_detach_under_load() {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("threads").start();
    let before = State::of(&target);
    target.ask("busy");
    for _ in 0..rounds(30, 100) {
        let monitor = Monitor::attach(&target, &[]);
        target.ask("progress");
        monitor.interrupt();
        target.ask("progress");
    }
    target.ask("idle");
    before.assert_restored(&target);
    target.quit();
}

/// What `command` plants while a realloc does not end is found.
fn check_realloc_without_end(command: &str) -> Option<Report> {
    if !may_trace() {
        return None;
    }
    let program = Target::c("inflight").build();
    let mut target = program.start();
    let mut monitor = Monitor::attach(&target, &[]);
    let truth = target.truth(command);
    monitor.wait_for_leaks(truth.blocks());
    let symbols = program_symbols(&program, &target);
    let report = monitor.interrupt();
    assert_truth(&report, &truth, &symbols);
    target.quit();
    Some(report)
}

/// A block that `realloc` is just about is live: it expires, and counts when memleax detaches.
#[test]
fn block_in_flight() {
    check_realloc_without_end("begin");
}

/// A `realloc` that is left by longjmp leaves the block as it was.
#[test]
fn realloc_that_never_returns() {
    let Some(report) = check_realloc_without_end("leap") else { return };
    assert!(report.says("1 allocator call never returned"), "{report:?}");
}
