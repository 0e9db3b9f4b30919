//! The `memleax` program: parse, run, exit code.

#![forbid(unsafe_code)]

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice, StripStream};
use memleax::cli::{self, Command};
use memleax::config::{Color, Config, Target};
use memleax::control::Request;
use memleax::event::Tally;
use memleax::metrics::Wish;
use memleax::profile::Profile;
use memleax::rendering::{self, Wanted};
use memleax::report::LastingFile;
use memleax::session::{self, Attendant, Company, OnChild, Showing, Signals};
use memleax::top::{self, Display, Gate};
use memleax::{control, doctor, filter, metrics, report};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};

/// See [`cli`] for what each exit status means.
const COULD_NOT_BEGIN: u8 = 1;
const WENT_WRONG: u8 = 3;

fn main() -> ExitCode {
    let command = match cli::parse(env::args_os()) {
        Ok(command) => command,
        Err(answer) => {
            let written = answer.print();
            return match u8::try_from(answer.exit_code()) {
                Ok(0) => exit_code(written, WENT_WRONG),
                Ok(code) => code.into(),
                Err(_) => ExitCode::FAILURE,
            };
        }
    };
    match command {
        Command::Completions(shell) => exit_code(cli::write_completions(shell, &mut io::stdout()), WENT_WRONG),
        Command::Manual => exit_code(cli::write_manual(&mut io::stdout()), WENT_WRONG),
        Command::Doctor { target, color } => {
            let diagnosis = doctor::examine(target);
            match report::write_diagnosis(&diagnosis, &mut stream(io::stdout(), color)) {
                Ok(()) if diagnosis.conclusion.fine => ExitCode::SUCCESS,
                Ok(()) => COULD_NOT_BEGIN.into(),
                Err(error) => exit_code(Err(error), WENT_WRONG),
            }
        }
        Command::Report { recording, reading, wanted, color } => {
            let profile = match rendering::read(&recording, &reading) {
                Ok(profile) => profile,
                Err(error) => return complaint(&error, COULD_NOT_BEGIN),
            };
            let profile = wanted.filters.apply(profile);
            write_reports(&profile, &wanted, io::stdout(), color).unwrap_or(ExitCode::SUCCESS)
        }
        Command::Diff { recordings, reading, per, wanted, color } => {
            match rendering::read_both(&recordings, &reading, per, wanted) {
                Ok((profile, wanted)) => {
                    write_reports(&profile, &wanted, io::stdout(), color).unwrap_or(ExitCode::SUCCESS)
                }
                Err(error) => complaint(&error, COULD_NOT_BEGIN),
            }
        }
        Command::Ctl { watched, request, output } => match control::ask(watched, &request) {
            Ok(answer) => write_answer(&answer, &request, output.as_deref()),
            Err(error) => complaint(&error, COULD_NOT_BEGIN),
        },
        Command::Noise => exit_code(io::stdout().write_all(filter::list_noise().as_bytes()), WENT_WRONG),
        Command::Machine { settings, color, log } => {
            let signals = match Signals::catch() {
                Ok(signals) => signals,
                Err(error) => return exit_code(Err(error), COULD_NOT_BEGIN),
            };
            let _flushed_at_the_end = start_log(log, io::stderr());
            match session::watch_machine(&settings, &signals, stream(io::stdout(), color)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => complaint(&error, error.status()),
            }
        }
        Command::Watch { config, log, wanted, metrics, live_output, display } => {
            watch(&config, log, &wanted, metrics, live_output.as_deref(), display)
        }
    }
}

/// Watches a process or a program, and reports.
fn watch(
    config: &Config,
    log: tracing::Level,
    wanted: &Wanted,
    metrics: Option<Wish>,
    live_output: Option<&Path>,
    display: bool,
) -> ExitCode {
    let launches = matches!(config.target, Target::Command(_));
    let color = config.color;
    let mut screen = match display.then(|| Screen::prepare(launches, color)).transpose() {
        Ok(screen) => screen,
        Err(error) => return complaint(&error, COULD_NOT_BEGIN),
    };
    let signals = match if launches { Signals::catch_for_program() } else { Signals::catch() } {
        Ok(signals) => signals,
        Err(error) => return exit_code(Err(error), COULD_NOT_BEGIN),
    };
    let _flushed_at_the_end = match &screen {
        Some(screen) => start_log(log, screen.log.clone()),
        None => start_log(log, io::stderr()),
    };
    let showing = Showing { filters: wanted.filters.clone(), view: wanted.view.clone() };
    let mut attendants: Vec<Attendant> = Vec::new();
    if config.control {
        attendants.push(control::attendant(wanted.filters.clone()));
    }
    // Before anything is done to a target: what cannot be served must not cost it.
    if let Some(wish) = metrics {
        match metrics::attend(wish, wanted.filters.clone()) {
            Ok((address, attendant)) => {
                _ = writeln!(io::stderr(), "memleax: metrics are at http://{address}/metrics");
                attendants.push(attendant);
            }
            Err(error) => return complaint(&error, COULD_NOT_BEGIN),
        }
    }
    attendants.extend(screen.as_mut().and_then(|screen| screen.attendant(wanted)));
    let report = screen.as_ref().map(|screen| screen.report.clone());
    let company = Company { on_child: of_children(wanted.clone(), color, launches, report.clone()), attendants };
    let output: Box<dyn Write + Send> = match (live_output, report) {
        (Some(path), _) => match LastingFile::open(path) {
            Ok(file) => live_file(file, color),
            Err(cause) => {
                let error = format!("cannot write the live report {}: {cause}", path.display());
                return exit_code(Err(io::Error::other(error)), COULD_NOT_BEGIN);
            }
        },
        (None, Some(report)) => Box::new(report),
        // Standard output is the program's own, if there is one.
        (None, None) if launches => Box::new(stream(io::stderr(), color)),
        (None, None) => Box::new(stream(io::stdout(), color)),
    };
    let outcome = session::run(config, &showing, &signals, output, company);
    let has_own_output = launches && screen.is_none();
    drop(screen);
    match outcome {
        Ok(outcome) => {
            let profile = outcome.recording.as_deref().and_then(rendering::of_run);
            let profile = profile.map(|profile| wanted.filters.apply(profile));
            let outcome = match &profile {
                Some(profile) if wanted.filters.leave_out() => outcome.within(profile),
                _ => outcome,
            };
            let written = profile.and_then(|profile| {
                if has_own_output {
                    write_reports(&profile, wanted, io::stderr(), color)
                } else {
                    write_reports(&profile, wanted, io::stdout(), color)
                }
            });
            written.unwrap_or_else(|| outcome.status(config.error_exit_code).into())
        }
        Err(errors) => {
            for error in &errors {
                complain(error);
            }
            errors.iter().map(session::Error::status).find(|&code| code != WENT_WRONG).unwrap_or(WENT_WRONG).into()
        }
    }
}

/// The terminal of `memleax top`, and what is to be written to it after the display.
struct Screen {
    display: Option<Display>,
    has_colours: bool,
    report: Gate,
    log: Gate,
    /// The standard streams, if a program is to be started, which must not write into the display.
    streams: Option<SetAside>,
}

impl Screen {
    fn prepare(launches: bool, color: Color) -> Result<Screen, top::Unusable> {
        let display = Display::prepare(&io::stdout())?;
        let has_colours = shows_colours(&io::stdout(), color);
        let log = if launches { Gate::new(display.device()?) } else { Gate::new(io::stderr()) };
        let report = Gate::new(stream(display.device()?, color));
        let streams = launches.then(SetAside::new).transpose()?;
        Ok(Screen { display: Some(display), has_colours, report, log, streams })
    }

    fn attendant(&mut self, wanted: &Wanted) -> Option<Attendant> {
        let gates = vec![self.report.clone(), self.log.clone()];
        Some(self.display.take()?.attendant(wanted.filters.clone(), self.has_colours, gates))
    }
}

impl Drop for Screen {
    /// There may have been no display, as nothing could be watched.
    fn drop(&mut self) {
        if let Some(streams) = self.streams.take() {
            streams.put_back();
        }
        _ = self.report.open();
        _ = self.log.open();
    }
}

/// Standard input, output and error of this process, while `/dev/null` is in their places: a program that is started below the
/// display must neither read its keys nor write into it.
#[derive(Debug)]
struct SetAside([OwnedFd; 3]);

impl SetAside {
    /// Sets them aside.
    fn new() -> io::Result<SetAside> {
        let kept = [
            io::stdin().as_fd().try_clone_to_owned()?,
            io::stdout().as_fd().try_clone_to_owned()?,
            io::stderr().as_fd().try_clone_to_owned()?,
        ];
        let nothing: File = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        let set_aside = SetAside(kept);
        let replaced = dup2_stdin(&nothing).and_then(|()| dup2_stdout(&nothing)).and_then(|()| dup2_stderr(&nothing));
        if let Err(error) = replaced {
            set_aside.put_back();
            return Err(error.into());
        }
        Ok(set_aside)
    }

    /// Puts them back.
    fn put_back(self) {
        let [input, output, error] = &self.0;
        // The descriptors exist, so nothing fails.
        _ = dup2_stdin(input);
        _ = dup2_stdout(output);
        _ = dup2_stderr(error);
    }
}

/// Writes what a run has answered.
fn write_answer(answer: &[u8], request: &Request, path: Option<&Path>) -> ExitCode {
    let written = match (path, request) {
        (Some(path), Request::Report { format, .. }) => {
            format.write_rendered(answer, path).map_err(|error| complaint(&error, WENT_WRONG))
        }
        _ => match io::stdout().write_all(answer) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(complaint(&error, WENT_WRONG)),
            _ => Ok(()),
        },
    };
    written.map_or_else(|code| code, |()| ExitCode::SUCCESS)
}

/// Writes the reports of processes that the target has started, each in one piece, and tells what they leaked.
fn of_children(wanted: Wanted, color: Color, launches: bool, report: Option<Gate>) -> OnChild {
    Box::new(move |recording| {
        let Some(profile) = rendering::of_run(recording) else { return Tally::default() };
        let profile = wanted.filters.apply(profile);
        let wanted = wanted.of_child(profile.run.pid);
        // Should it not be written, the target's own report finds that out.
        _ = if let Some(mut report) = report.clone() {
            _ = rendering::write(&profile, &wanted, &mut report, false);
            None
        } else if launches {
            write_reports(&profile, &wanted, io::stderr().lock(), color)
        } else {
            write_reports(&profile, &wanted, io::stdout().lock(), color)
        };
        let sites = profile.with_objects().flat_map(|profile| &profile.sites);
        sites.map(|site| site.live).fold(Tally::default(), Tally::plus)
    })
}

/// Writes the reports that are wanted; the exit code, if not all could be written.
fn write_reports<S: RawStream>(profile: &Profile, wanted: &Wanted, mut standard: S, color: Color) -> Option<ExitCode> {
    let colours = shows_colours(&standard, color);
    match rendering::write(profile, wanted, &mut standard, colours) {
        Ok(unsaid) => {
            for sentence in unsaid {
                _ = writeln!(io::stderr(), "memleax: {sentence}");
            }
            None
        }
        Err(error) if error.is_unread() => None,
        Err(error) => Some(complaint(&error, WENT_WRONG)),
    }
}

fn shows_colours(stream: &impl RawStream, color: Color) -> bool {
    match color {
        Color::Auto => AutoStream::choice(stream) != ColorChoice::Never,
        Color::Always => true,
        Color::Never => false,
    }
}

/// A standard stream, which passes on each line at once; without colours unless they are wanted.
fn stream<S: RawStream>(stream: S, color: Color) -> AutoStream<S> {
    match color {
        Color::Auto => AutoStream::auto(stream),
        Color::Always => AutoStream::always(stream),
        Color::Never => AutoStream::never(stream),
    }
}

/// A file for the live report; without colours unless they are asked for.
fn live_file(file: LastingFile, color: Color) -> Box<dyn Write + Send> {
    match color {
        Color::Always => Box::new(file),
        Color::Auto | Color::Never => Box::new(StripStream::new(Box::new(file) as Box<dyn Write + Send>)),
    }
}

/// A log line never waits for whoever reads standard error: the thread that traces must not, as the target would wait,
/// too.
fn start_log(level: tracing::Level, output: impl Write + Send + 'static) -> WorkerGuard {
    let (writer, guard) = NonBlocking::new(output);
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(writer)
        .with_ansi(io::stderr().is_terminal())
        .with_timer(tracing_subscriber::fmt::time::uptime())
        .init();
    guard
}

fn exit_code(result: io::Result<()>, code: u8) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // `memleax --help | head`: the reader had enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => complaint(&error, code),
    }
}

fn complaint(error: &dyn std::error::Error, code: u8) -> ExitCode {
    complain(error);
    code.into()
}

/// If standard error is closed, there is nobody left to tell.
fn complain(error: &dyn std::error::Error) {
    _ = writeln!(io::stderr(), "memleax: {error}");
}
