//! What memleax cannot watch it refuses with a reason, and leaves alone.

use std::fs;
use std::process::Command;

use memleax_targets::{Process, Target};
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;

use crate::harness::{Monitor, State, assert_truth, may_trace, program_symbols, tracer_of};

/// Starts memleax on `pid`; it must fail with status 1 and say all of `words`.
fn refused(pid: u32, words: &[&str]) {
    let (status, report) = Monitor::spawn(pid, &[]).wait();
    assert_eq!(status.code(), Some(1), "{report:?}");
    for word in words {
        assert!(report.errors.contains(word), "no {word:?}: {report:?}");
    }
}

#[test]
fn no_such_process() {
    // Above any pid_max.
    refused(4_194_305, &["4194305", "no such process"]);
}

#[test]
fn zombie() {
    let target = Target::c("crash").start();
    target.signal(Signal::SIGKILL);
    // Dead but not reaped: its status says Z.
    let id = nix::sys::wait::Id::Pid(target.pid());
    nix::sys::wait::waitid(id, nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT)
        .expect("our child");
    refused(target.id(), &["zombie"]);
}

#[test]
fn kernel_thread() {
    let is_kthreadd = fs::read_to_string("/proc/2/comm").is_ok_and(|name| name.trim() == "kthreadd");
    if is_kthreadd && may_trace() {
        refused(2, &["thread of the kernel"]);
    }
}

#[test]
fn itself_and_init_are_left_alone() {
    if may_trace() {
        let mut own = Command::new("sh");
        own.args(["-c", r#"exec "$0" $$"#, env!("CARGO_BIN_EXE_memleax")]);
        let (status, _) = Process::spawn(&mut own).wait();
        assert_eq!(status.code(), Some(1));
    }
}

#[test]
fn no_allocator() {
    if !may_trace() {
        return;
    }
    let target = Target::c("crash").flags(&["-static"]).stripped().start();
    let before = State::of(&target);
    refused(target.id(), &["alloc"]);
    before.assert_restored(&target);
    target.quit();
}

#[test]
fn another_users_process() {
    if !nix::unistd::geteuid().is_root() {
        refused(1, &["1", "root"]);
        return;
    }
    // A copy that everybody may run, run by somebody who may not trace our child.
    let target = Target::c("crash").start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let copy = directory.path().join("memleax");
    fs::copy(env!("CARGO_BIN_EXE_memleax"), &copy).expect("a copy");
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(directory.path(), everybody).expect("permissions");
    let mut command = Command::new(&copy);
    command.arg(target.id().to_string());
    std::os::unix::process::CommandExt::uid(&mut command, 65534);
    let mut process = Process::spawn(&mut command);
    let (status, _) = process.wait();
    let errors = process.errors();
    assert_eq!(status.code(), Some(1), "{errors}");
    assert!(errors.contains(&target.id().to_string()), "{errors}");
    assert_eq!(tracer_of(target.id()), 0);
    target.quit();
}

/// A filter that kills the process for a system call of ours: no such call is made, and the leaks are found all the same.
#[test]
fn seccomp() {
    if !may_trace() {
        return;
    }
    let program = Target::c("seccomp").build();
    let mut target = program.start();
    let before = State::of(&target);
    let mut monitor = Monitor::attach(&target, &[]);
    let truth = target.truth("go 20");
    monitor.wait_for_leaks(truth.blocks());
    let symbols = program_symbols(&program, &target);
    let report = monitor.interrupt();
    assert_truth(&report, &truth, &symbols);
    assert!(report.says("seccomp") || report.errors.contains("seccomp"), "what it costs is said: {report:?}");
    before.assert_restored(&target);
    target.quit();
}

#[test]
fn thirty_two_bit() {
    if !may_trace() {
        return;
    }
    let target = Target::c("thirty_two").flags(&["-m32", "-nostdlib", "-static", "-fno-pic", "-no-pie"]).start();
    refused(target.id(), &["32-bit"]);
    target.quit();
}

/// Reaping is the parent's business; memleax takes no exit status away.
#[test]
fn exit_status_reaches_the_parent() {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("crash").start();
    let monitor = Monitor::attach(&target, &[]);
    target.send("exit 41");
    monitor.finish();
    let status = waitpid(target.pid(), None).expect("our child is ours to reap");
    assert_eq!(status, nix::sys::wait::WaitStatus::Exited(target.pid(), 41));
}
