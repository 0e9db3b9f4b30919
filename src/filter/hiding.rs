//! Hides the frames of [`noise`], and joins the sites that differ in nothing else.

use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::noise::{self, NoiseSet};
use crate::event::Tally;
use crate::histogram::Histogram;
use crate::profile::{Call, Profile, Site};
use crate::symbol::{NamedFrame, NamedStack};

/// Hides frames; remembers what it made of each, as stacks share most of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Hider {
    sets: Vec<NoiseSet>,
    /// By the frame's place in memory. The frame is kept, so that no other can take the place.
    seen: FxHashMap<*const NamedFrame, (Arc<NamedFrame>, Option<Arc<NamedFrame>>)>,
}

impl Hider {
    pub(super) fn new(sets: &[NoiseSet]) -> Hider {
        Hider { sets: sets.to_vec(), seen: FxHashMap::default() }
    }

    /// The stack without noise, and how many functions were hidden. The allocator's frame stays; a stack of which nothing else would,
    /// stays as it is.
    pub(super) fn hide(&mut self, stack: &NamedStack) -> (NamedStack, u64) {
        let start = if self.sets.contains(&NoiseSet::Start) { noise::start_frames(stack) } else { 0 };
        let inside = &stack.frames[..stack.frames.len() - start];
        let mut frames: Vec<Arc<NamedFrame>> = inside.iter().take(1).map(Arc::clone).collect();
        frames.extend(inside.iter().skip(1).filter_map(|frame| self.without_noise(frame)));
        if frames.len() <= 1 {
            return (stack.clone(), 0);
        }
        let shorter = NamedStack { frames, ..stack.clone() };
        let hidden = stack.calls().count() - shorter.calls().count();
        (shorter, hidden as u64)
    }

    fn without_noise(&mut self, frame: &Arc<NamedFrame>) -> Option<Arc<NamedFrame>> {
        let seen = self.seen.entry(Arc::as_ptr(frame)).or_insert_with(|| {
            let is_kept = |function| !noise::is_noise(&Call { frame, function: Some(function) }, &self.sets);
            let functions: Vec<_> = frame.functions.iter().filter(|function| is_kept(function)).cloned().collect();
            let left = if functions.len() == frame.functions.len() {
                Some(Arc::clone(frame))
            } else if functions.is_empty() {
                None
            } else {
                Some(Arc::new(NamedFrame { functions, ..NamedFrame::clone(frame) }))
            };
            (Arc::clone(frame), left)
        });
        seen.1.clone()
    }
}

/// Hides noise in all stacks, joins the sites whose stacks became equal, and says so.
pub(super) fn hide_noise(profile: &mut Profile, sets: &[NoiseSet]) {
    let mut hider = Hider::new(sets);
    let (mut frames, mut stacks) = (0, 0_u64);
    for site in &mut profile.sites {
        let (stack, hidden) = hider.hide(&site.stack);
        site.stack = stack;
        frames += hidden;
        stacks += u64::from(hidden > 0);
    }
    if frames == 0 {
        return;
    }
    join_equal(profile);
    let names: Vec<_> = sets.iter().map(|set| set.name()).collect();
    let [frame, stack] = [(frames, "frame"), (stacks, "call stack")]
        .map(|(count, what)| format!("{count} {what}{}", if count == 1 { "" } else { "s" }));
    let sets = names.join(", ");
    profile.remarks.push(format!("{frame} of runtimes ({sets}) hidden in {stack}; --all-frames shows them."));
}

/// Joins sites with the same stack. Whatever named them by number names the joint ones afterwards.
pub(super) fn join_equal(profile: &mut Profile) {
    let mut by_addresses: FxHashMap<Vec<u64>, Vec<usize>> = FxHashMap::default();
    let mut joint: Vec<Site> = Vec::with_capacity(profile.sites.len());
    let mut places = Vec::with_capacity(profile.sites.len());
    for site in std::mem::take(&mut profile.sites) {
        let addresses = site.stack.frames.iter().map(|frame| frame.address).collect();
        let alike = by_addresses.entry(addresses).or_default();
        match alike.iter().find(|&&place| joint[place].stack == site.stack) {
            Some(&place) => {
                join(&mut joint[place], site);
                places.push(Some(place));
            }
            None => {
                alike.push(joint.len());
                places.push(Some(joint.len()));
                joint.push(site);
            }
        }
    }
    profile.sites = joint;
    renumber(profile, &places);
}

/// Brings what names sites by number in line with their new places; `None` are gone.
pub(super) fn renumber(profile: &mut Profile, places: &[Option<usize>]) {
    let place = |site: usize| places.get(site).copied().flatten();
    for snapshot in &mut profile.snapshots {
        let mut live: Vec<(usize, Tally)> = Vec::with_capacity(snapshot.live.len());
        let mut moved: Vec<_> = snapshot.live.iter().filter_map(|&(site, tally)| Some((place(site)?, tally))).collect();
        moved.sort_by_key(|&(site, _)| site);
        for (site, tally) in moved {
            match live.last_mut() {
                Some((last, sum)) if *last == site => *sum = sum.plus(tally),
                _ => live.push((site, tally)),
            }
        }
        snapshot.live = live;
    }
    profile.blocks.retain_mut(|block| match place(block.site) {
        Some(site) => {
            block.site = site;
            true
        }
        None => false,
    });
}

/// Adds what another site counted.
pub(super) fn join(site: &mut Site, other: Site) {
    site.lives = joint_lives((site.lives, site.freed.count), (other.lives, other.freed.count));
    for (tally, more) in [
        (&mut site.allocated, other.allocated),
        (&mut site.freed, other.freed),
        (&mut site.live, other.live),
        (&mut site.expired, other.expired),
        (&mut site.freed_expired, other.freed_expired),
        (&mut site.at_peak, other.at_peak),
    ] {
        *tally = tally.plus(more);
    }
    site.temporary = site.temporary.zip(other.temporary).map(|(one, more)| one.plus(more));
    site.sizes = joint_histogram(site.sizes.take(), other.sizes);
    site.lifetimes = joint_histogram(site.lifetimes.take(), other.lifetimes);
    site.oldest = site.oldest.max(other.oldest);
    site.growth = joint_growth(&site.growth, &other.growth);
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
