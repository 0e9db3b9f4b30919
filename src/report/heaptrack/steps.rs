//! What was live, call stack by call stack, from one known moment to the next.

use crate::event::{Tally, Timestamp};
use crate::profile::{Profile, Site};

/// A moment of which it is known what was live.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Step {
    pub(super) at: Timestamp,
    /// Calls that allocated until then.
    pub(super) calls: u64,
    /// What is live from then on, by site, where it is not what was live before; of all sites at the peak.
    pub(super) live: Vec<(usize, Tally)>,
}

/// The profile's moments, its peak, and its end.
pub(super) fn steps(profile: &Profile) -> Vec<Step> {
    let step = |at, calls| Step { at, calls, live: Vec::new() };
    let mut steps: Vec<Step> = profile.timeline.iter().map(|moment| step(moment.at, moment.allocated.count)).collect();
    let peak = profile.peak.map(|peak| {
        let index = steps.partition_point(|step| step.at < peak.at);
        steps.insert(index, step(peak.at, peak.allocated.count));
        index
    });
    let end = u64::try_from(profile.run.monitored.as_nanos()).unwrap_or(u64::MAX);
    let last = steps.last().map_or(0, |step| step.at.0);
    let calls = profile.sites.iter().map(|site| site.allocated.count).sum();
    steps.push(step(Timestamp(end.max(last)), calls));
    for (index, site) in profile.sites.iter().enumerate() {
        for (step, tally) in levels(site, peak, steps.len() - 1) {
            steps[step].live.push((index, tally));
        }
    }
    steps
}

/// By step, ascending, where it is not the one before; at the peak in any case.
fn levels(site: &Site, peak: Option<usize>, end: usize) -> Vec<(usize, Tally)> {
    let mut levels: Vec<(usize, Tally)> = Vec::with_capacity(site.growth.len() + 3);
    // The moments from the peak's step on come one later.
    let shift = |moment: usize| moment + usize::from(peak.is_some_and(|peak| moment >= peak));
    levels.extend(site.growth.iter().map(|&(moment, tally)| (shift(moment), tally)).filter(|&(step, _)| step < end));
    if let Some(peak) = peak {
        let after =
            site.growth.iter().rev().find(|&&(moment, _)| moment <= peak).map_or(Tally::default(), |&(_, tally)| tally);
        levels.push((peak, site.at_peak));
        if peak + 1 < end {
            levels.push((peak + 1, after));
        }
    }
    levels.push((end, site.live));
    levels.sort_by_key(|&(step, _)| step);
    let mut before = Tally::default();
    levels.retain(|&(step, tally)| std::mem::replace(&mut before, tally) != tally || Some(step) == peak);
    levels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Timestamp;
    use crate::profile::{Moment, sample};

    fn tally(count: u64, bytes: u64) -> Tally {
        Tally { count, bytes }
    }

    #[test]
    fn the_peak_is_a_step_of_its_own_after_which_things_are_as_the_moments_say() {
        let mut profile = sample::profile();
        let at = Timestamp(3_000_000_000);
        profile.peak = Some(Moment { at, allocated: tally(5, 0), live: tally(9, 4768) });
        let steps = steps(&profile);
        let times: Vec<u64> = steps.iter().map(|step| step.at.0 / 1_000_000_000).collect();
        assert_eq!(times, [1, 3, 5, 10, 10]);
        // The first site is at the peak what it is at the moment after it.
        assert_eq!(steps[0].live, [(0, tally(1, 128)), (2, tally(1, 0))]);
        assert_eq!(steps[1].live, [(0, tally(6, 768)), (1, tally(2, 4000)), (2, tally(1, 0))]);
        assert_eq!(steps[2].live, []);
        assert_eq!(steps[3].live, [(0, tally(8, 1024)), (1, tally(0, 0))]);
        assert_eq!(steps[4].live, []);
    }

    #[test]
    fn what_was_live_at_the_peak_only_is_gone_at_the_next_moment() {
        let site = Site {
            growth: vec![(0, tally(1, 10))],
            at_peak: tally(3, 90),
            live: tally(1, 10),
            ..sample::profile().sites[0].clone()
        };
        assert_eq!(levels(&site, Some(1), 4), [(0, tally(1, 10)), (1, tally(3, 90)), (2, tally(1, 10))]);
        // A peak after the last moment.
        assert_eq!(levels(&site, Some(1), 2), [(0, tally(1, 10)), (1, tally(3, 90)), (2, tally(1, 10))]);
    }
}
