//! What changed in the tracker since the last look: taken by the thread that traces, written by another.

use std::collections::BTreeMap;

use crate::event::{Loss, StackId, Tally, Timestamp};
use crate::histogram::Histogram;
use crate::notable::KnownBlock;
use crate::tracker::{Account, Level, Tracker};

/// How many of the largest live blocks, and of the oldest, a recording tells at its end.
const BLOCKS: usize = 100;

/// A moment of a run.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Sample {
    /// All blocks together.
    pub level: Level,
    /// The high-water mark until now.
    pub peak: Option<Level>,
    /// Frees of unknown blocks until now.
    pub unknown_frees: u64,
    /// Blocks resized where they were, with the bytes they had before.
    pub resized: Tally,
    /// What was not seen until now.
    pub losses: BTreeMap<Loss, u64>,
    /// How often each reference was called until now, by number; what is missing was not.
    pub calls: Vec<u64>,
    /// The call stacks that have changed since the last sample, ascending.
    pub sites: Vec<(StackId, Account)>,
    /// Notable live blocks; of the last sample only.
    pub blocks: Vec<KnownBlock>,
    /// How old the live blocks are, in seconds, by call stack, if that was asked for.
    pub ages: Option<BTreeMap<StackId, Histogram>>,
}

impl Sample {
    /// What has changed since the last time.
    pub fn take(tracker: &mut Tracker) -> Sample {
        let mut stacks = tracker.take_changed();
        stacks.sort_unstable();
        let sites = stacks.into_iter().map(|stack| (stack, tracker.account(stack))).collect();
        Sample {
            level: tracker.level(),
            peak: tracker.peak(),
            unknown_frees: tracker.unknown_frees(),
            resized: tracker.resized(),
            losses: tracker.losses().clone(),
            calls: tracker.calls().to_vec(),
            sites,
            blocks: Vec::new(),
            ages: None,
        }
    }

    /// The same, with the ages of all live blocks: of those that the tracker knows, and of those that the source has `counted`.
    pub fn take_with_ages(tracker: &mut Tracker, counted: Vec<(StackId, Histogram)>) -> Sample {
        let mut ages: BTreeMap<StackId, Histogram> = tracker.ages().into_iter().collect();
        for (stack, histogram) in counted {
            ages.entry(stack).or_default().merge(&histogram);
        }
        Sample { ages: Some(ages), ..Sample::take(tracker) }
    }

    /// The last one: all call stacks that have live blocks are in it, with the age of the oldest, the ages of all, and the notable blocks. `counted`:
    /// the ages of those that the source counts.
    pub fn take_last(tracker: &mut Tracker, counted: Vec<(StackId, Histogram)>) -> Sample {
        let mut sample = Sample::take_with_ages(tracker, counted);
        let mut sites: BTreeMap<StackId, Account> = sample.sites.into_iter().collect();
        for (stack, oldest) in (0..).map(StackId).zip(tracker.oldest()) {
            if oldest.is_some() {
                sites.entry(stack).or_insert_with(|| tracker.account(stack)).oldest = oldest;
            }
        }
        sample.sites = sites.into_iter().collect();
        sample.blocks = tracker.notable_blocks(BLOCKS);
        sample
    }
}

/// What a look at each live block tells, and what has changed does not.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Look {
    /// When the oldest live block of each call stack was allocated; of those that are told of here.
    pub oldest: Vec<(StackId, Timestamp)>,
    /// Notable live blocks.
    pub blocks: Vec<KnownBlock>,
    /// How old the live blocks are, in seconds, by call stack.
    pub ages: Vec<(StackId, Histogram)>,
}

impl Look {
    /// Looks at each block that `tracker` knows.
    #[must_use]
    pub fn take(tracker: &Tracker) -> Look {
        let oldest = (0..).map(StackId).zip(tracker.oldest());
        let oldest = oldest.filter_map(|(stack, oldest)| Some((stack, oldest?))).collect();
        Look { oldest, blocks: tracker.notable_blocks(BLOCKS), ages: tracker.ages() }
    }
}
