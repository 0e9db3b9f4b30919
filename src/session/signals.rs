//! What signals to memleax itself do: they end monitoring in order. None may kill or stop memleax while it is attached.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2, SIGXCPU};

/// Signals that came and were not yet asked for.
#[derive(Debug, Default)]
pub struct Signals {
    end: Arc<AtomicBool>,
    suspend: Arc<AtomicBool>,
}

impl Signals {
    /// From now on signals that would kill or stop memleax are only noted. To be called before any other thread starts,
    /// as those inherit it.
    ///
    /// # Errors
    /// If the system refuses a handler.
    pub fn catch() -> io::Result<Self> {
        let signals = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGXCPU] {
            // `nohup memleax` is to go on after its terminal.
            if signal == SIGHUP && memleax_platform::is_ignored(memleax_platform::Signal(signal)) {
                continue;
            }
            signal_hook::flag::register(signal, Arc::clone(&signals.end))?;
        }
        signal_hook::flag::register(SIGTSTP, Arc::clone(&signals.suspend))?;
        // Blocked, not caught: a write to the terminal then succeeds, where with a handler it would be tried forever.
        SigSet::from_iter([Signal::SIGTTIN, Signal::SIGTTOU]).thread_block()?;
        Ok(signals)
    }

    /// True if a signal asked to end since the last call.
    pub(super) fn end_requested(&self) -> bool {
        self.end.swap(false, Ordering::Relaxed)
    }

    /// True if the terminal asked to stop memleax (Ctrl-Z) since the last call.
    pub(super) fn suspend_requested(&self) -> bool {
        self.suspend.swap(false, Ordering::Relaxed)
    }

    /// What [`end_requested`](Self::end_requested) looks at.
    #[cfg(test)]
    pub(super) fn end_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.end)
    }
}
