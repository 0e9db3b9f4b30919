//! `--follow-forks`: each process that the target starts has a report of its own.

use std::collections::BTreeMap;
use std::fs;

use memleax_targets::{Process, Target};
use nix::sys::signal::Signal;

use crate::harness::{
    Backend, Launched, Monitor, Report, has_program, program, rounds, text_differences, tracer_of, unable,
};

/// What the processes say of themselves, and what is reported of them: blocks and bytes that are never freed, inherited blocks, and
/// those of them that were freed.
type Ledger = BTreeMap<u32, [u64; 4]>;

fn told(lines: &[String]) -> Ledger {
    let parse = |line: &String| {
        let numbers: Vec<u64> =
            line.strip_prefix("process ")?.split(' ').map(|word| word.parse().ok()).collect::<Option<_>>()?;
        let [pid, rest @ ..] = &numbers[..] else { return None };
        Some((u32::try_from(*pid).ok()?, rest.try_into().ok()?))
    };
    lines.iter().filter_map(parse).collect()
}

fn reported(report: &Report) -> Ledger {
    let number = |text: &str| text.split(|c: char| !c.is_ascii_digit()).find_map(|word| word.parse::<u64>().ok());
    let mut ledger = Ledger::new();
    let mut current = None;
    for line in &report.lines {
        if let Some(rest) = line.strip_prefix("== Process ") {
            current = rest.split(':').next().and_then(|pid| pid.parse().ok());
        }
        let Some(pid) = current else { continue };
        let of_process = ledger.entry(pid).or_default();
        if let Some(rest) = line.strip_prefix("    never freed  ") {
            let (blocks, bytes) = rest.split_once(", ").expect("blocks and bytes");
            assert!(bytes.contains(" bytes"), "exact: {line}");
            (of_process[0], of_process[1]) = (number(blocks).expect("blocks"), number(bytes).expect("bytes"));
        } else if let Some((all, freed)) =
            line.strip_prefix("-- Forked from process ").and_then(|rest| rest.split_once("; it freed "))
        {
            let all = all.split_once(" with ").expect("how many").1;
            (of_process[2], of_process[3]) = (number(all).expect("blocks"), number(freed).expect("blocks"));
        }
    }
    ledger
}

/// Only ptrace follows forks; `scripts/test.sh` leaves these tests out where they are for another backend.
fn can_follow() -> bool {
    Backend::under_test() == Backend::Ptrace
}

fn follow() -> Launched {
    Launched::start(&["--follow-forks", "-q"], &[&Target::c("family").build().path])
}

/// Has the program carry out commands; compares what its processes say with the reports.
fn check(commands: &[&str], processes: usize) {
    if !can_follow() {
        return;
    }
    let mut launched = follow();
    let mut lines = Vec::new();
    for command in commands {
        lines.extend(launched.memleax.ask(command));
    }
    launched.memleax.send("exit 6");
    let (status, rest, report) = launched.wait();
    lines.extend(rest);
    assert_eq!(status.code(), Some(6), "{report:?}");
    let told = told(&lines);
    assert_eq!(told.len(), processes, "{lines:?}");
    assert_eq!(reported(&report), told, "{report:?}");
    assert!(!report.says("Warning"), "{report:?}");
}

#[test]
fn forked_children() {
    check(&["fork 3"], 4);
}

#[test]
fn a_grandchild() {
    check(&["deep"], 3);
}

#[test]
fn programs_started_by_posix_spawn_and_vfork() {
    check(&["spawn", "vfork"], 3);
}

#[test]
fn a_child_of_another_thread() {
    if !can_follow() {
        return;
    }
    let mut launched = follow();
    let lines = launched.memleax.ask("thread");
    let report = launched.quit();
    let (pid, told) = told(&lines).pop_first().expect("one child");
    // What the C library allocated for the thread is inherited, too.
    assert_eq!(reported(&report)[&pid][..2], told[..2], "{report:?}");
}

/// Children come and go, and leave nothing behind in memleax.
#[test]
fn many_children() {
    if !can_follow() {
        return;
    }
    let mut launched = follow();
    let kept = |launched: &Launched| {
        let count =
            |what: &str| fs::read_dir(format!("/proc/{}/{what}", launched.memleax.id())).expect("readable").count();
        (count("fd"), count("task"))
    };
    launched.memleax.ask("fork 3");
    let before = kept(&launched);
    launched.memleax.ask("fork 30");
    assert_eq!(kept(&launched), before, "open files and threads");
    let report = launched.quit();
    assert_eq!(reported(&report).len(), 34, "{report:?}");
}

/// A child that outlives the target is followed to its end.
#[test]
fn a_child_that_goes_on() {
    if !can_follow() {
        return;
    }
    let mut launched = follow();
    let mut lines = launched.memleax.ask("outlive");
    launched.memleax.send("exit 5");
    let (status, rest, report) = launched.wait();
    lines.extend(rest);
    assert_eq!(status.code(), Some(5), "{report:?}");
    assert_eq!(reported(&report), told(&lines), "{report:?}");
    assert_eq!(reported(&report).len(), 2, "{report:?}");
}

/// When memleax is to end before that, all are let go, as they were.
#[test]
fn an_end_before_the_last_child_s() {
    if !can_follow() {
        return;
    }
    let mut launched = follow();
    let answer = launched.memleax.ask("linger");
    let child = answer.iter().find_map(|line| line.strip_prefix("child ")).map(str::to_owned);
    let child = child.unwrap_or_else(|| {
        loop {
            let line = launched.memleax.line().expect("the child goes on");
            if let Some(pid) = line.strip_prefix("child ") {
                break pid.to_owned();
            }
        }
    });
    let child = child.parse().expect("a pid");
    assert_eq!(tracer_of(child), launched.memleax.id());
    let program = launched.program();
    launched.memleax.send("exit 5");
    while fs::read_to_string(format!("/proc/{program}/stat")).is_ok() {
        std::thread::yield_now();
    }
    launched.memleax.signal(Signal::SIGINT);
    while tracer_of(child) != 0 {
        std::thread::yield_now();
    }
    assert_eq!(text_differences(child), Vec::<String>::new());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.cast_signed()), Signal::SIGKILL).expect("it is there");
    let (status, _, report) = launched.wait();
    assert_eq!(status.code(), Some(5), "{report:?}");
    assert!(report.says("Monitoring was ended; the process went on."), "{report:?}");
}

#[test]
fn a_shell_script() {
    if !can_follow() {
        return;
    }
    let script = "i=0; while [ $i -lt 10 ]; do /bin/true; ( : ); i=$((i + 1)); done; echo end; exit 3";
    let (status, output, report) = Launched::spawn(&["--follow-forks", "-q"], &["sh", "-c", script]).wait();
    assert_eq!((status.code(), output), (Some(3), vec!["end".to_owned()]), "{report:?}");
    assert!(reported_count(&report) > 20, "{report:?}");
}

fn reported_count(report: &Report) -> usize {
    report.lines.iter().filter(|line| line.starts_with("== Process ")).count()
}

#[test]
fn git_and_its_helpers() {
    if !can_follow() {
        return;
    }
    if !has_program("git") {
        return unable("no git");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_str().expect("UTF-8");
    let script = format!(
        "cd {path} && git init -q a && git -C a -c user.name=n -c user.email=e commit -q --allow-empty -m m && exec git clone -q file://{path}/a b"
    );
    let mut launched = Launched::spawn(&["--follow-forks", "-q"], &["sh", "-c", &script]);
    let (status, _, report) = launched.wait();
    assert_eq!(status.code(), Some(0), "{report:?}");
    assert!(report.says("git-upload-pack") || report.says("upload-pack"), "{report:?}");
    assert!(directory.path().join("b/.git/HEAD").exists());
}

#[test]
fn bpf_does_not_follow() {
    let mut memleax = program();
    let mut memleax = Process::spawn(memleax.args(["--backend", "bpf", "--follow-forks", "--", "true"]));
    let (status, _) = memleax.wait();
    if Backend::under_test() != Backend::FreebsdShim {
        assert_eq!(status.code(), Some(1));
        assert!(memleax.errors().contains("cannot follow forks by bpf"), "{}", memleax.errors());
    }
}

/// memleax is killed while the target forks and its children are watched: all of them live on, and end as they would.
#[test]
fn sigkill_while_children_are_watched() {
    if !can_follow() {
        return;
    }
    let program = Target::c("forks").build();
    for _ in 0..rounds(5, 50) {
        let mut target = program.start();
        let monitor = Monitor::attach(&target, &["--follow-forks"]);
        target.send("go 30");
        monitor.kill();
        let answer = target.answer("go 30");
        assert_eq!(answer[0], "children 30 0");
        assert_eq!(target.ask("go 5")[0], "children 5 0");
        target.quit();
    }
}
