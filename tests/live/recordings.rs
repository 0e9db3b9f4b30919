//! Recordings and the reports made of them: what they tell is what happened, also when memleax was killed on the way.

use std::path::Path;
use std::process::Command;

use memleax_targets::{Process, Target, Truth};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{Backend, Monitor, State, may_trace, program, since, tracer_of};

/// A monitor that records into `file`.
fn record(target: &Process, file: &Path, options: &[&str]) -> Monitor {
    let mut command = program();
    command.args(["record", "--output"]).arg(file).args(options);
    let mut monitor = Monitor::spawn_through(command, target.id(), &[]);
    let begin = format!("== Begin monitoring process {}...", target.id());
    while monitor.next().expect("memleax goes on") != begin {}
    monitor
}

fn report(file: &Path, options: &[&str]) -> Vec<u8> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memleax"));
    let output = command.arg("report").arg(file).args(options).output().expect("it runs");
    assert!(output.status.success(), "{options:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn json(file: &Path, options: &[&str]) -> Value {
    serde_json::from_slice(&report(file, &[&["--all-frames", "--format", "json"], options].concat())).expect("JSON")
}

fn tally(value: &Value) -> (u64, u64) {
    (value["count"].as_u64().expect("a count"), value["bytes"].as_u64().expect("bytes"))
}

fn planted(truth: &Truth) -> (u64, u64) {
    (truth.blocks(), truth.sites.iter().map(|site| site.bytes).sum())
}

/// Of each call stack that has live blocks: its functions and what it has.
fn live_sites(json: &Value) -> Vec<(String, (u64, u64))> {
    let frame = |index: &Value| {
        let functions =
            &json["frames"][usize::try_from(index.as_u64().expect("an index")).expect("small")]["functions"];
        functions.as_array().expect("a list").iter().map(|function| function["name"].to_string()).collect::<String>()
    };
    let mut sites: Vec<_> = json["sites"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|site| {
            (site["stack"]["frames"].as_array().expect("a list").iter().map(frame).collect(), tally(&site["live"]))
        })
        .filter(|(_, live)| live.0 > 0)
        .collect();
    sites.sort();
    sites
}

/// memleax is killed: the file tells all until its last second, the names come from the program's files, and the program goes on.
#[test]
fn killed_while_recording() {
    if !may_trace() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("run.memleax");
    let mut target = Target::c("leak_sites").start();
    let monitor = record(&target, &file, &[]);
    target.ask("go 3");
    let truth = target.truth("go 1");
    // What it says of the end is written within the second.
    while tally(&json(&file, &[])["totals"]["live"]) != planted(&truth) {}
    monitor.signal(Signal::SIGKILL);
    drop(monitor);
    let told = json(&file, &[]);
    assert_eq!(told["run"]["ending"], Value::Null);
    assert_eq!(tally(&told["totals"]["live"]), planted(&truth));
    let named = live_sites(&told);
    assert!(named.iter().all(|(functions, _)| functions.contains("main")), "{named:?}");
    let text = String::from_utf8(report(&file, &[])).expect("UTF-8");
    assert!(text.contains("The recording breaks off"), "{text}");
    target.ask("go 1");
    target.quit();
}

/// Each format and each view can be had of a recording, and single events tell the same as moments.
#[test]
fn recorded_to_the_end() {
    if !may_trace() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let is_full: &[bool] = if Backend::under_test() == Backend::Bpf { &[false] } else { &[false, true] };
    let mut told = Vec::new();
    for &full in is_full {
        let file = folder.path().join(format!("run-{full}"));
        let mut target = Target::c("leak_sites").start();
        let before = State::of(&target);
        let mut monitor = record(&target, &file, if full { &["--full"] } else { &[] });
        target.ask("go 3");
        let truth = target.truth("go 1");
        monitor.wait_for_leaks(truth.blocks());
        monitor.interrupt();
        before.assert_restored(&target);
        target.quit();
        let json = json(&file, &[]);
        assert_eq!(json["losses"], Value::Array(Vec::new()));
        assert_eq!(tally(&json["totals"]["live"]), planted(&truth));
        assert!(
            json["run"]["ending"].as_str().is_some_and(|ending| ending.contains("the process went on")),
            "{}",
            json["run"]
        );
        told.push(live_sites(&json));
        let by_event: &[&str] = if Backend::under_test() == Backend::Bpf { &[] } else { &["temporary"] };
        for view in ["leaks", "expired", "peak", "allocated", "growth"].iter().chain(by_event) {
            for format in
                ["text", "tree", "json", "collapsed", "svg", "html", "gprof2dot", "pprof", "firefox", "heaptrack"]
            {
                let written = report(&file, &["--view", view, "--format", format]);
                assert!(!written.is_empty(), "{format} of {view}");
            }
        }
    }
    if let [moments, events] = &*told {
        assert_eq!(moments, events);
    }
}

/// A signal to memleax keeps what is live, prints it, and the difference of two such moments is what the program did between them.
#[test]
fn snapshots_at_a_signal() {
    if !may_trace() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("run.json");
    let mut target = Target::c("leak_sites").start();
    let mut monitor = Monitor::attach(
        &target,
        &[
            "--expire",
            "1h",
            "--all-frames",
            "--format",
            "json",
            "--output",
            &file.display().to_string(),
            "--view",
            "growth:1..2",
        ],
    );
    let mut truths = Vec::new();
    for command in ["go 2", "go 3"] {
        truths.push(target.truth(command));
        monitor.signal(Signal::SIGUSR1);
        // By bpf, a look at the target may be up to a second old.
        while !monitor.next().expect("memleax goes on").contains("live") {}
    }
    monitor.interrupt();
    target.quit();
    let told: Value = serde_json::from_slice(&std::fs::read(&file).expect("a file")).expect("JSON");
    let snapshots = told["snapshots"].as_array().expect("a list");
    assert_eq!(snapshots.len(), 2);
    assert!(snapshots.iter().all(|snapshot| snapshot["cause"] == "signal"), "{snapshots:?}");
    if Backend::under_test() != Backend::Bpf {
        assert_eq!(tally(&told["view"]["total"]), planted(&since(&truths[1], &truths[0])));
    }
}

/// A recording that cannot be written is told before anything is touched; one that cannot be read, with what to do.
#[test]
fn files_that_cannot_be() {
    if !may_trace() {
        return;
    }
    let target = Target::c("blocks").start();
    let output = memleax_fails(&["record", "-o", "/nonexistent/run.memleax", &target.id().to_string()]);
    assert_eq!(
        output,
        (
            1,
            "memleax: cannot write the recording /nonexistent/run.memleax: No such file or directory (os error 2)\n"
                .into()
        )
    );
    assert_eq!(tracer_of(target.id()), 0);
    // An older recording outlives a process that cannot be watched.
    let folder = tempfile::tempdir().expect("a folder");
    let older = folder.path().join("older.memleax");
    std::fs::write(&older, "older").expect("a file");
    let (status, _) = memleax_fails(&["record", "-o", &older.display().to_string(), "1073741823"]);
    assert_eq!((status, std::fs::read(&older).expect("a file")), (1, b"older".to_vec()));
    let (status, message) = memleax_fails(&["report", "/bin/true"]);
    assert_eq!(status, 1);
    assert!(message.contains("it is no recording of memleax"), "{message}");
    target.quit();
}

fn memleax_fails(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_memleax")).args(arguments).output().expect("it runs");
    (output.status.code().expect("a status"), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A full disk ends the recording, not the run; what was written can be read.
#[test]
fn no_room_for_the_recording() {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("leak_sites").start();
    let mut command = program();
    command.args(["record", "--backend", Backend::under_test().name(), "--output", "/dev/full", "--duration", "1s"]);
    let mut monitor = Process::spawn(command.arg(target.id().to_string()));
    let (status, _) = monitor.wait();
    assert_eq!(status.code(), Some(3), "{}", monitor.errors());
    assert!(monitor.errors().contains("cannot write the recording: No space left on device"), "{}", monitor.errors());
    target.ask("go 1");
    target.quit();
}

/// What each thread leaks by the call site that all share is told by thread, and can be shown of one.
#[test]
fn threads_apart() {
    if !may_trace() {
        return;
    }
    if Backend::under_test() == Backend::Bpf {
        let target = Target::c("blocks").start();
        let (status, message) = memleax_fails(&["--backend", "bpf", "--by-thread", &target.id().to_string()]);
        assert_eq!(status, 1);
        assert!(message.contains("cannot tell threads apart by bpf"), "{message}");
        target.quit();
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("run.memleax");
    let mut target = Target::c("threads").flags(&["-pthread"]).start();
    let mut monitor = record(&target, &file, &["--by-thread"]);
    let truth = target.truth("go 5");
    monitor.wait_for_leaks(truth.blocks());
    monitor.interrupt();
    target.quit();
    let shared = |options: &[&str]| {
        let json = json(&file, options);
        assert_eq!(json["run"]["backend"], "ptrace");
        live_sites(&json).into_iter().filter(|(functions, _)| functions.contains("leak_shared")).collect::<Vec<_>>()
    };
    let all = shared(&[]);
    assert_eq!(all.len(), 4, "{all:?}");
    assert!(all.iter().all(|(_, live)| live.0 == 5), "{all:?}");
    let thread = |functions: &str| {
        functions.split("[thread ").nth(1).expect("a thread").split([' ', ']']).next().map(str::to_owned)
    };
    let first = thread(&all[0].0).expect("its id");
    // FreeBSD's threads are told by their ids.
    let name = if Backend::under_test() == Backend::FreebsdShim { "" } else { " threads" };
    assert!(all[0].0.ends_with(&format!("[thread {first}{name}]\"")), "{all:?}");
    assert_eq!(shared(&["--include-thread", &format!(r"thread {first}\b")]), all[..1]);
    assert_eq!(shared(&["--exclude-thread", &format!(r"thread {first}\b")]), all[1..]);
    let text = String::from_utf8(report(&file, &["--include-thread", &first])).expect("UTF-8");
    assert!(text.contains(&format!("    [thread {first}{name}]\n")), "{text}");
}
