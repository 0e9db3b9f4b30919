//! Each ptrace request that memleax makes, typed: one function a request, all through one invoker.
//!
//! A request on a thread that ended, or that is not in a ptrace stop, fails with ESRCH, which is [`Error::Gone`] here
//! (`ptrace(2)`, "Death under ptrace"). Each request works only in the thread that attached.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use libc::{c_int, c_long, c_void, siginfo_t};

use super::isa::{self, user_regs_struct};
use crate::{Error, Pid, Signal, Tid};

/// The events that every tracee reports. Never `PTRACE_O_EXITKILL`: the target outlives its tracer.
const OPTIONS: c_int = libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACESYSGOOD;

/// What [`run_to_system_call`] stops for instead of a signal. As it is none, the kernel has nothing to send if the tracer
/// is killed then (`ptrace_report_syscall`).
pub(super) const SYSTEM_CALL: c_int = libc::SIGTRAP | 0x80;

/// How the kernel marks the SIGTRAP of a breakpoint instruction (`siginfo.h`; `exc_int3`, `arch/x86/kernel/traps.c`).
pub(super) const SI_KERNEL: c_int = 0x80;

/// The type of a request's name, which the C libraries disagree on.
#[cfg(target_env = "musl")]
pub(super) type Request = c_int;
#[cfg(not(target_env = "musl"))]
pub(super) type Request = libc::c_uint;

/// `PTRACE_GETSIGMASK` and `PTRACE_SETSIGMASK` of `include/uapi/linux/ptrace.h`, which libc lacks for musl.
const GETSIGMASK: Request = 0x420a;
const SETSIGMASK: Request = 0x420b;

/// `PTRACE_GET_RSEQ_CONFIGURATION` (Linux 5.13) and `PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG` (Linux 6.4), likewise.
const GET_RSEQ_CONFIGURATION: Request = 0x420f;
const GET_SYSCALL_USER_DISPATCH_CONFIG: Request = 0x4211;

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

/// Lets a thread run to its next entry into, or exit from, a system call.
pub(super) fn run_to_system_call(tid: Tid, signal: Option<Signal>) -> Result<(), Error> {
    plain_request("resume", libc::PTRACE_SYSCALL, tid, 0, signal_number(signal))
}

/// Stops tracing a thread, which runs on with `signal` in place of the one that stopped it.
pub(super) fn detach(tid: Tid, signal: Option<Signal>) -> Result<(), Error> {
    plain_request("detach from", libc::PTRACE_DETACH, tid, 0, signal_number(signal))
}

/// All registers.
pub(super) fn registers(tid: Tid) -> Result<user_regs_struct, Error> {
    let mut registers = MaybeUninit::<user_regs_struct>::uninit();
    // SAFETY: PTRACE_GETREGS fills a `user_regs_struct`.
    unsafe { request("read the registers of", isa::GETREGS, tid, 0, registers.as_mut_ptr().cast())? };
    // SAFETY: the request succeeded, so it is filled.
    Ok(unsafe { registers.assume_init() })
}

/// Sets all registers.
pub(super) fn set_registers(tid: Tid, registers: &user_regs_struct) -> Result<(), Error> {
    let data = ptr::from_ref(registers).cast_mut().cast();
    // SAFETY: PTRACE_SETREGS only reads a `user_regs_struct`.
    unsafe { request("set the registers of", isa::SETREGS, tid, 0, data) }
}

/// Sets the program counter.
pub(super) fn set_program_counter(tid: Tid, address: u64) -> Result<(), Error> {
    plain_request("set the program counter of", libc::PTRACE_POKEUSER, tid, isa::PROGRAM_COUNTER, address as usize)
}

/// Writes one word of memory, whatever the page's protection.
pub(super) fn poke(tid: Tid, address: u64, word: u64) -> Result<(), Error> {
    plain_request("write the memory of", libc::PTRACE_POKEDATA, tid, address as usize, word as usize)
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

/// Where the thread's `struct rseq` (`rseq(2)`) is; `None` if it has none, or the kernel is too old to tell.
pub(super) fn rseq_area(tid: Tid) -> Result<Option<u64>, Error> {
    // struct ptrace_rseq_configuration: pointer, then size and signature, flags and padding.
    let mut configuration = [0u64; 3];
    let (size, data) = (size_of_val(&configuration), configuration.as_mut_ptr().cast());
    // SAFETY: the request fills at most as many bytes as its address argument says.
    match unsafe { request("read the rseq area of", GET_RSEQ_CONFIGURATION, tid, size, data) } {
        Ok(()) => Ok((configuration[0] != 0).then_some(configuration[0])),
        Err(Error::Gone(tid)) => Err(Error::Gone(tid)),
        Err(_) => Ok(None),
    }
}

/// True if the thread may have its system calls turned into SIGSYS (`PR_SET_SYSCALL_USER_DISPATCH`).
pub(super) fn dispatches_system_calls(tid: Tid) -> Result<bool, Error> {
    // struct ptrace_sud_config: mode, address of the selector, offset and length of the range that is exempt.
    let mut configuration = [0u64; 4];
    let (size, data) = (size_of_val(&configuration), configuration.as_mut_ptr().cast());
    // SAFETY: the request fills a `struct ptrace_sud_config`, and fails if that has another size than given.
    match unsafe { request("read the dispatch of", GET_SYSCALL_USER_DISPATCH_CONFIG, tid, size, data) } {
        Ok(()) => Ok(configuration[0] != 0),
        Err(Error::Gone(tid)) => Err(Error::Gone(tid)),
        Err(_) => Ok(false),
    }
}

/// The number that comes with an event: the new thread's id, or at an exec the former id of the calling thread.
pub(super) fn event_message(tid: Tid) -> Result<u64, Error> {
    let mut message: libc::c_ulong = 0;
    let data = ptr::from_mut(&mut message).cast();
    // SAFETY: PTRACE_GETEVENTMSG fills an unsigned long.
    unsafe { request("read the event of", libc::PTRACE_GETEVENTMSG, tid, 0, data)? };
    Ok(message)
}

/// Waits for the next stop or end of any tracee of this thread: its id and status (as of `waitpid(2)`). Interrupted by
/// signals ([`io::ErrorKind::Interrupted`]).
///
/// A stop before the delivery of a signal is only looked at, and reported again until the thread is resumed. Should
/// this process be killed in the meantime, the kernel then delivers the signal. If the stop were collected, as an end or
/// an event is, the signal would be lost (`wait_task_stopped` clears the `exit_code` that `ptrace_stop` returns), and a
/// thread behind a breakpoint would run on amid an instruction.
pub(super) fn wait() -> io::Result<(Tid, c_int)> {
    loop {
        let options = libc::WEXITED | libc::WSTOPPED | libc::WNOWAIT;
        if let Some((tid, status)) = wait_for(libc::P_ALL, 0, options)?
            && let Some(status) = collect_unless_signal(tid, status)?
        {
            return Ok((tid, status));
        }
    }
}

/// [`wait`] for one tracee that does not wait: `None` if there is nothing to report, or no such tracee.
pub(super) fn poll(tid: Tid) -> io::Result<Option<c_int>> {
    let options = libc::WEXITED | libc::WSTOPPED | libc::WNOWAIT | libc::WNOHANG;
    match wait_for(libc::P_PID, tid.0, options) {
        Ok(Some((tid, status))) => collect_unless_signal(tid, status),
        Err(error) if error.raw_os_error() != Some(libc::ECHILD) => Err(error),
        _ => Ok(None),
    }
}

/// Collects the status that was looked at, unless it is that of a stop before the delivery of a signal.
fn collect_unless_signal(tid: Tid, status: c_int) -> io::Result<Option<c_int>> {
    if is_signal_stop(status) {
        return Ok(Some(status));
    }
    let collected = wait_for(libc::P_PID, tid.0, libc::WEXITED | libc::WSTOPPED | libc::WNOHANG)?;
    Ok(collected.map(|(_, status)| status))
}

/// True for a stopped tracee whose stop was collected.
pub(super) fn is_collected(tid: Tid) -> Result<bool, Error> {
    match wait_for(libc::P_PID, tid.0, libc::WSTOPPED | libc::WNOWAIT | libc::WNOHANG) {
        Ok(seen) => Ok(seen.is_none()),
        Err(error) => Err(error_of("wait for", tid, error)),
    }
}

/// Collects the stop of a tracee: [`wait`] does not report it again. See there what is lost by that.
pub(super) fn collect_stop(tid: Tid) -> Result<Option<c_int>, Error> {
    match wait_for(libc::P_PID, tid.0, libc::WSTOPPED | libc::WNOHANG) {
        Ok(collected) => Ok(collected.map(|(_, status)| status)),
        Err(error) => Err(error_of("wait for", tid, error)),
    }
}

/// Waits for the next stop of one tracee, does not collect it, and returns its status. Its end, or the exec by which
/// another thread took over its id, is left for [`wait`] to find: [`Error::Gone`].
pub(super) fn look_for_stop(tid: Tid) -> Result<c_int, Error> {
    loop {
        match wait_for(libc::P_PID, tid.0, libc::WEXITED | libc::WSTOPPED | libc::WNOWAIT) {
            Ok(None) => {}
            Ok(Some((_, status))) if !libc::WIFSTOPPED(status) || event(status) == libc::PTRACE_EVENT_EXEC => {
                return Err(Error::Gone(tid));
            }
            Ok(Some((_, status))) => return Ok(status),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Err(Error::Gone(tid)),
            Err(error) => return Err(error_of("wait for", tid, error)),
        }
    }
}

/// [`look_for_stop`] that collects the stop.
pub(super) fn wait_for_stop(tid: Tid) -> Result<c_int, Error> {
    loop {
        look_for_stop(tid)?;
        // SIGKILL may have woken it in the meantime.
        if let Some(status) = collect_stop(tid)? {
            return Ok(status);
        }
    }
}

/// The `PTRACE_EVENT_*` of a stop's status, 0 if it was a signal.
pub(super) fn event(status: c_int) -> c_int {
    status >> 16
}

/// The status is that of a stop before the delivery of a signal.
pub(super) fn is_signal_stop(status: c_int) -> bool {
    libc::WIFSTOPPED(status) && event(status) == 0
}

/// `waitid(2)`: whose status, and the status as `waitpid(2)` would give it.
fn wait_for(kind: libc::idtype_t, id: libc::pid_t, options: c_int) -> io::Result<Option<(Tid, c_int)>> {
    let mut info = MaybeUninit::<siginfo_t>::zeroed();
    // __WNOTHREAD: the tracees of another tracing thread, and the children of other threads, are theirs to wait for.
    let options = options | libc::__WALL | libc::__WNOTHREAD;
    // SAFETY: waitid fills a `siginfo_t`.
    if unsafe { libc::waitid(kind, id as libc::id_t, info.as_mut_ptr(), options) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all-zero bytes, or filled in SIGCHLD's shape.
    let (pid, code, status) = unsafe {
        let info = info.assume_init();
        (info.si_pid(), info.si_code, info.si_status())
    };
    let status = match code {
        _ if pid == 0 => return Ok(None),
        libc::CLD_TRAPPED | libc::CLD_STOPPED => status << 8 | 0x7f,
        libc::CLD_EXITED => status << 8,
        libc::CLD_DUMPED => status | 0x80,
        _ => status,
    };
    Ok(Some((Tid(pid), status)))
}
