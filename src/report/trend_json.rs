//! Trends for programs: the same in both forms of JSON.

use serde::Serialize;

use crate::profile::Profile;
use crate::trend::{Doubt, Pace, Slope, Trend, Trends, Verdict};

/// The trend of a call stack.
#[derive(Serialize)]
pub(super) struct TrendOf<'a> {
    verdict: &'static str,
    doubt: Option<&'static str>,
    /// The reference that the verdict is by; nothing: time.
    by: Option<&'a str>,
    per_second: Option<PaceOf>,
    per_call: Vec<PerCall<'a>>,
}

#[derive(Serialize)]
struct PerCall<'a> {
    reference: &'a str,
    calls: u64,
    pace: Option<PaceOf>,
}

#[derive(Serialize)]
struct PaceOf {
    verdict: &'static str,
    doubt: Option<&'static str>,
    bytes: SlopeOf,
    blocks: SlopeOf,
}

#[derive(Serialize)]
struct SlopeOf {
    value: f64,
    low: f64,
    high: f64,
}

impl<'a> TrendOf<'a> {
    pub(super) fn of(profile: &'a Profile, trends: &Trends, trend: &Trend) -> TrendOf<'a> {
        let references = profile.references.iter().zip(&trends.calls).zip(&trend.per_call);
        TrendOf {
            verdict: verdict_name(trend.verdict),
            doubt: doubt_name(trend.verdict),
            by: trend.by.and_then(|by| Some(profile.references.get(by)?.name.as_str())),
            per_second: trend.per_second.map(PaceOf::of),
            per_call: references
                .map(|((reference, &calls), pace)| PerCall {
                    reference: &reference.name,
                    calls,
                    pace: pace.map(PaceOf::of),
                })
                .collect(),
        }
    }
}

impl PaceOf {
    fn of(pace: Pace) -> PaceOf {
        let slope = |Slope { value, low, high }| SlopeOf { value, low, high };
        PaceOf {
            verdict: verdict_name(pace.verdict),
            doubt: doubt_name(pace.verdict),
            bytes: slope(pace.bytes),
            blocks: slope(pace.blocks),
        }
    }
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Leak => "leak",
        Verdict::LevelsOff => "levels_off",
        Verdict::Unclear(_) => "unclear",
    }
}

fn doubt_name(verdict: Verdict) -> Option<&'static str> {
    let Verdict::Unclear(doubt) = verdict else { return None };
    Some(match doubt {
        Doubt::FewMoments => "few_moments",
        Doubt::Seldom => "seldom",
        Doubt::Slowing => "slowing",
        Doubt::Uneven => "uneven",
        Doubt::NotWithCalls => "not_with_calls",
    })
}
