//! The live blocks: a slab, threaded by a list in order of age.

use crate::event::{StackId, Timestamp};

/// The place of a block in the slab.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Slot(u32);

impl Slot {
    /// No block: the end of a list.
    const NONE: Slot = Slot(u32::MAX);
}

/// What a slot holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Nothing; `next` is the next vacant slot.
    Vacant,
    /// A live block that has not expired: it is on the age list.
    Young,
    /// A live block that has expired: it is on no list.
    Expired,
}

/// A live block. Its size is what the tracker's memory use hangs on: together with the index it has to stay within 64
/// bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    /// First byte; of a mapping, where it began.
    pub(super) address: u64,
    /// Bytes; of a mapping, those that are still mapped.
    pub(super) size: u64,
    pub(super) allocated: Timestamp,
    pub(super) stack: StackId,
    previous: Slot,
    next: Slot,
    pub(super) state: State,
}

const VACANT: Block = Block {
    address: 0,
    size: 0,
    allocated: Timestamp(0),
    stack: StackId(0),
    previous: Slot::NONE,
    next: Slot::NONE,
    state: State::Vacant,
};

const CHUNK_BITS: u32 = 10;
const CHUNK: usize = 1 << CHUNK_BITS;

/// All live blocks. Storage grows by chunks: a `Vec` of blocks would double, which costs twice the memory and a copy of
/// everything at once.
#[derive(Debug)]
pub(super) struct Blocks {
    chunks: Vec<Box<[Block; CHUNK]>>,
    /// Slots ever used; those beyond are untouched.
    used: u32,
    vacant: Slot,
    oldest: Slot,
    youngest: Slot,
}

impl Blocks {
    pub(super) fn new() -> Blocks {
        Blocks { chunks: Vec::new(), used: 0, vacant: Slot::NONE, oldest: Slot::NONE, youngest: Slot::NONE }
    }

    pub(super) fn get(&self, slot: Slot) -> &Block {
        &self.chunks[(slot.0 >> CHUNK_BITS) as usize][slot.0 as usize % CHUNK]
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> &mut Block {
        &mut self.chunks[(slot.0 >> CHUNK_BITS) as usize][slot.0 as usize % CHUNK]
    }

    /// Adds a block that is younger than all others, or as young.
    pub(super) fn insert(&mut self, address: u64, size: u64, allocated: Timestamp, stack: StackId) -> Slot {
        let slot = self.take_vacant();
        let previous = std::mem::replace(&mut self.youngest, slot);
        *self.get_mut(slot) =
            Block { address, size, allocated, stack, previous, next: Slot::NONE, state: State::Young };
        if previous == Slot::NONE {
            self.oldest = slot;
        } else {
            self.get_mut(previous).next = slot;
        }
        slot
    }

    /// Takes a live block out.
    pub(super) fn remove(&mut self, slot: Slot) -> Block {
        let block = *self.get(slot);
        if block.state == State::Young {
            self.unlink(block.previous, block.next);
        }
        *self.get_mut(slot) = Block { next: self.vacant, ..VACANT };
        self.vacant = slot;
        block
    }

    /// The oldest block that has not expired.
    pub(super) fn oldest_young(&self) -> Option<Slot> {
        (self.oldest != Slot::NONE).then_some(self.oldest)
    }

    /// Takes a young block off the age list.
    pub(super) fn expire(&mut self, slot: Slot) {
        let Block { previous, next, .. } = *self.get(slot);
        self.unlink(previous, next);
        self.get_mut(slot).state = State::Expired;
    }

    /// Every live block, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Block> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).filter(|block| block.state != State::Vacant)
    }

    fn unlink(&mut self, previous: Slot, next: Slot) {
        if previous == Slot::NONE {
            self.oldest = next;
        } else {
            self.get_mut(previous).next = next;
        }
        if next == Slot::NONE {
            self.youngest = previous;
        } else {
            self.get_mut(next).previous = previous;
        }
    }

    fn take_vacant(&mut self) -> Slot {
        if self.vacant != Slot::NONE {
            let slot = self.vacant;
            self.vacant = self.get(slot).next;
            return slot;
        }
        // Slot::NONE itself is out of reach: that many blocks need 170 GB of our memory first.
        let slot = Slot(self.used);
        self.used += 1;
        if slot.0 as usize >= self.chunks.len() * CHUNK {
            self.chunks.push(Box::new([VACANT; CHUNK]));
        }
        slot
    }

    /// Bytes of memory in use.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.chunks.len() * size_of::<[Block; CHUNK]>() + self.chunks.capacity() * size_of::<Box<[Block; CHUNK]>>()
    }
}
