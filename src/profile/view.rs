//! The questions that a profile answers: what each site costs, seen in one way.

use super::{Profile, Site};
use crate::event::Tally;

/// A way to look at a profile.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum View {
    /// What was live at the end: never freed.
    Leaks,
    /// What lived longer than the expiry time and is not freed.
    Expired,
    /// What was live at the high-water mark.
    Peak,
    /// All that was ever allocated.
    Allocated,
    /// What was freed as the next thing after they were allocated.
    Temporary,
    /// What was live at a snapshot, by its number from 1.
    Snapshot(usize),
    /// What is live more (or less) at one moment than at an earlier one.
    Growth {
        /// A snapshot's number; `None`: the beginning.
        from: Option<usize>,
        /// A snapshot's number; `None`: the end.
        to: Option<usize>,
    },
}

/// Why a view cannot be had.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ViewError {
    /// There are not so many snapshots.
    #[error("cannot show snapshot {wanted}: the number taken is {taken}")]
    NoSnapshot {
        /// Its number.
        wanted: usize,
        /// How many there are.
        taken: usize,
    },
    /// Temporary blocks are told by single events.
    #[error("cannot show temporary blocks: the bpf backend does not tell them; record with --backend=ptrace")]
    NoTemporary,
}

/// Blocks and bytes, more or (negative) less.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Change {
    /// Blocks.
    pub count: i64,
    /// Bytes.
    pub bytes: i64,
}

impl Change {
    /// From one tally to a later one.
    #[must_use]
    pub fn between(from: Tally, to: Tally) -> Change {
        Change {
            count: to.count.wrapping_sub(from.count).cast_signed(),
            bytes: to.bytes.wrapping_sub(from.bytes).cast_signed(),
        }
    }

    /// The two together.
    #[must_use]
    pub fn plus(self, other: Change) -> Change {
        Change { count: self.count.wrapping_add(other.count), bytes: self.bytes.wrapping_add(other.bytes) }
    }
}

impl From<Tally> for Change {
    fn from(tally: Tally) -> Change {
        Change::between(Tally::default(), tally)
    }
}

/// What one site costs in a view.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Cost<'a> {
    /// The site.
    pub site: &'a Site,
    /// Its place in [`Profile::sites`].
    pub index: usize,
    /// What it costs; never nothing at all.
    pub change: Change,
}

/// A profile seen by a view.
#[derive(Clone, PartialEq, Debug)]
pub struct Weighed<'a> {
    /// The profile.
    pub profile: &'a Profile,
    /// The view in words: `never freed`, `live at the peak (2.31 s)`.
    pub label: String,
    /// The sites that cost something, the dearest (in bytes, then in blocks) first.
    pub costs: Vec<Cost<'a>>,
}

impl Weighed<'_> {
    /// All costs together.
    #[must_use]
    pub fn total(&self) -> Change {
        self.costs.iter().fold(Change::default(), |total, cost| total.plus(cost.change))
    }
}

impl Profile {
    /// The profile as `view` sees it.
    ///
    /// # Errors
    /// If the view asks for what was not observed.
    pub fn weigh(&self, view: &View) -> Result<Weighed<'_>, ViewError> {
        let label = self.label(view)?;
        let changes: Vec<Change> = match view {
            View::Leaks => self.each(|site| site.live),
            View::Expired => self.each(|site| site.expired.without(site.freed_expired)),
            View::Peak => self.each(|site| site.at_peak),
            View::Allocated => self.each(|site| site.allocated),
            View::Temporary => {
                if self.sites.iter().any(|site| site.temporary.is_none()) {
                    return Err(ViewError::NoTemporary);
                }
                self.each(|site| site.temporary.unwrap_or_default())
            }
            View::Snapshot(number) => self.each_at(Some(*number))?.into_iter().map(Change::from).collect(),
            View::Growth { from, to } => {
                let before = match from {
                    Some(_) => self.each_at(*from)?,
                    None => vec![Tally::default(); self.sites.len()],
                };
                before
                    .into_iter()
                    .zip(self.each_at(*to)?)
                    .map(|(before, after)| Change::between(before, after))
                    .collect()
            }
        };
        let mut costs: Vec<Cost<'_>> = changes
            .into_iter()
            .enumerate()
            .filter(|(_, change)| *change != Change::default())
            .map(|(index, change)| Cost { site: &self.sites[index], index, change })
            .collect();
        costs.sort_by_key(|cost| {
            std::cmp::Reverse((cost.change.bytes, cost.change.count, std::cmp::Reverse(cost.index)))
        });
        Ok(Weighed { profile: self, label, costs })
    }

    fn label(&self, view: &View) -> Result<String, ViewError> {
        let snapshot = |number: usize| -> Result<String, ViewError> {
            let snapshot = self.snapshot(number)?;
            Ok(format!("snapshot {number} ({}, {:.2} s)", snapshot.cause, seconds(snapshot.moment.at.0)))
        };
        Ok(match view {
            // A process that goes on may free it yet.
            View::Leaks if self.run.ending.is_none() => "live".into(),
            View::Leaks => "never freed".into(),
            View::Expired => format!("lived longer than {} s", self.run.expire.as_secs_f64()),
            View::Peak => match self.peak {
                Some(peak) => format!("live at the peak ({:.2} s)", seconds(peak.at.0)),
                None => "live at the peak".into(),
            },
            View::Allocated => "allocated".into(),
            View::Temporary => "temporary".into(),
            View::Snapshot(number) => snapshot(*number)?,
            View::Growth { from, to } => {
                let from = from.map_or(Ok("the beginning".into()), snapshot)?;
                let to = to.map_or(Ok("the end".into()), snapshot)?;
                format!("growth from {from} to {to}")
            }
        })
    }

    fn snapshot(&self, number: usize) -> Result<&super::Snapshot, ViewError> {
        let error = ViewError::NoSnapshot { wanted: number, taken: self.snapshots.len() };
        number.checked_sub(1).and_then(|index| self.snapshots.get(index)).ok_or(error)
    }

    fn each(&self, tally: impl Fn(&Site) -> Tally) -> Vec<Change> {
        self.sites.iter().map(|site| tally(site).into()).collect()
    }

    /// What was live at a snapshot, or at the end, by site.
    fn each_at(&self, snapshot: Option<usize>) -> Result<Vec<Tally>, ViewError> {
        let Some(number) = snapshot else { return Ok(self.sites.iter().map(|site| site.live).collect()) };
        let mut live = vec![Tally::default(); self.sites.len()];
        for &(site, tally) in &self.snapshot(number)?.live {
            if let Some(live) = live.get_mut(site) {
                *live = tally;
            }
        }
        Ok(live)
    }
}

#[expect(clippy::cast_precision_loss, reason = "for a human, with two decimals")]
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn weigh(view: &View) -> Vec<(usize, i64, i64)> {
        let profile = sample::profile();
        let weighed = profile.weigh(view).expect("a view that can be had");
        weighed.costs.iter().map(|cost| (cost.index, cost.change.count, cost.change.bytes)).collect()
    }

    #[test]
    fn the_dearest_site_is_first_and_sites_that_cost_nothing_are_left_out() {
        assert_eq!(weigh(&View::Leaks), [(0, 8, 1024), (2, 1, 0)]);
        assert_eq!(weigh(&View::Expired), [(0, 6, 768), (2, 1, 0)]);
        assert_eq!(weigh(&View::Peak), [(1, 2, 4000), (0, 6, 768), (2, 1, 0)]);
        assert_eq!(weigh(&View::Temporary), [(0, 1, 128)]);
    }

    #[test]
    fn growth_is_told_with_its_sign() {
        assert_eq!(weigh(&View::Growth { from: Some(1), to: None }), [(0, 2, 256), (1, -2, -4000)]);
        assert_eq!(weigh(&View::Growth { from: None, to: Some(1) }), weigh(&View::Snapshot(1)));
    }

    #[test]
    fn a_snapshot_that_was_not_taken_cannot_be_shown() {
        let error = sample::profile().weigh(&View::Snapshot(2)).expect_err("only one was taken");
        assert_eq!(error.to_string(), "cannot show snapshot 2: the number taken is 1");
        assert!(sample::profile().weigh(&View::Snapshot(0)).is_err());
    }
}
