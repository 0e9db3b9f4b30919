//! Calls of functions of the target, against its own count.

use std::fs;

use memleax::profile::Profile;
use memleax::recording;
use memleax_targets::{Process, Program, Target};
use nix::sys::signal::Signal;

use crate::harness::{Backend, may_trace, memleax};

/// A recording that is being made of a running program.
struct Recording {
    folder: tempfile::TempDir,
    memleax: Process,
}

impl Recording {
    fn launch(program: &Program, options: &[&str]) -> Recording {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let mut command = memleax();
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let mut record = std::process::Command::new(command.get_program());
        record.arg("record").args(arguments).args(options).arg("-o").arg(folder.path().join("recording"));
        command = record;
        command.arg("--").arg(&program.path);
        Recording { memleax: Process::start(&mut command), folder }
    }

    fn end(mut self) -> (Profile, String) {
        self.memleax.send("quit");
        let (status, _) = self.memleax.wait();
        assert!(status.success(), "{}", self.memleax.errors());
        let bytes = fs::read(self.folder.path().join("recording")).expect("a recording");
        let replayed = recording::replay(&bytes, None).expect("a whole recording");
        (replayed.into_profile(&mut |_| None), self.memleax.errors())
    }
}

/// The last line: requests, and blocks leaked.
fn served(answer: &[String]) -> (u64, u64) {
    let numbers = answer.iter().find_map(|line| line.strip_prefix("served ")?.split_once(' ')).expect("its count");
    (numbers.0.parse().expect("a number"), numbers.1.parse().expect("a number"))
}

fn calls(profile: &Profile) -> Vec<(&str, u64)> {
    let last = |reference: &memleax::profile::Reference| reference.counts.last().copied().unwrap_or_default();
    profile.references.iter().map(|reference| (reference.name.as_str(), last(reference))).collect()
}

fn every_call_is_counted(target: &Target, options: &[&str]) {
    if !may_trace() {
        return;
    }
    let program = target.build();
    let mut options = options.to_vec();
    options.extend(["--reference", "handle_request", "--reference", "leak", "--reference", "never_there"]);
    let debug_file = program.unstripped.to_str().expect("test paths are UTF-8");
    if program.unstripped != program.path {
        options.extend(["--debug-file", debug_file]);
    }
    let mut recording = Recording::launch(&program, &options);
    recording.memleax.ask("serve 40");
    let threaded = if Backend::under_test() == Backend::Bpf { 20_000 } else { 500 };
    let (requests, leaked) = served(&recording.memleax.ask(&format!("serve_by_threads {threaded}")));
    assert_eq!((requests, leaked), (4 * threaded + 40, 40));
    let (profile, errors) = recording.end();
    assert_eq!(calls(&profile), [("handle_request", requests), ("leak", leaked), ("never_there", 0)]);
    for reference in &profile.references {
        assert!(reference.counts.is_sorted() && reference.counts.len() == profile.timeline.len(), "{reference:?}");
    }
    assert!(profile.losses.is_empty(), "{:?}", profile.losses);
    assert!(errors.contains("no function never_there yet: its calls are counted once"), "{errors}");
    // How old what is was asked of the last look.
    for site in &profile.sites {
        assert_eq!(site.ages.as_ref().map(memleax::histogram::Histogram::count), Some(site.live.count), "{site:?}");
    }
}

fn requests() -> Target {
    Target::c("requests").libraries(&["-ldl", "-lpthread"])
}

#[test]
fn calls_of_static_functions_by_threads() {
    every_call_is_counted(&requests(), &[]);
}

#[test]
fn calls_in_a_position_dependent_program() {
    every_call_is_counted(&requests().flags(&["-no-pie", "-fno-pie"]), &[]);
}

#[test]
fn calls_in_a_stripped_program_with_its_debug_file() {
    every_call_is_counted(&requests().stripped(), &[]);
}

#[test]
fn calls_amid_single_events() {
    if Backend::under_test() != Backend::Bpf {
        every_call_is_counted(&requests(), &["--full"]);
    }
}

/// In a library that is loaded later. It allocates, too, so memleax says when it has seen it.
#[test]
fn calls_in_a_library_loaded_later() {
    if !may_trace() {
        return;
    }
    let plugin = Target::c("plugin").flags(&["-shared", "-fPIC", "-DALLOCATOR", "-DMARK"]).build();
    let mut recording = Recording::launch(&requests().build(), &["--reference", "late_mark"]);
    recording.memleax.ask(&format!("load {}", plugin.path.display()));
    let mut lines = Vec::new();
    while !lines.last().is_some_and(|line: &String| line.contains("rpmalloc")) {
        lines.push(recording.memleax.error_line().expect("the report goes on"));
    }
    assert!(lines.iter().any(|line| line.contains("no function late_mark yet")), "{lines:?}");
    recording.memleax.ask("late 100");
    let (profile, _) = recording.end();
    assert_eq!(calls(&profile), [("late_mark", 100)]);
}

/// A function may be worth snapshots and be counted: each snapshot is of the moment of a call.
#[test]
fn a_function_that_is_counted_and_takes_snapshots() {
    if !may_trace() {
        return;
    }
    let options = ["--reference", "handle_request", "--snapshot-at", "handle_request"];
    let mut recording = Recording::launch(&requests().build(), &options);
    recording.memleax.ask("serve 30");
    recording.memleax.signal(Signal::SIGUSR1);
    let (profile, _) = recording.end();
    assert_eq!(calls(&profile), [("handle_request", 30)]);
    assert_eq!(profile.snapshots.iter().filter(|taken| taken.cause == "handle_request").count(), 30);
    if Backend::under_test() != Backend::Bpf {
        let counts = &profile.references[0].counts;
        assert!((1..=30).all(|call| counts.contains(&call)), "{counts:?}");
    }
}
