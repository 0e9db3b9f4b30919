//! Objects that more than one holds.

use rustc_hash::FxHashMap;

/// References beyond the first, of objects that have some, by address. Memory has none.
#[derive(Clone, Debug, Default)]
pub(super) struct References {
    more: FxHashMap<u64, u64>,
}

impl References {
    /// One more to a live object.
    pub(super) fn add(&mut self, address: u64) {
        *self.more.entry(address).or_default() += 1;
    }

    /// One less. False if it was the last: the object is gone.
    pub(super) fn take(&mut self, address: u64) -> bool {
        let Some(more) = self.more.get_mut(&address) else { return false };
        *more -= 1;
        if *more == 0 {
            self.more.remove(&address);
        }
        true
    }

    /// The object is gone.
    pub(super) fn forget(&mut self, address: u64) {
        if !self.more.is_empty() {
            self.more.remove(&address);
        }
    }

    /// All are gone.
    pub(super) fn clear(&mut self) {
        self.more.clear();
    }
}
