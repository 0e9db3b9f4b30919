//! Targets in containers: other mounts, another root, other process ids, and paths that mean nothing outside.

use std::fs;
use std::process::Command;

use memleax_targets::{Process, Program, Target, target_directory};

use crate::harness::{CallStack, Monitor, Report, State, has_program, may_trace, text_differences};

/// The first program of a container, whose root holds it, the libraries that it needs, and nothing else.
struct Container {
    /// The one that waits for it, outside; its streams are the program's.
    process: Process,
    /// The program's process id, as it is outside.
    target: u32,
    _directory: tempfile::TempDir,
}

impl Container {
    /// `None`, having said why, where containers cannot be made. `files` are there, too, by their names.
    fn start(program: &Program, files: &[&str]) -> Option<Self> {
        if !may_trace() || !has_program("unshare") {
            return None;
        }
        if !nix::unistd::geteuid().is_root() {
            crate::harness::unable("a container is made by root");
            return None;
        }
        let directory = tempfile::tempdir_in(target_directory()).expect("a temporary directory");
        let script = r#"
            root="$1"; shift
            mount -t tmpfs none "$root" && mkdir "$root/proc" && mount -t proc proc "$root/proc" &&
            cp "$0" "$root/program" && cp --parents $(ldd "$0" | grep -o '/[^ ]*') "$root" &&
            for file; do cp "$file" "$root/" || exit; done &&
            exec chroot "$root" /program"#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script]);
        let process = Process::start(command.arg(&program.path).arg(directory.path()).args(files));
        assert!(!directory.path().join("program").exists(), "the program's path exists only inside");
        let children = format!("/proc/{0}/task/{0}/children", process.id());
        let target = fs::read_to_string(children).expect("children").trim().parse().expect("one child");
        Some(Container { process, target, _directory: directory })
    }
}

/// The names of the frames of the only call stack through `function`, and how many blocks leaked there.
fn leaked_in(report: &Report, function: &str) -> (Vec<String>, u64) {
    let mut stacks = report.statistics.iter().filter(|stack| stack.frames.iter().any(|frame| frame.is(function)));
    let (Some(stack), None) = (stacks.next(), stacks.next()) else { panic!("not one {function}: {report:?}") };
    let names = stack.frames.iter().map(|frame| frame.function.clone().unwrap_or_default());
    (names.collect(), stack.may_leak.blocks)
}

#[test]
fn a_leak_is_named() {
    let program = Target::c("crash").build();
    let Some(mut container) = Container::start(&program, &[]) else { return };
    let before = State::of_pid(container.target);
    let mut monitor = Monitor::attach_to(container.target, &[]);
    container.process.ask("go 2");
    let truth = container.process.truth("go 1");
    monitor.wait_for_leaks(truth.blocks());
    let report = monitor.interrupt();
    let frame = &report.statistics[0].frames[1];
    assert!(frame.is("leak_before_end") && frame.line.is_some(), "{report:?}");
    assert_eq!(report.statistics[0].may_leak.blocks, 3, "{report:?}");
    before.assert_restored_pid(container.target);
    container.process.quit();
}

/// The process ids that the kernel tells by are those of its first namespace.
#[test]
fn an_exec_is_followed() {
    let program = Target::c("exec").build();
    let Some(mut container) = Container::start(&program, &[]) else { return };
    let mut monitor = Monitor::attach_to(container.target, &[]);
    container.process.ask("go 2");
    container.process.send("exec");
    assert_eq!(container.process.line().as_deref(), Some("READY"));
    let truth = container.process.truth("go 4");
    monitor.wait_for_leaks(truth.blocks());
    let report = monitor.interrupt();
    let (names, blocks) = leaked_in(&report, "leak_in_second_image");
    assert_eq!((&names[..3], blocks), (&["malloc", "leak_in_second_image", "main"].map(String::from)[..], 4));
    let of_first = |stack: &CallStack| stack.frames.iter().any(|frame| frame.is("leak_in_first_image"));
    assert!(!report.statistics.iter().any(of_first), "it is gone: {report:?}");
    assert_eq!(text_differences(container.target), Vec::<String>::new());
    container.process.quit();
}

/// The exec comes before the first call that memleax sees.
#[test]
fn an_exec_before_any_call_is_followed() {
    let program = Target::c("exec").build();
    let Some(mut container) = Container::start(&program, &[]) else { return };
    let mut monitor = Monitor::attach_to(container.target, &[]);
    container.process.send("exec");
    assert_eq!(container.process.line().as_deref(), Some("READY"));
    let truth = container.process.truth("go 4");
    monitor.wait_for_leaks(truth.blocks());
    let report = monitor.interrupt();
    assert_eq!(leaked_in(&report, "leak_in_second_image").1, 4, "{report:?}");
    assert!(report.says("/program (exec). Monitoring goes on."), "{report:?}");
    container.process.quit();
}

#[test]
fn a_library_that_is_gone_at_once_is_named() {
    let program = Target::c("dlopen").libraries(&["-ldl"]).build();
    let plugin = Target::c("plugin").flags(&["-shared", "-fPIC"]).build();
    let Some(mut container) = Container::start(&program, &[plugin.path.to_str().expect("UTF-8")]) else { return };
    let mut monitor = Monitor::attach_to(container.target, &[]);
    container.process.ask("once /plugin");
    container.process.ask("mark");
    while !monitor.next().expect("it goes on").contains("leave_mark()") {}
    let (names, blocks) = leaked_in(&monitor.interrupt(), "deep_in_plugin");
    let right = ["malloc", "deep_in_plugin", "plugin_leak", "call_plugin", "main"];
    assert_eq!((names, blocks), (right.map(String::from).to_vec(), 5));
    container.process.quit();
}
