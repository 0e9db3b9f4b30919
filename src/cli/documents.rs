//! Which reports are wanted: of what, in which formats, to where.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, ValueHint};

use super::duration;
use super::watch::ColorArgument;
use crate::config::Color;
use crate::profile::View;
use crate::rendering::{Document, Reading, Wanted};
use crate::report::Format;

#[derive(Args, Clone, Debug)]
pub(super) struct DocumentArguments {
    /// Report in this format, to standard output unless -o is given; may be repeated
    #[arg(long, value_name = "FORMAT", value_parser = parse_format, help = format_help())]
    format: Vec<Format>,

    /// Write a report to FILE, in the format of its name's extension unless --format is given as often as -o; may be repeated
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Vec<PathBuf>,

    /// What to report of: leaks (never freed), expired, peak, allocated, temporary, snapshot:N, growth:A..B
    ///
    /// leaks: what was live at the end; expired: of that, what lived longer than --expire; peak: what was live at the high-water mark;
    /// allocated: all that ever was; temporary: what was freed before anything else was allocated (by ptrace only);
    /// snapshot:N: what was live at the N-th snapshot; growth:A..B: from snapshot A (or the beginning) to B (or the end)
    #[arg(long, value_name = "VIEW", default_value = "leaks", value_parser = parse_view)]
    view: View,
}

#[derive(Args, Clone, Debug)]
pub(super) struct ReadingArguments {
    /// Count blocks as expired that live longer than this; for recordings made with --full
    #[arg(short, long, value_name = "TIME", value_parser = duration::parse)]
    expire: Option<Duration>,

    /// Read debug information of the main executable from FILE, where the recording has no names
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    debug_file: Option<PathBuf>,

    /// When to colour what goes to standard output
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    color: ColorArgument,
}

impl ReadingArguments {
    pub(super) fn into_reading(self) -> (Reading, Color) {
        (Reading { expire: self.expire, debug_file: self.debug_file }, self.color.into())
    }
}

impl DocumentArguments {
    /// The reports; `default` is that of a run that asks for none.
    pub(super) fn into_wanted(self, default: Option<Format>) -> Result<Wanted, clap::Error> {
        let documents = if self.output.is_empty() {
            let formats = if self.format.is_empty() { default.into_iter().collect() } else { self.format };
            formats.into_iter().map(|format| Document { format, path: None }).collect()
        } else if self.output.len() == self.format.len() {
            let pairs = self.format.into_iter().zip(self.output);
            pairs.map(|(format, path)| Document { format, path: Some(path) }).collect()
        } else {
            let mut documents: Vec<Document> =
                self.format.into_iter().map(|format| Document { format, path: None }).collect();
            for path in self.output {
                let format = Format::of_path(&path).ok_or_else(|| unknown_extension(&path))?;
                documents.push(Document { format, path: Some(path) });
            }
            documents
        };
        Ok(Wanted { view: self.view, documents })
    }
}

fn unknown_extension(path: &Path) -> clap::Error {
    let endings: Vec<&str> = Format::all().filter_map(|format| format.endings().first().copied()).collect();
    let text = format!(
        "cannot tell the format of {} by its name: it ends in none of {}; give --format as well\n",
        path.display(),
        endings.join(", ")
    );
    clap::Error::raw(ErrorKind::InvalidValue, text)
}

fn format_help() -> String {
    let names: Vec<&str> = Format::all().map(Format::name).collect();
    format!(
        "Report in this format, to standard output unless -o is given; may be repeated [possible values: {}]",
        names.join(", ")
    )
}

fn parse_format(text: &str) -> Result<Format, String> {
    Format::from_name(text).ok_or_else(|| {
        let names: Vec<&str> = Format::all().map(Format::name).collect();
        format!("the formats are {}", names.join(", "))
    })
}

fn parse_view(text: &str) -> Result<View, String> {
    let number = |text: &str| text.parse::<usize>().ok().filter(|&number| number > 0);
    let moment = |text: &str| if text.is_empty() { Some(None) } else { number(text).map(Some) };
    let view = match text.split_once(':').unwrap_or((text, "")) {
        ("leaks", "") => Some(View::Leaks),
        ("expired", "") => Some(View::Expired),
        ("peak", "") => Some(View::Peak),
        ("allocated", "") => Some(View::Allocated),
        ("temporary", "") => Some(View::Temporary),
        ("snapshot", text) => number(text).map(View::Snapshot),
        ("growth", "") => Some(View::Growth { from: None, to: None }),
        ("growth", text) => {
            let (from, to) = text.split_once("..").unwrap_or((text, ""));
            moment(from).zip(moment(to)).map(|(from, to)| View::Growth { from, to })
        }
        _ => None,
    };
    view.ok_or_else(|| {
        "the views are leaks, expired, peak, allocated, temporary, snapshot:N and growth:A..B, N, A and B being numbers of snapshots".into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_told_by_name() {
        assert_eq!(parse_view("peak"), Ok(View::Peak));
        assert_eq!(parse_view("snapshot:2"), Ok(View::Snapshot(2)));
        assert_eq!(parse_view("growth:1..3"), Ok(View::Growth { from: Some(1), to: Some(3) }));
        assert_eq!(parse_view("growth:..3"), Ok(View::Growth { from: None, to: Some(3) }));
        assert_eq!(parse_view("growth:1"), Ok(View::Growth { from: Some(1), to: None }));
        for wrong in ["", "leak", "peak:1", "snapshot", "snapshot:0", "growth:x..y"] {
            assert!(parse_view(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn formats_are_told_by_option_or_extension() {
        let wanted = |format: &[&str], output: &[&str]| {
            let arguments = DocumentArguments {
                format: format.iter().map(|name| parse_format(name).expect("a format")).collect(),
                output: output.iter().map(PathBuf::from).collect(),
                view: View::Leaks,
            };
            let wanted = arguments.into_wanted(Some(Format::Tree)).map_err(|error| error.to_string())?;
            Ok::<_, String>(wanted.documents.into_iter().map(|one| (one.format, one.path)).collect::<Vec<_>>())
        };
        assert_eq!(wanted(&[], &[]), Ok(vec![(Format::Tree, None)]));
        assert_eq!(wanted(&["collapsed"], &["x"]), Ok(vec![(Format::Collapsed, Some("x".into()))]));
        assert_eq!(wanted(&[], &["x.folded"]), Ok(vec![(Format::Collapsed, Some("x.folded".into()))]));
        let two = wanted(&["tree"], &["x.folded", "y.svg"]).expect("formats");
        assert_eq!(
            two.iter().map(|(format, _)| *format).collect::<Vec<_>>(),
            [Format::Tree, Format::Collapsed, Format::Svg]
        );
        let error = wanted(&[], &["x.doc"]).expect_err("no format");
        assert!(error.contains("cannot tell the format of x.doc by its name"), "{error}");
    }
}
