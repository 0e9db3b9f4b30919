//! The seam between the tracer and the kernel: four calls. All that is above it is compiled and tested on every system.

use std::io;

use libc::c_int;

use super::abi::{self, LwpInfo, Reg};

/// One request of `ptrace(2)`.
#[derive(Debug)]
pub enum Request<'a> {
    /// `PT_ATTACH`: the process stops with SIGSTOP, which is then reported.
    Attach,
    /// `PT_DETACH`, with a signal for the thread that reported last, or 0.
    Detach(c_int),
    /// `PT_CONTINUE` where every thread is, with a signal for the thread that reported last, or 0.
    Continue(c_int),
    /// `PT_SET_EVENT_MASK`.
    SetEventMask(c_int),
    /// `PT_LWPINFO`: of a process, what its last report was; of a thread, how it is.
    LwpInfo(&'a mut LwpInfo),
    /// `PT_GETNUMLWPS`.
    LwpCount,
    /// `PT_GETLWPLIST`; the result is how many there were.
    LwpList(&'a mut [i32]),
    /// `PT_SUSPEND`: the thread does not run, and reports nothing, when the process continues.
    Suspend,
    /// `PT_RESUME`: it does again.
    Resume,
    /// `PT_SETSTEP`.
    SetStep,
    /// `PT_CLEARSTEP`.
    ClearStep,
    /// `PT_GETREGS`.
    Registers(&'a mut Reg),
    /// `PT_SETREGS`.
    SetRegisters(&'a Reg),
    /// `PT_IO` with `PIOD_READ_D`; the result is the number of bytes read.
    Read {
        /// Where in the target.
        address: u64,
        /// To be filled.
        buffer: &'a mut [u8],
    },
    /// `PT_IO` with `PIOD_WRITE_I`; the result is the number of bytes written.
    Write {
        /// Where in the target.
        address: u64,
        /// What to write.
        bytes: &'a [u8],
    },
    /// `PT_SC_REMOTE` (FreeBSD 14): the thread makes a system call; result and error are those of the call, or of the
    /// request.
    SystemCall {
        /// Its number.
        number: u32,
        /// At most eight.
        arguments: &'a [u64],
    },
}

/// Which sysctl.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Name<'a> {
    /// By numbers.
    Numbers(&'a [c_int]),
    /// By name.
    Text(&'a str),
}

/// The four calls.
pub trait Sys {
    /// The flag of `mmap(2)` for memory without a file, as the traced programs know it.
    const MAP_ANONYMOUS: u64 = abi::MAP_ANON;

    /// `ptrace(2)` on a process or, by an id of 100000 or more, a thread.
    ///
    /// Every request but attaching asks that all threads of the process are stopped, and that the stop was waited for.
    ///
    /// # Errors
    /// EBUSY if not; ESRCH if there is no such process or thread; else as the manual says.
    fn ptrace(&mut self, id: i32, request: Request<'_>) -> io::Result<u64>;

    /// `waitpid(2)` without options, of one process or (-1) any traced one: whose status, and the status.
    ///
    /// # Errors
    /// EINTR if a signal came; ECHILD if there is no such process.
    fn waitpid(&mut self, pid: i32) -> io::Result<(i32, c_int)>;

    /// `kill(2)`.
    ///
    /// # Errors
    /// ESRCH, EPERM.
    fn kill(&mut self, pid: i32, signal: c_int) -> io::Result<()>;

    /// `sysctl(3)`: the whole value.
    ///
    /// # Errors
    /// ESRCH if it is of a process that is no more; EPERM; ENOENT.
    fn sysctl(&mut self, name: Name<'_>) -> io::Result<Vec<u8>>;
}
