//! fork, vfork, posix_spawn, system, popen, exec.

use memleax_targets::Target;

use crate::harness::{Monitor, State, assert_truth, may_trace, program_symbols, rounds, text_differences};

/// 50 forks with 3 busy threads: no child dies of a breakpoint in its copy of the code, and the parent stays observed.
#[test]
fn fifty_forks_with_busy_threads() {
    if !may_trace() {
        return;
    }
    let program = Target::c("forks").build();
    for _ in 0..rounds(1, 10) {
        let mut target = program.start();
        let mut monitor = Monitor::attach(&target, &["--expired-blocks", "10000"]);
        let answer = target.ask("go 50");
        assert_eq!(answer[0], "children 50 0", "{answer:?}");
        let truth = memleax_targets::Truth::parse(&answer);
        monitor.wait_for_leaks(truth.blocks());
        let symbols = program_symbols(&program, &target);
        assert_truth(&monitor.interrupt(), &truth, &symbols);
        // Its children are as well without memleax.
        assert_eq!(target.ask("go 5")[0], "children 5 0");
        assert_eq!(text_differences(target.id()), Vec::<String>::new());
        target.quit();
    }
}

#[test]
fn forks_static_musl() {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("forks").compiler("musl-gcc").flags(&["-static"]).start();
    let monitor = Monitor::attach(&target, &[]);
    assert_eq!(target.ask("go 20")[0], "children 20 0");
    monitor.interrupt();
    assert_eq!(target.ask("go 5")[0], "children 5 0");
    target.quit();
}

/// Every way to start a program; the parent is observed as before afterwards.
#[test]
fn spawned_programs() {
    if !may_trace() {
        return;
    }
    let program = Target::c("spawn").build();
    let mut target = program.start();
    let before = State::of(&target);
    let mut monitor = Monitor::attach(&target, &[]);
    let answer = target.ask("go 5");
    assert_eq!(answer[0], "spawned 25 0", "{answer:?}");
    let truth = target.truth("leak 10");
    assert_eq!(truth.blocks(), 35);
    monitor.wait_for_leaks(truth.blocks());
    let symbols = program_symbols(&program, &target);
    assert_truth(&monitor.interrupt(), &truth, &symbols);
    before.assert_restored(&target);
    target.quit();
}

/// memleax is killed while children come and go; neither parent nor children suffer.
#[test]
fn forks_while_memleax_is_killed() {
    if !may_trace() {
        return;
    }
    for _ in 0..rounds(3, 30) {
        let mut target = Target::c("forks").start();
        let monitor = Monitor::attach(&target, &[]);
        target.send("go 30");
        monitor.kill();
        let answer = target.answer("go 30");
        assert_eq!(answer[0], "children 30 0");
        target.quit();
    }
}

/// The new image is observed from its start, as the old one was.
fn exec(target: Target) {
    if !may_trace() {
        return;
    }
    let program = target.build();
    let mut target = program.start();
    let mut monitor = Monitor::attach(&target, &[]);
    target.ask("go 2");
    target.send("exec");
    assert_eq!(target.line().as_deref(), Some("READY"));
    let before = target.truth("go 4");
    let truth = target.truth("go 1");
    assert_eq!((before.blocks(), truth.blocks()), (4, 5));
    monitor.wait_for_leaks(truth.blocks());
    let symbols = program_symbols(&program, &target);
    let report = monitor.interrupt();
    assert_truth(&report, &truth, &symbols);
    assert_eq!(text_differences(target.id()), Vec::<String>::new());
    target.quit();
}

#[test]
fn exec_pie() {
    exec(Target::c("exec"));
}

#[test]
fn exec_position_dependent() {
    exec(Target::c("exec").flags(&["-no-pie", "-fno-pie"]));
}

#[test]
fn exec_static() {
    exec(Target::c("exec").flags(&["-static"]));
}

#[test]
fn exec_static_musl() {
    exec(Target::c("exec").compiler("musl-gcc").flags(&["-static"]));
}

#[test]
fn exec_dynamic_musl() {
    exec(Target::c("exec").compiler("musl-gcc"));
}
