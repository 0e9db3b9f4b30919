//! The thread that names frames and prints.
//!
//! Whatever it waits for (a slow terminal, debug information of half a gigabyte), the thread that controls the target
//! does not wait for it: messages queue up. What must not be left out (the first line of a call stack, warnings, the
//! statistics) is bounded by the number of call stacks; of the lines that repeat, those are left out, and counted, that
//! come while [`BACKLOG`] messages wait.

use std::borrow::Cow;
use std::convert::Infallible;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustc_hash::FxHashSet;

use super::Error;
use super::inquiry::Question;
use super::printer::{self, Subject};
use super::recorder::Plan;
use crate::event::{Backtrace, Class, FrameKind, StackId};
use crate::recording::{EventLog, Look, Sample};
use crate::report::End;
use crate::source::{Notice, Source};
use crate::tracker::{Finding, Statistics};
use crate::unwind::ModuleTable;

/// How many messages may wait before repeating lines are left out.
const BACKLOG: usize = 10_000;

/// How many moments may wait: one that is left out is in the next.
const MOMENTS: usize = 16;

/// How many single events may wait before others are left out, and how many may still wait when they are not any more.
const EVENTS: Range<usize> = 1 << 19..1 << 20;

/// How often a signal that hurries the thread is looked for.
const PATIENCE: Duration = Duration::from_millis(50);

pub(super) enum Message {
    /// The modules that frames name from now on.
    Modules(ModuleTable),
    /// The name of a thread that later call stacks end with.
    Thread(u32, String),
    /// A call stack that later messages name.
    Stack(StackId, Backtrace),
    Notice(Notice),
    Finding(Class, Finding),
    /// A moment, for the recording.
    Sample(Class, Box<Sample>),
    /// Single events, for the recording.
    Events(EventLog),
    /// A moment that the recording has by those; for who asks.
    Note(Class, Box<Sample>),
    /// What a look at each block has told.
    Look(Look),
    /// To be answered by what is known as of the last moment.
    Questions(Vec<Question>),
    /// What is live as of the last sample is to be kept, and perhaps shown.
    Snapshot {
        cause: Cow<'static, str>,
        is_shown: bool,
    },
    /// So many repeating lines were left out here.
    LeftOut(u64),
    SuspendRefused,
    End {
        end: End,
        broke_off: Option<String>,
        statistics: Box<Statistics>,
        /// Of the types of objects, in the order of their classes.
        of_types: Vec<Statistics>,
    },
}

/// What both threads look at.
#[derive(Default)]
pub(super) struct Shared {
    /// Messages that were sent and not yet taken.
    pub(super) waiting: AtomicUsize,
    /// Moments among them.
    pub(super) moments: AtomicUsize,
    /// Single events in them.
    pub(super) events: AtomicUsize,
    /// No more frames are to be named.
    pub(super) hurry: AtomicBool,
}

/// The other thread, as the tracing thread sees it.
pub(super) struct Reporter {
    messages: Sender<Message>,
    /// Disconnected when the thread is over, however that came about.
    ended: Receiver<Infallible>,
    shared: Arc<Shared>,
    thread: JoinHandle<Result<Option<Vec<u8>>, Error>>,
    quiet: bool,
    modules_sent: usize,
    stacks_sent: FxHashSet<StackId>,
    threads_sent: FxHashSet<u32>,
    /// All before this one are sent.
    next_stack: u32,
    left_out: u64,
}

impl Reporter {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system has no thread left for us.
    pub(super) fn start(
        subject: Subject,
        plan: Plan,
        source: &dyn Source,
        output: impl Write + Send + 'static,
    ) -> io::Result<Self> {
        let (messages, inbox) = mpsc::channel();
        let (alive, ended) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let quiet = subject.quiet;
        let modules = source.modules().clone();
        let modules_sent = modules.len();
        let thread = thread::Builder::new().name("report".into()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                let _alive: Sender<Infallible> = alive;
                printer::print(subject, plan, modules, output, &inbox, shared)
            }
        })?;
        let stacks_sent = FxHashSet::default();
        Ok(Self {
            messages,
            ended,
            shared,
            thread,
            quiet,
            modules_sent,
            stacks_sent,
            threads_sent: FxHashSet::default(),
            next_stack: 0,
            left_out: 0,
        })
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        self.send(Message::Notice(notice));
    }

    pub(super) fn suspend_refused(&mut self) {
        self.send(Message::SuspendRefused);
    }

    pub(super) fn finding(&mut self, class: Class, finding: Finding, source: &dyn Source) {
        if self.quiet {
            return;
        }
        let repeats = matches!(finding, Finding::ExpiredAgain { .. } | Finding::ExpiredFreed { .. });
        if repeats && self.shared.waiting.load(Ordering::Relaxed) >= BACKLOG {
            self.left_out += 1;
            return;
        }
        self.account_for_left_out();
        if let Finding::Expired { stack, .. } = finding {
            self.send_stack(stack, source);
        }
        self.send(Message::Finding(class, finding));
    }

    /// True if the other thread is so far behind that a moment may be left out.
    pub(super) fn is_behind(&self) -> bool {
        self.shared.moments.load(Ordering::Relaxed) >= MOMENTS
    }

    /// True if there is no room for more single events; `is_full` if there was none before.
    pub(super) fn is_full(&self, is_full: bool) -> bool {
        let waiting = self.shared.events.load(Ordering::Relaxed);
        waiting >= if is_full { EVENTS.start } else { EVENTS.end }
    }

    /// A moment, for the recording.
    pub(super) fn sample(&mut self, class: Class, sample: Sample, source: &dyn Source) {
        self.send_new_stacks(source);
        self.shared.moments.fetch_add(1, Ordering::Relaxed);
        self.send(Message::Sample(class, Box::new(sample)));
    }

    /// Single events, for the recording.
    pub(super) fn events(&mut self, events: EventLog, source: &dyn Source) {
        self.send_new_stacks(source);
        self.shared.events.fetch_add(events.len(), Ordering::Relaxed);
        self.send(Message::Events(events));
    }

    /// A moment that the recording has by its events.
    pub(super) fn note(&mut self, class: Class, sample: Sample, source: &dyn Source) {
        self.send_new_stacks(source);
        self.shared.moments.fetch_add(1, Ordering::Relaxed);
        self.send(Message::Note(class, Box::new(sample)));
    }

    /// What a look at each block has told.
    pub(super) fn look(&mut self, look: Look, source: &dyn Source) {
        self.send_new_stacks(source);
        self.send(Message::Look(look));
    }

    /// Has them answered by what is known as of the last moment.
    pub(super) fn questions(&mut self, questions: Vec<Question>) {
        self.send(Message::Questions(questions));
    }

    /// What was live at the last sample is kept as a snapshot, and perhaps shown.
    pub(super) fn snapshot(&mut self, cause: Cow<'static, str>, is_shown: bool) {
        self.send(Message::Snapshot { cause, is_shown });
    }

    fn send_new_stacks(&mut self, source: &dyn Source) {
        let known = u32::try_from(source.stacks().len()).unwrap_or(u32::MAX);
        for id in self.next_stack..known {
            self.send_stack(StackId(id), source);
        }
        self.next_stack = known;
    }

    /// Sends the end of the report. The source is not needed afterwards.
    pub(super) fn end(
        &mut self,
        end: End,
        broke_off: Option<String>,
        statistics: Statistics,
        of_types: Vec<Statistics>,
        source: &dyn Source,
    ) {
        self.account_for_left_out();
        for call_stack in of_types.iter().chain([&statistics]).flat_map(|of| &of.call_stacks) {
            self.send_stack(call_stack.stack, source);
        }
        self.send(Message::End { end, broke_off, statistics: Box::new(statistics), of_types });
    }

    /// True if the thread can report no more: its output is closed.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Waits until all is printed; returns the recording if it is in memory and wanted. `is_hurried` is asked now and then: the first
    /// time that it says so stops the naming of further frames, the next one the waiting.
    ///
    /// # Errors
    /// Why the report is not complete.
    ///
    /// # Panics
    /// If the thread did.
    pub(super) fn wait(self, is_hurried: &mut dyn FnMut() -> bool) -> Result<Option<Vec<u8>>, Error> {
        drop(self.messages);
        while self.ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            if is_hurried() && self.shared.hurry.swap(true, Ordering::Relaxed) {
                return Err(Error::CutShort);
            }
        }
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn account_for_left_out(&mut self) {
        if self.left_out > 0 {
            let count = std::mem::take(&mut self.left_out);
            self.send(Message::LeftOut(count));
        }
    }

    fn send_stack(&mut self, id: StackId, source: &dyn Source) {
        if !self.stacks_sent.insert(id) {
            return;
        }
        let modules = source.modules();
        if modules.len() > self.modules_sent {
            self.modules_sent = modules.len();
            self.send(Message::Modules(modules.clone()));
        }
        let backtrace = source.stacks().get(id).clone();
        if let Some(frame) = backtrace.frames.last().filter(|frame| frame.kind == FrameKind::Thread)
            && let Ok(tid) = u32::try_from(frame.address)
            && self.threads_sent.insert(tid)
            && let Some(name) = source.stacks().thread_name(tid)
        {
            self.send(Message::Thread(tid, name.to_owned()));
        }
        self.send(Message::Stack(id, backtrace));
    }

    /// A thread that has ended takes no message; [`wait`](Self::wait) tells why it did.
    fn send(&mut self, message: Message) {
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        _ = self.messages.send(message);
    }
}
