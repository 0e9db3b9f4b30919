//! The choice of a backend.

use std::cell::Cell;
use std::rc::Rc;

use memleax_platform::{Child, NativeTracer, Pid, Resume, RootDirectory, Tracer};

use super::Error;
#[cfg(bpf)]
use crate::bpf::{AttachError, BpfSource};
use crate::config::{Backend, Config, Keep};
use crate::ptrace::{FamilySource, Held, PtraceSource};
use crate::source::Source;
use crate::symbol::DebugFileFinder;
use crate::unwind::{DebugFiles, Module};

/// An attached source.
pub(super) struct Chosen {
    pub(super) source: Box<dyn Source>,
    /// Which, and why, for the start line.
    pub(super) why: String,
}

/// Attaches to a running process as `config` says.
pub(super) fn attach(pid: Pid, config: &Config) -> Result<Chosen, Error> {
    match by_choice(pid, config)? {
        Choice::Made(chosen) => Ok(chosen),
        Choice::Ptrace(why) => by_ptrace(pid, config, NativeTracer::default(), why),
    }
}

/// Takes over a program that was started, and lets it run. If that fails, it is ended.
pub(super) fn take_over(mut held: Held<NativeTracer>, config: &Config) -> Result<(Child, Chosen), Error> {
    match by_choice(held.child.pid(), config) {
        Ok(Choice::Made(chosen)) => match held.tracer.detach(held.stop, Resume::Swallow) {
            Ok(()) | Err(memleax_platform::Error::Gone(_)) => Ok((held.child, chosen)),
            Err(error) => {
                held.child.kill();
                Err(Error::Refused(error.into()))
            }
        },
        Ok(Choice::Ptrace(why)) => hold_by_ptrace(held, config, why),
        Err(error) => {
            held.child.kill();
            Err(error)
        }
    }
}

/// The same by breakpoints.
pub(super) fn take_over_by_ptrace(
    held: Held<impl Tracer + 'static>,
    config: &Config,
) -> Result<(Child, Chosen), Error> {
    hold_by_ptrace(held, config, "ptrace".into())
}

fn hold_by_ptrace(held: Held<impl Tracer + 'static>, config: &Config, why: String) -> Result<(Child, Chosen), Error> {
    let Held { child, tracer, stop } = held;
    let source = with_debug_files(child.pid(), config, |debug_files| {
        let source: Result<Box<dyn Source>, _> = if config.follow_forks {
            FamilySource::take_over(stop, config, tracer, debug_files).map(|source| Box::new(source) as _)
        } else {
            PtraceSource::take_over(stop, config, tracer, debug_files).map(|source| Box::new(source) as _)
        };
        source.map_err(|error| Error::Refused(error.into()))
    });
    match source {
        Ok(source) => Ok((child, Chosen { source, why })),
        Err(error) => {
            child.kill();
            Err(error)
        }
    }
}

/// What `--backend` comes to.
enum Choice {
    Made(Chosen),
    /// ptrace, and why.
    Ptrace(String),
}

fn by_choice(pid: Pid, config: &Config) -> Result<Choice, Error> {
    let is_full = matches!(config.keep, Keep::File { full: true, .. });
    match config.backend {
        Backend::Auto if config.by_thread => Ok(Choice::Ptrace("ptrace, as only it tells threads apart (--by-thread)".into())),
        Backend::Bpf if config.by_thread => Err(Error::Refused(
            "cannot tell threads apart by bpf, whose books are by call stack: use --backend=ptrace, or leave out --by-thread".into(),
        )),
        Backend::Auto if is_full => Ok(Choice::Ptrace("ptrace, as only it tells single events (--full)".into())),
        Backend::Bpf if is_full => Err(Error::Refused(
            "cannot record single events by bpf, whose programs count inside the kernel: use --backend=ptrace, or leave out --full"
                .into(),
        )),
        Backend::Auto if config.follow_forks => {
            Ok(Choice::Ptrace("ptrace, as bpf does not follow forks (--follow-forks)".into()))
        }
        Backend::Bpf if config.follow_forks => Err(Error::Refused(
            "cannot follow forks by bpf, whose probes are for one process: use --backend=ptrace, or leave out --follow-forks"
                .into(),
        )),
        Backend::Ptrace => Ok(Choice::Ptrace("ptrace".into())),
        Backend::Bpf => by_uprobes(pid, config, "bpf".into()).map(Choice::Made),
        Backend::Auto => match by_uprobes(pid, config, "bpf, the cheaper one, as it works here".into()) {
            Ok(chosen) => Ok(Choice::Made(chosen)),
            Err(error @ Error::DebugFile(_)) => Err(error),
            Err(why) => {
                tracing::info!("no bpf: {why}");
                Ok(Choice::Ptrace(match why {
                    Error::Barred(why) => format!("ptrace, as bpf does not work here: {why}"),
                    // If the reason lies in the target, ptrace will not do better, and says it better.
                    why => format!("ptrace, as bpf cannot be used: {why}"),
                }))
            }
        },
    }
}

/// Attaches by breakpoints, through `tracer`.
pub(super) fn by_ptrace(
    pid: Pid,
    config: &Config,
    tracer: impl Tracer + 'static,
    why: String,
) -> Result<Chosen, Error> {
    let source = with_debug_files(pid, config, |debug_files| {
        let source: Result<Box<dyn Source>, _> = if config.follow_forks {
            FamilySource::attach(pid, config, tracer, debug_files).map(|source| Box::new(source) as _)
        } else {
            PtraceSource::attach(pid, config, tracer, debug_files).map(|source| Box::new(source) as _)
        };
        source.map_err(|error| Error::Refused(error.into()))
    })?;
    Ok(Chosen { source, why })
}

#[cfg(bpf)]
fn by_uprobes(pid: Pid, config: &Config, why: String) -> Result<Chosen, Error> {
    let source = with_debug_files(pid, config, |debug_files| {
        BpfSource::attach(pid, config, NativeTracer::default(), debug_files).map_err(|error| match error {
            AttachError::Load { .. } | AttachError::Records { .. } | AttachError::Attach { .. } => {
                Error::Barred(error.into())
            }
            AttachError::Ambiguous { .. } => Error::Barred(error.into()),
            AttachError::Platform(_) | AttachError::Missing { .. } | AttachError::NoAllocator { .. } => {
                Error::Refused(error.into())
            }
        })
    })?;
    Ok(Chosen { source: Box::new(source), why })
}

/// This build has no uprobes.
#[cfg(not(bpf))]
fn by_uprobes(_: Pid, _: &Config, _: String) -> Result<Chosen, Error> {
    Err(Error::NotBuiltIn("bpf"))
}

/// Attaches with what finds the target's separate debug files.
fn with_debug_files<S>(
    pid: Pid,
    config: &Config,
    attach: impl FnOnce(DebugFiles) -> Result<S, Error>,
) -> Result<S, Error> {
    let finder = DebugFileFinder::new(config.debug_file.clone(), RootDirectory::of(pid).ok());
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
