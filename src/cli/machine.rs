//! `memleax -a`: the options of watching a whole machine.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum, ValueHint};
use memleax_platform::Pid;
use nix::unistd::User;
use regex::Regex;

use super::watch::{ColorArgument, LogArgument, parse_pid};
use super::{Command, duration};
use crate::machine::{NamePattern, Settings, Wanted};

/// How many seconds an interval has if nothing is said.
const INTERVAL: &str = "10";

const EXIT_STATUS: &str = "\
Exit status:
  0  Monitoring ended: a signal or --duration said so, or nobody reads the output any more
  1  Monitoring could not begin: bpf is needed, and does not work here
  2  The command line is wrong
  3  Monitoring broke off, or the report could not be written

Signals:
  INT, TERM, HUP and QUIT end monitoring, after a last table. USR1 ends the interval";

/// Watches all processes, and tells what each that has ended had allocated and never freed.
///
/// Those that run and those that begin later, with any C library or allocator that they map: by bpf, which needs root and Linux 6.1.
#[derive(Parser, Debug)]
#[command(name = "memleax -a", disable_version_flag = true, after_help = EXIT_STATUS, max_term_width = 100)]
#[command(override_usage = "memleax -a [INTERVAL] [OPTIONS]")]
struct MachineArguments {
    /// Watch all processes, and report so often
    #[arg(short = 'a', long = "all", value_name = "INTERVAL", num_args = 0..=1, default_missing_value = INTERVAL)]
    #[arg(value_parser = duration::parse)]
    all: Duration,

    /// Tell also of those that run
    #[arg(long)]
    live: bool,

    /// How to report
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: FormatArgument,

    /// Tell only of processes whose name (as in /proc/PID/comm) matches this expression; may be repeated
    #[arg(long, value_name = "REGEX", value_parser = parse_name)]
    name: Vec<NamePattern>,

    /// Tell only of this user's processes, by name or number; may be repeated
    #[arg(long, value_name = "USER", value_parser = parse_user)]
    uid: Vec<u32>,

    /// Tell only of processes in the cgroup with this folder, or in one below it; may be repeated
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    cgroup: Vec<PathBuf>,

    /// Watch only these processes, which costs the others nothing
    #[arg(long, value_name = "PID,PID", value_delimiter = ',', value_parser = parse_pid)]
    pid: Vec<Pid>,

    /// Stop after this time: seconds, or with units as in 500ms, 6m or 1h30m
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    duration: Option<Duration>,

    /// When to colour the report
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    color: ColorArgument,

    /// Log to standard error what is at least so urgent
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log: LogArgument,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum FormatArgument {
    /// A table an interval
    Text,
    /// A JSON object a process, and one an interval
    Jsonl,
}

/// True if the arguments (the first is the program's name) ask for the whole machine.
pub(super) fn is_meant(arguments: &[OsString], subcommands: &[&str]) -> bool {
    let own = arguments.iter().skip(1).map_while(|argument| argument.to_str().filter(|&argument| argument != "--"));
    let asks = |argument: &str| {
        let interval = argument.strip_prefix("-a").unwrap_or(argument);
        ["-a", "--all"].contains(&argument)
            || argument.starts_with("--all=")
            || (interval.len() < argument.len() && interval.starts_with(|c: char| c.is_ascii_digit()))
    };
    own.clone().next().is_none_or(|first| !subcommands.contains(&first)) && own.clone().any(asks)
}

/// What the arguments ask for.
///
/// # Errors
/// What is wrong with them.
pub(super) fn parse(arguments: &[OsString]) -> Result<Command, clap::Error> {
    let arguments = MachineArguments::try_parse_from(arguments)?;
    let wanted = Wanted { names: arguments.name, uids: arguments.uid, cgroups: arguments.cgroup, pids: arguments.pid };
    let settings = Settings {
        interval: arguments.all,
        duration: arguments.duration,
        running: arguments.live,
        json_lines: arguments.format == FormatArgument::Jsonl,
        wanted,
    };
    Ok(Command::Machine { settings, color: arguments.color.into(), log: arguments.log.into() })
}

fn parse_name(text: &str) -> Result<NamePattern, String> {
    Regex::new(text).map(NamePattern).map_err(|why| why.to_string())
}

fn parse_user(text: &str) -> Result<u32, String> {
    if let Ok(uid) = text.parse() {
        return Ok(uid);
    }
    match User::from_name(text) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err("there is no such user".into()),
        Err(why) => Err(format!("users cannot be looked up: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Color;

    fn settings(arguments: &[&str]) -> Settings {
        let arguments: Vec<OsString> = ["memleax"].iter().chain(arguments).map(Into::into).collect();
        assert!(is_meant(&arguments, &["report"]), "{arguments:?}");
        match parse(&arguments) {
            Ok(Command::Machine { settings, color: Color::Auto, log: tracing::Level::WARN }) => settings,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_interval_may_be_left_out() {
        let seconds = |arguments: &[&str]| settings(arguments).interval.as_secs();
        assert_eq!(seconds(&["-a"]), 10);
        assert_eq!(seconds(&["-a", "5"]), 5);
        assert_eq!(seconds(&["-a1m"]), 60);
        assert_eq!(seconds(&["--all=2"]), 2);
        assert_eq!(seconds(&["--format", "jsonl", "-a", "--live"]), 10);
    }

    #[test]
    fn every_option_reaches_the_settings() {
        let given = ["-a", "3", "--live", "--format", "jsonl", "--name", "^cc", "--uid", "root", "--uid", "7"];
        let more = ["--cgroup", "/sys/fs/cgroup/x", "--pid", "4,5", "--duration", "1m"];
        let expected = Settings {
            interval: Duration::from_secs(3),
            duration: Some(Duration::from_secs(60)),
            running: true,
            json_lines: true,
            wanted: Wanted {
                names: vec![NamePattern(Regex::new("^cc").expect("an expression"))],
                uids: vec![0, 7],
                cgroups: vec!["/sys/fs/cgroup/x".into()],
                pids: vec![Pid(4), Pid(5)],
            },
        };
        assert_eq!(settings(&[&given[..], &more[..]].concat()), expected);
    }

    #[test]
    fn what_is_for_others_is_not_taken_for_it() {
        let is_meant = |arguments: &[&str]| {
            let arguments: Vec<OsString> = ["memleax"].iter().chain(arguments).map(Into::into).collect();
            is_meant(&arguments, &["report"])
        };
        for arguments in [&["--", "ls", "-a"][..], &["report", "-a"], &["--allow"], &["-abc"], &["42"], &[]] {
            assert!(!is_meant(arguments), "{arguments:?}");
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        <MachineArguments as clap::CommandFactory>::command().debug_assert();
    }
}
