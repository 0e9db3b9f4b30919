//! Which reports are wanted: of what, in which formats, to where.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, ValueHint};

use super::duration;
use super::filters::{ExtentArguments, FilterArguments};
use super::watch::ColorArgument;
use crate::config::Color;
use crate::filter::Filters;
use crate::profile::{Topic, View};
use crate::rendering::{Document, Reading, Wanted};
use crate::report::{Detail, Format, Scope};

#[derive(Args, Clone, Debug)]
pub(super) struct DocumentArguments {
    /// Report in this format, to standard output unless -o is given; may be repeated
    #[arg(long, value_name = "FORMAT", value_parser = parse_format, help = format_help())]
    format: Vec<Format>,

    /// Write a report to FILE, in the format of its name's extension unless --format is given as often as -o; may be repeated
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Vec<PathBuf>,

    /// What to report of: leaks (never freed), expired, peak, allocated, temporary, snapshot:N, growth:A..B; in text also others
    ///
    /// leaks: what was live at the end; expired: of that, what lived longer than --expire; peak: what was live at the high-water mark;
    /// allocated: all that ever was; temporary: what was freed as the next thing after they were allocated (by ptrace only);
    /// snapshot:N: what was live at the N-th snapshot; growth:A..B: from snapshot A (or the beginning) to B (or the end).
    /// In text also, and several: summary; sites:ORDER, the call stacks with the most of live (bytes), live-blocks, allocated, blocks or
    /// rate, a line each; blocks, single ones with their age; sizes; lifetimes; ages; timeline; trends; snapshots
    #[arg(long, value_name = "VIEW", default_value = "leaks", hide_default_value = true)]
    view: Vec<Topic>,

    /// Report on objects of this type (see --object) instead of memory
    #[arg(long, value_name = "TYPE")]
    of: Option<String>,

    #[command(flatten)]
    filters: FilterArguments,

    #[command(flatten)]
    extent: ExtentArguments,
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
        let mut options = self.filters.into_options(true);
        let detail = self.extent.into_detail(&mut options);
        let filters = Filters::new(&options).map_err(|error| usage_error(&error.to_string()))?;
        let (view, topics) = views(self.view, &documents)?;
        Ok(Wanted { of: self.of, view, documents, filters, detail: Detail { topics, ..detail } })
    }
}

/// The view for all formats, and what text tells: a summary goes before the only view.
fn views(topics: Vec<Topic>, documents: &[Document]) -> Result<(View, Vec<Topic>), clap::Error> {
    let views: Vec<&View> = topics.iter().filter_map(Topic::view).collect();
    let view = views.first().map_or(View::Leaks, |&view| view.clone());
    if let Some(document) = documents.iter().find(|document| document.format != Format::Text) {
        let name = document.format.name();
        if views.is_empty() {
            let text = format!("the format {name} shows none of these views; it shows leaks, peak and the like");
            return Err(usage_error(&text));
        }
        if views.len() > 1 && document.format.scope() == Scope::View {
            return Err(usage_error(&format!("the format {name} shows one view at a time; give one --view")));
        }
    }
    let topics = if matches!(topics[..], [Topic::View(_)]) { Vec::new() } else { topics };
    Ok((view, topics))
}

fn unknown_extension(path: &Path) -> clap::Error {
    let endings: Vec<&str> = Format::all().filter_map(|format| format.endings().first().copied()).collect();
    let (path, endings) = (path.display(), endings.join(", "));
    usage_error(&format!(
        "cannot tell the format of {path} by its name: it ends in none of {endings}; give --format as well"
    ))
}

fn usage_error(text: &str) -> clap::Error {
    clap::Error::raw(ErrorKind::InvalidValue, format!("{text}\n"))
}

fn format_help() -> String {
    let names: Vec<&str> = Format::all().map(Format::name).collect();
    format!(
        "Report in this format, to standard output unless -o is given; may be repeated [possible values: {}]",
        names.join(", ")
    )
}

pub(super) fn parse_format(text: &str) -> Result<Format, String> {
    Format::from_name(text).ok_or_else(|| {
        let names: Vec<&str> = Format::all().map(Format::name).collect();
        format!("the formats are {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::filter::{FilterOptions, NoiseSet};

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        documents: DocumentArguments,
    }

    fn wanted(arguments: &[&str]) -> Result<Wanted, String> {
        let arguments = Arguments::try_parse_from(["memleax"].iter().chain(arguments));
        let wanted = arguments.and_then(|arguments| arguments.documents.into_wanted(Some(Format::Text)));
        wanted.map_err(|error| error.to_string())
    }

    #[test]
    fn formats_are_told_by_option_or_extension() {
        let documents = |arguments: &[&str]| {
            let documents = wanted(arguments).expect("good arguments").documents;
            documents.into_iter().map(|one| (one.format, one.path)).collect::<Vec<_>>()
        };
        assert_eq!(documents(&[]), [(Format::Text, None)]);
        assert_eq!(documents(&["--format", "collapsed", "-o", "x"]), [(Format::Collapsed, Some("x".into()))]);
        assert_eq!(documents(&["-o", "x.folded"]), [(Format::Collapsed, Some("x.folded".into()))]);
        let two = documents(&["--format", "tree", "-o", "x.folded", "-o", "y.svg"]);
        let formats: Vec<_> = two.iter().map(|(format, _)| *format).collect();
        assert_eq!(formats, [Format::Tree, Format::Collapsed, Format::Svg]);
        let error = wanted(&["-o", "x.doc"]).expect_err("no format");
        assert!(error.contains("cannot tell the format of x.doc by its name"), "{error}");
    }

    #[test]
    fn text_takes_any_views_and_other_formats_one() {
        let two = wanted(&["--view", "sizes", "--view", "peak"]).expect("text shows all");
        assert_eq!(two.view, View::Peak);
        assert_eq!(two.detail.topics, [Topic::Sizes, Topic::View(View::Peak)]);
        let usual = wanted(&["--view", "growth:1..3"]).expect("a view");
        assert_eq!((usual.view, usual.detail.topics), (View::Growth { from: Some(1), to: Some(3) }, Vec::new()));
        for (arguments, problem) in [
            (&["--format", "svg", "--view", "sizes"][..], "the format svg shows none of these views"),
            (&["--format", "svg", "--view", "peak", "--view", "leaks"], "the format svg shows one view at a time"),
            (&["--view", "leak"], "the views are summary, leaks"),
        ] {
            let error = wanted(arguments).expect_err(problem);
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn filters_reach_what_is_wanted() {
        let usual: Vec<NoiseSet> = NoiseSet::usual().collect();
        let noise = |arguments: &[&str]| {
            let wanted = wanted(arguments).expect("good arguments");
            let of = |noise| Filters::new(&FilterOptions { noise, ..FilterOptions::default() }).expect("good options");
            [usual.clone(), Vec::new(), vec![NoiseSet::Rust, NoiseSet::Python]]
                .into_iter()
                .position(|sets| of(sets) == wanted.filters)
        };
        assert_eq!(noise(&[]), Some(0));
        assert_eq!(noise(&["--all-frames"]), Some(1));
        assert_eq!(noise(&["--noise", "rust,python"]), Some(2));
        assert!(!wanted(&[]).expect("good arguments").filters.leave_out());
        for option in
            ["include-function", "exclude-function", "include-module", "exclude-module", "include-file", "exclude-file"]
        {
            let option = format!("--{option}");
            assert!(wanted(&[&option, "x"]).expect("good arguments").filters.leave_out(), "{option}");
            let error = wanted(&[&option, "("]).expect_err("no expression");
            assert!(error.contains("cannot filter by \"(\": unclosed group"), "{error}");
        }
        for (option, value) in [("--min-block", "4K"), ("--max-block", "9"), ("--min-age", "5m"), ("--max-age", "1h")] {
            assert!(wanted(&[option, value]).expect("good arguments").filters.leave_out(), "{option}");
        }
        let detail = wanted(&["--threshold", "2.5%", "--top", "7", "--top-down"]).expect("good arguments").detail;
        assert_eq!((detail.threshold, detail.top, detail.top_down), (Some(2.5), 7, true));
        for (arguments, problem) in [
            (["--suppressions", "/nonexistent"], "cannot read the suppression file /nonexistent: No such file"),
            (["--noise", "go"], "the sets are start, rust, tokio, c++, python"),
            (["--threshold", "200"], "give a number from 0 to 100"),
        ] {
            let error = wanted(&arguments).expect_err(problem);
            assert!(error.contains(problem), "{error}");
        }
    }
}
