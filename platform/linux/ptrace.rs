//! Each ptrace request that memleax makes, typed: one function a request, all through one invoker.
//!
//! A request on a thread that ended, or that is not in a ptrace stop, fails with ESRCH, which is [`Error::Gone`] here
//! (`ptrace(2)`, "Death under ptrace"). Each request works only in the thread that attached.

use std::io;
use std::mem::{MaybeUninit, offset_of};
use std::ptr;

use libc::{c_int, c_long, c_void, siginfo_t, user_regs_struct};

use crate::{Error, Pid, Signal, Tid};

/// The events that every tracee reports. Never `PTRACE_O_EXITKILL`: the target outlives its tracer.
const OPTIONS: c_int =
    libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACEVFORK | libc::PTRACE_O_TRACEEXEC;

/// The type of a request's name, which the C libraries disagree on.
#[cfg(target_env = "musl")]
type Request = c_int;
#[cfg(not(target_env = "musl"))]
type Request = libc::c_uint;

/// `PTRACE_GETSIGMASK` and `PTRACE_SETSIGMASK` of `include/uapi/linux/ptrace.h`, which libc lacks for musl.
const GETSIGMASK: Request = 0x420a;
const SETSIGMASK: Request = 0x420b;

/// The size of the kernel's `sigset_t`.
const SIGNAL_SET_SIZE: usize = 8;

/// Makes one ptrace request.
///
/// # Safety
/// `data` must be what `request` expects: an integer, or a pointer to memory that it may read or write.
unsafe fn request(
    what: &'static str,
    request: Request,
    tid: Tid,
    address: usize,
    data: *mut c_void,
) -> Result<(), Error> {
    // SAFETY: only requests that return 0 or -1 and touch memory through `data` alone come here; the caller vouches
    // for `data`.
    let result: c_long = unsafe { libc::ptrace(request, tid.0, ptr::without_provenance_mut::<c_void>(address), data) };
    if result == -1 { Err(error_of(what, tid, io::Error::last_os_error())) } else { Ok(()) }
}

/// [`request`] for those whose data is an integer.
fn plain_request(what: &'static str, name: Request, tid: Tid, address: usize, data: usize) -> Result<(), Error> {
    // SAFETY: an integer is no memory.
    unsafe { request(what, name, tid, address, ptr::without_provenance_mut(data)) }
}

/// `error` of a call that concerned `tid`: ESRCH means that the thread is no more.
pub(super) fn error_of(what: &'static str, tid: Tid, error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::ESRCH) => Error::Gone(tid),
        _ => Error::Os { what, pid: Pid(tid.0), cause: error },
    }
}

fn signal_number(signal: Option<Signal>) -> usize {
    signal.map_or(0, |signal| signal.0 as usize)
}

/// Starts to trace a thread, which goes on running.
pub(super) fn seize(tid: Tid) -> Result<(), Error> {
    plain_request("trace", libc::PTRACE_SEIZE, tid, 0, OPTIONS as usize)
}

/// Makes a running or listening thread stop with `PTRACE_EVENT_STOP`.
pub(super) fn interrupt(tid: Tid) -> Result<(), Error> {
    plain_request("interrupt", libc::PTRACE_INTERRUPT, tid, 0, 0)
}

/// Leaves a thread that is in a `PTRACE_EVENT_STOP` stopped, but lets it see SIGCONT.
pub(super) fn listen(tid: Tid) -> Result<(), Error> {
    plain_request("leave stopped", libc::PTRACE_LISTEN, tid, 0, 0)
}

/// Lets a thread run, with `signal` in place of the one that stopped it.
pub(super) fn cont(tid: Tid, signal: Option<Signal>) -> Result<(), Error> {
    plain_request("resume", libc::PTRACE_CONT, tid, 0, signal_number(signal))
}

/// Lets a thread execute one instruction (or enter the handler of `signal`).
pub(super) fn single_step(tid: Tid, signal: Option<Signal>) -> Result<(), Error> {
    plain_request("step", libc::PTRACE_SINGLESTEP, tid, 0, signal_number(signal))
}

/// Stops tracing a thread, which runs on with `signal` in place of the one that stopped it.
pub(super) fn detach(tid: Tid, signal: Option<Signal>) -> Result<(), Error> {
    plain_request("detach from", libc::PTRACE_DETACH, tid, 0, signal_number(signal))
}

/// All registers.
pub(super) fn registers(tid: Tid) -> Result<user_regs_struct, Error> {
    let mut registers = MaybeUninit::<user_regs_struct>::uninit();
    // SAFETY: PTRACE_GETREGS fills a `user_regs_struct`.
    unsafe { request("read the registers of", libc::PTRACE_GETREGS, tid, 0, registers.as_mut_ptr().cast())? };
    // SAFETY: the request succeeded, so it is filled.
    Ok(unsafe { registers.assume_init() })
}

/// Sets all registers.
pub(super) fn set_registers(tid: Tid, registers: &user_regs_struct) -> Result<(), Error> {
    let data = ptr::from_ref(registers).cast_mut().cast();
    // SAFETY: PTRACE_SETREGS only reads a `user_regs_struct`.
    unsafe { request("set the registers of", libc::PTRACE_SETREGS, tid, 0, data) }
}

/// Sets the program counter.
pub(super) fn set_program_counter(tid: Tid, address: u64) -> Result<(), Error> {
    let register = offset_of!(libc::user, regs) + offset_of!(user_regs_struct, rip);
    plain_request("set the program counter of", libc::PTRACE_POKEUSER, tid, register, address as usize)
}

/// What is known of the signal or event that stopped the thread.
pub(super) fn signal_info(tid: Tid) -> Result<siginfo_t, Error> {
    let mut info = MaybeUninit::<siginfo_t>::uninit();
    // SAFETY: PTRACE_GETSIGINFO fills a `siginfo_t`.
    unsafe { request("read the signal of", libc::PTRACE_GETSIGINFO, tid, 0, info.as_mut_ptr().cast())? };
    // SAFETY: the request succeeded, so it is filled.
    Ok(unsafe { info.assume_init() })
}

/// Replaces what is known of the signal that stopped the thread. The kernel delivers a signal with this information if
/// the thread is resumed with the same number.
pub(super) fn set_signal_info(tid: Tid, info: &siginfo_t) -> Result<(), Error> {
    let data = ptr::from_ref(info).cast_mut().cast();
    // SAFETY: PTRACE_SETSIGINFO only reads a `siginfo_t`.
    unsafe { request("set the signal of", libc::PTRACE_SETSIGINFO, tid, 0, data) }
}

/// The signals that the thread blocks: bit `n - 1` for signal `n`.
pub(super) fn signal_mask(tid: Tid) -> Result<u64, Error> {
    let mut mask = 0u64;
    let data = ptr::from_mut(&mut mask).cast();
    // SAFETY: PTRACE_GETSIGMASK fills as many bytes as its address argument says.
    unsafe { request("read the signal mask of", GETSIGMASK, tid, SIGNAL_SET_SIZE, data)? };
    Ok(mask)
}

/// Sets the signals that the thread blocks: bit `n - 1` for signal `n`.
pub(super) fn set_signal_mask(tid: Tid, mask: u64) -> Result<(), Error> {
    let data = ptr::from_ref(&mask).cast_mut().cast();
    // SAFETY: PTRACE_SETSIGMASK only reads as many bytes as its address argument says.
    unsafe { request("set the signal mask of", SETSIGMASK, tid, SIGNAL_SET_SIZE, data) }
}

/// The number that comes with an event: the new thread's id, or at an exec the former id of the calling thread.
pub(super) fn event_message(tid: Tid) -> Result<u64, Error> {
    let mut message: libc::c_ulong = 0;
    let data = ptr::from_mut(&mut message).cast();
    // SAFETY: PTRACE_GETEVENTMSG fills an unsigned long.
    unsafe { request("read the event of", libc::PTRACE_GETEVENTMSG, tid, 0, data)? };
    Ok(message)
}

/// Waits for the next change of any tracee of this thread: its id and status (`waitpid(2)`). Interrupted by signals
/// ([`io::ErrorKind::Interrupted`]).
pub(super) fn wait() -> io::Result<(Tid, c_int)> {
    wait_with(-1, 0).map(|(tid, status)| (Tid(tid), status))
}

/// [`wait`] that does not wait: `None` if there is nothing to report.
pub(super) fn poll() -> io::Result<Option<(Tid, c_int)>> {
    let (tid, status) = wait_with(-1, libc::WNOHANG)?;
    Ok((tid != 0).then_some((Tid(tid), status)))
}

/// Waits for the next stop of one tracee and returns its status. Its end, or the exec by which another thread took
/// over its id, is left for [`wait`] to find: [`Error::Gone`].
pub(super) fn wait_for_stop(tid: Tid) -> Result<c_int, Error> {
    loop {
        match wait_for(tid, libc::WEXITED | libc::WSTOPPED | libc::WNOWAIT) {
            Ok(None) => {}
            Ok(Some(status)) if !libc::WIFSTOPPED(status) || event(status) == libc::PTRACE_EVENT_EXEC => {
                return Err(Error::Gone(tid));
            }
            // SIGKILL may have woken it in the meantime. Without WEXITED, that leaves its end where it is.
            Ok(Some(_)) => match wait_for(tid, libc::WSTOPPED | libc::WNOHANG) {
                Ok(Some(status)) => return Ok(status),
                Ok(None) => {}
                Err(error) => return Err(error_of("wait for", tid, error)),
            },
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Err(Error::Gone(tid)),
            Err(error) => return Err(error_of("wait for", tid, error)),
        }
    }
}

/// The `PTRACE_EVENT_*` of a stop's status, 0 if it was a signal.
pub(super) fn event(status: c_int) -> c_int {
    status >> 16
}

/// `waitid(2)` for one thread; the result as `waitpid(2)` would give it.
fn wait_for(tid: Tid, options: c_int) -> io::Result<Option<c_int>> {
    let mut info = MaybeUninit::<siginfo_t>::zeroed();
    let options = options | libc::__WALL | libc::__WNOTHREAD;
    // SAFETY: waitid fills a `siginfo_t`.
    if unsafe { libc::waitid(libc::P_PID, tid.0 as libc::id_t, info.as_mut_ptr(), options) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all-zero bytes, or filled in SIGCHLD's shape.
    let (pid, code, status) = unsafe {
        let info = info.assume_init();
        (info.si_pid(), info.si_code, info.si_status())
    };
    Ok(match (pid, code) {
        (0, _) => None,
        (_, libc::CLD_TRAPPED | libc::CLD_STOPPED) => Some(status << 8 | 0x7f),
        (_, libc::CLD_EXITED) => Some(status << 8),
        _ => Some(status),
    })
}

fn wait_with(pid: libc::pid_t, options: c_int) -> io::Result<(libc::pid_t, c_int)> {
    let mut status = 0;
    // __WNOTHREAD: the tracees of another tracing thread, and the children of other threads, are theirs to wait for.
    // SAFETY: `status` is a live c_int.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL | libc::__WNOTHREAD | options) };
    if waited == -1 { Err(io::Error::last_os_error()) } else { Ok((waited, status)) }
}
