//! Whether what is live grows on with the work.

use super::slope::{Point, Slope, quantile, residuals};

/// What the course of a call stack says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verdict {
    /// What is live levels off, or comes and goes.
    LevelsOff,
    /// It cannot be told, and why.
    Unclear(Doubt),
    /// It grows on with the work.
    Leak,
}

/// Why it cannot be told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Doubt {
    /// It grew in the later half, but not evenly.
    Uneven,
    /// It grows ever more slowly: what fills up looks so.
    Slowing,
    /// It grew too seldom.
    Seldom,
    /// It grows with time, but not with the calls.
    NotWithCalls,
    /// There are too few moments with work between them, in either half.
    FewMoments,
}

/// In each half; below that there is no verdict.
const LEAST_MOMENTS: usize = 6;

/// What grows has done so at so many moments, and at so many of the later half.
const LEAST_STEPS: (usize, usize) = (5, 3);

/// What grows has grown in the later half by so many times what it varies about its line.
const CLEARLY: f64 = 2.5;

/// What grows on does so in the later half at least by so much of its pace in the earlier.
const SAME_PACE: f64 = 0.75;

/// What levels off has grown in the later half by so little of all that it ever grew.
const LITTLE: f64 = 0.15;

/// A step that is so much of all that was added stands for itself.
const MOST_OF: f64 = 0.5;

/// What settled lost its pace in the earlier half; in the later, that fell to a greater part, of which this is at most so much.
const SETTLED: f64 = 0.5;

/// What has ended to grow did so before this last part of the work.
const TAIL: f64 = 0.4;

/// What comes and goes has shrunk by so much of what it grew.
const GIVEN_BACK: f64 = 0.5;

/// Parts of the work whose lowest points are looked at.
const PARTS: usize = 16;

/// The verdict on points with ascending work, each of its own.
#[must_use]
pub fn judge(points: &[Point]) -> Verdict {
    let Some((early, late)) = halves(points) else { return Verdict::Unclear(Doubt::FewMoments) };
    let (up, down) = moves(late);
    if up == 0.0 || has_ended(points) {
        return Verdict::LevelsOff;
    }
    let comes_and_goes = down >= GIVEN_BACK * up;
    let floors = floors(points);
    let slope = Slope::of(late).unwrap_or_default();
    if grows_on(points) && (!comes_and_goes || is_ascending(&floors[floors.len() / 2..])) {
        return Verdict::Leak;
    }
    if comes_and_goes {
        // Beneath what comes and goes there may be something that stays.
        let grows_beneath = points.len() >= 3 * PARTS && grows_on(&floors);
        return match (grows_beneath, rise_of_floor(early, late) > variation(late, slope)) {
            (true, true) => Verdict::Leak,
            (false, false) => Verdict::LevelsOff,
            _ => Verdict::Unclear(Doubt::Uneven),
        };
    }
    if up - down <= LITTLE * (highest(points) - lowest(points)) && !keeps_pace(late) {
        Verdict::LevelsOff
    } else if steps(points) < LEAST_STEPS.0 || steps(late) < LEAST_STEPS.1 {
        Verdict::Unclear(Doubt::Seldom)
    } else if slope.value < SAME_PACE * pace_before(early) {
        Verdict::Unclear(Doubt::Slowing)
    } else {
        Verdict::Unclear(Doubt::Uneven)
    }
}

/// True if what is live grew clearly in the later half, beyond what ever was before, and as fast as before: than in the earlier half, or, where
/// something was to be filled besides, than a quarter before.
fn grows_on(points: &[Point]) -> bool {
    let Some((early, late)) = halves(points) else { return false };
    let is_beyond = late.last().is_some_and(|last| last.live > highest(early));
    if !is_beyond || steps(points) < LEAST_STEPS.0 || steps(late) < LEAST_STEPS.1 {
        return false;
    }
    let Some(slope) = Slope::of(late) else { return false };
    let is_clear = slope.low > 0.0 && slope.value * work(late) >= CLEARLY * variation(late, slope);
    is_clear && (slope.value >= SAME_PACE * pace_before(early) || has_settled(early, late))
}

/// The pace of the earlier half: where one step is most of what it grew, after that.
fn pace_before(early: &[Point]) -> f64 {
    let steps = early.windows(2).map(|pair| pair[1].live - pair[0].live).enumerate();
    let after = match steps.max_by(|(_, one), (_, other)| one.total_cmp(other)) {
        Some((place, step)) if step >= MOST_OF * moves(early).0 => &early[place + 1..],
        _ => early,
    };
    Slope::of(after).unwrap_or_default().value
}

/// The pace in both halves of a half.
fn paces(half: &[Point]) -> Option<(f64, f64)> {
    let (one, other) = split(half)?;
    Some((Slope::of(one)?.value, Slope::of(other)?.value))
}

/// True if the pace did not fall within a half.
fn keeps_pace(half: &[Point]) -> bool {
    paces(half).is_some_and(|(third, fourth)| third > 0.0 && fourth >= SAME_PACE * third)
}

/// True if the pace fell from the first quarter to the second, and no more from the third to the fourth. That of what fills up falls evenly.
fn has_settled(early: &[Point], late: &[Point]) -> bool {
    let (Some((first, second)), Some((third, fourth))) = (paces(early), paces(late)) else { return false };
    // As fractions: second / first, and fourth / third.
    keeps_pace(late) && second * third <= SETTLED * fourth * first
}

/// True if what had grown at many moments did so no more in the last part of the work.
fn has_ended(points: &[Point]) -> bool {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return false };
    let from = last.work - TAIL * (last.work - first.work);
    let tail = &points[points.partition_point(|point| point.work < from)..];
    tail.len() >= LEAST_MOMENTS / 2 && steps(points) > LEAST_STEPS.0 && moves(tail).0 == 0.0
}

/// By how much the lowest point of the last quarter is above that of the second.
fn rise_of_floor(early: &[Point], late: &[Point]) -> f64 {
    match (split(early), split(late)) {
        (Some((_, second)), Some((_, fourth))) => lowest(fourth) - lowest(second),
        _ => 0.0,
    }
}

/// How much points differ from their line, but for the tenth that is farthest off on either side.
fn variation(points: &[Point], slope: Slope) -> f64 {
    let mut about = residuals(points, slope.value);
    quantile(&mut about, 0.9) - quantile(&mut about, 0.1)
}

/// Before and after half of the work was done; nothing if one has too few moments.
fn halves(points: &[Point]) -> Option<(&[Point], &[Point])> {
    split(points).filter(|(early, late)| early.len() >= LEAST_MOMENTS && late.len() >= LEAST_MOMENTS)
}

/// The same with one moment at least.
fn split(points: &[Point]) -> Option<(&[Point], &[Point])> {
    let middle = (points.first()?.work + points.last()?.work) / 2.0;
    let (early, late) = points.split_at(points.partition_point(|point| point.work < middle));
    (!early.is_empty() && !late.is_empty()).then_some((early, late))
}

fn lowest(points: &[Point]) -> f64 {
    points.iter().map(|point| point.live).fold(f64::INFINITY, f64::min)
}

fn highest(points: &[Point]) -> f64 {
    points.iter().map(|point| point.live).fold(f64::NEG_INFINITY, f64::max)
}

fn is_ascending(points: &[Point]) -> bool {
    points.windows(2).all(|pair| pair[1].live > pair[0].live)
}

fn work(points: &[Point]) -> f64 {
    match points {
        [first, .., last] => last.work - first.work,
        _ => 0.0,
    }
}

/// All that was added, and all that was taken away.
fn moves(points: &[Point]) -> (f64, f64) {
    points
        .windows(2)
        .map(|pair| pair[1].live - pair[0].live)
        .fold((0.0, 0.0), |(up, down), step| if step > 0.0 { (up + step, down) } else { (up, down - step) })
}

/// At how many moments there was more than at the one before.
fn steps(points: &[Point]) -> usize {
    points.windows(2).filter(|pair| pair[1].live > pair[0].live).count()
}

/// The lowest point of each of [`PARTS`] parts of the work.
fn floors(points: &[Point]) -> Vec<Point> {
    let (Some(first), work) = (points.first(), work(points)) else { return Vec::new() };
    let part = |point: &Point| ((point.work - first.work) / work * PARTS as f64).min(PARTS as f64 - 1.0) as usize;
    let lowest = |part: &[Point]| part.iter().copied().min_by(|one, other| one.live.total_cmp(&other.live));
    points.chunk_by(|one, other| part(one) == part(other)).filter_map(lowest).collect()
}
