//! From a running process to one whose allocator is observed; or back, if that fails.

use memleax_platform::{Error, Pid, Report, Resume, Stop, StopKind, Tid, Tracer};

use super::engine::{Engine, Settings};
use super::hooks::HookError;
use super::images::paths;
use super::isa::native;
use crate::unwind::{DebugFiles, ModuleMap, Role};

/// Why a process cannot be observed. It has been left as it was.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// It cannot be traced.
    #[error(transparent)]
    Platform(#[from] Error),
    /// A function of its allocator cannot be hooked.
    #[error(transparent)]
    Hook(#[from] Box<HookError>),
    /// It has no such functions.
    #[error(
        "cannot follow objects in process {pid}: {}; write ?NAME for a function that may be missing, or that comes with a library loaded later",
        missing.join(", ")
    )]
    Missing {
        /// The process.
        pid: Pid,
        /// What is missing.
        missing: Vec<String>,
    },
    /// Nothing in it is known to allocate.
    #[error("cannot find an allocator in process {pid}: searched {searched}; {remedy}")]
    NoAllocator {
        /// The process.
        pid: Pid,
        /// The modules searched.
        searched: String,
        /// What may help.
        remedy: &'static str,
    },
}

/// How many ticks to wait at the start for a thread that can be halted.
const PATIENCE: u32 = 20;

impl<T: Tracer> Engine<T> {
    /// Attaches to a process.
    pub(super) fn attach(tracer: T, settings: Settings, debug_files: DebugFiles) -> Result<Self, AttachError> {
        let mut engine = Engine::new(tracer, settings, debug_files);
        engine.tracer.attach(engine.settings.pid)?;
        let mut stops = engine.halt_first()?;
        let prepared = engine.take_over_leftovers(&mut stops).map_err(AttachError::from);
        match prepared.and_then(|()| engine.prepare(&stops)) {
            Ok(()) => {
                engine.deferred.extend(stops);
                Ok(engine)
            }
            Err(error) => {
                for problem in engine.release(stops) {
                    tracing::warn!("{problem}");
                }
                Err(error)
            }
        }
    }

    /// Begins to observe a process whose only thread is held by `stop`. It goes on with
    /// [`resume_halted`](Self::resume_halted).
    pub(super) fn take_over(
        tracer: T,
        settings: Settings,
        debug_files: DebugFiles,
        stop: Stop,
    ) -> Result<Self, AttachError> {
        let mut engine = Engine::new(tracer, settings, debug_files);
        engine.prepare(std::slice::from_ref(&stop))?;
        engine.deferred.push_back(stop);
        Ok(engine)
    }

    /// Halts the process for the first time. If all its threads wait in vfork, which is over soon, it goes on until one has
    /// come back; otherwise nothing could be put into it.
    pub(super) fn halt_first(&mut self) -> Result<Vec<Stop>, Error> {
        let pid = self.settings.pid;
        let mut patience = PATIENCE;
        loop {
            let stops = self.tracer.halt(pid)?;
            if !stops.is_empty() || patience == 0 {
                return Ok(stops);
            }
            let handled = match self.tracer.wait()? {
                Report::Tick => {
                    patience -= 1;
                    Ok(())
                }
                Report::ProcessEnded { pid: ended, .. } if ended == pid => Err(Error::Gone(Tid(pid.0))),
                Report::ProcessEnded { pid: ended, .. } => {
                    self.sharing.remove(&ended);
                    Ok(())
                }
                Report::ThreadEnded { .. } => Ok(()),
                Report::Stopped(stop) => match self.pass_unhooked(stop) {
                    Err(Error::Gone(_)) => Ok(()),
                    result => result,
                },
            };
            handled?;
        }
    }

    /// Lets a thread go on while nothing is hooked yet.
    fn pass_unhooked(&mut self, stop: Stop) -> Result<(), Error> {
        match stop.kind {
            StopKind::Forked { .. } => return self.tracer.detach(stop, Resume::Deliver),
            StopKind::Exec if stop.pid != self.settings.pid => {
                self.sharing.remove(&stop.pid);
                return self.tracer.detach(stop, Resume::Deliver);
            }
            StopKind::SharingChild { .. } => {
                self.sharing.insert(stop.pid);
            }
            _ => {}
        }
        self.tracer.resume(stop, Resume::Deliver)
    }

    /// Takes out the breakpoints of a killed tracer. The threads that have just met one are halted before it instead:
    /// were this tracer killed, too, while system calls are made in their names, they would go on behind it.
    fn take_over_leftovers(&mut self, stops: &mut Vec<Stop>) -> Result<(), Error> {
        let Some(stop) = stops.first() else { return Ok(()) };
        let leftovers = self.tracer.leftovers(stop)?;
        if leftovers.is_empty() {
            return Ok(());
        }
        for leftover in leftovers {
            self.breakpoints.take_over(&mut self.tracer, stop, leftover)?;
        }
        for index in (0..stops.len()).rev() {
            let resumed = match self.set_back(&stops[index]) {
                Ok(true) => self.tracer.resume(stops.swap_remove(index), Resume::Swallow),
                other => other.map(drop),
            };
            match resumed {
                Ok(()) | Err(Error::Gone(_)) => {}
                Err(error) => return Err(error),
            }
        }
        stops.extend(self.tracer.halt(self.settings.pid)?);
        Ok(())
    }

    /// Sets a thread back that has met a breakpoint which was then taken out; false if it has not.
    fn set_back(&mut self, stop: &Stop) -> Result<bool, Error> {
        if stop.kind != StopKind::Trap {
            return Ok(false);
        }
        let address = self.tracer.registers(stop)?.rip.wrapping_sub(native::BREAKPOINT_SIZE);
        let met = self.breakpoints.was_lifted(address) && self.tracer.is_breakpoint_trap(stop)?;
        if met {
            self.tracer.set_program_counter(stop, address)?;
        }
        Ok(met)
    }

    pub(super) fn prepare(&mut self, stops: &[Stop]) -> Result<(), AttachError> {
        let pid = self.settings.pid;
        let Some(stop) = stops.first() else {
            let cause =
                "all its threads wait in the kernel (frozen, in vfork, or for a dead file server); try again later";
            return Err(Error::Os { what: "halt", pid, cause: std::io::Error::other(cause) }.into());
        };
        let facts = self.tracer.facts(pid)?;
        self.exec_gains_nothing = facts.exec_gains_nothing;
        match facts.remote_calls_refused {
            Some(why) => self.refuse_code(why),
            None => self.protect(stop)?,
        }
        self.unblock_traps(stops, &facts.threads_blocking_trap)?;
        let errors = self.hook_images(stop)?;
        if let Some(error) = errors.into_iter().next() {
            return Err(Box::new(error).into());
        }
        let missing = self.settings.named.missing();
        if self.hooked_functions == 0 && self.is_loading(stops)? {
            self.warn(format!(
                "the dynamic linker is still loading process {pid}: its allocator is observed as soon as it is there"
            ));
            for missing in missing {
                self.warn(format!("nothing is known of it yet; {missing} so far"));
            }
        } else if !missing.is_empty() {
            return Err(AttachError::Missing { pid, missing });
        } else if self.hooked_functions == 0 {
            let error = no_allocator(pid, self.images.map());
            if self.object_functions.is_empty() {
                return Err(error);
            }
            self.warn(format!("{error}; only objects are followed"));
        }
        if let Some(awaited) = self.settings.named.awaited() {
            self.warn(awaited);
        }
        for missing in self.settings.markers.missing() {
            self.warn(missing);
        }
        Ok(())
    }

    /// True if the program has not begun: the dynamic linker, which tells of the libraries to come, runs.
    fn is_loading(&mut self, stops: &[Stop]) -> Result<bool, Error> {
        let [stop] = stops else { return Ok(false) };
        let at = self.tracer.registers(stop)?.rip;
        Ok(self.images.map().lookup(at).is_some_and(|(module, _)| module.role == Role::Interpreter))
    }

    /// No code can be mapped into the target.
    pub(super) fn refuse_code(&mut self, why: String) {
        self.warn(format!(
            "no code can be mapped into process {} ({why}): instructions are emulated, which is slower, and if memleax is \
             killed by SIGKILL, the target dies, too",
            self.settings.pid
        ));
        self.code_refused = Some(why);
    }

    /// Unblocks SIGTRAP in those of the halted threads that block it.
    pub(super) fn unblock_traps(&mut self, stops: &[Stop], blocking: &[Tid]) -> Result<(), Error> {
        let mut stubborn = Vec::new();
        for stop in stops.iter().filter(|stop| blocking.contains(&stop.tid)) {
            match self.tracer.unblock_trap(stop) {
                Ok(true) | Err(Error::Gone(_)) => {}
                Ok(false) => stubborn.push(stop.tid.to_string()),
                Err(error) => return Err(error),
            }
        }
        if !stubborn.is_empty() {
            self.warn(format!(
                "SIGTRAP is blocked and pending in thread {}: if memleax is killed by SIGKILL, the target dies, too",
                stubborn.join(", ")
            ));
        }
        Ok(())
    }

    /// Makes the target survive the tracer.
    pub(super) fn protect(&mut self, stop: &Stop) -> Result<(), Error> {
        match self.tracer.install_guard(stop) {
            Ok(true) => self.is_guarded = true,
            Ok(false) => self.warn(format!(
                "if memleax is killed by SIGKILL, process {} dies, too: end memleax by any other signal",
                self.settings.pid
            )),
            Err(error @ Error::Gone(_)) => return Err(error),
            Err(error) => {
                self.warn(format!("{error}: if memleax is killed by SIGKILL, the target dies, too"));
            }
        }
        Ok(())
    }
}

fn no_allocator(pid: Pid, modules: &ModuleMap) -> AttachError {
    let is_static = modules.with_role(Role::Interpreter).is_none();
    AttachError::NoAllocator {
        pid,
        searched: paths(modules.live()),
        remedy: if is_static {
            "the program is statically linked and its symbols are stripped; give its debug file with -d"
        } else {
            "the program allocates by functions of other names, or has not loaded its C library yet: try again later"
        },
    }
}
