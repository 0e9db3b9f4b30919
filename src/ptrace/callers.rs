//! From a thread at the entry of a function to the id of its call stack: one read of its stack, one unwinding.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use memleax_platform::{Error, Registers, Stop, Tracer};
use rustc_hash::FxBuildHasher;

use super::counters::Counters;
use crate::event::{Backtrace, Ending, StackId};
use crate::stack::StackTable;
use crate::unwind::{ModuleMap, RawBacktrace, Unwinder};

/// What is read of a stack where nothing better is known.
const FIRST_WINDOW: usize = 4096;

/// Windows grow to a multiple of this.
const WINDOW_STEP: usize = 512;

/// The largest window; a deeper stack costs further reads.
const LARGEST_WINDOW: usize = 128 << 10;

/// How many call stacks are told apart. Real programs have thousands; code made at run time, or threads that are told apart, would fill
/// memory in days.
const STACKS: usize = 1 << 19;

/// How many windows are remembered.
const WINDOWS: usize = 1024;

/// That of all calls for whose stack there is no room.
const UNKNOWN: Backtrace = Backtrace { frames: Vec::new(), ending: Ending::UnreadableStack, by_frame_pointer: false };

/// A call stack, and where its innermost call returns to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Caller {
    /// The stack.
    pub(super) stack: StackId,
    /// The innermost return address; `None` if the stack is unreadable.
    pub(super) return_address: Option<u64>,
    /// False if there was no room for the stack: it is then the one of all such calls.
    pub(super) is_kept: bool,
}

/// Numbers call stacks.
#[derive(Debug)]
pub(super) struct Callers {
    table: StackTable,
    /// Stacks by run-time addresses, valid for as long as the modules stay where they are: so a stack seen before needs
    /// no search for modules.
    known: HashTable<(RawBacktrace, StackId)>,
    raw: RawBacktrace,
    window: Vec<u8>,
    /// How much of the stack the last unwinding from the same function and stack pointer needed.
    windows: Box<[u32; WINDOWS]>,
    depth: usize,
    /// Stacks of different threads are different.
    by_thread: bool,
    /// How many are told apart.
    most: usize,
}

impl Callers {
    pub(super) fn new(depth: usize, by_thread: bool) -> Self {
        Callers {
            table: StackTable::default(),
            known: HashTable::new(),
            raw: RawBacktrace::default(),
            window: Vec::new(),
            #[allow(clippy::cast_possible_truncation)]
            windows: Box::new([FIRST_WINDOW as u32; WINDOWS]),
            depth: depth.max(1),
            by_thread,
            most: STACKS,
        }
    }

    /// The table itself, at the end.
    pub(super) fn into_table(self) -> StackTable {
        self.table
    }

    /// The stacks seen so far.
    pub(super) fn table(&self) -> &StackTable {
        &self.table
    }

    /// To be called when modules came or went: the same addresses may mean other code now.
    pub(super) fn modules_changed(&mut self) {
        self.known.clear();
    }

    /// The stack of a thread whose `registers` are those at the first instruction of a function.
    pub(super) fn of<T: Tracer>(
        &mut self,
        tracer: &mut T,
        stop: &Stop,
        registers: &Registers,
        unwinder: &mut Unwinder,
        modules: &ModuleMap,
        counters: &mut Counters,
    ) -> Result<Caller, Error> {
        let key = (FxBuildHasher.hash_one((registers.rip, registers.rsp)) >> 32) as usize % WINDOWS;
        let mut stack =
            Window { tracer, stop, base: registers.rsp, bytes: &mut self.window, needed: 0, counters, gone: None };
        stack.fill(self.windows[key] as usize);
        let return_address = stack.word(registers.rsp);
        unwinder.unwind_from_call_entry(registers, &mut |address| stack.word(address), self.depth, &mut self.raw);
        let (needed, gone) = (stack.needed, stack.gone);
        if let Some(error) = gone {
            return Err(error);
        }
        if needed > self.windows[key] as usize {
            #[allow(clippy::cast_possible_truncation)]
            let window = needed.next_multiple_of(WINDOW_STEP).min(LARGEST_WINDOW) as u32;
            self.windows[key] = window;
        }
        if self.by_thread {
            let tid = stop.tid.0.unsigned_abs();
            self.raw.thread = Some(tid);
            let name = || memleax_platform::thread_name(stop.pid, stop.tid);
            self.table.meet_thread(tid, name);
        }
        let number = self.number(modules);
        let stack = number.unwrap_or_else(|| self.table.intern(&UNKNOWN));
        Ok(Caller { stack, return_address, is_kept: number.is_some() })
    }

    /// True if the stack unwound last has this return address, or may have it beyond its end.
    pub(super) fn last_contains(&self, return_address: u64) -> bool {
        self.raw.ending != Ending::Complete || self.raw.frames.iter().any(|frame| frame.pc == return_address)
    }

    /// The id of the stack unwound last; `None` if it is new, and there is no room for more.
    fn number(&mut self, modules: &ModuleMap) -> Option<StackId> {
        let hash = FxBuildHasher.hash_one(&self.raw);
        if let Some(&(_, id)) = self.known.find(hash, |(raw, _)| *raw == self.raw) {
            return Some(id);
        }
        let backtrace = self.raw.to_backtrace(modules);
        let id = match self.table.find(&backtrace) {
            Some(id) => id,
            None if self.table.len() < self.most => self.table.intern(&backtrace),
            None => return None,
        };
        self.known.insert_unique(hash, (self.raw.clone(), id), |(raw, _)| FxBuildHasher.hash_one(raw));
        Some(id)
    }
}

/// A part of a thread's stack, from its stack pointer on, read at once.
struct Window<'a, T> {
    tracer: &'a mut T,
    stop: &'a Stop,
    base: u64,
    bytes: &'a mut Vec<u8>,
    needed: usize,
    counters: &'a mut Counters,
    gone: Option<Error>,
}

impl<T: Tracer> Window<'_, T> {
    fn fill(&mut self, length: usize) {
        self.counters.stack_reads += 1;
        self.bytes.resize(length, 0);
        let length = self.read(self.base, 0);
        self.bytes.truncate(length);
    }

    /// Reads into `bytes` from index `from` on; returns the number of bytes read.
    fn read(&mut self, address: u64, from: usize) -> usize {
        match self.tracer.read(self.stop, address, &mut self.bytes[from..]) {
            Ok(length) => length,
            Err(error) => {
                self.gone = Some(error);
                0
            }
        }
    }

    fn word(&mut self, address: u64) -> Option<u64> {
        let offset = address.wrapping_sub(self.base);
        if offset > (LARGEST_WINDOW - size_of::<u64>()) as u64 {
            return self.word_elsewhere(address);
        }
        let offset = offset as usize;
        let end = offset + size_of::<u64>();
        if end > self.bytes.len() {
            // The window was too small: double it.
            let have = self.bytes.len();
            let want = end.max(have * 2).next_multiple_of(WINDOW_STEP).min(LARGEST_WINDOW);
            self.counters.extra_reads += 1;
            self.bytes.resize(want, 0);
            let more = self.read(self.base + have as u64, have);
            self.bytes.truncate(have + more);
        }
        let word = self.bytes.get(offset..end)?;
        self.needed = self.needed.max(end);
        Some(u64::from_le_bytes(word.try_into().ok()?))
    }

    fn word_elsewhere(&mut self, address: u64) -> Option<u64> {
        self.counters.extra_reads += 1;
        let mut word = [0; 8];
        match self.tracer.read(self.stop, address, &mut word) {
            Ok(8) => Some(u64::from_le_bytes(word)),
            Ok(_) => None,
            Err(error) => {
                self.gone = Some(error);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::FrameKind;
    use crate::unwind::RawFrame;

    #[test]
    fn stacks_beyond_those_there_is_room_for_are_not_told_apart() {
        let (modules, mut callers) = (ModuleMap::default(), Callers { most: 3, ..Callers::new(10, false) });
        let mut number = |pc: u64| {
            callers.raw.frames = vec![RawFrame { pc, kind: FrameKind::Exact }];
            callers.number(&modules).map(|id| id.0)
        };
        assert_eq!([1, 2, 3, 4, 5].map(&mut number), [Some(0), Some(1), Some(2), None, None]);
        assert_eq!([3, 4, 1].map(&mut number), [Some(2), None, Some(0)], "those of before stay known");
        callers.modules_changed();
        callers.raw.frames = vec![RawFrame { pc: 2, kind: FrameKind::Exact }];
        assert_eq!(callers.number(&modules), Some(StackId(1)));
        assert_eq!((callers.table.len(), callers.known.len()), (3, 1));
    }
}
