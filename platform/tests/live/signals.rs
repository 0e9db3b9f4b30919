//! Signals reach the target as they were sent.

use memleax_platform::{ExitStatus, Report, Resume, Signal, StopKind, Tracer};

use crate::target::{SIGTRAP, Target, attached, deliver, resume};

#[test]
fn a_signal_keeps_its_information() {
    let mut target = Target::start(&["signals"]);
    assert_eq!(target.line(), "ready");
    let mut tracer = attached(&target);
    let value = libc::sigval { sival_ptr: std::ptr::without_provenance_mut(42) };
    for signal in [libc::SIGUSR1, libc::SIGRTMIN()] {
        // SAFETY: touches no memory.
        assert_eq!(unsafe { libc::sigqueue(target.pid.0, signal, value) }, 0);
        let mut stops = Vec::new();
        let line = target.line_under(&mut tracer, |tracer, report| {
            if let Report::Stopped(stop) = report {
                stops.push(stop.kind);
                resume(tracer, stop, Resume::Deliver);
            }
        });
        assert_eq!(line, format!("signal {signal} code -1 value 42"));
        assert_eq!(stops, [StopKind::Signal(Signal(signal))]);
    }
}

#[test]
fn a_signal_is_delivered_by_the_detach() {
    let target = Target::start(&["signals"]);
    assert_eq!(target.line(), "ready");
    let mut tracer = attached(&target);
    target.signal(libc::SIGUSR1);
    let stop = loop {
        match tracer.wait().expect("a report") {
            Report::Stopped(stop) => break stop,
            report => deliver(&mut tracer, report),
        }
    };
    tracer.detach(stop, Resume::Deliver).expect("detached");
    assert_eq!(tracer.traced(), []);
    assert_eq!(target.line(), format!("signal {} code 0 value 0", libc::SIGUSR1));
}

#[test]
fn the_targets_own_traps_are_its_own() {
    let mut target = Target::start(&["traps"]);
    assert_eq!(target.line(), "ready");
    let mut tracer = attached(&target);
    target.go();
    let mut breakpoints = Vec::new();
    let mut handle = |tracer: &mut _, report| {
        if let Report::Stopped(stop) = &report
            && stop.kind == StopKind::Trap
        {
            breakpoints.push(memleax_platform::Tracer::is_breakpoint_trap(tracer, stop).expect("known"));
        }
        deliver(tracer, report);
    };
    // raise(3) is tgkill, SI_TKILL; int3 is SI_KERNEL.
    let lines = [0; 3].map(|_| target.line_under(&mut tracer, &mut handle));
    let signal = SIGTRAP.0;
    assert_eq!(
        lines,
        [format!("signal {signal} code -6 value 0"), format!("signal {signal} code 128 value 0"), "survived".into()]
    );
    assert_eq!(breakpoints, [false, true]);
}

#[test]
fn a_crash_stays_a_crash() {
    let mut target = Target::start(&["crash"]);
    assert_eq!(target.line(), "ready");
    let mut tracer = attached(&target);
    target.go();
    let mut reports = Vec::new();
    let status = target.status_under(&mut tracer, |tracer, report| match report {
        Report::Stopped(stop) => {
            assert_eq!(stop.kind, StopKind::Signal(Signal(libc::SIGSEGV)));
            resume(tracer, stop, Resume::Deliver);
        }
        other => reports.push(other),
    });
    assert_eq!(status, format!("killed {}", libc::SIGSEGV));
    let expected = Report::ProcessEnded { pid: target.pid, status: ExitStatus::Killed(Signal(libc::SIGSEGV)) };
    assert_eq!(reports, [expected]);
}

#[test]
fn a_kill_while_it_is_stopped_ends_it() {
    let mut target = Target::start(&["storm"]);
    assert_eq!(target.line(), "ready");
    let mut tracer = attached(&target);
    let stops = tracer.halt(target.pid).expect("halted");
    target.signal(libc::SIGKILL);
    let mut end = None;
    for stop in stops {
        assert!(matches!(tracer.resume(stop, Resume::Deliver), Ok(()) | Err(memleax_platform::Error::Gone(_))));
    }
    let status = target.status_under(&mut tracer, |tracer, report| match report {
        Report::ProcessEnded { status, .. } => end = Some(status),
        report => deliver(tracer, report),
    });
    assert_eq!(status, "killed 9");
    assert_eq!(end, Some(ExitStatus::Killed(Signal(libc::SIGKILL))));
    assert!(matches!(tracer.halt(target.pid), Err(memleax_platform::Error::Gone(_))));
}
