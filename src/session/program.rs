//! The program that memleax has started: it gets the signals that are meant for it, and its end is memleax's.

use std::thread;
use std::time::{Duration, Instant};

use memleax_platform::{Child, ExitStatus, Signal};
use nix::sys::signal::{Signal as Name, raise};

use super::Signals;

/// So many signals that ask for an end, within this time, mean memleax itself.
const INSISTENCE: (u32, Duration) = (3, Duration::from_secs(2));

/// How often the end is looked for when nothing is observed any more.
const PATIENCE: Duration = Duration::from_millis(50);

/// A running program.
pub(super) struct Program {
    child: Child,
    /// When an end was first asked for, and how often since.
    asked: Option<(Instant, u32)>,
    is_over: bool,
}

/// How it came to an end with a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProgramEnd {
    /// The program ended.
    Ended(ExitStatus),
    /// The user wanted memleax to end, by this signal; the program goes on.
    Left(Signal),
}

impl Program {
    pub(super) fn new(child: Child) -> Self {
        Self { child, asked: None, is_over: false }
    }

    /// Passes on the signals that came. The last of them, if memleax itself is to end.
    pub(super) fn relay(&mut self, signals: &Signals) -> Option<Signal> {
        for received in signals.received() {
            if self.is_over {
                // There is nobody to pass it on to.
                if received.asking_to_end > 0 {
                    return Some(received.signal);
                }
                continue;
            }
            if self.insists(received.asking_to_end, Instant::now()) {
                return Some(received.signal);
            }
            for _ in 0..received.to_pass_on {
                self.child.signal(received.signal);
            }
        }
        None
    }

    /// It has ended, while processes that it started go on.
    pub(super) fn has_ended(&mut self) {
        self.is_over = true;
    }

    fn insists(&mut self, times: u32, now: Instant) -> bool {
        let (enough, within) = INSISTENCE;
        let before = self.asked.filter(|&(first, _)| now.duration_since(first) <= within);
        let (first, count) = before.unwrap_or((now, 0));
        if times > 0 {
            self.asked = Some((first, count + times));
        }
        count + times >= enough
    }

    /// Stops memleax, as the terminal has stopped the program, until the shell lets both go on.
    pub(super) fn suspend(&self) {
        if raise(Name::SIGSTOP).is_ok() {
            // Perhaps memleax alone was sent one.
            self.child.signal(Signal(Name::SIGCONT as i32));
        }
    }

    /// How it ended, which `seen` by who observed it may not tell.
    pub(super) fn status(&self, seen: ExitStatus) -> ExitStatus {
        match self.child.ended() {
            None | Some(ExitStatus::Unknown) => seen,
            Some(status) => status,
        }
    }

    /// Waits for its end, or that the user does not want to wait.
    pub(super) fn wait(&mut self, signals: &Signals) -> ProgramEnd {
        loop {
            if let Some(status) = self.child.ended() {
                return ProgramEnd::Ended(status);
            }
            if let Some(signal) = self.relay(signals) {
                return ProgramEnd::Left(signal);
            }
            if signals.suspend_requested() {
                self.suspend();
            }
            thread::sleep(PATIENCE);
        }
    }
}
