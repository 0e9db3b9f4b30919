//! Allocators other than the C library's: linked, preloaded, and static in the executable.

use std::process::Command;

use memleax_targets::{Process, Target};

use crate::harness::{Monitor, check_ground_truth, may_trace, unable};

const JEMALLOC: &str = "libjemalloc.so.2";
const TCMALLOC: &str = "libtcmalloc_minimal.so.4";
const MIMALLOC: &str = "libmimalloc.so.2";

/// True if the compiler finds the library.
fn has_library(file: &str) -> bool {
    let output = Command::new("gcc").arg(format!("-print-file-name={file}")).output().expect("gcc runs");
    // The bare name comes back when it is not found.
    let found = String::from_utf8_lossy(&output.stdout).trim().contains('/');
    if !found {
        unable(&format!("{file} is not installed; scripts/setup.sh test installs it"));
    }
    found
}

/// jemalloc has no pvalloc, so that glibc's block would reach its free; mimalloc ends a program whose new fails.
fn without_unbearable(command: &mut Command) -> &mut Command {
    command.env("LEAVE_OUT", "pvalloc bad_alloc")
}

fn linked(target: Target, library: &str) {
    if may_trace() && has_library(library) {
        let program = target.libraries(&["-Wl,--no-as-needed", &format!("-l:{library}")]).build();
        let process = Process::start(without_unbearable(&mut program.command()));
        let (report, _) = check_ground_truth(&program, process, "go 3");
        let name = library.split(".so").next().expect("a first part");
        assert!(report.says(name), "the start lines name {name}: {report:?}");
    }
}

fn preloaded(target: Target, library: &str) {
    if may_trace() && has_library(library) {
        let program = target.build();
        let process = Process::start(without_unbearable(&mut program.command()).env("LD_PRELOAD", library));
        check_ground_truth(&program, process, "go 3");
    }
}

fn in_executable(target: Target, archive: &str, more: &[&str]) {
    if may_trace() && has_library(archive) {
        let whole = ["-Wl,--whole-archive", &format!("-l:{archive}"), "-Wl,--no-whole-archive"];
        let program = target.libraries(&whole).libraries(more).build();
        let process = Process::start(without_unbearable(&mut program.command()));
        check_ground_truth(&program, process, "go 3");
    }
}

#[test]
fn jemalloc_linked() {
    linked(Target::c("leak_sites"), JEMALLOC);
}

#[test]
fn jemalloc_preloaded() {
    preloaded(Target::c("leak_sites"), JEMALLOC);
}

#[test]
fn jemalloc_preloaded_cpp() {
    preloaded(Target::cpp("cpp_sites"), JEMALLOC);
}

#[test]
fn jemalloc_in_executable() {
    in_executable(Target::cpp("cpp_sites"), "libjemalloc.a", &["-ldl", "-lm"]);
}

#[test]
fn jemalloc_in_executable_c() {
    in_executable(Target::c("leak_sites"), "libjemalloc.a", &["-lstdc++", "-ldl", "-lm"]);
}

#[test]
fn tcmalloc_linked() {
    linked(Target::c("leak_sites"), TCMALLOC);
}

#[test]
fn tcmalloc_preloaded() {
    preloaded(Target::c("leak_sites"), TCMALLOC);
}

#[test]
fn tcmalloc_preloaded_cpp() {
    preloaded(Target::cpp("cpp_sites"), TCMALLOC);
}

#[test]
fn tcmalloc_in_executable() {
    in_executable(Target::cpp("cpp_sites"), "libtcmalloc_minimal.a", &[]);
}

#[test]
fn mimalloc_linked() {
    linked(Target::c("leak_sites"), MIMALLOC);
}

#[test]
fn mimalloc_preloaded() {
    preloaded(Target::c("leak_sites"), MIMALLOC);
}

#[test]
fn mimalloc_preloaded_cpp() {
    preloaded(Target::cpp("cpp_sites"), MIMALLOC);
}

/// A preloaded allocator stands in front of the C library's, which a library may still call by an old name.
#[test]
fn start_lines_name_what_is_hooked() {
    if !may_trace() {
        return;
    }
    let target = Target::c("crash").start();
    let report = Monitor::attach(&target, &[]).interrupt();
    let hooked = report.lines.iter().find(|line| line.contains("libc.so")).unwrap_or_else(|| panic!("{report:?}"));
    for function in ["malloc", "calloc", "realloc", "free", "posix_memalign"] {
        assert!(hooked.contains(function), "{hooked}");
    }
    target.quit();
}
