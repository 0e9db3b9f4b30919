//! The course of time: what was live when, and what snapshots saw.

use std::io::{self, Write};
use std::time::Duration;

use super::{Extent, Label, heading, percent, place, remark, sparkline};
use crate::event::{Tally, Timestamp};
use crate::profile::{Change, Profile, Site};
use crate::report::human;
use crate::report::style::{FAINT, Printable};

/// Columns of a course.
const WIDTH: usize = 60;

/// Rows unless fewer are asked for.
const SITES: usize = 20;

fn time(at: Timestamp) -> String {
    human::time(Duration::from_nanos(at.0))
}

/// What was live over time: all, and the call stacks that grew most from their first moment to the end.
pub(super) fn write_timeline(profile: &Profile, extent: Extent, output: &mut dyn Write) -> io::Result<()> {
    let (Some(first), Some(last)) = (profile.timeline.first(), profile.timeline.last()) else {
        heading(format_args!("Live memory over time: nothing."), output)?;
        return remark("No course of time was recorded.", output);
    };
    let (from, to) = (time(first.at), time(last.at));
    let moments = profile.timeline.len();
    heading(format_args!("Live memory over time, from {from} to {to}, at {moments} moments"), output)?;
    let all: Vec<u64> = profile.timeline.iter().map(|moment| moment.live.bytes).collect();
    writeln!(output, "    {} {}", sparkline(&even(profile, &all)), course(&all))?;
    let mut sites: Vec<(Vec<u64>, &Site)> = profile.sites.iter().map(|site| (over_time(site, moments), site)).collect();
    let growth = |course: &[u64]| i128::from(*course.last().unwrap_or(&0)) - i128::from(*course.first().unwrap_or(&0));
    sites.retain(|(course, _)| course.iter().any(|&bytes| bytes > 0));
    sites.sort_by_key(|(course, _)| std::cmp::Reverse((growth(course), course.iter().copied().max())));
    let whole: u64 =
        sites.iter().map(|(course, _)| course.iter().copied().max().unwrap_or(0)).fold(0, u64::saturating_add);
    let is_shown = |(course, _): &&(Vec<u64>, &Site)| {
        extent.threshold <= 0.0 || percent(course.iter().copied().max().unwrap_or(0), whole) >= extent.threshold
    };
    let shown: Vec<_> = sites.iter().filter(is_shown).take(extent.top.min(SITES)).collect();
    if shown.len() < sites.len() {
        remark(&format!("The {} call stacks that grew most, of {}:", shown.len(), sites.len()), output)?;
    }
    for (number, (bytes, site)) in shown.into_iter().enumerate() {
        let place = place(site);
        writeln!(output)?;
        writeln!(output, "{}: {}", Label(number + 1), Printable(&place))?;
        writeln!(output, "    {} {}", sparkline(&even(profile, bytes)), course(bytes))?;
    }
    Ok(())
}

/// `128 bytes to 1.0 KiB, at most 4.7 KiB`.
fn course(bytes: &[u64]) -> String {
    let [first, last, most] =
        [bytes.first(), bytes.last(), bytes.iter().max()].map(|bytes| human::bytes(bytes.copied().unwrap_or(0)));
    format!("{FAINT}{first} to {last}, at most {most}{FAINT:#}")
}

/// What a site had live at each moment, in bytes.
fn over_time(site: &Site, moments: usize) -> Vec<u64> {
    let mut course = Vec::with_capacity(moments);
    let mut live = 0;
    let mut changes = site.growth.iter().peekable();
    for moment in 0..moments {
        while let Some((_, tally)) = changes.next_if(|(from, _)| *from <= moment) {
            live = tally.bytes;
        }
        course.push(live);
    }
    course
}

/// The same numbers at even distances in time: moments are further apart where a recording was thinned out. Each part of time has the
/// largest number that falls into it, else the last one before.
fn even(profile: &Profile, numbers: &[u64]) -> Vec<u64> {
    let times: Vec<u64> = profile.timeline.iter().map(|moment| moment.at.0).collect();
    let (Some(&first), Some(&last)) = (times.first(), times.last()) else { return Vec::new() };
    if first == last {
        return numbers.last().copied().into_iter().collect();
    }
    let span = u128::from(last.saturating_sub(first)).max(1);
    let mut parts: Vec<Option<u64>> = vec![None; WIDTH];
    for (&at, &number) in times.iter().zip(numbers) {
        let part = u128::from(at.saturating_sub(first)) * (WIDTH as u128 - 1) / span;
        let part = &mut parts[usize::try_from(part).unwrap_or(0).min(WIDTH - 1)];
        *part = Some(part.unwrap_or(0).max(number));
    }
    // What a part begins with is what was live last, not the largest before.
    let mut live = 0;
    let mut next = times.iter().zip(numbers).peekable();
    let mut course = Vec::with_capacity(WIDTH);
    for (place, part) in parts.into_iter().enumerate() {
        course.push(part.unwrap_or(live));
        let end = u128::from(first) + span * (place as u128 + 1) / (WIDTH as u128 - 1);
        while let Some((_, &number)) = next.next_if(|&(&at, _)| u128::from(at) < end) {
            live = number;
        }
    }
    course
}

/// A line a snapshot, with what changed since the one before.
pub(super) fn write_snapshots(profile: &Profile, output: &mut dyn Write) -> io::Result<()> {
    if profile.snapshots.is_empty() {
        heading(format_args!("Snapshots: none."), output)?;
        return remark(
            "They are taken by signal, at intervals, or when a symbol is called, if asked for while recording.",
            output,
        );
    }
    heading(format_args!("{} snapshots", profile.snapshots.len()), output)?;
    let mut before = Tally::default();
    for (number, snapshot) in profile.snapshots.iter().enumerate() {
        let (moment, cause) = (snapshot.moment, Printable(&snapshot.cause));
        let (live, change) = (human::tally(moment.live), human::change(Change::between(before, moment.live)));
        writeln!(output, "    {:>3}  after {}, by {cause}: {live} live ({change})", number + 1, time(moment.at))?;
        before = moment.live;
    }
    Ok(())
}
