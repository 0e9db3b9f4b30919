//! The books that the kernel's programs keep, read.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::Duration;

use super::layout::{Site, slot};
use crate::event::{Tally, Timestamp, Totals};

/// A live block as the kernel keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LiveBlock {
    pub(super) size: u64,
    /// Nanoseconds of the kernel's monotonic clock.
    pub(super) time: u64,
    pub(super) site: u64,
}

/// Live blocks of one site.
#[derive(Clone, Copy, Default, Debug)]
struct Living {
    expired: Tally,
    oldest: Option<u64>,
    /// The youngest that has expired: when, and its size.
    last_expired: (u64, u64),
}

/// What one look at all live blocks found, by site.
#[derive(Debug, Default)]
pub(super) struct Census {
    living: Vec<Living>,
}

impl Census {
    /// Counts a block; it has expired if it is from `expired_until` or before.
    pub(super) fn add(&mut self, block: LiveBlock, expired_until: u64) {
        let Ok(index) = usize::try_from(block.site) else { return };
        if index >= self.living.len() {
            self.living.resize(index + 1, Living::default());
        }
        let living = &mut self.living[index];
        living.oldest = Some(living.oldest.map_or(block.time, |oldest| oldest.min(block.time)));
        if block.time <= expired_until {
            living.expired.count += 1;
            living.expired.bytes = living.expired.bytes.wrapping_add(block.size);
            living.last_expired = living.last_expired.max((block.time, block.size));
        }
    }

    /// What there is to tell of a site: its own counters, read before the census, and the census. A block that was freed in
    /// between is missing until the next time; none is counted twice.
    pub(super) fn totals(&self, number: u64, site: &Site, began: u64) -> Totals {
        let living = usize::try_from(number).ok().and_then(|index| self.living.get(index)).copied().unwrap_or_default();
        let freed_expired = Tally { count: site.expired_freed, bytes: site.expired_freed_bytes };
        let lives = match site.freed {
            0 => Default::default(),
            _ => (
                Duration::from_nanos(site.age_min),
                Duration::from_nanos(site.age_max),
                Duration::from_nanos(site.age_sum),
            ),
        };
        Totals {
            allocated: Tally { count: site.allocated, bytes: site.allocated_bytes },
            freed: Tally { count: site.freed, bytes: site.freed_bytes },
            expired: Tally {
                count: freed_expired.count + living.expired.count,
                bytes: freed_expired.bytes.wrapping_add(living.expired.bytes),
            },
            unseen_frees: Tally { count: site.freed_unseen, bytes: site.freed_unseen_bytes },
            freed_expired,
            last_expired: living.last_expired.1,
            last_freed_expired: Duration::from_nanos(site.expired_freed_age),
            lives,
            oldest: living.oldest.map(|time| Timestamp(time.saturating_sub(began))),
        }
    }
}

/// The live blocks in the buckets; those included that `realloc` is about just now.
pub(super) fn blocks(buckets: &[AtomicU64]) -> impl Iterator<Item = LiveBlock> {
    buckets.chunks_exact(slot::WORDS).filter_map(|words| {
        let address = words[slot::ADDRESS].load(Acquire);
        if address <= slot::BUSY {
            return None;
        }
        let time = words[slot::TIME].load(Acquire);
        let (size, site) = (words[slot::SIZE].load(Acquire), words[slot::SITE].load(Acquire));
        // Freed, and the place perhaps taken by another, while we read. Whoever fills a slot makes it busy, writes size and site, then
        // the time, then the address; no two blocks of an address are of one time. So neither old size or site with the new time nor
        // the other way round gets past these two, in this order.
        let is_same = words[slot::ADDRESS].load(Acquire) == address && words[slot::TIME].load(Acquire) == time;
        is_same.then_some(LiveBlock { size, time, site: site & !slot::IN_FLIGHT })
    })
}

/// A site's counters.
pub(super) fn site(sites: &[AtomicU64], number: u64) -> Site {
    let first = usize::try_from(number).unwrap_or(0) * Site::WORDS;
    let words = std::array::from_fn(|index| sites.get(first + index).map_or(0, |word| word.load(Relaxed)));
    Site::from_words(words)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering::Release;

    use super::*;

    fn words(slots: &[[u64; 4]]) -> Vec<AtomicU64> {
        slots.iter().flatten().map(|&word| AtomicU64::new(word)).collect()
    }

    #[test]
    fn free_and_busy_slots_are_no_blocks() {
        let buckets = words(&[[0, 1, 2, 3], [slot::BUSY, 1, 2, 3], [0x1000, 64, 5, 7]]);
        let found: Vec<_> = blocks(&buckets).collect();
        assert_eq!(found, [LiveBlock { size: 64, time: 5, site: 7 }]);
    }

    #[test]
    fn a_block_in_flight_is_live() {
        let buckets = words(&[[0x1000, 64, 5, 7 | slot::IN_FLIGHT]]);
        let found: Vec<_> = blocks(&buckets).collect();
        assert_eq!(found, [LiveBlock { size: 64, time: 5, site: 7 }]);
    }

    /// Blocks of one address come and go while they are read, their size and site both telling their time.
    #[test]
    fn no_block_is_read_half_of_one_and_half_of_another() {
        let slots = words(&[[0; 4]; 4]);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for time in 1..3_000_000 {
                    for slot in slots.chunks_exact(slot::WORDS) {
                        // As `keep_in_bucket` of books.bpf.h.
                        slot[slot::ADDRESS].store(slot::BUSY, Release);
                        slot[slot::SIZE].store(time, Release);
                        slot[slot::SITE].store(time, Release);
                        slot[slot::TIME].store(time, Release);
                        slot[slot::ADDRESS].store(0x1000, Release);
                    }
                }
                done.store(true, Release);
            });
            while !done.load(Acquire) {
                for block in blocks(&slots) {
                    assert_eq!((block.size, block.site), (block.time, block.time));
                }
            }
        });
    }

    #[test]
    fn expired_blocks_are_those_freed_and_those_alive() {
        let mut census = Census::default();
        census.add(LiveBlock { size: 10, time: 100, site: 2 }, 100);
        census.add(LiveBlock { size: 20, time: 101, site: 2 }, 100);
        let site = Site { allocated: 5, freed: 3, expired_freed: 2, expired_freed_bytes: 7, ..Site::default() };
        let totals = census.totals(2, &site, 40);
        assert_eq!(totals.expired, Tally { count: 3, bytes: 17 });
        assert_eq!(totals.freed_expired, Tally { count: 2, bytes: 7 });
        assert_eq!(totals.last_expired, 10);
        assert_eq!(totals.oldest, Some(Timestamp(60)));
    }
}
