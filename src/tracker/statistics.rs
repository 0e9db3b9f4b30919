//! What the tracker counted: the end of the report.

use std::collections::BTreeMap;
use std::time::Duration;

use super::finding::CallStackNumber;
use super::site::LiveTime;
use crate::event::{Loss, StackId, Tally};

/// Everything counted until the last event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statistics {
    /// How long events came.
    pub monitored: Duration,
    /// The expiry threshold.
    pub expire: Duration,
    /// The call stacks with expired blocks that are not freed, fewest such blocks first.
    pub call_stacks: Vec<CallStackStatistics>,
    /// Live blocks that have not expired.
    pub unexpired: Tally,
    /// All live blocks: if the target has ended, those that it never freed.
    pub never_freed: Tally,
    /// Frees of addresses where no block is known: it is older than the monitoring, its allocation was lost, or the
    /// allocator frees it a second time for itself (glibc empties the cache of a thread that ends by `free`).
    pub unknown_frees: u64,
    /// Blocks whose address was handed out again, so they were freed, but that free was not seen. They count as freed.
    pub unseen_frees: Tally,
    /// Blocks that were live when the target replaced its program by exec.
    pub dropped_by_exec: Tally,
    /// What the source could not see: how often each.
    pub losses: BTreeMap<Loss, u64>,
}

/// The counters of one call stack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallStackStatistics {
    /// Its number in the report.
    pub number: CallStackNumber,
    /// The call stack.
    pub stack: StackId,
    /// Blocks that lived longer than the threshold.
    pub expired: Tally,
    /// Those of them that are gone.
    pub freed_expired: Tally,
    /// All blocks.
    pub allocated: Tally,
    /// All blocks that are gone.
    pub freed: Tally,
    /// Of the blocks whose free was seen; `None` if there are none.
    pub freed_live_time: Option<LiveTime>,
    /// The age of the oldest block that was not freed.
    pub unfreed_live_time: Duration,
}

impl CallStackStatistics {
    /// The blocks that expired and were not freed.
    #[must_use]
    pub fn may_leak(&self) -> Tally {
        self.expired.without(self.freed_expired)
    }
}
