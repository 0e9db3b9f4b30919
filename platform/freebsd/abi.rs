//! What FreeBSD's kernel calls things, and how it lays them out on amd64 (`sys/ptrace.h`, `sys/user.h`, `machine/reg.h` …).
//!
//! Written down here instead of taken from the libc crate, so that all that uses it is compiled and tested on every system.
//! `abi_table` holds it to FreeBSD's own headers. Numbers that all systems agree on (ESRCH, SIGTRAP) come from libc.

use libc::c_int;

#[allow(missing_docs, reason = "the names are those of the headers")]
mod names {
    use libc::c_int;

    pub const PT_CONTINUE: c_int = 7;
    pub const PT_ATTACH: c_int = 10;
    pub const PT_DETACH: c_int = 11;
    pub const PT_IO: c_int = 12;
    pub const PT_LWPINFO: c_int = 13;
    pub const PT_GETLWPLIST: c_int = 15;
    pub const PT_GETNUMLWPS: c_int = 14;
    pub const PT_CLEARSTEP: c_int = 16;
    pub const PT_SETSTEP: c_int = 17;
    pub const PT_SUSPEND: c_int = 18;
    pub const PT_RESUME: c_int = 19;
    pub const PT_SET_EVENT_MASK: c_int = 26;
    pub const PT_GETREGS: c_int = 33;
    pub const PT_SETREGS: c_int = 34;
    pub const PT_SC_REMOTE: c_int = 44;
    pub const PIOD_READ_D: c_int = 1;
    pub const PIOD_WRITE_I: c_int = 4;
    pub const PTRACE_EXEC: c_int = 0x1;
    pub const PTRACE_FORK: c_int = 0x8;
    pub const PTRACE_VFORK: c_int = 0x20;
    pub const PL_EVENT_NONE: c_int = 0;
    pub const PL_EVENT_SIGNAL: c_int = 1;
    pub const PL_FLAG_SCE: c_int = 0x4;
    pub const PL_FLAG_SCX: c_int = 0x8;
    pub const PL_FLAG_EXEC: c_int = 0x10;
    pub const PL_FLAG_SI: c_int = 0x20;
    pub const PL_FLAG_FORKED: c_int = 0x40;
    pub const PL_FLAG_CHILD: c_int = 0x80;
    pub const PL_FLAG_BORN: c_int = 0x100;
    pub const PL_FLAG_EXITED: c_int = 0x200;
    pub const PL_FLAG_VFORKED: c_int = 0x400;
    pub const PL_FLAG_VFORK_DONE: c_int = 0x800;
    /// `si_code` of a SIGTRAP (`sys/signal.h`).
    pub const TRAP_BRKPT: c_int = 1;
    pub const TRAP_TRACE: c_int = 2;
    pub const SI_USER: c_int = 0x10001;
    pub const SI_KERNEL: c_int = 0x10006;
    pub const SI_LWP: c_int = 0x10007;
    /// Signals whose numbers differ from other systems' (`sys/signal.h`).
    pub const SIGSTOP: c_int = 17;
    pub const SIGTSTP: c_int = 18;
    pub const SIGCONT: c_int = 19;
    pub const SIGTTIN: c_int = 21;
    pub const SIGTTOU: c_int = 22;
    /// Sysctl names (`sys/sysctl.h`).
    pub const CTL_KERN: c_int = 1;
    pub const KERN_PROC: c_int = 14;
    pub const KERN_PROC_PID: c_int = 1;
    pub const KERN_PROC_ARGS: c_int = 7;
    pub const KERN_PROC_VMMAP: c_int = 32;
    pub const KERN_PROC_AUXV: c_int = 36;
    /// `struct kinfo_vmentry` (`sys/user.h`).
    pub const KVME_TYPE_NONE: c_int = 0;
    pub const KVME_TYPE_VNODE: c_int = 2;
    pub const KVME_TYPE_GUARD: c_int = 9;
    pub const KVME_PROT_READ: c_int = 1;
    pub const KVME_PROT_WRITE: c_int = 2;
    pub const KVME_PROT_EXEC: c_int = 4;
    pub const KVME_FLAG_COW: c_int = 1;
    pub const KVME_FLAG_GROWS_DOWN: c_int = 0x20;
    /// `ki_stat` of `struct kinfo_proc` (`sys/proc.h`).
    pub const SSTOP: c_int = 4;
    pub const SZOMB: c_int = 5;
    /// `ki_flag` of `struct kinfo_proc` (`sys/proc.h`).
    pub const P_KPROC: i64 = 0x4;
    pub const P_SUGID: i64 = 0x100;
    pub const P_SYSTEM: i64 = 0x200;
    pub const P_TRACED: i64 = 0x800;
    pub const P_STOPPED_SIG: i64 = 0x2_0000;
    /// Types of the auxiliary vector (`sys/elf_common.h`).
    pub const AT_PHDR: u64 = 3;
    pub const AT_BASE: u64 = 7;
    pub const AT_ENTRY: u64 = 9;
    pub const AT_KPRELOAD: u64 = 34;
    /// System calls, and what mmap takes (`sys/syscall.h`, `sys/mman.h`).
    pub const SYS_MUNMAP: u32 = 73;
    pub const SYS_MMAP: u32 = 477;
    pub const PROT_READ: u64 = 1;
    pub const PROT_EXEC: u64 = 4;
    pub const MAP_PRIVATE: u64 = 0x2;
    pub const MAP_FIXED: u64 = 0x10;
    pub const MAP_ANON: u64 = 0x1000;
    pub const MAP_EXCL: u64 = 0x4000;
}
pub use names::*;

/// `sigset_t`: bit `n - 1` for signal `n`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SignalSet(pub [u32; 4]);

impl SignalSet {
    /// True if the signal is in the set.
    #[must_use]
    pub fn contains(self, signal: c_int) -> bool {
        let bit = usize::try_from(signal - 1).unwrap_or(usize::MAX);
        self.0.get(bit / 32).is_some_and(|word| word & 1 << (bit % 32) != 0)
    }

    /// Adds a signal.
    pub fn insert(&mut self, signal: c_int) {
        let bit = usize::try_from(signal - 1).unwrap_or(usize::MAX);
        if let Some(word) = self.0.get_mut(bit / 32) {
            *word |= 1 << (bit % 32);
        }
    }
}

/// `siginfo_t`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
#[allow(missing_docs, reason = "siginfo(3)")]
pub struct SignalInfo {
    pub signo: c_int,
    pub errno: c_int,
    pub code: c_int,
    pub pid: i32,
    pub uid: u32,
    pub status: c_int,
    pub address: u64,
    pub value: u64,
    pub reason: [u64; 5],
}

/// `struct ptrace_lwpinfo`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
#[allow(missing_docs, reason = "ptrace(2)")]
pub struct LwpInfo {
    pub lwpid: i32,
    pub event: c_int,
    pub flags: c_int,
    pub sigmask: SignalSet,
    pub siglist: SignalSet,
    pub siginfo: SignalInfo,
    pub tdname: [u8; 20],
    pub child_pid: i32,
    pub syscall_code: u32,
    pub syscall_narg: u32,
}

/// `struct reg` of amd64.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[allow(missing_docs, reason = "the processor's names")]
pub struct Reg {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rax: u64,
    pub trapno: u32,
    pub fs: u16,
    pub gs: u16,
    pub err: u32,
    pub es: u16,
    pub ds: u16,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// `struct ptrace_io_desc`.
#[repr(C)]
#[derive(Debug)]
#[allow(missing_docs, reason = "ptrace(2)")]
pub struct IoDescriptor {
    pub op: c_int,
    pub offs: *mut libc::c_void,
    pub addr: *mut libc::c_void,
    pub len: usize,
}

/// `struct ptrace_sc_remote`, `struct ptrace_sc_ret` included.
#[repr(C)]
#[derive(Debug)]
#[allow(missing_docs, reason = "ptrace(2)")]
pub struct RemoteCall {
    pub retval: [u64; 2],
    pub error: c_int,
    pub padding: c_int,
    pub syscall: u32,
    pub nargs: u32,
    pub args: *mut u64,
}

/// Offsets in `struct kinfo_vmentry`, of which the kernel gives as many bytes as `STRUCTSIZE` says.
#[allow(missing_docs, reason = "sys/user.h")]
pub mod vmentry {
    pub const STRUCTSIZE: usize = 0;
    pub const TYPE: usize = 4;
    pub const START: usize = 8;
    pub const END: usize = 16;
    pub const OFFSET: usize = 24;
    pub const VN_FILEID: usize = 32;
    pub const FLAGS: usize = 44;
    pub const PROTECTION: usize = 56;
    pub const VN_FSID: usize = 88;
    pub const PATH: usize = 136;
    pub const SIZE: usize = 1160;
}

/// Offsets in `struct kinfo_proc`.
#[allow(missing_docs, reason = "sys/user.h")]
pub mod process {
    pub const STRUCTSIZE: usize = 0;
    pub const PID: usize = 0x48;
    pub const PPID: usize = 0x4c;
    pub const SIGLIST: usize = 0x68;
    pub const SIGIGNORE: usize = 0x88;
    pub const SIGCATCH: usize = 0x98;
    pub const UID: usize = 0xa8;
    pub const RUID: usize = 0xac;
    pub const SVUID: usize = 0xb0;
    pub const FLAG: usize = 0x170;
    pub const STAT: usize = 0x184;
    pub const COMM: usize = 0x1bf;
    pub const EMUL: usize = 0x1d3;
    pub const TRACER: usize = 0x240;
    pub const NUMTHREADS: usize = 0x254;
    pub const SIZE: usize = 1088;
}
