//! How this process itself reacts to signals.

use std::mem::MaybeUninit;
use std::ptr;

use crate::Signal;

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
