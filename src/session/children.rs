//! The books of the processes that the target starts, and a report of each at its end.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use memleax_platform::Pid;
use rustc_hash::FxHashMap;

use super::objects::ObjectBooks;
use super::recorder::{Plan, Recorder, types_of};
use crate::config::{Config, Limits};
use crate::event::{Class, Event, Sink, StackId, Tally, Timestamp};
use crate::objects::Objects;
use crate::recording::{self, Begin, Sample, Storage};
use crate::report::End;
use crate::source::{Finished, Notice};
use crate::symbol::{SymbolOptions, Symbolizer};
use crate::tracker::{Inheritance, Tracker};
use crate::unwind::Role;

/// Takes the recording of each process that the target has started, at its end. Returns what it leaked.
pub type OnChild = Box<dyn FnMut(&[u8]) -> Tally + Send>;

/// All of them.
pub(super) struct Children {
    target: Pid,
    limits: Limits,
    objects: Objects,
    backend: String,
    books: FxHashMap<Pid, Books>,
    /// Whose events are told, unless they are the target's.
    current: Option<Pid>,
    jobs: Sender<Job>,
    /// Sums up what those leaked that have ended.
    thread: JoinHandle<Tally>,
}

/// One process.
struct Books {
    parent: Option<Pid>,
    began: Timestamp,
    started: u64,
    /// One for each program that it has executed, and the place of that among all; without those that allocated nothing.
    trackers: Vec<(usize, Tracker, ObjectBooks)>,
    program: usize,
}

/// A report to be made.
struct Job {
    finished: Arc<Finished>,
    begin: Begin,
    end: End,
    sample: Sample,
    of_types: Vec<(Class, Sample)>,
    types: Vec<(String, bool)>,
    remarks: Vec<String>,
    /// The process has ended with this program.
    is_last: bool,
}

impl Children {
    /// Starts the thread that names their frames.
    ///
    /// # Errors
    /// If the system has no thread left for us.
    pub(super) fn new(target: Pid, config: &Config, backend: &str, on_child: OnChild) -> io::Result<Self> {
        let (jobs, inbox) = mpsc::channel();
        let thread = thread::Builder::new().name("children".into()).spawn(move || report(&inbox, on_child))?;
        Ok(Self {
            target,
            limits: Limits::none(config.limits.expire),
            objects: config.objects.clone(),
            backend: backend.into(),
            books: FxHashMap::default(),
            current: None,
            jobs,
            thread,
        })
    }

    pub(super) fn turn(&mut self, process: Pid) {
        self.current = (process != self.target).then_some(process);
    }

    pub(super) fn born(
        &mut self,
        at: Timestamp,
        process: Pid,
        copy_of: Option<Pid>,
        target: &Tracker,
        objects: &ObjectBooks,
    ) {
        let limits = self.limits;
        let parents = match copy_of {
            Some(parent) if parent == self.target => Some((target, objects)),
            Some(parent) => self.trackers(parent),
            None => None,
        };
        let (tracker, objects) = match parents {
            Some((tracker, objects)) => (tracker.forked(limits), objects.forked(limits)),
            None => (Tracker::new(limits), ObjectBooks::new(&self.objects, limits)),
        };
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started = u64::try_from(started.as_nanos()).unwrap_or(u64::MAX);
        let books = Books { parent: copy_of, began: at, started, trackers: vec![(0, tracker, objects)], program: 0 };
        self.books.insert(process, books);
    }

    fn trackers(&self, process: Pid) -> Option<(&Tracker, &ObjectBooks)> {
        let (_, tracker, objects) = self.books.get(&process)?.trackers.last()?;
        Some((tracker, objects))
    }

    /// Takes an event, if it is one of theirs; else it is the target's.
    pub(super) fn takes(&mut self, at: Timestamp, event: Event) -> bool {
        let Some(process) = self.current else { return false };
        let Some(books) = self.books.get_mut(&process) else { return true };
        let at = Timestamp(at.0.saturating_sub(books.began.0));
        if event == Event::Replaced {
            books.program += 1;
            // What allocated nothing is not worth a report.
            books.trackers.retain_mut(|(_, tracker, _)| tracker.level().allocated.count > 0);
            let objects = ObjectBooks::new(&self.objects, self.limits);
            books.trackers.push((books.program, Tracker::new(self.limits), objects));
        } else if let Some((_, tracker, objects)) = books.trackers.last_mut() {
            tracker.event(at, event);
            objects.event(at, event);
        }
        true
    }

    /// The same of an event in the life of an object.
    pub(super) fn takes_object(&mut self, at: Timestamp, class: Class, event: Event) -> bool {
        let Some(process) = self.current else { return false };
        let Some(books) = self.books.get_mut(&process) else { return true };
        let at = Timestamp(at.0.saturating_sub(books.began.0));
        if let Some((_, _, objects)) = books.trackers.last_mut() {
            objects.object(at, class, event);
        }
        true
    }

    /// A process is not observed any more.
    pub(super) fn finish(&mut self, finished: Finished) {
        let Some(books) = self.books.remove(&finished.pid) else { return };
        let end = finished.status.map_or(End::Terminated, End::TargetEnded);
        let finished = Arc::new(finished);
        let executable = finished.modules.iter().rfind(|module| module.role == Role::Executable);
        let executable = executable.map(|module| module.path.display().to_string()).unwrap_or_default();
        let last = books.program;
        for (program, mut tracker, mut objects) in books.trackers {
            let mut remarks = Vec::new();
            if let (Inheritance { all, freed }, Some(parent), 0) = (tracker.inheritance(), books.parent, program)
                && all.count > 0
            {
                let count = |of: Tally| format!("{} ({} bytes)", of.count, of.bytes);
                remarks.push(format!(
                    "Forked from process {parent} with {} live blocks, which are not its own; it freed {} of them.",
                    count(all),
                    count(freed)
                ));
            }
            if program < last {
                remarks.push("It then replaced its program (exec): what was live went away with that.".into());
            }
            let is_last = program == last && finished.status.is_some();
            let begin = Begin {
                version: env!("CARGO_PKG_VERSION").into(),
                pid: finished.pid.0.unsigned_abs(),
                command: finished.commands.get(program).cloned().unwrap_or_default(),
                executable: executable.clone(),
                backend: self.backend.clone(),
                started: books.started,
                expire: u64::try_from(self.limits.expire.as_nanos()).unwrap_or(u64::MAX),
                launched: true,
                by_event: true,
            };
            let sample = Sample::take_last(&mut tracker, Vec::new());
            // If the thread is over, its panic is told at the end.
            let of_types = objects.samples(|_, tracker| Sample::take_last(tracker, Vec::new()));
            let (finished, types) = (Arc::clone(&finished), types_of(&self.objects));
            _ = self.jobs.send(Job { finished, begin, end, sample, of_types, types, remarks, is_last });
        }
    }

    /// Waits until all is reported. What those leaked that have ended.
    ///
    /// # Panics
    /// If the thread did.
    pub(super) fn wait(self) -> Tally {
        drop(self.jobs);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn report(inbox: &Receiver<Job>, mut on_child: OnChild) -> Tally {
    let mut sum = Tally::default();
    let mut symbolizer = Symbolizer::new(SymbolOptions::default());
    for job in inbox {
        match record(&job, &mut symbolizer) {
            Ok(Some(recording)) => {
                let leaked = on_child(&recording);
                if job.is_last {
                    sum = sum.plus(leaked);
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!("cannot report on process {}: {error}", job.finished.pid),
        }
    }
    sum
}

fn record(job: &Job, symbolizer: &mut Symbolizer) -> io::Result<Option<Vec<u8>>> {
    let Job { finished, begin, end, sample, of_types, types, remarks, .. } = job;
    let storage = Storage::Memory(Vec::new());
    let plan = Plan {
        begin: begin.clone(),
        references: Vec::new(),
        types: types.clone(),
        storage,
        limit: recording::LIMIT,
        is_wanted: true,
    };
    let mut recorder = Recorder::begin(plan)?;
    recorder.modules(&finished.modules);
    for id in (0..).map(StackId).take(finished.stacks.len()) {
        recorder.stack(id, finished.stacks.get(id));
    }
    for remark in remarks {
        recorder.remark(remark);
    }
    for notice in &finished.notices {
        if let Notice::Warning(warning) = notice {
            recorder.remark(warning);
        }
    }
    for (class, sample) in of_types {
        recorder.sample(*class, sample);
    }
    recorder.sample(Class::MEMORY, sample);
    symbolizer.turn_to_another_process();
    recorder.names(|frame| symbolizer.name(frame, &finished.modules));
    recorder.end(*end, sample.level.at)
}
