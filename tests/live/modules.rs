//! Libraries that come and go, and code without unwind information.

use std::fs;

use memleax_targets::{Target, target_directory};

use crate::harness::{Monitor, State, assert_truth, check_ground_truth, may_trace, program_symbols, text_differences};

fn plugin() -> String {
    let plugin = Target::c("plugin").flags(&["-shared", "-fPIC"]).build();
    plugin.path.to_str().expect("test paths are UTF-8").to_owned()
}

/// A library loaded after attach: its frames are named, also when it is unloaded before the end.
fn dlopen(unload: bool, monitor_from_start: bool) {
    if !may_trace() {
        return;
    }
    let program = Target::c("dlopen").libraries(&["-ldl"]).build();
    let mut target = program.start();
    let load = format!("load {}", plugin());
    if !monitor_from_start {
        target.ask(&load);
    }
    let mut monitor = Monitor::attach(&target, &[]);
    let mut ignored = memleax_targets::Truth::default().ignored;
    if monitor_from_start {
        ignored = target.truth(&load).ignored;
    }
    let mut truth = target.truth("go 5");
    truth.ignored = ignored;
    if unload {
        target.ask("unload");
    }
    monitor.wait_for_leaks(truth.blocks());
    let symbols = program_symbols(&program, &target);
    assert_truth(&monitor.interrupt(), &truth, &symbols);
    assert_eq!(text_differences(target.id()), Vec::<String>::new());
    target.quit();
}

#[test]
fn library_loaded_before() {
    dlopen(false, false);
}

#[test]
fn library_loaded_while_watched() {
    dlopen(false, true);
}

#[test]
fn library_loaded_and_unloaded_while_watched() {
    dlopen(true, true);
}

/// Loading and unloading again and again neither harms the target nor confuses memleax.
#[test]
fn library_loaded_again_and_again() {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("dlopen").libraries(&["-ldl"]).start();
    let load = format!("load {}", plugin());
    let monitor = Monitor::attach(&target, &[]);
    for _ in 0..20 {
        target.ask(&load);
        target.ask("go 2");
        target.ask("unload");
    }
    monitor.interrupt();
    assert_eq!(text_differences(target.id()), Vec::<String>::new());
    target.quit();
}

/// Frames beyond such code are right, or are not there and the report says why.
#[test]
fn code_without_unwind_information() {
    if !may_trace() {
        return;
    }
    let program = Target::c("nocfi").build();
    let target = program.start();
    let (report, _) = check_ground_truth(&program, target, "go 3");
    for stack in &report.statistics {
        let names: Vec<_> = stack.frames.iter().skip(3).map(|frame| frame.function.as_deref()).collect();
        let said = !stack.remarks.is_empty();
        assert!(names == [Some("main")] || (names.is_empty() && said), "{report:?}");
    }
}

/// The executable was deleted, and another program stands at its path: names come from the one that runs.
#[test]
fn replaced_executable() {
    if !may_trace() {
        return;
    }
    let built = Target::c("crash").build();
    let directory = tempfile::tempdir_in(target_directory()).expect("a temporary directory");
    let mut program = built.clone();
    program.path = directory.path().join("program");
    fs::copy(&built.path, &program.path).expect("a copy");
    let mut target = program.start();
    fs::remove_file(&program.path).expect("removed");
    fs::copy(&Target::c("exec").build().path, &program.path).expect("another program");
    let before = State::of(&target);
    let mut monitor = Monitor::attach(&target, &[]);
    target.ask("go 2");
    let truth = target.truth("go 1");
    monitor.wait_for_leaks(truth.blocks());
    let report = monitor.interrupt();
    let stack = &report.statistics[0];
    assert_eq!((stack.may_leak.blocks, stack.may_leak.bytes), (3, 3 * 87), "{report:?}");
    let names: Vec<_> = stack.frames.iter().take(3).map(|frame| frame.function.as_deref()).collect();
    assert_eq!(names, [Some("malloc"), Some("leak_before_end"), Some("main")], "{report:?}");
    before.assert_restored(&target);
    target.quit();
}

/// `-d`: the stripped executable's names come from the file given.
#[test]
fn separate_debug_file() {
    if !may_trace() {
        return;
    }
    let program = Target::c("crash").stripped().build();
    let mut target = program.start();
    let debug_file = program.unstripped.to_str().expect("test paths are UTF-8");
    let mut monitor = Monitor::attach(&target, &["--debug-file", debug_file]);
    let truth = target.truth("go 2");
    monitor.wait_for_leaks(truth.blocks());
    let report = monitor.interrupt();
    let frame = &report.statistics[0].frames[1];
    assert!(frame.is("leak_before_end"), "{report:?}");
    assert!(frame.file.as_deref().is_some_and(|file| file.ends_with("crash.c")), "{report:?}");
    target.quit();
}
