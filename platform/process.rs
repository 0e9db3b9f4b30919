//! Facts about a process: ids, mappings, the auxiliary vector.

use std::fmt;
use std::path::PathBuf;

/// A process (thread group) id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Pid(pub i32);

/// A thread id: on Linux that of `gettid(2)`, on FreeBSD that of `thr_self(2)`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Tid(pub i32);

/// A signal number of the platform.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Signal(pub i32);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Words that a zero byte ends each.
pub(crate) fn words(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_suffix('\0').unwrap_or(&text);
    if text.is_empty() { Vec::new() } else { text.split('\0').map(str::to_owned).collect() }
}

/// One mapping of a process's address space (Linux: a line of `/proc/PID/maps`; FreeBSD:
/// `struct kinfo_vmentry`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// Byte offset of `start` in the file; 0 for anonymous memory.
    pub offset: u64,
    /// Mapped `PROT_READ`.
    pub readable: bool,
    /// Mapped `PROT_WRITE`.
    pub writable: bool,
    /// Mapped `PROT_EXEC`.
    pub executable: bool,
    /// `MAP_SHARED`: writing to such text would reach the file.
    pub shared: bool,
    /// Device and inode of the file; `(0, 0)` for anonymous memory.
    pub file_id: (u64, u64),
    /// The path as the target sees it, or a pseudo name such as `[vdso]`, `[heap]`; empty for anonymous memory.
    /// The kernel's ` (deleted)` suffix is taken off.
    pub path: PathBuf,
    /// The file was unlinked or replaced since it was mapped.
    pub deleted: bool,
}

/// What the kernel told the program at its start (`getauxval(3)`); 0 where it told nothing.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct AuxiliaryVector {
    /// `AT_PHDR`: the program headers of the executable.
    pub program_headers: u64,
    /// `AT_ENTRY`: the executable's entry point.
    pub entry: u64,
    /// `AT_BASE`: where the dynamic linker is loaded; 0 in a static executable.
    pub interpreter_base: u64,
    /// `AT_SYSINFO_EHDR`: the ELF header of the vdso.
    pub vdso: u64,
}

/// What can and cannot be done to a process, found before it is touched.
#[derive(Clone, Debug, Default)]
pub struct ProcessFacts {
    /// Why no system call may be made in the target's name (a seccomp filter could kill it), if so.
    pub remote_calls_refused: Option<String>,
    /// Threads that block the signal of breakpoints; see [`Tracer::unblock_trap`](crate::Tracer::unblock_trap).
    pub threads_blocking_trap: Vec<Tid>,
    /// As long as they are traced, the process and its children gain no privileges by executing a set-user-id program
    /// (as sudo), because the tracer has too few itself.
    pub exec_gains_nothing: bool,
    /// `comm` of the process.
    pub name: String,
}
