//! One run: attach, observe until something ends it, detach, and only then the statistics.
//!
//! The thread that calls [`run`] attaches, and is therefore the only one that can control the target. It never writes,
//! names a frame, or waits for a thread that does; that is what the thread of `reporter` is for.

mod backend;
mod printer;
mod reporter;
mod signals;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use memleax_platform::{ExitStatus, RootDirectory, Tracer};

use crate::config::Config;
use crate::event::{Event, Sink, StackId, Timestamp, Totals};
use crate::report;
use crate::source::{Progress, Source};
use crate::symbol::DebugFileError;
use crate::tracker::{Limit, Tracker};
use printer::Subject;
use reporter::Reporter;

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
    /// The report could not be written.
    #[error("cannot write the report: {0}")]
    Output(#[from] io::Error),
    /// The report was not waited for.
    #[error("the report is cut short by a third signal; the target was left before")]
    CutShort,
}

impl Error {
    /// True if monitoring could not begin; the target is as it was.
    #[must_use]
    pub fn could_not_begin(&self) -> bool {
        matches!(
            self,
            Self::NotBuiltIn(_) | Self::Refused(_) | Self::Barred(_) | Self::DebugFile(_) | Self::NoThread(_)
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
    /// Nobody reads the report, or it cannot be written.
    Output,
    BrokeOff(BoxedError),
    Panicked(Box<dyn Any + Send>),
}

/// Watches a process as `config` says and reports to `output`.
///
/// # Errors
/// All that went wrong, in order. Whatever it is, the target was left as well as could be.
///
/// # Panics
/// With whatever panicked in observing or reporting, after having detached.
pub fn run(config: &Config, signals: &Signals, output: impl Write + Send + 'static) -> Result<(), Vec<Error>> {
    let backend::Chosen { mut source, why } = backend::attach(config).map_err(|error| vec![error])?;
    watch(&mut *source, why, config, signals, output)
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
    signals: &Signals,
    output: impl Write + Send + 'static,
) -> Result<(), Vec<Error>> {
    let chosen = backend::by_ptrace(config, tracer, "ptrace".into()).map_err(|error| vec![error])?;
    let backend::Chosen { mut source, why } = chosen;
    watch(&mut *source, why, config, signals, output)
}

fn watch(
    source: &mut dyn Source,
    backend: String,
    config: &Config,
    signals: &Signals,
    output: impl Write + Send + 'static,
) -> Result<(), Vec<Error>> {
    let subject = Subject {
        target: config.target,
        backend,
        expire: config.limits.expire,
        debug_file: config.debug_file.clone(),
        root: RootDirectory::of(config.target).ok(),
        quiet: config.quiet,
    };
    let mut tracker = Tracker::new(config.limits);
    let mut reporter = match Reporter::start(subject, source, output) {
        Ok(reporter) => reporter,
        Err(error) => {
            let detached = source.detach(&mut Feed { tracker: &mut tracker, now: Timestamp::default() });
            let errors = [Some(Error::NoThread(error)), detached.err().map(Error::NotLeftClean)];
            return Err(errors.into_iter().flatten().collect());
        }
    };
    let end = catch_unwind(AssertUnwindSafe(|| observe(source, &mut tracker, config, signals, &mut reporter)))
        .unwrap_or_else(End::Panicked);

    let mut errors = Vec::new();
    if !matches!(end, End::Target(_)) {
        match source.detach(&mut Feed { tracker: &mut tracker, now: Timestamp::default() }) {
            Ok(notices) => notices.into_iter().for_each(|notice| reporter.notice(notice)),
            Err(error) => errors.push(Error::NotLeftClean(error)),
        }
    }
    let (end, broke_off) = match end {
        End::Panicked(payload) => resume_unwind(payload),
        End::Target(status) => (report::End::TargetEnded(status), None),
        End::Limit(limit) => (report::End::Limit(limit), None),
        End::Duration | End::Signal | End::Output => (report::End::Terminated, None),
        End::BrokeOff(error) => (report::End::Terminated, Some(error)),
    };
    reporter.end(end, broke_off.as_ref().map(ToString::to_string), tracker.statistics(), source);
    errors.extend(broke_off.map(Error::BrokeOff));
    match reporter.wait(signals) {
        Ok(()) => {}
        // The reader had enough: an ordinary end.
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => errors.push(error),
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn observe(
    source: &mut dyn Source,
    tracker: &mut Tracker,
    config: &Config,
    signals: &Signals,
    reporter: &mut Reporter,
) -> End {
    let mut feed = Feed { tracker, now: Timestamp::default() };
    let duration = config.duration.unwrap_or(Duration::MAX);
    loop {
        let progress = match source.observe(&mut feed) {
            Ok(progress) => progress,
            Err(error) => return End::BrokeOff(error),
        };
        for notice in source.notices() {
            reporter.notice(notice);
        }
        for finding in feed.tracker.drain_findings() {
            reporter.finding(finding, source);
        }
        if signals.suspend_requested() {
            reporter.suspend_refused();
        }
        if let Progress::TargetEnded(status) = progress {
            return End::Target(status);
        } else if let Some(limit) = feed.tracker.limit_reached() {
            return End::Limit(limit);
        } else if signals.end_requested() {
            return End::Signal;
        } else if reporter.has_ended() {
            return End::Output;
        } else if feed.now.since(Timestamp::default()) >= duration {
            return End::Duration;
        }
    }
}

/// The tracker, and how late it is by the source's clock.
struct Feed<'a> {
    tracker: &'a mut Tracker,
    now: Timestamp,
}

impl Sink for Feed<'_> {
    fn event(&mut self, at: Timestamp, event: Event) {
        self.now = at;
        self.tracker.event(at, event);
    }

    fn counted(&mut self, at: Timestamp, stack: StackId, totals: &Totals) {
        self.now = at;
        self.tracker.counted(at, stack, totals);
    }
}
