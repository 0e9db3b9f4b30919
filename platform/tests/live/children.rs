//! Processes that the target creates, and programs that it executes.

use std::sync::atomic::{AtomicBool, Ordering};

use memleax_platform::linux::LinuxTracer;
use memleax_platform::{Error, Pid, Report, Resume, Stop, StopKind, Tracer};

use crate::target::{Target, attached, deliver, detach_all, resume, tracer};

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

/// Takes the breakpoint out and detaches everything: what the engine does, too.
fn leave(tracer: &mut LinuxTracer, main: Pid, address: u64) {
    let mut restored = false;
    let mut stops = Vec::new();
    loop {
        for pid in tracer.traced() {
            match tracer.halt(pid) {
                Ok(halted) => stops.extend(halted),
                Err(error) => assert!(matches!(error, Error::Gone(_)), "{error}"),
            }
        }
        for stop in stops.drain(..) {
            let shares = stop.pid == main || matches!(stop.kind, StopKind::SharingChild { .. });
            let forked = matches!(stop.kind, StopKind::Forked { .. });
            if forked || shares && !restored {
                tracer.write(&stop, address, &[NOP]).expect("written");
                restored |= shares;
            }
            let hit = stop.kind == StopKind::Trap
                && tracer.registers(&stop).is_ok_and(|registers| registers.rip == address + 1);
            match tracer.detach(stop, if hit { Resume::Swallow } else { Resume::Deliver }) {
                Ok(()) | Err(Error::Gone(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        if tracer.traced().is_empty() {
            return;
        }
        if let Report::Stopped(stop) = tracer.wait().expect("a report") {
            stops.push(stop);
        }
    }
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
        leave(&mut tracer, pid, bump);
    }
    target.go();
    assert_eq!(target.line(), "failures 0");
    assert_eq!(target.status(), "exited 0");
}

/// Threads, children and signals at once, and somebody who stops and continues the process at any time.
#[test]
fn turmoil_is_survived() {
    let mut target = Target::start(&["turmoil"]);
    let bump = target.address("bump");
    let pid = target.pid;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for signal in [libc::SIGSTOP, libc::SIGCONT, libc::SIGUSR1].into_iter().cycle() {
                // SAFETY: touches no memory.
                assert_eq!(unsafe { libc::kill(pid.0, signal) }, 0);
                if over.load(Ordering::Relaxed) && signal == libc::SIGCONT {
                    return;
                }
                std::thread::yield_now();
            }
        });
        let mut tracer = tracer();
        for round in 0..60 {
            tracer.attach(pid).expect("attached");
            insert(&mut tracer, pid, bump);
            let mut stops = 0;
            while stops < 20 {
                if let Report::Stopped(stop) = tracer.wait().expect("a report") {
                    stops += 1;
                    follow(&mut tracer, pid, bump, stop);
                }
                if round % 3 == 0 && stops % 7 == 3 {
                    for stop in tracer.halt(pid).expect("halted") {
                        follow(&mut tracer, pid, bump, stop);
                    }
                }
            }
            leave(&mut tracer, pid, bump);
        }
        over.store(true, Ordering::Relaxed);
    });
    target.go();
    assert_eq!(target.line(), "failures 0");
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

/// A thread that stopped at its vfork can do nothing before its child has gone on.
#[test]
fn a_halt_returns_no_thread_that_is_about_to_wait_in_vfork() {
    let mut target = Target::start(&["spawns"]);
    target.address("bump");
    let mut tracer = attached(&target);
    let mut waiting = 0;
    while waiting < 10 {
        let stops = tracer.halt(target.pid).expect("halted");
        waiting += usize::from(stops.len() < 3);
        for stop in stops {
            let near = tracer.registers(&stop).expect("readable").rip;
            let code = tracer.map_code(&stop, near, 4096);
            let code = code.unwrap_or_else(|error| panic!("{error}"));
            tracer.unmap_code(&stop, code, 4096).expect("unmapped");
            resume(&mut tracer, stop, Resume::Deliver);
        }
        if let Report::Stopped(stop) = tracer.wait().expect("a report") {
            match stop.kind {
                StopKind::Exec => tracer.detach(stop, Resume::Deliver).expect("detached"),
                _ => resume(&mut tracer, stop, Resume::Deliver),
            }
        }
    }
    target.go();
    assert_eq!(
        target.line_under(&mut tracer, |tracer, report| match report {
            Report::Stopped(stop) if stop.kind == StopKind::Exec =>
                tracer.detach(stop, Resume::Deliver).expect("detached"),
            report => deliver(tracer, report),
        }),
        "failures 0"
    );
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
