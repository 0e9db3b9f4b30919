//! Compiles the BPF programs: they are part of the memleax binary, where `cfg(bpf)` says so.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = "src/bpf/memleax.bpf.c";
const HEADERS: [&str; 8] = ["kernel", "layout", "control", "walk", "call", "sites", "books", "follow"];

/// Name of the object, compiler flags: see the head of the source.
const VARIANTS: [(&str, &[&str]); 2] = [("current", &["-mcpu=v3"]), ("old", &["-mcpu=v2", "-DOLD_KERNEL"])];

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    for header in HEADERS {
        println!("cargo::rerun-if-changed=src/bpf/{header}.bpf.h");
    }
    println!("cargo::rerun-if-env-changed=CLANG");
    println!("cargo::rustc-check-cfg=cfg(bpf)");
    let is_linux = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    if !is_linux || env::var_os("CARGO_FEATURE_BPF").is_none() {
        return;
    }
    println!("cargo::rustc-cfg=bpf");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for (name, flags) in VARIANTS {
        if let Err(why) = compile(&out.join(format!("{name}.bpf.o")), flags) {
            println!("cargo::error={why}");
            println!("cargo::error=or build without the bpf backend: cargo build --no-default-features");
            return;
        }
    }
}

fn compile(object: &Path, flags: &[&str]) -> Result<(), String> {
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
            SOURCE,
            "-o",
        ])
        .arg(object)
        .args(flags)
        .output()
        .map_err(|why| format!("cannot compile {SOURCE}: {clang}: {why}; install the package `clang` or set CLANG"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            Err(format!("cannot compile {SOURCE}: {}", String::from_utf8_lossy(&output.stderr).replace('\n', " | ")))
        }
    }
}
