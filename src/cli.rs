//! The command line: what may be asked, and what becomes of it.

mod duration;
mod manual;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use memleax_platform::Pid;

use crate::config::{Backend, Color, Config, Limits, Target};

const EXIT_STATUS: &str = "\
Exit status:
  0  Monitoring ended: the target ended, a signal, -m, -c or --duration said so, or nobody reads
     the output any more. Leaks found or not
  1  Monitoring could not begin; the target is as it was
  2  The command line is wrong
  3  Monitoring broke off, the report could not be written, or the target could not be left as it
     was found; standard error says which

With COMMAND, 0 is replaced by its own status, or 128+N if signal N killed it. 127 if it is not
found, 126 if it cannot be run. With --error-exitcode, by that, if blocks were leaked and no signal
killed it.";

const USAGE: &str = "\
memleax [OPTIONS] <PID>
       memleax [OPTIONS] -- <COMMAND> [ARGS]...
       memleax doctor [PID]";

const DOCTORS_STATUS: &str = "\
Exit status:
  0  A backend works here, and PID can be watched
  1  Not so; what is missing is said";

const SIGNALS: &str = "\
Signals:
  INT, TERM, HUP and QUIT end monitoring: memleax detaches first, then prints the statistics. A
  second one cuts naming and printing short, never the detaching. TSTP (Ctrl-Z) is refused, as a
  stopped memleax would stop its target, too.
  With COMMAND they are for that: INT, TERM, HUP, QUIT, USR2 and WINCH that memleax is sent are
  passed on (those of the terminal reach it anyway), and memleax goes on until it ends. Three that
  ask for an end within 2 seconds end memleax only: it detaches, reports, and leaves COMMAND
  running. USR1 is not passed on";

/// Names the call stacks of a running process that allocate memory and keep it too long.
///
/// memleax attaches to PID, which needs neither a restart nor preparation, observes its allocator, and reports each
/// call stack whose blocks live longer than the expiry time. The process goes on, slower, and is left as it was found.
///
/// Or it starts COMMAND and watches it from its first instruction. Standard input and output are then the program's, and the report
/// goes to standard error.
#[derive(Parser, Debug)]
#[command(name = "memleax", version, disable_version_flag = true, after_help = EXIT_STATUS, max_term_width = 100)]
#[command(override_usage = USAGE)]
#[command(after_long_help = format!("{EXIT_STATUS}\n\n{SIGNALS}"))]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    instead: Option<Instead>,

    /// The process to watch
    #[arg(value_name = "PID", required_unless_present_any = ["command", "completions", "man"], value_parser = parse_pid)]
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

    /// Stop when one call stack has N expired blocks that were not freed
    #[arg(short = 'm', long, value_name = "N", default_value_t = 1000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    expired_blocks: u64,

    /// Stop when N call stacks have expired blocks
    #[arg(short, long, value_name = "N", default_value_t = 1000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    call_stacks: u64,

    /// Stop after this time (as for --expire)
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    duration: Option<Duration>,

    /// End with status N if blocks were leaked: at the end of the program never freed, else expired
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    error_exitcode: Option<u8>,

    /// Track anonymous memory mappings, too (mmap, mremap, munmap by way of the C library)
    #[arg(long)]
    mmap: bool,

    /// How to observe the target
    #[arg(long, value_name = "BACKEND", default_value = "auto")]
    backend: BackendArgument,

    /// When to colour the report
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    color: ColorArgument,

    /// Print no live lines, only the final statistics
    #[arg(short, long)]
    quiet: bool,

    /// Log to standard error what is at least so urgent
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log: LogArgument,

    /// Print a completion script for SHELL and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    completions: Option<Shell>,

    /// Print the manual page (roff) and exit
    #[arg(long, exclusive = true)]
    man: bool,

    /// Print the version and exit
    #[arg(short = 'v', visible_short_alias = 'V', long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// What to do instead of watching.
#[derive(Subcommand, Clone, Debug)]
enum Instead {
    /// Tell what this machine (and a process) lets memleax do, and what to change; attaches to nothing
    #[command(after_help = DOCTORS_STATUS)]
    Doctor {
        /// The process to look at
        #[arg(value_name = "PID", value_parser = parse_pid)]
        target: Option<Pid>,

        /// When to colour the answer
        #[arg(long, value_name = "WHEN", default_value = "auto")]
        color: ColorArgument,
    },
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
enum ColorArgument {
    /// If standard output is a terminal and NO_COLOR is not set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
#[value(rename_all = "lower")]
enum LogArgument {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
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

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Watch a process.
    Watch {
        /// How.
        config: Config,
        /// The least urgent level that is logged.
        log: tracing::Level,
    },
    /// Tell what is possible here.
    Doctor {
        /// With this process.
        target: Option<Pid>,
        /// When to colour the answer.
        color: Color,
    },
    /// Print the completion script of this shell.
    Completions(Shell),
    /// Print the manual page.
    Manual,
}

/// What the arguments (the first is the program's name) ask for.
///
/// # Errors
/// What is wrong with them; also the answers to `--help` and `--version`, as clap has it.
pub fn parse(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Command, clap::Error> {
    let arguments = Arguments::try_parse_from(arguments)?;
    if let Some(Instead::Doctor { target, color }) = arguments.instead {
        return Ok(Command::Doctor { target, color: color.into() });
    }
    if let Some(shell) = arguments.completions {
        return Ok(Command::Completions(shell));
    }
    let target = match arguments.target {
        Some(pid) => Target::Process(pid),
        None if arguments.man => return Ok(Command::Manual),
        None => Target::Command(arguments.command),
    };
    let config = Config {
        target,
        limits: Limits {
            expire: arguments.expire,
            expired_blocks: arguments.expired_blocks,
            call_stacks: arguments.call_stacks,
        },
        debug_file: arguments.debug_file,
        depth: arguments.depth.into(),
        backend: match arguments.backend {
            BackendArgument::Auto => Backend::Auto,
            BackendArgument::Ptrace => Backend::Ptrace,
            BackendArgument::Bpf => Backend::Bpf,
        },
        duration: arguments.duration,
        mmap: arguments.mmap,
        color: arguments.color.into(),
        error_exit_code: arguments.error_exitcode,
        quiet: arguments.quiet,
    };
    let log = match arguments.log {
        LogArgument::Error => tracing::Level::ERROR,
        LogArgument::Warn => tracing::Level::WARN,
        LogArgument::Info => tracing::Level::INFO,
        LogArgument::Debug => tracing::Level::DEBUG,
        LogArgument::Trace => tracing::Level::TRACE,
    };
    Ok(Command::Watch { config, log })
}

/// Writes the completion script of `shell`.
///
/// # Errors
/// Those of `output`.
pub fn write_completions(shell: Shell, output: &mut dyn Write) -> io::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "memleax", &mut script);
    output.write_all(&script)
}

/// Writes the manual page.
///
/// # Errors
/// Those of `output`.
pub fn write_manual(output: &mut dyn Write) -> io::Result<()> {
    manual::write(Arguments::command(), output)
}

fn parse_pid(text: &str) -> Result<Pid, String> {
    match text.parse() {
        Ok(pid) if pid > 0 => Ok(Pid(pid)),
        _ => Err("a process id is a number above 0; see `pgrep NAME`".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(arguments: &[&str]) -> Config {
        match parse(["memleax"].iter().chain(arguments)) {
            Ok(Command::Watch { config, .. }) => config,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_original() {
        let config = watch(&["42"]);
        assert_eq!(
            config,
            Config {
                target: Target::Process(Pid(42)),
                limits: Limits { expire: Duration::from_secs(10), expired_blocks: 1000, call_stacks: 1000 },
                debug_file: None,
                depth: 50,
                backend: Backend::Auto,
                duration: None,
                mmap: false,
                color: Color::Auto,
                error_exit_code: None,
                quiet: false,
            }
        );
    }

    #[test]
    fn a_command_keeps_its_own_options() {
        let config = watch(&["-q", "--", "ls", "-l", "--", "--quiet"]);
        assert_eq!(config.target, Target::Command(["ls", "-l", "--", "--quiet"].map(Into::into).into()));
        for arguments in [&["1", "--", "ls"][..], &["--"], &[]] {
            assert!(parse(["memleax"].iter().chain(arguments)).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn the_doctor_takes_a_pid_or_none() {
        let doctor =
            |arguments: &[&str]| parse(["memleax", "doctor"].iter().chain(arguments)).map_err(|error| error.kind());
        assert_eq!(doctor(&[]), Ok(Command::Doctor { target: None, color: Color::Auto }));
        let expected = Command::Doctor { target: Some(Pid(7)), color: Color::Never };
        assert_eq!(doctor(&["--color", "never", "7"]), Ok(expected));
        assert_eq!(doctor(&["-e", "7"]), Err(clap::error::ErrorKind::UnknownArgument));
    }

    #[test]
    fn every_option_reaches_the_configuration() {
        let config = watch(&[
            "-e360",
            "-d",
            "x.debug",
            "-l",
            "7",
            "-m",
            "3",
            "-c",
            "4",
            "--duration",
            "2m",
            "--mmap",
            "--backend",
            "ptrace",
            "--color",
            "never",
            "--error-exitcode",
            "9",
            "-q",
            "1",
        ]);
        assert_eq!(
            config,
            Config {
                target: Target::Process(Pid(1)),
                limits: Limits { expire: Duration::from_secs(360), expired_blocks: 3, call_stacks: 4 },
                debug_file: Some("x.debug".into()),
                depth: 7,
                backend: Backend::Ptrace,
                duration: Some(Duration::from_secs(120)),
                mmap: true,
                color: Color::Never,
                error_exit_code: Some(9),
                quiet: true,
            }
        );
    }
}
