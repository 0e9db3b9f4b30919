//! The formats that a profile is written in: their names, their file extensions, and what each takes of a profile.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::style::Plain;
use super::{collapsed, csv, firefox, flamegraph, gprof2dot, heaptrack, html, json, pprof, tree, views};
use crate::profile::{Profile, Topic, View, ViewError};

/// A format of reports.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Format {
    /// Collapsed stacks, for flame graphs: `root;…;leaf bytes`.
    Collapsed,
    /// gprof2dot's JSON, for graphs of callers and callees.
    Gprof2dot,
    /// A flame graph.
    Svg,
    /// The whole run as one page.
    Html,
    /// memtrail's call tree: who allocated, and who called whom.
    Tree,
    /// pprof's `profile.proto`, gzipped.
    Pprof,
    /// Text for people.
    Text,
    /// All of the profile, for programs: docs/json.md.
    Json,
    /// The Firefox Profiler's processed format.
    Firefox,
    /// heaptrack's data file.
    Heaptrack,
    /// The course of the run as a table.
    Csv,
}

/// What a format takes of a profile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// One view.
    View,
    /// The whole run; the view says at most which numbers a reader sees first.
    Run,
}

/// What text tells, and how much; other formats tell all of a view.
#[derive(Clone, PartialEq, Debug)]
pub struct Detail {
    /// What text tells; if there is nothing, a summary and the view.
    pub topics: Vec<Topic>,
    /// At most so many call stacks, blocks or rows in text.
    pub top: usize,
    /// In text and trees, what costs less than this share of the total, in percent, is only counted. `None`: what is usual.
    pub threshold: Option<f64>,
    /// Trees begin at `main`, not at the allocators.
    pub top_down: bool,
}

impl Default for Detail {
    fn default() -> Detail {
        Detail { topics: Vec::new(), top: 50, threshold: None, top_down: false }
    }
}

type WriteFormat = fn(&Profile, &View, &mut dyn Write) -> Result<Vec<String>, WriteError>;

struct Row {
    format: Format,
    name: &'static str,
    /// How names of its files end; the longest that fits counts.
    endings: &'static [&'static str],
    scope: Scope,
    write: WriteFormat,
}

#[rustfmt::skip]
const FORMATS: &[Row] = &[
    Row { format: Format::Collapsed, name: "collapsed", endings: &[".folded", ".collapsed"], scope: Scope::View, write: collapsed::write },
    Row { format: Format::Gprof2dot, name: "gprof2dot", endings: &[".gprof2dot.json"], scope: Scope::View, write: gprof2dot::write },
    Row { format: Format::Svg, name: "svg", endings: &[".svg"], scope: Scope::View, write: flamegraph::write },
    Row { format: Format::Html, name: "html", endings: &[".html", ".htm"], scope: Scope::Run, write: html::write },
    Row { format: Format::Tree, name: "tree", endings: &[".tree", ".tree.txt"], scope: Scope::View, write: tree::write },
    Row { format: Format::Pprof, name: "pprof", endings: &[".pb", ".pprof"], scope: Scope::Run, write: pprof::write },
    Row { format: Format::Text, name: "text", endings: &[".txt"], scope: Scope::View, write: views::write },
    Row { format: Format::Json, name: "json", endings: &[".json"], scope: Scope::Run, write: json::write },
    Row { format: Format::Firefox, name: "firefox", endings: &[".firefox.json", ".profile.json"], scope: Scope::Run, write: firefox::write },
    Row { format: Format::Heaptrack, name: "heaptrack", endings: &[".heaptrack"], scope: Scope::Run, write: heaptrack::write },
    Row { format: Format::Csv, name: "csv", endings: &[".csv"], scope: Scope::Run, write: csv::write },
];

/// Why a report cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The profile does not have what is asked for.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The output fails.
    #[error(transparent)]
    Output(#[from] io::Error),
    /// A file fails.
    #[error("cannot write {}: {cause}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

impl From<serde_json::Error> for WriteError {
    fn from(error: serde_json::Error) -> WriteError {
        WriteError::Output(error.into())
    }
}

impl Format {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Format> {
        FORMATS.iter().map(|row| row.format)
    }

    /// As the user writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The format with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Format> {
        FORMATS.iter().find(|row| row.name == name).map(|row| row.format)
    }

    /// The format that a file's name ends in, whatever its case, with or without `.gz` behind it.
    #[must_use]
    pub fn of_path(path: &Path) -> Option<Format> {
        let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
        let by_ending = |name: &str| {
            let endings = FORMATS.iter().flat_map(|row| row.endings.iter().map(move |ending| (ending, row.format)));
            endings.filter(|(ending, _)| name.ends_with(**ending)).max_by_key(|(ending, _)| ending.len())
        };
        by_ending(name.strip_suffix(".gz").unwrap_or(&name)).or_else(|| by_ending(&name)).map(|(_, format)| format)
    }

    /// How names of its files end, without `.gz`; the first is the usual one.
    #[must_use]
    pub fn endings(self) -> &'static [&'static str] {
        self.row().endings
    }

    /// What it takes of a profile.
    #[must_use]
    pub fn scope(self) -> Scope {
        self.row().scope
    }

    /// Writes `profile` as `view` sees it. Returns what the reader of `output` does not learn, as sentences.
    ///
    /// # Errors
    /// If the profile does not have what `view` asks for, before anything is written; if `output` fails.
    pub fn write(self, profile: &Profile, view: &View, output: &mut dyn Write) -> Result<Vec<String>, WriteError> {
        (self.row().write)(profile, view, output)
    }

    /// The same, with as much detail as is asked for.
    ///
    /// # Errors
    /// As [`Format::write`].
    pub fn write_detail(
        self,
        profile: &Profile,
        view: &View,
        detail: &Detail,
        output: &mut dyn Write,
    ) -> Result<Vec<String>, WriteError> {
        match self {
            Format::Tree => tree::write_detail(profile, view, detail, output),
            Format::Text => views::write_detail(profile, view, detail, output),
            Format::Csv => csv::write_detail(profile, view, detail, output),
            _ => self.write(profile, view, output),
        }
    }

    /// True if what costs nothing in bytes is not told by it, however many there are of it.
    #[must_use]
    pub fn knows_bytes_only(self) -> bool {
        !matches!(self, Format::Text | Format::Json | Format::Csv)
    }

    /// The same without colours.
    ///
    /// # Errors
    /// As [`Format::write`].
    pub fn write_plain(
        self,
        profile: &Profile,
        view: &View,
        detail: &Detail,
        output: &mut dyn Write,
    ) -> Result<Vec<String>, WriteError> {
        match self {
            Format::Tree | Format::Text => self.write_detail(profile, view, detail, &mut Plain::new(output)),
            // They have none, and what looks like one is part of them.
            _ => self.write_detail(profile, view, detail, output),
        }
    }

    /// The same into a file, compressed if its name ends in `.gz`. What was in the file is kept until there is something to write.
    ///
    /// # Errors
    /// As [`Format::write`]; then the file may be there in part.
    pub fn write_file(self, profile: &Profile, view: &View, path: &Path) -> Result<Vec<String>, WriteError> {
        self.write_file_detail(profile, view, &Detail::default(), path)
    }

    /// The same, with as much detail as is asked for.
    ///
    /// # Errors
    /// As [`Format::write_file`].
    pub fn write_file_detail(
        self,
        profile: &Profile,
        view: &View,
        detail: &Detail,
        path: &Path,
    ) -> Result<Vec<String>, WriteError> {
        let in_file = |cause| WriteError::File { path: path.to_owned(), cause };
        let mut file = BufWriter::with_capacity(1 << 16, CreatedWhenWritten { path, file: None });
        let left_out = if self.is_to_be_compressed(path) {
            let mut encoder = GzEncoder::new(&mut file, Compression::default());
            let left_out =
                self.write_plain(profile, view, detail, &mut encoder).map_err(|error| error.of_file(path))?;
            encoder.finish().map_err(in_file)?;
            left_out
        } else {
            self.write_plain(profile, view, detail, &mut file).map_err(|error| error.of_file(path))?
        };
        file.flush().map_err(in_file)?;
        file.get_mut().open().map_err(in_file)?;
        Ok(left_out)
    }

    /// The same of a report in this format that was written elsewhere.
    ///
    /// # Errors
    /// If the file fails.
    pub fn write_rendered(self, report: &[u8], path: &Path) -> Result<(), WriteError> {
        let written = File::create(path).and_then(|mut file| {
            if !self.is_to_be_compressed(path) {
                return file.write_all(report);
            }
            let mut encoder = GzEncoder::new(file, Compression::default());
            encoder.write_all(report)?;
            encoder.finish().map(drop)
        });
        written.map_err(|cause| WriteError::File { path: path.to_owned(), cause })
    }

    /// pprof's files are compressed, whatever their name.
    fn is_to_be_compressed(self, path: &Path) -> bool {
        self != Format::Pprof && path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"))
    }

    fn row(self) -> &'static Row {
        FORMATS.iter().find(|row| row.format == self).expect("each format has its row, as a test checks")
    }
}

impl WriteError {
    fn of_file(self, path: &Path) -> WriteError {
        match self {
            WriteError::Output(cause) => WriteError::File { path: path.to_owned(), cause },
            other => other,
        }
    }
}

/// A file that is created, or emptied, by the first write.
struct CreatedWhenWritten<'a> {
    path: &'a Path,
    file: Option<File>,
}

impl CreatedWhenWritten<'_> {
    fn open(&mut self) -> io::Result<&mut File> {
        match &mut self.file {
            Some(file) => Ok(file),
            empty => Ok(empty.insert(File::create(self.path)?)),
        }
    }
}

impl Write for CreatedWhenWritten<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.open()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), File::flush)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;

    use super::*;
    use crate::profile::sample;

    #[test]
    fn each_format_has_a_name_of_its_own() {
        for format in Format::all() {
            assert_eq!(Format::from_name(format.name()), Some(format));
        }
        assert_eq!(Format::from_name("excel"), None);
    }

    #[test]
    fn the_longest_extension_tells_the_format() {
        let of = |path: &str| Format::of_path(Path::new(path)).map(Format::name);
        assert_eq!(of("/tmp/a.folded"), Some("collapsed"));
        assert_eq!(of("a.COLLAPSED.gz"), Some("collapsed"));
        assert_eq!(of("a.gprof2dot.json"), Some("gprof2dot"));
        assert_eq!(of("a.pb.gz"), Some("pprof"));
        assert_eq!(of("heaptrack.server.4321.heaptrack.gz"), Some("heaptrack"));
        assert_eq!(of("a.profile.json"), Some("firefox"));
        assert_eq!(of("a.folded/b"), None);
        assert_eq!(of("/"), None);
    }

    #[test]
    fn a_file_is_compressed_if_its_name_says_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let (plain, packed) = (folder.path().join("a.folded"), folder.path().join("a.folded.gz"));
        for path in [&plain, &packed] {
            Format::Collapsed.write_file(&sample::profile(), &View::Leaks, path).expect("a file");
        }
        let mut unpacked = String::new();
        let file = File::open(packed).expect("a file");
        flate2::read::GzDecoder::new(file).read_to_string(&mut unpacked).expect("gzip");
        assert_eq!(unpacked, fs::read_to_string(plain).expect("a file"));
        assert!(unpacked.contains("malloc"));
    }

    #[test]
    fn files_have_no_colours_and_binary_ones_are_left_as_they_are() {
        let folder = tempfile::tempdir().expect("a folder");
        for format in Format::all() {
            let path = folder.path().join(format.name());
            format.write_file(&sample::profile(), &View::Leaks, &path).expect("a file");
            let (mut styled, written) = (Vec::new(), fs::read(&path).expect("a file"));
            format.write(&sample::profile(), &View::Leaks, &mut styled).expect("a Vec takes everything");
            match format {
                Format::Tree | Format::Text => {
                    assert!(styled.contains(&0x1b) && !written.contains(&0x1b), "{}", format.name());
                }
                _ => assert_eq!(written, styled, "{}", format.name()),
            }
        }
    }

    #[test]
    fn an_older_report_outlives_a_question_that_has_no_answer() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.folded");
        fs::write(&path, "older").expect("a file");
        let write = |view| Format::Collapsed.write_file(&sample::profile(), &view, &path);
        write(View::Snapshot(7)).expect_err("only one was taken");
        assert_eq!(fs::read_to_string(&path).expect("a file"), "older");
        write(View::Growth { from: Some(1), to: Some(1) }).expect("an empty report");
        assert_eq!(fs::read_to_string(&path).expect("a file"), "");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let write = |path: &str| {
            Format::Collapsed.write_file(&sample::profile(), &View::Leaks, Path::new(path)).map_err(|e| e.to_string())
        };
        let error = write("/nonexistent/a.folded").expect_err("no such folder");
        assert!(error.starts_with("cannot write /nonexistent/a.folded: No such file"), "{error}");
        let error = write("/dev/full").expect_err("a full disk");
        assert!(error.starts_with("cannot write /dev/full: No space left"), "{error}");
    }
}
