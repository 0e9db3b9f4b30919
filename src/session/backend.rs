//! The choice of a backend.

use std::cell::Cell;
use std::rc::Rc;

use memleax_platform::{NativeTracer, RootDirectory, Tracer};

use super::Error;
#[cfg(bpf)]
use crate::bpf::{AttachError, BpfSource};
use crate::config::{Backend, Config};
use crate::ptrace::PtraceSource;
use crate::source::Source;
use crate::symbol::DebugFileFinder;
use crate::unwind::{DebugFiles, Module};

/// An attached source.
pub(super) struct Chosen {
    pub(super) source: Box<dyn Source>,
    /// Which, and why, for the start line.
    pub(super) why: String,
}

/// Attaches as `config` says.
pub(super) fn attach(config: &Config) -> Result<Chosen, Error> {
    match config.backend {
        Backend::Ptrace => by_ptrace(config, NativeTracer::default(), "ptrace".into()),
        Backend::Bpf => by_uprobes(config, "bpf".into()),
        Backend::Auto => match by_uprobes(config, "bpf, the cheaper one, as it works here".into()) {
            Ok(chosen) => Ok(chosen),
            Err(error @ Error::DebugFile(_)) => Err(error),
            Err(why) => {
                tracing::info!("no bpf: {why}");
                let why = match why {
                    Error::Barred(why) => format!("ptrace, as bpf does not work here: {why}"),
                    // If the reason lies in the target, ptrace will not do better, and says it better.
                    why => format!("ptrace, as bpf cannot be used: {why}"),
                };
                by_ptrace(config, NativeTracer::default(), why)
            }
        },
    }
}

/// Attaches by breakpoints, through `tracer`.
pub(super) fn by_ptrace(config: &Config, tracer: impl Tracer + 'static, why: String) -> Result<Chosen, Error> {
    let source = with_debug_files(config, |debug_files| {
        PtraceSource::attach(config, tracer, debug_files).map_err(|error| Error::Refused(error.into()))
    })?;
    Ok(Chosen { source: Box::new(source), why })
}

#[cfg(bpf)]
fn by_uprobes(config: &Config, why: String) -> Result<Chosen, Error> {
    let source = with_debug_files(config, |debug_files| {
        BpfSource::attach(config, NativeTracer::default(), debug_files).map_err(|error| match error {
            AttachError::Load { .. } | AttachError::Records { .. } | AttachError::Attach { .. } => {
                Error::Barred(error.into())
            }
            AttachError::Platform(_) | AttachError::NoAllocator { .. } => Error::Refused(error.into()),
        })
    })?;
    Ok(Chosen { source: Box::new(source), why })
}

/// This build has no uprobes.
#[cfg(not(bpf))]
fn by_uprobes(_: &Config, _: String) -> Result<Chosen, Error> {
    Err(Error::NotBuiltIn("bpf"))
}

/// Attaches with what finds the target's separate debug files.
fn with_debug_files<S>(config: &Config, attach: impl FnOnce(DebugFiles) -> Result<S, Error>) -> Result<S, Error> {
    let finder = DebugFileFinder::new(config.debug_file.clone(), RootDirectory::of(config.target).ok());
    let unusable = Rc::new(Cell::new(None));
    let debug_files = {
        let unusable = Rc::clone(&unusable);
        Box::new(move |module: &Module| {
            finder.find(module).unwrap_or_else(|error| {
                unusable.set(Some(error));
                None
            })
        })
    };
    attach(debug_files).map_err(|error| unusable.take().map_or(error, Error::DebugFile))
}
