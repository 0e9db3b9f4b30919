//! SIGSTOP, SIGTSTP and SIGCONT work on a traced process as on any other.

use std::process::{Command, Stdio};

use memleax_platform::{Report, Resume, Tracer};

use crate::target::{Target, attached, deliver, detach_all, resume};

#[test]
fn a_traced_process_stops_and_continues() {
    let mut target = Target::start(&["signals"]);
    assert_eq!(target.line(), "ready");
    let mut tracer = attached(&target);
    for _ in 0..3 {
        target.signal(libc::SIGSTOP);
        assert_eq!(target.status_under(&mut tracer, deliver), format!("stopped {}", libc::SIGSTOP));
        target.signal(libc::SIGCONT);
        assert_eq!(target.status_under(&mut tracer, deliver), format!("continued {}", libc::SIGCONT));
        assert_eq!(target.line_under(&mut tracer, deliver), format!("signal {} code 0 value 0", libc::SIGCONT));
    }
}

#[test]
fn all_threads_stop_and_continue() {
    let mut target = Target::start(&["storm"]);
    assert_eq!(target.line(), "ready");
    let mut tracer = attached(&target);
    for _ in 0..20 {
        target.signal(libc::SIGSTOP);
        assert_eq!(target.status_under(&mut tracer, deliver), format!("stopped {}", libc::SIGSTOP));
        target.signal(libc::SIGCONT);
        assert_eq!(target.status_under(&mut tracer, deliver), format!("continued {}", libc::SIGCONT));
    }
    target.go();
    assert_eq!(target.line_under(&mut tracer, deliver), "right");
}

#[test]
fn a_child_of_the_tracer_is_not_taken_for_a_tracee() {
    let mut target = Target::start(&["signals"]);
    assert_eq!(target.line(), "ready");
    let mut tracer = attached(&target);
    let pid = target.pid;
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().expect("started");
    for signal in [libc::SIGSTOP, libc::SIGCONT, libc::SIGSTOP, libc::SIGKILL] {
        // SAFETY: touches no memory.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
        target.signal(libc::SIGUSR1);
        let line = target.line_under(&mut tracer, |tracer, report| match report {
            Report::Stopped(stop) => {
                assert_eq!(stop.pid, pid);
                resume(tracer, stop, Resume::Deliver);
            }
            report => panic!("{report:?}"),
        });
        assert_eq!(line, format!("signal {} code 0 value 0", libc::SIGUSR1));
    }
    detach_all(&mut tracer, target.pid);
    // Its status is gone if the tracer came first, as is documented.
    let _ = child.wait();
}

#[test]
fn a_handler_of_sigtstp_runs() {
    let mut target = Target::start(&["signals"]);
    assert_eq!(target.line(), "ready");
    let mut tracer = attached(&target);
    target.signal(libc::SIGTSTP);
    assert_eq!(target.line_under(&mut tracer, deliver), format!("signal {} code 0 value 0", libc::SIGTSTP));
}

#[test]
fn a_stopped_process_is_halted_looked_into_and_stays_stopped() {
    let mut target = Target::start(&["busy"]);
    assert_eq!(target.line(), "ready");
    target.signal(libc::SIGSTOP);
    assert_eq!(target.status(), format!("stopped {}", libc::SIGSTOP));

    let mut tracer = attached(&target);
    for round in 0..3 {
        let stops = tracer.halt(target.pid).expect("halted");
        assert_eq!(stops.len(), 2);
        for mut stop in stops {
            let registers = tracer.registers(&stop).expect("readable");
            if round == 1 && stop.tid.0 == target.pid.0 {
                tracer.step(&mut stop).expect("stepped");
            }
            tracer.set_registers(&stop, &registers).expect("set");
            resume(&mut tracer, stop, Resume::Deliver);
        }
    }
    detach_all(&mut tracer, target.pid);
    target.await_stopped();

    target.signal(libc::SIGCONT);
    assert_eq!(target.status(), format!("continued {}", libc::SIGCONT));
    target.go();
    assert_eq!(target.status(), "exited 0");
}

#[test]
fn a_process_stopped_while_traced_stays_so_after_the_detach() {
    let mut target = Target::start(&["storm"]);
    assert_eq!(target.line(), "ready");
    let mut tracer = attached(&target);
    for _ in 0..10 {
        target.signal(libc::SIGSTOP);
        assert_eq!(target.status_under(&mut tracer, deliver), format!("stopped {}", libc::SIGSTOP));
        for stop in tracer.halt(target.pid).expect("halted") {
            resume(&mut tracer, stop, Resume::Deliver);
        }
        detach_all(&mut tracer, target.pid);
        target.await_stopped();
        target.signal(libc::SIGCONT);
        assert_eq!(target.status(), format!("continued {}", libc::SIGCONT));
        tracer.attach(target.pid).expect("attached");
    }
    detach_all(&mut tracer, target.pid);
    target.go();
    assert_eq!(target.line(), "right");
}
