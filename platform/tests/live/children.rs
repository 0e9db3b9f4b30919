//! Processes that the target creates, and programs that it executes.

use memleax_platform::linux::LinuxTracer;
use memleax_platform::{Pid, Report, Resume, Stop, StopKind, Tracer};

use crate::target::{Target, attached, deliver, detach_all, resume};

const INT3: u8 = 0xcc;
const NOP: u8 = 0x90;

fn insert(tracer: &mut LinuxTracer, pid: Pid, address: u64) {
    for stop in tracer.halt(pid).expect("halted") {
        tracer.write(&stop, address, &[INT3]).expect("written");
        resume(tracer, stop, Resume::Deliver);
    }
}

/// What the engine does: a copy is cleaned and let go; one that shares the memory is kept until it executes a program.
fn follow(tracer: &mut LinuxTracer, main: Pid, address: u64, stop: Stop) -> &'static str {
    match stop.kind {
        StopKind::Forked { .. } => {
            tracer.write(&stop, address, &[NOP]).expect("written");
            tracer.detach(stop, Resume::Swallow).expect("detached");
            "forked"
        }
        StopKind::SharingChild { .. } => {
            resume(tracer, stop, Resume::Swallow);
            "shares"
        }
        StopKind::Exec if stop.pid != main => {
            tracer.detach(stop, Resume::Swallow).expect("detached");
            "exec"
        }
        StopKind::Trap if tracer.registers(&stop).is_ok_and(|registers| registers.rip == address + 1) => {
            let what = if stop.pid == main { "hit" } else { "hit in a child" };
            resume(tracer, stop, Resume::Swallow);
            what
        }
        _ => {
            resume(tracer, stop, Resume::Deliver);
            "other"
        }
    }
}

#[test]
fn every_kind_of_child_is_told_apart_and_lives() {
    let mut target = Target::start(&["children"]);
    let bump = target.address("bump");
    let pid = target.pid;
    let mut tracer = attached(&target);
    insert(&mut tracer, pid, bump);
    let expected = [
        ("fork: exited 7", vec!["forked"]),
        ("vfork: exited 7", vec!["shares", "hit in a child", "exec"]),
        ("posix_spawn: exited 7", vec!["shares", "exec"]),
        ("clone without memory: exited 7", vec!["forked"]),
        ("clone with memory: exited 7", vec!["shares", "hit in a child"]),
        ("system: exited 7", vec!["shares", "exec"]),
        // The two with shared memory, one of them before its exec, counted for the target.
        ("counted 2", vec![]),
    ];
    for (line, events) in expected {
        target.go();
        let mut seen = Vec::new();
        let told = target.line_under(&mut tracer, |tracer, report| {
            if let Report::Stopped(stop) = report {
                match &stop.kind {
                    StopKind::Forked { parent } | StopKind::SharingChild { parent } => assert_eq!(*parent, pid),
                    _ => {}
                }
                seen.push(follow(tracer, pid, bump, stop));
            }
        });
        seen.retain(|event| *event != "other");
        assert_eq!((told.as_str(), &seen), (line, &events));
    }
    target.go();
}

#[test]
fn detaching_amid_posix_spawn_harms_nobody() {
    let mut target = Target::start(&["spawns"]);
    let bump = target.address("bump");
    let pid = target.pid;
    for _ in 0..30 {
        let mut tracer = attached(&target);
        insert(&mut tracer, pid, bump);
        let mut shared = 0;
        while shared < 3 {
            if let Report::Stopped(stop) = tracer.wait().expect("a report") {
                shared += usize::from(follow(&mut tracer, pid, bump, stop) == "shares");
            }
        }
        // A thread of the target may wait for a child that shares its memory, is traced, and waits in the queue.
        let mut stops = tracer.halt(pid).expect("halted");
        let mut restored = false;
        while !tracer.traced().is_empty() || !stops.is_empty() {
            for stop in stops.drain(..) {
                if !restored {
                    tracer.write(&stop, bump, &[NOP]).expect("written");
                    restored = true;
                }
                let hit = stop.kind == StopKind::Trap
                    && tracer.registers(&stop).is_ok_and(|registers| registers.rip == bump + 1);
                tracer.detach(stop, if hit { Resume::Swallow } else { Resume::Deliver }).expect("detached");
            }
            if !tracer.traced().is_empty()
                && let Report::Stopped(stop) = tracer.wait().expect("a report")
            {
                if stop.pid == pid {
                    stops.push(stop);
                } else {
                    follow(&mut tracer, pid, bump, stop);
                }
            }
        }
    }
    target.go();
    assert_eq!(target.line(), "failures 0");
    assert_eq!(target.status(), "exited 0");
}

#[test]
fn a_process_that_waits_in_vfork_is_halted_and_detached() {
    let mut target = Target::start(&["vfork"]);
    assert_eq!(target.line(), "ready");
    // Attached while it waits already: the child is not traced, and does not end before it is told to.
    let mut tracer = attached(&target);
    assert_eq!(tracer.halt(target.pid).expect("halted"), []);
    assert_eq!(tracer.traced(), [target.pid]);
    target.go();
    assert_eq!(target.line_under(&mut tracer, deliver), "vfork: exited 7");
    detach_all(&mut tracer, target.pid);
    target.go();
    assert_eq!(target.status(), "exited 0");
}

#[test]
fn exec_is_reported_for_the_process_whichever_thread_calls_it() {
    for mode in ["exec", "exec-thread"] {
        let mut target = Target::start(&[mode]);
        assert_eq!(target.line(), "ready");
        let pid = target.pid;
        let mut tracer = attached(&target);
        target.go();
        let mut execs = Vec::new();
        let line = target.line_under(&mut tracer, |tracer, report| {
            if let Report::Stopped(stop) = report {
                if stop.kind == StopKind::Exec {
                    execs.push((stop.pid, stop.tid.0));
                }
                resume(tracer, stop, Resume::Deliver);
            }
        });
        assert_eq!((line.as_str(), execs), ("ready", vec![(pid, pid.0)]), "{mode}");
        let stops = tracer.halt(pid).expect("halted");
        assert_eq!(stops.len(), 1, "{mode}: {stops:?}");
        for stop in stops {
            resume(&mut tracer, stop, Resume::Deliver);
        }
        detach_all(&mut tracer, pid);
        target.go();
        assert_eq!(target.status(), "exited 0", "{mode}");
    }
}
