//! Which backend a test is for.

use std::path::Path;
use std::process::Command;

/// Set to `bpf`, runs the tests with that backend instead of ptrace; set to `freebsd-shim`, with FreeBSD's ptrace (see
/// `platform/shim`), for which `cargo build --example freebsd_shim` makes the program.
const BACKEND: &str = "MEMLEAX_TEST_BACKEND";

/// How memleax observes its target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Backend {
    Ptrace,
    Bpf,
    FreebsdShim,
}

impl Backend {
    /// The one that this run of the tests is for.
    pub(crate) fn under_test() -> Self {
        match std::env::var(BACKEND).as_deref() {
            Ok("bpf") => Backend::Bpf,
            Ok("freebsd-shim") => Backend::FreebsdShim,
            Ok("ptrace") | Err(std::env::VarError::NotPresent) => Backend::Ptrace,
            other => panic!("{BACKEND} is {other:?}"),
        }
    }

    /// The name that `--backend` takes.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Backend::Ptrace | Backend::FreebsdShim => "ptrace",
            Backend::Bpf => "bpf",
        }
    }
}

/// The program under test.
pub(crate) fn program() -> Command {
    let memleax = Path::new(env!("CARGO_BIN_EXE_memleax"));
    Command::new(match Backend::under_test() {
        Backend::Ptrace | Backend::Bpf => memleax.to_owned(),
        Backend::FreebsdShim => memleax.with_file_name("examples/freebsd_shim"),
    })
}

/// The program under test, told to use the backend that the tests are for.
pub(crate) fn memleax() -> Command {
    let mut command = program();
    command.args(["--backend", Backend::under_test().name()]);
    command
}
