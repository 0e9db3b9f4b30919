//! Code that is no file's, and targets in which no code can be mapped.

use super::super::fake::{Action, JIT};
use super::super::isa::native;
use super::*;
use crate::event::Loss;

/// Maps `call malloc; mov rbx, rax; hlt` at an address where no file is.
fn map_jit(rig: &mut Rig) -> u64 {
    rig.machine().map_anonymous(JIT, 0x1000, true);
    write_jit(rig, JIT + 0x100);
    JIT + 0x100
}

fn write_jit(rig: &mut Rig, at: u64) {
    let malloc = rig.machine().label("/program", "malloc");
    // `mov rax, malloc; call rax; mov rbx, rax; hlt`
    let mut code = vec![0x48, 0xb8];
    code.extend(malloc.to_le_bytes());
    code.extend([0xff, 0xd0, 0x48, 0x89, 0xc3, 0xf4]);
    rig.machine().peek(TARGET, at, code.len()).expect("mapped memory").copy_from_slice(&code);
}

#[test]
fn a_breakpoint_in_code_made_at_run_time_stays_only_while_a_call_is_awaited() {
    let mut rig = rig();
    let code = map_jit(&mut rig);
    let site = code + 12;
    for _ in 0..2 {
        rig.at_address(MAIN, code, &[64]);
        rig.trap(MAIN);
        rig.handle();
        assert_eq!(rig.machine().peek(TARGET, site, 1).expect("code")[0], native::BREAKPOINT);
        assert_eq!(rig.run(MAIN), 1);
        assert_eq!(rig.machine().peek(TARGET, site, 1).expect("code")[0], 0x48);
        assert_eq!(rig.machine().thread(MAIN).rbx, BLOCK);
    }
    assert_eq!(rig.events(), [allocated(0), allocated(0)]);
    rig.detach(&[TARGET]);
}

#[test]
fn two_threads_awaited_at_code_made_at_run_time() {
    let mut rig = rig();
    let code = map_jit(&mut rig);
    let other = Tid(101);
    rig.machine().add_thread(TARGET, other);
    for tid in [MAIN, other] {
        rig.at_address(tid, code, &[64]);
        rig.trap(tid);
        rig.handle();
    }
    // Both have hit the breakpoint before the first report is handled.
    rig.trap(MAIN);
    rig.trap(other);
    rig.handle();
    assert_eq!(rig.events().len(), 2);
    for tid in [MAIN, other] {
        assert_eq!(rig.run(tid), 0);
        assert_eq!(rig.machine().thread(tid).rbx, BLOCK);
    }
}

#[test]
fn a_thread_that_hit_a_breakpoint_just_before_it_was_lifted_repeats_the_instruction() {
    let mut rig = rig();
    let code = map_jit(&mut rig);
    let other = Tid(101);
    rig.machine().add_thread(TARGET, other);
    rig.at_address(MAIN, code, &[64]);
    rig.trap(MAIN);
    rig.handle();
    rig.trap(MAIN);
    // Not by a call of its own.
    rig.at_address(other, code + 12, &[]);
    rig.trap(other);
    rig.handle();
    assert_eq!(rig.machine().thread(other).rip, code + 12);
    assert_eq!(rig.run(other), 0);
}

#[test]
fn a_child_forked_before_a_breakpoint_was_lifted_is_cleaned_of_it() {
    let mut rig = rig();
    let code = map_jit(&mut rig);
    let child = Pid(200);
    rig.at_address(MAIN, code, &[64]);
    rig.trap(MAIN);
    rig.handle();
    rig.trap(MAIN);
    rig.machine().fork(MAIN, child);
    // The parent's return is handled first, and lifts the breakpoint.
    rig.handle();
    assert_eq!(rig.machine().peek(child, code + 12, 1).expect("code")[0], 0x48);
}

#[test]
fn a_return_site_that_somebody_patched_is_a_loss_and_said_once() {
    let mut rig = rig();
    rig.warnings();
    let site = rig.machine().label("/program", "call_malloc") + 5;
    rig.machine().peek(TARGET, site, 1).expect("text")[0] = 0x90;
    rig.call("call_malloc", &[64]);
    rig.call("call_malloc", &[64]);
    assert_eq!(rig.events(), [Event::Lost(Loss::ReturnUnobservable, 1); 2]);
    let warnings = rig.warnings();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("differs from the file"), "{warnings:?}");
}

#[test]
fn where_no_code_can_be_mapped_instructions_are_emulated() {
    let mut machine = Machine::new();
    machine.facts.remote_calls_refused = Some("a seccomp filter is installed".into());
    machine.refuse_code = true;
    let mut rig = attach(machine);
    assert!(rig.warnings()[0].contains("seccomp"));
    assert_eq!(rig.call("call_malloc", &[64]), 2);
    assert_eq!(rig.call("call_malloc_twice", &[64]), 4);
    assert_eq!(rig.call("call_free", &[BLOCK]), 1);
    assert_eq!(rig.events().len(), 4);
    assert_eq!(rig.machine().thread(MAIN).rbx, BLOCK);
    assert!(rig.machine().guarded.is_empty());
    rig.detach(&[TARGET]);
}

#[test]
fn what_cannot_be_emulated_is_stepped_over_while_all_others_are_halted() {
    let mut machine = Machine::new();
    machine.facts.remote_calls_refused = Some("a seccomp filter is installed".into());
    machine.refuse_code = true;
    let other = Tid(101);
    machine.add_thread(TARGET, other);
    let mut rig = attach(machine);
    assert_eq!(rig.call("call_valloc", &[64]), 2);
    assert_eq!(rig.events(), [allocated(0)]);
    assert!(!rig.machine().is_stopped(other));
    let valloc = rig.machine().label("/program", "valloc");
    assert!(rig.machine().patched(TARGET).contains(&valloc));
}

/// As on a system where only a thread that has trapped can make system calls for the tracer.
#[test]
fn a_slot_that_could_not_be_made_at_attach_is_made_at_the_first_hit() {
    let mut machine = Machine::new();
    machine.lacks_guard = true;
    machine.maps_in_traps_only = true;
    let mut rig = attach(machine);
    assert_eq!(rig.machine().actions, []);
    for expected in [1, 0, 0] {
        assert_eq!(rig.call("call_valloc", &[64]), 2);
        assert_eq!(rig.events(), [allocated(0)]);
        let actions = std::mem::take(&mut rig.machine().actions);
        assert_eq!(actions.iter().filter(|action| matches!(action, Action::MappedCode(_))).count(), expected);
    }
    // One that nobody has met has no slot, and none is in anybody's way at the end.
    rig.machine().maps_in_traps_only = false;
    rig.detach(&[TARGET]);
}

#[test]
fn a_refused_mapping_alone_leads_to_emulation_too() {
    let mut machine = Machine::new();
    machine.refuse_code = true;
    let mut rig = attach(machine);
    assert_eq!(rig.call("call_malloc", &[64]), 2);
    assert_eq!(rig.events(), [allocated(0)]);
}
