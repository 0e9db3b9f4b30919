//! From recordings to reports: reading, naming, writing.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::filter::Filters;
use crate::profile::{Comparison, Profile, View, ViewError, compare};
use crate::recording::{self, Replayed};
use crate::report::{Detail, Format, Progress, WriteError};
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
#[derive(Clone, PartialEq, Debug)]
pub struct Wanted {
    /// Of objects of this type; else of memory, with objects besides where there is room for them.
    pub of: Option<String>,
    /// Of what.
    pub view: View,
    /// In this order.
    pub documents: Vec<Document>,
    /// What is left out.
    pub filters: Filters,
    /// How much text tells.
    pub detail: Detail,
}

impl Wanted {
    /// The same of a process that the target has started: files have its id in their names (`run.42.svg` for `run.svg`). Text, where
    /// nothing else is wanted.
    #[must_use]
    pub fn of_child(&self, pid: u32) -> Wanted {
        let mut wanted = self.clone();
        if wanted.documents.is_empty() {
            wanted.documents.push(Document { format: Format::Text, path: None });
        }
        for path in wanted.documents.iter_mut().filter_map(|document| document.path.as_mut()) {
            let mut name = path.file_stem().unwrap_or_default().to_owned();
            name.push(format!(".{pid}"));
            if let Some(extension) = path.extension() {
                name.push(".");
                name.push(extension);
            }
            path.set_file_name(name);
        }
        wanted
    }
}

impl Default for Wanted {
    fn default() -> Wanted {
        Wanted {
            of: None,
            view: View::Leaks,
            documents: Vec::new(),
            filters: Filters::default(),
            detail: Detail::default(),
        }
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
    /// One of two runs cannot show what is to be compared.
    #[error("cannot compare {}: {cause}", path.display())]
    View {
        /// Its recording.
        path: PathBuf,
        /// Why.
        cause: ViewError,
    },
    /// Objects of this type were not followed.
    #[error("cannot report on objects of type {name}: {}", if known.is_empty() { "none were followed (--object)".into() } else { format!("those followed are {}", known.join(", ")) })]
    NoType {
        /// The type.
        name: String,
        /// Those that were.
        known: Vec<String>,
    },
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

/// The profile that shows what changed from one recording to another, of the view in `wanted`, filtered as that says; and what is then
/// wanted of it.
///
/// # Errors
/// If one of the recordings cannot be read, or cannot show the view.
pub fn read_both(
    paths: &[PathBuf; 2],
    reading: &Reading,
    per: Option<Duration>,
    wanted: Wanted,
) -> Result<(Profile, Wanted), Error> {
    let [before, after] = paths;
    let read = |path: &Path| -> Result<Profile, Error> {
        let profile = read(path, reading)?;
        let profile = wanted.filters.apply(of_type(&profile, wanted.of.as_deref())?.clone());
        match profile.weigh(&wanted.view) {
            Ok(_) => Ok(profile),
            Err(cause) => Err(Error::View { path: path.to_owned(), cause }),
        }
    };
    let (earlier, later) = (read(before)?, read(after)?);
    let names = [before, after].map(|path| path.display().to_string());
    let how = Comparison { view: wanted.view, per, names };
    let compared = compare(&earlier, &later, &how).map_err(WriteError::View)?;
    Ok((compared, Wanted { of: None, view: Comparison::VIEW, filters: Filters::default(), ..wanted }))
}

/// What a profile tells of objects of a type, or of memory.
fn of_type<'a>(profile: &'a Profile, name: Option<&str>) -> Result<&'a Profile, Error> {
    let Some(name) = name else { return Ok(profile) };
    profile.of_type(name).ok_or_else(|| {
        let known = profile.objects.iter().filter_map(|objects| objects.of.clone()).collect();
        Error::NoType { name: name.into(), known }
    })
}

/// Writes the reports; with `colours` what goes to `standard`, if it is text. Returns what their readers do not learn from them, as sentences.
///
/// # Errors
/// With the first that cannot be written; those before are complete.
pub fn write(
    profile: &Profile,
    wanted: &Wanted,
    standard: &mut dyn Write,
    colours: bool,
) -> Result<Vec<String>, Error> {
    let Wanted { of, view, documents, detail, .. } = wanted;
    let profile = of_type(profile, of.as_deref())?;
    let in_bytes = profile.has_no_sizes().then(|| profile.with_a_byte_each());
    let mut unsaid = Vec::new();
    for Document { format, path } in documents {
        let profile = match &in_bytes {
            Some(in_bytes) if format.knows_bytes_only() => {
                unsaid.push("The sizes of objects are not known: one counts as one byte.".into());
                in_bytes
            }
            _ => profile,
        };
        let left_out = match path {
            Some(path) => {
                let _progress = Progress::new(&format!("writing {}", path.display()), 0);
                format.write_file_detail(profile, view, detail, path)?
            }
            None => {
                let left_out = if colours {
                    format.write_detail(profile, view, detail, standard)?
                } else {
                    format.write_plain(profile, view, detail, standard)?
                };
                standard.flush().map_err(WriteError::Output)?;
                left_out
            }
        };
        unsaid.extend(left_out);
    }
    unsaid.dedup();
    Ok(unsaid)
}
