//! The guard's memory as its handler reads it: a header in front of the code, and a table of breakpoints.
//!
//! The tracer writes while handlers in other threads read. Only the store of a single byte is sure to be seen whole, as
//! the kernel copies as it likes; so each entry is written first and its state, a byte, last, and the header names
//! the current table by a byte. Nothing is ever moved: a table that is full is replaced by a bigger one, and stays.

use std::collections::HashMap;
use std::ops::Range;

use crate::Guard;

/// What the mapping of a guard begins with.
pub(super) const MAGIC: [u8; 16] = *b"memleax.guard\0\r\n";
/// Changes whenever the layout here does.
pub(super) const VERSION: u32 = 1;

/// Offsets in the header.
pub(super) mod header {
    /// [`super::MAGIC`].
    pub(in crate::linux) const MAGIC: u64 = 0x00;
    /// [`super::VERSION`], 4 bytes.
    pub(in crate::linux) const VERSION: u64 = 0x10;
    /// 1 byte: 1 if the guard was removed, but its memory could not be.
    pub(in crate::linux) const RETIRED: u64 = 0x14;
    /// 1 byte: index into [`TABLES`] of the current table.
    pub(in crate::linux) const CURRENT: u64 = 0x15;
    /// The program's own action for SIGTRAP, a `struct kernel_sigaction`.
    pub(in crate::linux) const OLD_ACTION: u64 = 0x18;
    /// The guard's action.
    pub(in crate::linux) const NEW_ACTION: u64 = 0x38;
    /// The default action: all zero.
    pub(in crate::linux) const DEFAULT_ACTION: u64 = 0x58;
    /// Addresses of up to [`super::TABLES`] tables, 8 bytes each; 0 beyond the last.
    pub(in crate::linux) const TABLES: u64 = 0x78;
    /// 8 bytes: length of the mapping that begins with the header.
    pub(in crate::linux) const LENGTH: u64 = 0xf8;
    /// The code follows, its handler first.
    pub(in crate::linux) const SIZE: u64 = 0x100;
}

/// Room for this many tables, each twice as big as the one before.
pub(super) const TABLES: usize = 16;

/// Where the first table is in the guard's mapping.
pub(super) const FIRST_TABLE: u64 = 0x1000;
/// Entries of the first table.
pub(super) const FIRST_CAPACITY: usize = 512;

/// Offsets in a table: the number of entries minus 1, the offset of the areas, the entries.
pub(super) mod table {
    /// 8 bytes: number of entries - 1, which is a power of 2 minus 1.
    pub(in crate::linux) const MASK: u64 = 0x00;
    /// 8 bytes: offset in the table of its areas, which are laid out as entries are.
    pub(in crate::linux) const AREAS: u64 = 0x08;
    /// The entries.
    pub(in crate::linux) const ENTRIES: u64 = 0x10;
}

/// Offsets in an entry, or in an area of code.
pub(super) mod entry {
    /// 8 bytes: address of the breakpoint; or start of the area.
    pub(in crate::linux) const ADDRESS: u64 = 0x00;
    /// 8 bytes: the slot; or the end of the area.
    pub(in crate::linux) const SLOT: u64 = 0x08;
    /// 1 byte: the byte that the breakpoint replaced.
    pub(in crate::linux) const ORIGINAL: u64 = 0x10;
    /// 1 byte: [`FREE`], [`USED`] or, of an area, [`SKIPPED`].
    pub(in crate::linux) const STATE: u64 = 0x11;
    /// The next one.
    pub(in crate::linux) const SIZE: u64 = 0x18;
    /// The search ends here.
    pub(in crate::linux) const FREE: u8 = 0;
    /// Valid.
    pub(in crate::linux) const USED: u8 = 1;
    /// No longer valid, but the search goes on.
    pub(in crate::linux) const SKIPPED: u8 = 2;
}

/// 2^64 divided by the golden ratio: multiplication spreads neighbouring addresses (Knuth, TAOCP 6.4).
pub(super) const HASH_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Bytes to be written at an offset of the table, in this order.
pub(super) type Write = (u64, Vec<u8>);

/// The tracer's own copy of a table: knows what to write where.
#[derive(Debug)]
pub(super) struct Table {
    /// A breakpoint's address, slot and original byte, where the table in the target has it.
    places: Vec<Option<Guard>>,
    index: HashMap<u64, usize>,
    areas: Vec<Option<Range<u64>>>,
}

impl Table {
    /// An empty table of `capacity` entries, a power of 2.
    pub(super) fn new(capacity: usize) -> Self {
        Table { places: vec![None; capacity], index: HashMap::new(), areas: Vec::new() }
    }

    /// Number of entries that it has room for.
    pub(super) fn capacity(&self) -> usize {
        self.places.len()
    }

    fn area_capacity(capacity: usize) -> usize {
        capacity / 16
    }

    /// Bytes that a table of `capacity` entries takes.
    pub(super) fn size(capacity: usize) -> usize {
        // One more area, which stays free, ends the list.
        table::ENTRIES as usize + (capacity + Self::area_capacity(capacity) + 1) * entry::SIZE as usize
    }

    /// True for the address of a breakpoint, and in an area: the handler takes a trap there as dealt with.
    pub(super) fn knows(&self, address: u64) -> bool {
        self.index.contains_key(&address) || self.areas.iter().flatten().any(|area| area.contains(&address))
    }

    /// True if it should be replaced by a bigger one before the next insertion.
    pub(super) fn is_full(&self) -> bool {
        self.index.len() * 2 >= self.capacity() || self.areas.len() >= Self::area_capacity(self.capacity())
    }

    /// The table, or if it is full a bigger one in its place.
    pub(super) fn with_room(self) -> Self {
        if self.is_full() { self.grown() } else { self }
    }

    /// Everything in it, in a table of twice the capacity.
    pub(super) fn grown(&self) -> Self {
        let mut grown = Table::new(self.capacity() * 2);
        for guard in self.places.iter().flatten() {
            grown.insert(*guard);
        }
        for area in self.areas.iter().flatten() {
            grown.insert_area(area.clone());
        }
        grown
    }

    /// All its bytes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; Self::size(self.capacity())];
        let mut put = |offset: u64, data: &[u8]| bytes[offset as usize..][..data.len()].copy_from_slice(data);
        put(table::MASK, &(self.capacity() as u64 - 1).to_le_bytes());
        put(table::AREAS, &self.area_offset(0).to_le_bytes());
        for (index, guard) in self.places.iter().enumerate() {
            if let Some(guard) = guard {
                put(Self::offset(index), &entry_bytes(guard.breakpoint, guard.slot, guard.original));
                put(Self::offset(index) + entry::STATE, &[entry::USED]);
            }
        }
        for (index, area) in self.areas.iter().enumerate() {
            if let Some(area) = area {
                put(self.area_offset(index), &entry_bytes(area.start, area.end, 0));
            }
            put(self.area_offset(index) + entry::STATE, &[if area.is_some() { entry::USED } else { entry::SKIPPED }]);
        }
        bytes
    }

    /// Adds or replaces a breakpoint. The table must not be full.
    pub(super) fn insert(&mut self, guard: Guard) -> Vec<Write> {
        let bytes = entry_bytes(guard.breakpoint, guard.slot, guard.original);
        if let Some(&index) = self.index.get(&guard.breakpoint) {
            // In place, as at no time may it be missing: a thread may have met the breakpoint already. No handler reads the
            // entry meanwhile, since the tracer lives and gets that trap.
            let is_new = self.places[index] != Some(guard);
            self.places[index] = Some(guard);
            return is_new.then(|| (Self::offset(index), bytes)).into_iter().collect();
        }
        let mask = self.capacity() - 1;
        let mut index = (guard.breakpoint.wrapping_mul(HASH_FACTOR) >> 32) as usize & mask;
        while self.places[index].is_some() {
            index = (index + 1) & mask;
        }
        self.places[index] = Some(guard);
        self.index.insert(guard.breakpoint, index);
        vec![(Self::offset(index), bytes), (Self::offset(index) + entry::STATE, vec![entry::USED])]
    }

    /// Adds an area of code. The table must not be full.
    pub(super) fn insert_area(&mut self, area: Range<u64>) -> Vec<Write> {
        let offset = self.area_offset(self.areas.len());
        let writes = vec![(offset, entry_bytes(area.start, area.end, 0)), (offset + entry::STATE, vec![entry::USED])];
        self.areas.push(Some(area));
        writes
    }

    /// Removes an area of code, by its start.
    pub(super) fn remove_area(&mut self, start: u64) -> Vec<Write> {
        let index = self.areas.iter().position(|area| area.as_ref().is_some_and(|area| area.start == start));
        let Some(index) = index else { return Vec::new() };
        self.areas[index] = None;
        vec![(self.area_offset(index) + entry::STATE, vec![entry::SKIPPED])]
    }

    fn offset(index: usize) -> u64 {
        table::ENTRIES + index as u64 * entry::SIZE
    }

    fn area_offset(&self, index: usize) -> u64 {
        Self::offset(self.capacity() + index)
    }

    /// The breakpoints in a table's bytes.
    pub(super) fn breakpoints(bytes: &[u8]) -> Vec<Guard> {
        let word = |bytes: &[u8], offset: u64| {
            bytes
                .get(offset as usize..)
                .and_then(|bytes| bytes.first_chunk())
                .map_or(0, |word| u64::from_le_bytes(*word))
        };
        let end = (word(bytes, table::AREAS) as usize).min(bytes.len());
        let entries = bytes.get(table::ENTRIES as usize..end).unwrap_or_default().chunks_exact(entry::SIZE as usize);
        let used = entries.filter(|entry| entry[entry::STATE as usize] == entry::USED);
        used.map(|entry| Guard {
            breakpoint: word(entry, entry::ADDRESS),
            slot: word(entry, entry::SLOT),
            original: entry[entry::ORIGINAL as usize],
        })
        .collect()
    }
}

/// An entry up to its state.
fn entry_bytes(address: u64, slot: u64, original: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entry::STATE as usize);
    bytes.extend_from_slice(&address.to_le_bytes());
    bytes.extend_from_slice(&slot.to_le_bytes());
    bytes.push(original);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(breakpoint: u64) -> Guard {
        Guard { breakpoint, slot: breakpoint + 0x1000, original: 0x55 }
    }

    /// What a reader in the target sees after the writes.
    fn apply(bytes: &mut [u8], writes: &[Write]) {
        for (offset, data) in writes {
            bytes[*offset as usize..][..data.len()].copy_from_slice(data);
        }
    }

    #[test]
    fn single_writes_lead_to_the_same_bytes_as_all_at_once() {
        let mut table = Table::new(64);
        let mut bytes = table.bytes();
        for address in (0..30).map(|index| 0x40_0000 + index * 16) {
            apply(&mut bytes, &table.insert(guard(address)));
        }
        apply(&mut bytes, &table.insert_area(0x1000..0x2000));
        apply(&mut bytes, &table.insert(Guard { slot: 7, ..guard(0x40_0000) }));
        assert_eq!(bytes, table.bytes());
        assert_eq!(Table::breakpoints(&bytes).len(), 30);
        assert!(Table::breakpoints(&bytes).contains(&Guard { slot: 7, ..guard(0x40_0000) }));
    }

    #[test]
    fn a_state_is_the_last_thing_written() {
        let mut table = Table::new(64);
        let states = |writes: &[Write]| writes.iter().map(|(_, bytes)| bytes.len()).collect::<Vec<_>>();
        assert_eq!(states(&table.insert(guard(1))), [17, 1]);
        assert_eq!(states(&table.insert(guard(1))), [0; 0], "nothing to do");
        assert_eq!(states(&table.insert(Guard { original: 1, ..guard(1) })), [17], "never missing");
    }

    #[test]
    fn growth_keeps_everything_and_half_stays_free() {
        let mut table = Table::new(16);
        for address in 0..1000 {
            table = table.with_room();
            table.insert(guard(address));
        }
        for start in 0..100 {
            table = table.with_room();
            table.insert_area(start * 10..start * 10 + 5);
        }
        assert!(table.capacity() >= 2000);
        let mut breakpoints = Table::breakpoints(&table.bytes());
        breakpoints.sort_unstable_by_key(|guard| guard.breakpoint);
        assert_eq!(breakpoints, (0..1000).map(guard).collect::<Vec<_>>());
        assert_eq!(table.areas.len(), 100);
    }

    #[test]
    fn removed_areas_are_skipped_and_not_copied() {
        let mut table = Table::new(16);
        table.insert_area(1..2);
        assert_eq!(table.remove_area(1).len(), 1);
        assert!(table.remove_area(1).is_empty());
        assert_eq!(table.bytes()[(table.area_offset(0) + entry::STATE) as usize], entry::SKIPPED);
        assert!(table.grown().areas.is_empty());
    }

    #[test]
    fn nonsense_has_no_breakpoints() {
        assert!(Table::breakpoints(&[]).is_empty());
        assert!(Table::breakpoints(&[0xff; 64]).len() <= 2);
    }
}
