//! The books that the kernel's programs keep, read.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::time::Duration;

use super::layout::{CLASS_SHIFT, Site, bucket};
use crate::event::{Class, StackId, Tally, Timestamp, Totals};
use crate::histogram::Histogram;
use crate::notable::{KnownBlock, Notable};

/// A live block as the kernel keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LiveBlock {
    pub(super) class: Class,
    pub(super) address: u64,
    pub(super) size: u64,
    /// Nanoseconds of the kernel's monotonic clock.
    pub(super) time: u64,
    pub(super) site: u64,
}

impl LiveBlock {
    /// By the words that the kernel has of it: its key (`key_of` of books.bpf.h) and `struct block`.
    pub(super) fn new(key: u64, size: u64, time: u64, site: u64) -> LiveBlock {
        let class = Class((key >> CLASS_SHIFT) as u8);
        LiveBlock { class, address: key & ((1 << CLASS_SHIFT) - 1), size, time, site: site & bucket::SITE_NUMBER }
    }
}

/// Live blocks of one site.
#[derive(Clone, Copy, Default, Debug)]
struct Living {
    expired: Tally,
    oldest: Option<u64>,
    /// The youngest that has expired: when, and its size.
    last_expired: (u64, u64),
}

/// In a second.
const NANOSECONDS: u64 = 1_000_000_000;

/// How many of the largest live blocks, and of the oldest, are told one by one.
const NOTABLE: usize = 100;

/// What one look at all live blocks found, by site.
#[derive(Debug)]
pub(super) struct Census {
    /// When it is taken.
    now: u64,
    living: Vec<Living>,
    /// In seconds.
    ages: Vec<Histogram>,
    /// By class. Sites stand for stacks, and times are the kernel's.
    notable: Vec<Notable>,
}

impl Census {
    /// One of the time `now`, of the kernel's monotonic clock.
    pub(super) fn new(now: u64) -> Self {
        Census { now, living: Vec::new(), ages: Vec::new(), notable: Vec::new() }
    }

    /// Counts a block; it has expired if it is from `expired_until` or before.
    pub(super) fn add(&mut self, block: LiveBlock, expired_until: u64) {
        if let Ok(site) = u32::try_from(block.site) {
            let LiveBlock { class, address, size, time, .. } = block;
            let class = usize::from(class.0);
            if class >= self.notable.len() {
                self.notable.resize_with(class + 1, || Notable::new(NOTABLE));
            }
            self.notable[class].add(KnownBlock { size, allocated: Timestamp(time), address, stack: StackId(site) });
        }
        let Ok(index) = usize::try_from(block.site) else { return };
        if index >= self.living.len() {
            self.living.resize(index + 1, Living::default());
            self.ages.resize(index + 1, Histogram::default());
        }
        self.ages[index].add(self.now.saturating_sub(block.time) / NANOSECONDS);
        let living = &mut self.living[index];
        living.oldest = Some(living.oldest.map_or(block.time, |oldest| oldest.min(block.time)));
        if block.time <= expired_until {
            living.expired.count += 1;
            living.expired.bytes = living.expired.bytes.wrapping_add(block.size);
            living.last_expired = living.last_expired.max((block.time, block.size));
        }
    }

    /// How old the live blocks of a site are, in seconds.
    pub(super) fn ages(&self, number: u64) -> Histogram {
        usize::try_from(number).ok().and_then(|index| self.ages.get(index)).cloned().unwrap_or_default()
    }

    /// The largest and the oldest live blocks of each class; `stack` tells what call stack a site's number stands for.
    pub(super) fn into_notable(self, began: u64, stack: impl Fn(u64) -> Option<StackId>) -> Vec<Vec<KnownBlock>> {
        let known = |block: KnownBlock| {
            let allocated = Timestamp(block.allocated.0.saturating_sub(began));
            Some(KnownBlock { stack: stack(block.stack.0.into())?, allocated, ..block })
        };
        let of_class = |notable: Notable| notable.into_blocks().into_iter().filter_map(known).collect();
        self.notable.into_iter().map(of_class).collect()
    }

    /// What there is to tell of a site, but for what an exec took away: its own counters, read before the census, and the census. A block that was freed in
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
            dropped: Tally::default(),
            unseen_frees: Tally { count: site.freed_unseen, bytes: site.freed_unseen_bytes },
            freed_expired,
            last_expired: living.last_expired.1,
            last_freed_expired: Duration::from_nanos(site.expired_freed_age),
            lives,
            oldest: living.oldest.map(|time| Timestamp(time.saturating_sub(began))),
        }
    }
}

/// Where a live block may be.
struct Slot<'buckets> {
    address: &'buckets AtomicU64,
    /// [`bucket::SIZE`] and so on.
    block: &'buckets [AtomicU64],
}

fn slots(buckets: &[AtomicU64]) -> impl Iterator<Item = Slot<'_>> {
    buckets.chunks_exact(bucket::WORDS).flat_map(|bucket| {
        let (addresses, blocks) = bucket.split_at(bucket::SLOTS);
        addresses.iter().zip(blocks.chunks_exact(bucket::BLOCK_WORDS)).map(|(address, block)| Slot { address, block })
    })
}

/// The live blocks in the buckets; those included that `realloc` is about just now.
pub(super) fn blocks(buckets: &[AtomicU64]) -> impl Iterator<Item = LiveBlock> {
    slots(buckets).filter_map(|Slot { address: slot, block }| {
        let address = slot.load(Acquire);
        if address <= bucket::BUSY {
            return None;
        }
        let time = block[bucket::TIME].load(Acquire);
        let (size, site) = (block[bucket::SIZE].load(Acquire), block[bucket::SITE].load(Acquire));
        // Freed, and the place perhaps taken by another, while we read. Whoever fills a slot makes it busy, writes size and site, then
        // the time, then the address; no two blocks of an address are of one time. So neither old size or site with the new time nor
        // the other way round gets past these two, in this order.
        let is_same = slot.load(Acquire) == address && block[bucket::TIME].load(Acquire) == time;
        is_same.then(|| LiveBlock::new(address, size, time, site))
    })
}

/// Takes the blocks out of the buckets that are from before `time`, and tells of each.
pub(super) fn forget_before(time: u64, buckets: &[AtomicU64], mut gone: impl FnMut(LiveBlock)) {
    for Slot { address: slot, block } in slots(buckets) {
        let address = slot.load(Acquire);
        let [size, at, site] = [bucket::SIZE, bucket::TIME, bucket::SITE].map(|word| block[word].load(Acquire));
        // Unless another has got hold of the place in the meantime.
        if address > bucket::BUSY && at < time && slot.compare_exchange(address, 0, AcqRel, Relaxed).is_ok() {
            gone(LiveBlock::new(address, size, at, site));
        }
    }
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

    /// As books.bpf.h.
    const IN_FLIGHT: u64 = 1 << 63;

    /// A bucket whose first slots hold an address, size, time and site each.
    fn bucket_of(slots: &[[u64; 4]]) -> Vec<AtomicU64> {
        let mut words = vec![0; bucket::WORDS];
        for (at, &[address, block @ ..]) in slots.iter().enumerate() {
            words[at] = address;
            words[bucket::SLOTS + at * bucket::BLOCK_WORDS..][..bucket::BLOCK_WORDS].copy_from_slice(&block);
        }
        words.into_iter().map(AtomicU64::new).collect()
    }

    #[test]
    fn free_and_busy_slots_are_no_blocks() {
        let buckets = bucket_of(&[[0, 1, 2, 3], [bucket::BUSY, 1, 2, 3], [0x1000, 64, 5, 7]]);
        let found: Vec<_> = blocks(&buckets).collect();
        assert_eq!(found, [LiveBlock::new(0x1000, 64, 5, 7)]);
    }

    #[test]
    fn a_block_in_flight_is_live() {
        let buckets = bucket_of(&[[0x1000, 64, 5, 7 | IN_FLIGHT]]);
        let found: Vec<_> = blocks(&buckets).collect();
        assert_eq!(found, [LiveBlock::new(0x1000, 64, 5, 7)]);
    }

    /// Also where it is at the address of a block of memory, and however many refer to it.
    #[test]
    fn an_object_is_told_from_the_block_of_memory_at_its_address() {
        let key = 5 << CLASS_SHIFT | 0x1000;
        let buckets = bucket_of(&[[0x1000, 64, 5, 7], [key, 0, 6, 3 << 32 | 8]]);
        let found: Vec<_> = blocks(&buckets).collect();
        let memory = LiveBlock { class: Class::MEMORY, address: 0x1000, size: 64, time: 5, site: 7 };
        let object = LiveBlock { class: Class(5), address: 0x1000, size: 0, time: 6, site: 8 };
        assert_eq!(found, [memory, object]);
        let mut census = Census::new(10);
        found.into_iter().for_each(|block| census.add(block, 0));
        let notable = census.into_notable(0, |site| u32::try_from(site).ok().map(StackId));
        let stacks: Vec<_> = notable.iter().map(|of_class| of_class.first().map(|block| block.stack)).collect();
        assert_eq!(stacks, [Some(StackId(7)), None, None, None, None, Some(StackId(8))]);
    }

    #[test]
    fn old_blocks_are_forgotten() {
        let buckets = bucket_of(&[[0x1000, 64, 5, 7], [bucket::BUSY, 64, 5, 7], [0x2000, 64, 6, 7]]);
        let mut gone = Vec::new();
        forget_before(6, &buckets, |block| gone.push((block.size, block.time, block.site)));
        assert!(!gone.is_empty() && gone.iter().all(|&(_, time, _)| time < 6), "{gone:?}");
        let found: Vec<_> = blocks(&buckets).collect();
        assert_eq!(found, [LiveBlock::new(0x2000, 64, 6, 7)]);
        assert_eq!(buckets[1].load(Acquire), bucket::BUSY);
    }

    /// Blocks of one address come and go while they are read, their size and site both telling their time.
    #[test]
    fn no_block_is_read_half_of_one_and_half_of_another() {
        let buckets = bucket_of(&[]);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for time in 1..3_000_000 {
                    for Slot { address, block } in slots(&buckets).take(4) {
                        // As `keep_in_bucket` of books.bpf.h.
                        address.store(bucket::BUSY, Release);
                        block[bucket::SIZE].store(time, Release);
                        block[bucket::SITE].store(time, Release);
                        block[bucket::TIME].store(time, Release);
                        address.store(0x1000, Release);
                    }
                }
                done.store(true, Release);
            });
            while !done.load(Acquire) {
                for block in blocks(&buckets) {
                    assert_eq!((block.size, block.site), (block.time, block.time & bucket::SITE_NUMBER));
                }
            }
        });
    }

    #[test]
    fn expired_blocks_are_those_freed_and_those_alive() {
        let mut census = Census::new(100);
        census.add(LiveBlock::new(0x10, 10, 100, 2), 100);
        census.add(LiveBlock::new(0x20, 20, 101, 2), 100);
        let site = Site { allocated: 5, freed: 3, expired_freed: 2, expired_freed_bytes: 7, ..Site::default() };
        let totals = census.totals(2, &site, 40);
        assert_eq!(totals.expired, Tally { count: 3, bytes: 17 });
        assert_eq!(totals.freed_expired, Tally { count: 2, bytes: 7 });
        assert_eq!(totals.last_expired, 10);
        assert_eq!(totals.oldest, Some(Timestamp(60)));
    }

    #[test]
    fn ages_are_those_of_the_census() {
        let mut census = Census::new(5 * NANOSECONDS);
        for (address, time) in [(0x10, 5 * NANOSECONDS + 1), (0x20, 4 * NANOSECONDS + 1), (0x30, NANOSECONDS)] {
            census.add(LiveBlock::new(address, 1, time, 1), 0);
        }
        assert_eq!(census.ages(1).buckets(), [2, 0, 0, 1]);
        assert_eq!((census.ages(0).count(), census.ages(7).count()), (0, 0));
    }
}
