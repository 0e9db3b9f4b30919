//! From the statuses that `waitpid(2)` returns to reports: what the engine need not know is dealt with here.

use std::io;

use libc::c_int;

use super::status::Status;
use super::threads::Activity;
use super::{LinuxTracer, newborn, ptrace, restart};
use crate::tick;
use crate::{Error, ExitStatus, Pid, Report, Signal, Stop, StopKind, Tid};

impl LinuxTracer {
    /// See [`Tracer::wait`](crate::Tracer::wait).
    pub(super) fn next_report(&mut self) -> Result<Report, Error> {
        loop {
            if let Some(report) = self.queue.pop_front() {
                return Ok(report);
            }
            if tick::take() {
                return Ok(Report::Tick);
            }
            match ptrace::wait() {
                // A stop that was handed out already, and is held; or that of an untraced child of this very thread.
                Ok((tid, status)) if ptrace::is_signal_stop(status) && !self.may_stop(tid) => {
                    unless_gone(ptrace::collect_stop(tid).map(drop))?;
                }
                Ok((tid, status)) => {
                    if let Some(report) = self.classify(tid, status, None)? {
                        return Ok(report);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    tick::take();
                    return Ok(Report::Tick);
                }
                Err(cause) => return Err(self.wait_error(cause)),
            }
        }
    }

    fn may_stop(&self, tid: Tid) -> bool {
        self.threads.get(tid).is_some_and(|thread| thread.activity != Activity::Stopped)
    }

    /// Takes note of one status. What the engine has to know is returned; any other stopped thread is resumed, unless
    /// its process is `halting` or has begun to be detached: then it is returned as halted.
    ///
    /// Statuses of unknown threads are those of new ones that come before their creator's event, and of threads that an
    /// exec has ended.
    pub(super) fn classify(&mut self, tid: Tid, status: c_int, halting: Option<Pid>) -> Result<Option<Report>, Error> {
        if !libc::WIFSTOPPED(status) {
            return Ok(self.ended(tid, status));
        }
        let event = ptrace::event(status);
        if event == libc::PTRACE_EVENT_EXEC {
            return Ok(Some(self.executed(tid)));
        }
        if self.threads.get(tid).is_none() {
            match self.newborn(tid)? {
                Newborn::Thread => {}
                Newborn::Process(report) => return Ok(Some(report)),
                Newborn::Dead => return Ok(None),
            }
        }
        let Some(thread) = self.threads.get_mut(tid) else { return Ok(None) };
        thread.activity = Activity::Stopped;
        let pid = thread.pid;
        let signal = libc::WSTOPSIG(status);
        let kind = match event {
            0 if signal == libc::SIGTRAP => StopKind::Trap,
            // It has no handler, so nobody has to look at the thread before it is delivered.
            0 if signal == libc::SIGSTOP && halting != Some(pid) => {
                self.go_on(tid, Some(Signal(signal)))?;
                return Ok(None);
            }
            0 => StopKind::Signal(Signal(signal)),
            libc::PTRACE_EVENT_STOP => {
                // The kernel names the stop signal if job control has stopped the process, else SIGTRAP
                // (`do_jobctl_trap`, `kernel/signal.c`).
                thread.group_stopped = signal != libc::SIGTRAP;
                if !thread.group_stopped {
                    unless_gone(restart::restart_interrupted_call(tid))?;
                }
                StopKind::Halted
            }
            libc::PTRACE_EVENT_VFORK if halting == Some(pid) => {
                // No system call can be made in its name here. It stops again once its child has let it go.
                thread.activity = Activity::Deaf;
                self.note_child(tid, pid)?;
                unless_gone(ptrace::interrupt(tid))?;
                unless_gone(ptrace::cont(tid, None))?;
                return Ok(None);
            }
            libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK => {
                self.note_child(tid, pid)?;
                StopKind::Halted
            }
            _ => StopKind::Halted,
        };
        if kind == StopKind::Halted && halting != Some(pid) && !self.leaving.contains(&pid) {
            self.go_on(tid, None)?;
            return Ok(None);
        }
        Ok(Some(Report::Stopped(Stop { pid, tid, kind })))
    }

    /// Resumes a thread after a stop. One whose process job control has stopped listens, and is not resumed.
    fn go_on(&mut self, tid: Tid, signal: Option<Signal>) -> Result<(), Error> {
        let Some(thread) = self.threads.get_mut(tid) else { return Ok(()) };
        thread.activity = Activity::Running;
        let result =
            if thread.group_stopped && signal.is_none() { ptrace::listen(tid) } else { ptrace::cont(tid, signal) };
        unless_gone(result)
    }

    /// Reads from the event of a thread that created another who that is, so that [`halt`](crate::Tracer::halt) knows of
    /// a thread that has not stopped yet.
    fn note_child(&mut self, creator: Tid, pid: Pid) -> Result<(), Error> {
        let child = match ptrace::event_message(creator) {
            Ok(child) => Tid(child as i32),
            Err(error) => return unless_gone(Err(error)),
        };
        if self.threads.get(child).is_some() {
            return Ok(());
        }
        match Status::of(child) {
            // It stopped, and was let go, before this event was handled.
            Ok(status) if !status.is_traced_here() => {}
            Ok(status) if status.pid() == pid => self.threads.add(child, pid, Activity::Running),
            Ok(_) => {
                self.creators.insert(child, pid);
            }
            Err(Error::Gone(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Deals with the first stop of a thread that is not known yet.
    fn newborn(&mut self, tid: Tid) -> Result<Newborn, Error> {
        let status = match Status::of(tid) {
            Ok(status) => status,
            Err(Error::Gone(_)) => return Ok(Newborn::Dead),
            Err(error) => return Err(error),
        };
        if !status.is_traced_here() {
            return Ok(Newborn::Dead);
        }
        let creator = self.creators.remove(&tid);
        let processes = self.threads.processes();
        self.threads.add(tid, status.pid(), Activity::Stopped);
        if status.process != tid.0 {
            return Ok(Newborn::Thread);
        }
        let parent = creator.unwrap_or_else(|| {
            let parent = Pid(status.parent);
            // CLONE_PARENT makes the creator's parent that of the child, too.
            if processes.contains(&parent) { parent } else { processes.first().copied().unwrap_or(parent) }
        });
        let kind = match newborn::shares_memory(tid, self.threads.of(parent).map(|(tid, _)| tid)) {
            Ok(true) => {
                self.guards.share(Pid(tid.0), parent);
                StopKind::SharingChild { parent }
            }
            Ok(false) => StopKind::Forked { parent },
            Err(Error::Gone(_)) => return Ok(Newborn::Dead),
            Err(error) => return Err(error),
        };
        Ok(Newborn::Process(Report::Stopped(Stop { pid: Pid(tid.0), tid, kind })))
    }

    /// A process executes another program. The thread that called exec has taken over the main thread's id; all others
    /// are gone.
    fn executed(&mut self, tid: Tid) -> Report {
        let pid = Pid(tid.0);
        self.threads.remove_all(pid);
        self.guards.forget(pid);
        self.queue.retain(|report| !matches!(report, Report::Stopped(stop) if stop.pid == pid));
        self.threads.add(tid, pid, Activity::Stopped);
        Report::Stopped(Stop { pid, tid, kind: StopKind::Exec })
    }

    /// The error of waiting for any traced thread.
    pub(super) fn wait_error(&self, cause: io::Error) -> Error {
        Error::Os { what: "wait for traced", pid: self.threads.processes().first().copied().unwrap_or(Pid(-1)), cause }
    }

    fn ended(&mut self, tid: Tid, status: c_int) -> Option<Report> {
        self.creators.remove(&tid);
        self.trap_masks.forget(tid);
        let thread = self.threads.remove(tid)?;
        let pid = thread.pid;
        self.queue.retain(|report| !matches!(report, Report::Stopped(stop) if stop.tid == tid));
        // The main thread's end is reported after all others. If it had ended before the attach, the last one counts.
        if tid.0 != pid.0 && (self.threads.of(pid).next().is_some() || self.leaving.contains(&pid)) {
            return Some(Report::ThreadEnded { pid, tid });
        }
        self.threads.remove_all(pid);
        self.guards.forget(pid);
        self.leaving.remove(&pid);
        let status = if libc::WIFSIGNALED(status) {
            ExitStatus::Killed(Signal(libc::WTERMSIG(status)))
        } else {
            ExitStatus::Exited(libc::WEXITSTATUS(status))
        };
        Some(Report::ProcessEnded { pid, status })
    }
}

/// Who stopped for the first time.
enum Newborn {
    /// A thread of a traced process.
    Thread,
    /// A process, which is the engine's business.
    Process(Report),
    /// Nobody any more, or nobody who is traced.
    Dead,
}

/// A thread that died in the meantime is no error: a later status says so.
pub(super) fn unless_gone(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Gone(_)) => Ok(()),
        other => other,
    }
}
