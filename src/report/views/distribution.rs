//! Sizes and life times: how many blocks there are of each magnitude.

use std::io::{self, Write};
use std::time::Duration;

use super::{Extent, heading, percent, place, remark};
use crate::event::Tally;
use crate::histogram::Histogram;
use crate::profile::{Profile, Site};
use crate::report::human;
use crate::report::style::{CALL_STACK, FAINT, Printable};

/// Columns of the longest bar.
const WIDTH: u64 = 40;

/// Call stacks shown besides the total, unless fewer are asked for: a histogram takes a page.
const SITES: usize = 5;

pub(super) fn write_sizes(profile: &Profile, extent: Extent, output: &mut dyn Write) -> io::Result<()> {
    heading(format_args!("Sizes of all blocks that were allocated"), output)?;
    write_all(profile, extent, |site| site.sizes.as_ref(), |site| site.allocated, human::bytes, output)
}

pub(super) fn write_lifetimes(profile: &Profile, extent: Extent, output: &mut dyn Write) -> io::Result<()> {
    heading(format_args!("Life times of all blocks that were freed"), output)?;
    let time = |nanoseconds| human::time(Duration::from_nanos(nanoseconds));
    write_all(profile, extent, |site| site.lifetimes.as_ref(), |site| site.freed, time, output)
}

pub(super) fn write_ages(profile: &Profile, extent: Extent, output: &mut dyn Write) -> io::Result<()> {
    heading(format_args!("Ages of the blocks that are live at the end"), output)?;
    if profile.sites.iter().all(|site| site.ages.is_none()) {
        return remark("Not known: they are recorded at the end of a run.", output);
    }
    write_all(profile, extent, |site| site.ages.as_ref(), |site| site.live, age, output)
}

/// What a bucket of ages begins with; the first ends before a second.
pub(super) fn age(seconds: u64) -> String {
    if seconds == 0 { "below 1 s".into() } else { human::time(Duration::from_secs(seconds)) }
}

fn write_all(
    profile: &Profile,
    extent: Extent,
    histogram: impl Fn(&Site) -> Option<&Histogram>,
    cost: impl Fn(&Site) -> Tally,
    bound: impl Fn(u64) -> String,
    output: &mut dyn Write,
) -> io::Result<()> {
    let mut all = Histogram::default();
    profile.sites.iter().filter_map(&histogram).for_each(|one| all.merge(one));
    let unknown: u64 = profile.sites.iter().filter(|site| histogram(site).is_none()).map(|site| cost(site).count).sum();
    if unknown > 0 {
        remark(&format!("Not known of {} blocks: the backend does not tell.", human::grouped(unknown)), output)?;
        if all.count() == 0 {
            return Ok(());
        }
    }
    write_bars(&all, &bound, output)?;
    let mut sites: Vec<&Site> = profile.sites.iter().filter(|site| cost(site).count > 0).collect();
    sites.sort_by_key(|site| std::cmp::Reverse(cost(site).bytes));
    for site in sites.into_iter().take(extent.top.min(SITES)) {
        let Some(histogram) = histogram(site) else { continue };
        let place = place(site);
        writeln!(output)?;
        writeln!(output, "{CALL_STACK}{}{CALL_STACK:#}: {}", Printable(&place), human::tally(cost(site)))?;
        write_bars(histogram, &bound, output)?;
    }
    Ok(())
}

/// A line a bucket, from the first to the last that counted something.
fn write_bars(histogram: &Histogram, bound: &impl Fn(u64) -> String, output: &mut dyn Write) -> io::Result<()> {
    let buckets = histogram.buckets();
    let (total, highest) = (histogram.count(), buckets.iter().copied().max().unwrap_or(0).max(1));
    if total == 0 {
        return remark("None.", output);
    }
    let first = buckets.iter().position(|&count| count > 0).unwrap_or(0);
    let mut gap = 0;
    for (bucket, &count) in buckets.iter().enumerate().skip(first) {
        // Of a row of empty ones a mark is enough.
        gap = if count == 0 { gap + 1 } else { 0 };
        if gap > 0 {
            if gap == 1 {
                writeln!(output, "    {FAINT}…{FAINT:#}")?;
            }
            continue;
        }
        let bound = bound(Histogram::lower_bound(bucket));
        let from = if bucket == 0 { bound } else { format!("from {bound}") };
        let eighths = u128::from(count) * u128::from(WIDTH) * 8 / u128::from(highest);
        let bar = bar(usize::try_from(eighths).unwrap_or_default());
        let (count, share) = (human::grouped(count), percent(count, total));
        writeln!(output, "    {from:<16} {count:>13} {FAINT}{share:>5.1}%{FAINT:#} {bar}")?;
    }
    Ok(())
}

/// As long as so many eighths of a column, and at least one.
fn bar(eighths: usize) -> String {
    const PARTS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let mut bar = "█".repeat(eighths / 8);
    match eighths % 8 {
        0 if eighths == 0 => bar.push(PARTS[0]),
        0 => {}
        part => bar.push(PARTS[part - 1]),
    }
    bar
}
