//! Single blocks that are live at the end.

use std::io::{self, Write};

use super::{Extent, heading, remark, sum};
use crate::profile::Profile;
use crate::report::style::LEAK;
use crate::report::{backtrace, human};

pub(super) fn write(profile: &Profile, extent: Extent, output: &mut dyn Write) -> io::Result<()> {
    let live = sum(profile, |site| site.live);
    let shown = profile.blocks.len().min(extent.top);
    if shown == 0 {
        heading(format_args!("Single blocks: none is known of the {} live at the end.", human::tally(live)), output)?;
        return if live.count > 0 { remark("Single blocks are not part of this recording.", output) } else { Ok(()) };
    }
    let total = human::tally(live);
    heading(format_args!("Largest single blocks: {shown}, out of {total} live at the end"), output)?;
    for block in &profile.blocks[..shown] {
        let (size, age) = (human::bytes(block.size), human::time(block.age));
        writeln!(output)?;
        writeln!(output, "{LEAK}{size}{LEAK:#} at 0x{:x}, {age} old", block.address)?;
        if let Some(site) = profile.sites.get(block.site) {
            backtrace::write(&site.stack, output)?;
        }
    }
    Ok(())
}
