//! What changed between two runs, call stack by call stack.
//!
//! Addresses differ from run to run, so call stacks are matched by names. In a module whose build id is the same in both runs a frame is
//! the place in the module's file: exact. Where build ids differ or are unknown, the program may have been rebuilt and its lines moved:
//! a frame is then its functions' names in the module of that name (`libfoo.so`, wherever it lies), and call stacks that differ in
//! lines only count as one. A frame without a name is matched by its source file, else by its module alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{Moment, Profile, Site, Snapshot, View, ViewError};
use crate::event::{Tally, Timestamp};
use crate::symbol::NamedStack;

/// What of two runs is compared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Comparison {
    /// Which cost of a call stack. Not growth itself.
    pub view: View,
    /// Costs are per this time of monitoring, rounded to whole blocks and bytes; `None`: those of each whole run.
    pub per: Option<Duration>,
    /// What the runs are called: their files.
    pub names: [String; 2],
}

impl Comparison {
    /// The view that shows what changed in a profile that [`compare`] made.
    pub const VIEW: View = View::Growth { from: Some(1), to: Some(2) };
}

/// Both runs as one profile, whose only two snapshots are what the runs cost: each view and each format of growth from the first to the
/// second shows what changed. The rest of the profile is the second run's, with the call stacks that only the first one has; those
/// have nothing of their own. The remarks say what was compared, and whatever either run has to say.
///
/// # Errors
/// If one of the runs cannot show the view.
pub fn compare(before: &Profile, after: &Profile, how: &Comparison) -> Result<Profile, ViewError> {
    let unchanged = unchanged_modules(before, after);
    let mut sites: Vec<Site> = Vec::with_capacity(after.sites.len());
    let mut known: FxHashMap<Vec<String>, usize> = FxHashMap::default();
    // The second run's sites, joined where they match each other…
    let mut places = Vec::with_capacity(after.sites.len());
    for site in &after.sites {
        let place = *known.entry(key(&site.stack, &unchanged)).or_insert(sites.len());
        match sites.get_mut(place) {
            Some(joint) => joint.join(site.clone()),
            None => sites.push(site.clone()),
        }
        places.push(place);
    }
    let of_both = sites.len();
    // …then those that only the first one has.
    let mut matched: FxHashSet<usize> = FxHashSet::default();
    let mut earlier_places = Vec::with_capacity(before.sites.len());
    for site in &before.sites {
        let place = *known.entry(key(&site.stack, &unchanged)).or_insert(sites.len());
        if place == sites.len() {
            sites.push(without_numbers(site));
        } else if place < of_both {
            matched.insert(place);
        }
        earlier_places.push(place);
    }
    let only = [sites.len() - of_both, of_both - matched.len()];

    let [name_before, name_after] = &how.names;
    let snapshots =
        vec![snapshot(before, &earlier_places, how, name_before)?, snapshot(after, &places, how, name_after)?];
    let mut profile = Profile { sites, snapshots: Vec::new(), ..after.clone() };
    profile.renumber_sites(&places.iter().copied().map(Some).collect::<Vec<_>>());
    profile.snapshots = snapshots;
    let paths: BTreeSet<&str> = after.modules.iter().map(|module| module.path.as_str()).collect();
    profile.modules.extend(before.modules.iter().filter(|module| !paths.contains(module.path.as_str())).cloned());
    profile.remarks = remarks(before, after, how, only);
    profile.objects = Vec::new();
    for after in &after.objects {
        // What one run has not followed says nothing.
        let Some(before) = after.of.as_deref().and_then(|name| before.of_type(name)) else { continue };
        profile.objects.push(compare(before, after, how)?);
    }
    Ok(profile)
}

fn without_numbers(site: &Site) -> Site {
    let nothing = Tally::default();
    Site {
        stack: site.stack.clone(),
        allocated: nothing,
        freed: nothing,
        live: nothing,
        expired: nothing,
        freed_expired: nothing,
        at_peak: nothing,
        temporary: site.temporary.map(|_| nothing),
        sizes: None,
        lifetimes: None,
        lives: None,
        ages: None,
        oldest: None,
        growth: Vec::new(),
    }
}

/// What a run costs, by the joint sites' numbers.
fn snapshot(run: &Profile, places: &[usize], how: &Comparison, name: &str) -> Result<Snapshot, ViewError> {
    let weighed = run.weigh(&how.view)?;
    let mut live: BTreeMap<usize, Tally> = BTreeMap::new();
    for cost in &weighed.costs {
        let change = cost.change;
        let tally = Tally { count: change.count.cast_unsigned(), bytes: change.bytes.cast_unsigned() };
        let sum = live.entry(places[cost.index]).or_default();
        *sum = sum.plus(tally);
    }
    let mut cause = format!("{} in {name}", weighed.label);
    if let Some(per) = how.per {
        cause = format!("{cause}, per {} s", per.as_secs_f64());
        live.values_mut().for_each(|tally| *tally = scaled(*tally, per, run.run.monitored));
    }
    let live: Vec<(usize, Tally)> = live.into_iter().collect();
    let total = live.iter().fold(Tally::default(), |total, (_, tally)| total.plus(*tally));
    let allocated = run.sites.iter().fold(Tally::default(), |total, site| total.plus(site.allocated));
    let at = Timestamp(u64::try_from(run.run.monitored.as_nanos()).unwrap_or(u64::MAX));
    Ok(Snapshot { cause, moment: Moment { at, allocated, live: total }, live })
}

/// As much as would be in `per` if all came in `monitored`, rounded.
fn scaled(tally: Tally, per: Duration, monitored: Duration) -> Tally {
    let scale = |number: u64| {
        let monitored = monitored.as_nanos().max(1);
        let exact = u128::from(number).saturating_mul(per.as_nanos()).saturating_add(monitored / 2) / monitored;
        // What is more is more than any memory.
        u64::try_from(exact).unwrap_or(u64::MAX >> 1)
    };
    Tally { count: scale(tally.count), bytes: scale(tally.bytes) }
}

/// The names of the modules that are known to be the same file in both runs.
fn unchanged_modules<'a>(before: &'a Profile, after: &'a Profile) -> BTreeSet<&'a str> {
    fn builds(profile: &Profile) -> BTreeMap<&str, BTreeSet<&[u8]>> {
        let mut builds: BTreeMap<&str, BTreeSet<&[u8]>> = BTreeMap::new();
        for module in &profile.modules {
            builds.entry(base_name(&module.path)).or_default().insert(&module.build_id);
        }
        builds
    }
    let later = builds(after);
    let is_same = |(name, ids): &(&str, BTreeSet<&[u8]>)| {
        ids.len() == 1 && !ids.contains(&[][..]) && later.get(name) == Some(ids)
    };
    builds(before).into_iter().filter(is_same).map(|(name, _)| name).collect()
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// What is the same of two matching call stacks, a part a call.
fn key(stack: &NamedStack, unchanged: &BTreeSet<&str>) -> Vec<String> {
    let mut key = Vec::with_capacity(stack.frames.len());
    for frame in &stack.frames {
        let module = base_name(&frame.module);
        if unchanged.contains(module) {
            key.push(format!("{module}+{:x}", frame.offset));
            // Frames may have been hidden in part.
            key.extend(frame.functions.iter().map(|function| function.name.clone()));
        } else if frame.functions.is_empty() {
            key.push(module.to_owned());
        } else {
            key.extend(frame.functions.iter().map(|function| match (&*function.name, &function.file) {
                ("", Some(file)) => format!("{module}: {file}"),
                (name, _) => format!("{module}!{name}"),
            }));
        }
    }
    key
}

fn remarks(before: &Profile, after: &Profile, how: &Comparison, only: [usize; 2]) -> Vec<String> {
    let mut remarks = Vec::new();
    for ((profile, name), only) in [before, after].into_iter().zip(&how.names).zip(only) {
        let run = &profile.run;
        let seconds = run.monitored.as_secs_f64();
        remarks.push(format!(
            "{name}: process {}, {}, watched by {} for {seconds:.2} s; call stacks of this run only: {only}.",
            run.pid,
            run.executable,
            run.backend.split(',').next().unwrap_or_default()
        ));
    }
    remarks.push(format!("What else is said of call stacks is of {} alone.", how.names[1]));
    if before.run.expire != after.run.expire && how.view == View::Expired {
        remarks.push("The expiry times differ, so what expired cannot be compared.".into());
    }
    for (profile, name) in [before, after].into_iter().zip(&how.names) {
        let losses: u64 = profile.losses.values().sum();
        if losses > 0 {
            remarks.push(format!("{name}: not all was seen, {losses} times; the report of that run says what."));
        }
        remarks.extend(profile.remarks.iter().map(|remark| format!("{name}: {remark}")));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Change, sample};
    use super::*;
    use crate::symbol::NamedFrame;

    fn how(view: View, per: Option<Duration>) -> Comparison {
        Comparison { view, per, names: ["a".into(), "b".into()] }
    }

    /// The changes, by the innermost caller.
    fn changes(before: &Profile, after: &Profile, how: &Comparison) -> Vec<(String, i64, i64)> {
        let profile = compare(before, after, how).expect("comparable");
        let weighed = profile.weigh(&Comparison::VIEW).expect("two snapshots");
        let name = |site: &Site| site.stack.calls().nth(1).map(|call| call.name()).unwrap_or_default();
        let costs = weighed.costs.iter();
        costs.map(|cost| (name(cost.site), cost.change.count, cost.change.bytes)).collect()
    }

    /// Loaded elsewhere: all run-time addresses differ.
    fn moved(mut profile: Profile) -> Profile {
        for site in &mut profile.sites {
            for frame in &mut site.stack.frames {
                let address = frame.address + 0x1_0000_0000;
                let offset = if frame.module.is_empty() { address } else { frame.offset };
                *frame = Arc::new(NamedFrame { address, offset, ..NamedFrame::clone(frame) });
            }
        }
        profile
    }

    /// Compiled anew: other build ids, addresses in files, and lines.
    fn rebuilt(mut profile: Profile) -> Profile {
        profile.modules.iter_mut().for_each(|module| module.build_id = vec![7; 20]);
        for site in &mut profile.sites {
            for frame in &mut site.stack.frames {
                let mut other = NamedFrame::clone(frame);
                other.offset += 0x30;
                other.functions.iter_mut().for_each(|function| function.line = function.line.map(|line| line + 5));
                *frame = Arc::new(other);
            }
        }
        moved(profile)
    }

    #[test]
    fn equal_runs_differ_in_nothing_wherever_they_were_loaded_and_however_often_compiled() {
        let run = sample::profile();
        for view in [View::Leaks, View::Peak, View::Allocated] {
            for later in [moved(run.clone()), rebuilt(run.clone())] {
                assert_eq!(changes(&run, &later, &how(view.clone(), None)), []);
            }
        }
    }

    #[test]
    fn growth_shrinkage_and_sites_of_one_run_only_are_told() {
        let before = sample::profile();
        let mut after = moved(sample::profile());
        after.sites[0].live = Tally { count: 20, bytes: 2_560 };
        after.sites.remove(2);
        assert_eq!(
            changes(&before, &after, &how(View::Leaks, None)),
            [("Pool::take(int)".into(), 12, 1_536), ("0x7fff12345678".into(), -1, 0)]
        );
        let profile = compare(&before, &after, &how(View::Leaks, None)).expect("comparable");
        assert_eq!(
            profile.remarks[..2],
            [
                "a: process 4321, /srv/server, watched by ptrace for 10.00 s; call stacks of this run only: 1.",
                "b: process 4321, /srv/server, watched by ptrace for 10.00 s; call stacks of this run only: 0.",
            ]
        );
        assert!(profile.remarks.contains(&"a: Names of one library are missing.".to_owned()));
        assert_eq!(profile.sites[2].allocated, Tally::default());
        assert_eq!(
            profile.weigh(&Comparison::VIEW).expect("two snapshots").label,
            "growth from snapshot 1 (never freed in a, 10.00 s) to snapshot 2 (never freed in b, 10.00 s)"
        );
    }

    #[test]
    fn call_stacks_that_differ_in_lines_are_one_only_where_the_program_was_rebuilt() {
        let mut before = sample::profile();
        let mut twin = before.sites[0].clone();
        let mut frame = NamedFrame::clone(&twin.stack.frames[1]);
        frame.offset += 8;
        frame.functions[1].line = Some(46);
        twin.stack.frames[1] = Arc::new(frame);
        before.sites.push(twin);
        let same = compare(&before, &moved(before.clone()), &how(View::Leaks, None)).expect("comparable");
        assert_eq!(same.sites.len(), 4);
        let other = compare(&before, &rebuilt(before.clone()), &how(View::Leaks, None)).expect("comparable");
        assert_eq!(other.sites.len(), 3);
        assert_eq!(other.weigh(&Comparison::VIEW).expect("two snapshots").total(), Change::default());
    }

    #[test]
    fn runs_of_different_length_are_compared_per_time() {
        let before = sample::profile();
        let mut after = moved(sample::profile());
        after.run.monitored *= 2;
        let per_second = how(View::Allocated, Some(Duration::from_secs(1)));
        assert_eq!(changes(&before, &before, &per_second), []);
        // 6000 bytes and 3 blocks in 10 s and in 20 s, 1280 and 10.
        assert_eq!(
            changes(&before, &after, &per_second),
            [("Pool::take(int)".into(), 0, -64), ("evil;\n<b>\"&\u{1b}[31m λ".into(), 0, -300)]
        );
    }

    #[test]
    fn a_view_that_one_run_cannot_show_cannot_be_compared() {
        let mut before = sample::profile();
        before.sites[0].temporary = None;
        assert_eq!(
            compare(&before, &sample::profile(), &how(View::Temporary, None)).expect_err("not observed"),
            ViewError::NoTemporary
        );
    }
}
