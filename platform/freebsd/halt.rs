//! Stopping a process such that no breakpoint trap is on its way, and letting it go.
//!
//! The kernel stops all threads of a process together, but reports one at a time: others that have met a breakpoint, too,
//! wait with their reports. Were the process detached then, their SIGTRAPs would kill it. So each is made to report first,
//! while the threads that have reported, and all others, are suspended.

use std::io;

use super::abi;
use super::processes::Held;
use super::sys::{Request, Sys};
use super::tracer::FreebsdTracer;
use super::wait::Outcome;
use crate::{Error, Pid, Report, Stop, StopKind, Tid, queue};

/// How often waiting for a process to stop may be interrupted, by ticks, before it is given up: one of its threads sleeps
/// in the kernel and cannot be woken.
const PATIENCE: u32 = 30;

impl<S: Sys> FreebsdTracer<S> {
    /// See [`Tracer::halt`](crate::Tracer::halt). What else happens meanwhile is kept for
    /// [`Tracer::wait`](crate::Tracer::wait).
    pub(super) fn halt_process(&mut self, pid: Pid) -> Result<Vec<Stop>, Error> {
        let mut stops = queue::take_stops(&mut self.queue, pid);
        let process = self.processes.get(pid).ok_or(Error::Gone(Tid(pid.0)))?;
        if !process.is_stopped && (self.is_in_vfork(pid)? || !self.stop(pid, &mut stops)?) {
            if let Some(process) = self.processes.get_mut(pid) {
                process.is_halt_due = true;
            }
            return Ok(stops);
        }
        self.drain(pid, &mut stops)?;
        if let Some(process) = self.processes.get_mut(pid) {
            process.is_halt_due = false;
            for &tid in &process.threads {
                process.held.entry(tid).or_insert_with(|| {
                    let kind = StopKind::Halted;
                    stops.push(Stop { pid, tid, kind });
                    Held { kind, trap_code: None, registers: None }
                });
            }
        }
        Ok(stops)
    }

    /// All threads of a running process wait for vforked children, and so for nothing else.
    fn is_in_vfork(&mut self, pid: Pid) -> Result<bool, Error> {
        let waiting = self.processes.get(pid).map_or(0, |process| process.in_vfork.len());
        Ok(waiting > 0 && waiting >= self.process_info(pid)?.threads)
    }

    /// Stops a running process; false if it does not stop.
    fn stop(&mut self, pid: Pid, stops: &mut Vec<Stop>) -> Result<bool, Error> {
        let Some(process) = self.processes.get_mut(pid) else { return Ok(false) };
        if !process.owes_sigstop {
            process.owes_sigstop = true;
            if let Err(cause) = self.sys.kill(pid.0, abi::SIGSTOP) {
                return Err(super::ptrace::error_of("stop", pid.0, cause));
            }
        }
        self.await_stop(pid, stops)
    }

    /// Waits until a process stops; false if it does not. What concerns it goes to `stops`, all else to the queue.
    pub(super) fn await_stop(&mut self, pid: Pid, stops: &mut Vec<Stop>) -> Result<bool, Error> {
        let mut patience = PATIENCE;
        loop {
            let status = match self.sys.waitpid(pid.0) {
                Ok((_, status)) => status,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    patience -= 1;
                    if patience == 0 {
                        return Ok(false);
                    }
                    continue;
                }
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Err(Error::Gone(Tid(pid.0))),
                Err(cause) => return Err(self.wait_error(cause)),
            };
            match self.outcome(pid, status)? {
                Outcome::Quiet => return Ok(true),
                Outcome::Report(Report::Stopped(stop)) => {
                    if stop.kind == StopKind::Exec {
                        stops.clear();
                    }
                    stops.push(stop);
                    return Ok(true);
                }
                Outcome::Report(report) => {
                    let has_ended = matches!(report, Report::ProcessEnded { .. });
                    self.queue.push_back(report);
                    if has_ended {
                        return Err(Error::Gone(Tid(pid.0)));
                    }
                }
                Outcome::Nothing => {}
            }
        }
    }

    /// Makes every thread of a stopped process that has something to report do so, and no other thread run meanwhile.
    fn drain(&mut self, pid: Pid, stops: &mut Vec<Stop>) -> Result<(), Error> {
        loop {
            let due = self.threads_with_a_report(pid)?;
            if due.is_empty() {
                return Ok(());
            }
            let Some(process) = self.processes.get(pid) else { return Err(Error::Gone(Tid(pid.0))) };
            let others: Vec<Tid> = process.threads.iter().copied().filter(|tid| !due.contains(tid)).collect();
            self.suspend(&others)?;
            self.go_on(pid)?;
            // Should nothing come of what was due, the process is stopped as any running one.
            let stopped = self.await_stop(pid, stops)? || self.stop(pid, stops)?;
            if !stopped {
                return Err(Error::Gone(Tid(pid.0)));
            }
            self.unsuspend(&others)?;
            // An exec has ended the other threads.
            stops.retain(|stop| self.processes.get(pid).is_some_and(|process| process.held.contains_key(&stop.tid)));
        }
    }

    /// The threads of a stopped process that the caller does not hold, and that have met a breakpoint or received a signal
    /// but not reported it.
    fn threads_with_a_report(&mut self, pid: Pid) -> Result<Vec<Tid>, Error> {
        self.look_at_threads(pid)?;
        let Some(process) = self.processes.get(pid) else { return Ok(Vec::new()) };
        let reporter = process.reporter;
        let silent = process.threads.iter().copied().filter(|tid| !process.held.contains_key(tid));
        let mut due = Vec::new();
        for tid in silent.collect::<Vec<_>>() {
            let info = self.thread_info(tid)?;
            let waits = info.event == abi::PL_EVENT_SIGNAL && reporter != Some(tid);
            if waits || info.siglist.contains(libc::SIGTRAP) {
                due.push(tid);
            }
        }
        Ok(due)
    }

    /// Detaches from a stopped process of which no stop is held.
    pub(super) fn release(&mut self, pid: Pid) -> Result<(), Error> {
        // A SIGSTOP that stopped nothing, because something else did first, would now stop the process for good.
        while self.processes.get(pid).is_some_and(|process| process.owes_sigstop) {
            self.go_on(pid)?;
            if !self.await_stop(pid, &mut Vec::new())? {
                return Err(Error::Gone(Tid(pid.0)));
            }
            if let Some(process) = self.processes.get_mut(pid) {
                // No breakpoint is ours any more, so the program is to have each trap, as any signal.
                for (tid, held) in std::mem::take(&mut process.held) {
                    if held.kind == StopKind::Trap && process.reporter == Some(tid) {
                        process.signal = libc::SIGTRAP;
                    }
                }
            }
        }
        let Some(process) = self.processes.get_mut(pid) else { return Ok(()) };
        let signal = if process.is_frozen { abi::SIGSTOP } else { process.signal };
        if let Err(error) = self.request("detach from", pid.0, Request::Detach(signal)) {
            // Killed: its status is still to come, and its parent waits until it is fetched.
            if let Some(process) = self.processes.get_mut(pid) {
                process.is_stopped = false;
            }
            return Err(error);
        }
        self.processes.remove(pid);
        Ok(())
    }
}
