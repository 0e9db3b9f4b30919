//! A target and the processes that it starts, all observed by breakpoints: an engine for each.

use std::cell::RefCell;
use std::error::Error;
use std::rc::Rc;
use std::time::Instant;

use memleax_platform::{Error as PlatformError, ExitStatus, Pid, Report, Resume, Stop, StopKind, Tracer};
use rustc_hash::FxHashMap;

use super::engine::{Engine, Now, Settings, unless_gone};
use super::kin::Kin;
use super::{AttachError, PtraceSource, TICK};
use crate::config::Config;
use crate::event::{Event, Sink, Timestamp};
use crate::marker::Markers;
use crate::source::{Finished, Notice, Progress, Source};
use crate::stack::StackTable;
use crate::unwind::{DebugFiles, ModuleTable};

/// For how many ticks a child that was just born is waited for at the end.
const PATIENCE: u32 = 50;

/// A process that the target has started, or one that such a process has.
#[derive(Debug)]
struct Member<T> {
    engine: Engine<Kin<T>>,
    /// The command line of each program that it has executed, in order.
    commands: Vec<Vec<String>>,
}

/// A target that is observed together with the processes that it starts.
pub struct FamilySource<T> {
    kin: Kin<T>,
    settings: Settings,
    debug_files: Rc<RefCell<DebugFiles>>,
    /// That of the target, also when it has ended.
    eldest: Engine<Kin<T>>,
    younger: FxHashMap<Pid, Member<T>>,
    /// Those that have ended and may have children yet that nobody has seen: these have a copy of their breakpoints.
    parting: Vec<(Pid, Member<T>, ExitStatus)>,
    ended: Option<ExitStatus>,
    finished: Vec<Finished>,
    notices: Vec<Notice>,
    began: Instant,
}

impl<T: Tracer> FamilySource<T> {
    /// [`PtraceSource::attach`] for a process and the processes that it starts from now on.
    ///
    /// # Errors
    /// [`AttachError`]; the process has then been left as it was.
    pub fn attach(pid: Pid, config: &Config, tracer: T, debug_files: DebugFiles) -> Result<Self, AttachError> {
        Self::begin(pid, config, tracer, debug_files, Engine::attach)
    }

    /// [`PtraceSource::take_over`] for a process and the processes that it starts from now on.
    ///
    /// # Errors
    /// [`AttachError`]; the process is still held then, and useless.
    pub fn take_over(stop: Stop, config: &Config, tracer: T, debug_files: DebugFiles) -> Result<Self, AttachError> {
        Self::begin(stop.pid, config, tracer, debug_files, |tracer, settings, debug_files| {
            Engine::take_over(tracer, settings, debug_files, stop)
        })
    }

    fn begin(
        pid: Pid,
        config: &Config,
        tracer: T,
        debug_files: DebugFiles,
        begin: impl FnOnce(Kin<T>, Settings, DebugFiles) -> Result<Engine<Kin<T>>, AttachError>,
    ) -> Result<Self, AttachError> {
        let mut kin = Kin::new(tracer, pid);
        kin.set_tick(TICK)?;
        let settings = PtraceSource::<T>::settings(pid, config);
        let debug_files = Rc::new(RefCell::new(debug_files));
        let mut eldest = begin(kin.of(pid), settings.clone(), shared(&debug_files))?;
        eldest.births = Some(Vec::new());
        Ok(FamilySource {
            kin,
            settings,
            debug_files,
            eldest,
            younger: FxHashMap::default(),
            parting: Vec::new(),
            ended: None,
            finished: Vec::new(),
            notices: Vec::new(),
            began: Instant::now(),
        })
    }

    fn now(&self) -> Timestamp {
        Timestamp(u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Acts upon one report that concerns the process `owner`.
    fn handle(&mut self, owner: Pid, report: Report, at: Timestamp, sink: &mut dyn Sink) -> Result<(), PlatformError> {
        let Some(engine) = self.engine(owner) else {
            // Of a process that was let go in the meantime.
            return match report {
                Report::Stopped(stop) => unless_gone(self.kin.detach(stop, Resume::Deliver)),
                _ => Ok(()),
            };
        };
        sink.turn(owner);
        let is_exec = matches!(&report, Report::Stopped(Stop { pid, kind: StopKind::Exec, .. }) if *pid == owner);
        let progress = engine.handle(report, &mut Now { at, sink })?;
        let births = engine.births.as_mut().map(std::mem::take).unwrap_or_default();
        if is_exec && let Some(member) = self.younger.get_mut(&owner) {
            member.commands.push(memleax_platform::command_line(owner));
        }
        for stop in births {
            self.born(owner, stop, at, sink)?;
        }
        if let Progress::TargetEnded(status) = progress {
            if owner == self.settings.pid {
                self.ended = Some(status);
            } else if let Some(member) = self.younger.remove(&owner) {
                self.parting.push((owner, member, status));
            }
        }
        if !self.parting.is_empty() && !self.kin.awaits_newborn() {
            for (pid, Member { engine, commands }, status) in self.parting.drain(..) {
                self.finished.push(engine.finish(pid, commands, Some(status)));
            }
        }
        Ok(())
    }

    fn engine(&mut self, pid: Pid) -> Option<&mut Engine<Kin<T>>> {
        if pid == self.settings.pid {
            return Some(&mut self.eldest);
        }
        let parting = self.parting.iter_mut().find(|(other, ..)| *other == pid).map(|(_, member, _)| member);
        self.younger.get_mut(&pid).or(parting).map(|member| &mut member.engine)
    }

    /// Begins to observe a process that has just come to memory of its own.
    fn born(&mut self, parent: Pid, stop: Stop, at: Timestamp, sink: &mut dyn Sink) -> Result<(), PlatformError> {
        let pid = stop.pid;
        // Snapshots are the target's own.
        let named = self.settings.named.optional();
        let settings = Settings { pid, markers: Markers::default(), named, ..self.settings };
        let mut engine = Engine::new(self.kin.of(pid), settings, shared(&self.debug_files));
        engine.births = Some(Vec::new());
        let is_copy = stop.kind != StopKind::Exec;
        let begun = if is_copy {
            engine.prepare(std::slice::from_ref(&stop)).map_err(|error| error.to_string())
        } else {
            engine.begin_program(&stop).map_err(|error| error.to_string())
        };
        let stop = Stop { kind: StopKind::Halted, ..stop };
        if let Err(why) = begun {
            self.notices.push(Notice::Warning(format!("cannot follow process {pid}: {why}")));
            for problem in engine.release(vec![stop]) {
                self.notices.push(Notice::Warning(problem));
            }
            return Ok(());
        }
        sink.born(at, pid, is_copy.then_some(parent));
        sink.turn(pid);
        engine.deferred.push_back(stop);
        engine.resume_halted(&mut Now { at, sink })?;
        self.younger.insert(pid, Member { engine, commands: vec![memleax_platform::command_line(pid)] });
        Ok(())
    }
}

/// What finds debug files, for one engine more.
fn shared(debug_files: &Rc<RefCell<DebugFiles>>) -> DebugFiles {
    let debug_files = Rc::clone(debug_files);
    Box::new(move |module| (debug_files.borrow_mut())(module))
}

impl<T: Tracer> Source for FamilySource<T> {
    fn observe(&mut self, sink: &mut dyn Sink) -> Result<Progress, Box<dyn Error + Send + Sync>> {
        let began = self.now();
        sink.turn(self.settings.pid);
        self.eldest.resume_halted(&mut Now { at: began, sink })?;
        loop {
            let (owner, report) = self.kin.next()?;
            let at = self.now();
            let is_tick = report == Report::Tick;
            if !is_tick {
                self.handle(owner, report, at, sink)?;
            }
            let is_all = self.ended.is_some() && !self.kin.traces_any();
            if is_all || is_tick || at.since(began) >= TICK || !self.finished.is_empty() {
                for (&pid, member) in &mut self.younger {
                    sink.turn(pid);
                    member.engine.tick(&mut Now { at, sink })?;
                    sink.event(at, Event::Idle);
                }
                sink.turn(self.settings.pid);
                self.eldest.tick(&mut Now { at, sink })?;
                sink.event(at, Event::Idle);
                return Ok(match self.ended {
                    Some(status) if is_all => Progress::TargetEnded(status),
                    _ => Progress::Running,
                });
            }
        }
    }

    fn notices(&mut self) -> Vec<Notice> {
        let mut notices = std::mem::take(&mut self.eldest.notices);
        notices.append(&mut self.notices);
        notices
    }

    fn detach(&mut self, sink: &mut dyn Sink) -> Result<Vec<Notice>, Box<dyn Error + Send + Sync>> {
        let at = self.now();
        self.eldest.births = None;
        let mut problems = self.eldest.detach();
        for member in self.younger.values_mut() {
            member.engine.births = None;
            problems.extend(member.engine.detach());
        }
        // Children whose first stop came late: each has the code of its parent, as that was.
        let mut patience = PATIENCE;
        while self.kin.traces_any() && patience > 0 {
            match self.kin.next()? {
                (_, Report::Tick) => patience -= 1,
                (owner, Report::Stopped(stop)) => {
                    let let_go = match self.engine(owner) {
                        Some(engine) => engine.let_go(stop),
                        None => self.kin.detach(stop, Resume::Deliver),
                    };
                    unless_gone(let_go)?;
                }
                _ => {}
            }
        }
        for (pid, Member { engine, commands }, status) in self.parting.drain(..) {
            self.finished.push(engine.finish(pid, commands, Some(status)));
        }
        for (pid, Member { engine, commands }) in std::mem::take(&mut self.younger) {
            sink.turn(pid);
            sink.event(at, Event::Idle);
            self.finished.push(engine.finish(pid, commands, None));
        }
        tracing::info!("{}", self.eldest.counters);
        let mut notices = self.notices();
        notices.extend(problems.into_iter().map(Notice::Warning));
        Ok(notices)
    }

    fn target_ended(&self) -> Option<ExitStatus> {
        self.ended
    }

    fn finished(&mut self) -> Vec<Finished> {
        std::mem::take(&mut self.finished)
    }

    fn tells_events(&self) -> bool {
        true
    }

    fn stacks(&self) -> &StackTable {
        self.eldest.callers.table()
    }

    fn modules(&self) -> &ModuleTable {
        self.eldest.images.map().table()
    }
}
