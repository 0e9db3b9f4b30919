//! What is counted for one call stack.

use std::time::Duration;

use super::finding::CallStackNumber;

/// A number of blocks and their bytes. Bytes wrap: sizes are the target's word.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// Blocks.
    pub count: u64,
    /// Their bytes together.
    pub bytes: u64,
}

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

    /// What is left when `part`, which is counted in `self`, is taken away.
    pub(super) fn without(self, part: Tally) -> Tally {
        Tally { count: self.count - part.count, bytes: self.bytes.wrapping_sub(part.bytes) }
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
}
