//! From the statuses that `waitpid(2)` returns to reports: what the engine need not know is dealt with here.

use std::io;

use libc::c_int;

use super::abi::{self, LwpInfo};
use super::processes::Held;
use super::status::Status;
use super::sys::{Request, Sys};
use super::tracer::FreebsdTracer;
use crate::{Error, ExitStatus, Pid, Report, Signal, Stop, StopKind, Tid, tick};

/// What a status came to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The engine is to know this. A stopped thread is held from now on.
    Report(Report),
    /// The process stopped for the tracer's own reasons: it may continue.
    Quiet,
    /// Nothing is to be done now.
    Nothing,
}

impl<S: Sys> FreebsdTracer<S> {
    /// See [`Tracer::wait`](crate::Tracer::wait).
    pub(super) fn next_report(&mut self) -> Result<Report, Error> {
        for pid in self.processes.that(|process| process.is_stopped && process.held.is_empty()) {
            unless_gone(self.continue_unless_held(pid))?;
        }
        loop {
            if let Some(report) = self.queue.pop_front() {
                return Ok(report);
            }
            if tick::take() {
                self.thaw()?;
                return Ok(Report::Tick);
            }
            match self.sys.waitpid(-1) {
                Ok((pid, status)) => match self.outcome(Pid(pid), status)? {
                    Outcome::Report(report) => return Ok(report),
                    Outcome::Quiet => self.go_on_quietly(Pid(pid))?,
                    Outcome::Nothing => {}
                },
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    tick::take();
                    self.thaw()?;
                    return Ok(Report::Tick);
                }
                Err(cause) => return Err(self.wait_error(cause)),
            }
        }
    }

    /// The error of waiting for any traced process.
    pub(super) fn wait_error(&self, cause: io::Error) -> Error {
        let pid = self.processes.pids().first().copied().unwrap_or(Pid(-1));
        Error::Os { what: "wait for traced", pid, cause }
    }

    /// Continues a process, unless it is at last to be halted: then its stops are queued.
    fn go_on_quietly(&mut self, pid: Pid) -> Result<(), Error> {
        if self.processes.get(pid).is_some_and(|process| process.is_halt_due) {
            match self.halt_process(pid) {
                Ok(stops) => self.queue.extend(stops.into_iter().map(Report::Stopped)),
                Err(Error::Gone(_)) => {}
                Err(error) => return Err(error),
            }
            return Ok(());
        }
        unless_gone(self.continue_unless_held(pid))
    }

    /// Lets a stopped process run, unless the caller holds a stop of it or job control has stopped it.
    pub(super) fn continue_unless_held(&mut self, pid: Pid) -> Result<(), Error> {
        match self.processes.get(pid) {
            Some(process) if process.held.is_empty() && process.is_stopped && !process.is_frozen => self.go_on(pid),
            _ => Ok(()),
        }
    }

    /// Lets a stopped process run. All its threads, suspended ones excepted, do.
    pub(super) fn go_on(&mut self, pid: Pid) -> Result<(), Error> {
        let Some(process) = self.processes.get_mut(pid) else { return Ok(()) };
        process.is_stopped = false;
        process.reporter = None;
        let signal = std::mem::take(&mut process.signal);
        self.request("resume", pid.0, Request::Continue(signal)).map(drop)
    }

    /// Takes note of one status.
    pub(super) fn outcome(&mut self, pid: Pid, status: c_int) -> Result<Outcome, Error> {
        match Status::of(status) {
            Status::Ended(status) => self.ended(pid, status),
            Status::Stopped(signal) => match self.last_report(pid) {
                Ok(info) => self.stopped(pid, signal, &info),
                // SIGKILL was faster.
                Err(Error::Gone(_)) => Ok(Outcome::Nothing),
                Err(error) => Err(error),
            },
        }
    }

    fn stopped(&mut self, pid: Pid, signal: c_int, info: &LwpInfo) -> Result<Outcome, Error> {
        let tid = Tid(info.lwpid);
        if self.processes.get(pid).is_none() {
            return self.born(pid, tid, info);
        }
        self.note_thread(pid, tid)?;
        let Some(process) = self.processes.get_mut(pid) else { return Ok(Outcome::Nothing) };
        process.is_stopped = true;
        process.reporter = Some(tid);
        process.signal = 0;
        if info.flags & abi::PL_FLAG_EXEC != 0 {
            process.threads.clear();
            process.threads.insert(tid);
            process.held.clear();
            process.in_vfork.clear();
            self.queue.retain(|report| !matches!(report, Report::Stopped(stop) if stop.pid == pid));
            return Ok(self.hold(pid, tid, StopKind::Exec, None));
        }
        if info.flags & abi::PL_FLAG_FORKED != 0 {
            let shares = info.flags & abi::PL_FLAG_VFORKED != 0;
            if shares {
                process.in_vfork.insert(tid);
            }
            let child = Pid(info.child_pid);
            if let Some((thread, kind)) = self.births.announce(child, pid, shares)
                && let Outcome::Report(report) = self.adopt(child, thread, kind)?
            {
                self.queue.push_back(report);
            }
            return Ok(Outcome::Quiet);
        }
        if info.flags & abi::PL_FLAG_VFORK_DONE != 0 {
            process.in_vfork.remove(&tid);
            return Ok(Outcome::Quiet);
        }
        // What is left of the siginfo of an earlier signal says nothing of an event, nor of another signal.
        let code = (info.flags & abi::PL_FLAG_SI != 0 && info.siginfo.signo == signal).then_some(info.siginfo.code);
        match signal {
            libc::SIGTRAP => {
                process.signal = if code == Some(abi::TRAP_BRKPT) { 0 } else { signal };
                Ok(self.hold(pid, tid, StopKind::Trap, code))
            }
            abi::SIGSTOP if process.owes_sigstop => self.pay_sigstop(pid, info),
            _ => {
                process.signal = signal;
                if self.stops_process(pid, signal)? {
                    self.freeze(pid);
                    return Ok(Outcome::Quiet);
                }
                Ok(self.hold(pid, tid, StopKind::Signal(Signal(signal)), None))
            }
        }
    }

    /// A SIGSTOP came while our own is due, which is to be swallowed, and none left over to stop the process once it is no
    /// longer traced. If it is somebody else's, it stops the process; the kernel may have merged ours with it.
    fn pay_sigstop(&mut self, pid: Pid, info: &LwpInfo) -> Result<Outcome, Error> {
        // Of the SIGSTOP of attaching the kernel tells no sender.
        let is_sent = info.flags & abi::PL_FLAG_SI != 0
            && info.siginfo.signo == abi::SIGSTOP
            && [abi::SI_USER, abi::SI_LWP].contains(&info.siginfo.code);
        let is_ours = !is_sent || info.siginfo.pid == nix::unistd::getpid().as_raw();
        let is_paid = is_ours || !self.expects_sigstop(pid, Tid(info.lwpid))?;
        if let Some(process) = self.processes.get_mut(pid) {
            process.owes_sigstop &= !is_paid;
        }
        if !is_ours {
            self.freeze(pid);
        }
        Ok(Outcome::Quiet)
    }

    /// Besides the one that this thread has reported, a SIGSTOP is pending, or was taken by a thread that waits to report.
    fn expects_sigstop(&mut self, pid: Pid, reporter: Tid) -> Result<bool, Error> {
        if self.process_info(pid)?.pending.contains(abi::SIGSTOP) {
            return Ok(true);
        }
        for tid in self.list_threads(pid)?.into_iter().filter(|&tid| tid != reporter) {
            let info = self.thread_info(tid)?;
            if info.event == abi::PL_EVENT_SIGNAL && info.siginfo.signo == abi::SIGSTOP {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn hold(&mut self, pid: Pid, tid: Tid, kind: StopKind, trap_code: Option<c_int>) -> Outcome {
        let Some(process) = self.processes.get_mut(pid) else { return Outcome::Nothing };
        process.held.insert(tid, Held { kind, trap_code, registers: None });
        Outcome::Report(Report::Stopped(Stop { pid, tid, kind }))
    }

    /// A thread that is not known may have come in place of others, which have ended.
    fn note_thread(&mut self, pid: Pid, tid: Tid) -> Result<(), Error> {
        if self.processes.get(pid).is_some_and(|process| process.threads.contains(&tid)) {
            return Ok(());
        }
        unless_gone(self.look_at_threads(pid))
    }

    /// Brings the list of threads up to date; those that are no more are reported.
    pub(super) fn look_at_threads(&mut self, pid: Pid) -> Result<(), Error> {
        let now = self.list_threads(pid)?;
        let Some(process) = self.processes.get_mut(pid) else { return Ok(()) };
        let before = std::mem::replace(&mut process.threads, now.into_iter().collect());
        for tid in before.difference(&process.threads).copied() {
            process.in_vfork.remove(&tid);
            process.held.remove(&tid);
            self.queue.retain(|report| !matches!(report, Report::Stopped(stop) if stop.tid == tid));
            self.queue.push_back(Report::ThreadEnded { pid, tid });
        }
        Ok(())
    }

    /// The first stop of a child of a traced process.
    fn born(&mut self, pid: Pid, tid: Tid, info: &LwpInfo) -> Result<Outcome, Error> {
        if info.flags & abi::PL_FLAG_CHILD == 0 {
            // Not of ours: an untraced child of this very process that job control has stopped.
            return Ok(Outcome::Nothing);
        }
        match self.births.arrive(pid, tid) {
            Some(kind) => self.adopt(pid, tid, kind),
            None => Ok(Outcome::Nothing),
        }
    }

    fn adopt(&mut self, pid: Pid, tid: Tid, kind: StopKind) -> Result<Outcome, Error> {
        let process = self.processes.add(pid);
        process.is_stopped = true;
        process.reporter = Some(tid);
        process.threads.insert(tid);
        if matches!(kind, StopKind::SharingChild { .. }) {
            // It has only the default events; one with memory of its own is let go in a moment.
            unless_gone(self.ask_for_events(pid))?;
        }
        Ok(self.hold(pid, tid, kind, None))
    }

    fn ended(&mut self, pid: Pid, status: ExitStatus) -> Result<Outcome, Error> {
        self.births.forget(pid);
        let was_known = self.processes.remove(pid).is_some();
        self.queue.retain(|report| !matches!(report, Report::Stopped(stop) if stop.pid == pid));
        for child in self.births.waiting() {
            // The parent was killed before it could name the child, whose memory is its own now in any case.
            if self.process_info(child).is_ok_and(|info| info.parent == pid || !self.is_traced(info.parent))
                && let Some((tid, kind)) = self.births.announce(child, pid, false)
                && let Outcome::Report(report) = self.adopt(child, tid, kind)?
            {
                self.queue.push_back(report);
            }
        }
        Ok(if was_known { Outcome::Report(Report::ProcessEnded { pid, status }) } else { Outcome::Nothing })
    }

    fn is_traced(&self, pid: Pid) -> bool {
        self.processes.get(pid).is_some()
    }
}

/// A process that was killed in the meantime is no error: a later status says so.
pub(super) fn unless_gone(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Gone(_)) => Ok(()),
        other => other,
    }
}
