//! Which backend observes, and what is said where the kernel denies one.

use std::path::{Path, PathBuf};
use std::process::Command;

use memleax_targets::{Process, Program, Target};

use crate::harness::{Monitor, State, assert_truth, has_program, may_trace, program_symbols, unable};

/// Somebody without any privilege.
const NOBODY: &str = "65534";

/// True if this machine lets us load BPF programs. Says why not, which is a failure where `CI` is set.
fn may_load() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        unable("loading BPF programs needs root");
    }
    root && may_trace() && has_program("setpriv")
}

fn memleax() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_memleax"))
}

/// memleax by setpriv(1), with `options`.
fn with_privileges(options: &[&str], memleax: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(options).arg(memleax);
    command
}

/// Watches a leaking program; what the head of the report says of the backend.
fn backend_line(command: Command, arguments: &[&str], target: &mut Process, program: &Program) -> String {
    let mut monitor = Monitor::spawn_through(command, target.id(), arguments);
    let line = loop {
        let line = monitor.next().unwrap_or_else(|| panic!("memleax ended: {:?}", monitor.wait()));
        if line.starts_with("-- Backend: ") {
            break line;
        }
    };
    let truth = target.truth("go 3");
    monitor.wait_for_leaks(truth.blocks());
    let symbols = program_symbols(program, target);
    assert_truth(&monitor.interrupt(), &truth, &symbols);
    line
}

#[test]
fn auto_takes_bpf_where_it_works() {
    if !may_load() {
        return;
    }
    let program = Target::c("leak_sites").build();
    let mut target = program.start();
    let line = backend_line(Command::new(memleax()), &["--backend", "auto"], &mut target, &program);
    assert!(line.starts_with("-- Backend: bpf, the cheaper one, as it works here. "), "{line}");
    target.quit();
}

#[test]
fn auto_falls_back_to_ptrace_and_names_what_is_missing() {
    if !may_load() {
        return;
    }
    let program = Target::c("leak_sites").build();
    let mut target = program.start();
    let denied = with_privileges(&["--bounding-set", "-sys_admin,-bpf"], memleax());
    let line = backend_line(denied, &["--backend", "auto"], &mut target, &program);
    assert!(line.starts_with("-- Backend: ptrace, as bpf does not work here: cannot load the BPF programs"), "{line}");
    assert!(line.contains("memleax lacks CAP_BPF: run it as root"), "{line}");
    target.quit();
}

#[test]
fn bpf_that_is_denied_names_what_is_missing() {
    if !may_load() {
        return;
    }
    let target = Target::c("crash").start();
    for (dropped, missing) in [
        ("-sys_admin,-bpf,-perfmon", "memleax lacks CAP_BPF and CAP_PERFMON: "),
        ("-sys_admin,-perfmon", "memleax lacks CAP_PERFMON: "),
    ] {
        let denied = with_privileges(&["--bounding-set", dropped], memleax());
        let (status, report) = Monitor::spawn_through(denied, target.id(), &["--backend", "bpf"]).wait();
        assert_eq!(status.code(), Some(1), "{report:?}");
        assert!(report.errors.contains(missing) && report.errors.contains("--backend=ptrace"), "{report:?}");
        assert_eq!(report.errors.lines().count(), 1, "libbpf's own words are for the log: {report:?}");
    }
    target.quit();
}

/// The two privileges are enough: root's others are not needed.
#[test]
fn two_capabilities_are_enough() {
    if !may_load() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary directory");
    let for_everybody = |file: &Path| -> PathBuf {
        let copy = folder.path().join(file.file_name().expect("a file"));
        std::fs::copy(file, &copy).expect("a copy");
        copy
    };
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), everybody).expect("permissions");
    let mut program = Target::c("leak_sites").build();
    program.path = for_everybody(&program.path);
    let user = ["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"];
    let mut of_nobody = Command::new("setpriv");
    of_nobody.args(user).arg(&program.path);
    let mut target = Process::start(&mut of_nobody);
    let options = [&user[..], &["--inh-caps", "+bpf,+perfmon", "--ambient-caps", "+bpf,+perfmon"]].concat();
    let command = with_privileges(&options, &for_everybody(memleax()));
    let line = backend_line(command, &["--backend", "bpf"], &mut target, &program);
    assert!(line.starts_with("-- Backend: bpf"), "{line}");
    target.quit();
}

/// What the doctor says, and its exit status.
fn doctor(mut command: Command, target: Option<&Process>) -> (String, Option<i32>) {
    command.arg("doctor").args(target.map(|target| target.id().to_string()));
    let output = command.output().expect("memleax runs");
    (String::from_utf8(output.stdout).expect("UTF-8"), output.status.code())
}

#[test]
fn the_doctor_tells_what_works() {
    if !may_load() {
        return;
    }
    let target = Target::c("leak_sites").start();
    let before = State::of(&target);
    let (told, status) = doctor(Command::new(memleax()), Some(&target));
    assert_eq!(status, Some(0), "{told}");
    for finding in ["  ok  works, by ", "libc.so.6 allocates: malloc, free, ", "  ok  --backend auto takes bpf\n"] {
        assert!(told.contains(finding), "no {finding:?} in\n{told}");
    }
    assert!(told.contains("/leak_sites: function names and source lines\n"), "{told}");
    // What needs least is to be had on each kernel.
    assert!(
        told.contains("  ok  perf uprobe with programs for old kernels: the kernel takes the programs\n"),
        "{told}"
    );
    before.assert_restored(&target);
    target.quit();
}

#[test]
fn the_doctor_names_what_is_missing() {
    if !may_load() {
        return;
    }
    let (told, status) = doctor(with_privileges(&["--bounding-set", "-sys_admin,-bpf"], memleax()), None);
    assert_eq!(status, Some(0), "ptrace works: {told}");
    assert!(told.contains("  no  does not work\n      memleax lacks CAP_BPF: run it as root\n"), "{told}");
    assert!(told.ends_with("  ok  --backend auto takes ptrace\n"), "{told}");

    let target = Target::c("crash").stripped().flags(&["-static"]).start();
    let (told, status) = doctor(Command::new(memleax()), Some(&target));
    assert_eq!(status, Some(1), "{told}");
    assert!(told.contains("  no  no allocator was found\n"), "{told}");
    target.quit();
}

/// A container's root is nobody outside.
#[test]
fn a_user_namespace_is_named() {
    if !may_load() || !has_program("unshare") {
        return;
    }
    let target = Target::c("crash").start();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user"]).arg(memleax());
    let (status, report) = Monitor::spawn_through(command, target.id(), &["--backend", "ptrace"]).wait();
    assert_eq!(status.code(), Some(1), "{report:?}");
    assert!(report.errors.contains("user namespace"), "{report:?}");
    target.quit();
}
