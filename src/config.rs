//! What the user asked for, validated.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use memleax_platform::Pid;

use crate::objects::Objects;

/// Which mechanism observes the target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// The best that works here.
    Auto,
    /// int3 breakpoints by ptrace.
    Ptrace,
    /// uprobes.
    Bpf,
}

/// What is watched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// A process that runs already.
    Process(Pid),
    /// A program to be started, and its arguments; not empty.
    Command(Vec<OsString>),
}

/// When to colour the report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Color {
    /// If what it is written to is a terminal (and `NO_COLOR` is not set).
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// When a block counts as a leak, and when monitoring ends by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// `-e`: a block that lives longer is reported; above zero.
    pub expire: Duration,
    /// `-m`: stop when this many blocks of one call stack have expired, also those freed since.
    pub expired_blocks: u64,
    /// `-c`: stop when this many call stacks have leaked.
    pub call_stacks: u64,
    /// `--stop-after`: stop when this many blocks in all have expired and were not freed.
    pub leaked_blocks: u64,
}

impl Limits {
    /// No limit ends monitoring.
    #[must_use]
    pub fn none(expire: Duration) -> Limits {
        Limits { expire, expired_blocks: u64::MAX, call_stacks: u64::MAX, leaked_blocks: u64::MAX }
    }
}

/// What is kept of a run besides its report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Keep {
    /// Nothing that outlives it.
    Nothing,
    /// A recording in memory, for reports to be made of it.
    Whole,
    /// A recording in a file.
    File {
        /// Its name.
        path: PathBuf,
        /// Bytes beyond which moments are thinned out.
        limit: u64,
        /// `--full`: each event instead of moments.
        full: bool,
    },
}

/// How the report looks while monitoring goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LiveForm {
    /// As the original memleax's.
    Text,
    /// A JSON object a line.
    JsonLines,
}

/// One run of memleax.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// What to watch.
    pub target: Target,
    /// When to report and when to stop.
    pub limits: Limits,
    /// `-d`: separate debug file of the main executable.
    pub debug_file: Option<PathBuf>,
    /// `-l`: the longest backtrace, the allocator's own frame included; at least 1.
    pub depth: usize,
    /// `--backend`.
    pub backend: Backend,
    /// `--duration`: stop after this time.
    pub duration: Option<Duration>,
    /// `--by-thread`: tell call stacks of different threads apart.
    pub by_thread: bool,
    /// `--mmap`: track anonymous mappings, too.
    pub mmap: bool,
    /// `--color`.
    pub color: Color,
    /// `--follow-forks`: watch the processes that the target starts, too.
    pub follow_forks: bool,
    /// `--error-exitcode`: what to end with if blocks were leaked.
    pub error_exit_code: Option<u8>,
    /// What is recorded.
    pub keep: Keep,
    /// `--interval`: take a snapshot, and show it, so often.
    pub interval: Option<Duration>,
    /// `--snapshot-at`: functions each of whose calls takes a snapshot, by their symbols.
    pub snapshot_at: Vec<String>,
    /// `--object`, `--allocator`, `--config`: functions that hand out objects, or memory besides those that are known.
    pub objects: Objects,
    /// `--reference`: functions whose calls are counted, by their symbols; at most
    /// [`References::MOST`](crate::marker::References::MOST).
    pub references: Vec<String>,
    /// `--live`.
    pub live: LiveForm,
    /// `memleax ctl` may ask; not with `--no-control`.
    pub control: bool,
    /// `-q`: no live lines, only the final statistics.
    pub quiet: bool,
}
