//! One instruction of a stopped thread, such that nothing that happens meanwhile is lost.

use std::io;

use libc::c_int;

use super::ptrace;
use crate::{Error, Pid, Signal, Tid};

/// How a step ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// The instruction was executed.
    Done,
    /// It was not, as it causes this signal; the thread stopped before the delivery.
    Faulted(Signal),
}

/// What an instruction itself may raise. The kernel resets the handler of such a signal if it is blocked
/// (`force_sig_info_to_task`, `kernel/signal.c`), so these stay unblocked; one of them that somebody sent is sent again.
const FAULTS: [c_int; 6] = [libc::SIGTRAP, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGSYS];

/// Executes one instruction of a stopped thread.
///
/// Signals that arrive meanwhile stay pending, and what the thread was stopped by before (see
/// [`ptrace::signal_info`]) is put back afterwards: it may still be delivered, or job control listened to.
pub(super) fn step(pid: Pid, tid: Tid) -> Result<Step, Error> {
    let info = ptrace::signal_info(tid)?;
    let mask = ptrace::signal_mask(tid)?;
    ptrace::set_signal_mask(tid, FAULTS.iter().fold(!0, |mask, signal| mask & !(1 << (signal - 1))))?;
    let step = step_masked(pid, tid);
    ptrace::set_signal_mask(tid, mask)?;
    if matches!(step, Ok(Step::Done)) {
        ptrace::set_signal_info(tid, &info)?;
    }
    step
}

fn step_masked(pid: Pid, tid: Tid) -> Result<Step, Error> {
    let mut again = Vec::new();
    let step = loop {
        ptrace::single_step(tid, None)?;
        let status = ptrace::wait_for_stop(tid)?;
        let signal = libc::WSTOPSIG(status);
        match ptrace::event(status) {
            0 if signal == libc::SIGTRAP && ptrace::signal_info(tid)?.si_code > 0 => break Step::Done,
            0 if FAULTS.contains(&signal) && ptrace::signal_info(tid)?.si_code > 0 => {
                break Step::Faulted(Signal(signal));
            }
            0 => again.push(signal),
            // Another thread received a stop signal: this one stops again when it is resumed.
            libc::PTRACE_EVENT_STOP if signal != libc::SIGTRAP => again.push(libc::SIGSTOP),
            _ => {}
        }
    };
    for signal in again {
        send(pid, tid, signal)?;
    }
    Ok(step)
}

/// Sends a signal to one thread.
pub(super) fn send(pid: Pid, tid: Tid, signal: c_int) -> Result<(), Error> {
    // SAFETY: touches no memory.
    match unsafe { libc::syscall(libc::SYS_tgkill, pid.0, tid.0, signal) } {
        0 => Ok(()),
        _ => Err(ptrace::error_of("send a signal to", tid, io::Error::last_os_error())),
    }
}
