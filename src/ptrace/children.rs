//! What becomes of threads and processes: forks, exec, ends.

use memleax_platform::{Error, Pid, Resume, Stop, StopKind, Tid, Tracer};

use super::engine::{Engine, Now, unless_gone};
use crate::event::Event;
use crate::source::Notice;
use crate::unwind::Role;

impl<T: Tracer> Engine<T> {
    /// A child with a copy of the memory: it gets its bytes back and is let go.
    pub(super) fn forked(&mut self, stop: Stop) -> Result<(), Error> {
        let cleaned = self.clean_copy(&stop);
        if let Err(error) = &cleaned
            && !matches!(error, Error::Gone(_))
        {
            self.warn(format!("cannot clean the child process {} of the target: {error}", stop.pid));
        }
        if let (Some(births), Ok(())) = (&mut self.births, cleaned) {
            births.push(stop);
            return Ok(());
        }
        unless_gone(self.tracer.detach(stop, Resume::Deliver))
    }

    fn clean_copy(&mut self, stop: &Stop) -> Result<(), Error> {
        // The slots stay in the copy, unused: unmapping them would cost a remote system call each.
        if let Some((registers, _)) = self.home_of(stop)? {
            self.tracer.set_registers(stop, &registers)?;
        }
        let kept = self.breakpoints.restore_copy(&mut self.tracer, stop)?;
        if !kept.is_empty() {
            self.warn(format!("cannot take {} breakpoints out of the child process {}", kept.len(), stop.pid));
        }
        if self.is_guarded {
            self.tracer.remove_guard(stop)?;
        }
        Ok(())
    }

    /// A child that shares the memory: it is observed until it has memory of its own, by exec or at its end.
    ///
    /// If it could then not become what it is to be (sudo, mount), it is let go at once. The little that it does until
    /// then is not observed, and the guard leads it past the breakpoints.
    pub(super) fn shared(&mut self, stop: Stop) -> Result<(), Error> {
        let result = if self.exec_gains_nothing && self.is_guarded {
            self.tracer.detach(stop, Resume::Deliver)
        } else {
            self.sharing.insert(stop.pid);
            self.tracer.resume(stop, Resume::Deliver)
        };
        unless_gone(result)
    }

    /// A program was replaced by another.
    pub(super) fn exec(&mut self, stop: Stop, now: &mut Now<'_>) -> Result<(), Error> {
        if stop.pid != self.settings.pid {
            // A vforked child has memory of its own now.
            self.sharing_ended(stop.pid, now);
            if let Some(births) = &mut self.births {
                births.push(stop);
                return Ok(());
            }
            return unless_gone(self.tracer.detach(stop, Resume::Deliver));
        }
        match self.start_over(&stop, now) {
            Ok(()) | Err(Error::Gone(_)) => {}
            Err(error) => self.warn(format!("cannot observe the new program of process {}: {error}", stop.pid)),
        }
        unless_gone(self.tracer.resume(stop, Resume::Deliver))
    }

    /// Lets a process go that is not followed.
    pub(super) fn let_go(&mut self, stop: Stop) -> Result<(), Error> {
        match stop.kind {
            StopKind::Forked { .. } => self.forked(stop),
            _ => self.tracer.detach(stop, Resume::Deliver),
        }
    }

    /// Breakpoints, slots, guard and modules are gone with the old program; hooks what there is of the new one.
    fn start_over(&mut self, stop: &Stop, now: &mut Now<'_>) -> Result<(), Error> {
        self.threads.clear();
        self.breakpoints.forget_all();
        self.slots.forget();
        self.images.forget();
        self.callers.modules_changed();
        self.wrappers.clear();
        self.unobservable.clear();
        self.is_guarded = false;
        self.guard_losses = 0;
        self.code_refused = None;
        self.hooked_functions = 0;
        self.object_functions.clear();
        now.emit(Event::Replaced);
        self.begin_program(stop)
    }

    /// Hooks what there is of a program that has just been executed. Of its libraries the dynamic linker will tell.
    pub(super) fn begin_program(&mut self, stop: &Stop) -> Result<(), Error> {
        let first_notice = self.notices.len();
        let changes = self.images.refresh(&mut self.tracer, stop)?;
        let facts = self.tracer.facts(stop.pid)?;
        let program = self.images.map().with_role(Role::Executable).cloned();
        let path = program.as_ref().map_or(facts.name, |module| module.path.display().to_string());
        if program.is_none() {
            self.warn(format!("the new program, {path}, is none that can be observed: it is not a 64-bit ELF file"));
        } else {
            match facts.remote_calls_refused {
                Some(why) => self.refuse_code(why),
                None => self.protect(stop)?,
            }
            self.unblock_traps(std::slice::from_ref(stop), &facts.threads_blocking_trap)?;
            for error in self.follow(stop, &changes)? {
                self.warn(error.to_string());
            }
            if self.hooked_functions == 0 && self.images.map().with_role(Role::Interpreter).is_none() {
                self.warn(format!("cannot find an allocator in {path}: it is statically linked and stripped"));
            }
        }
        self.notices.insert(first_notice, Notice::Exec(path));
        Ok(())
    }

    /// A thread is no more.
    pub(super) fn thread_ended(&mut self, tid: Tid, now: &mut Now<'_>) {
        if let Some(mut thread) = self.threads.remove(&tid) {
            for pending in thread.abandon() {
                self.never_returned(&pending, now);
            }
        }
    }

    /// A process that shared the target's memory has ended or has memory of its own.
    pub(super) fn sharing_ended(&mut self, pid: Pid, now: &mut Now<'_>) {
        self.sharing.remove(&pid);
        let of_process = |(&tid, thread): (&Tid, &super::engine::Thread)| (thread.pid == pid).then_some(tid);
        let tids: Vec<Tid> = self.threads.iter().filter_map(of_process).collect();
        for tid in tids {
            self.thread_ended(tid, now);
        }
    }
}
