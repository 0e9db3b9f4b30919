//! Stopping all threads of a process, so that no breakpoint trap is on its way when they are.

use std::fs;
use std::time::{Duration, Instant};

use super::status::Status;
use super::threads::Activity;
use super::wait::unless_gone;
use super::{LinuxTracer, ptrace};
use crate::{Error, Pid, Report, Stop, StopKind, Tid, queue};

/// How long to sleep between two looks for a thread that has stopped.
const POLL: Duration = Duration::from_micros(50);

/// After how many fruitless looks in a row to find out whether those that still run can stop at all.
const PATIENCE: u32 = 20;

/// After how long to stop waiting for a thread that sleeps and should have stopped, but has not.
const LAST_PATIENCE: Duration = Duration::from_secs(3);

impl LinuxTracer {
    /// See [`Tracer::halt`](crate::Tracer::halt). What else happens meanwhile is kept for
    /// [`Tracer::wait`](crate::Tracer::wait).
    pub(super) fn halt_process(&mut self, pid: Pid) -> Result<Vec<Stop>, Error> {
        if !self.threads.any_living(pid) {
            return Err(Error::Gone(Tid(pid.0)));
        }
        let mut stops = queue::take_stops(&mut self.queue, pid);
        for tid in self.threads.running(pid) {
            unless_gone(ptrace::interrupt(tid))?;
        }
        loop {
            self.collect(pid, &mut stops)?;
            // A thread may have executed a breakpoint and then stopped because it was interrupted: its SIGTRAP waits,
            // its program counter is behind the breakpoint already. It runs on, only to report that.
            let mut halted = Vec::with_capacity(stops.len());
            let mut drained = true;
            for stop in stops {
                if stop.kind == StopKind::Halted && trap_is_imminent(stop.tid)? {
                    drained = false;
                    self.threads.set(stop.tid, Activity::Running);
                    unless_gone(ptrace::cont(stop.tid, None))?;
                } else {
                    halted.push(stop);
                }
            }
            stops = halted;
            if drained {
                return Ok(stops);
            }
        }
    }

    /// Waits until no thread of `pid` runs any more.
    ///
    /// Each is looked at in turn. A look at any thread would find those that have stopped already, again and again, as
    /// they are not collected (see [`ptrace::wait`]); waiting for a certain one could last for ever.
    fn collect(&mut self, pid: Pid, stops: &mut Vec<Stop>) -> Result<(), Error> {
        let mut fruitless = 0;
        let start = Instant::now();
        while !self.threads.running(pid).is_empty() {
            fruitless += 1;
            for tid in self.threads.not_stopped(pid) {
                // An exec ends all other threads.
                if self.threads.get(tid).is_some()
                    && let Some(status) = ptrace::poll(tid).map_err(|cause| self.wait_error(cause))?
                {
                    fruitless = 0;
                    if let Some(report) = self.classify(tid, status, Some(pid))? {
                        self.sort(pid, report, stops)?;
                    }
                }
            }
            if fruitless > 0 {
                if fruitless % PATIENCE == 0 {
                    self.find_the_deaf(pid, start.elapsed() > LAST_PATIENCE)?;
                }
                std::thread::sleep(POLL);
            }
        }
        Ok(())
    }

    /// What concerns the process that is being halted goes to `stops`, all else to the queue.
    fn sort(&mut self, pid: Pid, report: Report, stops: &mut Vec<Stop>) -> Result<(), Error> {
        match report {
            Report::Stopped(stop) if stop.pid == pid => {
                if stop.kind == StopKind::Exec {
                    stops.clear();
                }
                stops.push(stop);
                return Ok(());
            }
            Report::ThreadEnded { tid, .. } => stops.retain(|stop| stop.tid != tid),
            _ => {}
        }
        let ended = matches!(report, Report::ProcessEnded { pid: of, .. } if of == pid);
        self.queue.push_back(report);
        if ended { Err(Error::Gone(Tid(pid.0))) } else { Ok(()) }
    }

    /// Finds the threads that have been interrupted in vain.
    ///
    /// One that waits in vfork does not stop before its child executes a program or ends; and that child may itself be
    /// stopped and wait in the queue. A main thread that ended before the others has no status before they end. Whatever
    /// else keeps a thread asleep (a page fault on a dead file server, a frozen control group), it is in the kernel, and
    /// stops before it executes another instruction of its own: `at_last`, it is not waited for.
    fn find_the_deaf(&mut self, pid: Pid, at_last: bool) -> Result<(), Error> {
        for tid in self.threads.running(pid) {
            match Status::of(tid) {
                Ok(status) if status.has_ended() && tid.0 == pid.0 => self.threads.set(tid, Activity::Ended),
                Ok(status) if status.state == 'D' && (at_last || is_in_system_call(tid)) => {
                    tracing::debug!("thread {tid} does not stop: it waits in the kernel");
                    self.threads.set(tid, Activity::Deaf);
                }
                Ok(_) | Err(Error::Gone(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A breakpoint's SIGTRAP is sent to the thread itself, and is never blocked (`force_sig_info_to_task`,
/// `kernel/signal.c`). If somebody else sent it, it is reported a little earlier than it would have been.
fn trap_is_imminent(tid: Tid) -> Result<bool, Error> {
    match Status::of(tid) {
        Ok(status) => Ok(status.is_imminent(libc::SIGTRAP)),
        Err(Error::Gone(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// As `/proc/PID/syscall` says of a thread that sleeps: -1 stands for a page fault, amid an instruction.
fn is_in_system_call(tid: Tid) -> bool {
    let text = fs::read_to_string(format!("/proc/{tid}/syscall")).unwrap_or_default();
    text.split(' ').next().is_some_and(|number| number.parse::<u64>().is_ok())
}
