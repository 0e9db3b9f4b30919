//! One instruction of a stopped thread, such that nothing that happens meanwhile is lost.

use super::abi;
use super::sys::{Request, Sys};
use super::tracer::FreebsdTracer;
use crate::{Error, Signal, Stop, StopKind, Tid};

/// How a step ended.
enum Step {
    /// The instruction was executed.
    Done,
    /// Nothing was, and nothing that matters happened.
    Again,
    /// This signal came first, or the instruction raised it; the thread stopped before the delivery.
    Preempted(Signal),
}

impl<S: Sys> FreebsdTracer<S> {
    /// See [`Tracer::step`](crate::Tracer::step). All other threads are suspended meanwhile.
    pub(super) fn step_one(&mut self, stop: &mut Stop) -> Result<(), Error> {
        let process = self.processes.get(stop.pid).ok_or(Error::Gone(stop.tid))?;
        let others: Vec<Tid> = process.threads.iter().copied().filter(|&tid| tid != stop.tid).collect();
        self.suspend(&others)?;
        let step = loop {
            match self.try_step(stop)? {
                Step::Again => {}
                step => break step,
            }
        };
        self.unsuspend(&others)?;
        if let Step::Preempted(signal) = step {
            if let StopKind::Signal(earlier) = stop.kind
                && let Err(cause) = self.sys.kill(stop.pid.0, earlier.0)
            {
                return Err(super::ptrace::error_of("send a signal to", stop.pid.0, cause));
            }
            stop.kind = StopKind::Signal(signal);
        }
        Ok(())
    }

    fn try_step(&mut self, stop: &Stop) -> Result<Step, Error> {
        let before = self.all_registers(stop.tid)?.rip;
        self.request("step", stop.tid.0, Request::SetStep)?;
        // What it stopped for is still the caller's to decide.
        if let Some(process) = self.processes.get_mut(stop.pid) {
            process.signal = 0;
        }
        self.go_on(stop.pid)?;
        let mut stops = Vec::with_capacity(1);
        if !self.await_stop(stop.pid, &mut stops)? {
            return Err(Error::Gone(stop.tid));
        }
        let stepped = stops.pop().filter(|new| new.tid == stop.tid);
        let process = self.processes.get_mut(stop.pid).ok_or(Error::Gone(stop.tid))?;
        let held = process.held.get_mut(&stop.tid).ok_or(Error::Gone(stop.tid))?;
        held.registers = None;
        let step = match stepped.map(|new| new.kind) {
            Some(StopKind::Trap) if held.trap_code == Some(abi::TRAP_TRACE) => {
                process.signal = 0;
                return Ok(Step::Done);
            }
            Some(StopKind::Trap) => Step::Preempted(Signal(libc::SIGTRAP)),
            Some(StopKind::Signal(signal)) => Step::Preempted(signal),
            _ => Step::Again,
        };
        // The thread would step still when it runs again, and be killed by the trap.
        self.request("stop stepping", stop.tid.0, Request::ClearStep)?;
        let moved = self.all_registers(stop.tid)?.rip != before;
        Ok(if matches!(step, Step::Again) && moved { Step::Done } else { step })
    }
}
