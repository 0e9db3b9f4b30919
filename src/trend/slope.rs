//! The slope of a series, with its uncertainty: robust, so that a jump or a peak does not decide.

use std::cmp::Ordering;

/// A moment: how much work was done until then, and what was live.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Point {
    /// Calls, or seconds.
    pub work: f64,
    /// Bytes, or blocks.
    pub live: f64,
}

/// What is live more after a unit of work, and between which bounds that is.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Slope {
    /// The median of the slopes between any two moments (Theil 1950, Sen 1968).
    pub value: f64,
    /// The lower bound of its 95 % confidence interval.
    pub low: f64,
    /// The upper bound.
    pub high: f64,
}

impl Slope {
    /// How far the value may be off: the greater distance to a bound.
    #[must_use]
    pub fn uncertainty(self) -> f64 {
        (self.high - self.value).max(self.value - self.low)
    }

    /// The slope of points with ascending work. Nothing where no work was done between them.
    #[must_use]
    pub fn of(points: &[Point]) -> Option<Slope> {
        let first = points.first()?;
        if points.iter().all(|point| point.live == first.live) {
            return (points.last()?.work > first.work).then_some(Slope::default());
        }
        let mut slopes = between_all(points);
        let count = slopes.len();
        if count == 0 {
            return None;
        }
        let value = median(&mut slopes);
        // Sen's interval: so many of all slopes lie between its bounds.
        let within = 1.96 * (variance(points) * dependence(points, value)).sqrt();
        let (low, high) = ((count as f64 - within) / 2.0, (count as f64 + within) / 2.0);
        let mut at = |rank: f64| {
            let rank = (rank.max(0.0) as usize).min(count - 1);
            *slopes.select_nth_unstable_by(rank, f64::total_cmp).1
        };
        let (low, high) = (at(low.floor()), at(high.ceil()));
        Some(Slope { value, low: low.min(value), high: high.max(value) })
    }
}

/// The slopes between any two points with work between them.
fn between_all(points: &[Point]) -> Vec<f64> {
    let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
    for (index, later) in points.iter().enumerate() {
        for earlier in &points[..index] {
            let work = later.work - earlier.work;
            if work > 0.0 {
                slopes.push((later.live - earlier.live) / work);
            }
        }
    }
    slopes
}

/// The middle value; of an even number the mean of the two. There must be one.
pub(super) fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below which this share of all lies, between the two that are next to it. There must be one.
pub(super) fn quantile(values: &mut [f64], share: f64) -> f64 {
    let place = share * (values.len() - 1) as f64;
    let (below, part) = (place.floor() as usize, place.fract());
    let (_, &mut lower, above) = values.select_nth_unstable_by(below, f64::total_cmp);
    let upper = above.iter().copied().min_by(f64::total_cmp).unwrap_or(lower);
    lower + (upper - lower) * part
}

/// Of Kendall's S, if there were no trend; equal values taken into account.
fn variance(points: &[Point]) -> f64 {
    let term = |count: f64| count * (count - 1.0) * (2.0 * count + 5.0);
    let mut live: Vec<f64> = points.iter().map(|point| point.live).collect();
    live.sort_unstable_by(f64::total_cmp);
    let ties: f64 =
        live.chunk_by(|one, other| one.total_cmp(other) == Ordering::Equal).map(|tie| term(tie.len() as f64)).sum();
    ((term(points.len() as f64) - ties) / 18.0).max(0.0)
}

/// How many times larger the variance is as moments depend on the ones before (to the first order).
fn dependence(points: &[Point], slope: f64) -> f64 {
    let residuals = residuals(points, slope);
    let square: f64 = residuals.iter().map(|residual| residual * residual).sum();
    let product: f64 = residuals.windows(2).map(|pair| pair[0] * pair[1]).sum();
    if square <= 0.0 {
        return 1.0;
    }
    let correlation = (product / square).clamp(0.0, 0.99);
    ((1.0 + correlation) / (1.0 - correlation)).min(points.len() as f64 / 3.0).max(1.0)
}

/// What is left of a series when its line is taken away.
pub(super) fn residuals(points: &[Point], slope: f64) -> Vec<f64> {
    let mut left: Vec<f64> = points.iter().map(|point| point.live - slope * point.work).collect();
    if !left.is_empty() {
        let middle = median(&mut left.clone());
        left.iter_mut().for_each(|residual| *residual -= middle);
    }
    left
}
