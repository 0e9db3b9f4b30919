//! Sites joined to one: those whose stacks are, or became, equal.

use std::time::Duration;

use rustc_hash::FxHashMap;

use super::{Profile, Site};
use crate::event::Tally;
use crate::histogram::Histogram;

impl Profile {
    /// Joins sites with the same stack. Whatever named them by number names the joint ones afterwards.
    pub fn join_equal_sites(&mut self) {
        let mut by_addresses: FxHashMap<Vec<u64>, Vec<usize>> = FxHashMap::default();
        let mut joint: Vec<Site> = Vec::with_capacity(self.sites.len());
        let mut places = Vec::with_capacity(self.sites.len());
        for site in std::mem::take(&mut self.sites) {
            let addresses = site.stack.frames.iter().map(|frame| frame.address).collect();
            let alike = by_addresses.entry(addresses).or_default();
            match alike.iter().find(|&&place| joint[place].stack == site.stack) {
                Some(&place) => {
                    joint[place].join(site);
                    places.push(Some(place));
                }
                None => {
                    alike.push(joint.len());
                    places.push(Some(joint.len()));
                    joint.push(site);
                }
            }
        }
        self.sites = joint;
        self.renumber_sites(&places);
    }

    /// Brings what names sites by number in line with their new places; `None` are gone.
    pub fn renumber_sites(&mut self, places: &[Option<usize>]) {
        let place = |site: usize| places.get(site).copied().flatten();
        for snapshot in &mut self.snapshots {
            let mut live: Vec<(usize, Tally)> = Vec::with_capacity(snapshot.live.len());
            let mut moved: Vec<_> =
                snapshot.live.iter().filter_map(|&(site, tally)| Some((place(site)?, tally))).collect();
            moved.sort_by_key(|&(site, _)| site);
            for (site, tally) in moved {
                match live.last_mut() {
                    Some((last, sum)) if *last == site => *sum = sum.plus(tally),
                    _ => live.push((site, tally)),
                }
            }
            snapshot.live = live;
        }
        self.blocks.retain_mut(|block| match place(block.site) {
            Some(site) => {
                block.site = site;
                true
            }
            None => false,
        });
    }
}

impl Site {
    /// Adds what another site counted.
    pub fn join(&mut self, other: Site) {
        self.lives = joint_lives((self.lives, self.freed.count), (other.lives, other.freed.count));
        for (tally, more) in [
            (&mut self.allocated, other.allocated),
            (&mut self.freed, other.freed),
            (&mut self.live, other.live),
            (&mut self.expired, other.expired),
            (&mut self.freed_expired, other.freed_expired),
            (&mut self.at_peak, other.at_peak),
        ] {
            *tally = tally.plus(more);
        }
        self.temporary = self.temporary.zip(other.temporary).map(|(one, more)| one.plus(more));
        self.sizes = joint_histogram(self.sizes.take(), other.sizes);
        self.lifetimes = joint_histogram(self.lifetimes.take(), other.lifetimes);
        self.ages = joint_histogram(self.ages.take(), other.ages);
        self.oldest = self.oldest.max(other.oldest);
        self.growth = joint_growth(&self.growth, &other.growth);
    }
}

fn joint_histogram(one: Option<Histogram>, more: Option<Histogram>) -> Option<Histogram> {
    let (mut sum, more) = (one?, more?);
    sum.merge(&more);
    Some(sum)
}

type Lives = Option<(Duration, Duration, Duration)>;

/// With how many blocks each mean is of.
fn joint_lives(one: (Lives, u64), other: (Lives, u64)) -> Lives {
    let (Some((min, mean, max)), Some((other_min, other_mean, other_max))) = (one.0, other.0) else {
        return one.0.or(other.0);
    };
    let blocks = u128::from(one.1) + u128::from(other.1);
    let total = mean.as_nanos() * u128::from(one.1) + other_mean.as_nanos() * u128::from(other.1);
    let mean = total.checked_div(blocks).and_then(|mean| u64::try_from(mean).ok());
    Some((min.min(other_min), mean.map_or(one.0?.1, Duration::from_nanos), max.max(other_max)))
}

/// Two step functions together.
fn joint_growth(one: &[(usize, Tally)], other: &[(usize, Tally)]) -> Vec<(usize, Tally)> {
    let mut sum: Vec<(usize, Tally)> = Vec::with_capacity(one.len() + other.len());
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    let (mut live, mut other_live) = (Tally::default(), Tally::default());
    while let Some(at) = [one.peek(), other.peek()].into_iter().flatten().map(|&&(at, _)| at).min() {
        if let Some(&(_, tally)) = one.next_if(|&&(index, _)| index == at) {
            live = tally;
        }
        if let Some(&(_, tally)) = other.next_if(|&&(index, _)| index == at) {
            other_live = tally;
        }
        sum.push((at, live.plus(other_live)));
    }
    sum
}
