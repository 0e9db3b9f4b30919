//! Signals, and threads that are found in a slot.

use memleax_platform::Resume;

use super::super::fake::Action;
use super::*;

#[test]
fn a_signal_between_entry_and_return_is_delivered() {
    let mut rig = rig();
    rig.at(MAIN, "call_malloc", &[64]);
    rig.trap(MAIN);
    rig.handle();
    rig.machine().actions.clear();
    // In the function's body, behind the slot.
    rig.machine().thread(MAIN).rip = rig.engine.tracer.label("/program", "malloc") + 2;
    rig.machine().thread(MAIN).rsp -= 8;
    rig.machine().send(MAIN, 10);
    rig.handle();
    assert_eq!(rig.engine.tracer.actions, [Action::Resumed(MAIN, Resume::Deliver)]);
    rig.run(MAIN);
    assert_eq!(rig.events(), [allocated(0)]);
}

#[test]
fn a_signal_never_meets_a_slot_and_the_entry_counts_once() {
    let mut rig = rig();
    rig.at(MAIN, "call_malloc", &[64]);
    let malloc = rig.machine().label("/program", "malloc");
    rig.trap(MAIN);
    rig.handle();
    assert_ne!(rig.machine().thread(MAIN).rip, malloc);
    rig.machine().send(MAIN, 10);
    rig.handle();
    assert_eq!(rig.machine().thread(MAIN).rip, malloc);
    // The breakpoint is hit once more, then the return.
    assert_eq!(rig.run(MAIN), 2);
    assert_eq!(rig.events(), [allocated(0)]);
}

#[test]
fn a_release_interrupted_in_its_slot_counts_once() {
    let mut rig = rig();
    rig.at(MAIN, "call_free", &[BLOCK]);
    rig.trap(MAIN);
    rig.handle();
    rig.machine().send(MAIN, 10);
    rig.handle();
    // The handler allocates and frees, further down the stack.
    let interrupted = *rig.machine().thread(MAIN);
    rig.machine().thread(MAIN).rsp -= 0x200;
    rig.call("call_malloc", &[64]);
    rig.call("call_free", &[BLOCK]);
    *rig.machine().thread(MAIN) = interrupted;
    assert_eq!(rig.run(MAIN), 1);
    let freed = Event::Freed { address: BLOCK };
    assert_eq!(rig.events(), [freed, allocated(0), freed]);
}

#[test]
fn a_signal_in_the_middle_of_a_displaced_call_takes_back_what_it_pushed() {
    let mut rig = rig();
    rig.at(MAIN, "call_malloc_twice", &[64]);
    let before = *rig.machine().thread(MAIN);
    for _ in 0..2 {
        rig.trap(MAIN);
        rig.handle();
    }
    // At the return of the first call, which is the second call; its slot has pushed one word.
    let slot = rig.machine().thread(MAIN).rip;
    rig.machine().thread(MAIN).rip = slot + 5;
    rig.machine().thread(MAIN).rsp -= 8;
    rig.machine().send(MAIN, 10);
    rig.handle();
    assert_eq!(rig.machine().thread(MAIN).rsp, before.rsp);
    assert_eq!(rig.machine().thread(MAIN).rip, before.rip + 5);
    rig.run(MAIN);
    assert_eq!(rig.events(), [allocated(0), allocated(1)]);
    assert_eq!(rig.callers(StackId(1))[1], rig.callers(StackId(0))[1] + 5);
}

#[test]
fn behind_the_displaced_instruction_is_behind_the_original() {
    let mut rig = rig();
    rig.at(MAIN, "call_free", &[BLOCK]);
    rig.trap(MAIN);
    rig.handle();
    // `test rdi, rdi` is 3 bytes long.
    rig.machine().thread(MAIN).rip += 3;
    rig.machine().send(MAIN, 10);
    rig.handle();
    let free = rig.machine().label("/program", "free");
    assert_eq!(rig.machine().thread(MAIN).rip, free + 3);
    assert_eq!(rig.run(MAIN), 0);
}

#[test]
fn the_programs_own_breakpoints_and_traps_are_delivered() {
    let mut rig = rig();
    rig.at(MAIN, "int3", &[]);
    rig.trap(MAIN);
    rig.handle();
    assert_eq!(rig.engine.tracer.actions, [Action::Resumed(MAIN, Resume::Deliver)]);
    let after = rig.machine().label("/program", "int3") + 1;
    assert_eq!(rig.machine().thread(MAIN).rip, after);

    rig.machine().actions.clear();
    rig.machine().send_trap(MAIN);
    rig.handle();
    assert_eq!(rig.engine.tracer.actions, [Action::Resumed(MAIN, Resume::Deliver)]);
}

#[test]
fn a_trap_sent_just_behind_a_short_breakpoint_is_not_ours() {
    let mut rig = rig();
    // `push rbx` is as long as an int3.
    let behind = rig.machine().label("/program", "_Znwm") + 1;
    rig.at_address(MAIN, behind, &[64]);
    rig.machine().send_trap(MAIN);
    rig.handle();
    assert_eq!(rig.machine().thread(MAIN).rip, behind);
    assert_eq!(rig.engine.tracer.actions, [Action::Resumed(MAIN, Resume::Deliver)]);
}

#[test]
fn the_guard_is_put_back_when_the_target_takes_it_away() {
    let mut rig = rig();
    rig.tick();
    assert_eq!(rig.machine().actions, []);
    rig.machine().guard_lost = true;
    rig.tick();
    assert_eq!(rig.engine.tracer.actions, [Action::InstalledGuard, Action::Resumed(MAIN, Resume::Swallow)]);
}
