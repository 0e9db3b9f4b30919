//! Questions to a run while it goes on, asked by threads that attend it.
//!
//! Who asks waits; the thread that traces never does. It looks at one flag a tick; if somebody has asked, it takes a moment and
//! passes the questions on to the thread that prints, which names frames and answers. An attendant that blocks or panics is left
//! behind: neither the target nor the report depend on it.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use memleax_platform::Pid;

use crate::profile::Profile;

/// How long an answer may take: the thread that prints may be naming frames by debug information of gigabytes, or may wait for
/// whoever reads the report.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long attendants may go on after the run.
const FAREWELL: Duration = Duration::from_secs(2);

/// How often a signal is looked for that hurries.
const GLANCE: Duration = Duration::from_millis(50);

/// Why there is no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InquiryError {
    /// The run is over.
    #[error("monitoring has ended")]
    Over,
    /// It takes too long.
    #[error("the report is not getting on: it is not read, or debug information takes long to read; ask again later")]
    Busy,
}

/// What a snapshot came to.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Its number, from 1 on.
    pub number: usize,
    /// What is known as of then.
    pub profile: Arc<Profile>,
}

/// Asks a run. Its clones ask the same one.
#[derive(Clone, Debug)]
pub struct Inquirer {
    target: Pid,
    backend: Arc<str>,
    desk: Arc<Desk>,
}

impl Inquirer {
    /// The process that is watched.
    #[must_use]
    pub fn target(&self) -> Pid {
        self.target
    }

    /// What observes it, and why.
    #[must_use]
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// All that is known now, named, unfiltered. The numbers are of the time after the question. The largest and the oldest blocks, and the
    /// ages of the oldest where the source tells events, may be older: each block is looked at for them, at most a twentieth of the time.
    ///
    /// # Errors
    /// [`InquiryError`].
    pub fn profile(&self) -> Result<Arc<Profile>, InquiryError> {
        self.ask(None).map(|taken| taken.profile)
    }

    /// Takes a snapshot, with this cause, which the recording keeps.
    ///
    /// # Errors
    /// [`InquiryError`].
    pub fn snapshot(&self, cause: &str) -> Result<Taken, InquiryError> {
        self.ask(Some(cause.into()))
    }

    fn ask(&self, snapshot: Option<String>) -> Result<Taken, InquiryError> {
        let (answer, answered) = mpsc::sync_channel(1);
        {
            let mut state = self.desk.state();
            if state.ending.is_some() {
                return Err(InquiryError::Over);
            }
            state.questions.push(Question { snapshot, answer });
            self.desk.is_asked.store(true, Ordering::Release);
        }
        answered.recv_timeout(PATIENCE).map_err(|error| match error {
            RecvTimeoutError::Disconnected => InquiryError::Over,
            RecvTimeoutError::Timeout => InquiryError::Busy,
        })
    }

    /// Has monitoring end as Ctrl-C does, at the next tick. A program that memleax has started goes on.
    pub fn stop(&self) {
        self.desk.is_to_stop.store(true, Ordering::Release);
    }

    /// True once the target is left, or has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.desk.state().ending.is_some()
    }

    /// True if that is because the target itself has ended.
    #[must_use]
    pub fn has_target_ended(&self) -> bool {
        self.desk.state().has_target_ended
    }

    /// True if memleax is to end now, and waits only for attendants that stay.
    #[must_use]
    pub fn is_dismissed(&self) -> bool {
        self.desk.is_dismissed.load(Ordering::Acquire)
    }

    /// Waits until the target is left or has ended, at most so long. Then it says how, as a sentence.
    #[must_use]
    pub fn wait_for_end(&self, at_most: Duration) -> Option<String> {
        let state = self.desk.state();
        let waited = self.desk.over.wait_timeout_while(state, at_most, |state| state.ending.is_none());
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.ending.clone()
    }
}

/// A question, and where the answer is waited for.
pub(super) struct Question {
    /// Take one, for this reason.
    pub(super) snapshot: Option<String>,
    pub(super) answer: SyncSender<Taken>,
}

/// Where questions are left.
#[derive(Default)]
struct Desk {
    is_asked: AtomicBool,
    is_to_stop: AtomicBool,
    is_dismissed: AtomicBool,
    state: Mutex<State>,
    over: Condvar,
}

#[derive(Default)]
struct State {
    questions: Vec<Question>,
    ending: Option<String>,
    has_target_ended: bool,
}

impl Desk {
    /// Nothing that holds the lock can panic half-way.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Desk")
    }
}

/// A thread that attends a run: it is started before monitoring begins, and should end soon after that does.
pub struct Attendant {
    name: &'static str,
    work: Box<dyn FnOnce(Inquirer) + Send>,
    stays: bool,
}

impl Attendant {
    /// One that does `work`, in a thread of this name.
    pub fn new(name: &'static str, work: impl FnOnce(Inquirer) + Send + 'static) -> Attendant {
        Attendant { name, work: Box::new(work), stays: false }
    }

    /// The same, which memleax waits for at its end until a signal says otherwise: somebody is looking at it.
    #[must_use]
    pub fn that_stays(self) -> Attendant {
        Attendant { stays: true, ..self }
    }
}

impl std::fmt::Debug for Attendant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Attendant({})", self.name)
    }
}

/// An attendant's thread.
struct Attending {
    name: &'static str,
    ended: Receiver<Infallible>,
    stays: bool,
}

/// The other side of the desk: the run's.
pub(super) struct Reception {
    desk: Arc<Desk>,
    /// Of each attendant: disconnected when its thread is over, however that came about.
    attending: Vec<Attending>,
}

impl Reception {
    /// Starts the attendants.
    ///
    /// # Errors
    /// If the system has no thread left for us; those that were started are told that it is over.
    pub(super) fn open(attendants: Vec<Attendant>, target: Pid, backend: &str) -> io::Result<Self> {
        let mut reception = Reception { desk: Arc::default(), attending: Vec::new() };
        for Attendant { name, work, stays } in attendants {
            let (alive, ended) = mpsc::channel::<Infallible>();
            let inquirer = Inquirer { target, backend: backend.into(), desk: Arc::clone(&reception.desk) };
            thread::Builder::new().name(name.into()).spawn(move || {
                let _alive = alive;
                work(inquirer);
            })?;
            reception.attending.push(Attending { name, ended, stays });
        }
        Ok(reception)
    }

    /// True if somebody waits for an answer.
    pub(super) fn is_asked(&self) -> bool {
        self.desk.is_asked.load(Ordering::Acquire)
    }

    /// Takes the questions; none if they are just being written, which is not waited for.
    pub(super) fn take(&self) -> Vec<Question> {
        match self.desk.state.try_lock() {
            Ok(mut state) => {
                self.desk.is_asked.store(false, Ordering::Relaxed);
                std::mem::take(&mut state.questions)
            }
            Err(_) => Vec::new(),
        }
    }

    /// True if somebody has asked for an end since the last call.
    pub(super) fn end_requested(&self) -> bool {
        self.desk.is_to_stop.swap(false, Ordering::Acquire)
    }

    /// Monitoring is over, for the reason that this sentence tells.
    pub(super) fn close(&self, ending: &str, has_target_ended: bool) {
        let mut state = self.desk.state();
        state.questions.clear();
        if state.ending.is_none() {
            state.ending = Some(ending.into());
            state.has_target_ended = has_target_ended;
        }
        self.desk.over.notify_all();
    }

    /// Waits for the attendants: for those that stay until `is_hurried`, for the others not long.
    pub(super) fn wait(self, is_hurried: &mut dyn FnMut() -> bool) {
        for attending in self.attending.iter().filter(|attending| attending.stays) {
            while attending.ended.recv_timeout(GLANCE) == Err(RecvTimeoutError::Timeout) && !is_hurried() {}
        }
        self.desk.is_dismissed.store(true, Ordering::Release);
        let until = Instant::now() + FAREWELL;
        for Attending { name, ended, .. } in &self.attending {
            let left = until.saturating_duration_since(Instant::now());
            if ended.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
                tracing::warn!("the thread `{name}` does not end; it is left behind");
            }
        }
    }
}

impl Drop for Reception {
    /// Whatever ended the run, nobody is to wait for an answer.
    fn drop(&mut self) {
        self.close("Monitoring broke off.", false);
    }
}
