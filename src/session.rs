//! One run: attach (or start a program), observe until something ends it, detach, and only then the statistics.
//!
//! The thread that calls [`run`] attaches, and is therefore the only one that can control the target. It never writes,
//! names a frame, or waits for a thread that does; that is what the thread of `reporter` is for.

mod backend;
mod children;
mod inquiry;
#[cfg(bpf)]
mod machine;
mod marks;
mod moments;
mod objects;
mod printer;
mod program;
mod recorder;
mod reporter;
mod sieve;
mod signals;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::time::Duration;

use memleax_platform::{ExitStatus, NativeTracer, Pid, RootDirectory, Signal, Tracer};

use crate::config::{Config, Keep, Target};
use crate::event::{Class, Event, Loss, Sink, StackId, Tally, Timestamp, Totals};
use crate::filter::Filters;
use crate::profile::View;
use crate::profile::{Profile, Site};
use crate::ptrace::{self, LaunchError};
use crate::recording::{EventLog, Sample, Storage};
use crate::report;
use crate::source::{Progress, Source};
use crate::symbol::DebugFileError;
use crate::tracker::{CallStackStatistics, Limit, Statistics, Tracker};
use backend::Chosen;
use children::Children;
use inquiry::Reception;
use marks::Marks;
use moments::Moments;
use objects::ObjectBooks;
use printer::Subject;
use program::Program;
use recorder::Plan;
use reporter::Reporter;

pub use children::OnChild;
pub use inquiry::{Attendant, Inquirer, InquiryError, Taken};
#[cfg(bpf)]
pub use machine::watch_machine;
pub use program::ProgramEnd;
pub use signals::Signals;

type BoxedError = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong in a run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The backend is not part of this build.
    #[error("cannot observe by {0}: it is not built in; use --backend ptrace, or build with the feature {0}")]
    NotBuiltIn(&'static str),
    /// Monitoring could not begin.
    #[error("{0}")]
    Refused(BoxedError),
    /// The kernel's way was asked for, and is barred.
    #[error("{0}; or use --backend=ptrace, which needs no more than a debugger does")]
    Barred(BoxedError),
    /// The program could not be started.
    #[error(transparent)]
    NotStarted(#[from] LaunchError),
    /// The file given by `-d` is none, or not the target's.
    #[error(transparent)]
    DebugFile(#[from] DebugFileError),
    /// The system gave no thread for the report.
    #[error("cannot start the thread that prints: {0}; is the limit of processes (`ulimit -u`) reached?")]
    NoThread(io::Error),
    /// Monitoring broke off.
    #[error("monitoring broke off: {0}")]
    BrokeOff(BoxedError),
    /// The target could not be left as it was found.
    #[error("the target may not be as it was found: {0}")]
    NotLeftClean(BoxedError),
    /// The file for the recording cannot be opened.
    #[error("cannot write the recording {}: {cause}", .path.display())]
    NoRecording {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The recording could not be written to its end.
    #[error("cannot write the recording: {0}; what was written before can be read")]
    Recording(io::Error),
    /// The report could not be written.
    #[error("cannot write the report: {0}")]
    Output(#[from] io::Error),
    /// The report was not waited for.
    #[error("the report is cut short by a third signal; the target was left before")]
    CutShort,
}

impl Error {
    /// What memleax is to end with because of this error.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            // As env(1), nohup(1) and shells have it.
            Self::NotStarted(LaunchError::NotExecuted { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => 127,
            Self::NotStarted(LaunchError::NotExecuted { .. }) => 126,
            Self::NotStarted(LaunchError::Ended { status, .. }) => status_of(*status),
            _ if self.could_not_begin() => 1,
            _ => 3,
        }
    }

    /// True if monitoring could not begin; the target is as it was, or was not started.
    #[must_use]
    pub fn could_not_begin(&self) -> bool {
        matches!(
            self,
            Self::NotBuiltIn(_)
                | Self::Refused(_)
                | Self::Barred(_)
                | Self::NotStarted(_)
                | Self::DebugFile(_)
                | Self::NoThread(_)
                | Self::NoRecording { .. }
        )
    }
}

/// Why monitoring ended.
#[derive(Debug)]
enum End {
    Target(ExitStatus),
    Limit(Limit),
    Duration,
    Signal,
    /// The user does not want to wait for the program, and said so by this signal.
    Leave(Signal),
    /// Nobody reads the report, or it cannot be written.
    Output,
    BrokeOff(BoxedError),
    Panicked(Box<dyn Any + Send>),
}

/// What came of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// What became of the program, if memleax has started one.
    pub program: Option<ProgramEnd>,
    /// What the target never freed, if it ended while it was watched; else what expired and was not freed.
    pub leaked: Tally,
    /// The target ended while it was watched.
    pub target_ended: bool,
    /// What processes leaked that the target has started, and that have ended.
    pub leaked_by_children: Tally,
    /// The recording, if it is kept in memory.
    pub recording: Option<Vec<u8>>,
}

impl Outcome {
    /// What memleax is to end with; `if_leaked` (`--error-exitcode`) if blocks were leaked.
    #[must_use]
    pub fn status(&self, if_leaked: Option<u8>) -> u8 {
        match (self.program, if_leaked) {
            // A program that is killed has had no chance to free anything.
            (Some(ProgramEnd::Ended(status @ ExitStatus::Killed(_))), _) => status_of(status),
            (Some(ProgramEnd::Left(signal)), _) => status_of(ExitStatus::Killed(signal)),
            (_, Some(status)) if self.leaked.plus(self.leaked_by_children).count > 0 => status,
            (Some(ProgramEnd::Ended(status)), _) => status_of(status),
            (None, _) => 0,
        }
    }
}

impl Outcome {
    /// The same where only what `profile` has counts as leaked: it was filtered.
    #[must_use]
    pub fn within(self, profile: &Profile) -> Outcome {
        let of_site = |site: &Site| {
            if self.target_ended { site.live } else { site.expired.without(site.freed_expired) }
        };
        let sites = profile.with_objects().flat_map(|profile| &profile.sites);
        let leaked = sites.map(of_site).fold(Tally::default(), Tally::plus);
        Outcome { leaked, ..self }
    }
}

/// An exit status as shells show it.
fn status_of(status: ExitStatus) -> u8 {
    match status {
        ExitStatus::Exited(status) => (status & 0xff) as u8,
        ExitStatus::Killed(Signal(signal)) => 128u8.saturating_add(u8::try_from(signal).unwrap_or(u8::MAX)),
        ExitStatus::Unknown => 0,
    }
}

/// What of a run is shown while it goes on.
#[derive(Clone, Debug)]
pub struct Showing {
    /// What is left out.
    pub filters: Filters,
    /// How snapshots are seen.
    pub view: View,
}

/// Who else has to do with a run.
pub struct Company {
    /// Takes the recordings of processes that the target has started.
    pub on_child: OnChild,
    /// Threads that may ask while it goes on.
    pub attendants: Vec<Attendant>,
}

impl Default for Company {
    fn default() -> Company {
        Company { on_child: Box::new(|_| Tally::default()), attendants: Vec::new() }
    }
}

/// Watches what `config` says and reports to `output` what `showing` says.
///
/// # Errors
/// All that went wrong, in order. Whatever it is, the target was left as well as could be; a program that memleax was to start was
/// not executed if monitoring could not begin, and has ended otherwise.
///
/// # Panics
/// With whatever panicked in observing or reporting, after having detached.
pub fn run(
    config: &Config,
    showing: &Showing,
    signals: &Signals,
    output: impl Write + Send + 'static,
    company: Company,
) -> Result<Outcome, Vec<Error>> {
    let storage = recorder::storage(config).map_err(|error| vec![error])?;
    let prepared = match &config.target {
        Target::Process(pid) => backend::attach(*pid, config).map(|chosen| (*pid, None, chosen)),
        Target::Command(command) => {
            let held = ptrace::launch(command, signals.inherited(), NativeTracer::default());
            let taken = held.map_err(Error::from).and_then(|held| backend::take_over(held, config));
            taken.map(|(child, chosen)| (child.pid(), Some(Program::new(child)), chosen))
        }
    };
    let (pid, program, Chosen { mut source, why }) = prepared.map_err(|error| vec![error])?;
    watch(&mut *source, Watched { pid, backend: why, program, storage, company }, config, showing, signals, output)
}

/// [`run`] by breakpoints, through another tracer than that of this system.
///
/// # Errors
/// As those of [`run`].
///
/// # Panics
/// As [`run`].
pub fn run_through(
    tracer: impl Tracer + 'static,
    config: &Config,
    showing: &Showing,
    signals: &Signals,
    output: impl Write + Send + 'static,
    company: Company,
) -> Result<Outcome, Vec<Error>> {
    let storage = recorder::storage(config).map_err(|error| vec![error])?;
    let prepared = match &config.target {
        Target::Process(pid) => {
            backend::by_ptrace(*pid, config, tracer, "ptrace".into()).map(|chosen| (*pid, None, chosen))
        }
        Target::Command(command) => {
            let held = ptrace::launch(command, signals.inherited(), tracer);
            let taken = held.map_err(Error::from).and_then(|held| backend::take_over_by_ptrace(held, config));
            taken.map(|(child, chosen)| (child.pid(), Some(Program::new(child)), chosen))
        }
    };
    let (pid, program, Chosen { mut source, why }) = prepared.map_err(|error| vec![error])?;
    watch(&mut *source, Watched { pid, backend: why, program, storage, company }, config, showing, signals, output)
}

/// Watches all processes as `settings` say.
///
/// # Errors
/// This build has no uprobes.
#[cfg(not(bpf))]
pub fn watch_machine(_: &crate::machine::Settings, _: &Signals, _: impl Write) -> Result<(), Error> {
    Err(Error::Refused("cannot watch all processes: bpf is not built in; build with the feature bpf, on Linux".into()))
}

/// What is watched.
struct Watched {
    pid: Pid,
    /// Which observes it, and why.
    backend: String,
    program: Option<Program>,
    /// Where its recording is kept.
    storage: Storage,
    company: Company,
}

fn watch(
    source: &mut dyn Source,
    watched: Watched,
    config: &Config,
    showing: &Showing,
    signals: &Signals,
    output: impl Write + Send + 'static,
) -> Result<Outcome, Vec<Error>> {
    let Watched { pid, backend, mut program, storage, company: Company { on_child, attendants } } = watched;
    let children = config.follow_forks.then(|| Children::new(pid, config, &backend, on_child)).transpose();
    let plan = Plan::new(config, pid, &backend, source, storage);
    let subject = Subject {
        target: pid,
        backend: backend.clone(),
        expire: config.limits.expire,
        debug_file: config.debug_file.clone(),
        root: RootDirectory::of(pid).ok(),
        quiet: config.quiet,
        form: config.live,
        showing: showing.clone(),
        types: config.objects.types().iter().map(|of| of.name().to_owned()).collect(),
    };
    let mut tracker = Tracker::new(config.limits);
    let mut objects = ObjectBooks::new(&config.objects, config.limits);
    let mut marks = Marks::new(&config.snapshot_at);
    let started = children.and_then(|children| {
        let reception = Reception::open(attendants, pid, &backend)?;
        Ok((children, Reporter::start(subject, plan, source, output)?, reception))
    });
    let (mut children, mut reporter, reception) = match started {
        Ok(started) => started,
        Err(error) => {
            let detached = source.detach(&mut Feed::new(&mut tracker, &mut objects, &mut marks, None));
            let errors = [Some(Error::NoThread(error)), detached.err().map(Error::NotLeftClean)];
            return Err(errors.into_iter().flatten().collect());
        }
    };
    let mut log = matches!(config.keep, Keep::File { full: true, .. }).then(EventLog::default);
    let end = catch_unwind(AssertUnwindSafe(|| {
        let feed = Feed { log: log.as_mut(), ..Feed::new(&mut tracker, &mut objects, &mut marks, children.as_mut()) };
        observe(source, feed, config, signals, program.as_mut(), &mut reporter, &reception)
    }))
    .unwrap_or_else(End::Panicked);

    let mut errors = Vec::new();
    if !matches!(end, End::Target(_)) {
        match source.detach(&mut Feed::new(&mut tracker, &mut objects, &mut marks, children.as_mut())) {
            Ok(notices) => notices.into_iter().for_each(|notice| reporter.notice(notice)),
            Err(error) => errors.push(Error::NotLeftClean(error)),
        }
    }
    if let Some(children) = &mut children {
        source.finished().into_iter().for_each(|finished| children.finish(finished));
    }
    let mut broke_off = None;
    // The target may have ended before those that it started.
    let before = source.target_ended();
    let mut ended = before.map(|seen| ProgramEnd::Ended(program.as_ref().map_or(seen, |program| program.status(seen))));
    let end = match end {
        End::Panicked(payload) => resume_unwind(payload),
        End::Target(seen) => {
            let status = program.as_ref().map_or(seen, |program| program.status(seen));
            ended = Some(ProgramEnd::Ended(status));
            report::End::TargetEnded(status)
        }
        End::Limit(limit) => report::End::Limit(limit),
        End::Duration | End::Signal | End::Output => report::End::Terminated,
        End::Leave(signal) => {
            ended = ended.or(Some(ProgramEnd::Left(signal)));
            before.map_or(report::End::Terminated, report::End::TargetEnded)
        }
        End::BrokeOff(error) => {
            broke_off = Some(error);
            report::End::Terminated
        }
    };
    reception.close(&recorder::sentence(end), matches!(end, report::End::TargetEnded(_)));
    marks.hand_over(source, &mut reporter);
    match &mut log {
        Some(log) => {
            let left_out = log.set_full(false);
            if left_out > 0 {
                let (at, lost) = (tracker.level().at, Event::Lost(Loss::EventNotRecorded, left_out));
                tracker.event(at, lost);
                log.push(at, lost);
            }
            reporter.events(log.take(), source);
        }
        None => {
            let mut sample = Sample::take_last(&mut tracker, source.ages());
            if !source.tells_events() {
                sample.blocks = source.notable_blocks();
            }
            for (class, sample) in objects::with_memory(objects.last_samples(source), sample) {
                reporter.sample(class, sample, source);
            }
        }
    }
    let statistics = tracker.statistics();
    let of_types = objects.statistics();
    let leaked = leaked(&statistics, end).plus(objects::sum(&of_types, |statistics| leaked(statistics, end)));
    let target_ended = matches!(end, report::End::TargetEnded(_));
    reporter.end(end, broke_off.as_ref().map(ToString::to_string), statistics, of_types, source);
    errors.extend(broke_off.map(Error::BrokeOff));
    let mut recording = None;
    let mut is_hurried = || match &mut program {
        Some(program) if ended.is_none() => {
            ended = program.relay(signals).map(ProgramEnd::Left);
            ended.is_some()
        }
        _ => signals.end_requested() || signals.received().iter().any(|received| received.asking_to_end > 0),
    };
    match reporter.wait(&mut is_hurried) {
        Ok(recorded) => recording = recorded,
        // The reader had enough: an ordinary end.
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => errors.push(error),
    }
    reception.wait(&mut is_hurried);
    let leaked_by_children = children.map(Children::wait).unwrap_or_default();
    let program = program.map(|mut program| ended.unwrap_or_else(|| program.wait(signals)));
    if errors.is_empty() {
        Ok(Outcome { program, leaked, leaked_by_children, target_ended, recording })
    } else {
        Err(errors)
    }
}

fn leaked(statistics: &Statistics, end: report::End) -> Tally {
    match end {
        report::End::TargetEnded(_) => statistics.never_freed,
        _ => statistics.call_stacks.iter().map(CallStackStatistics::may_leak).fold(Tally::default(), Tally::plus),
    }
}

fn observe(
    source: &mut dyn Source,
    mut feed: Feed<'_>,
    config: &Config,
    signals: &Signals,
    mut program: Option<&mut Program>,
    reporter: &mut Reporter,
    reception: &Reception,
) -> End {
    let mut moments = Moments::new(config.interval);
    let duration = config.duration.unwrap_or(Duration::MAX);
    let end = loop {
        let progress = match source.observe(&mut feed) {
            Ok(progress) => progress,
            Err(error) => break End::BrokeOff(error),
        };
        for notice in source.notices() {
            reporter.notice(notice);
        }
        if let Some(children) = &mut feed.children {
            source.finished().into_iter().for_each(|finished| children.finish(finished));
        }
        for finding in feed.tracker.drain_findings() {
            reporter.finding(Class::MEMORY, finding, source);
        }
        for (class, finding) in feed.objects.drain_findings() {
            reporter.finding(class, finding, source);
        }
        moments.pass(&mut feed, signals, source, reporter, reception);
        if let Progress::TargetEnded(status) = progress {
            break End::Target(status);
        }
        match &mut program {
            Some(program) => {
                if source.target_ended().is_some() {
                    program.has_ended();
                }
                if let Some(signal) = program.relay(signals) {
                    break End::Leave(signal);
                }
                if signals.suspend_requested() {
                    program.suspend();
                }
            }
            None if signals.suspend_requested() => reporter.suspend_refused(),
            None => {}
        }
        if let Some(limit) = feed.tracker.limit_reached() {
            break End::Limit(limit);
        } else if signals.end_requested() || reception.end_requested() {
            break End::Signal;
        } else if reporter.has_ended() {
            break End::Output;
        } else if feed.now.since(Timestamp::default()) >= duration {
            break End::Duration;
        }
    };
    moments.settle(&mut feed, source, reporter);
    end
}

/// The tracker, and how late it is by the source's clock.
struct Feed<'a> {
    tracker: &'a mut Tracker,
    /// The same of objects.
    objects: &'a mut ObjectBooks,
    now: Timestamp,
    /// Where single events are recorded.
    log: Option<&'a mut EventLog>,
    marks: &'a mut Marks,
    /// Who takes what happens in processes that the target has started.
    children: Option<&'a mut Children>,
}

impl<'a> Feed<'a> {
    fn new(
        tracker: &'a mut Tracker,
        objects: &'a mut ObjectBooks,
        marks: &'a mut Marks,
        children: Option<&'a mut Children>,
    ) -> Self {
        Feed { tracker, objects, now: Timestamp::default(), log: None, marks, children }
    }
}

impl Sink for Feed<'_> {
    fn event(&mut self, at: Timestamp, event: Event) {
        self.now = at;
        if self.children.as_mut().is_some_and(|children| children.takes(at, event)) {
            return;
        }
        let event = match event {
            Event::Marked(_) if self.marks.is_full() => Event::Lost(Loss::SnapshotNotTaken, 1),
            event => event,
        };
        self.tracker.event(at, event);
        self.objects.event(at, event);
        if let Some(log) = &mut self.log {
            log.push(at, event);
        }
        if let Event::Marked(number) = event {
            self.marks.take(number, self.tracker, self.objects, self.log.as_deref_mut());
        }
    }

    fn counted(&mut self, at: Timestamp, stack: StackId, totals: &Totals) {
        self.now = at;
        self.tracker.counted(at, stack, totals);
    }

    fn object(&mut self, at: Timestamp, class: Class, event: Event) {
        self.now = at;
        if self.children.as_mut().is_some_and(|children| children.takes_object(at, class, event)) {
            return;
        }
        self.objects.object(at, class, event);
        if let Some(log) = &mut self.log {
            log.push_object(at, class, event);
        }
    }

    fn object_counted(&mut self, at: Timestamp, class: Class, stack: StackId, totals: &Totals) {
        self.now = at;
        self.objects.counted(at, class, stack, totals);
    }

    fn turn(&mut self, process: Pid) {
        if let Some(children) = &mut self.children {
            children.turn(process);
        }
    }

    fn born(&mut self, at: Timestamp, process: Pid, copy_of: Option<Pid>) {
        if let Some(children) = &mut self.children {
            children.born(at, process, copy_of, self.tracker, self.objects);
        }
    }
}
