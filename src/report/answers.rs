//! Answers to questions that a run is asked while it goes on.

use std::cmp::Reverse;
use std::io::{self, Write};
use std::time::Duration;

use super::backtrace;
use super::human;
use super::style::{CALL_STACK, FAINT, HEADING, Plain, Printable};
pub(crate) use super::views::place;
use super::wording;
use crate::event::Tally;
use crate::histogram::Histogram;
use crate::profile::{Moment, Profile, Site};

/// Rates are of the last moments, as long ago as this.
const RECENTLY: Duration = Duration::from_secs(10);

/// So many call stacks are listed.
const LISTED: usize = 20;

/// What `write` writes, without colours.
///
/// # Errors
/// Those of `write`.
pub fn plain(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    write(&mut Plain::new(&mut text))?;
    Ok(text)
}

/// Totals, rates, losses, and the call stacks with the most live bytes.
///
/// # Errors
/// Those of `output`.
pub fn write_statistics(profile: &Profile, output: &mut dyn Write) -> io::Result<()> {
    let run = &profile.run;
    let now = profile.timeline.last().copied().unwrap_or_default();
    writeln!(output, "process: {} {}", run.pid, Printable(&run.command.join(" ")))?;
    writeln!(output, "backend: {}", Printable(&run.backend))?;
    writeln!(output, "monitored: {}", human::time(run.monitored))?;
    writeln!(output, "allocated: {}", human::tally(now.allocated))?;
    writeln!(output, "live: {}", human::tally(now.live))?;
    let expired = profile.sites.iter().map(|site| site.expired.without(site.freed_expired));
    let expired = expired.fold(Tally::default(), Tally::plus);
    writeln!(output, "live and older than {}: {}", human::time(run.expire), human::tally(expired))?;
    if let Some(peak) = profile.peak {
        let after = human::time(Duration::from_nanos(peak.at.0));
        writeln!(output, "peak: {} after {after}", human::tally(peak.live))?;
    }
    if let Some((rate, growth)) = rates(profile) {
        writeln!(
            output,
            "rate: {} allocated a second, live {} a second",
            human::tally(rate),
            human::signed_bytes(growth)
        )?;
    }
    writeln!(output, "call stacks: {}", human::grouped(profile.sites.len() as u64))?;
    writeln!(output, "snapshots: {}", profile.snapshots.len())?;
    for sentence in wording::shortcomings(profile) {
        writeln!(output, "-- {}", Printable(&sentence))?;
    }
    let mut sites: Vec<&Site> = profile.sites.iter().filter(|site| site.live.count > 0).collect();
    sites.sort_by_key(|site| Reverse((site.live.bytes, site.live.count)));
    if !sites.is_empty() {
        writeln!(output, "{FAINT}{:8} {:>12} {:>12}  where{FAINT:#}", "id", "live", "blocks")?;
    }
    for site in sites.iter().take(LISTED) {
        let (bytes, count) = (human::bytes(site.live.bytes), human::grouped(site.live.count));
        writeln!(output, "{} {bytes:>12} {count:>12}  {}", site.id(), Printable(&place(site)))?;
    }
    if sites.len() > LISTED {
        writeln!(output, "-- {} more have live blocks.", human::grouped((sites.len() - LISTED) as u64))?;
    }
    Ok(())
}

/// What was allocated a second, and by how many bytes a second what is live grew, over the last seconds; `None` before there are any.
#[must_use]
pub fn rates(profile: &Profile) -> Option<(Tally, i64)> {
    let last = profile.timeline.last()?;
    let recent = |moment: &&Moment| last.at.since(moment.at) <= RECENTLY;
    let first = profile.timeline.iter().rev().take_while(recent).last()?;
    let nanoseconds = last.at.since(first.at).as_nanos();
    let a_second =
        |number: u64| u64::try_from(u128::from(number) * 1_000_000_000 / nanoseconds.max(1)).unwrap_or(u64::MAX);
    let grown = i128::from(last.live.bytes) - i128::from(first.live.bytes);
    let growth = i128::from(a_second(u64::try_from(grown.unsigned_abs()).unwrap_or(u64::MAX))) * grown.signum();
    let allocated = last.allocated.without(first.allocated);
    (nanoseconds > 0).then(|| {
        let rate = Tally { count: a_second(allocated.count), bytes: a_second(allocated.bytes) };
        (rate, i64::try_from(growth).unwrap_or(if growth < 0 { i64::MIN } else { i64::MAX }))
    })
}

/// All that is known of one call stack.
///
/// # Errors
/// Those of `output`.
pub fn write_site(site: &Site, output: &mut dyn Write) -> io::Result<()> {
    writeln!(output, "{CALL_STACK}{}{CALL_STACK:#}: {HEADING}{} live{HEADING:#}", site.id(), human::tally(site.live))?;
    for (name, tally) in [
        ("allocated", site.allocated),
        ("freed", site.freed),
        ("expired", site.expired),
        ("expired, then freed", site.freed_expired),
        ("live at the peak", site.at_peak),
    ] {
        writeln!(output, "    {name}: {}", human::tally(tally))?;
    }
    if let Some(temporary) = site.temporary {
        writeln!(output, "    temporary: {}", human::tally(temporary))?;
    }
    if let Some(oldest) = site.oldest {
        writeln!(output, "    oldest live block: {}", human::time(oldest))?;
    }
    if let Some((shortest, mean, longest)) = site.lives {
        let [shortest, mean, longest] = [shortest, mean, longest].map(human::time);
        writeln!(output, "    lives of the freed: {shortest} to {longest}, {mean} on average")?;
    }
    let seconds = |value: u64| human::time(Duration::from_secs(value));
    let nanoseconds = |value: u64| human::time(Duration::from_nanos(value));
    write_histogram("ages of the live", site.ages.as_ref(), seconds, output)?;
    write_histogram("sizes of all", site.sizes.as_ref(), human::bytes, output)?;
    write_histogram("lives of the freed", site.lifetimes.as_ref(), nanoseconds, output)?;
    backtrace::write(&site.stack, output)
}

fn write_histogram(
    name: &str,
    histogram: Option<&Histogram>,
    show: impl Fn(u64) -> String,
    output: &mut dyn Write,
) -> io::Result<()> {
    let Some(histogram) = histogram.filter(|histogram| histogram.count() > 0) else { return Ok(()) };
    writeln!(output, "    {name}:")?;
    for (bucket, &count) in histogram.buckets().iter().enumerate().filter(|(_, count)| **count > 0) {
        let from = show(Histogram::lower_bound(bucket));
        writeln!(output, "        {from:>12} or more: {}", human::grouped(count))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::sample;

    fn written(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> String {
        String::from_utf8(plain(write).expect("written to memory")).expect("text")
    }

    #[test]
    fn statistics_name_the_largest_by_their_ids() {
        let profile = sample::profile();
        let text = written(|output| write_statistics(&profile, output));
        for line in ["process: 4321 /srv/server --port 80", "live: 9 blocks, 1.0 KiB", "call stacks: 3", "snapshots: 1"]
        {
            assert!(text.lines().any(|known| known == line), "{line} in {text}");
        }
        let first = format!("{}      1.0 KiB            8  Pool::take", profile.sites[0].id());
        assert!(text.contains(&first), "{first} in {text}");
        assert!(!text.contains(&profile.sites[1].id().to_string()), "it has nothing live");
    }

    #[test]
    fn rates_are_of_the_last_seconds() {
        let profile = sample::profile();
        // From second 1 to second 10.
        assert_eq!(rates(&profile), Some((Tally { count: 1, bytes: 794 }, 99)));
        assert_eq!(rates(&Profile { timeline: profile.timeline[..1].to_vec(), ..profile }), None);
    }

    #[test]
    fn a_call_stack_is_told_with_its_histograms_and_without_commands_to_the_terminal() {
        let profile = sample::profile();
        let text = written(|output| write_site(&profile.sites[0], output));
        assert!(
            text.contains("expired, then freed: 1 block, 128 bytes") && text.contains("128 bytes or more: 10"),
            "{text}"
        );
        assert!(text.contains("Pool::take(int)") && text.contains("/src/server.cpp:44"), "{text}");
        let hostile = written(|output| write_site(&profile.sites[1], output));
        assert!(!hostile.contains('\u{1b}'), "{hostile}");
    }
}
