//! Snapshots at calls of functions of the target, against the program's own counts.

use std::fs;
use std::path::PathBuf;

use memleax::profile::{Profile, Snapshot};
use memleax::recording;
use memleax_targets::{Process, Program, Target};

use crate::harness::{Backend, Monitor, may_trace, memleax};

const MARK: &str = "memtrail_snapshot";

/// A recording that is being made.
struct Recording {
    folder: tempfile::TempDir,
    memleax: Process,
}

impl Recording {
    /// Of a program, READY for commands.
    fn launch(program: &Program, options: &[&str]) -> Recording {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let mut command = memleax();
        // The backend is an option of recording, too.
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let mut record = std::process::Command::new(command.get_program());
        record.arg("record").args(arguments).args(options).arg("-o").arg(folder.path().join("recording"));
        command = record;
        command.arg("--").arg(&program.path);
        Recording { memleax: Process::start(&mut command), folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("recording")
    }

    /// What the program says that it has live at its marks: blocks and bytes.
    fn ask(&mut self, command: &str) -> Vec<(u64, u64)> {
        self.memleax.ask(command).iter().filter_map(|line| mark(line)).collect()
    }

    /// Has the program end.
    fn end(mut self) -> (Profile, String) {
        self.memleax.send("quit");
        let (status, _) = self.memleax.wait();
        assert!(status.success(), "{}", self.memleax.errors());
        let bytes = fs::read(self.file()).expect("a recording");
        let replayed = recording::replay(&bytes, None).expect("a whole recording");
        (replayed.into_profile(&mut |_| None), self.memleax.errors())
    }
}

fn mark(line: &str) -> Option<(u64, u64)> {
    let (blocks, bytes) = line.strip_prefix("mark ")?.split_once(' ')?;
    Some((blocks.parse().ok()?, bytes.parse().ok()?))
}

/// What the program's own function has live in a snapshot.
fn planted(profile: &Profile, snapshot: &Snapshot) -> (u64, u64) {
    let is_planted = |site: usize| {
        let frames = &profile.sites[site].stack.frames;
        frames.iter().any(|frame| frame.functions.iter().any(|function| function.name == "plant"))
    };
    let live = snapshot.live.iter().filter(|(site, _)| is_planted(*site));
    live.fold((0, 0), |(blocks, bytes), (_, tally)| (blocks + tally.count, bytes + tally.bytes))
}

/// Each call is a snapshot. By ptrace it is of that very moment, else of a later one.
fn assert_marks(profile: &Profile, cause: &str, said: &[(u64, u64)], at_last: (u64, u64)) {
    let taken: Vec<_> =
        profile.snapshots.iter().filter(|it| it.cause == cause).map(|it| planted(profile, it)).collect();
    match Backend::under_test() {
        Backend::Bpf => {
            assert_eq!(taken.len(), said.len(), "{taken:?} {said:?}");
            for (taken, said) in taken.iter().zip(said) {
                assert!(said <= taken && *taken <= at_last, "{taken:?} at {said:?} of {at_last:?}");
            }
        }
        Backend::Ptrace | Backend::FreebsdShim => assert_eq!(taken, said),
    }
    assert!(profile.losses.is_empty(), "{:?}", profile.losses);
}

fn calls_take_snapshots(target: &Target, options: &[&str]) {
    if !may_trace() {
        return;
    }
    let program = target.build();
    let mut options = options.to_vec();
    options.extend(["--snapshot-at", MARK]);
    let debug_file = program.unstripped.to_str().expect("test paths are UTF-8");
    if program.unstripped != program.path {
        options.extend(["--debug-file", debug_file]);
    }
    let mut recording = Recording::launch(&program, &options);
    let mut said = recording.ask("go 4");
    said.extend(recording.ask("go 3"));
    assert_eq!(said.len(), 7);
    let (profile, errors) = recording.end();
    assert_marks(&profile, MARK, &said, said[6]);
    assert!(!errors.contains("no function"), "{errors}");
}

#[test]
fn calls() {
    calls_take_snapshots(&Target::c("marks").libraries(&["-ldl"]), &[]);
}

#[test]
fn calls_in_a_position_dependent_program() {
    calls_take_snapshots(&Target::c("marks").flags(&["-no-pie", "-fno-pie"]).libraries(&["-ldl"]), &[]);
}

#[test]
fn calls_in_a_static_program() {
    calls_take_snapshots(&Target::c("marks").flags(&["-static"]).libraries(&["-ldl"]), &[]);
}

#[test]
fn calls_in_a_stripped_program_with_its_debug_file() {
    calls_take_snapshots(&Target::c("marks").libraries(&["-ldl"]).stripped(), &[]);
}

/// Replayed from each single event.
#[test]
fn calls_amid_single_events() {
    if Backend::under_test() != Backend::Bpf {
        calls_take_snapshots(&Target::c("marks").libraries(&["-ldl"]), &["--full"]);
    }
}

/// By both backends exactly what was live, where the program waits until it is taken; and printed.
#[test]
fn a_snapshot_is_printed_and_of_its_moment() {
    if !may_trace() {
        return;
    }
    let mut target = Target::c("marks").libraries(&["-ldl"]).start();
    let mut monitor = Monitor::attach(&target, &["--expire", "1h", "--all-frames", "--snapshot-at", MARK]);
    for number in 1..=3 {
        let said: Vec<_> = target.ask("go 1").iter().filter_map(|line| mark(line)).collect();
        let [(blocks, bytes)] = said[..] else { panic!("{said:?}") };
        let heading = format!("Snapshot {number} ({MARK})");
        let printed = loop {
            let line = monitor.next().expect("it goes on");
            if line.contains(&heading) {
                break line;
            }
        };
        assert!(printed.ends_with(&format!(": {blocks} blocks, {bytes} bytes live")), "{printed}");
    }
    monitor.interrupt();
    target.quit();
}

/// In a library that is loaded later. It allocates, too, so memleax says when it has seen it.
#[test]
fn calls_in_a_library_loaded_later() {
    if !may_trace() {
        return;
    }
    let plugin = Target::c("plugin").flags(&["-shared", "-fPIC", "-DALLOCATOR", "-DMARK"]).build();
    let program = Target::c("marks").libraries(&["-ldl"]).build();
    let mut recording = Recording::launch(&program, &["--snapshot-at", "late_mark", "--snapshot-at", MARK]);
    let mut said = recording.ask("go 1");
    recording.ask(&format!("load {}", plugin.path.display()));
    let mut lines = Vec::new();
    while !lines.last().is_some_and(|line: &String| line.contains("rpmalloc")) {
        lines.push(recording.memleax.error_line().expect("the report goes on"));
    }
    assert!(lines.iter().any(|line| line.contains("no function late_mark yet")), "{lines:?}");
    let late = recording.ask("late");
    said.extend(recording.ask("go 1"));
    let (profile, _) = recording.end();
    assert_marks(&profile, "late_mark", &late, said[1]);
    assert_marks(&profile, MARK, &said, said[1]);
}

/// More calls than anybody reads: the first are kept, the others counted.
#[test]
fn a_storm_of_calls() {
    if !may_trace() {
        return;
    }
    let program = Target::c("marks").libraries(&["-ldl"]).build();
    let mut recording = Recording::launch(&program, &["--snapshot-at", MARK]);
    recording.ask("storm 20000");
    let (profile, _) = recording.end();
    assert_eq!(profile.snapshots.len(), 1000);
    let losses: Vec<_> = profile.losses.iter().collect();
    assert_eq!(losses, [(&memleax::event::Loss::SnapshotNotTaken, &19000)]);
}

/// A function that is nowhere: memleax goes on, and says which names are like it.
#[test]
fn a_misspelt_name() {
    if !may_trace() {
        return;
    }
    let program = Target::c("marks").libraries(&["-ldl"]).build();
    let mut recording = Recording::launch(&program, &["--snapshot-at", "memtrail_snapshto"]);
    recording.ask("go 1");
    let (profile, errors) = recording.end();
    assert!(
        errors.contains("no function memtrail_snapshto yet") && errors.contains("like it are memtrail_snapshot"),
        "{errors}"
    );
    assert_eq!(profile.snapshots, []);
}
