//! The moments of a run by the work that was done until then.

use super::slope::Point;

/// At most so many moments are looked at: the cost of a slope grows with their square.
const MOST: usize = 256;

/// Moments between which work was done, at most [`MOST`]: of each stretch of the work the last.
#[derive(Debug)]
pub(super) struct Axis {
    /// Which moment, and the work until then; both ascending.
    moments: Vec<(usize, f64)>,
}

impl Axis {
    /// `work`: until each moment, never less than before.
    pub(super) fn new(work: impl Iterator<Item = f64>) -> Axis {
        let all: Vec<(usize, f64)> = work.enumerate().collect();
        let (first, last) = (all.first().map_or(0.0, |first| first.1), all.last().map_or(0.0, |last| last.1));
        let stretch = |work: f64| ((work - first) / (last - first) * MOST as f64) as usize;
        let is_last = |place: usize| match all.get(place + 1) {
            Some(&(_, next)) => next > all[place].1 && (all.len() <= MOST || stretch(next) > stretch(all[place].1)),
            None => true,
        };
        Axis { moments: (0..all.len()).filter(|&place| is_last(place)).map(|place| all[place]).collect() }
    }

    /// The work done between the first and the last of them.
    pub(super) fn work(&self) -> f64 {
        match &self.moments[..] {
            [(_, first), .., (_, last)] => last - first,
            _ => 0.0,
        }
    }

    /// What was live at them, of what was live at each moment.
    pub(super) fn points(&self, live: &[f64]) -> Vec<Point> {
        self.moments.iter().filter_map(|&(moment, work)| Some(Point { work, live: *live.get(moment)? })).collect()
    }
}
