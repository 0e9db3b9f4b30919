//! x86_64.

use std::mem::offset_of;

use libc::c_long;
pub(in crate::linux) use libc::user_regs_struct;

use crate::linux::ptrace::Request;

/// Why no process can be traced, if so.
pub(in crate::linux) const REFUSAL: Option<&str> = None;

pub(in crate::linux) const GETREGS: Request = libc::PTRACE_GETREGS;
pub(in crate::linux) const SETREGS: Request = libc::PTRACE_SETREGS;

/// Where the program counter is for `PTRACE_POKEUSER`.
pub(in crate::linux) const PROGRAM_COUNTER: usize = offset_of!(libc::user, regs) + offset_of!(user_regs_struct, rip);

pub(in crate::linux) const SYS_VFORK: c_long = libc::SYS_vfork;
pub(in crate::linux) const SYS_EPOLL_WAIT: c_long = libc::SYS_epoll_wait;
