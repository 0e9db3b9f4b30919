//! Which processes are told of.

use std::process::Command;

use memleax_targets::Target;

use super::corner::{Corner, Watch};
use super::talk;
use crate::harness::{has_program, program};

#[test]
fn by_name() {
    let Some(corner) = Corner::new() else { return };
    let watch = corner.watch(&["--name", "^acc"]);
    let truths = talk(corner.start(&Target::c("accounts").build()), &["allocate 5"]);
    corner.command(&mut Command::new("true")).status().expect("it runs");
    let told = watch.end();
    told.check(&truths[0]);
    assert_eq!(told.processes().count(), 1);
}

#[test]
fn by_user() {
    let Some(corner) = Corner::new() else { return };
    if !has_program("setpriv") {
        return memleax_targets::unable("setpriv is not installed");
    }
    let watch = corner.watch(&["--uid", "nobody"]);
    // Of a name that others may read, in a folder that they may enter.
    let own = corner.folder().join("accounts");
    std::fs::copy(Target::c("accounts").build().path, &own).expect("a copy");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--clear-groups"]).arg(&own);
    let truths = talk(memleax_targets::Process::start(&mut corner.command(&mut command)), &["allocate 5"]);
    talk(corner.start(&Target::c("accounts").build()), &["allocate 5"]);
    let told = watch.end();
    assert_eq!(told.check(&truths[0])["user"], "nobody");
    assert_eq!(told.processes().count(), 1);
}

#[test]
fn by_cgroup() {
    let (Some(corner), Some(other)) = (Corner::new(), Corner::new()) else { return };
    let program = Target::c("accounts").build();
    let watch = corner.watch(&[]);
    let truths = talk(corner.start(&program), &["allocate 5"]);
    talk(other.start(&program), &["allocate 6"]);
    let told = watch.end();
    told.check(&truths[0]);
    assert!(told.processes().all(|process| process["allocated"]["count"] != 6), "of the other cgroup");
}

/// No probe is set in any other process.
#[test]
fn by_process() {
    let Some(corner) = Corner::new() else { return };
    let program = Target::c("accounts").build();
    let (mut one, mut other) = (corner.start(&program), corner.start(&program));
    let pids = one.id().to_string();
    let watch = Watch::begin(&["--pid", &pids]);
    assert!(crate::harness::text_differences(other.id()).is_empty());
    one.ask("allocate 9");
    other.ask("allocate 8");
    let pid = one.id();
    one.quit();
    other.quit();
    let told = watch.end();
    assert_eq!(told.process(pid.into())["live"]["count"], 9);
    assert_eq!(told.processes().count(), 1);
}

#[test]
fn what_cannot_be_watched_is_said() {
    let ends = |arguments: &[&str]| {
        let output = program().arg("-a").args(arguments).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (status, errors) = ends(&["--cgroup", "/proc"]);
    assert_eq!(status, Some(1), "{errors}");
    assert!(errors.contains("cannot watch the cgroup /proc: ") && errors.contains("give its folder"), "{errors}");
    let (status, errors) = ends(&["--pid", "999999999"]);
    assert_eq!(status, Some(1), "{errors}");
    assert!(errors.contains("cannot watch process 999999999"), "{errors}");
    if has_program("setpriv") && nix::unistd::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-all", "--inh-caps=-all"]).arg(program().get_program()).arg("-a");
        let output = command.output().expect("it runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains("cannot watch all processes") && errors.contains("run it as root"), "{errors}");
    }
}
