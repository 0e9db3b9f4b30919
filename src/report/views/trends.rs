//! Growth by the work: which call stacks grow on with it, and how fast.

use std::io::{self, Write};

use anstyle::Style;

use super::{Extent, Label, heading, place, remark};
use crate::profile::{Profile, Site};
use crate::report::style::{FAINT, LEAK, Printable};
use crate::report::{backtrace, human, wording};
use crate::trend::{Pace, Slope, Trend, Trends, Verdict};

pub(super) fn write(profile: &Profile, extent: Extent, output: &mut dyn Write) -> io::Result<()> {
    let trends = Trends::of(profile);
    write_heading(profile, &trends, output)?;
    if trends.sites.is_empty() {
        return remark("Nothing was live at any moment.", output);
    }
    let gained: f64 = trends.sites.iter().map(|trend| trend.gained.abs()).sum();
    let is_shown = |trend: &&Trend| {
        extent.threshold <= 0.0
            || trend.verdict == Verdict::Leak
            || 100.0 * trend.gained.abs() >= extent.threshold * gained
    };
    let shown: Vec<&Trend> = trends.sites.iter().filter(is_shown).take(extent.top).collect();
    if shown.len() < trends.sites.len() {
        let more = human::grouped((trends.sites.len() - shown.len()) as u64);
        remark(&format!("Not shown: {more} that grow less (--top, --threshold)."), output)?;
    }
    let per_call = if profile.references.is_empty() { "" } else { "a call" };
    writeln!(output, "{FAINT}{:<14} {per_call:>21} {:>21} {:>11}  where{FAINT:#}", "", "a second", "live")?;
    for (number, trend) in (1..).zip(&shown) {
        let Some(site) = profile.sites.get(trend.site) else { continue };
        let call = trend.by.and_then(|by| *trend.per_call.get(by)?).map(|pace| bytes(pace.bytes));
        let second = trend.per_second.map(|pace| bytes(pace.bytes));
        let [call, second] = [call, second].map(Option::unwrap_or_default);
        let (verdict, live, place) = (wording::verdict(trend.verdict), human::bytes(site.live.bytes), place(site));
        let verdict = format!("{number:>3} {verdict}");
        let place = Printable(&place);
        let style = style(trend.verdict);
        writeln!(output, "{style}{verdict:<14}{style:#} {call:>21} {second:>21} {live:>11}  {place}")?;
    }
    for (number, trend) in (1..).zip(&shown) {
        if let Some(site) = profile.sites.get(trend.site)
            && trend.verdict != Verdict::LevelsOff
        {
            write_detail(profile, trend, site, number, output)?;
        }
    }
    Ok(())
}

fn style(verdict: Verdict) -> Style {
    if verdict == Verdict::Leak { LEAK } else { Style::new() }
}

fn write_heading(profile: &Profile, trends: &Trends, output: &mut dyn Write) -> io::Result<()> {
    let called = profile.references.iter().zip(&trends.calls);
    let called: Vec<String> =
        called.map(|(reference, &calls)| format!("{} calls of {}", human::grouped(calls), reference.name)).collect();
    let work = if called.is_empty() { String::new() } else { format!(", {}", called.join(", ")) };
    let (time, work) = (human::time(profile.run.monitored), Printable(&work));
    heading(format_args!("Trends of what is live, in {time}{work}"), output)?;
    let count =
        |is_meant: &dyn Fn(Verdict) -> bool| trends.sites.iter().filter(|trend| is_meant(trend.verdict)).count();
    let leaks = count(&|verdict| verdict == Verdict::Leak);
    let unclear = count(&|verdict| matches!(verdict, Verdict::Unclear(_)));
    let level = trends.sites.len() - leaks - unclear;
    let with = if called.is_empty() { "time" } else { "the calls" };
    remark(
        &format!("Call stacks that grow on with {with}: {leaks}; that level off: {level}; unclear: {unclear}."),
        output,
    )
}

fn write_detail(
    profile: &Profile,
    trend: &Trend,
    site: &Site,
    number: usize,
    output: &mut dyn Write,
) -> io::Result<()> {
    writeln!(output)?;
    let verdict = wording::verdict(trend.verdict);
    let style = style(trend.verdict);
    writeln!(output, "{}: {style}{verdict}{style:#}, {} live", Label(number), human::tally(site.live))?;
    if let Verdict::Unclear(doubt) = trend.verdict {
        writeln!(output, "    -- {}", wording::doubt(doubt))?;
    }
    for (reference, pace) in profile.references.iter().zip(&trend.per_call) {
        let unit = format!("a call of {}", reference.name);
        write_pace(*pace, &unit, output)?;
    }
    write_pace(trend.per_second, "a second", output)?;
    backtrace::write(&site.stack, output)
}

fn write_pace(pace: Option<Pace>, unit: &str, output: &mut dyn Write) -> io::Result<()> {
    let unit = Printable(unit);
    match pace {
        Some(pace) => writeln!(output, "    {} {unit}, {} blocks", bytes(pace.bytes), blocks(pace.blocks)),
        None => writeln!(output, "    not known {unit}: there is none between two moments"),
    }
}

/// `48.0 bytes ± 0.3`.
pub(in crate::report) fn bytes(slope: Slope) -> String {
    let (unit, name) = match slope.value.abs().max(slope.uncertainty()) {
        ..1024.0 => (1.0, "bytes"),
        ..1_048_576.0 => (1024.0, "KiB"),
        _ => (1_048_576.0, "MiB"),
    };
    format!("{} {name} ± {}", number(slope.value / unit), number(slope.uncertainty() / unit))
}

fn blocks(slope: Slope) -> String {
    format!("{} ± {}", number(slope.value), number(slope.uncertainty()))
}

/// With three digits at least.
fn number(number: f64) -> String {
    match number.abs() {
        0.0 => "0".into(),
        ..0.001 => format!("{number:.1e}"),
        ..1.0 => format!("{number:.3}"),
        ..10.0 => format!("{number:.2}"),
        ..1000.0 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}
