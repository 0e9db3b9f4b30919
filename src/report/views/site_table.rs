//! Call stacks as a table, a line each.

use std::cmp::Reverse;
use std::io::{self, Write};

use super::summary::per_second;
use super::{Extent, heading, percent, place, remark};
use crate::profile::{Profile, Site, SiteOrder};
use crate::report::human;
use crate::report::style::{FAINT, Printable};

pub(super) fn write(profile: &Profile, order: SiteOrder, extent: Extent, output: &mut dyn Write) -> io::Result<()> {
    let cost = |site: &Site| match order {
        SiteOrder::LiveBytes => site.live.bytes,
        SiteOrder::LiveBlocks => site.live.count,
        SiteOrder::AllocatedBytes => site.allocated.bytes,
        SiteOrder::AllocatedBlocks => site.allocated.count,
        SiteOrder::Rate => per_second(site.allocated, profile.run.monitored).bytes,
    };
    let mut sites: Vec<&Site> = profile.sites.iter().collect();
    sites.sort_by_key(|site| Reverse((cost(site), site.live.bytes, site.allocated.bytes)));
    let whole = sites.iter().map(|site| cost(site)).fold(0, u64::saturating_add);
    let is_shown = |site: &&&Site| cost(site) > 0 && percent(cost(site), whole) >= extent.threshold;
    let shown = sites.iter().take(extent.top).take_while(is_shown).count();
    heading(format_args!("Call stacks with the most {}: {shown} of {}", order.name(), sites.len()), output)?;
    if shown == 0 {
        return remark("None has any.", output);
    }
    writeln!(
        output,
        "{FAINT}{:>11} {:>10} {:>11} {:>11} {:>13}  where{FAINT:#}",
        "live", "blocks", "allocated", "blocks", "a second"
    )?;
    for site in &sites[..shown] {
        let [live, allocated, rate] =
            [site.live.bytes, site.allocated.bytes, per_second(site.allocated, profile.run.monitored).bytes]
                .map(human::bytes);
        let [live_blocks, blocks] = [site.live.count, site.allocated.count].map(human::grouped);
        let place = place(site);
        let place = Printable(&place);
        writeln!(output, "{live:>11} {live_blocks:>10} {allocated:>11} {blocks:>11} {rate:>13}  {place}")?;
    }
    Ok(())
}
