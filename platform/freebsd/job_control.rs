//! SIGSTOP and SIGCONT of a traced process.
//!
//! The kernel ignores stop signals that a tracer passes on (`issignal`, `sys/kern/kern_sig.c`), and lets a process that was
//! stopped before run when its tracer continues it. So the tracer itself keeps such a process from running, until SIGCONT
//! is pending. Its parent is not told of either.

use libc::c_int;

use super::abi;
use super::sys::Sys;
use super::tracer::FreebsdTracer;
use super::wait::unless_gone;
use crate::{Error, Pid};

impl<S: Sys> FreebsdTracer<S> {
    /// True for a signal that would stop the process if it were not traced.
    pub(super) fn stops_process(&mut self, pid: Pid, signal: c_int) -> Result<bool, Error> {
        match signal {
            abi::SIGSTOP => Ok(true),
            abi::SIGTSTP | abi::SIGTTIN | abi::SIGTTOU => {
                let info = self.process_info(pid)?;
                Ok(!info.caught.contains(signal) && !info.ignored.contains(signal))
            }
            _ => Ok(false),
        }
    }

    /// From now on the process does not continue.
    pub(super) fn freeze(&mut self, pid: Pid) {
        if let Some(process) = self.processes.get_mut(pid) {
            process.signal = 0;
            process.is_frozen = true;
        }
    }

    /// Lets those continue that have been sent SIGCONT.
    pub(super) fn thaw(&mut self) -> Result<(), Error> {
        for pid in self.processes.that(|process| process.is_frozen) {
            match self.process_info(pid) {
                Ok(info) if info.pending.contains(abi::SIGCONT) => {
                    if let Some(process) = self.processes.get_mut(pid) {
                        process.is_frozen = false;
                    }
                    unless_gone(self.continue_unless_held(pid))?;
                }
                Ok(_) | Err(Error::Gone(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
