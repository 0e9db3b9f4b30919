//! Whatever becomes of memleax's own terminal, output and input, the target is left as it was.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use memleax_targets::{Process, Target};
use nix::sys::signal::Signal;

use crate::harness::{self, Backend, Monitor, State, may_trace, tracer_of};

fn memleax(target: &Process, stdout: impl Into<Stdio>) -> Child {
    harness::memleax()
        .args(["--expire", "1", &target.id().to_string()])
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::null())
        .spawn()
        .expect("memleax starts")
}

/// A stopped memleax would stop its target with it.
#[test]
fn stop_signals_of_the_terminal_are_refused() {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("crash").start();
    let before = State::of(&target);
    let mut monitor = Monitor::attach(&target, &[]);
    for signal in [Signal::SIGTTIN, Signal::SIGTTOU, Signal::SIGTSTP] {
        monitor.signal(signal);
    }
    while !monitor.next().expect("it goes on").contains("Not stopped") {}
    target.ask("go 1");
    monitor.interrupt();
    before.assert_restored(&target);
    target.quit();
}

/// As under `nohup`.
#[test]
fn a_hangup_that_is_ignored_stays_so() {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("crash").start();
    let mut command = Command::new("sh");
    let script = r#"trap "" HUP; exec "$0" --backend "$1" --expire 1 "$2""#;
    let backend = Backend::under_test();
    command.args(["-c", script, env!("CARGO_BIN_EXE_memleax"), backend.name(), &target.id().to_string()]);
    let mut monitor = Process::spawn(&mut command);
    while !monitor.line().expect("it attaches").contains("Hooked in") {}
    monitor.signal(Signal::SIGHUP);
    target.ask("go 1");
    if backend == Backend::Ptrace {
        assert_eq!(tracer_of(target.id()), monitor.id());
    }
    monitor.signal(Signal::SIGTERM);
    assert!(monitor.wait().0.success());
    target.quit();
}

#[test]
fn a_reader_that_goes_away_ends_it() {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("crash").start();
    let before = State::of(&target);
    let mut monitor = memleax(&target, Stdio::piped());
    let mut reader = BufReader::new(monitor.stdout.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("Hooked in") {
        line.clear();
        assert_ne!(reader.read_line(&mut line).expect("readable"), 0, "memleax ended early");
    }
    drop(reader);
    target.ask("go 1");
    let status = monitor.wait().expect("our child");
    assert_eq!(status.code(), Some(0), "{status}");
    before.assert_restored(&target);
    target.quit();
}

#[test]
fn a_full_disk_ends_it() {
    if !may_trace() {
        return;
    }
    let target = Target::c("crash").start();
    let before = State::of(&target);
    let full = File::create("/dev/full").expect("/dev/full");
    let status = memleax(&target, full).wait().expect("our child");
    assert_eq!(status.code(), Some(3), "{status}");
    before.assert_restored(&target);
    target.quit();
}

#[test]
fn a_debug_file_of_another_program_is_refused() {
    if !may_trace() {
        return;
    }
    let target = Target::c("crash").start();
    let before = State::of(&target);
    for (file, why) in [(env!("CARGO_BIN_EXE_memleax"), "build id"), ("/nonexistent.debug", "No such file")] {
        let mut monitor = Monitor::spawn(target.id(), &["--debug-file", file]);
        let (status, report) = monitor.wait();
        assert_eq!(status.code(), Some(1), "{report:?}");
        assert!(report.errors.contains(file) && report.errors.contains(why), "{report:?}");
        before.assert_restored(&target);
    }
    target.quit();
}
