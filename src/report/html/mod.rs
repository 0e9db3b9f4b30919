//! The whole run as one HTML file that needs nothing else: no network, no other file. Its Content-Security-Policy allows no request at all, and no script but
//! its own, which is named by its hash: a name that got past the escaping would still not run.
//!
//! The numbers are in it once, as JSON ([`data`]); the page's script makes the views of them. Without scripts it shows
//! the view that was asked for. Of 65,000 call stacks, each with functions and a growth of its own, the file has 30 MB.

mod data;
mod parts;
mod timeline;

use std::io::Write;

use super::flame::style;
use super::flamegraph::Graph;
use super::format::WriteError;
use super::human;
use super::markup::{Escaped, in_one_line};
use crate::profile::{Profile, View};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = concat!(
    "(() => {\n",
    include_str!("model.js"),
    include_str!("units.js"),
    include_str!("flame.js"),
    include_str!("table.js"),
    include_str!("timeline.js"),
    include_str!("main.js"),
    "})();\n"
);
/// Of [`SCRIPT`]. A browser that finds another script says so in its console, and what its hash is; so do the tests in `tests/browser/`.
const SCRIPT_HASH: &str = "sha256-XYsPTAjJK8CZhf+GjeFsR232yDOv2vCmNB8De/P1V1Q=";

/// Writes the whole run; `view` is shown first. Returns what the reader does not learn: snapshots for which there was no room.
///
/// # Errors
/// If `view` cannot be had, or `output` fails.
pub(super) fn write(profile: &Profile, view: &View, output: &mut dyn Write) -> Result<Vec<String>, WriteError> {
    let weighed = profile.weigh(view)?;
    let timeline = timeline::Timeline::of(profile);
    let (data, left_out) = data::Data::of(profile, view, &timeline);
    for (place, part) in PAGE.split("{{").enumerate() {
        if place == 0 {
            output.write_all(part.as_bytes())?;
            continue;
        }
        let (slot, rest) = part.split_once("}}").expect("slots are closed");
        match slot {
            "SCRIPT_HASH" => output.write_all(SCRIPT_HASH.as_bytes())?,
            "TITLE" => {
                write!(output, "{}", Escaped(format!("memleax: {}", in_one_line(&parts::command(&profile.run)))))?
            }
            "STYLE" => {
                output.write_all(STYLE.as_bytes())?;
                output.write_all(style().as_bytes())?;
            }
            "VERSION" => write!(output, "{}", Escaped(&profile.run.version))?,
            "COMMAND" => write!(output, "{}", Escaped(parts::command(&profile.run)))?,
            "RUN" => parts::write_run(profile, output)?,
            "SHORTCOMINGS" => parts::write_shortcomings(profile, &left_out, output)?,
            "TILES" => parts::write_tiles(profile, output)?,
            "TIMELINE" => timeline.write(profile, output)?,
            "LABEL" => write!(output, "{}", Escaped(&weighed.label))?,
            "STATIC" => {
                let graph = Graph::of(&weighed, matches!(view, View::Growth { .. }));
                parts::write_static(&weighed, &graph, output)?;
            }
            "BLOCKS" => parts::write_blocks(profile, output)?,
            "MODULES" => parts::write_modules(profile, output)?,
            "FOOTER" => write!(
                output,
                "Sizes are in binary units (1 KiB = 1,024 bytes); a title over a number has the exact one. {} call stacks.",
                human::grouped(profile.sites.len() as u64)
            )?,
            "DATA" => data.write(output)?,
            "SCRIPT" => output.write_all(SCRIPT.as_bytes())?,
            other => unreachable!("the page has no slot {other}"),
        }
        output.write_all(rest.as_bytes())?;
    }
    Ok(left_out)
}
