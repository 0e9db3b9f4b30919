//! What programs do, and what is said of it.

use proptest::prelude::*;

use super::*;

/// So many requests are served.
const REQUESTS: usize = 20_000;

/// What is live after each request.
type Live = Vec<f64>;

/// The course as seen at `moments` moments, each a little before or after its turn.
fn seen(live: &Live, moments: usize, jitter: &[f64]) -> Vec<Point> {
    let place = |moment: usize| {
        let early = 0.4 * jitter[moment % jitter.len()];
        ((moment as f64 + 1.0 - early) / moments as f64 * REQUESTS as f64) as usize
    };
    (0..moments).map(place).map(|request| Point { work: request as f64, live: live[request] }).collect()
}

fn each_request(mut live: impl FnMut(usize) -> f64) -> Live {
    (0..=REQUESTS).map(&mut live).collect()
}

/// The same numbers each time.
fn random(mut state: u64) -> impl FnMut() -> u64 {
    state = state.wrapping_mul(7_919) + 12_345;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

/// Keys come at random, each is kept once.
fn cache(places: u64, seed: u64) -> Live {
    let (mut random, mut taken, mut live) = (random(seed), vec![false; places as usize], 0.0);
    each_request(|_| {
        live += if std::mem::replace(&mut taken[(random() % places) as usize], true) { 0.0 } else { 100.0 };
        live
    })
}

/// Entries of random size, of which the oldest make room.
fn cache_of_bytes(limit: f64, seed: u64) -> Live {
    let (mut random, mut entries, mut live) = (random(seed), std::collections::VecDeque::new(), 0.0);
    each_request(|_| {
        let size = (random() % 4_000) as f64;
        entries.push_back(size);
        live += size;
        while live > limit {
            live -= entries.pop_front().unwrap_or(live);
        }
        live
    })
}

fn saw_tooth(period: usize) -> impl Fn(usize) -> f64 {
    move |request| 100.0 * ((request + period / 3) % period) as f64
}

fn jitter() -> impl Strategy<Value = Vec<f64>> {
    proptest::collection::vec(0.0..1.0_f64, 7)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_leak_per_request_is_one_whatever_came_before(
        jitter in jitter(), moments in 16_usize..300, warm_up in 0_usize..8_000, base in 0.0..1e7_f64, every in 1_usize..150,
    ) {
        let leak = |request: usize| (request / every) as f64 * 48.0;
        let live = each_request(|request| if request < warm_up { 0.0 } else { base + leak(request) });
        let points = seen(&live, moments, &jitter);
        prop_assert_eq!(judge(&points), Verdict::Leak);
        let slope = Slope::of(&points).expect("work was done");
        let expected = 48.0 / every as f64;
        prop_assert!(slope.low <= slope.value && slope.value <= slope.high);
        prop_assert!(warm_up > 500 || (slope.value - expected).abs() < 0.1 * expected, "{slope:?} {expected}");
    }

    #[test]
    fn a_leak_beneath_a_saw_tooth_is_one(jitter in jitter(), moments in 60_usize..300, period in 20_usize..700) {
        let tooth = saw_tooth(period);
        let live = each_request(|request| tooth(request) + 48.0 * request as f64);
        prop_assert_eq!(judge(&seen(&live, moments, &jitter)), Verdict::Leak);
    }

    #[test]
    fn units_do_not_matter(
        courses in proptest::collection::vec(0_u32..1_000, 12..80), by_work in 0.01..1e4_f64, by_live in 0.01..1e4_f64, more in -1e6..1e6_f64,
    ) {
        let points: Vec<Point> = (0_u32..).zip(&courses).map(|(work, &live)| Point { work: work.into(), live: live.into() }).collect();
        let scaled = |point: &Point| Point { work: point.work * by_work, live: (point.live + more.round()) * by_live };
        let scaled: Vec<Point> = points.iter().map(scaled).collect();
        let (slope, other) = (Slope::of(&points).expect("work"), Slope::of(&scaled).expect("work"));
        let unit = by_live / by_work;
        prop_assert!((slope.value * unit - other.value).abs() <= 1e-6 * unit * (1.0 + slope.value.abs()), "{slope:?} {other:?}");
    }

    #[test]
    fn any_course_has_a_verdict(courses in proptest::collection::vec((0_u32..4, 0_u32..5), 0..60)) {
        let mut work = 0.0;
        let points: Vec<Point> = courses.iter().map(|&(step, live)| {
            work += f64::from(step);
            Point { work, live: live.into() }
        }).collect();
        let _ = judge(&points);
        if let Some(slope) = Slope::of(&points) {
            prop_assert!(slope.low <= slope.value && slope.value <= slope.high && slope.value.is_finite());
        }
    }
}

#[test]
fn caches_are_none() {
    for seed in 1..40 {
        for places in [10, 500, 1_500, 4_000] {
            assert_eq!(judged(&cache(places, seed))[1..], [Verdict::LevelsOff; 3], "{places} places, {seed}");
        }
        assert_eq!(judged(&cache(12_000, seed)), [Verdict::Unclear(Doubt::Slowing); 4], "it still fills, {seed}");
        for limit in [1e5, 1e6, 3e6] {
            let verdicts = judged(&cache_of_bytes(limit, seed));
            assert!(verdicts.iter().all(|verdict| *verdict != Verdict::Leak), "{limit} bytes, {seed}: {verdicts:?}");
            assert_eq!(verdicts[3], Verdict::LevelsOff, "{limit} bytes, {seed}");
        }
    }
}

#[test]
fn what_comes_and_goes_is_none() {
    for period in [20, 37, 101, 500, 1_234, 3_000, 7_000] {
        let verdicts = judged(&each_request(saw_tooth(period)));
        assert!(verdicts.iter().all(|verdict| *verdict != Verdict::Leak), "{period}: {verdicts:?}");
        assert_eq!(verdicts[3], Verdict::LevelsOff, "{period}");
    }
    // Of a tooth and a half nothing can be said, but that some of it was given back.
    assert!(judged(&each_request(saw_tooth(13_000))).iter().all(|verdict| *verdict != Verdict::Leak));
}

fn judged(live: &Live) -> Vec<Verdict> {
    [16, 30, 60, 250].map(|moments| judge(&seen(live, moments, &[0.0, 0.7, 0.3]))).to_vec()
}

#[test]
fn a_leak_that_begins_late_is_one_when_half_is_over() {
    let from = |begin: usize| each_request(|request| 48.0 * request.saturating_sub(begin) as f64);
    assert_eq!(judged(&from(9_000)), [Verdict::Leak; 4]);
    assert!(judged(&from(16_000)).iter().all(|verdict| matches!(verdict, Verdict::Unclear(_))));
}

#[test]
fn a_cache_and_a_leak_of_one_call_stack_are_a_leak() {
    let cache = cache(1_500, 5);
    let both = each_request(|request| cache[request] + 10.0 * request as f64);
    assert_eq!(judged(&both), [Verdict::Leak; 4]);
}

#[test]
fn tables_that_double_are_no_leak_by_themselves() {
    let doubled = |request: usize| 16.0 * request.max(1).next_power_of_two() as f64;
    assert!(judged(&each_request(doubled)).iter().all(|verdict| *verdict != Verdict::Leak));
    assert_eq!(judged(&each_request(|request| doubled(request.min(1_500)))), [Verdict::LevelsOff; 4]);
}

#[test]
fn without_growth_in_the_later_half_it_levels_off() {
    assert_eq!(judged(&each_request(|_| 1e4)), [Verdict::LevelsOff; 4]);
    assert_eq!(judged(&each_request(|request| request.min(7_000) as f64)), [Verdict::LevelsOff; 4]);
}

#[test]
fn few_moments_say_nothing() {
    let leak = each_request(|request| request as f64);
    assert_eq!(judge(&seen(&leak, 10, &[0.5])), Verdict::Unclear(Doubt::FewMoments));
    assert_eq!(judge(&[]), Verdict::Unclear(Doubt::FewMoments));
    let by_far = each_request(|request| (request / 5_000) as f64);
    assert_eq!(judge(&seen(&by_far, 40, &[0.0])), Verdict::Unclear(Doubt::Seldom));
}

mod of_profiles {
    use super::super::*;
    use crate::event::{Tally, Timestamp};
    use crate::profile::{Moment, Reference, sample};

    const SECOND: u64 = 1_000_000_000;

    /// A run with three call stacks, of which `live` tells what they have live after so many seconds and calls; and the calls of a reference.
    fn profile(calls: impl Fn(u64) -> u64, live: impl Fn(usize, u64, u64) -> u64) -> Profile {
        let mut profile = sample::profile();
        profile.timeline =
            (1..=100).map(|second| Moment { at: Timestamp(second * SECOND), ..Moment::default() }).collect();
        let counts: Vec<u64> = (1..=100).map(&calls).collect();
        for (site, of) in profile.sites.iter_mut().enumerate() {
            of.growth = (0..100)
                .map(|moment| (moment, live(site, moment as u64 + 1, counts[moment])))
                .map(|(moment, blocks)| (moment, Tally { count: blocks, bytes: 64 * blocks }))
                .collect();
        }
        profile.references = vec![Reference { name: "serve".into(), counts }];
        profile
    }

    #[test]
    fn growth_with_the_work_is_told_from_growth_with_time() {
        // Two bursts of work, with a pause between.
        let calls = |second: u64| 10 * second.min(30) + 10 * second.saturating_sub(70);
        let run = profile(calls, |site, second, calls| match site {
            0 => calls,
            1 => second.clamp(30, 70),
            _ => calls.min(40),
        });
        let trends = Trends::of(&run);
        let order: Vec<usize> = trends.sites.iter().map(|trend| trend.site).collect();
        assert_eq!((order[0], trends.calls.clone()), (0, vec![600]));
        let of = |site| trends.of_site(site).expect("it has grown");
        assert_eq!((of(0).verdict, of(0).by), (Verdict::Leak, Some(0)));
        let pace = of(0).per_call[0].expect("it was called");
        assert_eq!((pace.bytes.value, pace.blocks.value), (64.0, 1.0));
        // Seen by the clock alone, it grows unevenly.
        assert_ne!(of(0).per_second.expect("time passed").verdict, Verdict::Leak);
        assert_ne!(of(1).verdict, Verdict::Leak, "it grew while nothing was called");
        assert_eq!(of(2).verdict, Verdict::LevelsOff);
    }

    #[test]
    fn what_grows_while_calls_stand_still_is_no_leak_per_call() {
        let run =
            profile(|second| 10 * second.min(60), |_, second, calls| calls.min(40) + second.saturating_sub(60) * 3);
        let trend = &Trends::of(&run).sites[0];
        assert_eq!(trend.verdict, Verdict::Unclear(Doubt::NotWithCalls), "{trend:?}");
    }

    #[test]
    fn without_references_time_is_the_work() {
        let mut run = profile(|_| 0, |site, second, _| if site == 0 { second } else { 7 });
        let trends = Trends::of(&run);
        assert!(trends.sites.iter().all(|trend| trend.verdict == Verdict::Unclear(Doubt::FewMoments)), "never called");
        run.references.clear();
        let trends = Trends::of(&run);
        assert_eq!((trends.sites[0].site, trends.sites[0].verdict, trends.sites[0].by), (0, Verdict::Leak, None));
        assert!(trends.sites[1..].iter().all(|trend| trend.verdict == Verdict::LevelsOff));
        assert_eq!(trends.sites[0].gained, 64.0 * 99.0);
    }

    #[test]
    fn a_run_without_moments_has_no_paces() {
        let mut run = sample::profile();
        run.timeline.clear();
        run.references[0].counts.clear();
        for trend in Trends::of(&run).sites {
            assert_eq!((trend.per_second, trend.verdict), (None, Verdict::Unclear(Doubt::FewMoments)));
        }
    }

    #[test]
    fn many_moments_are_thinned_out() {
        let axis = Axis::new((0..100_000).map(f64::from));
        let live = vec![1.0; 100_000];
        let points = axis.points(&live);
        assert!((250..=257).contains(&points.len()), "{}", points.len());
        assert!(points.windows(2).all(|pair| pair[0].work < pair[1].work));
    }
}
