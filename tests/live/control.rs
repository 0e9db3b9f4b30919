//! `memleax ctl`: questions to a run that goes on, from one client or several, polite or not.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use memleax_targets::{Process, Target, patience};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Backend, Launched, Monitor, State, may_trace, program};

/// A folder for the sockets of one test.
fn runtime() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("mine");
    folder
}

fn watch(target: &Process, runtime: &TempDir, options: &[&str]) -> Monitor {
    let mut command = program();
    command.env("XDG_RUNTIME_DIR", runtime.path());
    let mut monitor = Monitor::spawn_through(command, target.id(), options);
    let begin = format!("== Begin monitoring process {}...", target.id());
    while monitor.next().expect("memleax goes on") != begin {}
    monitor
}

fn run(runtime: &TempDir, watched: &str, question: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memleax"));
    command.env("XDG_RUNTIME_DIR", runtime.path()).args(["ctl", watched]).args(question);
    command.output().expect("it runs")
}

fn ask(runtime: &TempDir, watched: &str, question: &[&str]) -> Vec<u8> {
    // The run begins to listen while it begins to watch.
    let since = Instant::now();
    loop {
        let output = run(runtime, watched, question);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            return output.stdout;
        }
        assert!(
            errors.contains("no memleax of yours watches") && since.elapsed() < patience(),
            "{question:?}: {errors}"
        );
    }
}

fn text(runtime: &TempDir, watched: u32, question: &[&str]) -> String {
    String::from_utf8(ask(runtime, &watched.to_string(), question)).expect("text")
}

fn until(is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < patience(), "it does not come");
    }
}

fn refusal(runtime: &TempDir, watched: &str, question: &[&str]) -> String {
    let output = run(runtime, watched, question);
    assert_eq!(output.status.code(), Some(1), "{question:?}");
    String::from_utf8(output.stderr).expect("text")
}

fn socket(runtime: &TempDir, target: &Process, monitor: &Monitor) -> PathBuf {
    runtime.path().join("memleax").join(format!("{}.{}", target.id(), monitor.id()))
}

fn is_folder_empty(folder: &Path) -> bool {
    fs::read_dir(folder).expect("a folder").next().is_none()
}

/// What it tells is what the program planted, just before; each request is answered; the end is in order.
#[test]
fn each_question_is_answered_while_the_program_goes_on() {
    if !may_trace() {
        return;
    }
    let runtime = runtime();
    let mut target = Target::c("leak_sites").start();
    let before = State::of(&target);
    let monitor = watch(&target, &runtime, &[]);
    let truth = target.truth("go 3");
    // By bpf, a look that is dear on this machine is not repeated at once.
    until(|| text(&runtime, target.id(), &["stats"]).contains(&format!("\nlive: {} blocks", truth.blocks())));
    let stats = text(&runtime, target.id(), &["stats"]);
    let bytes: u64 = truth.sites.iter().map(|site| site.bytes).sum();
    let json: Value =
        serde_json::from_slice(&ask(&runtime, &target.id().to_string(), &["report", "json"])).expect("JSON");
    let live = &json["totals"]["live"];
    assert_eq!((live["count"].as_u64(), live["bytes"].as_u64()), (Some(truth.blocks()), Some(bytes)), "{stats}");
    assert_eq!(json["run"]["ending"], "Monitoring goes on.");
    let live = stats.lines().find(|line| line.starts_with("live: ")).expect("what is live");
    assert!(live.starts_with(&format!("live: {} blocks", truth.blocks())), "{stats}");
    let heading = stats.lines().position(|line| line.starts_with("id ")).expect("a table");
    let id = stats.lines().nth(heading + 1).and_then(|line| line.split(' ').next()).expect("an id").to_owned();
    let shown = text(&runtime, target.id(), &["show", &id]);
    assert!(shown.starts_with(&id) && shown.contains("oldest live block") && shown.contains("main()"), "{shown}");
    assert!(shown.contains("ages of the live"), "{shown}");
    assert!(text(&runtime, target.id(), &["snapshot"]).starts_with("snapshot 1: "));
    target.ask("go 1");
    until(|| text(&runtime, target.id(), &["report", "collapsed", "--view", "growth:1.."]).contains("main;"));
    let file = runtime.path().join("report.pb");
    ask(&runtime, &target.id().to_string(), &["report", "-o", file.to_str().expect("text")]);
    assert!(fs::read(&file).expect("a file").starts_with(&[0x1f, 0x8b]), "pprof is compressed");
    let stopped = text(&runtime, target.id(), &["stop"]);
    assert_eq!(stopped, "Monitoring was ended; the process went on.\n");
    let report = monitor.finish();
    assert!(report.says("== Terminate monitoring."), "{report:?}");
    before.assert_restored(&target);
    target.ask("go 1");
    target.quit();
    assert!(is_folder_empty(&runtime.path().join("memleax")));
}

#[test]
fn what_cannot_be_answered_is_said_clearly() {
    if !may_trace() {
        return;
    }
    let runtime = runtime();
    let target = Target::c("leak_sites").start();
    let nobody = refusal(&runtime, &target.id().to_string(), &["stats"]);
    assert!(nobody.contains(&format!("no memleax of yours watches process {}", target.id())), "{nobody}");
    let monitor = watch(&target, &runtime, &[]);
    text(&runtime, target.id(), &["stats"]);
    let watched = target.id().to_string();
    for (question, problem) in [
        (&["show", "00000000"][..], "there is no call stack 00000000"),
        (&["report", "svg", "--view", "snapshot:7"], "snapshot 7"),
        (&["report", "svg", "--view", "sizes"], "the format svg does not show sizes"),
    ] {
        let error = refusal(&runtime, &watched, question);
        assert!(error.contains(problem), "{error}");
    }
    monitor.interrupt();
    // Not listened for, if that is not wanted.
    let quiet = watch(&target, &runtime, &["--no-control"]);
    assert!(refusal(&runtime, &watched, &["stats"]).contains("no memleax of yours watches"));
    quiet.interrupt();
    target.quit();
}

/// Neither who connects and says nothing, nor who goes away in the middle, nor nonsense holds anything up.
#[test]
fn clients_that_misbehave_harm_nobody() {
    if !may_trace() {
        return;
    }
    let runtime = runtime();
    let mut target = Target::c("leak_sites").start();
    let monitor = watch(&target, &runtime, &[]);
    target.ask("go 3");
    text(&runtime, target.id(), &["stats"]);
    let path = socket(&runtime, &target, &monitor);
    assert_eq!(fs::metadata(&path).expect("a socket").permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(path.parent().expect("a folder")).expect("it").permissions().mode() & 0o777, 0o700);
    let connect = || UnixStream::connect(&path).expect("it listens");
    let says_nothing = [connect(), connect()];
    let mut leaves = connect();
    leaves.write_all(b"report json\n").expect("written");
    drop(leaves);
    let mut nonsense = connect();
    nonsense.write_all(b"\xff\xfe\n").expect("written");
    let mut endless = connect();
    _ = endless.write_all(&[b'x'; 10_000]);
    let mut told = Vec::new();
    _ = endless.read_to_end(&mut told);
    let mut wrong = connect();
    wrong.write_all(b"dance\n").expect("written");
    let mut answer = String::new();
    wrong.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("error ") && answer.contains("the requests are: stats"), "{answer}");
    // Two at once.
    let (first, second) = std::thread::scope(|scope| {
        let (runtime, id) = (&runtime, target.id());
        let ask = move || text(runtime, id, &["report", "html"]);
        let (first, second) = (scope.spawn(ask), scope.spawn(ask));
        (first.join().expect("answered"), second.join().expect("answered"))
    });
    assert!(first.ends_with("</html>\n") && second.ends_with("</html>\n"));
    let before = State::of(&target);
    let report = monitor.interrupt();
    assert!(!report.errors.contains("panicked"), "{report:?}");
    drop((says_nothing, before));
    target.ask("go 1");
    target.quit();
}

/// A socket that a killed memleax left is neither asked nor in the way.
#[test]
fn what_a_killed_memleax_left_is_replaced() {
    if !may_trace() {
        return;
    }
    let runtime = runtime();
    let mut target = Target::c("leak_sites").start();
    let monitor = watch(&target, &runtime, &[]);
    text(&runtime, target.id(), &["stats"]);
    let path = socket(&runtime, &target, &monitor);
    monitor.kill();
    assert!(path.exists());
    assert!(refusal(&runtime, &target.id().to_string(), &["stats"]).contains("no memleax of yours watches"));
    target.ask("go 1");
    let monitor = watch(&target, &runtime, &[]);
    text(&runtime, target.id(), &["stats"]);
    assert!(!path.exists());
    monitor.end(Signal::SIGTERM);
    target.quit();
}

/// By bpf, two may watch the same process: who asks is told to choose.
#[test]
fn who_of_several_is_meant_can_be_said() {
    if !may_trace() || Backend::under_test() != Backend::Bpf {
        return;
    }
    let runtime = runtime();
    let target = Target::c("leak_sites").start();
    let (one, other) = (watch(&target, &runtime, &[]), watch(&target, &runtime, &[]));
    let names = [&one, &other].map(|monitor| format!("{}.{}", target.id(), monitor.id()));
    for name in &names {
        ask(&runtime, name, &["stats"]);
    }
    let error = refusal(&runtime, &target.id().to_string(), &["stats"]);
    assert!(error.contains("several watch") && names.iter().all(|name| error.contains(name)), "{error}");
    ask(&runtime, &names[0], &["stop"]);
    one.finish();
    ask(&runtime, &names[1], &["stats"]);
    other.interrupt();
    target.quit();
}

/// A program that memleax has started goes on, as after Ctrl-C thrice; it is asked by its own id.
#[test]
fn a_program_that_was_started_can_be_asked_about() {
    if !may_trace() {
        return;
    }
    let mut launched = Launched::start(&["-q"], &[Target::c("leak_sites").build().path.as_os_str()]);
    let watched = launched.program().to_string();
    launched.memleax.ask("go 2");
    let mut command = Command::new(env!("CARGO_BIN_EXE_memleax"));
    let output = command.args(["ctl", &watched, "stats"]).output().expect("it runs");
    let stats = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(stats.contains(&format!("process: {watched} ")), "{output:?}");
    launched.quit();
}
