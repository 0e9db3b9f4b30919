//! What the page shows without its script.

use std::io::{self, Write};

use crate::event::Tally;
use crate::profile::{Cost, Profile, Run, Weighed};
use crate::report::flamegraph::Graph;
use crate::report::human;
use crate::report::markup::{Escaped, in_one_line};
use crate::report::wording;

/// Rows of tables that no script lengthens.
const ROWS: usize = 100;

/// The command line, else the executable, else the process.
pub(super) fn command(run: &Run) -> String {
    match (run.command.is_empty(), run.executable.is_empty()) {
        (false, _) => run.command.join(" "),
        (true, false) => run.executable.clone(),
        (true, true) => format!("process {}", run.pid),
    }
}

/// What was watched, when, how, and how it ended.
///
/// # Errors
/// Those of `output`.
pub(super) fn write_run(profile: &Profile, output: &mut dyn Write) -> io::Result<()> {
    let run = &profile.run;
    let seen = if run.launched { "each block, from the start" } else { "blocks since memleax attached" };
    let exact = if run.by_event {
        "exact, by each event"
    } else {
        "the highest of looks at the process, a second apart or more"
    };
    let facts = [
        ("Process", run.pid.to_string()),
        ("Program", run.executable.clone()),
        ("Begun", utc(run.started)),
        ("Watched for", human::time(run.monitored)),
        ("Backend", run.backend.clone()),
        ("Seen", seen.into()),
        ("Peak", exact.into()),
        ("Expiry", format!("after {}", human::time(run.expire))),
        ("Ending", run.ending.clone().unwrap_or_else(|| "not recorded".into())),
    ];
    for (what, told) in facts.iter().filter(|(_, told)| !told.is_empty()) {
        write!(output, "<div><dt>{what}</dt><dd>{}</dd></div>", Escaped(in_one_line(told)))?;
    }
    Ok(())
}

/// Losses and remarks, those of this file included.
///
/// # Errors
/// Those of `output`.
pub(super) fn write_shortcomings(profile: &Profile, left_out: &[String], output: &mut dyn Write) -> io::Result<()> {
    let mut all = wording::shortcomings(profile);
    all.extend_from_slice(left_out);
    if all.is_empty() {
        return Ok(());
    }
    writeln!(
        output,
        "<section class=\"warnings\" aria-labelledby=\"know\"><h2 id=\"know\">What to know of these numbers</h2><ul>"
    )?;
    for text in all {
        writeln!(output, "<li>{}</li>", Escaped(in_one_line(&text)))?;
    }
    writeln!(output, "</ul></section>")
}

/// Totals.
///
/// # Errors
/// Those of `output`.
pub(super) fn write_tiles(profile: &Profile, output: &mut dyn Write) -> io::Result<()> {
    let total = |tally_of: &dyn Fn(&crate::profile::Site) -> Tally| {
        profile.sites.iter().map(tally_of).fold(Tally::default(), Tally::plus)
    };
    let allocated = total(&|site| site.allocated);
    let mut tiles = vec![
        ("Allocated", "", allocated, String::new()),
        ("Freed", "", total(&|site| site.freed), String::new()),
        ("Never freed", " leak", total(&|site| site.live), String::new()),
        ("Expired, not freed", "", total(&|site| site.expired.without(site.freed_expired)), String::new()),
    ];
    if let Some(peak) = profile.peak {
        let after = human::time(std::time::Duration::from_nanos(peak.at.0));
        tiles.push(("Peak", "", peak.live, format!(", after {after}")));
    }
    if profile.sites.iter().all(|site| site.temporary.is_some()) {
        let temporary = total(&|site| site.temporary.unwrap_or_default());
        let percent = percent(temporary.count, allocated.count);
        tiles.push(("Temporary", "", temporary, format!(", {percent:.1}% of all")));
    }
    for (what, class, tally, more) in tiles {
        writeln!(
            output,
            "<div class=\"tile{class}\"><p class=\"what\">{what}</p><p class=\"much\" title=\"{} bytes\">{}</p><p class=\"more\">{} block{}{more}</p></div>",
            human::grouped(tally.bytes),
            human::bytes(tally.bytes),
            human::grouped(tally.count),
            wording::plural(tally.count),
        )?;
    }
    Ok(())
}

/// The view that was asked for, for readers without scripts.
///
/// # Errors
/// Those of `output`.
pub(super) fn write_static(weighed: &Weighed<'_>, graph: &Graph<'_>, output: &mut dyn Write) -> io::Result<()> {
    let height = graph.height();
    writeln!(
        output,
        "<section class=\"static panel\"><svg viewBox=\"0 0 1200 {height}\" role=\"img\" aria-label=\"Flame graph\">"
    )?;
    graph.write_boxes(0, output)?;
    writeln!(output, "</svg></section>\n<section><h2>Call stacks</h2><div class=\"panel scroll\"><table>")?;
    writeln!(
        output,
        "<thead><tr><th class=\"plain\">Call stack</th><th class=\"plain\">Bytes</th><th class=\"plain\">Blocks</th><th class=\"plain\">Never freed</th><th class=\"plain\">Allocated</th></tr></thead><tbody>"
    )?;
    for cost in weighed.costs.iter().take(ROWS) {
        write_static_row(cost, output)?;
    }
    writeln!(output, "</tbody></table></div>")?;
    if weighed.costs.len() > ROWS {
        writeln!(
            output,
            "<p class=\"hint\">{} more are not shown.</p>",
            human::grouped((weighed.costs.len() - ROWS) as u64)
        )?;
    }
    writeln!(output, "</section>")
}

fn write_static_row(cost: &Cost<'_>, output: &mut dyn Write) -> io::Result<()> {
    let calls: Vec<String> = cost.site.stack.calls().map(|call| in_one_line(&call.to_string())).collect();
    let exact = |tally: Tally| {
        format!("<td title=\"{} blocks\">{} bytes</td>", human::grouped(tally.count), human::grouped(tally.bytes))
    };
    writeln!(
        output,
        "<tr><td class=\"path\">{}</td><td>{}</td><td>{}</td>{}{}</tr>",
        Escaped(calls.join(" ← ")),
        human::grouped_signed(cost.change.bytes),
        human::grouped_signed(cost.change.count),
        exact(cost.site.live),
        exact(cost.site.allocated),
    )
}

/// The largest live blocks, if they are known.
///
/// # Errors
/// Those of `output`.
pub(super) fn write_blocks(profile: &Profile, output: &mut dyn Write) -> io::Result<()> {
    if profile.blocks.is_empty() {
        return Ok(());
    }
    writeln!(
        output,
        "<section><details><summary>Single live blocks: the largest, and the oldest</summary><div class=\"panel scroll\"><table>"
    )?;
    writeln!(
        output,
        "<thead><tr><th class=\"plain\">Address</th><th class=\"plain\">Bytes</th><th class=\"plain\">Age</th><th class=\"plain\">Call stack</th></tr></thead><tbody>"
    )?;
    for block in profile.blocks.iter().take(ROWS) {
        let calls = profile
            .sites
            .get(block.site)
            .map(|site| site.stack.calls().map(|call| in_one_line(&call.name())).collect::<Vec<_>>().join(" ← "));
        writeln!(
            output,
            "<tr><td>0x{:x}</td><td>{}</td><td>{}</td><td class=\"path\">{}</td></tr>",
            block.address,
            human::grouped(block.size),
            human::time(block.age),
            Escaped(calls.unwrap_or_default()),
        )?;
    }
    writeln!(output, "</tbody></table></div></details></section>")
}

/// The modules, to find their files again.
///
/// # Errors
/// Those of `output`.
pub(super) fn write_modules(profile: &Profile, output: &mut dyn Write) -> io::Result<()> {
    if profile.modules.is_empty() {
        return Ok(());
    }
    writeln!(output, "<section><details><summary>Modules</summary><div class=\"panel scroll\"><table>")?;
    writeln!(
        output,
        "<thead><tr><th class=\"plain\">Path</th><th class=\"plain\">Addresses</th><th class=\"plain\">Build id</th></tr></thead><tbody>"
    )?;
    for module in &profile.modules {
        let id: String = module.build_id.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(
            output,
            "<tr><td class=\"path\">{}</td><td>0x{:x}–0x{:x}</td><td class=\"path\">{}</td></tr>",
            Escaped(in_one_line(&module.path)),
            module.range.start,
            module.range.end,
            if id.is_empty() { "none" } else { &id },
        )?;
    }
    writeln!(output, "</tbody></table></div></details></section>")
}

#[expect(clippy::cast_precision_loss, reason = "for a human, with one decimal")]
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

/// `2023-11-14 22:13:20 UTC`; empty for 0, which is nothing known. The days are counted as in Howard Hinnant's
/// `civil_from_days` (<https://howardhinnant.github.io/date_algorithms.html>).
fn utc(nanoseconds: u64) -> String {
    if nanoseconds == 0 {
        return String::new();
    }
    let seconds = nanoseconds / 1_000_000_000;
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // Years of 400 begin with March here, so that the leap day is the last.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, year) = if month < 10 { (month + 3, year + 400 * era) } else { (month - 9, year + 400 * era + 1) };
    format!("{year}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", time / 3_600, time / 60 % 60, time % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{View, sample};

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds: u64| utc(seconds * 1_000_000_000);
        assert_eq!(at(0), "");
        assert_eq!(at(1), "1970-01-01 00:00:01 UTC");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(at(1_700_000_000), "2023-11-14 22:13:20 UTC");
        assert_eq!(at(4_107_542_399), "2100-02-28 23:59:59 UTC");
        assert_eq!(at(4_107_542_400), "2100-03-01 00:00:00 UTC");
    }

    fn page(profile: &Profile, view: &View) -> String {
        let mut html = Vec::new();
        super::super::write(profile, view, &mut html).expect("a Vec takes everything");
        String::from_utf8(html).expect("UTF-8")
    }

    #[test]
    fn the_page_tells_the_run_its_totals_and_what_they_lack() {
        let html = page(&sample::profile(), &View::Leaks);
        for told in [
            "<title>memleax: /srv/server --port 80</title>",
            "<dt>Ending</dt><dd>The program ended with status 0.</dd>",
            "<dt>Begun</dt><dd>2023-11-14 22:13:20 UTC</dd>",
            "<li>2 allocator calls never returned",
            "<li>Names of one library are missing.</li>",
            "title=\"7,280 bytes\">7.1 KiB</p><p class=\"more\">14 blocks</p>",
            "<p class=\"what\">Temporary</p>",
            "<td>0x555560001000</td><td>128</td>",
            "abababababababababababababababababababab",
        ] {
            assert!(html.contains(told), "{told}\n{html}");
        }
        assert!(!html.contains("{{"));
    }

    #[test]
    fn no_name_becomes_markup() {
        let mut profile = sample::profile();
        let hostile = "</script><script>alert(1)</script>{{DATA}}\u{1b}";
        profile.run.command = vec![hostile.into()];
        profile.run.ending = Some(hostile.into());
        profile.run.backend = hostile.into();
        profile.remarks = vec![hostile.into()];
        profile.modules[0].path = hostile.into();
        profile.snapshots[0].cause = hostile.into();
        let html = page(&profile, &View::Peak);
        assert!(!html.contains("<script>alert") && !html.contains('\u{1b}'));
        assert_eq!(html.matches("<script").count(), 2);
        assert_eq!(html.matches("</script>").count(), 2);
    }

    #[test]
    fn what_is_not_known_is_not_shown() {
        let mut profile = sample::profile();
        profile.sites[0].temporary = None;
        profile.losses.clear();
        profile.remarks.clear();
        profile.unknown_frees = 0;
        profile.blocks.clear();
        profile.peak = None;
        let html = page(&profile, &View::Leaks);
        assert!(!html.contains("Temporary</p>") && !html.contains("What to know of these numbers"));
        assert!(!html.contains("Single live blocks"));
    }
}
