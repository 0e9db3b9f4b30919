//! System calls that fail because a tracer stopped the thread.
//!
//! Most calls that a stop interrupts are restarted by the kernel unless a signal handler runs first. Some give up with
//! EINTR instead (`signal(7)`, "Interruption of system calls and library functions by stop signals"), and a program
//! that expects no signal may take that for a failure. Here they are made to behave like the others.

use libc::c_long;

use super::{isa, ptrace};
use crate::{Error, Tid};

/// Calls that return EINTR for no other reason than that the thread has to look for signals. Those on sockets and files
/// do if the socket has a timeout. A restarted call's timeout begins anew.
const IMPATIENT: [c_long; 21] = [
    isa::SYS_EPOLL_WAIT,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_io_getevents,
    libc::SYS_io_uring_enter,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
];

/// The kernel's internal result of an interrupted call (`include/linux/errno.h`): to be restarted, or to fail with
/// EINTR if a handler runs first.
const ERESTARTNOHAND: i64 = 514;

/// For a thread in a `PTRACE_EVENT_STOP`: if that made a system call fail, the call is restarted when the thread is
/// resumed. If a signal handler is to run before, the call fails as it would have.
pub(super) fn restart_interrupted_call(tid: Tid) -> Result<(), Error> {
    let mut registers = ptrace::registers(tid)?;
    let interrupted = registers.rax as i64 == -i64::from(libc::EINTR);
    if interrupted && IMPATIENT.contains(&(registers.orig_rax as c_long)) {
        registers.rax = -ERESTARTNOHAND as u64;
        ptrace::set_registers(tid, &registers)?;
    }
    Ok(())
}
