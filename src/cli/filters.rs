//! What of a profile is shown: the options of filters.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::{duration, size};
use crate::filter::{FilterOptions, NoiseSet};
use crate::report::Detail;

/// Where the help lists them.
const HEADING: &str = "Filters";

#[derive(Args, Clone, Debug)]
pub(super) struct FilterArguments {
    /// Show call stacks only that have a function matching this expression; may be repeated
    #[arg(long, help_heading = HEADING, value_name = "REGEX")]
    include_function: Vec<String>,

    /// Leave out call stacks that have a function matching this expression; may be repeated
    #[arg(long, help_heading = HEADING, value_name = "REGEX")]
    exclude_function: Vec<String>,

    /// Show call stacks only that have a module (its path) matching this expression; may be repeated
    #[arg(long, help_heading = HEADING, value_name = "REGEX")]
    include_module: Vec<String>,

    /// Leave out call stacks that have a module matching this expression; may be repeated
    #[arg(long, help_heading = HEADING, value_name = "REGEX")]
    exclude_module: Vec<String>,

    /// Show call stacks only that have a source file matching this expression; may be repeated
    #[arg(long, help_heading = HEADING, value_name = "REGEX")]
    include_file: Vec<String>,

    /// Leave out call stacks that have a source file matching this expression; may be repeated
    #[arg(long, help_heading = HEADING, value_name = "REGEX")]
    exclude_file: Vec<String>,

    /// Show call stacks only of threads whose id or name matches this expression, in runs made with --by-thread; may be repeated
    #[arg(long, help_heading = HEADING, value_name = "REGEX")]
    include_thread: Vec<String>,

    /// Leave out call stacks of threads whose id or name matches this expression; may be repeated
    #[arg(long, help_heading = HEADING, value_name = "REGEX")]
    exclude_thread: Vec<String>,

    /// Leave out what is in a file of known leaks, in LeakSanitizer's or valgrind's syntax; may be repeated
    #[arg(long, help_heading = HEADING, value_name = "FILE", value_hint = ValueHint::FilePath)]
    suppressions: Vec<PathBuf>,

    /// Hide the frames of these sets: start, rust, tokio, c++, python (see --list-noise)
    #[arg(long, help_heading = HEADING, value_name = "SET", value_delimiter = ',', value_parser = parse_set, conflicts_with = "all_frames")]
    noise: Option<Vec<NoiseSet>>,

    /// Show all frames, also those of runtimes
    #[arg(long, help_heading = HEADING)]
    all_frames: bool,
}

#[derive(Args, Clone, Debug)]
pub(super) struct ExtentArguments {
    /// Show call stacks only whose blocks have on average at least SIZE bytes (or 64K, 32M…), and single blocks of that size
    #[arg(long, help_heading = HEADING, value_name = "SIZE", value_parser = size::parse)]
    min_block: Option<u64>,

    /// The same with at most SIZE bytes
    #[arg(long, help_heading = HEADING, value_name = "SIZE", value_parser = size::parse)]
    max_block: Option<u64>,

    /// Show call stacks only whose oldest live block is at least so old, and single blocks of that age
    #[arg(long, help_heading = HEADING, value_name = "TIME", value_parser = duration::parse)]
    min_age: Option<Duration>,

    /// The same with at most so old
    #[arg(long, help_heading = HEADING, value_name = "TIME", value_parser = duration::parse)]
    max_age: Option<Duration>,

    /// In text and trees, only count what costs less than this share of the total, in percent [default: trees 1, text 0]
    #[arg(long, help_heading = HEADING, value_name = "PERCENT", value_parser = parse_percent)]
    threshold: Option<f64>,

    /// In text, show at most N call stacks, blocks or rows
    #[arg(long, help_heading = HEADING, value_name = "N", default_value_t = Detail::default().top)]
    top: usize,

    /// Draw trees from main to the allocators
    #[arg(long, help_heading = HEADING)]
    top_down: bool,
}

impl FilterArguments {
    /// The filters; `usual_noise` if frames are hidden unless the user says otherwise.
    pub(super) fn into_options(self, usual_noise: bool) -> FilterOptions {
        let noise = match self.noise {
            Some(sets) => sets,
            None if usual_noise && !self.all_frames => NoiseSet::usual().collect(),
            None => Vec::new(),
        };
        FilterOptions {
            include_functions: self.include_function,
            exclude_functions: self.exclude_function,
            include_threads: self.include_thread,
            exclude_threads: self.exclude_thread,
            include_modules: self.include_module,
            exclude_modules: self.exclude_module,
            include_files: self.include_file,
            exclude_files: self.exclude_file,
            suppressions: self.suppressions,
            noise,
            ..FilterOptions::default()
        }
    }
}

impl ExtentArguments {
    /// Adds the filters by numbers; the rest is for those who write text.
    pub(super) fn into_detail(self, options: &mut FilterOptions) -> Detail {
        options.min_size = self.min_block;
        options.max_size = self.max_block;
        options.min_age = self.min_age;
        options.max_age = self.max_age;
        Detail { top: self.top, threshold: self.threshold, top_down: self.top_down, ..Detail::default() }
    }
}

fn parse_set(text: &str) -> Result<NoiseSet, String> {
    NoiseSet::from_name(text).ok_or_else(|| {
        let names: Vec<_> = NoiseSet::all().map(NoiseSet::name).collect();
        format!("the sets are {}", names.join(", "))
    })
}

fn parse_percent(text: &str) -> Result<f64, String> {
    match text.strip_suffix('%').unwrap_or(text).parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("give a number from 0 to 100".into()),
    }
}
