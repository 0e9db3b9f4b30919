//! Objects of one type, beside memory.

use std::io::Write;

use super::{Extent, heading, in_call_stacks, remark, sum, write_topic};
use crate::profile::{Profile, Topic};
use crate::report::format::WriteError;
use crate::report::style::Printable;
use crate::report::{human, wording};

/// Their totals, and what was asked for of memory.
///
/// # Errors
/// If `output` fails.
pub(super) fn write(
    objects: &Profile,
    topics: &[Topic],
    extent: Extent,
    output: &mut dyn Write,
) -> Result<(), WriteError> {
    let name = Printable(objects.of.as_deref().unwrap_or_default());
    heading(format_args!("Objects {name}"), output)?;
    if topics.contains(&Topic::Summary) {
        write_totals(objects, output)?;
    }
    for topic in topics.iter().filter(|&topic| *topic != Topic::Summary) {
        // What of objects cannot be had, was had of memory.
        if topic.view().is_none_or(|view| objects.weigh(view).is_ok()) {
            writeln!(output)?;
            write_topic(objects, topic, extent, output)?;
        }
    }
    Ok(())
}

/// Totals on a line each.
pub(super) fn write_totals(objects: &Profile, output: &mut dyn Write) -> std::io::Result<()> {
    let live_sites = objects.sites.iter().filter(|site| site.live.count > 0).count();
    let gone = sum(objects, |site| site.freed_expired).count;
    let expire = human::time(objects.run.expire);
    let rows = [
        ("allocated", human::objects(sum(objects, |site| site.allocated))),
        ("freed", human::objects(sum(objects, |site| site.freed))),
        ("never freed", format!("{} {}", human::objects(sum(objects, |site| site.live)), in_call_stacks(live_sites))),
        (
            "expired",
            format!(
                "{} lived longer than {expire}; freed since: {}",
                human::objects(sum(objects, |site| site.expired)),
                human::grouped(gone)
            ),
        ),
    ];
    for (name, text) in rows {
        writeln!(output, "    {name:<12} {text}")?;
    }
    if objects.unknown_frees > 0 {
        remark(&wording::unknown_objects(objects.unknown_frees), output)?;
    }
    objects.remarks.iter().try_for_each(|text| remark(text, output))
}
