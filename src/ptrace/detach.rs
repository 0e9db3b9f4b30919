//! Leaves the target as it was found.

use memleax_platform::{Error, Pid, Resume, Stop, StopKind, Tracer};

use super::engine::Engine;
use super::isa::native;

impl<T: Tracer> Engine<T> {
    /// Stops observing. Returns what could not be put back.
    ///
    /// # Errors
    /// When the threads could not even be halted.
    pub(super) fn detach(&mut self) -> Result<Vec<String>, Error> {
        if self.ended.is_some() {
            return Ok(Vec::new());
        }
        let mut stops: Vec<Stop> = self.deferred.drain(..).collect();
        let mut problems = Vec::new();
        for pid in self.traced() {
            match self.tracer.halt(pid) {
                Ok(halted) => stops.extend(halted),
                Err(Error::Gone(_)) => {}
                Err(error) => problems.push(error.to_string()),
            }
        }
        problems.extend(self.release(stops));
        Ok(problems)
    }

    /// The target, and the processes that share its memory.
    pub(super) fn traced(&self) -> Vec<Pid> {
        std::iter::once(self.settings.pid).chain(self.sharing.iter().copied()).collect()
    }

    /// Puts everything back, given every thread, and lets them all go.
    pub(super) fn release(&mut self, stops: Vec<Stop>) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(stop) = stops.iter().find(|stop| self.has_target_memory(stop)) {
            match self.breakpoints.restore_all(&mut self.tracer, stop) {
                Ok(kept) if kept.is_empty() => {}
                Ok(kept) => {
                    let places: Vec<String> = kept.iter().map(|&address| self.describe(address)).collect();
                    problems.push(format!(
                        "cannot take breakpoints out of process {}: {}",
                        stop.pid,
                        places.join(", ")
                    ));
                }
                Err(error) => problems.push(error.to_string()),
            }
        }
        let mut leaving = Vec::with_capacity(stops.len());
        for stop in stops {
            match self.leave(&stop) {
                Ok(how) => leaving.push((stop, how)),
                Err(Error::Gone(_)) => {}
                Err(error) => {
                    problems.push(error.to_string());
                    leaving.push((stop, Resume::Deliver));
                }
            }
        }
        if let Some((stop, _)) = leaving.iter().find(|(stop, _)| self.has_target_memory(stop)) {
            let mut undo = |result: Result<(), Error>| match result {
                Ok(()) | Err(Error::Gone(_)) => {}
                Err(error) => problems.push(error.to_string()),
            };
            if self.is_guarded {
                undo(self.tracer.remove_guard(stop));
            }
            undo(self.slots.unmap(&mut self.tracer, stop));
        }
        for (stop, how) in leaving {
            match self.tracer.detach(stop, how) {
                Ok(()) | Err(Error::Gone(_)) => {}
                Err(error) => problems.push(error.to_string()),
            }
        }
        problems
    }

    fn has_target_memory(&self, stop: &Stop) -> bool {
        stop.pid == self.settings.pid || self.sharing.contains(&stop.pid)
    }

    /// Corrects the program counter of a thread that is about to be let go, with all breakpoints taken out.
    fn leave(&mut self, stop: &Stop) -> Result<Resume, Error> {
        if stop.kind == StopKind::Trap {
            let registers = self.tracer.registers(stop)?;
            let address = registers.rip.wrapping_sub(native::BREAKPOINT_SIZE);
            let ours = self.breakpoints.get(address).is_some() || self.breakpoints.was_lifted(address);
            if ours && self.tracer.is_breakpoint_trap(stop)? {
                self.tracer.set_program_counter(stop, address)?;
                return Ok(Resume::Swallow);
            }
        }
        self.settle(stop)?;
        Ok(Resume::Deliver)
    }
}
