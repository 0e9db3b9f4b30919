//! Attaching, detaching, and the reasons not to.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use memleax_platform::linux::LinuxTracer;
use memleax_platform::{AttachRefusal, Error, ExitStatus, Pid, Report, Tracer};

use crate::target::{Target, attached, deliver, detach_all, skip, tracer, unprivileged};

fn refusal(pid: Pid) -> AttachRefusal {
    match LinuxTracer::new().attach(pid) {
        Err(Error::Refused { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_storm_of_threads_is_attached_and_detached_100_times() {
    let mut target = Target::start(&["storm"]);
    assert_eq!(target.line(), "ready");
    let mut tracer = tracer();
    for _ in 0..100 {
        tracer.attach(target.pid).expect("attached");
        detach_all(&mut tracer, target.pid);
        assert_eq!(target.state().1, 0, "still traced");
    }
    target.go();
    assert_eq!(target.line(), "right");
    assert_eq!(target.status(), "exited 0");
}

#[test]
fn a_storm_runs_under_the_tracer() {
    let mut target = Target::start(&["storm"]);
    assert_eq!(target.line(), "ready");
    let mut tracer = attached(&target);
    let mut ended = 0;
    while ended < 1000 {
        match tracer.wait().expect("a report") {
            Report::ThreadEnded { pid, .. } => {
                assert_eq!(pid, target.pid);
                ended += 1;
            }
            report => deliver(&mut tracer, report),
        }
    }
    // Halting catches threads that are just being created, and loses none.
    for _ in 0..20 {
        for stop in tracer.halt(target.pid).expect("halted") {
            deliver(&mut tracer, Report::Stopped(stop));
        }
    }
    target.go();
    assert_eq!(target.line_under(&mut tracer, deliver), "right");
    detach_all(&mut tracer, target.pid);
    assert_eq!(target.status(), "exited 0");
}

#[test]
fn the_end_is_reported() {
    let mut target = Target::start(&["idle"]);
    assert_eq!(target.line(), "ready");
    let mut tracer = attached(&target);
    target.go();
    let mut end = None;
    assert_eq!(
        target.status_under(&mut tracer, |tracer, report| match report {
            Report::ProcessEnded { status, .. } => end = Some(status),
            report => deliver(tracer, report),
        }),
        "exited 0"
    );
    assert_eq!(end, Some(ExitStatus::Exited(0)));
    assert_eq!(tracer.traced(), []);
}

#[test]
fn a_main_thread_may_end_first() {
    let mut target = Target::start(&["main-ends"]);
    assert_eq!(target.line(), "ready");
    // Attached before and after it ended, since the thread says "ready" when it has.
    for _ in 0..10 {
        let mut tracer = attached(&target);
        assert!(!tracer.mappings(target.pid).expect("readable").is_empty());
        let stops = tracer.halt(target.pid).expect("halted");
        assert_eq!(stops.len(), 1);
        for stop in stops {
            tracer.detach(stop, memleax_platform::Resume::Deliver).expect("detached");
        }
        assert_eq!(tracer.traced(), []);
    }
    let mut tracer = attached(&target);
    target.go();
    assert_eq!(target.line_under(&mut tracer, deliver), "outlived");
    target.go();
    let mut ends = Vec::new();
    target.status_under(&mut tracer, |_, report| ends.push(report));
    assert!(matches!(ends[..], [Report::ProcessEnded { status: ExitStatus::Exited(9), .. }]), "{ends:?}");
}

#[test]
fn a_thread_of_io_uring_is_attached_and_detached() {
    let mut target = Target::start(&["io-uring"]);
    let line = target.line();
    if line.starts_with("refused") {
        return skip(&format!("this kernel has no io_uring: {line}"));
    }
    assert_eq!(line, "ready");
    for _ in 0..10 {
        let mut tracer = attached(&target);
        let stops = tracer.halt(target.pid).expect("halted");
        assert!(stops.len() >= 2, "{stops:?}");
        for stop in stops {
            deliver(&mut tracer, Report::Stopped(stop));
        }
        detach_all(&mut tracer, target.pid);
    }
    target.go();
    assert_eq!(target.line(), "read x");
    assert_eq!(target.status(), "exited 0");
}

#[test]
fn a_thousand_threads_are_attached_and_detached() {
    let mut target = Target::start(&["threads", "1000"]);
    assert_eq!(target.line(), "ready");
    for _ in 0..3 {
        let mut tracer = attached(&target);
        detach_all(&mut tracer, target.pid);
    }
    target.go();
    assert_eq!(target.status(), "exited 0");
}

#[test]
fn what_is_no_process_is_refused() {
    assert_eq!(refusal(Pid(i32::MAX)), AttachRefusal::NoSuchProcess);
    assert_eq!(refusal(Pid(0)), AttachRefusal::NoSuchProcess);
    assert_eq!(refusal(Pid(-1)), AttachRefusal::NoSuchProcess);
    assert_eq!(refusal(Pid(std::process::id() as i32)), AttachRefusal::Itself);
    let target = Target::start(&["two-threads"]);
    let tid: i32 = target.line().strip_prefix("thread ").expect("a thread").parse().expect("a number");
    assert_eq!(refusal(Pid(tid)), AttachRefusal::ThreadOf(target.pid));
}

#[test]
fn a_zombie_is_refused() {
    let mut child = Command::new("true").spawn().expect("started");
    let pid = Pid(child.id() as i32);
    // SAFETY: plain data, for which zero is a value; waitid fills it and leaves the zombie.
    let waited = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(libc::P_PID, child.id(), &raw mut info, libc::WEXITED | libc::WNOWAIT)
    };
    assert_eq!(waited, 0);
    assert_eq!(refusal(pid), AttachRefusal::Zombie);
    child.wait().expect("collected");
}

#[test]
fn a_thread_of_the_kernel_is_refused() {
    if !std::fs::read_to_string("/proc/2/comm").is_ok_and(|name| name.trim() == "kthreadd") {
        skip("this container hides the kernel's threads");
        return;
    }
    assert_eq!(refusal(Pid(2)), AttachRefusal::KernelThread);
}

#[test]
fn a_traced_process_is_refused_and_its_tracer_named() {
    let target = Target::start(&["idle"]);
    let _tracer = attached(&target);
    let expected = Pid(std::process::id() as i32);
    let why = std::thread::scope(|scope| scope.spawn(|| refusal(target.pid)).join().expect("no panic"));
    assert!(
        matches!(&why, AttachRefusal::AlreadyTraced { by, name } if *by == expected && !name.is_empty()),
        "{why:?}"
    );
}

#[test]
fn if_one_thread_is_traced_already_none_is_traced_afterwards() {
    let mut target = Target::start(&["two-threads"]);
    let tid: i32 = target.line().strip_prefix("thread ").expect("a thread").parse().expect("a number");
    // SAFETY: touches no memory.
    let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, tid, 0, 0) };
    assert_eq!(seized, 0);
    let pid = target.pid;
    let why = std::thread::scope(|scope| scope.spawn(move || refusal(pid)).join().expect("no panic"));
    assert!(matches!(why, AttachRefusal::AlreadyTraced { .. }), "{why:?}");
    assert_eq!(target.state().1, 0, "half attached");
    target.go();
}

#[test]
fn another_users_process_is_refused() {
    let target = Target::start(&["idle"]);
    assert_eq!(target.line(), "ready");
    let pid = target.pid;
    // SAFETY: touches no memory.
    let own = unsafe { libc::getuid() };
    assert_eq!(own, 0, "this test gives up root's privileges, and needs them for that");
    assert_eq!(unprivileged(65534, move || refusal(pid)), AttachRefusal::OtherUser(own));
    assert_eq!(target.state().1, 0);
}

#[test]
fn a_protected_process_of_the_same_user_is_refused() {
    let target = Target::start_as(&["undumpable"], Some(65534));
    assert_eq!(target.line(), "ready");
    let pid = target.pid;
    assert_eq!(unprivileged(65534, move || refusal(pid)), AttachRefusal::Privileged);
}

#[test]
fn a_32_bit_process_is_refused() {
    // mov eax, 29 (pause); int 0x80; jmp to the start.
    let code = [0xb8, 29, 0, 0, 0, 0xcd, 0x80, 0xeb, 0xf7];
    let mut file = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let words = |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    // ET_EXEC, EM_386, EV_CURRENT, entry, program headers at 52, none of sections, no flags.
    file.extend(words(&[2 | 3 << 16, 1, 0x0804_8000 + 84, 52, 0, 0]));
    // Header sizes 52 and 32, one program header.
    file.extend(words(&[52 | 32 << 16, 1, 0]));
    // PT_LOAD of all, readable and executable.
    file.extend(words(&[1, 0, 0x0804_8000, 0x0804_8000, 84 + 9, 84 + 9, 5, 4096]));
    file.extend(code);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("program");
    let mut writer = std::fs::File::create(&path).expect("created");
    writer.write_all(&file).expect("written");
    writer.set_permissions(std::fs::Permissions::from_mode(0o755)).expect("executable");
    drop(writer);
    let mut child = match Command::new(&path).stdin(Stdio::null()).spawn() {
        Ok(child) => child,
        Err(error) => {
            skip(&format!("this kernel runs no 32-bit programs: {error}"));
            return;
        }
    };
    let why = refusal(Pid(child.id() as i32));
    child.kill().expect("killed");
    child.wait().expect("collected");
    assert_eq!(why, AttachRefusal::OtherArchitecture("a 32-bit x86 process".into()));
}
