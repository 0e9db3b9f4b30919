//! Compiles the BPF programs, which are part of the memleax binary where `cfg(bpf)` says so, and names what that needs and is missing.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const HEADERS: [&str; 14] = [
    "kernel",
    "layout",
    "control",
    "call",
    "traps",
    "walk",
    "sites",
    "mappings",
    "books",
    "holds",
    "operand",
    "follow",
    "session",
    "private_stack",
];

/// Those of the programs for the whole machine, in a folder of their own.
const MACHINE_HEADERS: [&str; 5] = ["layout", "system", "processes", "blocks", "calls"];

/// Name of the object, its source, compiler flags: see the head of the source.
const OBJECTS: [(&str, &str, &[&str]); 4] = [
    ("current", "src/bpf/memleax.bpf.c", &["-mcpu=v3"]),
    ("old", "src/bpf/memleax.bpf.c", &["-mcpu=v2", "-DOLD_KERNEL"]),
    ("machine", "src/bpf/machine/machine.bpf.c", &["-mcpu=v3"]),
    ("trial", "src/bpf/trial.bpf.c", &["-mcpu=v2"]),
];

/// What libbpf is built from (by the crate libbpf-sys, whose own message names no package).
const NEEDS: [(&str, &str); 2] = [
    ("libelf.h", "libelf-dev (Debian), elfutils-libelf-devel (Fedora), libelf (Arch) or elfutils-dev (Alpine)"),
    ("zlib.h", "zlib1g-dev (Debian), zlib-devel (Fedora), zlib (Arch) or zlib-dev (Alpine)"),
];

fn main() {
    for (_, source, _) in OBJECTS {
        println!("cargo::rerun-if-changed={source}");
    }
    for header in HEADERS {
        println!("cargo::rerun-if-changed=src/bpf/{header}.bpf.h");
    }
    for header in MACHINE_HEADERS {
        println!("cargo::rerun-if-changed=src/bpf/machine/{header}.bpf.h");
    }
    println!("cargo::rerun-if-env-changed=CLANG");
    println!("cargo::rerun-if-env-changed=CC");
    println!("cargo::rustc-check-cfg=cfg(bpf)");
    let is_linux = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    if !is_linux || env::var_os("CARGO_FEATURE_BPF").is_none() {
        return;
    }
    println!("cargo::rustc-cfg=bpf");
    if let Err(why) = find_headers() {
        refuse(&why);
        return;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for (name, source, flags) in OBJECTS {
        if let Err(why) = compile(source, &out.join(format!("{name}.bpf.o")), flags) {
            refuse(&why);
            return;
        }
    }
}

fn refuse(why: &str) {
    println!("cargo::error={why}");
    println!("cargo::error=or build without the bpf backend: cargo build --no-default-features");
}

/// A compiler for another machine has headers of its own, which only the crate that calls it knows.
fn find_headers() -> Result<(), String> {
    if env::var_os("HOST") != env::var_os("TARGET") {
        return Ok(());
    }
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".into());
    for (header, package) in NEEDS {
        let probe = Command::new(&compiler).args(["-E", "-include", header, "-x", "c", "/dev/null"]).output();
        let probe =
            probe.map_err(|why| format!("cannot find {header}: {compiler}: {why}; install a C compiler or set CC"))?;
        if !probe.status.success() {
            return Err(format!("cannot build libbpf: {compiler} finds no {header}; install the package {package}"));
        }
    }
    Ok(())
}

fn compile(source: &str, object: &Path, flags: &[&str]) -> Result<(), String> {
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let output = Command::new(&clang)
        .args([
            "-target",
            "bpf",
            "-g",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Wno-unused-parameter",
            "-Werror",
            "-c",
            source,
            "-o",
        ])
        .arg(object)
        .args(flags)
        .output()
        .map_err(|why| format!("cannot compile {source}: {clang}: {why}; install the package clang or set CLANG"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            Err(format!("cannot compile {source}: {}", String::from_utf8_lossy(&output.stderr).replace('\n', " | ")))
        }
    }
}
