//! What options and surroundings change.

use std::fs::{self, File};
use std::process::Stdio;
use std::time::Instant;

use memleax_targets::{Target, patience, target_directory};
use nix::sys::signal::Signal;

use crate::harness::{self, Backend, Monitor, State, assert_truth, may_trace, program_symbols};

/// `--mmap`: anonymous mappings are blocks, too; those that the allocator makes for itself are not.
#[test]
fn mappings() {
    if !may_trace() {
        return;
    }
    let program = Target::c("mappings").build();
    let mut target = program.start();
    let before = State::of(&target);
    let mut monitor = Monitor::attach(&target, &["--mmap"]);
    target.ask("go 3");
    let truth = target.truth("go 1");
    monitor.wait_for_leaks(truth.blocks());
    let symbols = program_symbols(&program, &target);
    assert_truth(&monitor.interrupt(), &truth, &symbols);
    before.assert_restored(&target);
    target.quit();
}

/// `-c`: monitoring ends when so many call stacks have leaked.
#[test]
fn call_stack_limit() {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("leak_sites").start();
    let before = State::of(&target);
    let monitor = Monitor::attach(&target, &["--call-stacks", "5"]);
    target.ask("go 2");
    let report = monitor.finish();
    assert!(report.says("== 5 CallStacks gets memory leak."), "{report:?}");
    before.assert_restored(&target);
    target.quit();
}

/// `--stop-after`: monitoring ends when so many blocks have leaked, wherever; what was freed in time or late is none.
#[test]
fn leak_limit() {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("leak_sites").start();
    let before = State::of(&target);
    let mut monitor = Monitor::attach(&target, &["--stop-after", "7"]);
    let first = target.truth("go 0").blocks();
    let truth = target.truth("go 1");
    assert!(truth.blocks() - first >= 7, "{truth:?}");
    let (status, report) = monitor.wait();
    assert!(status.success(), "{report:?}");
    let may_leak: u64 = report.statistics.iter().map(|stack| stack.may_leak.blocks).sum();
    assert!(report.says(&format!("== {may_leak} memory blocks leaked in all.")), "{report:?}");
    // What keeps the books itself tells what has expired at each of its looks.
    assert!(if Backend::under_test() == Backend::Bpf { may_leak >= 7 } else { may_leak == 7 }, "{report:?}");
    before.assert_restored(&target);
    target.quit();
}

/// `-l`: the backtrace is cut there, and says so.
#[test]
fn depth_limit() {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("leak_sites").start();
    let mut monitor = Monitor::attach(&target, &["-l", "3"]);
    let truth = target.truth("go 1");
    monitor.wait_for_leaks(truth.blocks());
    let report = monitor.interrupt();
    let recursion = report.statistics.iter().find(|stack| stack.frames.iter().any(|frame| frame.is("recurse")));
    let stack = recursion.unwrap_or_else(|| panic!("{report:?}"));
    assert_eq!(stack.frames.iter().filter(|frame| frame.address.is_some()).count(), 3, "{report:?}");
    assert!(stack.remarks.iter().any(|remark| remark.contains("depth limit")), "{report:?}");
    target.quit();
}

/// `--live-output`: the report goes on in a new file when the old one is renamed, as logrotate does; nothing is lost on the way.
#[test]
fn report_to_a_file_that_is_rotated() {
    if !may_trace() {
        return;
    }
    let directory = tempfile::tempdir_in(target_directory()).expect("a temporary directory");
    let [path, first, second] = ["report", "report.1", "report.2"].map(|name| directory.path().join(name));
    fs::write(&path, "yesterday\n").expect("a file");
    let mut target = Target::c("crash").start();
    let mut monitor = Monitor::spawn(target.id(), &["--live-output", path.to_str().expect("UTF-8")]);
    let wait_for = |text: &str| {
        let begin = Instant::now();
        while !fs::read_to_string(&path).is_ok_and(|report| report.contains(text)) {
            assert!(begin.elapsed() < patience(), "no {text:?} in {:?}", fs::read_to_string(&path));
            std::thread::yield_now();
        }
    };
    wait_for("== Begin monitoring");
    target.ask("go 2");
    wait_for("2 times again\n");
    fs::rename(&path, &second).expect("it is renamed");
    target.ask("go 3");
    wait_for("5 times again\n");
    fs::rename(&path, &first).expect("it is renamed");
    monitor.signal(Signal::SIGINT);
    let (status, report) = monitor.wait();
    assert!(status.success() && report.lines.is_empty() && report.errors.is_empty(), "{report:?}");
    let [last, middle, beginning] = [&path, &first, &second].map(|path| fs::read_to_string(path).expect("a file"));
    assert!(beginning.starts_with("yesterday\n== Begin monitoring"), "{beginning}");
    assert!(beginning.ends_with('\n') && middle.starts_with("CallStack[1]: memory expires"), "{beginning}{middle}");
    assert!(last.contains("== Terminate monitoring.") && last.contains("may-leak=5 "), "{last}");
    target.quit();
}

/// Each line is in the file as soon as it is printed, whatever becomes of memleax.
#[test]
fn report_to_a_file() {
    if !may_trace() {
        return;
    }
    let directory = tempfile::tempdir_in(target_directory()).expect("a temporary directory");
    let path = directory.path().join("report");
    let mut target = Target::c("crash").start();
    let mut command = harness::memleax();
    command.args(["--expire", "100ms", &target.id().to_string()]).stdout(File::create(&path).expect("a file"));
    let mut memleax = command.stdin(Stdio::null()).spawn().expect("memleax starts");
    let wait_for = |text: &str| {
        let begin = Instant::now();
        while !fs::read_to_string(&path).expect("a file").contains(text) {
            assert!(begin.elapsed() < patience(), "no {text:?} in {:?}", fs::read_to_string(&path));
            std::thread::yield_now();
        }
    };
    wait_for("== Begin monitoring");
    target.ask("go 3");
    wait_for("3 times again\n");
    memleax.kill().expect("our own child");
    memleax.wait().expect("our own child");
    target.ask("go 1");
    target.quit();
}
