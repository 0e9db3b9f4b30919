//! Runs over a scripted source: what ends one, in which order things happen then, and what reaches the report.

mod backlog;
mod inquiries;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

use memleax_platform::{Pid, Signal};

use super::*;
use crate::config::{Backend, Color, Keep, Limits, LiveForm, Target};
use crate::event::{Backtrace, Ending, Frame, FrameKind, StackId};
use crate::source::Notice;
use crate::stack::StackTable;
use crate::unwind::ModuleTable;

/// What one call of [`Source::observe`] does.
enum Step {
    /// A block of the same call stack expires, this many times.
    Expiries(u64),
    /// Before each of so many calls of the first function that the user has named, a block is allocated.
    Marks(u64),
    Notice(Notice),
    /// A signal arrives.
    Signal,
    /// Another thread lets this one go on.
    WaitFor(Receiver<()>),
    Ended(ExitStatus),
    Fails,
    Panics,
}

struct Scripted {
    steps: std::vec::IntoIter<Step>,
    end: Arc<std::sync::atomic::AtomicBool>,
    notices: Vec<Notice>,
    stacks: StackTable,
    modules: ModuleTable,
    seconds: u64,
    addresses: u64,
    log: Log,
    detach: Result<Vec<Notice>, &'static str>,
}

/// In order: what the source was asked for, and what was printed.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Log {
    fn push(&self, text: &str) {
        self.0.lock().expect("no panic while locked").push_str(text);
    }

    fn text(&self) -> String {
        self.0.lock().expect("no panic while locked").clone()
    }

    fn contains(&self, text: &str) -> bool {
        self.text().contains(text)
    }

    /// True if both stand in the log, the first first.
    fn has_in_order(&self, first: &str, second: &str) -> bool {
        let text = self.text();
        matches!((text.find(first), text.find(second)), (Some(first), Some(second)) if first < second)
    }
}

const DETACHED: &str = "<detached>\n";

fn seconds(count: u64) -> Timestamp {
    Timestamp(count * 1_000_000_000)
}

impl Source for Scripted {
    fn observe(&mut self, sink: &mut dyn Sink) -> Result<Progress, BoxedError> {
        match self.steps.next() {
            None => {
                // Time goes on until the run is ended: by its clock, or by the other thread as soon as that gets to it.
                self.seconds += 1;
                std::thread::yield_now();
            }
            Some(Step::Expiries(count)) => {
                for _ in 0..count {
                    self.addresses += 16;
                    let address = self.addresses;
                    sink.event(seconds(self.seconds), Event::Allocated { address, size: 1, stack: StackId(0) });
                }
                self.seconds += 11;
            }
            Some(Step::Marks(count)) => {
                for _ in 0..count {
                    self.addresses += 16;
                    let address = self.addresses;
                    sink.event(seconds(self.seconds), Event::Allocated { address, size: 1, stack: StackId(0) });
                    sink.event(seconds(self.seconds), Event::Marked(0));
                }
            }
            Some(Step::Notice(notice)) => self.notices.push(notice),
            Some(Step::Signal) => self.end.store(true, std::sync::atomic::Ordering::Relaxed),
            Some(Step::WaitFor(go)) => go.recv().expect("the other thread lives"),
            Some(Step::Ended(status)) => return Ok(Progress::TargetEnded(status)),
            Some(Step::Fails) => return Err("the kernel said no".into()),
            Some(Step::Panics) => panic!("scripted panic"),
        }
        sink.event(seconds(self.seconds), Event::Idle);
        Ok(Progress::Running)
    }

    fn notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    fn detach(&mut self, _: &mut dyn Sink) -> Result<Vec<Notice>, BoxedError> {
        self.log.push(DETACHED);
        self.detach.clone().map_err(Into::into)
    }

    fn tells_events(&self) -> bool {
        true
    }

    fn stacks(&self) -> &StackTable {
        &self.stacks
    }

    fn modules(&self) -> &ModuleTable {
        &self.modules
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Failing(io::ErrorKind);

impl Write for Failing {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Panicking;

impl Write for Panicking {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        panic!("scripted panic");
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes nothing until it is let go; tells when the first byte is to be written.
struct Stuck {
    reached: Option<Sender<()>>,
    go: Receiver<()>,
    log: Log,
}

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(reached) = self.reached.take() {
            reached.send(()).expect("the test lives");
            self.go.recv().expect("the test lives");
        }
        self.log.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn config() -> Config {
    Config {
        target: Target::Process(Pid(42)),
        limits: Limits { call_stacks: 10, ..Limits::none(Duration::from_secs(10)) },
        debug_file: None,
        depth: 50,
        backend: Backend::Auto,
        duration: None,
        by_thread: false,
        mmap: false,
        live: LiveForm::Text,
        color: Color::Never,
        follow_forks: false,
        error_exit_code: None,
        keep: Keep::Nothing,
        interval: None,
        snapshot_at: Vec::new(),
        objects: crate::objects::Objects::default(),
        references: Vec::new(),
        control: false,
        quiet: false,
    }
}

struct Run {
    source: Scripted,
    signals: Signals,
    log: Log,
    attendants: Vec<Attendant>,
}

impl Run {
    fn new(steps: Vec<Step>) -> Self {
        let signals = Signals::default();
        let log = Log::default();
        let mut stacks = StackTable::default();
        stacks.intern(&Backtrace {
            frames: vec![Frame { module: None, kind: FrameKind::Exact, address: 0xabc }],
            ending: Ending::Complete,
            by_frame_pointer: false,
        });
        let source = Scripted {
            steps: steps.into_iter(),
            end: signals.end_flag(),
            notices: Vec::new(),
            stacks,
            modules: ModuleTable::default(),
            seconds: 0,
            addresses: 0x1000,
            log: log.clone(),
            detach: Ok(Vec::new()),
        };
        Self { source, signals, log, attendants: Vec::new() }
    }

    fn go(&mut self, config: &Config) -> Result<Outcome, Vec<Error>> {
        let output = self.log.clone();
        self.go_to(config, anstream::StripStream::new(Box::new(output) as Box<dyn Write + Send>))
    }

    fn go_to(&mut self, config: &Config, output: impl Write + Send + 'static) -> Result<Outcome, Vec<Error>> {
        let storage = Storage::Memory(Vec::new());
        let watched = Watched {
            pid: Pid(42),
            backend: "scripted".into(),
            program: None,
            storage,
            company: Company { attendants: std::mem::take(&mut self.attendants), ..Company::default() },
        };
        let showing = Showing { filters: Filters::default(), view: View::Leaks };
        watch(&mut self.source, watched, config, &showing, &self.signals, output)
    }
}

#[test]
fn a_target_that_ended_is_not_detached_from() {
    for (status, line) in [
        (ExitStatus::Exited(3), "Its exit status is 3."),
        (ExitStatus::Killed(Signal(9)), "It was killed by signal 9."),
    ] {
        let mut run = Run::new(vec![Step::Expiries(2), Step::Ended(status)]);
        assert!(run.go(&config()).is_ok());
        assert!(!run.log.contains(DETACHED));
        assert!(run.log.has_in_order("== Begin monitoring process 42...", "CallStack[1]: memory expires with 1 bytes"));
        assert!(run.log.has_in_order("== Target process exit.", line));
        assert!(run.log.has_in_order(line, "may-leak=2 (2 bytes)"), "{}", run.log.text());
    }
}

#[test]
fn a_signal_detaches_first_and_reports_then() {
    let mut run = Run::new(vec![Step::Expiries(1), Step::Signal]);
    assert!(run.go(&config()).is_ok());
    assert!(run.log.has_in_order(DETACHED, "== Terminate monitoring."), "{}", run.log.text());
    assert!(run.log.has_in_order("== Terminate monitoring.", "may-leak=1 (1 bytes)"));
}

#[test]
fn a_limit_ends_the_run() {
    let mut config = config();
    config.limits.expired_blocks = 3;
    let mut run = Run::new(vec![Step::Expiries(5)]);
    assert!(run.go(&config).is_ok());
    assert!(run.log.has_in_order(DETACHED, "== 3 memory blocks leaked at CallStack[1]."), "{}", run.log.text());
}

#[test]
fn the_duration_is_by_the_source_s_clock() {
    let config = Config { duration: Some(Duration::from_secs(90)), ..config() };
    let mut run = Run::new(vec![]);
    assert!(run.go(&config).is_ok());
    assert_eq!(run.source.seconds, 90);
    assert!(run.log.has_in_order(DETACHED, "== No expired memory blocks."), "{}", run.log.text());
}

#[test]
fn quiet_means_statistics_and_warnings_only() {
    let config = Config { quiet: true, ..config() };
    let warning = Notice::Warning("half of it is invisible".into());
    let mut run = Run::new(vec![Step::Notice(warning), Step::Expiries(2), Step::Signal]);
    assert!(run.go(&config).is_ok());
    assert!(!run.log.contains("Begin monitoring") && !run.log.contains("memory expires"), "{}", run.log.text());
    assert!(run.log.has_in_order("half of it is invisible", "may-leak=2"));
}

#[test]
fn a_closed_pipe_is_an_ordinary_end_with_a_detach() {
    let mut run = Run::new(vec![]);
    assert!(run.go_to(&config(), Failing(io::ErrorKind::BrokenPipe)).is_ok());
    assert!(run.log.contains(DETACHED));
}

#[test]
fn a_full_disk_is_an_error_after_a_detach() {
    let mut run = Run::new(vec![]);
    let errors = run.go_to(&config(), Failing(io::ErrorKind::StorageFull)).expect_err("an error");
    assert!(matches!(&errors[..], [Error::Output(_)]), "{errors:?}");
    assert!(run.log.contains(DETACHED));
}

#[test]
fn an_observation_that_fails_detaches_and_still_reports() {
    let mut run = Run::new(vec![Step::Expiries(1), Step::Fails]);
    let errors = run.go(&config()).expect_err("an error");
    assert_eq!(errors[0].to_string(), "monitoring broke off: the kernel said no");
    assert!(run.log.has_in_order(DETACHED, "Warning: Monitoring broke off: the kernel said no"), "{}", run.log.text());
    assert!(run.log.contains("may-leak=1"));
}

#[test]
fn a_panic_detaches_before_it_goes_on() {
    let mut run = Run::new(vec![Step::Panics]);
    let panic = catch_unwind(AssertUnwindSafe(|| run.go(&config()))).expect_err("a panic");
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"scripted panic"));
    assert!(run.log.contains(DETACHED));
}

#[test]
fn a_panic_of_the_thread_that_prints_is_no_less_clean() {
    let mut run = Run::new(vec![]);
    let panic = catch_unwind(AssertUnwindSafe(|| run.go_to(&config(), Panicking))).expect_err("a panic");
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"scripted panic"));
    assert!(run.log.contains(DETACHED));
}

#[test]
fn what_detaching_could_not_put_back_is_told() {
    let mut run = Run::new(vec![Step::Signal]);
    run.source.detach = Ok(vec![Notice::Warning("one byte is somebody else's".into())]);
    assert!(run.go(&config()).is_ok());
    assert!(run.log.has_in_order(DETACHED, "Warning: one byte is somebody else's"), "{}", run.log.text());

    let mut run = Run::new(vec![Step::Signal]);
    run.source.detach = Err("a thread would not stop");
    let errors = run.go(&config()).expect_err("an error");
    assert_eq!(errors[0].to_string(), "the target may not be as it was found: a thread would not stop");
    assert!(run.log.contains("== Terminate monitoring."));
}

#[test]
fn a_debug_file_for_no_executable_is_told() {
    let config = Config { debug_file: Some("x.debug".into()), ..config() };
    let mut run = Run::new(vec![Step::Signal]);
    assert!(run.go(&config).is_ok());
    assert!(
        run.log.contains("Warning: x.debug is not used: the target's executable is unknown."),
        "{}",
        run.log.text()
    );
}

#[test]
fn a_reader_that_is_stuck_holds_up_the_report_only() {
    let (reached, was_reached) = mpsc::channel();
    let (let_go, go) = mpsc::channel();
    let mut run = Run::new(vec![Step::WaitFor(was_reached), Step::Expiries(50_000), Step::Signal]);
    let stuck = Stuck { reached: Some(reached), go, log: run.log.clone() };
    let source_log = run.log.clone();
    let releaser = std::thread::spawn(move || {
        // The run gets as far as detaching while its report is stuck.
        while !source_log.contains(DETACHED) {
            std::thread::yield_now();
        }
        let_go.send(()).expect("the report waits");
    });
    assert!(run.go_to(&config(), stuck).is_ok());
    releaser.join().expect("released");
    let text = run.log.text();
    let shown = text.matches("times again").count();
    let left_out = 50_000 - 1 - shown;
    assert!((9_000..=10_000).contains(&shown), "{shown}");
    assert!(text.contains(&format!("{left_out} lines left out here")), "{left_out}");
    assert!(text.contains("expired=50000 (50000 bytes)"), "what is counted is not left out");
}

#[test]
fn a_second_signal_cuts_the_naming_short() {
    let (reached, was_reached) = mpsc::channel();
    let (let_go, go) = mpsc::channel();
    let mut run = Run::new(vec![Step::WaitFor(was_reached), Step::Signal]);
    let stuck = Stuck { reached: Some(reached), go, log: run.log.clone() };
    let (log, end) = (run.log.clone(), run.signals.end_flag());
    let impatient = std::thread::spawn(move || {
        while !log.contains(DETACHED) {
            std::thread::yield_now();
        }
        end.store(true, std::sync::atomic::Ordering::Relaxed);
        while end.load(std::sync::atomic::Ordering::Relaxed) {
            std::thread::yield_now();
        }
        let_go.send(()).expect("the report waits");
    });
    assert!(run.go_to(&config(), stuck).is_ok());
    impatient.join().expect("ended");
    assert!(run.log.has_in_order(DETACHED, "-- Names are missing"), "{}", run.log.text());
}

#[test]
fn a_third_signal_does_not_wait_for_a_stuck_report() {
    let (reached, was_reached) = mpsc::channel();
    let (let_go, go) = mpsc::channel();
    let mut run = Run::new(vec![Step::WaitFor(was_reached), Step::Signal]);
    let stuck = Stuck { reached: Some(reached), go, log: run.log.clone() };
    let (log, end) = (run.log.clone(), run.signals.end_flag());
    let (over, is_over) = mpsc::channel();
    let impatient = std::thread::spawn(move || {
        while !log.contains(DETACHED) {
            std::thread::yield_now();
        }
        while is_over.try_recv() == Err(mpsc::TryRecvError::Empty) {
            end.store(true, std::sync::atomic::Ordering::Relaxed);
            std::thread::yield_now();
        }
    });
    let errors = run.go_to(&config(), stuck).expect_err("an error");
    over.send(()).expect("the other thread lives");
    impatient.join().expect("ended");
    let_go.send(()).expect("the report waits");
    assert!(matches!(&errors[..], [Error::CutShort]), "{errors:?}");
}

/// All in one look at the target, and more than are kept.
#[test]
fn each_call_of_a_named_function_is_a_snapshot_of_its_moment() {
    let config = Config { keep: Keep::Whole, snapshot_at: vec!["mark".into()], ..config() };
    let mut run = Run::new(vec![Step::Marks(7), Step::Marks(998), Step::Signal]);
    let outcome = run.go(&config).expect("an ordinary end");
    let recording = outcome.recording.expect("it is wanted");
    let profile = crate::recording::replay(&recording, None).expect("a recording").into_profile(&mut |_| None);
    assert_eq!(profile.snapshots.len(), marks::MOST);
    for (calls, snapshot) in (1..).zip(&profile.snapshots) {
        let live = Tally { count: calls, bytes: calls };
        assert_eq!(
            (snapshot.cause.as_str(), snapshot.moment.live, &snapshot.live[..]),
            ("mark", live, &[(0, live)][..])
        );
    }
    assert_eq!(profile.losses.into_iter().collect::<Vec<_>>(), [(Loss::SnapshotNotTaken, 5)]);
}
