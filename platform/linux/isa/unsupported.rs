//! A processor that is not supported yet: every process is refused, so nothing here is ever used. It lets all else be
//! compiled.

use libc::c_long;

use crate::linux::ptrace::Request;

/// Why no process can be traced, if so.
pub(in crate::linux) const REFUSAL: Option<&str> = Some("a process of a processor that is not supported yet");

/// No request of the kernel's.
const NONE: Request = Request::MAX;
pub(in crate::linux) const GETREGS: Request = NONE;
pub(in crate::linux) const SETREGS: Request = NONE;
pub(in crate::linux) const PROGRAM_COUNTER: usize = 0;

/// No system calls.
pub(in crate::linux) const SYS_VFORK: c_long = -1;
pub(in crate::linux) const SYS_EPOLL_WAIT: c_long = -1;

/// The registers that code for x86_64 names.
#[allow(non_camel_case_types, reason = "the C library's name for the real one")]
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::linux) struct user_regs_struct {
    pub(in crate::linux) r15: u64,
    pub(in crate::linux) r14: u64,
    pub(in crate::linux) r13: u64,
    pub(in crate::linux) r12: u64,
    pub(in crate::linux) rbp: u64,
    pub(in crate::linux) rbx: u64,
    pub(in crate::linux) r11: u64,
    pub(in crate::linux) r10: u64,
    pub(in crate::linux) r9: u64,
    pub(in crate::linux) r8: u64,
    pub(in crate::linux) rax: u64,
    pub(in crate::linux) rcx: u64,
    pub(in crate::linux) rdx: u64,
    pub(in crate::linux) rsi: u64,
    pub(in crate::linux) rdi: u64,
    pub(in crate::linux) orig_rax: u64,
    pub(in crate::linux) rip: u64,
    pub(in crate::linux) eflags: u64,
    pub(in crate::linux) rsp: u64,
}
