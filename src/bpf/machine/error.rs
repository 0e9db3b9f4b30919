//! Why a machine's processes cannot be observed, and what may help.

use std::io;
use std::path::PathBuf;

use libbpf_rs::ErrorKind;
use memleax_platform::Pid;

use crate::bpf::attachment::NoVariant;
use crate::bpf::privileges;

/// Why a machine's processes cannot be observed. No probe of ours is left anywhere.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// Process ids mean something else in here.
    #[error(
        "cannot watch all processes: memleax runs in a container, where it sees few of them; run it outside, or in a container that has \
         the machine's processes (--pid=host)"
    )]
    Contained,
    /// A process that was asked for is not there.
    #[error("cannot watch process {0}: there is none")]
    NoProcess(Pid),
    /// A cgroup that was asked for is not there.
    #[error("cannot watch the cgroup {}: {cause}; give its folder, as in /sys/fs/cgroup/system.slice", .path.display())]
    Cgroup {
        /// Its folder.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// So many cgroups cannot be asked for.
    #[error("cannot watch more than {0} cgroups: give one above them")]
    TooManyCgroups(usize),
    /// The kernel does not take the programs.
    #[error("cannot watch all processes: the BPF programs cannot be loaded: {}; {}", .0, remedy_for_load(.0))]
    Load(NoVariant),
    /// The kernel does not tell of processes.
    #[error("cannot learn of processes that begin and end: {:#}; {}", .0, remedy(.0.kind()))]
    Processes(libbpf_rs::Error),
    /// The kernel does not tell what is mapped.
    #[error("cannot learn what processes map: {}; {}", .0, remedy_for_mappings(.0))]
    Mappings(io::Error),
}

fn remedy_for_load(cause: &NoVariant) -> String {
    match cause.kind() {
        ErrorKind::PermissionDenied => privileges::remedy(),
        _ => "they need Linux 6.1 or later, built with BPF, BTF and uprobes; `--log debug` tells more".into(),
    }
}

fn remedy(kind: ErrorKind) -> String {
    match kind {
        ErrorKind::PermissionDenied => privileges::remedy(),
        _ => "`memleax doctor` tells what this kernel takes".into(),
    }
}

fn remedy_for_mappings(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::PermissionDenied => privileges::remedy(),
        _ => "perf events are needed for it (CONFIG_PERF_EVENTS)".into(),
    }
}
