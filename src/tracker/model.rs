//! A naive tracker, and random events that both have to understand alike.
//!
//! It keeps every block that ever was, mappings byte by byte, and counts only when asked.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::{Account, CallStackNumber, CallStackStatistics, Finding, Limit, LiveTime, Statistics, Tally, Tracker};
use crate::config::Limits;
use crate::event::{CallId, Event, Loss, Sink, StackId, Timestamp};

#[derive(Clone, Copy, PartialEq)]
enum Gone {
    Freed,
    Unseen,
    ByExec,
}

/// A block that is or was.
struct Block {
    stack: StackId,
    born: u64,
    /// All bytes it ever had on its account, and those that are left.
    asked: u64,
    left: u64,
    /// The same for the account of expired bytes, once it has expired.
    expired: Option<u64>,
    gone: Option<(u64, Gone)>,
    /// References to it.
    held: u64,
}

#[derive(Default)]
struct Model {
    now: u64,
    blocks: Vec<Block>,
    heap: BTreeMap<u64, usize>,
    /// Whose each mapped byte is.
    mapped: BTreeMap<u64, usize>,
    in_flight: BTreeMap<u64, (u64, Option<usize>)>,
    /// Call stacks in order of their first expiry.
    numbers: Vec<StackId>,
    findings: Vec<Finding>,
    limit: Option<Limit>,
    unknown_frees: u64,
    losses: BTreeMap<Loss, u64>,
}

fn sum(values: impl Iterator<Item = u64>) -> Tally {
    values.fold(Tally::default(), |sum, bytes| Tally { count: sum.count + 1, bytes: sum.bytes + bytes })
}

impl Model {
    fn event(&mut self, limits: Limits, at: u64, event: Event) {
        if self.limit.is_some() {
            return;
        }
        self.now = at;
        let expire = u64::try_from(limits.expire.as_nanos()).expect("small");
        for id in 0..self.blocks.len() {
            let block = &mut self.blocks[id];
            if self.limit.is_none() && block.gone.is_none() && block.expired.is_none() && at - block.born >= expire {
                block.expired = Some(block.left);
                self.tell_expiry(limits, id);
            }
        }
        if self.limit.is_none() {
            self.apply(event);
        }
    }

    fn of(&self, stack: StackId) -> impl Iterator<Item = &Block> {
        self.blocks.iter().filter(move |block| block.stack == stack)
    }

    fn expired(&self, stack: StackId) -> u64 {
        self.of(stack).filter(|block| block.expired.is_some()).count() as u64
    }

    fn freed_expired(&self, stack: StackId) -> u64 {
        self.of(stack).filter(|block| block.expired.is_some() && is_freed(block)).count() as u64
    }

    fn number(&self, stack: StackId) -> Option<CallStackNumber> {
        let place = self.numbers.iter().position(|&other| other == stack)?;
        Some(CallStackNumber(u32::try_from(place).expect("few") + 1))
    }

    fn tell_expiry(&mut self, limits: Limits, id: usize) {
        let (stack, bytes) = (self.blocks[id].stack, self.blocks[id].left);
        let (count, freed) = (self.expired(stack), self.freed_expired(stack));
        let first = self.number(stack).is_none();
        if first {
            self.numbers.push(stack);
        }
        let callstack = self.number(stack).expect("numbered");
        if first {
            self.findings.push(Finding::Expired { callstack, stack, bytes });
        } else if freed < 3 {
            self.findings.push(Finding::ExpiredAgain { callstack, bytes, count });
        }
        if first && self.numbers.len() as u64 >= limits.call_stacks {
            self.limit = Some(Limit::CallStacks { count: self.numbers.len() as u64 });
        } else if count >= limits.expired_blocks {
            self.limit = Some(Limit::ExpiredBlocks { callstack, count, freed });
        }
        let leaked = self.blocks.iter().filter(|block| block.expired.is_some() && !is_freed(block)).count() as u64;
        if leaked >= limits.leaked_blocks {
            self.limit = self.limit.or(Some(Limit::LeakedBlocks { count: leaked }));
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Allocated { address, size, stack } => self.allocate(address, size, stack),
            Event::Freed { address } => match self.heap.remove(&address) {
                Some(id) => self.free(id),
                None => self.unknown_frees += 1,
            },
            Event::Retained { address } => {
                if let Some(&id) = self.heap.get(&address) {
                    self.blocks[id].held += 1;
                }
            }
            Event::Released { address } => match self.heap.get(&address).map(|&id| &mut self.blocks[id].held) {
                Some(held) if *held > 1 => *held -= 1,
                _ => self.apply(Event::Freed { address }),
            },
            Event::UnknownFrees(count) => self.unknown_frees += count,
            Event::Resized(_) => {}
            Event::Reallocating { call, address } => {
                self.apply(Event::ReallocFailed { call });
                let old = self.heap.remove(&address);
                // A block is resized by its only holder.
                old.into_iter().for_each(|id| self.blocks[id].held = 1);
                self.in_flight.insert(call.0, (address, old));
            }
            Event::Reallocated { call, address, size, stack } => match self.in_flight.remove(&call.0) {
                Some((old, Some(id))) if old == address => {
                    self.resize(id, size);
                    self.enter(address, id);
                }
                Some((old, None)) if old == address => {}
                Some((_, id)) => {
                    self.free_maybe(id);
                    self.allocate(address, size, stack);
                }
                None => self.allocate(address, size, stack),
            },
            Event::ReallocFailed { call } => {
                if let Some((address, Some(id))) = self.in_flight.remove(&call.0) {
                    self.enter(address, id);
                }
            }
            Event::ReallocFreed { call } => {
                if let Some((_, id)) = self.in_flight.remove(&call.0) {
                    self.free_maybe(id);
                }
            }
            Event::Mapped { address, size, stack } => {
                self.unmap(address, address + size);
                if size > 0 {
                    let id = self.new_block(size, stack);
                    self.mapped.extend((address..address + size).map(|byte| (byte, id)));
                }
            }
            Event::Unmapped { address, size } => self.unmap(address, address + size),
            Event::Remapped { from, from_size, address, size, stack } if from != address => {
                self.unmap(from, from + from_size);
                self.apply(Event::Mapped { address, size, stack });
            }
            Event::Remapped { from, from_size, size, .. } => {
                let (old_end, new_end) = (from + from_size, from + size);
                self.unmap(old_end.min(new_end), old_end.max(new_end));
                let last = self.mapped.range(from..old_end).next_back().map(|(&byte, &id)| (byte, id));
                if let Some((last, id)) = last
                    && new_end > old_end
                {
                    self.mapped.extend((last + 1..new_end).map(|byte| (byte, id)));
                    self.resize(id, self.blocks[id].left + new_end - (last + 1));
                }
            }
            Event::Idle | Event::Marked(_) | Event::Called { .. } => {}
            Event::Replaced => {
                let now = self.now;
                for block in self.blocks.iter_mut().filter(|block| block.gone.is_none()) {
                    block.gone = Some((now, Gone::ByExec));
                }
                self.heap.clear();
                self.mapped.clear();
                self.in_flight.clear();
            }
            Event::Lost(loss, count) => *self.losses.entry(loss).or_default() += count,
        }
    }

    fn new_block(&mut self, size: u64, stack: StackId) -> usize {
        self.blocks.push(Block { stack, born: self.now, asked: size, left: size, expired: None, gone: None, held: 1 });
        self.blocks.len() - 1
    }

    fn allocate(&mut self, address: u64, size: u64, stack: StackId) {
        let id = self.new_block(size, stack);
        self.enter(address, id);
    }

    fn enter(&mut self, address: u64, id: usize) {
        if let Some(stale) = self.heap.insert(address, id) {
            self.blocks[stale].gone = Some((self.now, Gone::Unseen));
            self.tell_muting(stale);
        }
    }

    fn free_maybe(&mut self, id: Option<usize>) {
        match id {
            Some(id) => self.free(id),
            None => self.unknown_frees += 1,
        }
    }

    fn free(&mut self, id: usize) {
        self.blocks[id].gone = Some((self.now, Gone::Freed));
        let block = &self.blocks[id];
        if block.expired.is_some() && self.freed_expired(block.stack) <= 3 {
            let callstack = self.number(block.stack).expect("numbered");
            self.findings.push(Finding::ExpiredFreed { callstack, after: Duration::from_nanos(self.now - block.born) });
        }
        self.tell_muting(id);
    }

    fn tell_muting(&mut self, id: usize) {
        let block = &self.blocks[id];
        if block.expired.is_some() && self.freed_expired(block.stack) == 3 {
            self.findings.push(Finding::Muted { callstack: self.number(block.stack).expect("numbered") });
        }
    }

    fn resize(&mut self, id: usize, size: u64) {
        let block = &mut self.blocks[id];
        block.asked = block.asked - block.left + size;
        block.expired = block.expired.map(|bytes| bytes - block.left + size);
        block.left = size;
    }

    fn unmap(&mut self, from: u64, to: u64) {
        let bytes = self.mapped.range(from..to).map(|(&byte, &id)| (byte, id)).collect::<Vec<_>>();
        let mut freed = Vec::new();
        for (byte, id) in bytes {
            self.mapped.remove(&byte);
            if self.mapped.values().any(|&other| other == id) {
                self.blocks[id].left -= 1;
            } else {
                // The piece that goes last is freed with what is left of it.
                freed.push(id);
            }
        }
        for id in freed {
            self.free(id);
        }
    }

    /// What is live, by call stack.
    fn live(&self) -> BTreeMap<StackId, Tally> {
        let mut live = BTreeMap::<StackId, Tally>::new();
        for block in self.blocks.iter().filter(|block| block.gone.is_none()) {
            live.entry(block.stack).or_default().add(block.left);
        }
        live
    }

    /// What was allocated, by call stack: the sizes of the blocks.
    fn allocated(&self, stack: StackId) -> Vec<u64> {
        self.of(stack).map(|block| block.asked).collect()
    }

    fn statistics(&self, limits: Limits) -> Statistics {
        let freed_bytes = |block: &Block| if is_freed(block) { block.asked } else { block.asked - block.left };
        let of_unfreed = |block: &&Block| !is_freed(block);
        let call_stacks = self.numbers.iter().map(|&stack| {
            let expired = || self.of(stack).filter(|block| block.expired.is_some());
            let times = self.of(stack).filter_map(|block| match block.gone {
                Some((at, Gone::Freed)) => Some(at - block.born),
                _ => None,
            });
            let times = times.collect::<Vec<_>>();
            let ages = self.of(stack).filter(of_unfreed).map(|block| match block.gone {
                Some((at, _)) => at - block.born,
                None => self.now - block.born,
            });
            CallStackStatistics {
                number: self.number(stack).expect("numbered"),
                stack,
                expired: sum(expired().filter_map(|block| block.expired)),
                freed_expired: Tally {
                    count: self.freed_expired(stack),
                    bytes: expired()
                        .map(|block| {
                            let left = if is_freed(block) { 0 } else { block.left };
                            block.expired.expect("expired") - left
                        })
                        .sum(),
                },
                allocated: sum(self.of(stack).map(|block| block.asked)),
                freed: Tally {
                    count: self.of(stack).filter(|block| is_freed(block)).count() as u64,
                    bytes: self.of(stack).map(freed_bytes).sum(),
                },
                freed_live_time: times.iter().min().map(|&min| LiveTime {
                    min: Duration::from_nanos(min),
                    max: Duration::from_nanos(*times.iter().max().expect("not empty")),
                    average: Duration::from_nanos(times.iter().sum::<u64>() / times.len() as u64),
                }),
                unfreed_live_time: Duration::from_nanos(ages.max().unwrap_or(0)),
            }
        });
        let mut call_stacks = call_stacks.filter(|of| of.expired.count != of.freed_expired.count).collect::<Vec<_>>();
        call_stacks.sort_by_key(|of| (of.may_leak().count, of.may_leak().bytes, of.number));
        let gone = |how: Gone| move |block: &&Block| block.gone.is_some_and(|(_, gone)| gone == how);
        let live = |block: &&Block| block.gone.is_none() && block.expired.is_none();
        Statistics {
            monitored: Duration::from_nanos(self.now),
            expire: limits.expire,
            call_stacks,
            never_freed: sum(self.blocks.iter().filter(|block| block.gone.is_none()).map(|block| block.left)),
            unexpired: sum(self.blocks.iter().filter(live).map(|block| block.left)),
            unknown_frees: self.unknown_frees,
            unseen_frees: sum(self.blocks.iter().filter(gone(Gone::Unseen)).map(|block| block.left)),
            dropped_by_exec: sum(self.blocks.iter().filter(gone(Gone::ByExec)).map(|block| block.left)),
            losses: self.losses.clone(),
        }
    }
}

fn is_freed(block: &Block) -> bool {
    matches!(block.gone, Some((_, Gone::Freed | Gone::Unseen)))
}

fn events() -> impl Strategy<Value = Event> {
    let address = || (1_u64..10).prop_map(|place| place * 16);
    let call = || (0_u64..3).prop_map(CallId);
    let stack = || (0_u32..4).prop_map(StackId);
    let size = || 0_u64..50;
    let place = || 0_u64..12;
    prop_oneof![
        6 => (address(), size(), stack()).prop_map(|(address, size, stack)| Event::Allocated { address, size, stack }),
        6 => address().prop_map(|address| Event::Freed { address }),
        3 => address().prop_map(|address| Event::Retained { address }),
        3 => address().prop_map(|address| Event::Released { address }),
        3 => (call(), address()).prop_map(|(call, address)| Event::Reallocating { call, address }),
        3 => (call(), address(), size(), stack())
            .prop_map(|(call, address, size, stack)| Event::Reallocated { call, address, size, stack }),
        1 => call().prop_map(|call| Event::ReallocFailed { call }),
        1 => call().prop_map(|call| Event::ReallocFreed { call }),
        3 => (place(), 0_u64..6, stack()).prop_map(|(address, size, stack)| Event::Mapped { address, size, stack }),
        3 => (place(), 0_u64..6).prop_map(|(address, size)| Event::Unmapped { address, size }),
        3 => (place(), 0_u64..6, place(), any::<bool>(), 1_u64..9, stack()).prop_map(
            |(from, from_size, to, moves, size, stack)| {
                let address = if moves { to } else { from };
                Event::Remapped { from, from_size, address, size, stack }
            }
        ),
        2 => Just(Event::Idle),
        1 => Just(Event::Lost(Loss::NoStack, 1)),
        1 => Just(Event::Lost(Loss::NeverReturned, 1)),
    ]
}

/// Events with the time that passes before each. Now and then the program is replaced.
fn runs() -> impl Strategy<Value = Vec<(u64, Event)>> {
    let event = prop_oneof![80 => events(), 1 => Just(Event::Replaced)];
    proptest::collection::vec((prop_oneof![3 => Just(0), 2 => 1_u64..4, 1 => 4_u64..20], event), 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_tracker_agrees_with_the_naive_one(
        run in runs(),
        expire in 1_u64..12,
        expired_blocks in prop_oneof![1_u64..30, Just(1000)],
        call_stacks in prop_oneof![1_u64..5, Just(1000)],
        leaked_blocks in prop_oneof![1_u64..40, Just(1000)],
    ) {
        let limits = Limits { expire: Duration::from_nanos(expire), expired_blocks, call_stacks, leaked_blocks };
        let (mut tracker, mut model, mut now) = (Tracker::new(limits), Model::default(), 0);
        let mut at_peak = (Tally::default(), BTreeMap::new());
        let mut changed = BTreeMap::new();
        for (passes, event) in run {
            now += passes;
            tracker.event(Timestamp(now), event);
            model.event(limits, now, event);
            prop_assert_eq!(tracker.drain_findings().collect::<Vec<_>>(), std::mem::take(&mut model.findings));
            prop_assert_eq!(tracker.limit_reached(), model.limit);
            let live = model.live();
            let level = live.values().copied().fold(Tally::default(), Tally::plus);
            prop_assert_eq!(tracker.level().live, level);
            if level.bytes > at_peak.0.bytes || at_peak.0.count == 0 {
                at_peak = (level, live);
            }
            if passes % 3 == 1 {
                changed.extend(tracker.take_changed().into_iter().map(|stack| (stack, tracker.account(stack))));
            }
        }
        prop_assert_eq!(tracker.statistics(), model.statistics(limits));
        prop_assert_eq!(tracker.peak().map_or(Tally::default(), |peak| peak.live), at_peak.0);
        // What is told of changes adds up to all there is.
        changed.extend(tracker.take_changed().into_iter().map(|stack| (stack, tracker.account(stack))));
        let live = model.live();
        for stack in (0..4).map(StackId) {
            let Some(told) = changed.get(&stack) else {
                prop_assert!(model.of(stack).next().is_none());
                continue;
            };
            let account = tracker.account(stack);
            prop_assert_eq!(&Account { at_peak: account.at_peak, ..told.clone() }, &account);
            prop_assert_eq!(account.live, live.get(&stack).copied().unwrap_or_default());
            prop_assert_eq!(account.at_peak, at_peak.1.get(&stack).copied().unwrap_or_default());
            prop_assert_eq!(account.allocated, sum(model.allocated(stack).into_iter()));
            prop_assert_eq!(account.sizes.count(), account.allocated.count);
            let freed = model.of(stack).filter(|block| matches!(block.gone, Some((_, Gone::Freed)))).count();
            prop_assert_eq!(account.lifetimes.count(), freed as u64);
        }
    }

    #[test]
    fn ticks_change_nothing(run in runs(), expire in 1_u64..12) {
        let limits = Limits::none(Duration::from_nanos(expire));
        let (mut plain, mut ticked, mut now) = (Tracker::new(limits), Tracker::new(limits), 0);
        for (passes, event) in run {
            for tick in now..now + passes {
                ticked.event(Timestamp(tick), Event::Idle);
            }
            now += passes;
            plain.event(Timestamp(now), event);
            ticked.event(Timestamp(now), event);
        }
        prop_assert_eq!(plain.drain_findings().collect::<Vec<_>>(), ticked.drain_findings().collect::<Vec<_>>());
        prop_assert_eq!(plain.statistics(), ticked.statistics());
    }
}
