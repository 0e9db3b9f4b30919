//! Observes a target by breakpoints, through a [`Tracer`].
//!
//! Three stops a malloc/free pair: malloc's entry, its return, free's entry. A breakpoint, once written, stays until
//! detach; a thread gets past it by a displaced copy of the instruction (`slots`), so that no other thread can slip past
//! unseen. `engine` turns the tracer's reports into actions, `allocations` the hits into events, `calls` decides which
//! hits belong together, `callers` numbers call stacks, `hooks` and `sites` set breakpoints.
//!
//! No thread ever runs a signal handler, is let go, or shows a stack with the address of a slot: see `Engine::settle`.

mod allocations;
mod attach;
mod breakpoints;
mod callers;
mod calls;
mod children;
mod counters;
mod detach;
mod engine;
#[cfg(test)]
mod fake;
mod family;
mod hooks;
mod images;
mod isa;
mod kin;
mod launch;
mod sites;
mod slots;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::time::{Duration, Instant};

use memleax_platform::{Pid, Report, Stop, Tracer};

pub use attach::AttachError;
pub use counters::Counters;
pub use family::FamilySource;
pub use hooks::HookError;
pub use launch::{Held, LaunchError, launch};

use crate::allocator::NamedFunctions;
use crate::config::Config;
use crate::event::{Event, Sink, Timestamp};
use crate::marker::Markers;
use crate::source::{Notice, Progress, Source};
use crate::stack::StackTable;
use crate::unwind::{DebugFiles, ModuleTable};
use engine::{Engine, Now, Settings};

/// How long [`Source::observe`] observes.
const TICK: Duration = Duration::from_millis(100);

/// A target observed by breakpoints.
#[derive(Debug)]
pub struct PtraceSource<T> {
    engine: Engine<T>,
    began: Instant,
}

impl<T: Tracer> PtraceSource<T> {
    /// Attaches to process `pid`. `debug_files` finds separate debug files, for the symbols of
    /// stripped programs and for unwind information.
    ///
    /// # Errors
    /// [`AttachError`]; the process has then been left as it was.
    pub fn attach(pid: Pid, config: &Config, mut tracer: T, debug_files: DebugFiles) -> Result<Self, AttachError> {
        tracer.set_tick(TICK)?;
        let engine = Engine::attach(tracer, Self::settings(pid, config), debug_files)?;
        Ok(PtraceSource { engine, began: Instant::now() })
    }

    /// Takes over a process that has one thread, which `tracer` holds by `stop`: see [`launch()`].
    ///
    /// # Errors
    /// [`AttachError`]; the process is still held then, and useless.
    pub fn take_over(stop: Stop, config: &Config, mut tracer: T, debug_files: DebugFiles) -> Result<Self, AttachError> {
        tracer.set_tick(TICK)?;
        let engine = Engine::take_over(tracer, Self::settings(stop.pid, config), debug_files, stop)?;
        Ok(PtraceSource { engine, began: Instant::now() })
    }

    fn settings(pid: Pid, config: &Config) -> Settings {
        Settings {
            pid,
            depth: config.depth,
            by_thread: config.by_thread,
            mmap: config.mmap,
            named: NamedFunctions::new(config.objects.functions()),
            markers: Markers::new(&config.snapshot_at, &config.references),
        }
    }

    /// What observing has cost so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.engine.counters
    }

    fn now(&self) -> Timestamp {
        Timestamp(u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

impl<T: Tracer> Source for PtraceSource<T> {
    fn observe(&mut self, sink: &mut dyn Sink) -> Result<Progress, Box<dyn Error + Send + Sync>> {
        let began = self.now();
        self.engine.resume_halted(&mut Now { at: began, sink })?;
        loop {
            let report = self.engine.tracer.wait()?;
            let at = self.now();
            let is_tick = report == Report::Tick;
            let mut now = Now { at, sink };
            let progress = self.engine.handle(report, &mut now)?;
            if progress != Progress::Running {
                // Children that it has just made have the breakpoints in their copy of its code.
                let problems = self.engine.release(Vec::new());
                self.engine.notices.extend(problems.into_iter().map(Notice::Warning));
            }
            let is_over = progress != Progress::Running || is_tick || at.since(began) >= TICK;
            if is_over {
                self.engine.tick(&mut now)?;
            }
            if is_over || !self.engine.notices.is_empty() {
                now.emit(Event::Idle);
                return Ok(progress);
            }
        }
    }

    fn notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.engine.notices)
    }

    fn detach(&mut self, _: &mut dyn Sink) -> Result<Vec<Notice>, Box<dyn Error + Send + Sync>> {
        let problems = self.engine.detach();
        tracing::info!("{}", self.engine.counters);
        let mut notices = self.notices();
        notices.extend(problems.into_iter().map(Notice::Warning));
        Ok(notices)
    }

    fn tells_events(&self) -> bool {
        true
    }

    fn stacks(&self) -> &StackTable {
        self.engine.callers.table()
    }

    fn modules(&self) -> &ModuleTable {
        self.engine.images.map().table()
    }
}
