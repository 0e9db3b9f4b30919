//! The lines of the table: call stacks with what changes about them.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::event::{Tally, Timestamp};
use crate::profile::{Change, Profile, SiteId};
use crate::report::answers;

/// Growth is of this time, unless it is since a snapshot; rates are of as much at the most.
pub(super) const RECENTLY: Duration = Duration::from_secs(60);

/// Rates are of the last moments only.
const RATE_OVER: Duration = Duration::from_secs(5);

/// What makes a call stack come first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    Live,
    Growth,
    Rate,
}

/// A line.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Row {
    pub(super) id: SiteId,
    /// Its place in the profile.
    pub(super) site: usize,
    pub(super) live: Tally,
    pub(super) growth: Change,
    /// Allocated a second.
    pub(super) rate: Tally,
    pub(super) place: String,
}

/// What was live at a snapshot that growth is told from.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Baseline {
    /// The snapshot's number.
    pub(super) number: usize,
    pub(super) at: Timestamp,
    live: HashMap<SiteId, Tally>,
}

impl Baseline {
    /// What `profile` has live now.
    pub(super) fn of(profile: &Profile, number: usize) -> Baseline {
        let live = profile.sites.iter().map(|site| (site.id(), site.live)).collect();
        Baseline { number, at: now(profile), live }
    }
}

/// The allocations of a moment ago, by which rates are told.
#[derive(Debug, Default)]
pub(super) struct Past {
    moments: VecDeque<(Timestamp, HashMap<SiteId, Tally>)>,
}

impl Past {
    /// Remembers a profile.
    pub(super) fn remember(&mut self, profile: &Profile) {
        let at = now(profile);
        if self.moments.back().is_some_and(|(last, _)| *last >= at) {
            return;
        }
        self.moments.push_back((at, profile.sites.iter().map(|site| (site.id(), site.allocated)).collect()));
        while self.moments.get(1).is_some_and(|(second, _)| at.since(*second) >= RATE_OVER) {
            self.moments.pop_front();
        }
    }

    fn rate(&self, id: SiteId, allocated: Tally, at: Timestamp) -> Tally {
        let Some((since, before)) = self.moments.front() else { return Tally::default() };
        let nanoseconds = at.since(*since).as_nanos();
        if nanoseconds == 0 {
            return Tally::default();
        }
        let new = allocated.without(before.get(&id).copied().unwrap_or_default());
        let a_second =
            |number: u64| u64::try_from(u128::from(number) * 1_000_000_000 / nanoseconds).unwrap_or(u64::MAX);
        Tally { count: a_second(new.count), bytes: a_second(new.bytes) }
    }
}

/// When a profile is of.
pub(super) fn now(profile: &Profile) -> Timestamp {
    profile.timeline.last().map(|moment| moment.at).unwrap_or_default()
}

/// The lines, in order; those whose stack has `filter` in a name, whatever its case.
pub(super) fn rows(
    profile: &Arc<Profile>,
    past: &Past,
    baseline: Option<&Baseline>,
    order: Order,
    filter: &str,
) -> Vec<Row> {
    let at = now(profile);
    let filter = filter.to_lowercase();
    let mut rows: Vec<Row> = profile
        .sites
        .iter()
        .enumerate()
        .filter(|(_, site)| filter.is_empty() || has(site, &filter))
        .map(|(index, site)| {
            let id = site.id();
            let before = match baseline {
                Some(baseline) => baseline.live.get(&id).copied().unwrap_or_default(),
                None => live_before(profile, index, at),
            };
            let growth = Change::between(before, site.live);
            let rate = past.rate(id, site.allocated, at);
            Row { id, site: index, live: site.live, growth, rate, place: answers::place(site) }
        })
        .filter(|row| row.live.count > 0 || row.growth != Change::default() || row.rate.count > 0)
        .collect();
    match order {
        Order::Live => rows.sort_by_key(|row| Reverse((row.live.bytes, row.live.count))),
        Order::Growth => rows.sort_by_key(|row| Reverse((row.growth.bytes, row.growth.count))),
        Order::Rate => rows.sort_by_key(|row| Reverse((row.rate.bytes, row.rate.count))),
    }
    rows
}

fn has(site: &crate::profile::Site, filter: &str) -> bool {
    site.stack.calls().any(|call| {
        call.name().to_lowercase().contains(filter)
            || call.file().is_some_and(|file| file.to_lowercase().contains(filter))
            || call.frame.module.to_lowercase().contains(filter)
    })
}

/// What a site had live a while ago, as far as the course of time tells.
fn live_before(profile: &Profile, index: usize, at: Timestamp) -> Tally {
    let then = profile.timeline.partition_point(|moment| at.since(moment.at) > RECENTLY);
    let growth = &profile.sites[index].growth;
    let last = growth.partition_point(|(moment, _)| *moment <= then);
    // At the first moment of all, nothing was.
    if then == 0 && profile.timeline.first().is_none_or(|first| at.since(first.at) <= RECENTLY) {
        return Tally::default();
    }
    last.checked_sub(1).map_or(Tally::default(), |last| growth[last].1)
}
