//! How this process itself reacts to signals.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::c_int;

use crate::Signal;

/// No system has a signal with a higher number.
pub(crate) const LAST_SIGNAL: c_int = 127;

/// `SI_KERNEL` of Linux and of FreeBSD, neither of which the other has.
const BY_KERNEL: [c_int; 2] = [0x80, 0x10006];

/// How this process was to react to signals when it was started, for a program that it starts.
#[derive(Clone, Copy, Debug)]
pub struct InheritedSignals {
    pub(crate) mask: libc::sigset_t,
    /// A bit for each signal.
    ignored: u128,
}

impl InheritedSignals {
    /// To be called before any reaction is changed. That to SIGPIPE, which the Rust runtime has changed by then, is taken for the
    /// default.
    #[must_use]
    pub fn now() -> Self {
        let mut mask = MaybeUninit::zeroed();
        // SAFETY: without a new mask, pthread_sigmask only fills `mask`, whose all-zero bytes are valid as well.
        let mask = unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), mask.as_mut_ptr());
            mask.assume_init()
        };
        let ignored = (1..=LAST_SIGNAL).filter(|&signal| signal != libc::SIGPIPE && is_ignored(Signal(signal)));
        Self { mask, ignored: ignored.fold(0, |bits, signal| bits | 1 << signal) }
    }

    pub(crate) fn ignores(&self, signal: c_int) -> bool {
        self.ignored & 1 << signal != 0
    }
}

/// How often a signal has arrived.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    /// Sent by a process.
    pub from_process: Arc<AtomicU32>,
    /// Sent by the kernel: by a key of the terminal, to the whole foreground process group.
    pub from_kernel: Arc<AtomicU32>,
}

impl Arrivals {
    /// Counts the arrivals of a signal from now on, instead of what it would do to this process.
    ///
    /// # Errors
    /// If the system refuses a handler.
    pub fn count(&self, signal: Signal) -> io::Result<()> {
        let Self { from_process, from_kernel } = self.clone();
        let note = move |info: &libc::siginfo_t| {
            let counter = if BY_KERNEL.contains(&info.si_code) { &from_kernel } else { &from_process };
            counter.fetch_add(1, Ordering::Relaxed);
        };
        // SAFETY: the action does nothing but to add to atomic numbers.
        unsafe { signal_hook_registry::register_sigaction(signal.0, note) }.map(drop)
    }
}

/// True if this process ignores the signal, for example SIGHUP because `nohup` started it.
#[must_use]
pub fn is_ignored(signal: Signal) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action, sigaction only fills `action`, whose all-zero bytes are valid as well.
    let action = unsafe {
        libc::sigaction(signal.0, ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_ignored_signals() {
        // The Rust runtime ignores SIGPIPE and leaves SIGWINCH alone.
        assert!(is_ignored(Signal(libc::SIGPIPE)));
        assert!(!is_ignored(Signal(libc::SIGWINCH)));
    }
}
