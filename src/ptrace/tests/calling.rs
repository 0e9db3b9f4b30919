//! Calls into the allocator: entries, returns, and what they mean.

use super::super::fake::{DATA, STATUS};
use super::*;
use crate::event::{CallId, Loss};
use crate::source::Notice;

#[test]
fn a_pair_costs_three_stops_and_one_stack_read() {
    let mut rig = rig();
    for _ in 0..2 {
        assert_eq!(rig.call("call_malloc", &[64]), 2);
        assert_eq!(rig.call("call_free", &[BLOCK]), 1);
        assert_eq!(rig.events(), [allocated(0), Event::Freed { address: BLOCK }]);
    }
    let counters = rig.engine.counters;
    assert_eq!((counters.stops, counters.stack_reads, counters.extra_reads), (6, 2, 0));
    assert_eq!(rig.machine().thread(MAIN).rbx, BLOCK);
}

#[test]
fn a_stack_is_named_by_entry_and_call_site() {
    let mut rig = rig();
    rig.call("call_malloc", &[64]);
    rig.call("call_malloc_deeper", &[64]);
    assert_eq!(rig.events(), [allocated(0), allocated(1)]);
    let malloc =
        rig.machine().label("/program", "malloc") - rig.machine().label("/program", "malloc").wrapping_sub(0x1000);
    let site = rig.machine().label("/program", "call_malloc") + 5;
    let bias = rig.machine().label("/program", "malloc") - malloc;
    assert_eq!(rig.callers(StackId(0))[..2], [malloc, site - bias]);
}

#[test]
fn a_failed_malloc_is_no_event() {
    let mut rig = rig();
    rig.machine().poke(RESULT, 0);
    rig.call("call_malloc", &[64]);
    assert_eq!(rig.events(), []);
}

#[test]
fn free_of_null_is_no_event() {
    let mut rig = rig();
    assert_eq!(rig.call("call_free", &[0]), 1);
    assert_eq!(rig.events(), []);
}

#[test]
fn calloc_multiplies_and_its_tail_call_of_malloc_counts_once() {
    let mut rig = rig();
    rig.call("call_calloc", &[8, 8]);
    assert_eq!(rig.events(), [allocated(0)]);
    rig.call("call_calloc", &[u64::MAX, 8]);
    // The overflow fails in a real calloc; here malloc is called and must be counted.
    assert_eq!(rig.events().len(), 1);
}

#[test]
fn realloc_moves_resizes_fails_and_frees() {
    let mut rig = rig();
    let old = 0xa0000;
    let call = CallId;
    let reallocating = |n| Event::Reallocating { call: call(n), address: old };

    // Its own malloc and free are part of it.
    rig.call("call_realloc", &[old, 64]);
    let moved = Event::Reallocated { call: call(1), address: BLOCK, size: 64, stack: StackId(0) };
    assert_eq!(rig.events(), [reallocating(1), moved]);

    rig.machine().poke(RESULT, old);
    rig.call("call_realloc", &[old, 64]);
    let in_place = Event::Reallocated { call: call(2), address: old, size: 64, stack: StackId(0) };
    assert_eq!(rig.events(), [reallocating(2), in_place]);

    rig.machine().poke(RESULT, 0);
    rig.call("call_realloc", &[old, 64]);
    assert_eq!(rig.events(), [reallocating(3), Event::ReallocFailed { call: call(3) }]);

    rig.call("call_realloc", &[old, 0]);
    assert_eq!(rig.events(), [reallocating(4), Event::ReallocFreed { call: call(4) }]);

    rig.machine().poke(RESULT, BLOCK);
    rig.call("call_realloc", &[0, 64]);
    assert_eq!(rig.events(), [allocated(0)]);
}

#[test]
fn posix_memalign_stores_its_result() {
    let mut rig = rig();
    let out = DATA + 64;
    rig.call("call_memalign", &[out, 16, 64]);
    assert_eq!(rig.events(), [allocated(0)]);
    rig.machine().poke(STATUS, 0xffff_ffff_0000_000c);
    rig.call("call_memalign", &[out, 16, 64]);
    assert_eq!(rig.events(), []);
}

#[test]
fn a_release_that_calls_free_counts_once() {
    let mut rig = rig();
    for _ in 0..3 {
        assert_eq!(rig.call("call_cfree", &[BLOCK]), 2);
        assert_eq!(rig.events(), [Event::Freed { address: BLOCK }]);
    }
    // From the second time on it is known that cfree calls free, so the return address tells its calls apart.
    rig.call("call_free", &[BLOCK]);
    assert_eq!(rig.events(), [Event::Freed { address: BLOCK }]);
}

#[test]
fn recursion_counts_each_call() {
    let mut rig = rig();
    rig.at(MAIN, "call_malloc", &[64]);
    rig.trap(MAIN);
    rig.handle();
    // malloc's own call of malloc, from within: passed over.
    let outer = *rig.machine().thread(MAIN);
    rig.machine().thread(MAIN).rsp -= 0x80;
    rig.call("call_malloc", &[32]);
    assert_eq!(rig.events(), []);
    // Back in the outer call.
    *rig.machine().thread(MAIN) = outer;
    rig.run(MAIN);
    assert_eq!(rig.events(), [allocated(0)]);
}

#[test]
fn a_new_that_an_exception_left_is_no_loss_and_its_repetition_counts() {
    let mut rig = rig();
    rig.at(MAIN, "call_new", &[1 << 60]);
    let before = *rig.machine().thread(MAIN);
    rig.trap(MAIN);
    rig.handle();
    // operator new throws: the handler frees memory and tries again.
    *rig.machine().thread(MAIN) = before;
    rig.call("call_new", &[64]);
    assert_eq!(rig.events(), [allocated(0)]);
}

#[test]
fn a_longjmp_out_of_a_call_is_noticed_in_an_outer_frame() {
    let mut rig = rig();
    let outer = *rig.machine().thread(MAIN);
    rig.machine().thread(MAIN).rsp -= 0x100;
    rig.at(MAIN, "call_realloc", &[0xa0000, 64]);
    rig.trap(MAIN);
    rig.handle();
    *rig.machine().thread(MAIN) = outer;
    rig.call("call_malloc", &[64]);
    assert_eq!(
        rig.events(),
        [
            Event::Reallocating { call: CallId(1), address: 0xa0000 },
            Event::ReallocFailed { call: CallId(1) },
            Event::Lost(Loss::NeverReturned, 1),
            allocated(1)
        ]
    );
}

#[test]
fn a_longjmp_is_noticed_in_a_deeper_frame_that_wrote_over_the_return_address() {
    let mut rig = rig();
    let outer = *rig.machine().thread(MAIN);
    rig.at(MAIN, "call_malloc", &[64]);
    rig.trap(MAIN);
    rig.handle();
    *rig.machine().thread(MAIN) = outer;
    rig.machine().poke(outer.rsp - 8, 0);
    rig.call("call_malloc_deeper", &[64]);
    assert_eq!(rig.events(), [Event::Lost(Loss::NeverReturned, 1), allocated(1)]);
}

#[test]
fn a_return_site_passed_without_a_call_means_nothing() {
    let mut rig = rig();
    rig.call("call_malloc", &[64]);
    rig.events();
    let site = rig.machine().label("/program", "call_malloc") + 5;
    rig.at_address(MAIN, site, &[]);
    assert_eq!(rig.run(MAIN), 1);
    assert_eq!(rig.events(), []);
}

#[test]
fn a_thread_that_ends_within_a_call_loses_it() {
    let mut rig = rig();
    let other = Tid(101);
    rig.machine().add_thread(TARGET, other);
    rig.at(other, "call_realloc", &[0xa0000, 64]);
    rig.trap(other);
    rig.handle();
    rig.machine().end_thread(other);
    rig.handle();
    assert_eq!(
        rig.events(),
        [
            Event::Reallocating { call: CallId(1), address: 0xa0000 },
            Event::ReallocFailed { call: CallId(1) },
            Event::Lost(Loss::NeverReturned, 1)
        ]
    );
    assert_eq!(rig.progress, Progress::Running);
}

#[test]
fn threads_are_told_apart() {
    let mut rig = rig();
    let other = Tid(101);
    rig.machine().add_thread(TARGET, other);
    rig.at(MAIN, "call_malloc", &[64]);
    rig.at(other, "call_malloc", &[64]);
    rig.trap(MAIN);
    rig.trap(other);
    rig.handle();
    rig.trap(other);
    rig.trap(MAIN);
    rig.handle();
    assert_eq!(rig.events(), [allocated(0), allocated(0)]);
}

#[test]
fn a_call_whose_stack_is_unreadable_is_lost() {
    let mut rig = rig();
    rig.at(MAIN, "malloc", &[64]);
    rig.machine().thread(MAIN).rsp = 0x10;
    rig.trap(MAIN);
    rig.handle();
    assert_eq!(rig.events(), [Event::Lost(Loss::NoStack, 1)]);
}

#[test]
fn a_function_that_the_user_has_named_is_told_of_between_what_comes_before_and_after() {
    let markers = Markers::new(&["rest".into(), "malloc".into(), "call_fre".into()], &["free".into(), "rest".into()]);
    let mut rig =
        try_attach_with(Machine::new(), Settings { markers, ..settings() }).expect("a target that can be observed");
    rig.call("call_malloc", &[64]);
    assert_eq!(rig.call("rest", &[]), 1);
    rig.call("call_free", &[BLOCK]);
    let allocated = Event::Allocated { address: BLOCK, size: 64, stack: StackId(0) };
    let called = |reference| Event::Called { reference, count: 1 };
    let freed = Event::Freed { address: BLOCK };
    assert_eq!(rig.events(), [Event::Marked(1), allocated, called(1), Event::Marked(0), called(0), freed]);
    let warning = "no function call_fre yet: snapshots are taken at its calls once a library is loaded that has a symbol of that name; like it are call_free";
    assert!(
        rig.engine.notices.iter().any(|notice| matches!(notice, Notice::Warning(text) if text.starts_with(warning))),
        "{:?}",
        rig.engine.notices
    );
    rig.detach(&[TARGET]);
}
