//! One test a rule. `model.rs` covers their interplay.

use std::time::Duration;

use super::*;
use crate::histogram::Histogram;

const SECOND: u64 = 1_000_000_000;

/// A tracker with `-e 10` and a clock in seconds.
struct Bench {
    tracker: Tracker,
    now: u64,
}

impl Bench {
    fn new() -> Bench {
        Bench::with_limits(1000, 1000)
    }

    fn with_limits(expired_blocks: u64, call_stacks: u64) -> Bench {
        let limits = Limits { expired_blocks, call_stacks, ..Limits::none(Duration::from_secs(10)) };
        Bench { tracker: Tracker::new(limits), now: 0 }
    }

    /// With `--stop-after`.
    fn stopping_after(leaked_blocks: u64) -> Bench {
        let limits = Limits { leaked_blocks, ..Limits::none(Duration::from_secs(10)) };
        Bench { tracker: Tracker::new(limits), now: 0 }
    }

    fn event(&mut self, event: Event) -> &mut Bench {
        self.tracker.event(Timestamp(self.now * SECOND), event);
        self
    }

    fn alloc(&mut self, address: u64, size: u64, stack: u32) -> &mut Bench {
        self.event(Event::Allocated { address, size, stack: StackId(stack) })
    }

    fn free(&mut self, address: u64) -> &mut Bench {
        self.event(Event::Freed { address })
    }

    fn realloc(&mut self, from: u64, address: u64, size: u64, stack: u32) -> &mut Bench {
        self.event(Event::Reallocating { call: CallId(1), address: from });
        self.event(Event::Reallocated { call: CallId(1), address, size, stack: StackId(stack) })
    }

    fn map(&mut self, address: u64, size: u64) -> &mut Bench {
        self.event(Event::Mapped { address, size, stack: StackId(0) })
    }

    fn unmap(&mut self, address: u64, size: u64) -> &mut Bench {
        self.event(Event::Unmapped { address, size })
    }

    fn wait(&mut self, seconds: u64) -> &mut Bench {
        self.now += seconds;
        self.event(Event::Idle)
    }

    fn findings(&mut self) -> Vec<Finding> {
        self.tracker.drain_findings().collect()
    }

    fn statistics(&self) -> Statistics {
        self.tracker.statistics()
    }

    fn only_call_stack(&self) -> CallStackStatistics {
        let [call_stack] = &self.statistics().call_stacks[..] else { panic!("not one call stack") };
        call_stack.clone()
    }
}

fn tally(count: u64, bytes: u64) -> Tally {
    Tally { count, bytes }
}

fn expired(callstack: u32, stack: u32, bytes: u64) -> Finding {
    Finding::Expired { callstack: CallStackNumber(callstack), stack: StackId(stack), bytes }
}

fn again(callstack: u32, bytes: u64, count: u64) -> Finding {
    Finding::ExpiredAgain { callstack: CallStackNumber(callstack), bytes, count }
}

fn freed(callstack: u32, seconds: u64) -> Finding {
    Finding::ExpiredFreed { callstack: CallStackNumber(callstack), after: Duration::from_secs(seconds) }
}

#[test]
fn numbers_are_given_in_order_of_first_expiry() {
    let mut bench = Bench::new();
    bench.alloc(0x10, 1, 7).free(0x10).alloc(0x20, 2, 3).wait(1).alloc(0x30, 3, 0).wait(20);
    assert_eq!(bench.findings(), [expired(1, 3, 2), expired(2, 0, 3)]);
}

#[test]
fn a_block_expires_at_the_threshold_and_the_backtrace_is_shown_once() {
    let mut bench = Bench::new();
    bench.alloc(0x10, 101, 0).wait(9);
    assert_eq!(bench.findings(), []);
    bench.wait(1);
    assert_eq!(bench.findings(), [expired(1, 0, 101)]);
    bench.alloc(0x20, 5, 0).wait(10);
    assert_eq!(bench.findings(), [again(1, 5, 2)]);
}

#[test]
fn a_block_that_is_freed_after_the_threshold_expired_first() {
    let mut bench = Bench::new();
    bench.alloc(0x10, 8, 0);
    bench.now = 12;
    bench.free(0x10);
    assert_eq!(bench.findings(), [expired(1, 0, 8), freed(1, 12)]);
}

#[test]
fn the_third_free_of_an_expired_block_mutes_a_call_stack() {
    let mut bench = Bench::new();
    for address in 1..=6 {
        bench.alloc(address, 8, 0);
    }
    bench.wait(10).findings();
    bench.free(1).free(2).free(3).free(4);
    let muted = Finding::Muted { callstack: CallStackNumber(1) };
    assert_eq!(bench.findings(), [freed(1, 10), freed(1, 10), freed(1, 10), muted]);
    bench.alloc(7, 8, 0).wait(10);
    assert_eq!(bench.findings(), []);
    let call_stack = bench.only_call_stack();
    assert_eq!((call_stack.expired, call_stack.freed_expired), (tally(7, 56), tally(4, 32)));
}

#[test]
fn statistics_are_of_leaking_call_stacks_in_ascending_order() {
    let mut bench = Bench::new();
    bench.alloc(1, 1, 0).alloc(2, 1, 0).alloc(3, 9, 1).alloc(4, 4, 2).alloc(5, 1, 3).wait(10).free(5);
    bench.alloc(6, 1, 4);
    let stacks = bench.statistics().call_stacks.iter().map(|of| of.stack.0).collect::<Vec<_>>();
    assert_eq!(stacks, [2, 1, 0], "fewest blocks first, then fewest bytes; neither freed nor unexpired ones");
    assert_eq!(bench.statistics().unexpired, tally(1, 1));
}

#[test]
fn live_times_are_of_freed_and_of_unfreed_blocks() {
    let mut bench = Bench::new();
    bench.alloc(1, 8, 0).alloc(2, 8, 0).alloc(3, 8, 0).alloc(4, 8, 0);
    bench.wait(1).free(1).wait(1).free(2).wait(10).free(3).wait(1);
    let call_stack = bench.only_call_stack();
    let seconds = Duration::from_secs;
    let average = seconds(15) / 3;
    assert_eq!(call_stack.freed_live_time, Some(LiveTime { min: seconds(1), max: seconds(12), average }));
    assert_eq!(call_stack.unfreed_live_time, seconds(13));
}

#[test]
fn the_block_limit_ends_tracking_and_counts_freed_blocks() {
    let mut bench = Bench::with_limits(3, 1000);
    bench.alloc(1, 8, 0).wait(10).free(1).alloc(2, 8, 0).alloc(3, 8, 0).alloc(4, 8, 0).wait(10);
    let limit = Limit::ExpiredBlocks { callstack: CallStackNumber(1), count: 3, freed: 1 };
    let findings = bench.findings();
    assert_eq!(findings, [expired(1, 0, 8), freed(1, 10), again(1, 8, 2), again(1, 8, 3)]);
    assert_eq!(bench.tracker.limit_reached(), Some(limit));
    let statistics = bench.statistics();
    bench.free(2).alloc(5, 8, 1).wait(100);
    assert_eq!((bench.findings(), bench.statistics()), (vec![], statistics), "nothing is tracked any more");
}

#[test]
fn the_call_stack_limit_ends_tracking() {
    let mut bench = Bench::with_limits(1000, 2);
    bench.alloc(1, 8, 0).alloc(2, 8, 1).alloc(3, 8, 2).wait(10);
    assert_eq!(bench.findings(), [expired(1, 0, 8), expired(2, 1, 8)]);
    assert_eq!(bench.tracker.limit_reached(), Some(Limit::CallStacks { count: 2 }));
}

#[test]
fn so_many_leaked_blocks_of_all_call_stacks_end_tracking() {
    let mut bench = Bench::stopping_after(3);
    bench.alloc(1, 8, 0).alloc(2, 8, 1).wait(10).free(1).alloc(3, 8, 2).wait(10);
    assert_eq!(bench.tracker.limit_reached(), None, "one of three was freed");
    bench.alloc(4, 8, 0).alloc(5, 8, 1).wait(10);
    assert_eq!(bench.tracker.limit_reached(), Some(Limit::LeakedBlocks { count: 3 }));
    let may_leak = bench.statistics().call_stacks.iter().map(|of| of.may_leak().count).sum::<u64>();
    assert_eq!(may_leak, 3, "the statistics are of that moment");
}

#[test]
fn what_a_source_counts_is_leaked_when_all_is_counted() {
    let mut bench = Bench::stopping_after(5);
    bench.counted(0, totals(9, 0, 4, 0)).wait(1);
    bench.counted(1, totals(9, 0, 4, 0)).counted(0, totals(9, 4, 4, 4)).wait(1);
    assert_eq!(bench.tracker.limit_reached(), None, "no moment between two call stacks of one look");
    bench.counted(0, totals(12, 4, 7, 4)).wait(1);
    assert_eq!(bench.tracker.limit_reached(), Some(Limit::LeakedBlocks { count: 7 }));
}

#[test]
fn realloc_in_place_keeps_age_and_call_stack() {
    let mut bench = Bench::new();
    bench.alloc(0x10, 100, 0).wait(9).realloc(0x10, 0x10, 30, 1).wait(1);
    assert_eq!(bench.findings(), [expired(1, 0, 30)]);
    bench.realloc(0x10, 0x10, 50, 1);
    let call_stack = bench.only_call_stack();
    assert_eq!((call_stack.allocated, call_stack.expired), (tally(1, 50), tally(1, 50)));
}

#[test]
fn realloc_that_moves_is_a_free_and_a_new_block() {
    let mut bench = Bench::new();
    bench.alloc(0x10, 100, 0).wait(9).realloc(0x10, 0x20, 200, 1).wait(1);
    assert_eq!(bench.findings(), []);
    bench.wait(9);
    assert_eq!(bench.findings(), [expired(1, 1, 200)]);
    assert_eq!(bench.statistics().unexpired, tally(0, 0));
}

#[test]
fn realloc_that_fails_leaves_the_block_as_it_was() {
    let mut bench = Bench::new();
    bench.alloc(0x10, 100, 0).wait(5).event(Event::Reallocating { call: CallId(1), address: 0x10 });
    bench.event(Event::ReallocFailed { call: CallId(1) }).wait(5);
    assert_eq!(bench.findings(), [expired(1, 0, 100)]);
    bench.free(0x10);
    assert_eq!(bench.findings(), [freed(1, 10)]);
}

#[test]
fn realloc_that_frees_is_a_free() {
    let mut bench = Bench::new();
    bench.alloc(0x10, 100, 0).event(Event::Reallocating { call: CallId(1), address: 0x10 });
    bench.event(Event::ReallocFreed { call: CallId(1) }).wait(20);
    assert_eq!((bench.findings(), bench.statistics().unknown_frees), (vec![], 0));
}

#[test]
fn realloc_of_a_block_from_before_monitoring() {
    let mut bench = Bench::new();
    bench.realloc(0x10, 0x10, 50, 0);
    assert_eq!(bench.statistics().unexpired, tally(0, 0), "in place it stays one from before");
    bench.realloc(0x10, 0x20, 60, 0);
    assert_eq!(bench.statistics().unexpired, tally(1, 60), "moved it is a new one");
    assert_eq!(bench.statistics().unknown_frees, 1);
}

#[test]
fn another_thread_is_handed_the_old_address_while_realloc_is_in_flight() {
    let mut bench = Bench::new();
    bench.alloc(0x10, 100, 0).event(Event::Reallocating { call: CallId(1), address: 0x10 });
    bench.alloc(0x10, 7, 1);
    bench.event(Event::Reallocated { call: CallId(1), address: 0x20, size: 200, stack: StackId(0) });
    let statistics = bench.statistics();
    assert_eq!((statistics.unseen_frees, statistics.unexpired), (tally(0, 0), tally(2, 207)));
    bench.free(0x10).free(0x20);
    assert_eq!((bench.statistics().unexpired, bench.statistics().unknown_frees), (tally(0, 0), 0));
}

#[test]
fn a_block_replaced_without_a_seen_free_is_no_leak() {
    let mut bench = Bench::new();
    bench.alloc(0x10, 100, 0).wait(10).alloc(0x10, 7, 1).wait(5);
    assert_eq!(bench.findings(), [expired(1, 0, 100)], "when it was freed is not known, so no time is told");
    let statistics = bench.statistics();
    assert_eq!(statistics.call_stacks, []);
    assert_eq!((statistics.unseen_frees, statistics.unexpired), (tally(1, 100), tally(1, 7)));
}

#[test]
fn frees_of_unknown_blocks_are_ignored_but_counted() {
    let mut bench = Bench::new();
    bench.free(0x10).alloc(0x10, 1, 0).free(0x10).free(0x10);
    assert_eq!(bench.statistics().unknown_frees, 2);
}

#[test]
fn blocks_of_no_bytes_and_of_many() {
    let mut bench = Bench::new();
    let huge = 3 << 30;
    bench.alloc(0x10, 0, 0).alloc(0x20, huge, 0).alloc(0x30, huge, 0).wait(10);
    assert_eq!(bench.findings(), [expired(1, 0, 0), again(1, huge, 2), again(1, huge, 3)]);
    assert_eq!(bench.only_call_stack().may_leak(), tally(3, 6 << 30));
}

#[test]
fn sizes_that_cannot_be_true_do_no_harm() {
    let mut bench = Bench::new();
    bench.alloc(0x10, u64::MAX, 0).alloc(0x20, u64::MAX, 0).map(u64::MAX - 1, u64::MAX).wait(10);
    bench.free(0x20).unmap(1, u64::MAX);
    assert_eq!(bench.only_call_stack().may_leak(), tally(1, u64::MAX));
}

#[test]
fn heap_and_mapping_blocks_do_not_collide() {
    let mut bench = Bench::new();
    bench.map(0x1000, 0x2000).alloc(0x1000, 10, 0).unmap(0x1000, 0x2000);
    assert_eq!(bench.statistics().unexpired, tally(1, 10));
    bench.map(0x1000, 0x2000).free(0x1000);
    assert_eq!(bench.statistics().unexpired, tally(1, 0x2000));
}

#[test]
fn a_mapping_is_one_block_until_its_last_piece_is_gone() {
    let mut bench = Bench::new();
    bench.map(0x10000, 0x5000).wait(10).unmap(0x11000, 0x1000).unmap(0xF000, 0x2000);
    let call_stack = bench.only_call_stack();
    assert_eq!((call_stack.may_leak(), call_stack.freed), (tally(1, 0x3000), tally(0, 0x2000)));
    bench.findings();
    bench.unmap(0x10000, 0x10000);
    assert_eq!(bench.findings(), [freed(1, 10)]);
    assert_eq!(bench.statistics().call_stacks, []);
}

#[test]
fn a_mapping_over_mappings_takes_their_place() {
    let mut bench = Bench::new();
    bench.map(0x10000, 0x2000).map(0x12000, 0x2000).map(0x11000, 0x2000);
    assert_eq!(bench.statistics().unexpired, tally(3, 0x4000));
    bench.map(0x10000, 0x4000);
    assert_eq!(bench.statistics().unexpired, tally(1, 0x4000));
    assert_eq!(bench.statistics().unseen_frees, tally(0, 0), "the kernel unmapped them, nobody missed it");
}

#[test]
fn mremap_in_place_keeps_the_age_and_moved_it_is_new() {
    let mut bench = Bench::new();
    let remapped =
        |from, from_size, address, size| Event::Remapped { from, from_size, address, size, stack: StackId(1) };
    bench.map(0x10000, 0x2000).wait(9).event(remapped(0x10000, 0x2000, 0x10000, 0x4000));
    bench.event(remapped(0x10000, 0x4000, 0x10000, 0x3000)).wait(1);
    assert_eq!(bench.findings(), [expired(1, 0, 0x3000)]);
    bench.event(remapped(0x10000, 0x3000, 0x90000, 0x8000)).wait(9);
    assert_eq!(bench.findings(), [freed(1, 10)]);
    bench.wait(1);
    assert_eq!(bench.findings(), [expired(2, 1, 0x8000)]);
}

#[test]
fn exec_drops_all_blocks_but_leaks_stay_in_the_statistics() {
    let mut bench = Bench::new();
    bench.alloc(0x10, 100, 0).wait(11).alloc(0x20, 5, 1).map(0x1000, 0x1000);
    bench.event(Event::Reallocating { call: CallId(1), address: 0x20 }).event(Event::Replaced).findings();
    bench.event(Event::Reallocated { call: CallId(1), address: 0x20, size: 6, stack: StackId(1) });
    bench.alloc(0x10, 1, 2).unmap(0x1000, 0x1000).wait(5);
    let statistics = bench.statistics();
    assert_eq!((statistics.dropped_by_exec, statistics.unseen_frees), (tally(3, 0x1000 + 105), tally(0, 0)));
    assert_eq!(statistics.unexpired, tally(2, 7));
    let call_stack = bench.only_call_stack();
    assert_eq!((call_stack.may_leak(), call_stack.unfreed_live_time), (tally(1, 100), Duration::from_secs(11)));
}

#[test]
fn losses_are_counted_by_kind() {
    let mut bench = Bench::new();
    for (loss, count) in [(Loss::NoStack, 1), (Loss::NeverReturned, 1), (Loss::NoStack, 5)] {
        bench.event(Event::Lost(loss, count));
    }
    let losses = bench.statistics().losses.into_iter().collect::<Vec<_>>();
    assert_eq!(losses, [(Loss::NeverReturned, 1), (Loss::NoStack, 6)]);
}

#[test]
fn time_that_goes_back_stands_still() {
    let mut bench = Bench::new();
    bench.wait(15).alloc(0x10, 1, 0);
    bench.now = 10;
    bench.alloc(0x20, 1, 0);
    bench.now = 25;
    bench.event(Event::Idle);
    assert_eq!(bench.findings(), [expired(1, 0, 1), again(1, 1, 2)]);
}

#[test]
fn a_live_block_takes_at_most_64_bytes() {
    let mut bench = Bench::new();
    let mut worst = 0;
    for block in 1..=200_000_u64 {
        bench.alloc(block * 16, 16, 0);
        // One chunk of the slab is there from the start.
        if block > 20_000 {
            let memory = bench.tracker.blocks.memory() + bench.tracker.heap.memory();
            worst = worst.max(memory.div_ceil(usize::try_from(block).expect("small")));
        }
    }
    assert!(worst <= 64, "{worst} bytes a block");
}

#[test]
fn freed_slots_are_used_again() {
    let mut bench = Bench::new();
    for round in 0..100 {
        for block in 1..=1000 {
            bench.alloc(block * 16, 16, 0);
        }
        bench.wait(round % 3 * 10);
        for block in 1..=1000 {
            bench.free(block * 16);
        }
    }
    assert_eq!(bench.tracker.blocks.memory(), Bench::new().alloc(1, 1, 0).tracker.blocks.memory());
}

/// Totals of a call stack of 10-byte blocks, by numbers: allocated, freed, expired, freed after expiry.
fn totals(allocated: u64, freed: u64, expired: u64, freed_expired: u64) -> Totals {
    let of = |count: u64| tally(count, 10 * count);
    Totals {
        allocated: of(allocated),
        freed: of(freed),
        expired: of(expired),
        freed_expired: of(freed_expired),
        last_expired: 10,
        last_freed_expired: Duration::from_secs(30),
        lives: (Duration::from_secs(1), Duration::from_secs(30), Duration::from_secs(31 * freed)),
        ..Totals::default()
    }
}

impl Bench {
    fn counted(&mut self, stack: u32, totals: Totals) -> &mut Bench {
        self.tracker.counted(Timestamp(self.now * SECOND), StackId(stack), &totals);
        self
    }
}

#[test]
fn what_a_source_counts_is_found_and_reported_like_what_it_tells_of() {
    let mut bench = Bench::new();
    bench.counted(4, totals(5, 0, 0, 0));
    assert_eq!((bench.findings(), bench.statistics().unexpired), (vec![], tally(5, 50)));
    bench.wait(10).counted(4, totals(6, 0, 1, 0)).counted(4, totals(6, 0, 3, 0)).counted(2, totals(9, 0, 2, 0));
    assert_eq!(bench.findings(), [expired(1, 4, 10), again(1, 10, 3), expired(2, 2, 10), again(2, 10, 2)]);
    bench.counted(4, totals(6, 1, 3, 1));
    assert_eq!(bench.findings(), [freed(1, 30)]);
    let muted = Finding::Muted { callstack: CallStackNumber(1) };
    bench.counted(4, totals(7, 3, 4, 3));
    assert_eq!(bench.findings(), [again(1, 10, 4), freed(1, 30), muted]);
    bench.counted(4, totals(8, 3, 5, 3));
    assert_eq!(bench.findings(), [], "muted");
    let statistics = bench.statistics();
    assert_eq!(statistics.unexpired, tally(3 + 7, 30 + 70));
    let [first, second] = &statistics.call_stacks[..] else { panic!("two call stacks: {statistics:?}") };
    assert_eq!([first.may_leak(), second.may_leak()], [tally(2, 20), tally(2, 20)]);
    assert_eq!(first.freed_live_time.map(|time| time.average), Some(Duration::from_secs(31)));
}

#[test]
fn what_a_source_counts_reaches_the_limits() {
    let mut bench = Bench::with_limits(3, 2);
    bench.counted(0, totals(9, 0, 2, 0));
    assert_eq!(bench.tracker.limit_reached(), None);
    bench.counted(0, totals(9, 0, 5, 1));
    let limit = Limit::ExpiredBlocks { callstack: CallStackNumber(1), count: 5, freed: 0 };
    assert_eq!(bench.tracker.limit_reached(), Some(limit));
    let mut bench = Bench::with_limits(1000, 2);
    bench.counted(0, totals(1, 0, 1, 0)).counted(1, totals(1, 0, 1, 0)).counted(2, totals(1, 0, 1, 0));
    assert_eq!(bench.tracker.limit_reached(), Some(Limit::CallStacks { count: 2 }));
}

#[test]
fn what_a_source_could_not_see_is_reported() {
    let mut bench = Bench::new();
    let unseen_frees = tally(2, 20);
    bench.counted(0, Totals { unseen_frees, ..totals(5, 1, 0, 0) }).event(Event::UnknownFrees(7));
    let statistics = bench.statistics();
    assert_eq!((statistics.unseen_frees, statistics.unexpired), (unseen_frees, tally(2, 20)));
    assert_eq!(statistics.unknown_frees, 7);
}

#[test]
fn a_forked_process_has_its_parents_blocks_and_its_own() {
    let mut parent = Bench::new();
    parent.alloc(1, 10, 0).alloc(2, 20, 0).alloc(3, 30, 0).alloc(4, 40, 0).free(4);
    let mut child = Bench::new();
    child.tracker = parent.tracker.forked(parent.tracker.limits);
    child.free(1).free(4).alloc(5, 50, 7);
    let call = CallId(1);
    child.event(Event::Reallocating { call, address: 2 }).event(Event::ReallocFailed { call });
    child.event(Event::Reallocating { call, address: 2 });
    child.event(Event::Reallocated { call, address: 6, size: 60, stack: StackId(7) });
    let of = child.tracker.inheritance();
    assert_eq!((of.all, of.freed), (tally(3, 60), tally(2, 30)));
    let statistics = child.statistics();
    assert_eq!((statistics.never_freed, statistics.unknown_frees), (tally(2, 110), 1));
    let grandchild = child.tracker.forked(parent.tracker.limits).inheritance();
    assert_eq!((grandchild.all, grandchild.freed), (tally(3, 140), tally(0, 0)));
}

#[test]
fn an_exec_takes_away_what_a_source_counts() {
    let mut bench = Bench::new();
    bench.counted(0, Totals { oldest: Some(Timestamp(0)), ..totals(5, 2, 1, 0) }).wait(20);
    let dropped = tally(3, 30);
    bench.counted(0, Totals { dropped, ..totals(6, 2, 0, 0) }).event(Event::Replaced);
    bench.counted(0, Totals { dropped, ..totals(7, 2, 0, 0) });
    let statistics = bench.statistics();
    assert_eq!((statistics.dropped_by_exec, statistics.never_freed), (tally(3, 30), tally(2, 20)));
    assert_eq!(statistics.call_stacks[0].unfreed_live_time, Duration::from_secs(20));
    assert_eq!(statistics.call_stacks[0].expired, tally(1, 10), "it did leak");
}

#[test]
fn ages_are_counted_by_powers_of_two_of_seconds() {
    let mut bench = Bench::new();
    bench.alloc(0x10, 1, 2).wait(3).alloc(0x20, 1, 2).alloc(0x30, 1, 0).wait(1).alloc(0x40, 1, 2).free(0x30);
    assert_eq!(bench.tracker.ages(), [(StackId(2), Histogram::from_buckets(vec![1, 1, 0, 1]))]);
}
