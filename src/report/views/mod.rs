//! Profiles as text for people: the same look as the live report's, numbers in human units.

mod blocks;
mod costs;
mod distribution;
mod objects;
mod site_table;
mod summary;
#[cfg(test)]
mod tests;
mod time;
mod trends;

use std::fmt;
use std::io::{self, Write};

use super::format::{Detail, WriteError};
use super::human;
use super::style::{CALL_STACK, HEADING, Printable};
use super::wording;
use crate::event::Tally;
use crate::profile::{Profile, Site, Topic, View};

/// How much is shown.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Extent {
    /// At most so many call stacks, blocks, rows.
    top: usize,
    /// What costs less than this share of the total, in percent, is only counted.
    threshold: f64,
}

/// The summary and one view, as usual.
///
/// # Errors
/// If the profile does not have what `view` asks for, or `output` fails.
pub(super) fn write(profile: &Profile, view: &View, output: &mut dyn Write) -> Result<Vec<String>, WriteError> {
    write_detail(profile, view, &Detail::default(), output)
}

/// The same as it is asked for.
///
/// # Errors
/// As [`write()`].
pub(super) fn write_detail(
    profile: &Profile,
    view: &View,
    detail: &Detail,
    output: &mut dyn Write,
) -> Result<Vec<String>, WriteError> {
    let usual = [Topic::Summary, Topic::View(view.clone())];
    let topics = if detail.topics.is_empty() { &usual[..] } else { &detail.topics };
    let extent = Extent { top: detail.top, threshold: detail.threshold.unwrap_or(0.0) };
    write_topics(profile, topics, extent, output)?;
    for objects in &profile.objects {
        writeln!(output)?;
        objects::write(objects, topics, extent, output)?;
    }
    // The summary says it.
    Ok(if topics.contains(&Topic::Summary) { Vec::new() } else { wording::shortcomings(profile) })
}

/// Writes what is asked for, coloured, in that order.
///
/// # Errors
/// If the profile does not have it, before anything is written; if `output` fails.
fn write_topics(profile: &Profile, topics: &[Topic], extent: Extent, output: &mut dyn Write) -> Result<(), WriteError> {
    for topic in topics {
        if let Topic::View(view) = topic {
            profile.weigh(view)?;
        }
    }
    for (place, topic) in topics.iter().enumerate() {
        if place > 0 {
            writeln!(output)?;
        }
        write_topic(profile, topic, extent, output)?;
    }
    Ok(())
}

fn write_topic(profile: &Profile, topic: &Topic, extent: Extent, output: &mut dyn Write) -> Result<(), WriteError> {
    match topic {
        Topic::Summary => summary::write(profile, output)?,
        Topic::View(view) => costs::write(&profile.weigh(view)?, costs::Kind::of(profile), view, extent, output)?,
        Topic::Sites(order) => site_table::write(profile, *order, extent, output)?,
        Topic::Blocks => blocks::write(profile, extent, output)?,
        Topic::Sizes => distribution::write_sizes(profile, extent, output)?,
        Topic::Lifetimes => distribution::write_lifetimes(profile, extent, output)?,
        Topic::Ages => distribution::write_ages(profile, extent, output)?,
        Topic::Trends => trends::write(profile, extent, output)?,
        Topic::Timeline => time::write_timeline(profile, extent, output)?,
        Topic::Snapshots => time::write_snapshots(profile, output)?,
    }
    Ok(())
}

fn heading(text: fmt::Arguments<'_>, output: &mut dyn Write) -> io::Result<()> {
    writeln!(output, "{HEADING}== {text}{HEADING:#}")
}

fn remark(text: &str, output: &mut dyn Write) -> io::Result<()> {
    writeln!(output, "-- {}", Printable(text))
}

/// `CallStack[N]`, N from 1.
struct Label(usize);

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{CALL_STACK}CallStack[{}]{CALL_STACK:#}", self.0)
    }
}

/// Where a site is, on one line: the innermost function that is not the allocator's, and its callers as far as there is room.
pub(crate) fn place(site: &Site) -> String {
    let mut calls = site.stack.calls().skip(1).map(|call| match (call.file(), call.line()) {
        (Some(file), Some(line)) => format!("{} ({}:{line})", call.name(), file.rsplit('/').next().unwrap_or(file)),
        _ => call.name(),
    });
    let mut text = calls.next().or_else(|| Some(site.stack.calls().next()?.name())).unwrap_or_default();
    for caller in calls.take(3) {
        if text.chars().count() + caller.chars().count() > 100 {
            text.push_str(" < …");
            break;
        }
        text.push_str(" < ");
        text.push_str(&caller);
    }
    text
}

/// All sites together.
fn sum(profile: &Profile, of: impl Fn(&Site) -> Tally) -> Tally {
    profile.sites.iter().fold(Tally::default(), |sum, site| sum.plus(of(site)))
}

#[expect(clippy::cast_precision_loss, reason = "for a human, with a few decimals")]
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

/// Numbers as a line of blocks of eight heights; nothing is a gap.
fn sparkline(numbers: &[u64]) -> String {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let largest = u128::from(numbers.iter().copied().max().unwrap_or(0).max(1));
    let height = |&number: &u64| match (number, u128::from(number) * 8 / largest) {
        (0, _) => ' ',
        (_, height) => HEIGHTS[usize::try_from(height).unwrap_or(8).clamp(1, 8) - 1],
    };
    numbers.iter().map(height).collect()
}

/// `in 3 call stacks`.
fn in_call_stacks(count: usize) -> String {
    format!("in {} call stack{}", human::grouped(count as u64), if count == 1 { "" } else { "s" })
}
