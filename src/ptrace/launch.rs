//! Starting a program, and holding it where its libraries are mapped and none of its code has run yet.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io;

use memleax_platform::{
    Child, Error, ExitStatus, InheritedSignals, MappedFile, Mapping, Report, Resume, Stop, StopKind, Tracer,
};

use super::isa::native;
use crate::unwind::{LoaderState, ModuleMap, Role};

/// Why a program could not be started under observation. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// There is no such program, or it cannot be executed.
    #[error("cannot run {program}: {cause}")]
    NotExecuted {
        /// As it was given.
        program: String,
        /// The cause, for example [`io::ErrorKind::NotFound`].
        cause: io::Error,
    },
    /// It ended while its libraries were loaded, as when one is missing.
    #[error("{program} ended before any code of its own ran")]
    Ended {
        /// As it was given.
        program: String,
        /// How.
        status: ExitStatus,
    },
    /// It cannot be traced.
    #[error(transparent)]
    Platform(#[from] Error),
}

/// A program that was started and is held before its first constructor.
#[derive(Debug)]
pub struct Held<T> {
    /// The process.
    pub child: Child,
    /// Traces it.
    pub tracer: T,
    /// By which it is held.
    pub stop: Stop,
}

/// Starts `command`, which reacts to signals as `inherited` says, and holds it as soon as its libraries are mapped.
///
/// The dynamic linkers of glibc, musl and FreeBSD tell debuggers when that is so. A static program has no libraries and is held at
/// its first instruction; so is one whose dynamic linker is unknown.
///
/// # Errors
/// [`LaunchError`].
pub fn launch<T: Tracer>(
    command: &[OsString],
    inherited: &InheritedSignals,
    mut tracer: T,
) -> Result<Held<T>, LaunchError> {
    let program = command.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default();
    let mut child = Child::start(command, inherited)
        .map_err(|cause| LaunchError::NotExecuted { program: program.clone(), cause })?;
    let held = match run_to_exec(&mut child, &mut tracer) {
        Ok(Progress::Stopped(stop)) => run_to_libraries(&mut tracer, stop),
        other => other,
    };
    match held {
        Ok(Progress::Stopped(stop)) => Ok(Held { child, tracer, stop: Stop { kind: StopKind::Halted, ..stop } }),
        Ok(Progress::Ended(status)) => Err(match child.failure() {
            Ok(None) => LaunchError::Ended { program, status },
            Ok(Some(cause)) | Err(cause) => LaunchError::NotExecuted { program, cause },
        }),
        Err(error) => {
            child.kill();
            Err(error.into())
        }
    }
}

/// How far a program came.
enum Progress {
    Stopped(Stop),
    Ended(ExitStatus),
}

fn run_to_exec<T: Tracer>(child: &mut Child, tracer: &mut T) -> Result<Progress, Error> {
    tracer.attach(child.pid())?;
    let released = child.release();
    released.map_err(|cause| Error::Os { what: "start", pid: child.pid(), cause })?;
    run_until(tracer, |_, stop| Ok(stop.kind == StopKind::Exec))
}

/// Lets the only thread run until it has stopped for what is waited for.
fn run_until<T: Tracer>(
    tracer: &mut T,
    mut is_it: impl FnMut(&mut T, &Stop) -> Result<bool, Error>,
) -> Result<Progress, Error> {
    loop {
        match tracer.wait()? {
            Report::Stopped(stop) => {
                if is_it(tracer, &stop)? {
                    return Ok(Progress::Stopped(stop));
                }
                super::engine::unless_gone(tracer.resume(stop, Resume::Deliver))?;
            }
            Report::ProcessEnded { status, .. } => return Ok(Progress::Ended(status)),
            Report::ThreadEnded { .. } | Report::Tick => {}
        }
    }
}

fn run_to_libraries<T: Tracer>(tracer: &mut T, mut stop: Stop) -> Result<Progress, Error> {
    let Some(loader) = loader_of(tracer, &stop)? else { return Ok(Progress::Stopped(stop)) };
    let mut original = [0];
    if tracer.read(&stop, loader.changed, &mut original)? == 0 {
        return Ok(Progress::Stopped(stop));
    }
    loop {
        tracer.write(&stop, loader.changed, &[native::BREAKPOINT])?;
        tracer.resume(stop, Resume::Swallow)?;
        let behind = loader.changed + native::BREAKPOINT_SIZE;
        let progress = run_until(tracer, |tracer, stop| {
            Ok(stop.kind == StopKind::Trap
                && tracer.registers(stop)?.rip == behind
                && tracer.is_breakpoint_trap(stop)?)
        })?;
        let Progress::Stopped(at_change) = progress else { return Ok(progress) };
        stop = at_change;
        tracer.set_program_counter(&stop, loader.changed)?;
        tracer.write(&stop, loader.changed, &original)?;
        // Past it: whoever holds the program now may write a breakpoint of its own there. And should memleax be killed, no SIGTRAP
        // of this stop is left to be delivered.
        tracer.step(&mut stop)?;
        let is_consistent = loader.is_consistent(&mut |address, bytes| tracer.read(&stop, address, bytes).unwrap_or(0));
        if is_consistent {
            return Ok(Progress::Stopped(stop));
        }
    }
}

fn loader_of<T: Tracer>(tracer: &mut T, stop: &Stop) -> Result<Option<LoaderState>, Error> {
    let mappings = tracer.mappings(stop.pid)?;
    let auxiliary = tracer.auxiliary_vector(stop.pid)?;
    let tracer = RefCell::new(tracer);
    let mut open = |mapping: &Mapping| MappedFile::new(&tracer.borrow_mut().open_mapping(stop.pid, mapping)?);
    let mut read = |address, bytes: &mut [u8]| tracer.borrow_mut().read(stop, address, bytes).unwrap_or(0);
    let mut map = ModuleMap::default();
    map.refresh(&mappings, &auxiliary, &mut open, &mut read);
    Ok(map.with_role(Role::Interpreter).and_then(|interpreter| LoaderState::of(interpreter)))
}
