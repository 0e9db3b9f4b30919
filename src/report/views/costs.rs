//! One view: its call stacks, the dearest last, as the live report's statistics have them.

use std::io::{self, Write};

use super::{Extent, Label, distribution, heading, in_call_stacks, percent, remark};
use crate::event::Tally;
use crate::histogram::Histogram;
use crate::profile::{Change, Cost, Profile, Site, View, Weighed};
use crate::report::style::{LEAK, Printable};
use crate::report::{backtrace, human};

pub(super) fn write(
    weighed: &Weighed<'_>,
    kind: Kind,
    view: &View,
    extent: Extent,
    output: &mut dyn Write,
) -> io::Result<()> {
    let is_change = matches!(view, View::Growth { .. });
    let text = |change: Change| match (is_change, kind) {
        (true, Kind::Memory) => human::change(change),
        (true, Kind::Objects) => human::object_change(change),
        (false, _) => kind.tally(unsigned(change)),
    };
    let mut label = weighed.label.clone();
    if let Some(first) = label.get(..1) {
        label = first.to_uppercase() + &label[1..];
    }
    let label = Printable(&label);
    if weighed.costs.is_empty() {
        return heading(format_args!("{label}: nothing."), output);
    }
    let stacks = in_call_stacks(weighed.costs.len());
    heading(format_args!("{label}: {} {stacks} (in ascending order)", text(weighed.total())), output)?;

    // Where some shrink, those that changed most are the dearest, whichever way.
    let mut costs: Vec<&Cost<'_>> = weighed.costs.iter().collect();
    let has_sizes = kind == Kind::Memory || costs.iter().any(|cost| cost.change.bytes != 0);
    let weight = |cost: &Cost<'_>| {
        let Change { count, bytes } = cost.change;
        if has_sizes { bytes.unsigned_abs() } else { count.unsigned_abs() }
    };
    costs.sort_by_key(|cost| std::cmp::Reverse(weight(cost)));
    let whole = costs.iter().map(|cost| weight(cost)).fold(0, u64::saturating_add);
    let share = |cost: &Cost<'_>| percent(weight(cost), whole);
    let shown = costs.iter().take(extent.top).take_while(|cost| whole == 0 || share(cost) >= extent.threshold).count();
    let left = &costs[shown..];
    if !left.is_empty() {
        let cost = left.iter().fold(Change::default(), |sum, cost| sum.plus(cost.change));
        let more = human::grouped(left.len() as u64);
        remark(&format!("Not shown: {more} that cost less, {} together (--top, --threshold).", text(cost)), output)?;
    }
    for (place, cost) in costs[..shown].iter().enumerate().rev() {
        writeln!(output)?;
        let (number, cost_text) = (Label(place + 1), text(cost.change));
        writeln!(output, "{number}: {LEAK}{cost_text}{LEAK:#} ({:.1}%)", share(cost))?;
        write_numbers(cost.site, kind, output)?;
        backtrace::write(&cost.site.stack, output)?;
    }
    Ok(())
}

fn unsigned(change: Change) -> Tally {
    Tally { count: change.count.cast_unsigned(), bytes: change.bytes.cast_unsigned() }
}

/// What the blocks are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Memory,
    Objects,
}

impl Kind {
    pub(super) fn of(profile: &Profile) -> Kind {
        if profile.of.is_some() { Kind::Objects } else { Kind::Memory }
    }

    fn name(self) -> &'static str {
        if self == Kind::Memory { "blocks" } else { "objects" }
    }

    fn tally(self, tally: Tally) -> String {
        match self {
            Kind::Memory => human::tally(tally),
            Kind::Objects => human::objects(tally),
        }
    }
}

/// What else is known of a site; nothing of one that a comparison takes from the other run.
pub(super) fn write_numbers(site: &Site, kind: Kind, output: &mut dyn Write) -> io::Result<()> {
    if site.allocated.count == 0 {
        return Ok(());
    }
    let [allocated, freed, live] = [site.allocated, site.freed, site.live].map(|tally| kind.tally(tally));
    writeln!(output, "    allocated {allocated}; freed {freed}; never freed {live}")?;
    let mut lives = Vec::new();
    if let Some((min, mean, max)) = site.lives {
        let [min, mean, max] = [min, mean, max].map(human::time);
        lives.push(format!("freed {} lived {min} to {max}, {mean} on average", kind.name()));
    }
    if let Some(age) = site.oldest {
        lives.push(format!("the oldest live one is {} old", human::time(age)));
    }
    if !lives.is_empty() {
        writeln!(output, "    {}", lives.join("; "))?;
    }
    match &site.ages {
        // One block's is told already.
        Some(ages) if ages.count() > 1 => writeln!(output, "    live {} by age: {}", kind.name(), by_age(ages)),
        _ => Ok(()),
    }
}

/// `2 below 1 s, 7 from 8.0 s`.
fn by_age(ages: &Histogram) -> String {
    let counted = ages.buckets().iter().enumerate().filter(|&(_, &count)| count > 0);
    let text = counted.map(|(bucket, &count)| {
        let from = if bucket == 0 { "" } else { "from " };
        format!("{} {from}{}", human::grouped(count), distribution::age(Histogram::lower_bound(bucket)))
    });
    text.collect::<Vec<_>>().join(", ")
}
