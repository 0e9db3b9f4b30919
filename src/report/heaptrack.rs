//! heaptrack's data file, version 3: for `heaptrack_gui` and `heaptrack_print`.
//! <https://github.com/KDE/heaptrack>, `src/analyze/accumulatedtracedata.cpp`, is how they read it.
//!
//! Such a file has a line for each call that allocates and for each free. A profile does not have them; it has each call stack's totals, and
//! what was live at some moments. What is written makes heaptrack's own numbers come out the same: calls, temporary allocations, bytes at the
//! peak and leaked bytes, in all and by call stack, and live bytes over time. It cannot tell:
//!
//! - sizes one by one: the blocks of a call stack that appear (or go) together have their mean;
//! - a block that grew: realloc is a call to heaptrack, so it is written as a block more;
//! - each temporary block that was live at such a moment;
//! - when blocks came that went again before the next moment: they are spread as all calls are, and a large one may go before it comes, so that
//!   the peak stays true;
//! - RSS, which is not observed.
//!
//! heaptrack leaves leaks that it knows of libraries out of its sum of leaked bytes, and says how many (`--disable-builtin-suppressions`).
//!
//! A file has at most [`MAX_CALLS`] calls. Of more, each call stack has its share; bytes are as exact as ever.
//!
//! heaptrack takes a free for that of a temporary block if its number is that of the allocation just before. So each size of a call stack has two numbers: the first
//! for allocations, and for frees of temporary blocks; the second for all other frees.

mod steps;
mod tables;

use std::io::{self, Write};

use self::steps::{Step, steps};
use self::tables::Tables;
use super::format::WriteError;
use super::markup::in_one_line;
use super::notes::notes;
use crate::event::Tally;
use crate::profile::{Profile, Site, View};

/// 32 MB and more, and 2 s of heaptrack's time.
const MAX_CALLS: u64 = 4_000_000;

/// Writes the whole run.
///
/// # Errors
/// If `view` cannot be had, or `output` fails.
pub(super) fn write(profile: &Profile, view: &View, output: &mut dyn Write) -> Result<Vec<String>, WriteError> {
    profile.weigh(view)?;
    write_at_most(MAX_CALLS, profile, output)
}

fn write_at_most(max: u64, profile: &Profile, output: &mut dyn Write) -> Result<Vec<String>, WriteError> {
    let calls: u64 = profile.sites.iter().map(|site| site.allocated.count).sum();
    let mut left_out = Vec::new();
    if calls > max {
        left_out.push(format!(
            "The file has about {max} of {calls} calls, each call stack its share, as heaptrack's files have a line for each; bytes at the peak and leaked bytes are whole. Another format has all, such as pprof."
        ));
    }
    if profile.sites.iter().any(|site| site.temporary.is_none()) {
        left_out.push("Temporary allocations are not in the file: this backend does not tell them.".into());
    }
    writeln!(output, "v 10400 3\nX {}", in_one_line(&profile.run.command.join(" ")))?;
    if !profile.run.launched {
        writeln!(output, "A")?;
    }
    let share = Share { of: calls.max(1), is: calls.clamp(1, max) };
    let plan = Plan::new(profile, share);
    let events = Events::new(profile, &plan, share, output)?;
    if events.more > 0 {
        left_out.push(format!("The file has {} calls more than there were, as heaptrack takes it for a call when realloc lets a block grow.", events.more));
    }
    for note in notes(profile).iter().chain(&left_out) {
        writeln!(events.output, "# {}", in_one_line(note))?;
    }
    events.write(&plan)?;
    Ok(left_out)
}

/// How much of what is to be written is written.
#[derive(Clone, Copy)]
struct Share {
    is: u64,
    of: u64,
}

impl Share {
    fn take(self, count: u64) -> u64 {
        u64::try_from(u128::from(count) * u128::from(self.is) / u128::from(self.of)).unwrap_or(count)
    }
}

/// What happens in which step.
struct Plan {
    steps: Vec<Step>,
    /// By step: calls whose blocks are gone when it ends.
    passing: Vec<u64>,
    /// By step: bytes that are live when it ends.
    level: Vec<u64>,
    /// By site: what is live, change by change.
    levels: Vec<Vec<Tally>>,
    /// The most bytes that are live when a step ends.
    peak: u64,
}

impl Plan {
    fn new(profile: &Profile, share: Share) -> Plan {
        let steps = steps(profile);
        let mut levels = vec![Vec::new(); profile.sites.len()];
        let (mut now, mut before) = (0_u64, 0);
        let (mut passing, mut level) = (Vec::with_capacity(steps.len()), Vec::with_capacity(steps.len()));
        for step in &steps {
            let mut calls = share.take(step.calls.saturating_sub(before));
            before = before.max(step.calls);
            for &(site, tally) in &step.live {
                let last = levels[site].last().copied().unwrap_or_default();
                calls = calls.saturating_sub(grown(last, tally, share).count);
                now = now.wrapping_add(tally.bytes).wrapping_sub(last.bytes);
                levels[site].push(tally);
            }
            passing.push(calls);
            level.push(now);
        }
        let peak = level.iter().copied().max().unwrap_or_default();
        Plan { steps, passing, level, levels, peak }
    }
}

/// The calls that it takes to come from one tally to a later one, and what they allocate.
fn grown(before: Tally, after: Tally, share: Share) -> Tally {
    let bytes = after.bytes.saturating_sub(before.bytes);
    let count = share.take(after.count.saturating_sub(before.count)).max(1);
    if bytes > 0 { Tally { count, bytes } } else { Tally::default() }
}

/// A call stack while its events are written.
struct Progress<'p> {
    trace: u64,
    live: Tally,
    /// What will be live, change by change.
    to_come: &'p [Tally],
    /// Blocks that are yet to come and go within a step: temporary ones, and others.
    temporary: Tally,
    passing: Tally,
    /// Temporary blocks that were live at the end of a step. Then what grows is one block each time, as calls are short.
    caught: u64,
    single: bool,
    /// Calls that what grows takes beyond those that there were: a block may grow by realloc.
    more: u64,
}

impl<'p> Progress<'p> {
    fn new(site: &Site, trace: u64, to_come: &'p [Tally], share: Share) -> Progress<'p> {
        let calls = share.take(site.allocated.count).max(site.allocated.count.min(1));
        let known = site.temporary.unwrap_or_default();
        let wanted = share.take(known.count);
        let before = [Tally::default()];
        let changes = before.iter().chain(to_come).zip(to_come);
        let growth: Vec<Tally> = changes.map(|(&before, &after)| grown(before, after, share)).collect();
        let mut staying = growth.iter().fold(Tally::default(), |all, &one| all.plus(one));
        let single = staying.count + wanted > calls;
        if single {
            staying.count = growth.iter().filter(|tally| tally.count > 0).count() as u64;
        }
        let rest = calls.saturating_sub(staying.count);
        let more = staying.count.saturating_sub(site.allocated.count);
        let count = wanted.min(rest);
        let temporary = Tally { count, bytes: mean(known).saturating_mul(count) };
        // The mean is that of all that came and went.
        let mean = mean(Tally {
            count: site.allocated.count.saturating_sub(staying.count).saturating_sub(known.count),
            bytes: site.allocated.bytes.saturating_sub(staying.bytes).saturating_sub(known.bytes),
        });
        let count = rest - temporary.count;
        let passing = Tally { count, bytes: mean.saturating_mul(count) };
        let caught = if share.is == share.of { wanted - temporary.count } else { 0 };
        Progress { trace, live: Tally::default(), to_come, temporary, passing, caught, single, more }
    }

    /// Takes a call from those that come and go within a step; false if there is none.
    fn one_more_call(&mut self) -> bool {
        let is_temporary = self.passing.count == 0;
        let from = if is_temporary { &mut self.temporary } else { &mut self.passing };
        if from.count == 0 {
            return false;
        }
        *from = from.without(Tally { count: 1, bytes: mean(*from) });
        self.caught += u64::from(is_temporary);
        true
    }

    /// How many times from now on something grows and then shrinks.
    fn chances(&self) -> u64 {
        let up_and_down = |of: &&[Tally]| of[0].bytes < of[1].bytes && of[1].bytes > of[2].bytes;
        self.to_come.windows(3).filter(up_and_down).count() as u64
    }
}

struct Events<'a, 'b> {
    output: &'b mut dyn Write,
    /// Calls that are written though there were none.
    more: u64,
    tables: Tables<'a>,
    sites: Vec<Progress<'a>>,
    share: Share,
    peak: u64,
    /// Live bytes now.
    level: u64,
}

impl<'a, 'b> Events<'a, 'b> {
    fn new(
        profile: &'a Profile,
        plan: &'a Plan,
        share: Share,
        output: &'b mut dyn Write,
    ) -> io::Result<Events<'a, 'b>> {
        let mut tables = Tables::default();
        let mut sites = Vec::with_capacity(profile.sites.len());
        let mut more = 0;
        for (site, levels) in profile.sites.iter().zip(&plan.levels) {
            let progress = Progress::new(site, tables.trace(&site.stack, output)?, levels, share);
            more += progress.more;
            sites.push(progress);
        }
        Ok(Events { output, more, tables, sites, share, peak: plan.peak, level: 0 })
    }

    fn write(mut self, plan: &Plan) -> io::Result<()> {
        let mut to_come: u64 = plan.passing.iter().sum();
        let last = plan.steps.len() - 1;
        for (index, (step, &passing)) in plan.steps.iter().zip(&plan.passing).enumerate() {
            writeln!(self.output, "c {:x}", step.at.0 / 1_000_000)?;
            for &(site, tally) in &step.live {
                self.shrink(site, tally)?;
            }
            let share = if index == last { Share { is: 1, of: 1 } } else { Share { is: passing, of: to_come.max(1) } };
            for site in 0..self.sites.len() {
                self.pass(site, share)?;
            }
            to_come -= passing;
            let is_peak = plan.level[index] == plan.peak;
            // All is live at the peak, so at most one block is temporary there: the last. It is one that has no other chance.
            let mut order = step.live.clone();
            if is_peak {
                order.sort_by_key(|&(site, _)| {
                    let site = &self.sites[site];
                    (site.caught > 0).then(|| site.caught.cast_signed() - site.chances().cast_signed())
                });
            }
            for (place, &(site, tally)) in order.iter().enumerate() {
                self.grow(site, tally, !is_peak || place + 1 == order.len())?;
            }
        }
        Ok(())
    }

    fn shrink(&mut self, site: usize, to: Tally) -> io::Result<()> {
        let Progress { live, trace, .. } = self.sites[site];
        if to.bytes < live.bytes {
            let count = self.share.take(live.count.saturating_sub(to.count)).max(1);
            let bytes = live.bytes - to.bytes;
            for (size, count) in sizes(Tally { count, bytes }) {
                let info = self.tables.info(size, trace, self.output)?;
                repeat(self.output, &format!("- {:x}\n", info + 1), count)?;
            }
            self.level = self.level.wrapping_sub(bytes);
            self.sites[site].live = to;
        }
        Ok(())
    }

    fn grow(&mut self, site: usize, to: Tally, may_be_temporary: bool) -> io::Result<()> {
        let progress = &mut self.sites[site];
        let mut grown = grown(progress.live, to, self.share);
        if progress.single {
            grown.count = grown.count.min(1);
        }
        progress.live = to;
        progress.to_come = progress.to_come.get(1..).unwrap_or_default();
        self.level = self.level.wrapping_add(grown.bytes);
        let mut last = None;
        for (size, count) in sizes(grown) {
            let info = self.tables.info(size, progress.trace, self.output)?;
            repeat(self.output, &format!("+ {info:x}\n"), count)?;
            last = Some((info, size));
        }
        let (Some((info, size)), Some(next)) = (last, progress.to_come.first()) else { return Ok(()) };
        // What grows next comes by a call anyway; where less goes than this block, the rest has to come anew.
        let shrinks = next.bytes < to.bytes;
        let enough = next.bytes > to.bytes || to.bytes - next.bytes >= size;
        let best = shrinks || progress.caught > progress.chances();
        if may_be_temporary && progress.caught > 0 && best && (enough || progress.one_more_call()) {
            writeln!(self.output, "- {info:x}")?;
            self.level = self.level.wrapping_sub(size);
            progress.live = to.without(Tally { count: 1, bytes: size });
            progress.caught -= 1;
        }
        Ok(())
    }

    /// Blocks that are gone before the step ends.
    fn pass(&mut self, site: usize, share: Share) -> io::Result<()> {
        let room = self.peak.saturating_sub(self.level);
        let Progress { trace, ref mut temporary, ref mut passing, .. } = self.sites[site];
        let (of_temporary, of_passing) = (part(temporary, share), part(passing, share));
        for (size, count) in sizes(of_temporary) {
            // Below the peak: that is what was live at one moment.
            let info = self.tables.info(size.min(room.saturating_sub(1)), trace, self.output)?;
            repeat(self.output, &format!("+ {info:x}\n- {info:x}\n"), count)?;
        }
        for (size, count) in sizes(of_passing) {
            let info = self.tables.info(size, trace, self.output)?;
            let free = info + 1;
            let pair =
                if size < room { format!("+ {info:x}\n- {free:x}\n") } else { format!("- {free:x}\n+ {info:x}\n") };
            repeat(self.output, &pair, count)?;
        }
        Ok(())
    }
}

/// Takes a share of what is left away, and returns it.
fn part(left: &mut Tally, share: Share) -> Tally {
    let count = share.take(left.count);
    let bytes = Share { is: count, of: left.count.max(1) }.take(left.bytes);
    let part = Tally { count, bytes };
    *left = left.without(part);
    part
}

fn mean(of: Tally) -> u64 {
    of.bytes.checked_div(of.count).unwrap_or_default()
}

/// Whole sizes that add up to the tally, each with how many blocks have it.
fn sizes(of: Tally) -> impl Iterator<Item = (u64, u64)> {
    let larger = of.bytes.checked_rem(of.count).unwrap_or_default();
    [(mean(of) + 1, larger), (mean(of), of.count - larger)].into_iter().filter(|&(_, count)| count > 0)
}

fn repeat(output: &mut dyn Write, lines: &str, count: u64) -> io::Result<()> {
    const AT_ONCE: u64 = 1000;
    let many = lines.repeat(usize::try_from(count.min(AT_ONCE)).unwrap_or_default());
    for _ in 0..count / AT_ONCE {
        output.write_all(many.as_bytes())?;
    }
    let rest = usize::try_from(count % AT_ONCE).unwrap_or_default();
    output.write_all(&many.as_bytes()[..rest * lines.len()])
}

#[cfg(test)]
mod tests;
