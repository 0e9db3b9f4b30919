//! Attaching, and why it is refused.

use super::*;
use crate::AttachRefusal;
use crate::freebsd::abi;

fn refusal(prepare: impl FnOnce(&mut Kernel)) -> AttachRefusal {
    let mut kernel = Kernel::with_process(TARGET.0, 1);
    prepare(&mut kernel);
    let mut rig = FreebsdTracer::new(kernel);
    match rig.attach(TARGET) {
        Err(Error::Refused { pid: TARGET, why }) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn attaching_stops_the_process_and_the_first_halt_costs_nothing() {
    let mut rig = FreebsdTracer::new(Kernel::with_process(TARGET.0, 3));
    rig.attach(TARGET).expect("attached");
    rig.sys.requests.clear();
    let stops = rig.halt(TARGET).expect("halted");
    assert_eq!(kinds(&stops), [(A, StopKind::Halted), (B, StopKind::Halted), (C, StopKind::Halted)]);
    assert!(!rig.sys.requests.iter().any(|(name, _)| *name == "continue"));
    assert_eq!(rig.sys.process(TARGET.0).pending, [], "the SIGSTOP of attaching is swallowed");
    rig.leave(stops);
}

#[test]
fn a_process_that_was_stopped_stays_so() {
    let mut kernel = Kernel::with_process(TARGET.0, 1);
    kernel.process(TARGET.0).stat = abi::SSTOP;
    kernel.process(TARGET.0).flags = abi::P_STOPPED_SIG;
    kernel.plan(A, &[]);
    let mut rig = FreebsdTracer::new(kernel);
    rig.attach(TARGET).expect("attached");
    rig.sys.requests.clear();
    for stop in rig.halt(TARGET).expect("halted") {
        rig.resume(stop, Resume::Swallow).expect("resumed");
    }
    assert_eq!(rig.wait().expect("nothing to tell"), Report::Tick);
    assert!(!rig.sys.requests.iter().any(|(name, _)| *name == "continue"));
    for stop in rig.halt(TARGET).expect("halted") {
        rig.detach(stop, Resume::Deliver).expect("detached");
    }
    assert!(rig.sys.process(TARGET.0).was_left_stopped);
}

#[test]
fn refusals_name_their_reason() {
    assert_eq!(refusal(|kernel| kernel.processes.clear()), AttachRefusal::NoSuchProcess);
    assert_eq!(refusal(|kernel| kernel.process(TARGET.0).stat = abi::SZOMB), AttachRefusal::Zombie);
    assert_eq!(refusal(|kernel| kernel.process(TARGET.0).flags = abi::P_SYSTEM), AttachRefusal::KernelThread);
    assert!(matches!(
        refusal(|kernel| kernel.process(TARGET.0).is_traced = true),
        AttachRefusal::AlreadyTraced { by, .. } if by.0 as u32 == std::process::id()
    ));
    let mut rig = FreebsdTracer::new(Kernel::default());
    let own = Pid(std::process::id().cast_signed());
    assert!(matches!(rig.attach(own), Err(Error::Refused { why: AttachRefusal::Itself, .. })));
    assert!(matches!(rig.attach(Pid(0)), Err(Error::Refused { why: AttachRefusal::NoSuchProcess, .. })));
}

/// Which knob forbids it is said, unless we are root, whom no knob binds.
#[test]
fn the_machine_is_described() {
    let mut kernel = Kernel::default();
    kernel.settings.insert("security.bsd.unprivileged_proc_debug", 0);
    kernel.settings.insert("kern.kill_on_debugger_exit", 0);
    let host = crate::freebsd::host(&mut kernel);
    let says = |what: &str| host.tracing.iter().any(|remark| remark.text.contains(what));
    assert!(says("kern.kill_on_debugger_exit is 0"));
    assert_eq!(says("unprivileged_proc_debug is 0"), !nix::unistd::geteuid().is_root());
    assert!(crate::freebsd::check_access(Kernel::with_process(TARGET.0, 1), TARGET).is_ok());
    assert!(crate::freebsd::check_access(Kernel::default(), TARGET).is_err());
}
