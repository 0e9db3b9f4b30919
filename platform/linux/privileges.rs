//! What the calling thread may do.

use std::fs;

use super::status::Status;

/// The inode of the kernel's first user namespace (`PROC_USER_INIT_INO`, `include/linux/proc_ns.h`).
const FIRST_USER_NAMESPACE: &str = "user:[4026531837]";

/// A privilege that Linux grants one by one (capabilities(7)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Privilege {
    /// `CAP_SYS_PTRACE`: tracing processes of other users.
    Ptrace,
    /// `CAP_BPF`: loading BPF programs.
    Bpf,
    /// `CAP_PERFMON`: those that trace.
    Perfmon,
    /// `CAP_SYS_ADMIN`: all of that.
    Admin,
}

impl Privilege {
    /// Its bit in a set (`include/uapi/linux/capability.h`).
    fn bit(self) -> u64 {
        1 << match self {
            Privilege::Ptrace => 19,
            Privilege::Admin => 21,
            Privilege::Perfmon => 38,
            Privilege::Bpf => 39,
        }
    }

    /// True if the calling thread has it, at least in its own user namespace.
    #[must_use]
    pub fn is_held(self) -> bool {
        Status::of_this_thread().is_ok_and(|status| status.capabilities & self.bit() != 0)
    }

    /// As the manual page has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Privilege::Ptrace => "CAP_SYS_PTRACE",
            Privilege::Bpf => "CAP_BPF",
            Privilege::Perfmon => "CAP_PERFMON",
            Privilege::Admin => "CAP_SYS_ADMIN",
        }
    }
}

/// True if the caller is in a user namespace of its own (a rootless container): its privileges end at that namespace's border, and the
/// kernel's tracing is beyond it.
#[must_use]
pub fn is_confined() -> bool {
    fs::read_link("/proc/self/ns/user").is_ok_and(|namespace| namespace.as_os_str() != FIRST_USER_NAMESPACE)
}
