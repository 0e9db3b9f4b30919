//! A periodic signal to the tracing thread, so that `waitpid(2)`, which knows no timeout, does not block forever.

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;
use std::time::Duration;

use libc::c_int;

use crate::{Error, Pid, native};

/// Nothing else in a tracer uses it.
const SIGNAL: c_int = libc::SIGALRM;

thread_local! {
    static PASSED: Cell<bool> = const { Cell::new(false) };
}

/// True once after each period: also when the signal found the thread busy, so that a target that never lets it wait
/// cannot hold the ticks off.
pub(crate) fn take() -> bool {
    PASSED.replace(false)
}

extern "C" fn note(_: c_int) {
    // A thread-local without initialiser or destructor is a plain memory access, which a signal handler may make.
    PASSED.set(true);
}

/// A timer of the calling thread, until it is dropped.
#[derive(Debug)]
pub(crate) struct Tick {
    timer: libc::timer_t,
    /// The signal goes to the thread that made it.
    _thread: PhantomData<*const ()>,
}

impl Tick {
    /// Starts one.
    ///
    /// # Errors
    /// That there is no timer to be had.
    pub(crate) fn new(period: Duration) -> Result<Self, Error> {
        let pid = Pid(nix::unistd::getpid().as_raw());
        Self::try_new(period).map_err(|cause| Error::Os { what: "make a timer in", pid, cause })
    }

    fn try_new(period: Duration) -> io::Result<Self> {
        catch_signal()?;
        // SAFETY: plain data, for which all-zero bytes are a value.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = SIGNAL;
        event.sigev_notify_thread_id = native::thread_id();
        let mut timer = ptr::null_mut();
        // SAFETY: both pointers are to live values.
        check(unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) })?;
        let tick = Self { timer, _thread: PhantomData };
        // A period of 0 would disarm the timer.
        let period = period.max(Duration::from_millis(1));
        let period = libc::timespec {
            tv_sec: period.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: period.subsec_nanos().into(),
        };
        let setting = libc::itimerspec { it_interval: period, it_value: period };
        // SAFETY: the timer was created above; the setting is a live value.
        check(unsafe { libc::timer_settime(tick.timer, 0, &raw const setting, ptr::null_mut()) })?;
        Ok(tick)
    }
}

impl Drop for Tick {
    fn drop(&mut self) {
        // The handler stays: a signal may be on its way.
        // SAFETY: created by `new`, deleted once.
        unsafe { libc::timer_delete(self.timer) };
    }
}

/// Without SA_RESTART: the signal is to interrupt `waitpid(2)`.
fn catch_signal() -> io::Result<()> {
    // SAFETY: plain data, for which all-zero bytes are a value: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = note as extern "C" fn(c_int) as usize;
    // SAFETY: the handler only sets a thread-local flag.
    check(unsafe { libc::sigaction(SIGNAL, &raw const action, ptr::null_mut()) })?;
    // SAFETY: plain data; sigaddset and pthread_sigmask get pointers to it.
    let blocked = unsafe {
        let mut set: libc::sigset_t = MaybeUninit::zeroed().assume_init();
        libc::sigaddset(&raw mut set, SIGNAL);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut())
    };
    if blocked == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(blocked)) }
}

fn check(result: c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocking_call_is_interrupted_and_the_flag_is_set_once() {
        let _tick = Tick::new(Duration::from_millis(5)).expect("a timer");
        // SAFETY: waits for a signal.
        unsafe { libc::pause() };
        assert!(take());
        drop(_tick);
        take();
        assert!(!take());
    }
}
