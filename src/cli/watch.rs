//! What to watch, and how: the options of a live run.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum, ValueHint};
use memleax_platform::Pid;

use super::objects::ObjectArguments;
use super::{address, duration};
use crate::config::{Backend, Color, Config, Keep, Limits, LiveForm, Target};
use crate::marker::References;
use crate::metrics::Wish;

/// The limits of the original memleax, where a process is watched live.
const LIMIT: u64 = 1000;

#[derive(Args, Clone, Debug)]
pub(super) struct WatchArguments {
    /// The process to watch
    #[arg(value_name = "PID", required_unless_present = "command", value_parser = parse_pid)]
    target: Option<Pid>,

    /// A program to start and watch, and its arguments
    #[arg(value_name = "COMMAND", conflicts_with = "target", last = true, value_hint = ValueHint::CommandWithArguments)]
    command: Vec<OsString>,

    /// Report a block that lives longer than this: seconds, or with units as in 500ms, 6m or 1h30m
    #[arg(short, long, value_name = "TIME", default_value = "10", value_parser = duration::parse)]
    expire: Duration,

    /// Read debug information of the target's main executable from FILE
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    debug_file: Option<PathBuf>,

    /// Show at most N frames of a call stack, the allocator's included (1 to 1000)
    #[arg(short = 'l', long, value_name = "N", default_value_t = 50)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    depth: u16,

    /// Stop when one call stack has N expired blocks that were not freed [default: 1000; with COMMAND or record: never]
    #[arg(short = 'm', long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    expired_blocks: Option<u64>,

    /// Stop when N call stacks have expired blocks [default: 1000; with COMMAND or record: never]
    #[arg(short, long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    call_stacks: Option<u64>,

    /// Stop when N blocks of all call stacks together have expired and were not freed
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    stop_after: Option<u64>,

    /// Stop after this time (as for --expire)
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    duration: Option<Duration>,

    /// Take a snapshot so often, and list the largest live blocks and call stacks (or show another --view)
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    interval: Option<Duration>,

    /// Take a snapshot at each call of the target's function with this symbol; may be repeated
    #[arg(long, value_name = "SYMBOL", value_parser = NonEmptyStringValueParser::new())]
    snapshot_at: Vec<String>,

    /// Count calls of the target's function with this symbol, the work that growth is measured by; may be repeated
    #[arg(long, value_name = "SYMBOL", value_parser = NonEmptyStringValueParser::new())]
    reference: Vec<String>,

    #[command(flatten)]
    objects: ObjectArguments,

    /// End with status N if blocks were leaked: at the end of the program never freed, else expired
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    error_exitcode: Option<u8>,

    /// Tell call stacks of different threads apart, by ptrace; needed for --include-thread
    #[arg(long)]
    by_thread: bool,

    /// Track anonymous memory mappings, too (mmap, mremap, munmap by way of the C library)
    #[arg(long)]
    mmap: bool,

    /// Watch the processes that the target starts, too, each with a report of its own at its end (by ptrace only)
    #[arg(long)]
    follow_forks: bool,

    /// Serve metrics for Prometheus at http://ADDRESS/metrics while monitoring goes on: a port of this machine's own (0: any that is
    /// free), or ADDRESS:PORT
    #[arg(long, value_name = "ADDRESS", value_parser = address::parse)]
    metrics: Option<SocketAddr>,

    /// How many call stacks have series of their own in --metrics
    #[arg(long, value_name = "N", default_value_t = 10, requires = "metrics")]
    #[arg(value_parser = clap::value_parser!(u16).range(..=1000))]
    metrics_sites: u16,

    /// How to observe the target
    #[arg(long, value_name = "BACKEND", default_value = "auto")]
    backend: BackendArgument,

    /// When to colour the report
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    color: ColorArgument,

    /// How to report while monitoring goes on
    #[arg(long, value_name = "FORM", default_value = "text")]
    live: LiveArgument,

    /// Do not listen for `memleax ctl`
    #[arg(long)]
    no_control: bool,

    /// Append the live report and the final statistics to FILE. When it is renamed, the next line goes to a new one
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    live_output: Option<PathBuf>,

    /// Print no live lines, only the final statistics
    #[arg(short, long)]
    quiet: bool,

    /// Log to standard error what is at least so urgent
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log: LogArgument,
}

impl WatchArguments {
    /// # Errors
    /// What clap cannot say of them.
    pub(super) fn check(&self) -> Result<(), clap::Error> {
        if self.reference.len() > References::MOST {
            let text = format!("calls of at most {} functions can be counted (--reference)\n", References::MOST);
            return Err(clap::Error::raw(clap::error::ErrorKind::TooManyValues, text));
        }
        Ok(())
    }

    /// The same below a display: it shows what live lines would tell, and goes on until it is left.
    pub(super) fn under_display(self) -> WatchArguments {
        let never = |asked: Option<u64>| asked.or(Some(u64::MAX));
        let (expired_blocks, call_stacks) = (never(self.expired_blocks), never(self.call_stacks));
        WatchArguments { quiet: true, expired_blocks, call_stacks, interval: None, ..self }
    }

    /// How to watch what, if anything is to be watched; and what is logged.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn into_config(self, keep: Keep) -> Result<(Config, tracing::Level), clap::Error> {
        let target = match self.target {
            Some(pid) => Target::Process(pid),
            None => Target::Command(self.command),
        };
        let is_live = matches!(target, Target::Process(_)) && !matches!(keep, Keep::File { .. });
        let limit = |asked: Option<u64>| asked.unwrap_or(if is_live { LIMIT } else { u64::MAX });
        let config = Config {
            target,
            limits: Limits {
                expire: self.expire,
                expired_blocks: limit(self.expired_blocks),
                call_stacks: limit(self.call_stacks),
                leaked_blocks: self.stop_after.unwrap_or(u64::MAX),
            },
            debug_file: self.debug_file,
            depth: self.depth.into(),
            backend: match self.backend {
                BackendArgument::Auto => Backend::Auto,
                BackendArgument::Ptrace => Backend::Ptrace,
                BackendArgument::Bpf => Backend::Bpf,
            },
            duration: self.duration,
            interval: self.interval,
            snapshot_at: self.snapshot_at,
            references: self.reference,
            objects: self.objects.into_objects()?,
            by_thread: self.by_thread,
            mmap: self.mmap,
            color: self.color.into(),
            follow_forks: self.follow_forks,
            error_exit_code: self.error_exitcode,
            keep,
            live: self.live.into(),
            control: !self.no_control,
            quiet: self.quiet,
        };
        Ok((config, self.log.into()))
    }

    /// The file for the live report, if it is to go to one.
    pub(super) fn live_output(&self) -> Option<PathBuf> {
        self.live_output.clone()
    }

    /// What is to be served of the run.
    pub(super) fn metrics(&self) -> Option<Wish> {
        self.metrics.map(|address| Wish { address, sites: self.metrics_sites.into() })
    }

    /// True if a program is to be started.
    pub(super) fn launches(&self) -> bool {
        self.target.is_none()
    }
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum LiveArgument {
    /// Lines for people
    Text,
    /// A JSON object a line, for programs
    Jsonl,
}

impl From<LiveArgument> for LiveForm {
    fn from(form: LiveArgument) -> LiveForm {
        match form {
            LiveArgument::Text => LiveForm::Text,
            LiveArgument::Jsonl => LiveForm::JsonLines,
        }
    }
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum BackendArgument {
    /// bpf where it works, else ptrace; the report's head says which and why
    Auto,
    /// Breakpoints; exact, needs no privileges beyond a debugger's
    Ptrace,
    /// Probes and books inside the kernel: many times cheaper; needs root and Linux 5.8
    Bpf,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub(super) enum ColorArgument {
    /// If standard output is a terminal and NO_COLOR is not set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
#[value(rename_all = "lower")]
pub(super) enum LogArgument {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<LogArgument> for tracing::Level {
    fn from(log: LogArgument) -> tracing::Level {
        match log {
            LogArgument::Error => tracing::Level::ERROR,
            LogArgument::Warn => tracing::Level::WARN,
            LogArgument::Info => tracing::Level::INFO,
            LogArgument::Debug => tracing::Level::DEBUG,
            LogArgument::Trace => tracing::Level::TRACE,
        }
    }
}

impl From<ColorArgument> for Color {
    fn from(color: ColorArgument) -> Color {
        match color {
            ColorArgument::Auto => Color::Auto,
            ColorArgument::Always => Color::Always,
            ColorArgument::Never => Color::Never,
        }
    }
}

pub(super) fn parse_pid(text: &str) -> Result<Pid, String> {
    match text.parse() {
        Ok(pid) if pid > 0 => Ok(Pid(pid)),
        _ => Err("a process id is a number above 0; see `pgrep NAME`".into()),
    }
}
