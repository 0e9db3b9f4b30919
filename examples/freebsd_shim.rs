//! memleax by FreeBSD's tracer, over FreeBSD's rules on top of Linux's ptrace. For the live tests: see `platform/shim`.
//! On FreeBSD itself it is `memleax --backend ptrace`.

#![forbid(unsafe_code)]

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use anstream::AutoStream;
use memleax::cli::{self, Command};
use memleax::session::{self, Signals};
use memleax_freebsd_shim::Shim;
use memleax_platform::freebsd::FreebsdTracer;

fn main() -> ExitCode {
    let Ok(Command::Watch { config, log }) = cli::parse(env::args_os()) else { return ExitCode::from(2) };
    let Ok(signals) = Signals::catch() else { return ExitCode::FAILURE };
    tracing_subscriber::fmt().with_max_level(log).with_writer(io::stderr).with_ansi(false).init();
    match session::run_through(FreebsdTracer::<Shim>::default(), &config, &signals, AutoStream::auto(io::stdout())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(errors) => {
            let begun = !errors.iter().any(session::Error::could_not_begin);
            for error in errors {
                _ = writeln!(io::stderr(), "memleax: {error}");
            }
            if begun { ExitCode::from(3) } else { ExitCode::FAILURE }
        }
    }
}
