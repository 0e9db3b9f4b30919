//! What is live by the work that was done: whether it grows on with it, and how fast. `docs/trends.md` tells the method.
//!
//! The work is the calls of functions that the user has named (`--reference`); without them, time. Pure: of numbers only.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "estimates: what is lost is far below their uncertainty"
)]

mod axis;
mod slope;
#[cfg(test)]
mod tests;
mod verdict;

use std::cmp::Reverse;

use crate::profile::{Profile, Site};
use axis::Axis;

pub use slope::{Point, Slope};
pub use verdict::{Doubt, Verdict, judge};

/// The trends of a run.
#[derive(Clone, PartialEq, Debug)]
pub struct Trends {
    /// How often each of [`Profile::references`] was called in all.
    pub calls: Vec<u64>,
    /// Of each call stack that had anything live: leaks first, then what is unclear, then what levels off; of these, what has gained most first.
    pub sites: Vec<Trend>,
}

/// The trend of one call stack.
#[derive(Clone, PartialEq, Debug)]
pub struct Trend {
    /// Its index in [`Profile::sites`].
    pub site: usize,
    /// Whether it grows on.
    pub verdict: Verdict,
    /// By the calls of which reference, by its index; `None`: with time.
    pub by: Option<usize>,
    /// Its growth a second; `None` if there were not two moments.
    pub per_second: Option<Pace>,
    /// Its growth a call of each of [`Profile::references`]; `None` of one that was not called between two moments.
    pub per_call: Vec<Option<Pace>>,
    /// Bytes that it has gained in the whole run by this trend.
    pub gained: f64,
}

/// Growth a unit of work.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Pace {
    /// Live bytes.
    pub bytes: Slope,
    /// Live blocks.
    pub blocks: Slope,
    /// Whether one of them grows on with this work.
    pub verdict: Verdict,
}

impl Trend {
    /// Its growth with what its verdict is by.
    #[must_use]
    pub fn decisive(&self) -> Option<Pace> {
        match self.by {
            Some(reference) => self.per_call.get(reference).copied().flatten(),
            None => self.per_second,
        }
    }
}

impl Trends {
    /// Those of `profile`.
    #[must_use]
    pub fn of(profile: &Profile) -> Trends {
        let moments = profile.timeline.len();
        let time = Axis::new(profile.timeline.iter().map(|moment| moment.at.0 as f64 / 1e9));
        let references: Vec<Axis> = profile
            .references
            .iter()
            .map(|reference| Axis::new(reference.counts.iter().map(|&count| count as f64)))
            .collect();
        let grown = profile.sites.iter().enumerate().filter(|(_, site)| !site.growth.is_empty());
        let mut sites: Vec<Trend> =
            grown.map(|(index, site)| trend(index, &Course::of(site, moments), &time, &references)).collect();
        sites.sort_by(|one, other| {
            let rank = |trend: &Trend| match trend.verdict {
                Verdict::Leak => 2,
                Verdict::Unclear(_) => 1,
                Verdict::LevelsOff => 0,
            };
            let by_gain = other.gained.total_cmp(&one.gained).then(one.site.cmp(&other.site));
            Reverse(rank(one)).cmp(&Reverse(rank(other))).then(by_gain)
        });
        let calls = profile.references.iter().map(|reference| reference.counts.last().copied().unwrap_or(0)).collect();
        Trends { calls, sites }
    }

    /// That of a call stack, by its index.
    #[must_use]
    pub fn of_site(&self, site: usize) -> Option<&Trend> {
        self.sites.iter().find(|trend| trend.site == site)
    }
}

/// What a call stack had live at each moment.
struct Course {
    bytes: Vec<f64>,
    blocks: Vec<f64>,
}

impl Course {
    fn of(site: &Site, moments: usize) -> Course {
        let (mut bytes, mut blocks) = (vec![0.0; moments], vec![0.0; moments]);
        for (place, &(from, live)) in site.growth.iter().enumerate() {
            let until = site.growth.get(place + 1).map_or(moments, |next| next.0).min(moments);
            let from = from.min(until);
            bytes[from..until].fill(live.bytes as f64);
            blocks[from..until].fill(live.count as f64);
        }
        Course { bytes, blocks }
    }

    fn pace(&self, axis: &Axis) -> Option<Pace> {
        let (bytes, blocks) = (axis.points(&self.bytes), axis.points(&self.blocks));
        let verdict = judge(&bytes).max(judge(&blocks));
        Some(Pace { bytes: Slope::of(&bytes)?, blocks: Slope::of(&blocks)?, verdict })
    }
}

fn trend(site: usize, course: &Course, time: &Axis, references: &[Axis]) -> Trend {
    let per_second = course.pace(time);
    let per_call: Vec<Option<Pace>> = references.iter().map(|axis| course.pace(axis)).collect();
    let (verdict, by) = overall(per_second, &per_call);
    let trend = Trend { site, verdict, by, per_second, per_call, gained: 0.0 };
    let work = by.and_then(|reference| references.get(reference)).unwrap_or(time).work();
    let gained = trend.decisive().map_or(0.0, |pace| pace.bytes.value * work);
    Trend { gained, ..trend }
}

/// The verdict, and by which reference it is. What grows with the calls of one of them is a leak, whatever the others say.
fn overall(per_second: Option<Pace>, per_call: &[Option<Pace>]) -> (Verdict, Option<usize>) {
    let few = Verdict::Unclear(Doubt::FewMoments);
    let by_time = per_second.map_or(few, |pace| pace.verdict);
    let known = per_call.iter().enumerate().filter_map(|(index, pace)| Some((index, (*pace)?)));
    // Of those that say the same, the one that is surest of its slope.
    let relative = |pace: &Pace| pace.bytes.uncertainty() / pace.bytes.value.abs().max(f64::MIN_POSITIVE);
    let best = known
        .max_by(|(_, one), (_, other)| one.verdict.cmp(&other.verdict).then(relative(other).total_cmp(&relative(one))));
    match best {
        None if per_call.is_empty() => (by_time, None),
        None => (few, None),
        // While nothing is called, or little.
        Some((index, Pace { verdict: Verdict::LevelsOff | Verdict::Unclear(Doubt::Seldom | Doubt::Uneven), .. }))
            if by_time == Verdict::Leak =>
        {
            (Verdict::Unclear(Doubt::NotWithCalls), Some(index))
        }
        Some((index, pace)) => (pace.verdict, Some(index)),
    }
}
