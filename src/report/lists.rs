//! What is live, as the lists of `--interval`: the largest single blocks with age and stack, then the call stacks that have the most.

use std::cmp::Reverse;
use std::io::{self, Write};
use std::time::Duration;

use super::backtrace;
use super::human;
use super::style::{CALL_STACK, HEADING, LEAK, Printable};
use crate::event::Tally;
use crate::profile::{LiveBlock, Profile, Site};

/// So many of each.
const TOP: usize = 10;

/// Writes both lists, coloured.
///
/// # Errors
/// Those of `output`.
pub(super) fn write(profile: &Profile, output: &mut dyn Write) -> io::Result<()> {
    let live = profile.sites.iter().map(|site| site.live).fold(Tally::default(), Tally::plus);
    let total = human::bytes(live.bytes);
    let mut blocks: Vec<&LiveBlock> = profile.blocks.iter().collect();
    blocks.sort_by_key(|block| Reverse((block.size, block.age)));
    blocks.truncate(TOP);
    // A source may tell totals only.
    if !blocks.is_empty() || live.count == 0 {
        let (shown, count) = (blocks.len(), human::grouped(live.count));
        writeln!(output, "{HEADING}Largest blocks: {shown} out of {count} for a total of {total}{HEADING:#}")?;
    }
    for (place, block) in (1..).zip(blocks) {
        let (size, age) = (human::bytes(block.size), human::time(block.age));
        writeln!(output, "{place:3}. {LEAK}{size}{LEAK:#} at 0x{:x}, {age} old", block.address)?;
        if let Some(site) = profile.sites.get(block.site) {
            backtrace::write(&site.stack, output)?;
        }
    }
    let mut sites: Vec<&Site> = profile.sites.iter().filter(|site| site.live.count > 0).collect();
    sites.sort_by_key(|site| Reverse((site.live.bytes, site.live.count)));
    let (shown, count) = (sites.len().min(TOP), human::grouped(sites.len() as u64));
    writeln!(output, "{HEADING}Largest allocators: {shown} out of {count} for a total of {total}{HEADING:#}")?;
    for (place, site) in (1..).zip(&sites[..shown]) {
        let oldest = site.oldest.map(|age: Duration| format!(", oldest {}", human::time(age))).unwrap_or_default();
        let live = human::tally(site.live);
        writeln!(output, "{place:3}. {LEAK}{live}{LEAK:#}{oldest}  {CALL_STACK}{}{CALL_STACK:#}", site.id())?;
        backtrace::write(&site.stack, output)?;
    }
    for remark in profile.remarks.iter().filter(|remark| remark.contains(" hidden in ") || remark.contains("left out"))
    {
        writeln!(output, "-- {}", Printable(remark))?;
    }
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::sample;
    use crate::report::answers::plain;

    #[test]
    fn both_lists_tell_their_part_of_the_whole() {
        let mut profile = sample::profile();
        profile.remarks.push("16 frames of runtimes (rust) hidden in 2 call stacks; --all-frames shows them.".into());
        let text =
            String::from_utf8(plain(|output| write(&profile, output)).expect("written to memory")).expect("text");
        for line in [
            "Largest blocks: 1 out of 9 for a total of 1.0 KiB",
            "  1. 128 bytes at 0x555560001000, 9.0 s old",
            "Largest allocators: 2 out of 2 for a total of 1.0 KiB",
            "-- 16 frames of runtimes (rust) hidden in 2 call stacks; --all-frames shows them.",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} in\n{text}");
        }
        let first = format!("  1. 8 blocks, 1.0 KiB, oldest 9.0 s  {}", profile.sites[0].id());
        assert!(text.contains(&first) && text.contains("Pool::take(int)"), "{text}");
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn of_nothing_there_is_nothing() {
        let mut profile = sample::profile();
        profile.sites.clear();
        profile.blocks.clear();
        let text =
            String::from_utf8(plain(|output| write(&profile, output)).expect("written to memory")).expect("text");
        assert!(text.starts_with("Largest blocks: 0 out of 0 for a total of 0 bytes\n"), "{text}");
    }
}
