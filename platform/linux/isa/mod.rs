//! What the tracer must know of the processor beyond what the kernel calls the same on each.

#[cfg(not(target_arch = "x86_64"))]
mod unsupported;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(not(target_arch = "x86_64"))]
pub(super) use unsupported::{GETREGS, PROGRAM_COUNTER, REFUSAL, SETREGS, SYS_EPOLL_WAIT, SYS_VFORK, user_regs_struct};
#[cfg(target_arch = "x86_64")]
pub(super) use x86_64::{GETREGS, PROGRAM_COUNTER, REFUSAL, SETREGS, SYS_EPOLL_WAIT, SYS_VFORK, user_regs_struct};
