//! What is counted for one call stack.

use std::time::Duration;

use super::finding::CallStackNumber;
use crate::event::{Tally, Timestamp, Totals};
use crate::histogram::Histogram;

impl Tally {
    /// Counts one block more.
    pub(super) fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes = self.bytes.wrapping_add(bytes);
    }

    /// Corrects the bytes of a block that is counted already.
    pub(super) fn resize(&mut self, from: u64, to: u64) {
        self.bytes = self.bytes.wrapping_sub(from).wrapping_add(to);
    }
}

/// How long the freed blocks of a call stack lived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LiveTime {
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
    /// The mean.
    pub average: Duration,
}

/// Sums of live times.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct LiveTimes {
    count: u64,
    min: Duration,
    max: Duration,
    /// Nanoseconds: 64 bits would hold the lives of less than 2e9 blocks of 10 s.
    total: u128,
}

impl LiveTimes {
    pub(super) fn add(&mut self, time: Duration) {
        self.min = if self.count == 0 { time } else { self.min.min(time) };
        self.max = self.max.max(time);
        self.total += time.as_nanos();
        self.count += 1;
    }

    /// What a source has summed up.
    fn counted(totals: &Totals) -> Self {
        let (min, max, total) = totals.lives;
        LiveTimes { count: totals.freed.count, min, max, total: total.as_nanos() }
    }

    pub(super) fn get(&self) -> Option<LiveTime> {
        let average = self.total.checked_div(u128::from(self.count))?;
        // An average is no longer than the longest, which came from 64 bits of nanoseconds.
        let average = Duration::from_nanos(u64::try_from(average).unwrap_or(u64::MAX));
        Some(LiveTime { min: self.min, max: self.max, average })
    }
}

/// One call stack's counters.
#[derive(Clone, Default, Debug)]
pub(super) struct Site {
    /// Given at the first expiry.
    pub(super) number: Option<CallStackNumber>,
    pub(super) allocated: Tally,
    /// All that are gone, those whose free was not seen included.
    pub(super) freed: Tally,
    /// All that ever expired.
    pub(super) expired: Tally,
    /// Of the expired, those that are gone.
    pub(super) freed_expired: Tally,
    /// Of the blocks whose free was seen.
    pub(super) live_times: LiveTimes,
    /// The greatest age of a block that an exec took away.
    pub(super) dropped_age: Duration,
    /// Of a call stack that the source counts: when its oldest live block was allocated.
    pub(super) oldest: Option<Timestamp>,
    /// The source counts this call stack; its blocks are not known one by one.
    pub(super) is_counted: bool,
    /// Of such a call stack: the blocks whose address was handed out again without a free that was seen.
    pub(super) counted_unseen: Tally,
    /// Of such a call stack: the blocks that an exec took away.
    pub(super) dropped: Tally,
    /// Of such a call stack: what the source told last.
    taken_over: Totals,
    pub(super) live: Tally,
    /// What was live at the peak of this number.
    pub(super) at_peak: Tally,
    pub(super) peak_number: u64,
    /// Blocks that were freed as the next thing after they were allocated.
    pub(super) temporary: Tally,
    /// Sizes of all blocks; of those that changed theirs, the last.
    pub(super) sizes: Histogram,
    /// Nanoseconds; of the blocks whose free was seen.
    pub(super) lifetimes: Histogram,
    /// Something has changed since that was asked last.
    pub(super) is_changed: bool,
}

impl Site {
    /// Takes over what the source counted. What had expired once stays so: the source's look at a moving target may
    /// miss a block that is freed just then, until its next look.
    pub(super) fn take_over(&mut self, totals: &Totals, now: Timestamp) {
        if totals.dropped != self.dropped {
            self.dropped = totals.dropped;
            self.dropped_age = self.oldest.map_or(self.dropped_age, |oldest| self.dropped_age.max(now.since(oldest)));
        }
        self.is_counted = true;
        self.taken_over = *totals;
        self.allocated = totals.allocated;
        self.freed = totals.freed.plus(totals.unseen_frees);
        self.counted_unseen = totals.unseen_frees;
        if totals.expired.count >= self.expired.count {
            self.expired = totals.expired;
            self.freed_expired = totals.freed_expired;
        }
        self.live_times = LiveTimes::counted(totals);
        self.oldest = totals.oldest;
        self.live = self.counted_live();
    }

    /// True if `totals` tells nothing new.
    pub(super) fn has_taken_over(&self, totals: &Totals) -> bool {
        self.is_counted && self.taken_over == *totals
    }

    /// Blocks that have expired and were not freed; one that an exec took away stays one.
    pub(super) fn leaked(&self) -> u64 {
        self.expired.count.saturating_sub(self.freed_expired.count)
    }

    /// Live blocks of a call stack that the source counts.
    pub(super) fn counted_live(&self) -> Tally {
        if !self.is_counted {
            return Tally::default();
        }
        let gone = self.freed.plus(self.dropped);
        Tally {
            count: self.allocated.count.saturating_sub(gone.count),
            bytes: self.allocated.bytes.wrapping_sub(gone.bytes),
        }
    }

    /// Those of them that have not expired.
    pub(super) fn counted_unexpired(&self) -> Tally {
        let (live, expired) = (self.counted_live(), self.expired.without(self.freed_expired));
        // Expired blocks that an exec took away stay counted as expired.
        match live.count.checked_sub(expired.count) {
            Some(count) => Tally { count, bytes: live.bytes.wrapping_sub(expired.bytes) },
            None => Tally::default(),
        }
    }
}
