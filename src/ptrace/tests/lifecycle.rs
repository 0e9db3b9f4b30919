//! Attaching and detaching.

use memleax_platform::{Leftover, Resume};

use super::super::fake::Action;
use super::*;

#[test]
fn detaching_restores_every_byte_and_removes_slots_and_guard() {
    let mut rig = rig();
    rig.call("call_malloc", &[64]);
    rig.machine().actions.clear();
    rig.detach(&[TARGET]);
    assert!(
        matches!(
            rig.engine.tracer.actions[..],
            [Action::RemovedGuard(TARGET), Action::UnmappedCode(_), Action::UnmappedCode(_), Action::Detached(MAIN, _)]
        ),
        "{:?}",
        rig.engine.tracer.actions
    );
}

#[test]
fn detaching_puts_a_thread_at_a_breakpoint_back() {
    let mut rig = rig();
    rig.at(MAIN, "call_malloc", &[64]);
    rig.trap(MAIN);
    rig.detach(&[TARGET]);
    let malloc = rig.machine().label("/program", "malloc");
    assert_eq!(rig.machine().thread(MAIN).rip, malloc);
    assert_eq!(rig.engine.tracer.actions.last(), Some(&Action::Detached(MAIN, Resume::Swallow)));
    assert_eq!(rig.machine().run(MAIN), Ran::Rested);
}

#[test]
fn a_thread_that_could_not_be_followed_is_let_go_by_detach() {
    let mut rig = rig();
    rig.at(MAIN, "call_malloc", &[64]);
    rig.trap(MAIN);
    rig.machine().refuse_registers = true;
    let report = rig.machine().wait().expect("the fake can wait");
    let mut now = Now { at: Timestamp(1), sink: &mut rig.recorder };
    assert!(rig.engine.handle(report, &mut now).is_err());
    rig.machine().refuse_registers = false;
    rig.detach(&[TARGET]);
    assert_eq!(rig.machine().run(MAIN), Ran::Rested);
}

#[test]
fn detaching_takes_threads_out_of_slots() {
    let mut rig = rig();
    rig.at(MAIN, "call_malloc", &[64]);
    rig.trap(MAIN);
    rig.handle();
    rig.detach(&[TARGET]);
    assert_eq!(rig.engine.tracer.actions.last(), Some(&Action::Detached(MAIN, Resume::Deliver)));
    assert_eq!(rig.machine().run(MAIN), Ran::Rested);
    assert_eq!(rig.machine().thread(MAIN).rbx, BLOCK);
}

#[test]
fn detaching_delivers_a_signal_and_a_trap_that_are_not_ours() {
    for stop in [|machine: &mut Machine| machine.send(MAIN, 15), |machine: &mut Machine| machine.send_trap(MAIN)] {
        let mut rig = rig();
        stop(rig.machine());
        rig.detach(&[TARGET]);
        assert_eq!(rig.engine.tracer.actions.last(), Some(&Action::Detached(MAIN, Resume::Deliver)));
    }
}

#[test]
fn a_breakpoint_that_somebody_took_out_is_told() {
    let mut rig = rig();
    let malloc = rig.machine().label("/program", "malloc");
    let original = rig.engine.breakpoints.get(malloc).expect("a breakpoint").original;
    rig.machine().peek(TARGET, malloc, 1).expect("text")[0] = original;
    let problems = rig.engine.detach();
    assert!(problems.len() == 1 && problems[0].ends_with("of malloc, calls are missing since then"), "{problems:?}");
    assert_eq!(rig.machine().patched(TARGET), [0; 0]);
}

#[test]
fn detaching_leaves_bytes_that_somebody_else_wrote() {
    let mut rig = rig();
    let malloc = rig.machine().label("/program", "malloc");
    rig.machine().peek(TARGET, malloc, 1).expect("text")[0] = 0x90;
    assert_eq!(rig.engine.detach(), Vec::<String>::new());
    assert_eq!(rig.machine().patched(TARGET), [malloc]);
}

#[test]
fn code_that_differs_from_its_file_is_refused_and_everything_undone() {
    let mut machine = Machine::new();
    let free = machine.label("/program", "free");
    machine.peek(TARGET, free, 1).expect("text")[0] = 0xcc;
    let error = try_attach(machine).map(|_| ()).expect_err("somebody else's breakpoint");
    let text = error.to_string();
    assert!(text.contains("cannot hook free of /program") && text.contains(&format!("{free:#x}")), "{text}");
}

#[test]
fn a_failed_attach_lets_every_thread_go() {
    let mut machine = Machine::new();
    let free = machine.label("/program", "free");
    machine.peek(TARGET, free, 1).expect("text")[0] = 0xcc;
    machine.add_thread(TARGET, Tid(101));
    let mut engine = Engine::new(machine, settings(), Box::new(|_| None));
    let stops = engine.tracer.halt(TARGET).expect("a live target");
    assert!(engine.prepare(&stops).is_err());
    assert_eq!(engine.release(stops), Vec::<String>::new());
    assert_eq!(engine.tracer.patched(TARGET), [free]);
    for tid in [MAIN, Tid(101)] {
        assert!(!engine.tracer.is_stopped(tid));
        assert!(engine.tracer.actions.contains(&Action::Detached(tid, Resume::Deliver)));
    }
}

#[test]
fn without_an_allocator_the_modules_searched_are_named() {
    let mut machine = Machine::new();
    machine.unmap("/program");
    let error = try_attach(machine).map(|_| ()).expect_err("no allocator");
    assert_eq!(
        error.to_string(),
        "cannot find an allocator in process 100: searched /interpreter; the program allocates by functions of other \
         names, or has not loaded its C library yet: try again later"
    );
}

#[test]
fn a_program_that_is_still_being_loaded_is_waited_for() {
    let mut machine = Machine::new();
    machine.unmap("/program");
    machine.thread(MAIN).rip = machine.label("/interpreter", "tell");
    let mut rig = attach(machine);
    assert!(rig.warnings()[0].contains("still loading"));
    rig.machine().map_plugin();
    assert_eq!(rig.run(MAIN), 1);
    let site = rig.machine().label("/plugin", "call_mi_malloc");
    rig.at_address(MAIN, site, &[64]);
    assert_eq!(rig.run(MAIN), 2);
    assert_eq!(rig.events().len(), 1);
}

#[test]
fn breakpoints_of_a_killed_tracer_are_taken_out_first() {
    let mut machine = Machine::new();
    let malloc = machine.label("/program", "malloc");
    let original = std::mem::replace(&mut machine.peek(TARGET, malloc, 1).expect("text")[0], 0xcc);
    machine.leftovers.push(Leftover { address: malloc, original });
    let mut rig = attach(machine);
    assert_eq!(rig.call("call_malloc", &[64]), 2);
    rig.detach(&[TARGET]);
}

#[test]
fn a_thread_that_had_just_hit_a_leftover_breakpoint_repeats_the_instruction() {
    let mut machine = Machine::new();
    let site = machine.label("/program", "rest");
    let original = std::mem::replace(&mut machine.peek(TARGET, site, 1).expect("text")[0], 0xcc);
    machine.leftovers.push(Leftover { address: site, original });
    machine.thread(MAIN).rip = site;
    assert_eq!(machine.run(MAIN), Ran::Trapped);
    let mut rig = attach(machine);
    assert_eq!(rig.machine().thread(MAIN).rip, site);
    assert_eq!(rig.run(MAIN), 0);
}

#[test]
fn children_go_on_while_a_target_in_vfork_is_waited_for() {
    let mut machine = Machine::new();
    let child = Pid(200);
    machine.vfork(MAIN, child);
    let mut engine = Engine::new(machine, settings(), Box::new(|_| None));
    // The child never calls exec: in the end it is given up.
    assert_eq!(engine.halt_first().expect("a live target"), []);
    assert_eq!(engine.tracer.actions, [Action::Resumed(Tid(child.0), Resume::Deliver)]);
    assert!(engine.sharing.contains(&child));
}

#[test]
fn threads_that_block_the_trap_are_made_to_take_it() {
    let mut machine = Machine::new();
    machine.add_thread(TARGET, Tid(101));
    machine.facts.threads_blocking_trap = vec![Tid(101)];
    let mut engine = Engine::new(machine, settings(), Box::new(|_| None));
    let stops = engine.tracer.halt(TARGET).expect("a live target");
    engine.prepare(&stops).expect("a target that can be observed");
    assert!(engine.tracer.actions.contains(&Action::UnblockedTrap(Tid(101))));
    assert!(!engine.tracer.actions.contains(&Action::UnblockedTrap(MAIN)));
    assert_eq!(engine.release(stops), Vec::<String>::new());
}

#[test]
fn what_cannot_be_protected_is_said() {
    let mut machine = Machine::new();
    machine.facts.threads_blocking_trap = vec![MAIN];
    machine.trap_pending = true;
    let mut rig = attach(machine);
    let warnings = rig.warnings();
    assert!(warnings[0].contains("SIGTRAP is blocked and pending in thread 100"), "{warnings:?}");
}
