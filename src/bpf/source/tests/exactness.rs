//! The walk in the kernel, by the rule table, against the general unwinder's, on the same registers and the same stack: real programs,
//! thousands of call stacks each. The programs in the kernel are those that every run loads; they are told to send a copy of each new stack.

#![allow(clippy::print_stderr, reason = "how many stacks were compared is worth reading")]

use std::collections::HashSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use memleax_targets::{Process, Target, has_program};

use super::*;
use crate::bpf::layout::StackRecord;
use crate::event::FrameKind;

/// What came of the comparison.
#[derive(Default, Debug)]
struct Comparison {
    distinct: HashSet<Backtrace>,
    /// Same frames, same ending.
    equal: usize,
    /// Of those, with a signal frame.
    through_signals: usize,
    /// Left to the general unwinder, with a right beginning, and completed by it.
    left: usize,
    /// Deeper than the copy: equal as far as that goes.
    cut_short: usize,
    differ: Vec<String>,
}

impl Comparison {
    fn add(&mut self, modules: &ModuleMap, record: &StackRecord, walked: &Backtrace, full: Backtrace) {
        let same_frames = (walked.frames.iter().zip(&full.frames)).all(|(one, other)| one.address == other.address);
        if !self.distinct.insert(full.clone()) {
            return;
        }
        if record.is_insufficient && same_frames && matches!(full.ending, Ending::Complete | Ending::DepthLimit) {
            self.left += 1;
        } else if *walked == full {
            self.equal += 1;
            self.through_signals += usize::from(record.frames.iter().any(|&(_, is_exact)| is_exact));
        } else if same_frames && full.ending == Ending::UnreadableStack {
            self.cut_short += 1;
        } else {
            self.differ.push(format!(
                "in the kernel {}\nhere          {}",
                show(modules, walked),
                show(modules, &full)
            ));
        }
    }

    fn summary(&self) -> String {
        format!(
            "{} distinct stacks: {} equal ({} through signal frames), {} left to the general unwinder, {} deeper than the copy, {} differ",
            self.distinct.len(),
            self.equal,
            self.through_signals,
            self.left,
            self.cut_short,
            self.differ.len()
        )
    }
}

fn show(modules: &ModuleMap, backtrace: &Backtrace) -> String {
    let frame = |frame: &crate::event::Frame| {
        let module = modules.live().iter().find(|module| Some(module.id) == frame.module);
        let name = module.and_then(|module| module.path.file_name()).unwrap_or_default().display().to_string();
        let exact = if frame.kind == FrameKind::Exact { "!" } else { "" };
        format!("{name}+{:x}{exact}", frame.address)
    };
    let frames: Vec<String> = backtrace.frames.iter().map(frame).collect();
    format!("{} {:?}", frames.join(" "), backtrace.ending)
}

/// Watches the process while it does `rounds` times what `command` asks for. `None` if this machine does not let us.
fn compare(target: Process, variants: &[Attachment], rounds: usize, command: &str) -> Option<Comparison> {
    let copies = Copies { length: 65536, all: true };
    let mut source = attach(&target, Duration::from_secs(10), variants, Sizes { records: 1 << 26, copies, ..SIZES })?;
    let mut comparison = Comparison::default();
    // One round at a time, so that the ring buffer holds what comes of it.
    let (go, turns) = mpsc::channel();
    let is_done = AtomicBool::new(true);
    thread::scope(|scope| {
        let is_done = &is_done;
        let asking = scope.spawn(move || {
            let mut target = target;
            for () in turns {
                target.ask(command);
                is_done.store(true, Ordering::Release);
            }
            target.quit();
        });
        let mut begun = 0;
        loop {
            let was_done = is_done.load(Ordering::Acquire);
            assert!(was_done || !asking.is_finished(), "the target has ended, or is silent");
            source.receive(&mut Nothing).expect("the target can be observed");
            let records = source.records.borrow().stacks.clone();
            for (time, record) in records {
                let Some(copy) = &record.copy else { continue };
                let full = source.walk_copy(&record, copy);
                comparison.add(&source.modules, &record, &source.backtrace(&record, time), full);
            }
            source.take_records(u64::MAX, &mut Nothing);
            if was_done && begun == rounds {
                break;
            } else if was_done {
                begun += 1;
                is_done.store(false, Ordering::Release);
                go.send(()).expect("the other thread waits");
            }
        }
        drop(go);
    });
    let lost = LOSSES.map(|(counter, loss)| (loss, source.kernel.counter(counter)));
    eprintln!("{}; lost: {lost:?}", comparison.summary());
    let shown: Vec<&str> = comparison.differ.iter().take(10).map(String::as_str).collect();
    assert!(shown.is_empty(), "{}\n{}", comparison.summary(), shown.join("\n"));
    assert_eq!(comparison.cut_short, 0, "{}", comparison.summary());
    Some(comparison)
}

fn compare_stress(flags: &[&str], variants: &[Attachment]) {
    let Some(found) = compare(Target::cpp("stress").flags(flags).start(), variants, 40, "go 30") else { return };
    assert!(found.equal >= 2000, "{}", found.summary());
    assert!(found.through_signals >= 200, "{}", found.summary());
}

#[test]
fn cpp() {
    compare_stress(&[], BEST);
}

#[test]
fn cpp_most_optimised() {
    compare_stress(&["-O3", "-mavx2"], BEST);
}

#[test]
fn cpp_by_old_programs() {
    compare_stress(&[], OLD);
}

fn compare_script(interpreter: &str, script: &str, least: usize) {
    if !has_program(interpreter) {
        return;
    }
    let path = format!("{}/tests/targets/programs/{script}", env!("CARGO_MANIFEST_DIR"));
    // Its own allocator would ask malloc for arenas only.
    let process = Process::start(Command::new(interpreter).arg(path).env("PYTHONMALLOC", "malloc"));
    let Some(found) = compare(process, BEST, 40, "go 10") else { return };
    assert!(found.equal >= least, "{}", found.summary());
}

#[test]
fn python() {
    compare_script("/usr/bin/python3", "stacks.py", 3000);
}

#[test]
fn perl() {
    compare_script("/usr/bin/perl", "stacks.pl", 500);
}
