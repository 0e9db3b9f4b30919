//! What a recording tells until now, known without reading it again: kept while it is written, in memory that does not grow with
//! time.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::profile::{MOMENTS, regrown, thin};
use super::reader::{Replayed, Shares, Taken};
use super::record::{Begin, Record};
use super::sample::Look;
use crate::event::{Frame, StackId, Timestamp};
use crate::histogram::Histogram;
use crate::profile::Profile;
use crate::symbol::NamedFrame;

/// Numbers that all snapshots together may hold: beyond that, those taken at intervals are thinned out.
const SHARES: usize = 1 << 20;

/// Why a snapshot was taken that may be left out.
const INTERVAL: &str = "interval";

/// The sum of the records.
#[derive(Debug)]
pub struct Ledger {
    replayed: Replayed,
    shares: Shares,
    /// As of the last look.
    oldest: BTreeMap<StackId, Timestamp>,
    /// As of the last look.
    ages: Option<BTreeMap<u32, Histogram>>,
    /// What all snapshots hold.
    held: usize,
    left_out: usize,
}

impl Ledger {
    pub(super) fn new(begin: Begin) -> Ledger {
        Ledger {
            replayed: Replayed { begin, ..Replayed::default() },
            shares: Shares::default(),
            oldest: BTreeMap::new(),
            ages: None,
            held: 0,
            left_out: 0,
        }
    }

    pub(super) fn take(&mut self, record: Record) {
        // Who asks names frames himself.
        if matches!(record, Record::Names(_)) {
            return;
        }
        let is_snapshot = matches!(record, Record::Snapshot(_));
        self.replayed.take(record, &mut self.shares);
        if self.replayed.timeline.len() > 2 * MOMENTS {
            self.thin_moments();
        }
        if is_snapshot {
            self.held += self.replayed.snapshots.last().map_or(0, weight);
            if self.held > SHARES {
                self.thin_snapshots();
            }
        }
    }

    /// Leaves moments out that a profile would not show.
    fn thin_moments(&mut self) {
        thin_moments(&mut self.replayed);
        self.replayed.objects.values_mut().for_each(|of| thin_moments(&mut of.replayed));
    }

    /// Leaves out every second snapshot of those that were taken at intervals.
    fn thin_snapshots(&mut self) {
        let before = self.replayed.snapshots.len();
        let mut nth = 0;
        let is_kept = |(index, taken): (usize, &Taken)| {
            nth += usize::from(taken.cause == INTERVAL);
            taken.cause != INTERVAL || nth % 2 == 1 || index + 1 == before
        };
        let kept: Vec<bool> = self.replayed.snapshots.iter().enumerate().map(is_kept).collect();
        let all = std::iter::once(&mut self.replayed.snapshots);
        let of_types = self.replayed.objects.values_mut().map(|of| &mut of.replayed.snapshots);
        for snapshots in all.chain(of_types) {
            // What has begun later has fewer, of the last ones.
            let mut kept = kept[before.saturating_sub(snapshots.len())..].iter();
            snapshots.retain(|_| kept.next().copied().unwrap_or(true));
        }
        self.left_out += before - self.replayed.snapshots.len();
        self.held = self.replayed.snapshots.iter().map(weight).sum();
    }

    /// What a look at each block has told; in the place of the last.
    pub fn look(&mut self, look: Look) {
        self.oldest = look.oldest.into_iter().collect();
        self.replayed.blocks = look.blocks;
        self.ages = Some(look.ages.into_iter().map(|(stack, ages)| (stack.0, ages)).collect());
    }

    /// How many snapshots were taken.
    #[must_use]
    pub fn count_snapshots(&self) -> usize {
        self.replayed.snapshots.len()
    }

    /// All that the recording tells until now. `name` is asked for frames; `None` if it cannot name them.
    #[must_use]
    pub fn profile(&self, name: &mut dyn FnMut(&Frame) -> Option<Arc<NamedFrame>>) -> Profile {
        let mut replayed = self.replayed.clone();
        replayed.share(&self.shares);
        for (&stack, books) in &mut replayed.sites {
            let seen = self.oldest.get(&StackId(stack)).copied();
            books.oldest = books.oldest.or(seen);
        }
        if replayed.ending.is_none() {
            let now = replayed.timeline.last().map_or(Timestamp::default(), |told| told.level.at);
            replayed.ending = Some((now, "Monitoring goes on.".into()));
        }
        if replayed.ages.is_none() {
            replayed.ages.clone_from(&self.ages);
        }
        if self.left_out > 0 {
            replayed.remarks.push(format!(
                "{} of the snapshots taken at intervals are left out here; the recording has them.",
                self.left_out
            ));
        }
        replayed.into_profile(name)
    }
}

fn thin_moments(replayed: &mut Replayed) {
    let timeline = &mut replayed.timeline;
    let kept = thin(timeline);
    *timeline = kept.iter().map(|&index| timeline[index].clone()).collect();
    for books in replayed.sites.values_mut() {
        books.growth = regrown(&books.growth, &kept);
    }
}

fn weight(taken: &Taken) -> usize {
    taken.live.len() + 1
}
