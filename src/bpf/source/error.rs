//! Why a process cannot be observed by uprobes, and what may help.

use libbpf_rs::ErrorKind;
use memleax_platform::Pid;

use crate::bpf::attachment::NoVariant;
use crate::bpf::privileges;

/// Why a process cannot be observed by uprobes. Nothing of ours is left in it.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The platform's facts about it cannot be had.
    #[error(transparent)]
    Platform(#[from] memleax_platform::Error),
    /// The kernel does not take the programs.
    #[error("cannot load the BPF programs: {cause}; {}", remedy_for_load(cause))]
    Load {
        /// The kernel's answers.
        cause: NoVariant,
    },
    /// The kernel's records cannot be read.
    #[error("cannot read what the BPF programs record: {cause:#}; {}", remedy(cause))]
    Records {
        /// The kernel's answer.
        cause: libbpf_rs::Error,
    },
    /// A probe cannot be set.
    #[error("cannot set uprobes in {module} of process {pid}: {cause:#}; {}", remedy(cause))]
    Attach {
        /// The module's path.
        module: String,
        /// The process.
        pid: Pid,
        /// The kernel's answer.
        cause: libbpf_rs::Error,
    },
    /// It has no functions of these names.
    #[error(
        "cannot follow objects in process {pid}: {}; write ?NAME for a function that may be missing, or that comes with a library loaded later",
        missing.join(", ")
    )]
    Missing {
        /// The process.
        pid: Pid,
        /// What is missing.
        missing: Vec<String>,
    },
    /// Two probes at one place.
    #[error(
        "cannot follow {function} of {module} for two at once (types of objects, or an allocator): this kernel does not tell \
         two probes at one place apart; use --backend=ptrace"
    )]
    Ambiguous {
        /// The function.
        function: &'static str,
        /// The path of its module.
        module: String,
    },
    /// Nothing in it is known to allocate.
    #[error("cannot find an allocator in process {pid}: searched {searched}")]
    NoAllocator {
        /// The process.
        pid: Pid,
        /// The modules searched.
        searched: String,
    },
}

/// What may help where the kernel answers `cause`.
fn remedy(cause: &libbpf_rs::Error) -> String {
    match cause.kind() {
        ErrorKind::PermissionDenied => privileges::remedy(),
        ErrorKind::InvalidInput => "another tool may hold a uprobe on the same instruction: end it first".into(),
        _ => "`memleax doctor` tells what this kernel takes".into(),
    }
}

/// What may help where every variant fails.
fn remedy_for_load(cause: &NoVariant) -> String {
    match cause.kind() {
        ErrorKind::PermissionDenied => privileges::remedy(),
        _ => "they need Linux 5.8 or later, built with BPF and uprobes; `--log debug` tells more".into(),
    }
}
