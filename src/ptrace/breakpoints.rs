//! The breakpoints in the target's code.

use std::collections::VecDeque;
use std::ops::Range;

use iced_x86::Instruction;
use memleax_platform::{Error, Leftover, Stop, Tracer};
use rustc_hash::FxHashMap;

use super::isa::native::{BREAKPOINT, PAGE};
use crate::allocator::Function;
use crate::marker::Purpose;

/// How many breakpoints that were taken out are remembered: of those before, nothing can be outstanding any more.
const MOST_LIFTED: usize = 4096;

/// How a thread gets past a breakpoint without lifting it for the others.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Passage {
    /// By the displaced copy of the instruction at this address.
    Slot(u64),
    /// By a displaced copy that there was no memory for when the breakpoint was set: the first thread that meets it makes
    /// up for that.
    Late(Instruction),
    /// By carrying the instruction out on the thread's registers; where that fails, by lifting the breakpoint while
    /// every other thread is halted.
    Emulate(Instruction),
}

/// Whose code a breakpoint stands in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Permanence {
    /// A file's, which nobody changes: the breakpoint stays until detach.
    Lasting,
    /// Made at run time, and so perhaps patched, moved or discarded at any time: the breakpoint stays only while calls
    /// are awaited; this many.
    WhileAwaited(u32),
}

/// What begins where a breakpoint is.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Meaning {
    /// A function that allocates or frees memory.
    pub(super) function: Option<&'static Function>,
    /// A function of objects, perhaps of several types.
    pub(super) has_objects: bool,
    /// A function whose calls are told of, and what for.
    pub(super) purpose: Purpose,
    /// What the dynamic linker calls when it has mapped or unmapped a library.
    pub(super) is_loader_state: bool,
}

/// One breakpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Breakpoint {
    /// The byte that it replaced.
    pub(super) original: u8,
    /// Length of the instruction there.
    pub(super) length: u8,
    /// How to get past it.
    pub(super) passage: Passage,
    /// What hitting it means, other than that a call has returned.
    pub(super) meaning: Meaning,
    /// How long it stays.
    pub(super) permanence: Permanence,
}

/// All breakpoints, by address.
#[derive(Debug, Default)]
pub(super) struct Breakpoints {
    table: FxHashMap<u64, Breakpoint>,
    /// Where breakpoints were taken out while threads ran, with their original bytes: one may have been hit before
    /// without its report having come, or be in the memory of a child that was forked before.
    /// The latest is last.
    lifted: VecDeque<(u64, u8)>,
}

impl Breakpoints {
    /// The breakpoint at an address.
    pub(super) fn get(&self, address: u64) -> Option<&Breakpoint> {
        self.table.get(&address)
    }

    /// The same, to change it.
    pub(super) fn get_mut(&mut self, address: u64) -> Option<&mut Breakpoint> {
        self.table.get_mut(&address)
    }

    /// Writes a breakpoint; the guard must know it already.
    pub(super) fn insert<T: Tracer>(
        &mut self,
        tracer: &mut T,
        stop: &Stop,
        address: u64,
        breakpoint: Breakpoint,
    ) -> Result<(), Error> {
        tracer.write(stop, address, &[BREAKPOINT])?;
        self.table.insert(address, breakpoint);
        Ok(())
    }

    /// Takes a breakpoint out while threads may be running.
    pub(super) fn lift<T: Tracer>(&mut self, tracer: &mut T, stop: &Stop, address: u64) -> Result<(), Error> {
        if let Some(breakpoint) = self.table.remove(&address) {
            self.note_lifted(address, breakpoint.original);
            restore(tracer, stop, address, breakpoint.original)?;
        }
        Ok(())
    }

    fn note_lifted(&mut self, address: u64, original: u8) {
        if self.lifted.len() == MOST_LIFTED {
            self.lifted.pop_front();
        }
        self.lifted.push_back((address, original));
    }

    /// Takes out a breakpoint that a killed tracer of this program left.
    pub(super) fn take_over<T: Tracer>(
        &mut self,
        tracer: &mut T,
        stop: &Stop,
        leftover: Leftover,
    ) -> Result<(), Error> {
        self.note_lifted(leftover.address, leftover.original);
        restore(tracer, stop, leftover.address, leftover.original)
    }

    /// Addresses of the breakpoints in a range.
    pub(super) fn within(&self, range: &Range<u64>) -> Vec<u64> {
        self.table.keys().copied().filter(|address| range.contains(address)).collect()
    }

    /// True if there was a breakpoint at `address` which is no more.
    pub(super) fn was_lifted(&self, address: u64) -> bool {
        self.lifted.iter().any(|&(lifted, _)| lifted == address)
    }

    /// Forgets the breakpoints of memory that is no longer mapped.
    pub(super) fn forget(&mut self, range: &Range<u64>) {
        self.table.retain(|address, _| !range.contains(address));
        self.lifted.retain(|(address, _)| !range.contains(address));
    }

    /// Forgets all: the memory is gone together with the program (exec).
    pub(super) fn forget_all(&mut self) {
        self.table.clear();
        self.lifted.clear();
    }

    /// Puts the program's own bytes into a copy of its memory.
    pub(super) fn mask(&self, address: u64, bytes: &mut [u8]) {
        for (at, byte) in (address..).zip(bytes) {
            if *byte == BREAKPOINT
                && let Some(breakpoint) = self.table.get(&at)
            {
                *byte = breakpoint.original;
            }
        }
    }

    /// The functions whose breakpoint somebody else has taken out: the program's own byte is there. So does the kernel when another tool's
    /// uprobe at the same place ends (`set_orig_insn`, `kernel/events/uprobes.c`).
    pub(super) fn taken_out<T: Tracer>(&self, tracer: &mut T, stop: &Stop) -> Result<Vec<&'static str>, Error> {
        let mut taken = Vec::new();
        for (&address, breakpoint) in &self.table {
            let Some(function) = breakpoint.meaning.function else { continue };
            let mut byte = [0];
            if tracer.read(stop, address, &mut byte)? == 1 && byte[0] == breakpoint.original {
                taken.push(function.name);
            }
        }
        taken.sort_unstable();
        taken.dedup();
        Ok(taken)
    }

    /// Takes every breakpoint out of the memory of `stop`'s process, and verifies that. Bytes that somebody else has
    /// written since stay. Returns the addresses where our byte could not be taken out.
    pub(super) fn restore_all<T: Tracer>(&self, tracer: &mut T, stop: &Stop) -> Result<Vec<u64>, Error> {
        let present = self.table.iter().map(|(&address, breakpoint)| (address, breakpoint.original));
        restore_each(tracer, stop, present)
    }

    /// The same for a copy of the memory, which may be older than the latest changes here.
    pub(super) fn restore_copy<T: Tracer>(&self, tracer: &mut T, stop: &Stop) -> Result<Vec<u64>, Error> {
        let present = self.table.iter().map(|(&address, breakpoint)| (address, breakpoint.original));
        let lifted = self.lifted.iter().rev().copied();
        restore_each(tracer, stop, present.chain(lifted))
    }
}

/// Page by page, so that a process with thousands of breakpoints is not stopped for long.
fn restore_each<T: Tracer>(
    tracer: &mut T,
    stop: &Stop,
    breakpoints: impl Iterator<Item = (u64, u8)>,
) -> Result<Vec<u64>, Error> {
    let mut breakpoints: Vec<(u64, u8)> = breakpoints.collect();
    breakpoints.sort_by_key(|&(address, _)| address);
    breakpoints.dedup_by_key(|&mut (address, _)| address);
    let mut kept = Vec::new();
    for page in breakpoints.chunk_by(|(one, _), (other, _)| one / PAGE == other / PAGE) {
        match restore_page(tracer, stop, page) {
            Ok(of_page) => kept.extend(of_page),
            Err(Error::Gone(tid)) => return Err(Error::Gone(tid)),
            Err(_) => kept.extend(page.iter().map(|&(address, _)| address)),
        }
    }
    Ok(kept)
}

/// Puts the original bytes of one page back where ours are. Returns the addresses that kept ours.
fn restore_page<T: Tracer>(tracer: &mut T, stop: &Stop, page: &[(u64, u8)]) -> Result<Vec<u64>, Error> {
    let (Some(&(first, _)), Some(&(last, _))) = (page.first(), page.last()) else { return Ok(Vec::new()) };
    let offset = |address: u64| (address - first) as usize;
    let mut bytes = vec![0; offset(last) + 1];
    let readable = tracer.read(stop, first, &mut bytes)?;
    bytes.truncate(readable);
    let mut ours = Vec::new();
    for &(address, original) in page {
        if let Some(byte) = bytes.get_mut(offset(address))
            && *byte == BREAKPOINT
        {
            *byte = original;
            ours.push((address, original));
        }
    }
    if ours.is_empty() {
        return Ok(Vec::new());
    }
    tracer.write(stop, first, &bytes)?;
    let readable = tracer.read(stop, first, &mut bytes)?;
    bytes.truncate(readable);
    ours.retain(|&(address, original)| bytes.get(offset(address)) != Some(&original));
    Ok(ours.into_iter().map(|(address, _)| address).collect())
}

/// Puts the original byte back if ours is there.
fn restore<T: Tracer>(tracer: &mut T, stop: &Stop, address: u64, original: u8) -> Result<(), Error> {
    let mut byte = [0];
    if tracer.read(stop, address, &mut byte)? == 0 || byte[0] != BREAKPOINT {
        return Ok(());
    }
    tracer.write(stop, address, &[original])
}
