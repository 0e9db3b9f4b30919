//! Which backend a test is for.

use std::process::Command;

/// Set to `bpf`, runs the tests with that backend instead of ptrace.
const BACKEND: &str = "MEMLEAX_TEST_BACKEND";

/// How memleax observes its target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Backend {
    Ptrace,
    Bpf,
}

impl Backend {
    /// The one that this run of the tests is for.
    pub(crate) fn under_test() -> Self {
        match std::env::var(BACKEND).as_deref() {
            Ok("bpf") => Backend::Bpf,
            Ok("ptrace") | Err(std::env::VarError::NotPresent) => Backend::Ptrace,
            other => panic!("{BACKEND} is {other:?}"),
        }
    }

    /// The name that `--backend` takes.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Backend::Ptrace => "ptrace",
            Backend::Bpf => "bpf",
        }
    }
}

/// The memleax program, told to use the backend that the tests are for.
pub(crate) fn memleax() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memleax"));
    command.args(["--backend", Backend::under_test().name()]);
    command
}
