//! What was watched, and its totals.

use std::io::{self, Write};
use std::time::Duration;

use super::{heading, objects, percent, remark, sum};
use crate::event::Tally;
use crate::profile::Profile;
use crate::report::style::{Printable, WARNING};
use crate::report::{human, wording};

pub(super) fn write(profile: &Profile, output: &mut dyn Write) -> io::Result<()> {
    let run = &profile.run;
    let what = if run.command.is_empty() { run.executable.clone() } else { run.command.join(" ") };
    heading(format_args!("Process {}: {}", run.pid, Printable(&what)), output)?;
    let since = if run.launched { "from its first instruction" } else { "attached while it ran" };
    let (time, date) = (human::time(run.monitored), human::date(run.started));
    remark(&format!("Watched for {time} from {date} by {}; {since}. memleax {}.", run.backend, run.version), output)?;
    match &run.ending {
        Some(ending) => remark(ending, output)?,
        None => warn("The recording breaks off; the numbers are those of its last whole entry.", output)?,
    }
    if let Some(of) = &profile.of {
        heading(format_args!("Objects {}", Printable(of)), output)?;
        return objects::write_totals(profile, output);
    }
    let allocated = sum(profile, |site| site.allocated);
    let row = |output: &mut dyn Write, name: &str, text: String| writeln!(output, "    {name:<12} {text}");
    row(output, "allocated", format!("{}{}", human::tally(allocated), rate(allocated, run.monitored)))?;
    row(output, "freed", human::tally(sum(profile, |site| site.freed)))?;
    row(
        output,
        "never freed",
        format!("{} {}", human::tally(sum(profile, |site| site.live)), super::in_call_stacks(live_sites(profile))),
    )?;
    let (expired, gone) = (sum(profile, |site| site.expired), sum(profile, |site| site.freed_expired));
    let expire = human::time(run.expire);
    row(
        output,
        "expired",
        format!("{} lived longer than {expire}; freed since: {}", human::tally(expired), human::grouped(gone.count)),
    )?;
    if let Some(peak) = profile.peak {
        let how = if run.by_event { "" } else { ", as seen by looks at the target a second apart or more" };
        let at = human::time(Duration::from_nanos(peak.at.0));
        row(output, "peak", format!("{} after {at}{how}", human::tally(peak.live)))?;
    }
    if let Some(temporary) =
        profile.sites.iter().try_fold(Tally::default(), |sum, site| Some(sum.plus(site.temporary?)))
    {
        let share = percent(temporary.count, allocated.count);
        row(
            output,
            "temporary",
            format!("{} ({share:.1}% of all) freed before the next allocation", human::tally(temporary)),
        )?;
    }
    row(output, "call stacks", human::grouped(profile.sites.len() as u64))?;
    if !profile.snapshots.is_empty() {
        row(output, "snapshots", human::grouped(profile.snapshots.len() as u64))?;
    }
    for (&loss, &count) in &profile.losses {
        warn(&wording::loss(loss, count), output)?;
    }
    if profile.unknown_frees > 0 {
        remark(&wording::unknown_frees(profile.unknown_frees), output)?;
    }
    profile.remarks.iter().try_for_each(|text| remark(text, output))
}

fn live_sites(profile: &Profile) -> usize {
    profile.sites.iter().filter(|site| site.live.count > 0).count()
}

fn warn(text: &str, output: &mut dyn Write) -> io::Result<()> {
    writeln!(output, "{WARNING}Warning:{WARNING:#} {}", Printable(text))
}

/// ` (3 blocks, 1.5 KiB a second)`; nothing for runs so short that it would mislead.
fn rate(tally: Tally, monitored: Duration) -> String {
    if monitored < Duration::from_secs(1) {
        return String::new();
    }
    format!(" ({} a second)", human::tally(per_second(tally, monitored)))
}

pub(super) fn per_second(tally: Tally, monitored: Duration) -> Tally {
    let scale = |number: u64| {
        let nanoseconds = monitored.as_nanos().max(1);
        let rate = (u128::from(number) * 1_000_000_000 + nanoseconds / 2) / nanoseconds;
        u64::try_from(rate).unwrap_or(u64::MAX)
    };
    Tally { count: scale(tally.count), bytes: scale(tally.bytes) }
}
