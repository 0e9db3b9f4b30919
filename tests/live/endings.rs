//! The target ends while it is watched: monitoring ends with statistics, and the target's end is its own.

use std::os::unix::process::ExitStatusExt;

use memleax_targets::Target;
use nix::sys::signal::Signal;

use crate::harness::{CallStack, Monitor, may_trace};

fn ends(target: Target, command: &str, code: Option<i32>, signal: Option<Signal>) {
    if !may_trace() {
        return;
    }
    let mut target = target.start();
    let mut monitor = Monitor::attach(&target, &[]);
    target.ask("go 4");
    monitor.wait_for_leaks(4);
    target.send(command);
    let (status, _) = target.wait();
    assert_eq!((status.code(), status.signal()), (code, signal.map(|signal| signal as i32)), "{status}");
    let report = monitor.finish();
    assert!(report.says("== Target process exit."), "{report:?}");
    // What starting a thread takes may have expired, too, where the machine is slow.
    let planted = |stack: &&CallStack| stack.frames.iter().any(|frame| frame.is("leak_before_end"));
    let [stack] = report.statistics.iter().filter(planted).collect::<Vec<_>>()[..] else { panic!("{report:?}") };
    assert_eq!((stack.may_leak.blocks, stack.may_leak.bytes), (4, 4 * 87));
}

#[test]
fn exit() {
    ends(Target::c("crash"), "exit 23", Some(23), None);
}

#[test]
fn exit_of_the_first_thread_before_the_last() {
    ends(Target::c("crash"), "thread_exit", Some(12), None);
}

#[test]
fn segmentation_fault() {
    ends(Target::c("crash"), "segv", None, Some(Signal::SIGSEGV));
}

#[test]
fn abort() {
    ends(Target::c("crash"), "abort", None, Some(Signal::SIGABRT));
}

#[test]
fn exit_static_musl() {
    ends(Target::c("crash").compiler("musl-gcc").flags(&["-static"]), "exit 23", Some(23), None);
}

#[test]
fn killed() {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("crash").start();
    let monitor = Monitor::attach(&target, &[]);
    target.ask("go 1");
    target.signal(Signal::SIGKILL);
    assert!(monitor.finish().says("== Target process exit."));
}

/// Nothing has expired: the report says that the time was too short.
#[test]
fn nothing_expired() {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("crash").start();
    let monitor = Monitor::attach(&target, &["--expire", "1h"]);
    target.ask("go 2");
    target.send("exit 0");
    let report = monitor.finish();
    assert!(report.statistics.is_empty(), "{report:?}");
    assert!(report.says("Your monitoring time is too short"), "{report:?}");
}
