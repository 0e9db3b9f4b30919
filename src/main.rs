//! The `memleax` program: parse, run, exit code.

#![forbid(unsafe_code)]

use std::env;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice, StripStream};
use memleax::cli::{self, Command};
use memleax::config::{Color, Target};
use memleax::control::Request;
use memleax::event::Tally;
use memleax::profile::Profile;
use memleax::rendering::{self, Wanted};
use memleax::report::LastingFile;
use memleax::session::{self, Attendant, Company, OnChild, Showing, Signals};
use memleax::{control, doctor, filter, metrics, report};
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
            let _flushed_at_the_end = start_log(log);
            match session::watch_machine(&settings, &signals, stream(io::stdout(), color)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => complaint(&error, error.status()),
            }
        }
        Command::Watch { config, log, wanted, metrics, live_output } => {
            let launches = matches!(config.target, Target::Command(_));
            let signals = match if launches { Signals::catch_for_program() } else { Signals::catch() } {
                Ok(signals) => signals,
                Err(error) => return exit_code(Err(error), COULD_NOT_BEGIN),
            };
            let _flushed_at_the_end = start_log(log);
            // Standard output is the program's own, if there is one.
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
            let company = Company { on_child: of_children(wanted.clone(), config.color, launches), attendants };
            let output: Box<dyn Write + Send> = match &live_output {
                Some(path) => match LastingFile::open(path) {
                    Ok(file) => live_file(file, config.color),
                    Err(cause) => {
                        let error = format!("cannot write the live report {}: {cause}", path.display());
                        return exit_code(Err(io::Error::other(error)), COULD_NOT_BEGIN);
                    }
                },
                None if launches => Box::new(stream(io::stderr(), config.color)),
                None => Box::new(stream(io::stdout(), config.color)),
            };
            let outcome = session::run(&config, &showing, &signals, output, company);
            match outcome {
                Ok(outcome) => {
                    let profile = outcome.recording.as_deref().and_then(rendering::of_run);
                    let profile = profile.map(|profile| wanted.filters.apply(profile));
                    let outcome = match &profile {
                        Some(profile) if wanted.filters.leave_out() => outcome.within(profile),
                        _ => outcome,
                    };
                    let written = profile.and_then(|profile| {
                        if launches {
                            write_reports(&profile, &wanted, io::stderr(), config.color)
                        } else {
                            write_reports(&profile, &wanted, io::stdout(), config.color)
                        }
                    });
                    written.unwrap_or_else(|| outcome.status(config.error_exit_code).into())
                }
                Err(errors) => {
                    for error in &errors {
                        complain(error);
                    }
                    errors
                        .iter()
                        .map(session::Error::status)
                        .find(|&code| code != WENT_WRONG)
                        .unwrap_or(WENT_WRONG)
                        .into()
                }
            }
        }
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
fn of_children(wanted: Wanted, color: Color, launches: bool) -> OnChild {
    Box::new(move |recording| {
        let Some(profile) = rendering::of_run(recording) else { return Tally::default() };
        let profile = wanted.filters.apply(profile);
        let wanted = wanted.of_child(profile.run.pid);
        // Should it not be written, the target's own report finds that out.
        _ = if launches {
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
    let colours = match color {
        Color::Auto => AutoStream::choice(&standard) != ColorChoice::Never,
        Color::Always => true,
        Color::Never => false,
    };
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
fn start_log(level: tracing::Level) -> WorkerGuard {
    let (writer, guard) = NonBlocking::new(io::stderr());
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
