//! memleax by FreeBSD's tracer, over FreeBSD's rules on top of Linux's ptrace. For the live tests: see `platform/shim`.
//! On FreeBSD itself it is `memleax --backend ptrace`.

#![forbid(unsafe_code)]

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use anstream::AutoStream;
use memleax::cli::{self, Command};
use memleax::config::Target;
use memleax::rendering;
use memleax::session::{self, Company, Showing, Signals};
use memleax_freebsd_shim::Shim;
use memleax_platform::freebsd::FreebsdTracer;

fn main() -> ExitCode {
    let Ok(Command::Watch { config, log, wanted, .. }) = cli::parse(env::args_os()) else { return ExitCode::from(2) };
    let launches = matches!(config.target, Target::Command(_));
    let Ok(signals) = (if launches { Signals::catch_for_program() } else { Signals::catch() }) else {
        return ExitCode::FAILURE;
    };
    tracing_subscriber::fmt().with_max_level(log).with_writer(io::stderr).with_ansi(false).init();
    let tracer = FreebsdTracer::<Shim>::default();
    let showing = Showing { filters: wanted.filters.clone(), view: wanted.view.clone() };
    let outcome = if launches {
        session::run_through(tracer, &config, &showing, &signals, AutoStream::auto(io::stderr()), Company::default())
    } else {
        session::run_through(tracer, &config, &showing, &signals, AutoStream::auto(io::stdout()), Company::default())
    };
    match outcome {
        Ok(outcome) => {
            let mut status = outcome.status(config.error_exit_code);
            if let Some(profile) = outcome.recording.as_deref().and_then(rendering::of_run) {
                let profile = wanted.filters.apply(profile);
                if wanted.filters.leave_out() {
                    status = outcome.within(&profile).status(config.error_exit_code);
                }
                let standard: &mut dyn Write = if launches { &mut io::stderr() } else { &mut io::stdout() };
                if let Err(error) = rendering::write(&profile, &wanted, standard, false) {
                    _ = writeln!(io::stderr(), "memleax: {error}");
                }
            }
            status.into()
        }
        Err(errors) => {
            for error in &errors {
                _ = writeln!(io::stderr(), "memleax: {error}");
            }
            errors.iter().map(session::Error::status).min().unwrap_or(3).into()
        }
    }
}
