//! The `memleax` program: parse, run, exit code.

#![forbid(unsafe_code)]

use std::env;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anstream::AutoStream;
use memleax::cli::{self, Command};
use memleax::config::Color;
use memleax::session::{self, Signals};
use memleax::{doctor, report};
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
            match report::write_diagnosis(&diagnosis, &mut report_stream(color)) {
                Ok(()) if diagnosis.conclusion.fine => ExitCode::SUCCESS,
                Ok(()) => COULD_NOT_BEGIN.into(),
                Err(error) => exit_code(Err(error), WENT_WRONG),
            }
        }
        Command::Watch { config, log } => {
            let signals = match Signals::catch() {
                Ok(signals) => signals,
                Err(error) => return exit_code(Err(error), COULD_NOT_BEGIN),
            };
            let _flushed_at_the_end = start_log(log);
            match session::run(&config, &signals, report_stream(config.color)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(errors) => {
                    let code =
                        if errors.iter().any(session::Error::could_not_begin) { COULD_NOT_BEGIN } else { WENT_WRONG };
                    for error in errors {
                        complain(&error);
                    }
                    code.into()
                }
            }
        }
    }
}

/// Standard output, which passes on each line at once; without colours unless they are wanted.
fn report_stream(color: Color) -> AutoStream<io::Stdout> {
    match color {
        Color::Auto => AutoStream::auto(io::stdout()),
        Color::Always => AutoStream::always(io::stdout()),
        Color::Never => AutoStream::never(io::stdout()),
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
        Err(error) => {
            complain(&error);
            code.into()
        }
    }
}

/// If standard error is closed, there is nobody left to tell.
fn complain(error: &dyn std::error::Error) {
    _ = writeln!(io::stderr(), "memleax: {error}");
}
