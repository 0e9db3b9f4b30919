//! From recordings to reports: reading, naming, writing.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::profile::{Profile, View};
use crate::recording::{self, Replayed};
use crate::report::{Format, Progress, WriteError};
use crate::symbol::{DebugFile, DebugFileError, SymbolOptions, Symbolizer};
use crate::unwind::{ModuleTable, Role};

/// One report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Document {
    /// In which format.
    pub format: Format,
    /// To which file; `None` for the standard stream that reports go to.
    pub path: Option<PathBuf>,
}

/// The reports that are wanted of a profile.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Of what.
    pub view: View,
    /// In this order.
    pub documents: Vec<Document>,
}

impl Default for Wanted {
    fn default() -> Wanted {
        Wanted { view: View::Leaks, documents: Vec::new() }
    }
}

/// How a recording is read.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Reading {
    /// Another expiry time than that of the run.
    pub expire: Option<Duration>,
    /// `-d`: separate debug file of the main executable.
    pub debug_file: Option<PathBuf>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The recording cannot be read.
    #[error(transparent)]
    Recording(#[from] recording::Error),
    /// The file given by `-d` is none, or not the executable's.
    #[error(transparent)]
    DebugFile(#[from] DebugFileError),
    /// A report cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Error {
    /// True if nobody reads the report any more: an ordinary end.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        matches!(self, Error::Write(WriteError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// The profile that a recording tells. Frames that it does not name are named by the modules' files here.
///
/// # Errors
/// If the file is no recording, or `-d` names no debug file of its executable.
pub fn read(path: &Path, reading: &Reading) -> Result<Profile, Error> {
    let replayed = recording::read(path, reading.expire)?;
    if replayed.has_names() && reading.debug_file.is_none() { Ok(named(replayed)) } else { name(replayed, reading) }
}

/// The profile of a recording that was kept in memory to its end.
#[must_use]
pub fn of_run(recording: &[u8]) -> Option<Profile> {
    recording::replay(recording, None).map(named)
}

fn named(replayed: Replayed) -> Profile {
    replayed.into_profile(&mut |_| None)
}

fn name(mut replayed: Replayed, reading: &Reading) -> Result<Profile, Error> {
    let (modules, remarks) = ModuleTable::reopened(replayed.modules());
    let executable = modules.iter().find(|module| module.role == Role::Executable);
    let debug_file = match (&reading.debug_file, executable) {
        (Some(path), Some(executable)) => {
            replayed.forget_names();
            Some(DebugFile::check(executable, path)?)
        }
        _ => None,
    };
    let mut symbolizer = Symbolizer::new(SymbolOptions { debug_file, ..SymbolOptions::default() });
    let progress = Progress::new("naming frames", replayed.count_frames());
    let mut profile = replayed.into_profile(&mut |frame| {
        progress.step();
        let is_known = frame.module.is_none_or(|id| (id.0 as usize) < modules.len());
        is_known.then(|| symbolizer.name(frame, &modules))
    });
    profile.remarks.extend(remarks);
    profile.remarks.extend(symbolizer.gaps().map(|gap| format!("{}: {}", gap.module, gap.text)));
    Ok(profile)
}

/// Writes the reports. Returns what their readers do not learn from them, as sentences.
///
/// # Errors
/// With the first that cannot be written; those before are complete.
pub fn write(profile: &Profile, wanted: &Wanted, standard: &mut dyn Write) -> Result<Vec<String>, Error> {
    let mut unsaid = Vec::new();
    for Document { format, path } in &wanted.documents {
        let left_out = match path {
            Some(path) => {
                let _progress = Progress::new(&format!("writing {}", path.display()), 0);
                format.write_file(profile, &wanted.view, path)?
            }
            None => {
                let left_out = format.write(profile, &wanted.view, standard)?;
                standard.flush().map_err(WriteError::Output)?;
                left_out
            }
        };
        unsaid.extend(left_out);
    }
    Ok(unsaid)
}
