//! What is so of the bpf backend only: its probes are the kernel's, and others may have probes, too.

use std::path::Path;
use std::process::Command;

use memleax_targets::Target;
use nix::sys::signal::Signal;

use crate::harness::{
    ForeignProbe, Monitor, State, assert_truth, may_trace, offset_of, program_symbols, text_differences, tracer_of,
    unable,
};

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

/// A handler on an alternate stack above the interrupted one calls an allocator amid another call. The kernel takes that other call for
/// ended if the handler's return is trapped, and kills the process when it returns; so memleax leaves the handler's alone, and says so.
#[test]
fn a_signal_handler_on_a_stack_above_amid_a_call() {
    if !may_probe() {
        return;
    }
    let program = Target::c("above").flags(&["-pthread"]).build();
    let mut target = program.start();
    let mut monitor = Monitor::attach(&target, &BPF);
    let truth = target.truth("go 10");
    let symbols = program_symbols(&program, &target);
    monitor.wait_for_leaks(truth.blocks());
    let report = monitor.interrupt();
    assert_truth(&report, &truth, &symbols);
    assert!(report.says("10 allocator calls not followed"), "{report:?}");
    target.quit();
}

/// A probe with a counter admits no other at its instruction: memleax says so, and leaves nothing behind.
#[test]
fn a_probe_that_excludes_others_is_named() {
    if !may_probe() {
        return;
    }
    let program = Target::c("probed").flags(&["-static", "-no-pie"]).build();
    let mut target = program.start();
    let before = State::of(&target);
    let file = program.path.display();
    let (malloc, counter) = (offset_of(&program.path, "malloc"), offset_of(&program.path, "probe_counter"));
    let Some(probe) = ForeignProbe::set('p', "excluding", &format!("{file}:{malloc:#x}({counter:#x})")) else { return };
    target.ask("go 1");
    let (status, report) = Monitor::spawn(target.id(), &BPF).wait();
    assert_eq!(status.code(), Some(1), "{report:?}");
    for words in ["cannot set uprobes in", &file.to_string(), "another tool may hold a uprobe on the same instruction"]
    {
        assert!(report.errors.contains(words), "no {words:?}: {report:?}");
    }
    target.ask("go 1");
    drop(probe);
    let mut monitor = Monitor::attach(&target, &BPF);
    target.ask("go 2");
    monitor.wait_for_leaks(2);
    monitor.interrupt();
    before.assert_restored(&target);
    target.quit();
}

/// Other tools' probes at the functions that memleax has its own in, some on the calls and some on the returns.
#[test]
fn probes_of_others_do_no_harm() {
    if !may_probe() {
        return;
    }
    let program = Target::c("leak_sites").flags(&["-static", "-no-pie"]).build();
    let mut target = program.start();
    let mut probes = Vec::new();
    for (kind, function) in [('p', "malloc"), ('r', "malloc"), ('r', "realloc"), ('p', "free"), ('r', "calloc")] {
        let place = format!("{}:{:#x}", program.path.display(), offset_of(&program.path, function));
        let Some(probe) = ForeignProbe::set(kind, &format!("beside_{kind}_{function}"), &place) else { return };
        probes.push(probe);
    }
    let mut monitor = Monitor::attach(&target, &BPF);
    target.ask("go 3");
    let truth = target.truth("go 1");
    monitor.wait_for_leaks(truth.blocks());
    let symbols = program_symbols(&program, &target);
    assert_truth(&monitor.interrupt(), &truth, &symbols);
    drop(probes);
    assert_eq!(text_differences(target.id()), Vec::<String>::new());
    target.quit();
}

/// A probe on a function's return hides from where it was called: the stack ends there, and it is said why.
#[test]
fn a_caller_that_a_return_probe_hides_is_said() {
    if !may_probe() {
        return;
    }
    let program = Target::c("probed").build();
    let mut target = program.start();
    let place = format!("{}:{:#x}", program.path.display(), offset_of(&program.path, "leak_outer"));
    let Some(probe) = ForeignProbe::set('r', "hiding", &place) else { return };
    let mut monitor = Monitor::attach(&target, &BPF);
    target.ask("go 3");
    monitor.wait_for_leaks(3);
    let report = monitor.interrupt();
    let stack = &report.statistics[0];
    let names: Vec<_> = stack.frames.iter().map_while(|frame| frame.function.as_deref()).collect();
    assert_eq!(names, ["malloc", "leak_inner", "leak_outer"], "{report:?}");
    assert!(stack.remarks.iter().any(|remark| remark.contains("uprobe")), "{report:?}");
    assert_eq!(stack.may_leak.blocks, 3, "{report:?}");
    drop(probe);
    target.quit();
}

/// Three million live blocks: more than there is room for in the table that is read without a system call. All are kept, and those that are
/// freed are known.
#[test]
fn three_million_live_blocks() {
    if !may_probe() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("run.json").display().to_string();
    let mut target = Target::c("blocks").start();
    // Whether blocks expire before they are freed is not to matter: that mutes the live lines.
    let options = ["--expire", "1h", "--format", "json", "--output", &file];
    let monitor = Monitor::attach(&target, &[&BPF[..], &options].concat());
    target.ask("keep 3000000");
    target.ask("free 1000000");
    let truth = target.truth("keep 1000000");
    assert_eq!(truth.blocks(), 3_000_000);
    monitor.interrupt();
    let told: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).expect("a file")).expect("JSON");
    let bytes: u64 = truth.sites.iter().map(|site| site.bytes).sum();
    assert_eq!(told["totals"]["live"], serde_json::json!({ "count": 3_000_000, "bytes": bytes }));
    assert_eq!((&told["losses"], &told["unknown_frees"]), (&serde_json::json!([]), &serde_json::json!(0)));
    target.quit();
}

/// A return probe at the function itself, before the instruction that memleax's probe is at.
#[test]
fn a_return_probe_at_the_allocator_hides_nothing() {
    if !may_probe() {
        return;
    }
    let output = Command::new("gcc").arg("-print-file-name=libjemalloc.so.2").output().expect("gcc runs");
    let Ok(library) = Path::new(String::from_utf8_lossy(&output.stdout).trim()).canonicalize() else {
        return unable("libjemalloc.so.2 is not installed; scripts/setup.sh test installs it");
    };
    let program = Target::c("probed").libraries(&["-Wl,--no-as-needed", "-l:libjemalloc.so.2"]).build();
    let mut target = program.start();
    let place = format!("{}:{:#x}", library.display(), offset_of(&library, "malloc"));
    let Some(probe) = ForeignProbe::set('r', "at_malloc", &place) else { return };
    let mut monitor = Monitor::attach(&target, &BPF);
    target.ask("go 3");
    let truth = target.truth("go 1");
    monitor.wait_for_leaks(truth.blocks());
    let symbols = program_symbols(&program, &target);
    assert_truth(&monitor.interrupt(), &truth, &symbols);
    drop(probe);
    target.quit();
}
