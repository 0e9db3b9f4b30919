//! What is so of the bpf backend only: its probes are the kernel's, and others may have probes, too.

use memleax_targets::Target;
use nix::sys::signal::Signal;

use crate::harness::{Monitor, State, assert_truth, may_trace, program_symbols, text_differences, tracer_of, unable};

const BPF: [&str; 2] = ["--backend", "bpf"];

/// True if this machine lets us set probes. Says why not, which is a failure where `CI` is set.
fn may_probe() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        unable("setting uprobes needs root");
    }
    root && may_trace()
}

/// Each sees everything, and neither disturbs the other.
#[test]
fn two_watch_at_once() {
    if !may_probe() {
        return;
    }
    let program = Target::c("leak_sites").build();
    let mut target = program.start();
    let before = State::of(&target);
    let monitors = [(); 2].map(|()| Monitor::attach(&target, &BPF));
    target.ask("go 3");
    let truth = target.truth("go 1");
    let symbols = program_symbols(&program, &target);
    for mut monitor in monitors {
        monitor.wait_for_leaks(truth.blocks());
        assert_truth(&monitor.interrupt(), &truth, &symbols);
    }
    before.assert_restored(&target);
    target.quit();
}

/// A process that somebody else traces can be watched.
#[test]
fn a_traced_process() {
    if !may_probe() {
        return;
    }
    let program = Target::c("threads").build();
    let mut target = program.start();
    nix::sys::ptrace::seize(target.pid(), nix::sys::ptrace::Options::empty()).expect("our child");
    let mut monitor = Monitor::attach(&target, &BPF);
    let truth = target.truth("go 10");
    let symbols = program_symbols(&program, &target);
    monitor.wait_for_leaks(truth.blocks());
    assert_truth(&monitor.interrupt(), &truth, &symbols);
    assert_eq!(text_differences(target.id()), Vec::<String>::new());
    assert_ne!(tracer_of(target.id()), 0, "it is traced as before");
    target.quit();
}

/// Its children's calls trap, too, but are not counted; when memleax has gone, their code is as it was.
#[test]
fn forked_children_are_not_counted() {
    if !may_probe() {
        return;
    }
    let program = Target::c("fork_leaks").build();
    let mut target = program.start();
    let mut monitor = Monitor::attach(&target, &BPF);
    let child: u32 = target.ask("fork")[0].parse().expect("the child's pid");
    let truth = target.truth("go 5");
    monitor.wait_for_leaks(truth.blocks());
    let symbols = program_symbols(&program, &target);
    assert_truth(&monitor.interrupt(), &truth, &symbols);
    for pid in [target.id(), child] {
        assert_eq!(text_differences(pid), Vec::<String>::new());
    }
    // The child leaks on until told to end, and says how it went.
    assert_eq!(target.ask("join")[0], "child 0");
    target.quit();
}

/// What finds no room in the ring buffer while memleax does not read it is counted.
#[test]
fn mappings_that_find_no_room_are_said() {
    if !may_probe() {
        return;
    }
    let mut target = Target::c("mappings").start();
    let monitor = Monitor::attach(&target, &[&BPF[..], &["--mmap"]].concat());
    monitor.signal(Signal::SIGSTOP);
    // More than 8 MiB of records.
    target.ask("churn 100000");
    monitor.signal(Signal::SIGCONT);
    let report = monitor.interrupt();
    assert!(report.says("calls of mmap, mremap and munmap not followed, for lack of room"), "{report:?}");
    target.quit();
}
