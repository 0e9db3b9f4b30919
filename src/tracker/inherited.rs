//! What a process has of the process that it is a copy of (fork).

use rustc_hash::FxHashMap;

use crate::event::Tally;

/// The blocks that were live when the process was forked. They are its parent's leaks, should they be leaks.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    /// Sizes by address.
    blocks: FxHashMap<u64, u64>,
    all: Tally,
    freed: Tally,
}

/// Blocks that a process had from its start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Inheritance {
    /// All.
    pub all: Tally,
    /// Those that it freed.
    pub freed: Tally,
}

impl Inherited {
    pub(super) fn new(blocks: impl Iterator<Item = (u64, u64)>) -> Self {
        let mut inherited = Inherited::default();
        for (address, size) in blocks {
            inherited.all.add(size);
            inherited.blocks.insert(address, size);
        }
        inherited
    }

    pub(super) fn blocks(&self) -> impl Iterator<Item = (u64, u64)> {
        self.blocks.iter().map(|(&address, &size)| (address, size))
    }

    /// True if it has a block there.
    pub(super) fn contains(&self, address: u64) -> bool {
        self.blocks.contains_key(&address)
    }

    /// Takes a block out, to be freed or put back.
    pub(super) fn take(&mut self, address: u64) -> Option<u64> {
        if self.blocks.is_empty() { None } else { self.blocks.remove(&address) }
    }

    pub(super) fn put_back(&mut self, address: u64, size: u64) {
        self.blocks.insert(address, size);
    }

    pub(super) fn count_free(&mut self, size: u64) {
        self.freed.add(size);
    }

    pub(super) fn tell(&self) -> Inheritance {
        Inheritance { all: self.all, freed: self.freed }
    }
}
