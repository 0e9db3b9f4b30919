//! Leaves the target as it was found.

use memleax_platform::{Error, Pid, Report, Resume, Stop, StopKind, Tracer};

use super::engine::Engine;
use super::isa::native;

/// How many ticks to wait for a vforked child that neither calls exec nor ends.
const PATIENCE: u32 = 50;

/// What has been put back so far.
#[derive(Default)]
struct Undone {
    breakpoints: bool,
    /// Guard and slots.
    mappings: bool,
    problems: Vec<String>,
}

impl Undone {
    fn note<R>(&mut self, result: Result<R, Error>) -> Option<R> {
        match result {
            Ok(value) => Some(value),
            Err(Error::Gone(_)) => None,
            Err(error) => {
                self.problems.push(error.to_string());
                None
            }
        }
    }
}

impl<T: Tracer> Engine<T> {
    /// Stops observing. Returns what could not be put back.
    pub(super) fn detach(&mut self) -> Vec<String> {
        if self.ended.is_some() {
            return Vec::new();
        }
        let stops = self.deferred.drain(..).collect();
        self.release(stops)
    }

    /// The target, and the processes that share its memory.
    pub(super) fn sharing_processes(&self) -> Vec<Pid> {
        std::iter::once(self.settings.pid).chain(self.sharing.iter().copied()).collect()
    }

    /// Halts every thread, puts everything back and lets them all go. `stops` are those halted already.
    pub(super) fn release(&mut self, mut stops: Vec<Stop>) -> Vec<String> {
        let mut undone = Undone::default();
        let mut patience = PATIENCE;
        loop {
            for pid in self.tracer.traced() {
                stops.extend(undone.note(self.tracer.halt(pid)).into_iter().flatten());
            }
            self.release_halted(std::mem::take(&mut stops), &mut undone);
            if self.tracer.traced().is_empty() {
                return undone.problems;
            }
            // A thread in vfork stops only after its child has gone on, which it can do now.
            match undone.note(self.tracer.wait()) {
                Some(Report::Stopped(stop)) => stops.push(stop),
                Some(Report::Tick) if patience > 0 => patience -= 1,
                Some(Report::Tick) if self.tracer.ends_with_tracer() => {
                    tracing::warn!(
                        "a thread of the target waits in the kernel, and is waited for: else the target would end"
                    );
                    patience = PATIENCE;
                }
                Some(Report::ThreadEnded { .. } | Report::ProcessEnded { .. }) => {}
                Some(Report::Tick) | None => {
                    undone.problems.push(format!(
                        "a thread of process {} waits in the kernel (in vfork for a child that does not call exec, for a \
                         dead file server, or frozen); it is let go when memleax ends",
                        self.settings.pid
                    ));
                    return undone.problems;
                }
            }
        }
    }

    fn release_halted(&mut self, stops: Vec<Stop>, undone: &mut Undone) {
        if stops.iter().any(|stop| stop.pid == self.settings.pid && stop.kind == StopKind::Exec) {
            // There is nothing of ours in the new program.
            self.breakpoints.forget_all();
            self.slots.forget();
            self.is_guarded = false;
        }
        if !undone.breakpoints
            && let Some(stop) = stops.iter().find(|stop| self.has_target_memory(stop))
            && let Some(taken) = undone.note(self.breakpoints.taken_out(&mut self.tracer, stop))
            && !taken.is_empty()
        {
            undone.problems.push(format!(
                "somebody else has taken out breakpoints of ours while process {} was watched, as the end of another tool's uprobes does: \
                 of {}, calls are missing since then",
                stop.pid,
                taken.join(", ")
            ));
        }
        if !undone.breakpoints
            && let Some(stop) = stops.iter().find(|stop| self.has_target_memory(stop))
            && let Some(kept) = undone.note(self.breakpoints.restore_all(&mut self.tracer, stop))
        {
            undone.breakpoints = true;
            if !kept.is_empty() {
                let places: Vec<String> = kept.iter().map(|&address| self.describe(address)).collect();
                let places = places.join(", ");
                undone.problems.push(format!("cannot take breakpoints out of process {}: {places}", stop.pid));
            }
        }
        let mut leaving = Vec::with_capacity(stops.len());
        for stop in stops {
            if let StopKind::Forked { .. } = stop.kind {
                undone.note(self.forked(stop));
                continue;
            }
            match self.leave(&stop) {
                Ok(how) => leaving.push((stop, how)),
                Err(Error::Gone(_)) => {}
                Err(error) => {
                    undone.problems.push(error.to_string());
                    leaving.push((stop, Resume::Deliver));
                }
            }
        }
        // Not by a vforked child: it shares the memory, but not the signal handlers.
        if !undone.mappings
            && let Some((stop, _)) = leaving.iter().find(|(stop, _)| stop.pid == self.settings.pid)
        {
            undone.mappings = true;
            if self.is_guarded {
                undone.note(self.tracer.remove_guard(stop));
            }
            undone.note(self.slots.unmap(&mut self.tracer, stop));
        }
        for (stop, how) in leaving {
            undone.note(self.tracer.detach(stop, how));
        }
    }

    fn has_target_memory(&self, stop: &Stop) -> bool {
        match stop.kind {
            StopKind::Forked { .. } => false,
            StopKind::SharingChild { .. } => true,
            StopKind::Exec => stop.pid == self.settings.pid,
            _ => stop.pid == self.settings.pid || self.sharing.contains(&stop.pid),
        }
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
