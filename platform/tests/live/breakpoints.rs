//! Breakpoints at a function that begins with a nop: a thread that hit one may go on behind it.

use std::collections::HashMap;

use memleax_platform::linux::LinuxTracer;
use memleax_platform::{Report, Resume, Stop, StopKind, Tid, Tracer};

use crate::target::{Target, attached, deliver, resume};

const INT3: u8 = 0xcc;
const NOP: u8 = 0x90;

/// Halts the target, writes one byte into its text, and lets it run on.
fn write_halted(tracer: &mut LinuxTracer, target: &Target, address: u64, byte: u8) -> Vec<Stop> {
    let stops = tracer.halt(target.pid).expect("halted");
    let before = read_byte(tracer, &stops[0], address);
    tracer.write(&stops[0], address, &[byte]).expect("written");
    assert_eq!((before, read_byte(tracer, &stops[0], address)), (if byte == INT3 { NOP } else { INT3 }, byte));
    stops
}

fn read_byte(tracer: &mut LinuxTracer, stop: &Stop, address: u64) -> u8 {
    let mut byte = [0];
    assert_eq!(tracer.read(stop, address, &mut byte).expect("readable"), 1);
    byte[0]
}

/// True if the thread stopped at the breakpoint at `address`.
fn is_hit(tracer: &mut LinuxTracer, stop: &Stop, address: u64) -> bool {
    stop.kind == StopKind::Trap && tracer.registers(stop).is_ok_and(|registers| registers.rip == address + 1)
}

#[test]
fn four_threads_are_counted_exactly() {
    let mut target = Target::start(&["calls", "2000"]);
    let bump = target.address("bump");
    let mut tracer = attached(&target);
    for stop in write_halted(&mut tracer, &target, bump, INT3) {
        resume(&mut tracer, stop, Resume::Deliver);
    }
    target.go();
    let mut hits: HashMap<Tid, u64> = HashMap::new();
    let line = target.line_under(&mut tracer, |tracer, report| match report {
        Report::Stopped(stop) if is_hit(tracer, &stop, bump) => {
            assert!(tracer.is_breakpoint_trap(&stop).expect("known"));
            *hits.entry(stop.tid).or_default() += 1;
            resume(tracer, stop, Resume::Swallow);
        }
        report => deliver(tracer, report),
    });
    assert_eq!(line, "counted 8000");
    assert_eq!((hits.len(), hits.values().sum::<u64>()), (4, 8000), "{hits:?}");
}

/// Between two resumes each thread may have executed a breakpoint whose trap is still on its way.
#[test]
fn breakpoints_are_removed_in_full_flight() {
    let mut target = Target::start(&["calls", "0"]);
    let bump = target.address("bump");
    target.go();
    assert_eq!(target.line(), "started");
    let mut total = 0;
    for round in 0..100 {
        let mut tracer = attached(&target);
        for stop in write_halted(&mut tracer, &target, bump, INT3) {
            resume(&mut tracer, stop, Resume::Deliver);
        }
        let mut hits = 0;
        while hits < 20 + round {
            match tracer.wait().expect("a report") {
                Report::Stopped(stop) if is_hit(&mut tracer, &stop, bump) => {
                    hits += 1;
                    resume(&mut tracer, stop, Resume::Swallow);
                }
                report => deliver(&mut tracer, report),
            }
        }
        for stop in write_halted(&mut tracer, &target, bump, NOP) {
            let how = if is_hit(&mut tracer, &stop, bump) { Resume::Swallow } else { Resume::Deliver };
            hits += u64::from(how == Resume::Swallow);
            tracer.detach(stop, how).expect("detached");
        }
        assert_eq!(tracer.traced(), []);
        total += hits;
    }
    target.go();
    let line = target.line();
    let counted: u64 = line.strip_prefix("counted ").expect(&line).parse().expect("a number");
    assert!(counted >= total);
    assert_eq!(target.status(), "exited 0");
}

#[test]
fn a_step_executes_one_instruction_and_keeps_signals() {
    let mut target = Target::start(&["busy"]);
    assert_eq!(target.line(), "ready");
    let mut tracer = attached(&target);
    target.signal(libc::SIGUSR1);
    let mut stop = loop {
        match tracer.wait().expect("a report") {
            Report::Stopped(stop) if matches!(stop.kind, StopKind::Signal(_)) => break stop,
            report => deliver(&mut tracer, report),
        }
    };
    // More signals come while it is stopped and stepped; the one that stopped it may still be delivered, as it was sent.
    target.signal(libc::SIGRTMIN());
    for _ in 0..5 {
        let before = tracer.registers(&stop).expect("readable").rip;
        tracer.step(&mut stop).expect("stepped");
        assert_ne!(tracer.registers(&stop).expect("readable").rip, before);
    }
    assert_eq!(stop.kind, StopKind::Signal(memleax_platform::Signal(libc::SIGUSR1)));
    resume(&mut tracer, stop, Resume::Deliver);
    let mut lines = [target.line_under(&mut tracer, deliver), target.line_under(&mut tracer, deliver)];
    lines.sort();
    assert_eq!(lines, ["signal 10 code 0 value 0".to_owned(), format!("signal {} code 0 value 0", libc::SIGRTMIN())]);
}

#[test]
fn a_step_that_faults_says_so() {
    let mut target = Target::start(&["busy"]);
    assert_eq!(target.line(), "ready");
    let mut tracer = attached(&target);
    target.signal(libc::SIGUSR1);
    let mut stop = loop {
        match tracer.wait().expect("a report") {
            Report::Stopped(stop) if matches!(stop.kind, StopKind::Signal(_)) => break stop,
            report => deliver(&mut tracer, report),
        }
    };
    let registers = tracer.registers(&stop).expect("readable");
    tracer.set_program_counter(&stop, 16).expect("set");
    tracer.step(&mut stop).expect("stepped");
    assert_eq!(stop.kind, StopKind::Signal(memleax_platform::Signal(libc::SIGSEGV)));
    tracer.set_registers(&stop, &registers).expect("set");
    resume(&mut tracer, stop, Resume::Swallow);
    // The signal that stopped it first was not lost.
    assert_eq!(target.line_under(&mut tracer, deliver), "signal 10 code -6 value 0");
}
