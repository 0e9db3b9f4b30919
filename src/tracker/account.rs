//! What the tracker tells of each call stack while it goes on: the entries of a recording.

use std::collections::BTreeMap;

use super::Tracker;
use super::blocks::Block;
use super::site::{LiveTime, Site};
use crate::event::{Loss, StackId, Tally, Timestamp};
use crate::histogram::Histogram;
use crate::notable::{KnownBlock, Notable};

/// All blocks together at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Level {
    /// When.
    pub at: Timestamp,
    /// All blocks until then.
    pub allocated: Tally,
    /// What was live then.
    pub live: Tally,
}

/// The counters of one call stack at a moment.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Account {
    /// All blocks.
    pub allocated: Tally,
    /// Those that are live.
    pub live: Tally,
    /// Those that ever expired.
    pub expired: Tally,
    /// Of the expired, those that are gone.
    pub freed_expired: Tally,
    /// What was live at the high-water mark of all call stacks together.
    pub at_peak: Tally,
    /// Blocks that were freed as the next thing after they were allocated. Nothing for a source that counts itself.
    pub temporary: Tally,
    /// Sizes in bytes of all blocks. Empty for a source that counts itself.
    pub sizes: Histogram,
    /// Lives in nanoseconds of the freed blocks. Empty for a source that counts itself.
    pub lifetimes: Histogram,
    /// Of the blocks whose free was seen; `None` if there are none.
    pub lives: Option<LiveTime>,
    /// When the oldest live block was allocated, if that is known without a look at each block.
    pub oldest: Option<Timestamp>,
}

impl Tracker {
    /// All blocks together, now.
    #[must_use]
    pub fn level(&self) -> Level {
        Level { at: self.now, allocated: self.allocated, live: self.live }
    }

    /// The high-water mark of live bytes; `None` if nothing was ever live.
    #[must_use]
    pub fn peak(&self) -> Option<Level> {
        (self.peak.live.count > 0).then_some(self.peak)
    }

    /// Frees of addresses where no block is known, until now.
    #[must_use]
    pub fn unknown_frees(&self) -> u64 {
        self.unknown_frees
    }

    /// What the source could not see until now: how often each.
    #[must_use]
    pub fn losses(&self) -> &BTreeMap<Loss, u64> {
        &self.losses
    }

    /// Blocks that `realloc` left where they were, and the bytes that they had before.
    #[must_use]
    pub fn resized(&self) -> Tally {
        self.resized
    }

    /// How often each reference was called until now, by number; what is missing was not.
    #[must_use]
    pub fn calls(&self) -> &[u64] {
        &self.calls
    }

    /// The call stacks of which something has changed since the last call, each once.
    pub fn take_changed(&mut self) -> Vec<StackId> {
        for &stack in &self.changed {
            self.sites[stack.0 as usize].is_changed = false;
        }
        std::mem::take(&mut self.changed)
    }

    /// The counters of a call stack.
    ///
    /// # Panics
    /// If nothing was ever told of this call stack.
    #[must_use]
    pub fn account(&self, stack: StackId) -> Account {
        let site = &self.sites[stack.0 as usize];
        Account {
            allocated: site.allocated,
            live: site.live,
            expired: site.expired,
            freed_expired: site.freed_expired,
            at_peak: site.live_at(self.peak_number),
            temporary: site.temporary,
            sizes: site.sizes.clone(),
            lifetimes: site.lifetimes.clone(),
            lives: site.live_times.get(),
            oldest: site.oldest,
        }
    }

    /// When the oldest live block of each call stack was allocated, by call stack; looks at each block.
    #[must_use]
    pub fn oldest(&self) -> Vec<Option<Timestamp>> {
        let mut oldest: Vec<_> = self.sites.iter().map(|site| site.oldest).collect();
        for block in self.blocks.iter() {
            let oldest = &mut oldest[block.stack.0 as usize];
            *oldest = Some(oldest.map_or(block.allocated, |oldest| oldest.min(block.allocated)));
        }
        oldest
    }

    /// How old the live blocks are, in seconds, by call stack, ascending; without call stacks that have none. Looks at each block; nothing of
    /// those that the source counts.
    #[must_use]
    pub fn ages(&self) -> Vec<(StackId, Histogram)> {
        let mut ages = vec![Histogram::default(); self.sites.len()];
        for block in self.blocks.iter() {
            ages[block.stack.0 as usize].add(self.now.since(block.allocated).as_secs());
        }
        (0..).map(StackId).zip(ages).filter(|(_, ages)| ages.count() > 0).collect()
    }

    /// The `count` largest live blocks, and as many of the oldest; each once, largest first. Looks at each block; none for a source that
    /// counts itself.
    #[must_use]
    pub fn notable_blocks(&self, count: usize) -> Vec<KnownBlock> {
        let mut notable = Notable::new(count);
        for block in self.blocks.iter() {
            let Block { size, allocated, address, stack, .. } = *block;
            notable.add(KnownBlock { size, allocated, address, stack });
        }
        notable.into_blocks()
    }

    /// The site of a call stack, which is about to change.
    pub(super) fn touch(&mut self, stack: StackId) -> &mut Site {
        self.site(stack);
        let site = &mut self.sites[stack.0 as usize];
        if !site.is_changed {
            site.is_changed = true;
            self.changed.push(stack);
        }
        site.at_peak = site.live_at(self.peak_number);
        site.peak_number = self.peak_number;
        site
    }

    /// Looks whether there is more than ever.
    pub(super) fn note_peak(&mut self) {
        if self.live.bytes > self.peak.live.bytes || self.peak.live.count == 0 && self.live.count > 0 {
            self.peak = self.level();
            self.peak_number += 1;
        }
    }
}

impl Site {
    /// What was live at the peak of this number, the last one. A site notes it when it changes for the first time after that.
    fn live_at(&self, peak_number: u64) -> Tally {
        if self.peak_number == peak_number { self.at_peak } else { self.live }
    }
}
