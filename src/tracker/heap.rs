//! Which block begins at an address: the index of what the allocator's functions handed out.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use rustc_hash::FxBuildHasher;

use super::blocks::{Blocks, Slot};

/// Addresses are aligned, so their low bits say nothing: this multiplies and turns the high bits down.
fn hash(address: u64) -> u64 {
    FxBuildHasher.hash_one(address)
}

/// An open-addressing table of slots; the addresses are the blocks' own.
#[derive(Debug, Default)]
pub(super) struct Heap {
    table: HashTable<Slot>,
}

impl Heap {
    /// Enters a block by its address; returns the one that was there.
    pub(super) fn insert(&mut self, blocks: &Blocks, slot: Slot) -> Option<Slot> {
        let address = blocks.get(slot).address;
        let is_here = |&other: &Slot| blocks.get(other).address == address;
        match self.table.entry(hash(address), is_here, |&other| hash(blocks.get(other).address)) {
            Entry::Occupied(mut entry) => Some(std::mem::replace(entry.get_mut(), slot)),
            Entry::Vacant(entry) => {
                entry.insert(slot);
                None
            }
        }
    }

    /// True if a block begins at `address`.
    pub(super) fn contains(&self, blocks: &Blocks, address: u64) -> bool {
        self.table.find(hash(address), |&slot| blocks.get(slot).address == address).is_some()
    }

    /// Takes the block at `address` out of the index.
    pub(super) fn remove(&mut self, blocks: &Blocks, address: u64) -> Option<Slot> {
        match self.table.find_entry(hash(address), |&slot| blocks.get(slot).address == address) {
            Ok(entry) => Some(entry.remove().0),
            Err(_) => None,
        }
    }

    /// Bytes of memory in use.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.table.allocation_size()
    }
}
