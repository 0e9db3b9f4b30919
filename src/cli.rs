//! The command line: what may be asked, and what becomes of it.

mod address;
mod ctl;
mod documents;
mod duration;
mod filters;
mod machine;
mod manual;
mod objects;
mod size;
mod watch;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, CommandFactory, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use memleax_platform::Pid;

use crate::config::{Color, Config, Keep};
use crate::control::{Request, Watched};
use crate::machine::Settings;
use crate::metrics::Wish;
use crate::rendering::{Reading, Wanted};
use crate::report::Format;
use ctl::CtlArguments;
use documents::{DocumentArguments, ReadingArguments};
use watch::{ColorArgument, WatchArguments};

const EXIT_STATUS: &str = "\
Exit status:
  0  Monitoring ended: the target ended, a signal, -m, -c, --stop-after or --duration said so,
     or nobody reads the output any more. Leaks found or not
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
       memleax -a [INTERVAL] [OPTIONS OF ITS OWN]
       memleax record [OPTIONS] -o <FILE> <PID>|-- <COMMAND> [ARGS]...
       memleax top [OPTIONS] <PID>|-- <COMMAND> [ARGS]...
       memleax report [OPTIONS] <FILE>
       memleax diff [OPTIONS] <BEFORE> <AFTER>
       memleax ctl <PID> stats|show <ID>|snapshot|report <FORMAT>|stop
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
  running.
  USR1 takes a snapshot and prints what is live";

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

    #[command(flatten)]
    watch: WatchArguments,

    #[command(flatten)]
    documents: DocumentArguments,

    /// Watch all processes, by bpf, and tell so often (10) of those that have ended; `memleax -a --help` tells its options
    #[arg(short = 'a', long, value_name = "INTERVAL", num_args = 0..=1, value_parser = duration::parse)]
    all: Option<Option<Duration>>,

    /// Print a completion script for SHELL and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    completions: Option<Shell>,

    /// Print the manual page (roff) and exit
    #[arg(long, exclusive = true)]
    man: bool,

    /// Print the sets of frames that --noise hides, with their patterns, and exit
    #[arg(long, exclusive = true)]
    list_noise: bool,

    /// Print the version and exit
    #[arg(short = 'v', visible_short_alias = 'V', long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// What to do instead of watching.
#[derive(Subcommand, Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one of it, and it is taken apart at once")]
enum Instead {
    /// Watch a process or a program, and write a recording, of which `memleax report` makes any report later
    #[command(
        override_usage = "memleax record [OPTIONS] -o <FILE> <PID>\n       memleax record [OPTIONS] -o <FILE> -- <COMMAND> [ARGS]..."
    )]
    Record {
        #[command(flatten)]
        watch: WatchArguments,

        /// Write the recording to FILE; it can be read at any time, also after a crash
        #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        output: PathBuf,

        /// Record each event, by ptrace; FILE then grows with their number
        #[arg(long)]
        full: bool,

        /// Keep FILE below this size (bytes, or with units as in 64M) by telling fewer moments
        #[arg(long, value_name = "SIZE", default_value = "32M", value_parser = size::parse, conflicts_with = "full")]
        max_size: u64,
    },

    /// Watch a process or a program by a display that renews itself: call stacks by live bytes, growth or rate
    ///
    /// Its keys are shown by `?`. Who leaves it by `q` leaves the process as it was found, and reads the final statistics. What COMMAND
    /// reads and writes is not shown.
    #[command(override_usage = "memleax top [OPTIONS] <PID>\n       memleax top [OPTIONS] -- <COMMAND> [ARGS]...")]
    Top {
        #[command(flatten)]
        watch: WatchArguments,

        #[command(flatten)]
        documents: DocumentArguments,
    },

    /// Make reports of a recording
    Report {
        /// The recording
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        recording: PathBuf,

        #[command(flatten)]
        documents: DocumentArguments,

        #[command(flatten)]
        reading: ReadingArguments,
    },

    /// Show what changed from one recording to another, call stack by call stack
    ///
    /// Call stacks are matched by names: by the place in the file in modules with the same build id, by functions' names in those that
    /// were rebuilt. --view says of what: leaks (the default), peak, allocated…
    Diff {
        /// The earlier recording
        #[arg(value_name = "BEFORE", value_hint = ValueHint::FilePath)]
        before: PathBuf,

        /// The later recording
        #[arg(value_name = "AFTER", value_hint = ValueHint::FilePath)]
        after: PathBuf,

        /// Compare what both cost in this time of monitoring, for runs of different length
        #[arg(long, value_name = "TIME", value_parser = duration::parse)]
        per: Option<Duration>,

        #[command(flatten)]
        documents: DocumentArguments,

        #[command(flatten)]
        reading: ReadingArguments,
    },

    /// Ask a memleax that is watching a process, or have it stop
    Ctl(CtlArguments),

    /// Tell what this machine (and a process) lets memleax do, and what to change; attaches to nothing
    #[command(after_help = DOCTORS_STATUS)]
    Doctor {
        /// The process to look at
        #[arg(value_name = "PID", value_parser = watch::parse_pid)]
        target: Option<Pid>,

        /// When to colour the answer
        #[arg(long, value_name = "WHEN", default_value = "auto")]
        color: ColorArgument,
    },
}

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub enum Command {
    /// Watch a process.
    Watch {
        /// How.
        config: Box<Config>,
        /// The least urgent level that is logged.
        log: tracing::Level,
        /// The reports to make at the end besides that of the original memleax.
        wanted: Wanted,
        /// What is to be served of the run.
        metrics: Option<Wish>,
        /// Where the live report goes instead of the standard stream.
        live_output: Option<PathBuf>,
        /// By a display that renews itself.
        display: bool,
    },
    /// Make reports of a recording.
    Report {
        /// The recording's file.
        recording: PathBuf,
        /// How to read it.
        reading: Reading,
        /// The reports.
        wanted: Wanted,
        /// When to colour.
        color: Color,
    },
    /// Show what changed between two recordings.
    Diff {
        /// Their files, the earlier first.
        recordings: [PathBuf; 2],
        /// How to read them.
        reading: Reading,
        /// The time of monitoring to compare, if not that of the whole runs.
        per: Option<Duration>,
        /// The reports.
        wanted: Wanted,
        /// When to colour.
        color: Color,
    },
    /// Ask a memleax that runs.
    Ctl {
        /// Which.
        watched: Watched,
        /// What.
        request: Request,
        /// Where the answer goes, if not to standard output.
        output: Option<PathBuf>,
    },
    /// Watch all processes of the machine.
    Machine {
        /// Which, and how to tell of them.
        settings: Settings,
        /// When to colour.
        color: Color,
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
    /// Print the sets of frames that can be hidden.
    Noise,
}

/// What the arguments (the first is the program's name) ask for.
///
/// # Errors
/// What is wrong with them; also the answers to `--help` and `--version`, as clap has it.
pub fn parse(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Command, clap::Error> {
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let definition = Arguments::command();
    let subcommands: Vec<&str> = definition.get_subcommands().map(clap::Command::get_name).collect();
    if machine::is_meant(&arguments, &subcommands) {
        return machine::parse(&arguments);
    }
    let arguments = Arguments::try_parse_from(arguments)?;
    match arguments.instead {
        Some(Instead::Doctor { target, color }) => return Ok(Command::Doctor { target, color: color.into() }),
        Some(Instead::Ctl(question)) => {
            let (watched, request, output) = question.into_question()?;
            return Ok(Command::Ctl { watched, request, output });
        }
        Some(Instead::Record { watch, output, full, max_size }) => {
            watch.check()?;
            let (metrics, live_output) = (watch.metrics(), watch.live_output());
            let (config, log) = watch.into_config(Keep::File { path: output, limit: max_size, full })?;
            return Ok(Command::Watch {
                config: config.into(),
                log,
                wanted: Wanted::default(),
                metrics,
                live_output,
                display: false,
            });
        }
        Some(Instead::Top { watch, documents }) => {
            watch.check()?;
            let wanted = documents.into_wanted(watch.launches().then_some(Format::Text))?;
            let (metrics, live_output) = (watch.metrics(), watch.live_output());
            let (config, log) = watch.under_display().into_config(kept(&wanted))?;
            objects::check(wanted.of.as_deref(), &config.objects)?;
            return Ok(Command::Watch { config: config.into(), log, wanted, metrics, live_output, display: true });
        }
        Some(Instead::Report { recording, documents, reading }) => {
            let wanted = documents.into_wanted(Some(Format::Text))?;
            let (reading, color) = reading.into_reading();
            return Ok(Command::Report { recording, reading, wanted, color });
        }
        Some(Instead::Diff { before, after, per, documents, reading }) => {
            let wanted = documents.into_wanted(Some(Format::Text))?;
            let (reading, color) = reading.into_reading();
            return Ok(Command::Diff { recordings: [before, after], reading, per, wanted, color });
        }
        None => {}
    }
    if arguments.list_noise {
        return Ok(Command::Noise);
    }
    if let Some(shell) = arguments.completions {
        return Ok(Command::Completions(shell));
    }
    if arguments.man {
        return Ok(Command::Manual);
    }
    // What a program never freed is known when it ends: that is its report.
    let default = arguments.watch.launches().then_some(Format::Text);
    let wanted = arguments.documents.into_wanted(default)?;
    arguments.watch.check()?;
    let (metrics, live_output) = (arguments.watch.metrics(), arguments.watch.live_output());
    let (config, log) = arguments.watch.into_config(kept(&wanted))?;
    objects::check(wanted.of.as_deref(), &config.objects)?;
    Ok(Command::Watch { config: config.into(), log, wanted, metrics, live_output, display: false })
}

/// What is to be kept of a run for the reports. Whether what filters left counts as leaked is seen in the recording.
fn kept(wanted: &Wanted) -> Keep {
    let is_kept = !wanted.documents.is_empty() || wanted.filters.leave_out();
    if is_kept { Keep::Whole } else { Keep::Nothing }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Backend, Limits, LiveForm, Target};

    fn watch(arguments: &[&str]) -> Config {
        match parse(["memleax"].iter().chain(arguments)) {
            Ok(Command::Watch { config, .. }) => *config,
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
                limits: Limits { expired_blocks: 1000, call_stacks: 1000, ..Limits::none(Duration::from_secs(10)) },
                debug_file: None,
                depth: 50,
                backend: Backend::Auto,
                duration: None,
                by_thread: false,
                mmap: false,
                live: LiveForm::Text,
                color: Color::Auto,
                follow_forks: false,
                error_exit_code: None,
                keep: Keep::Nothing,
                interval: None,
                snapshot_at: Vec::new(),
                objects: crate::objects::Objects::default(),
                references: Vec::new(),
                control: true,
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
            "--stop-after",
            "5",
            "--duration",
            "2m",
            "--mmap",
            "--backend",
            "ptrace",
            "--color",
            "never",
            "--error-exitcode",
            "9",
            "--no-control",
            "-q",
            "--live",
            "jsonl",
            "1",
        ]);
        assert_eq!(
            config,
            Config {
                target: Target::Process(Pid(1)),
                limits: Limits {
                    expire: Duration::from_secs(360),
                    expired_blocks: 3,
                    call_stacks: 4,
                    leaked_blocks: 5,
                },
                debug_file: Some("x.debug".into()),
                depth: 7,
                backend: Backend::Ptrace,
                duration: Some(Duration::from_secs(120)),
                by_thread: false,
                mmap: true,
                live: LiveForm::JsonLines,
                color: Color::Never,
                follow_forks: false,
                error_exit_code: Some(9),
                keep: Keep::Nothing,
                interval: None,
                snapshot_at: Vec::new(),
                objects: crate::objects::Objects::default(),
                references: Vec::new(),
                control: false,
                quiet: true,
            }
        );
    }
}
