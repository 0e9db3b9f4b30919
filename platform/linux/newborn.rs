//! Whether a new process has its parent's memory or a copy of it.

use super::{isa, memory, ptrace};
use crate::{Error, Tid};

/// True if the process of `child`, at its first stop, uses the same memory as one of `parents`.
///
/// The kind of event does not tell: posix_spawn is `PTRACE_EVENT_VFORK` or, with `CLONE_VM | SIGCHLD`,
/// `PTRACE_EVENT_FORK`, and a plain fork with another exit signal is `PTRACE_EVENT_CLONE` (`kernel_clone`,
/// `kernel/fork.c`).
pub(super) fn shares_memory(child: Tid, parents: impl Iterator<Item = Tid>) -> Result<bool, Error> {
    Ok(created_with_parents_memory(child)? || parents.into_iter().any(|parent| has_memory_of(child, parent)))
}

/// Asks the child's registers: they are a copy of those with which the parent made the system call (`copy_thread`,
/// `arch/x86/kernel/process.c`). This needs no privilege, no configuration of the kernel, and no living parent.
fn created_with_parents_memory(child: Tid) -> Result<bool, Error> {
    let registers = ptrace::registers(child)?;
    let flags = match registers.orig_rax as libc::c_long {
        isa::SYS_VFORK => libc::CLONE_VM as u64,
        libc::SYS_clone => registers.rdi,
        libc::SYS_clone3 => {
            // The first member of `struct clone_args` is `flags`.
            let mut flags = [0; 8];
            memory::read_memory(child, registers.rdi, &mut flags)?;
            u64::from_ne_bytes(flags)
        }
        _ => 0,
    };
    Ok(flags & libc::CLONE_VM as u64 != 0)
}

/// Asks the kernel (`CONFIG_KCMP`), for system calls made otherwise, as by `int 0x80`.
fn has_memory_of(child: Tid, parent: Tid) -> bool {
    const KCMP_VM: libc::c_int = 1;
    // SAFETY: touches no memory.
    child != parent && unsafe { libc::syscall(libc::SYS_kcmp, child.0, parent.0, KCMP_VM, 0, 0) } == 0
}
