//! What signals to memleax itself do. None may kill memleax while it is attached.
//!
//! Where it watches a running process, they end monitoring in order. Where it has started a program, that is what they are meant
//! for, and they are passed on.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use memleax_platform::{Arrivals, InheritedSignals, Signal, is_ignored};
use nix::sys::signal::{SigSet, Signal as Name};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2, SIGWINCH, SIGXCPU};

/// Those that are to end what they are sent to.
const ENDING: [i32; 4] = [SIGINT, SIGTERM, SIGHUP, SIGQUIT];

/// Signals that came and were not yet asked for.
#[derive(Debug)]
pub struct Signals {
    end: Arc<AtomicBool>,
    suspend: Arc<AtomicBool>,
    snapshot: Arc<AtomicBool>,
    inherited: InheritedSignals,
    /// Those that are for a program that memleax has started.
    for_program: Vec<(Signal, Arrivals)>,
}

/// So many of a signal are for the program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    pub(super) signal: Signal,
    /// Sent to memleax alone.
    pub(super) to_pass_on: u32,
    /// Whoever sent them wants an end, so often.
    pub(super) asking_to_end: u32,
}

impl Default for Signals {
    fn default() -> Self {
        Self {
            end: Arc::default(),
            suspend: Arc::default(),
            snapshot: Arc::default(),
            inherited: InheritedSignals::now(),
            for_program: Vec::new(),
        }
    }
}

impl Signals {
    /// From now on signals that would kill or stop memleax are only noted. To be called before any other thread starts,
    /// as those inherit it.
    ///
    /// # Errors
    /// If the system refuses a handler.
    pub fn catch() -> io::Result<Self> {
        let signals = Self::default();
        for signal in ENDING.into_iter().chain([SIGUSR2, SIGXCPU]) {
            // `nohup memleax` is to go on after its terminal.
            if signal == SIGHUP && is_ignored(Signal(signal)) {
                continue;
            }
            signal_hook::flag::register(signal, Arc::clone(&signals.end))?;
        }
        signals.catch_others()?;
        Ok(signals)
    }

    /// The same, where memleax is to start a program: what could be meant for that is counted.
    ///
    /// # Errors
    /// If the system refuses a handler.
    pub fn catch_for_program() -> io::Result<Self> {
        let mut signals = Self::default();
        signal_hook::flag::register(SIGXCPU, Arc::clone(&signals.end))?;
        for signal in ENDING.into_iter().chain([SIGUSR2, SIGWINCH]).map(Signal) {
            // What the program is to ignore it could not be told anyway.
            if !is_ignored(signal) {
                let arrivals = Arrivals::default();
                arrivals.count(signal)?;
                signals.for_program.push((signal, arrivals));
            }
        }
        signals.catch_others()?;
        Ok(signals)
    }

    /// Those that are the same whatever is watched.
    fn catch_others(&self) -> io::Result<()> {
        signal_hook::flag::register(SIGTSTP, Arc::clone(&self.suspend))?;
        signal_hook::flag::register(SIGUSR1, Arc::clone(&self.snapshot))?;
        // Blocked, not caught: a write to the terminal then succeeds, where with a handler it would be tried forever.
        SigSet::from_iter([Name::SIGTTIN, Name::SIGTTOU]).thread_block()?;
        Ok(())
    }

    /// As memleax was to react to signals when it was started.
    pub(super) fn inherited(&self) -> &InheritedSignals {
        &self.inherited
    }

    /// True if a signal asked memleax itself to end since the last call.
    pub(super) fn end_requested(&self) -> bool {
        self.end.swap(false, Ordering::Relaxed)
    }

    /// True if the terminal asked to stop memleax (Ctrl-Z) since the last call.
    pub(super) fn suspend_requested(&self) -> bool {
        self.suspend.swap(false, Ordering::Relaxed)
    }

    /// True if a snapshot was asked for (SIGUSR1) since the last call.
    pub(super) fn snapshot_requested(&self) -> bool {
        self.snapshot.swap(false, Ordering::Relaxed)
    }

    /// What came for the program since the last call.
    pub(super) fn received(&self) -> Vec<Received> {
        let take = |counter: &AtomicU32| counter.swap(0, Ordering::Relaxed);
        let received = |&(signal, ref arrivals): &(Signal, Arrivals)| {
            let to_pass_on = take(&arrivals.from_process);
            let all = to_pass_on + take(&arrivals.from_kernel);
            let asking_to_end = if ENDING.contains(&signal.0) { all } else { 0 };
            Received { signal, to_pass_on, asking_to_end }
        };
        self.for_program.iter().map(received).collect()
    }

    /// What [`end_requested`](Self::end_requested) looks at.
    #[cfg(test)]
    pub(super) fn end_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.end)
    }
}
