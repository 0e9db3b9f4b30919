//! Memory of the target that holds displaced instructions, and where in the program a thread in it really is.

use iced_x86::Instruction;
use memleax_platform::{Error, Stop, Tracer};
use rustc_hash::FxHashMap;

use super::isa::native::{self, Boundary, Unmovable};

/// Bytes mapped at once: about two thousand slots.
const ARENA: usize = 64 << 10;

/// An arena farther away is not used: relative addresses of instructions reach 2 GiB, and a module's data may lie
/// 1 GiB from its code.
const REACH: u64 = 1 << 30;

/// Each slot begins at a multiple of this: jump targets are decoded faster when aligned.
const ALIGNMENT: usize = 16;

/// Why an instruction got no slot.
#[derive(Debug, thiserror::Error)]
pub(super) enum SlotError {
    /// There is no memory for it.
    #[error(transparent)]
    Platform(#[from] Error),
    /// It cannot run elsewhere.
    #[error("cannot displace the instruction: {0}")]
    Unmovable(#[from] Unmovable),
}

#[derive(Debug)]
struct Slot {
    offset: usize,
    boundaries: Vec<Boundary>,
}

#[derive(Debug)]
struct Arena {
    base: u64,
    used: usize,
    /// In order of their offsets.
    slots: Vec<Slot>,
}

impl Arena {
    fn contains(&self, address: u64) -> bool {
        address.wrapping_sub(self.base) < ARENA as u64
    }
}

/// A place in the program, as seen from a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Home {
    /// The place.
    pub(super) address: u64,
    /// What to add to the stack pointer to be there.
    pub(super) pop: u64,
    /// It is the displaced instruction itself: its breakpoint will be hit again.
    pub(super) repeats: bool,
}

/// All slots. They stay until detach: a thread may be in one long after its breakpoint was hit.
#[derive(Debug, Default)]
pub(super) struct Slots {
    arenas: Vec<Arena>,
    /// The slot of each instruction ever displaced, so that a module that is loaded again takes no new one.
    by_instruction: FxHashMap<(u64, [u8; native::LONGEST_INSTRUCTION]), u64>,
}

impl Slots {
    /// The slot of `instruction`, whose bytes are `bytes`.
    pub(super) fn place<T: Tracer>(
        &mut self,
        tracer: &mut T,
        stop: &Stop,
        instruction: &Instruction,
        bytes: &[u8],
    ) -> Result<u64, SlotError> {
        let home = instruction.ip();
        let mut key = (home, [0; native::LONGEST_INSTRUCTION]);
        key.1[..instruction.len()].copy_from_slice(&bytes[..instruction.len()]);
        if let Some(&slot) = self.by_instruction.get(&key) {
            return Ok(slot);
        }
        // No displaced instruction is longer than this.
        const ROOM: usize = 64;
        let near = |arena: &Arena| arena.base.abs_diff(home) < REACH && ARENA - arena.used >= ROOM;
        let index = match self.arenas.iter().position(near) {
            Some(index) => index,
            None => {
                let base = tracer.map_code(stop, home, ARENA)?;
                self.arenas.push(Arena { base, used: 0, slots: Vec::new() });
                self.arenas.len() - 1
            }
        };
        let arena = &mut self.arenas[index];
        let slot = arena.base + arena.used as u64;
        let displaced = native::displace(instruction, slot)?;
        debug_assert!(displaced.code.len() <= ROOM);
        tracer.write(stop, slot, &displaced.code)?;
        arena.slots.push(Slot { offset: arena.used, boundaries: displaced.boundaries });
        arena.used = (arena.used + displaced.code.len()).next_multiple_of(ALIGNMENT);
        self.by_instruction.insert(key, slot);
        Ok(slot)
    }

    /// Where a thread in a slot would be had its instruction run at home. `None` if `address` is in no slot.
    pub(super) fn home(&self, address: u64) -> Option<Home> {
        let arena = self.arenas.iter().find(|arena| arena.contains(address))?;
        let offset = (address - arena.base) as usize;
        let next = arena.slots.partition_point(|slot| slot.offset <= offset);
        let slot = &arena.slots[next.checked_sub(1)?];
        let boundary = slot.boundaries.iter().rfind(|boundary| slot.offset + boundary.offset <= offset)?;
        let start = slot.boundaries.first()?;
        Some(Home { address: boundary.address, pop: boundary.pop, repeats: boundary.address == start.address })
    }

    /// Unmaps everything; no thread may be in a slot.
    pub(super) fn unmap<T: Tracer>(&mut self, tracer: &mut T, stop: &Stop) -> Result<(), Error> {
        self.by_instruction.clear();
        let mut result = Ok(());
        for arena in self.arenas.drain(..) {
            let unmapped = tracer.unmap_code(stop, arena.base, ARENA);
            if result.is_ok() {
                result = unmapped;
            }
        }
        result
    }

    /// The memory is gone together with the program (exec).
    pub(super) fn forget(&mut self) {
        self.arenas.clear();
        self.by_instruction.clear();
    }
}
