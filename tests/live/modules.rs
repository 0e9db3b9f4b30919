//! Libraries that come and go, and code without unwind information.

use std::fs;

use memleax_targets::{Process, Target, Truth, target_directory};

use crate::harness::{
    CallStack, Monitor, Report, State, assert_truth, check_ground_truth, may_trace, program_symbols, text_differences,
};

fn plugin() -> String {
    library(&[])
}

fn library(flags: &[&str]) -> String {
    let plugin = Target::c("plugin").flags(&["-shared", "-fPIC"]).flags(flags).build();
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
    let monitor = Monitor::attach(&target, &[]);
    let mut ignored = Truth::default().ignored;
    if monitor_from_start {
        ignored = target.truth(&load).ignored;
    }
    target.ask("go 5");
    if unload {
        target.ask("unload");
    }
    let symbols = program_symbols(&program, &target);
    let (report, mut truth) = interrupt_after_all(&mut target, monitor);
    truth.ignored = ignored;
    assert_truth(&report, &truth, &symbols);
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

/// It is there for less than a millisecond, and nobody has seen it.
#[test]
fn library_loaded_and_unloaded_at_once() {
    if !may_trace() {
        return;
    }
    let program = Target::c("dlopen").libraries(&["-ldl"]).build();
    let mut target = program.start();
    let monitor = Monitor::attach(&target, &[]);
    let ignored = target.truth(&format!("once {}", plugin())).ignored;
    let symbols = program_symbols(&program, &target);
    let (report, mut truth) = interrupt_after_all(&mut target, monitor);
    truth.ignored = ignored;
    assert_truth(&report, &truth, &symbols);
    target.quit();
}

/// What leaked in the plugin by a function of this name: in all, and by call stacks that are there to main. The others say that they
/// are not.
fn leaked_in(report: &Report, function: &str) -> (u64, u64) {
    let (mut all, mut complete) = (0, 0);
    let is_of = |stack: &&CallStack| stack.frames.iter().any(|frame| frame.is(function));
    for stack in report.statistics.iter().filter(is_of) {
        let names: Vec<_> = stack.frames.iter().map(|frame| frame.function.as_deref().unwrap_or_default()).collect();
        let right = ["malloc", function, "plugin_leak", "call_plugin", "main"];
        let is_complete = names == right;
        assert!(is_complete || (right.starts_with(&names) && !stack.remarks.is_empty()), "{report:?}");
        all += stack.may_leak.blocks;
        complete += if is_complete { stack.may_leak.blocks } else { 0 };
    }
    (all, complete)
}

/// Ends memleax when all that leaked until now has expired: what the dynamic linker keeps, too, so leaks cannot be counted.
fn interrupt_after_all(target: &mut Process, mut monitor: Monitor) -> (Report, Truth) {
    let truth = target.truth("mark");
    while !monitor.next().expect("it goes on").contains("leave_mark()") {}
    (monitor.interrupt(), truth)
}

/// A library that is loaded where another was, with calls at the same addresses: each has its own call stacks.
#[test]
fn library_in_the_place_of_another() {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("dlopen").libraries(&["-ldl"]).start();
    let mut monitor = Monitor::attach(&target, &[]);
    target.ask(&format!("load {}", plugin()));
    target.ask("go 3");
    // What the dynamic linker keeps counts, too.
    monitor.wait_for_leaks(1);
    target.ask(&format!("other {}", library(&["-DDEEP=deep_in_other", "-DALLOCATOR"])));
    while !monitor.next().expect("it goes on").contains("rpmalloc") {}
    target.ask("go 4");
    let (report, _) = interrupt_after_all(&mut target, monitor);
    assert_eq!(leaked_in(&report, "deep_in_plugin"), (3, 3), "{report:?}");
    assert_eq!(leaked_in(&report, "deep_in_other"), (4, 4), "{report:?}");
    target.quit();
}

/// The same, with other frames, and before memleax can have seen it: its call stacks are right, or end where that is not sure and say so.
#[test]
fn library_in_the_place_of_another_at_once() {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("dlopen").libraries(&["-ldl"]).start();
    let mut monitor = Monitor::attach(&target, &[]);
    target.ask(&format!("load {}", plugin()));
    target.ask("go 3");
    // What the dynamic linker keeps counts, too.
    monitor.wait_for_leaks(1);
    target.ask(&format!("swap {}", library(&["-DDEEP=deep_in_other", "-DFRAME=500"])));
    monitor.wait_for_leaks(1);
    // By now memleax has seen it.
    target.ask("go 4");
    let (report, _) = interrupt_after_all(&mut target, monitor);
    assert_eq!(leaked_in(&report, "deep_in_plugin"), (3, 3), "{report:?}");
    let (all, complete) = leaked_in(&report, "deep_in_other");
    assert!(all == 9 && complete >= 4, "{all}, {complete}: {report:?}");
    target.quit();
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
