//! Blocks, call stacks, expiry, statistics.
//!
//! Pure and deterministic: time comes with the events, so the same events give the same findings and statistics, however
//! they are cut into ticks. A block expires at the first event that is at least the threshold younger than it, before
//! that event takes effect. When a limit is reached, nothing is tracked any more: the statistics are of that moment.

mod account;
mod blocks;
mod finding;
mod heap;
mod inherited;
mod mappings;
#[cfg(test)]
mod model;
mod references;
mod site;
mod statistics;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::config::Limits;
use crate::event::{CallId, Event, Loss, Sink, StackId, Timestamp, Totals};
use blocks::{Block, Blocks, Slot, State};
use heap::Heap;
use inherited::Inherited;
use mappings::Mappings;
use references::References;
use site::Site;

pub use crate::event::Tally;
pub use account::{Account, Level};
pub use finding::{CallStackNumber, Finding, Limit};
pub use inherited::Inheritance;
pub use site::LiveTime;
pub use statistics::{CallStackStatistics, Statistics};

/// The expired-then-freed block of a call stack that mutes its live lines.
const MUTING_FREE: u64 = 3;

/// Follows the target's blocks by its events.
#[derive(Debug)]
pub struct Tracker {
    limits: Limits,
    now: Timestamp,
    blocks: Blocks,
    heap: Heap,
    inherited: Inherited,
    mappings: Mappings,
    references: References,
    /// Blocks whose `realloc` has not ended: out of the heap index, since their address may be handed out again.
    in_flight: FxHashMap<CallId, InFlight>,
    /// By [`StackId`].
    sites: Vec<Site>,
    numbered: u32,
    findings: Vec<Finding>,
    limit_reached: Option<Limit>,
    /// Blocks of all call stacks that have expired and were not freed.
    leaked: u64,
    unknown_frees: u64,
    unseen_frees: Tally,
    dropped_by_exec: Tally,
    losses: BTreeMap<Loss, u64>,
    /// Calls of each reference.
    calls: Vec<u64>,
    /// All blocks together.
    allocated: Tally,
    live: Tally,
    /// The high-water mark of `live`, and how many there were before it.
    peak: Level,
    peak_number: u64,
    /// Call stacks of which something has changed since that was asked last.
    changed: Vec<StackId>,
    /// The block that was handed out last, if nothing has happened to it since.
    newest: Option<Slot>,
    /// Blocks that `realloc` left where they were, and the bytes that they had before.
    resized: Tally,
}

/// The old block of a `realloc` that has not ended.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    address: u64,
    /// `None` if it is not tracked.
    slot: Option<Slot>,
    /// The size of one that is not its own.
    inherited: Option<u64>,
}

impl Sink for Tracker {
    fn event(&mut self, at: Timestamp, event: Event) {
        if self.limit_reached.is_some() {
            return;
        }
        self.now = self.now.max(at);
        self.expire();
        if self.limit_reached.is_none() {
            self.apply(event);
            self.note_peak();
        }
        // What a source has counted is whole only then.
        if event == Event::Idle {
            self.look_at_leaked();
        }
    }

    fn counted(&mut self, at: Timestamp, stack: StackId, totals: &Totals) {
        if self.limit_reached.is_some() {
            return;
        }
        self.now = self.now.max(at);
        let site = self.site(stack);
        let (expired, freed_expired) = (site.expired.count, site.freed_expired.count);
        self.take_over(stack, totals);
        let site = self.site(stack);
        let (now_expired, now_freed_expired) = (site.expired.count, site.freed_expired.count);
        if now_expired > expired {
            self.tell_expiry(stack, totals.last_expired, freed_expired);
        }
        if now_freed_expired > freed_expired
            && freed_expired < MUTING_FREE
            && let Some(callstack) = self.site(stack).number
        {
            self.findings.push(Finding::ExpiredFreed { callstack, after: totals.last_freed_expired });
            if now_freed_expired >= MUTING_FREE {
                self.findings.push(Finding::Muted { callstack });
            }
        }
    }
}

impl Tracker {
    /// Follows a target of which nothing is known yet.
    #[must_use]
    pub fn new(limits: Limits) -> Tracker {
        Tracker {
            limits,
            now: Timestamp::default(),
            blocks: Blocks::new(),
            heap: Heap::default(),
            inherited: Inherited::default(),
            mappings: Mappings::default(),
            references: References::default(),
            in_flight: FxHashMap::default(),
            sites: Vec::new(),
            numbered: 0,
            findings: Vec::new(),
            limit_reached: None,
            leaked: 0,
            unknown_frees: 0,
            unseen_frees: Tally::default(),
            dropped_by_exec: Tally::default(),
            losses: BTreeMap::new(),
            calls: Vec::new(),
            allocated: Tally::default(),
            live: Tally::default(),
            peak: Level::default(),
            peak_number: 0,
            changed: Vec::new(),
            newest: None,
            resized: Tally::default(),
        }
    }

    /// Follows a process that has just got a copy of the memory of the one that `self` follows.
    #[must_use]
    pub fn forked(&self, limits: Limits) -> Tracker {
        let own = self.blocks.iter().map(|block| (block.address, block.size));
        let inherited = Inherited::new(own.chain(self.inherited.blocks()));
        Tracker { inherited, references: self.references.clone(), ..Tracker::new(limits) }
    }

    /// What the process has had from its start, as a copy of another.
    #[must_use]
    pub fn inheritance(&self) -> Inheritance {
        self.inherited.tell()
    }

    /// Takes what was found since the last call, in order.
    pub fn drain_findings(&mut self) -> std::vec::Drain<'_, Finding> {
        self.findings.drain(..)
    }

    /// The limit that was reached, if one was: nothing is tracked any more, and monitoring has to end.
    #[must_use]
    pub fn limit_reached(&self) -> Option<Limit> {
        self.limit_reached
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Allocated { address, size, stack } => self.allocated(address, size, stack),
            Event::Freed { address } => self.freed(address),
            Event::Retained { address } => {
                if self.heap.contains(&self.blocks, address) || self.inherited.contains(address) {
                    self.references.add(address);
                }
            }
            Event::Released { address } => {
                if !self.references.take(address) {
                    self.freed(address);
                }
            }
            Event::Reallocating { call, address } => self.reallocating(call, address),
            Event::Reallocated { call, address, size, stack } => self.reallocated(call, address, size, stack),
            Event::ReallocFailed { call } => self.realloc_failed(call),
            Event::ReallocFreed { call } => {
                if let Some(old) = self.in_flight.remove(&call) {
                    self.free_in_flight(old);
                }
            }
            Event::Mapped { address, size, stack } => self.mapped(address, size, stack),
            Event::Unmapped { address, size } => self.unmapped(range(address, size)),
            Event::Remapped { from, from_size, address, size, stack } => {
                if address == from {
                    self.remapped_in_place(range(from, from_size), size);
                } else {
                    self.unmapped(range(from, from_size));
                    self.mapped(address, size, stack);
                }
            }
            Event::UnknownFrees(count) => self.unknown_frees += count,
            Event::Resized(tally) => self.resized = self.resized.plus(tally),
            Event::Called { reference, count } => self.called(reference, count),
            Event::Idle | Event::Marked(_) => {}
            Event::Replaced => self.replaced(),
            Event::Lost(loss, count) => *self.losses.entry(loss).or_default() += count,
        }
    }

    fn called(&mut self, reference: u32, count: u64) {
        let index = reference as usize;
        if index >= self.calls.len() {
            self.calls.resize(index + 1, 0);
        }
        self.calls[index] += count;
    }

    fn allocated(&mut self, address: u64, size: u64, stack: StackId) {
        let slot = self.insert(address, size, stack);
        self.enter(slot);
    }

    fn freed(&mut self, address: u64) {
        self.references.forget(address);
        match self.heap.remove(&self.blocks, address) {
            Some(slot) => self.free(slot),
            None => match self.inherited.take(address) {
                Some(size) => self.inherited.count_free(size),
                None => self.unknown_frees += 1,
            },
        }
    }

    fn insert(&mut self, address: u64, size: u64, stack: StackId) -> Slot {
        let slot = self.blocks.insert(address, size, self.now, stack);
        let site = self.touch(stack);
        site.allocated.add(size);
        site.live.add(size);
        site.sizes.add(size);
        self.allocated.add(size);
        self.live.add(size);
        self.newest = Some(slot);
        slot
    }

    /// Takes over what a source has counted.
    fn take_over(&mut self, stack: StackId, totals: &Totals) {
        let site = self.site(stack);
        if site.has_taken_over(totals) {
            return;
        }
        let now = self.now;
        let site = self.touch(stack);
        let (allocated, live) = (site.allocated, site.live);
        let leaked = site.leaked();
        site.take_over(totals, now);
        let (now_allocated, now_live, now_leaked) = (site.allocated, site.live, site.leaked());
        self.leaked = self.leaked - leaked + now_leaked;
        self.allocated = self.allocated.without(allocated).plus(now_allocated);
        self.live = self.live.without(live).plus(now_live);
    }

    fn reallocating(&mut self, call: CallId, address: u64) {
        // A source names a call once. Should it not, the first one's block must not be forgotten.
        self.realloc_failed(call);
        self.references.forget(address);
        let slot = self.heap.remove(&self.blocks, address);
        let inherited = if slot.is_none() { self.inherited.take(address) } else { None };
        self.in_flight.insert(call, InFlight { address, slot, inherited });
    }

    fn reallocated(&mut self, call: CallId, address: u64, size: u64, stack: StackId) {
        match self.in_flight.remove(&call) {
            Some(InFlight { address: old, slot, inherited }) if old == address => {
                // A block from before monitoring stays one, as does one that is another's.
                if let Some(size) = inherited {
                    self.inherited.put_back(address, size);
                }
                let Some(slot) = slot else { return };
                self.resized.add(self.blocks.get(slot).size);
                self.resize(slot, size);
                self.newest = Some(slot);
                self.enter(slot);
            }
            Some(old) => {
                self.free_in_flight(old);
                self.allocated(address, size, stack);
            }
            None => self.allocated(address, size, stack),
        }
    }

    fn realloc_failed(&mut self, call: CallId) {
        match self.in_flight.remove(&call) {
            Some(InFlight { slot: Some(slot), .. }) => self.enter(slot),
            Some(InFlight { inherited: Some(size), address, .. }) => self.inherited.put_back(address, size),
            _ => {}
        }
    }

    fn mapped(&mut self, address: u64, size: u64, stack: StackId) {
        let range = range(address, size);
        self.unmapped(range.clone());
        if !range.is_empty() {
            let size = range.end - range.start;
            let slot = self.insert(address, size, stack);
            self.mappings.insert(range, slot);
        }
    }

    fn unmapped(&mut self, range: Range<u64>) {
        for (slot, bytes) in self.mappings.remove(range) {
            let Block { size, stack, state, .. } = *self.blocks.get(slot);
            if bytes == size {
                self.free(slot);
                continue;
            }
            self.blocks.get_mut(slot).size -= bytes;
            self.live.resize(bytes, 0);
            let site = self.touch(stack);
            site.live.resize(bytes, 0);
            site.freed.resize(0, bytes);
            site.sizes.remove(size);
            site.sizes.add(size - bytes);
            if state == State::Expired {
                site.freed_expired.resize(0, bytes);
            }
        }
    }

    /// A mapping that grew or shrank where it is.
    fn remapped_in_place(&mut self, old: Range<u64>, size: u64) {
        let new = range(old.start, size);
        if new.end <= old.end {
            self.unmapped(new.end..old.end);
            return;
        }
        self.unmapped(old.end..new.end);
        if let Some((slot, grown)) = self.mappings.extend_last(old, new.end) {
            let size = self.blocks.get(slot).size + grown;
            self.resize(slot, size);
        }
    }

    fn replaced(&mut self) {
        let blocks = std::mem::replace(&mut self.blocks, Blocks::new());
        self.heap = Heap::default();
        self.inherited = Inherited::default();
        self.mappings = Mappings::default();
        self.references.clear();
        self.in_flight.clear();
        for block in blocks.iter() {
            let age = self.now.since(block.allocated);
            self.dropped_by_exec.add(block.size);
            let site = self.touch(block.stack);
            site.dropped_age = site.dropped_age.max(age);
            site.live = Tally::default();
        }
        // Those of sources that count themselves are told with what is counted.
        self.live = self.sites.iter().map(Site::counted_live).fold(Tally::default(), Tally::plus);
        self.newest = None;
    }

    /// Enters a block into the heap index. One that is there still was freed without our seeing it.
    fn enter(&mut self, slot: Slot) {
        // What is handed out again was given back.
        let address = self.blocks.get(slot).address;
        self.references.forget(address);
        if let Some(size) = self.inherited.take(address) {
            self.inherited.count_free(size);
        }
        if let Some(stale) = self.heap.insert(&self.blocks, slot) {
            let block = self.blocks.remove(stale);
            self.unseen_frees.add(block.size);
            self.count_free(&block);
        }
    }

    fn free_in_flight(&mut self, old: InFlight) {
        match (old.slot, old.inherited) {
            (Some(slot), _) => self.free(slot),
            (None, Some(size)) => self.inherited.count_free(size),
            (None, None) => self.unknown_frees += 1,
        }
    }

    fn free(&mut self, slot: Slot) {
        let is_temporary = self.newest == Some(slot);
        let block = self.blocks.remove(slot);
        let lived = self.now.since(block.allocated);
        let site = self.touch(block.stack);
        site.live_times.add(lived);
        site.lifetimes.add(u64::try_from(lived.as_nanos()).unwrap_or(u64::MAX));
        if is_temporary {
            site.temporary.add(block.size);
        }
        if let Some(callstack) = site.number
            && block.state == State::Expired
            && site.freed_expired.count < MUTING_FREE
        {
            self.findings.push(Finding::ExpiredFreed { callstack, after: lived });
        }
        self.count_free(&block);
    }

    /// Counts a block that is gone.
    fn count_free(&mut self, block: &Block) {
        self.newest = None;
        self.live = self.live.without(Tally { count: 1, bytes: block.size });
        let site = self.touch(block.stack);
        site.live = site.live.without(Tally { count: 1, bytes: block.size });
        site.freed.add(block.size);
        if block.state == State::Expired {
            site.freed_expired.add(block.size);
            if let Some(callstack) = site.number
                && site.freed_expired.count == MUTING_FREE
            {
                self.findings.push(Finding::Muted { callstack });
            }
            self.leaked -= 1;
        }
    }

    /// Gives a block another size; it keeps its age and its call stack.
    fn resize(&mut self, slot: Slot, size: u64) {
        let block = self.blocks.get_mut(slot);
        let old = std::mem::replace(&mut block.size, size);
        let Block { stack, state, .. } = *block;
        self.allocated.resize(old, size);
        self.live.resize(old, size);
        let site = self.touch(stack);
        site.allocated.resize(old, size);
        site.live.resize(old, size);
        site.sizes.remove(old);
        site.sizes.add(size);
        if state == State::Expired {
            site.expired.resize(old, size);
        }
    }

    fn expire(&mut self) {
        while self.limit_reached.is_none()
            && let Some(slot) = self.blocks.oldest_young()
            && self.now.since(self.blocks.get(slot).allocated) >= self.limits.expire
        {
            self.blocks.expire(slot);
            let Block { size, stack, .. } = *self.blocks.get(slot);
            self.count_expiry(stack, size);
        }
    }

    fn count_expiry(&mut self, stack: StackId, bytes: u64) {
        let site = self.touch(stack);
        site.expired.add(bytes);
        let freed = site.freed_expired.count;
        self.leaked += 1;
        self.tell_expiry(stack, bytes, freed);
        self.look_at_leaked();
    }

    /// Looks whether all call stacks together have leaked enough.
    fn look_at_leaked(&mut self) {
        if self.leaked >= self.limits.leaked_blocks {
            self.limit_reached = self.limit_reached.or(Some(Limit::LeakedBlocks { count: self.leaked }));
        }
    }

    /// Tells of an expiry that is counted already; `freed` expired blocks of the call stack were freed until then.
    fn tell_expiry(&mut self, stack: StackId, bytes: u64, freed: u64) {
        let numbered = self.numbered;
        let site = self.site(stack);
        let count = site.expired.count;
        let callstack = *site.number.get_or_insert(CallStackNumber(numbered + 1));
        if callstack.0 > numbered {
            self.numbered = callstack.0;
            self.findings.push(Finding::Expired { callstack, stack, bytes });
        }
        if freed < MUTING_FREE && (callstack.0 <= numbered || count > 1) {
            self.findings.push(Finding::ExpiredAgain { callstack, bytes, count });
        }
        let call_stacks = u64::from(self.numbered);
        if callstack.0 > numbered && call_stacks >= self.limits.call_stacks {
            self.limit_reached = Some(Limit::CallStacks { count: call_stacks });
        } else if count >= self.limits.expired_blocks {
            self.limit_reached = Some(Limit::ExpiredBlocks { callstack, count, freed });
        }
    }

    fn site(&mut self, stack: StackId) -> &mut Site {
        let index = stack.0 as usize;
        if index >= self.sites.len() {
            self.sites.resize_with(index + 1, Site::default);
        }
        &mut self.sites[index]
    }

    /// Everything counted until the last event.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let mut unexpired = self.sites.iter().map(Site::counted_unexpired).fold(Tally::default(), Tally::plus);
        let mut never_freed = self.sites.iter().map(Site::counted_live).fold(Tally::default(), Tally::plus);
        let age =
            |site: &Site| site.oldest.map_or(site.dropped_age, |oldest| self.now.since(oldest).max(site.dropped_age));
        let mut ages = self.sites.iter().map(age).collect::<Vec<Duration>>();
        for block in self.blocks.iter() {
            never_freed.add(block.size);
            if block.state == State::Young {
                unexpired.add(block.size);
            }
            let age = &mut ages[block.stack.0 as usize];
            *age = self.now.since(block.allocated).max(*age);
        }
        let mut call_stacks = (0..)
            .zip(&self.sites)
            .zip(ages)
            .filter_map(|((id, site), unfreed_live_time)| {
                Some(CallStackStatistics {
                    number: site.number?,
                    stack: StackId(id),
                    expired: site.expired,
                    freed_expired: site.freed_expired,
                    allocated: site.allocated,
                    freed: site.freed,
                    freed_live_time: site.live_times.get(),
                    unfreed_live_time,
                })
            })
            .filter(|call_stack| call_stack.may_leak().count != 0)
            .collect::<Vec<_>>();
        call_stacks.sort_by_key(|call_stack| {
            let may_leak = call_stack.may_leak();
            (may_leak.count, may_leak.bytes, call_stack.number)
        });
        Statistics {
            monitored: self.now.since(Timestamp::default()),
            expire: self.limits.expire,
            call_stacks,
            unexpired,
            never_freed,
            unknown_frees: self.unknown_frees,
            unseen_frees: self.sites.iter().map(|site| site.counted_unseen).fold(self.unseen_frees, Tally::plus),
            dropped_by_exec: self.sites.iter().map(|site| site.dropped).fold(self.dropped_by_exec, Tally::plus),
            losses: self.losses.clone(),
        }
    }
}

/// The range of `size` bytes from `address`, cut off at the end of the address space.
fn range(address: u64, size: u64) -> Range<u64> {
    address..address.saturating_add(size)
}
