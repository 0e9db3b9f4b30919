//! What of a profile is shown: filters by name, size and age, known leaks, and frames that say nothing.
//!
//! Filters take call stacks away, never parts of their numbers, and the profile's remarks say how much went.

mod hiding;
mod noise;
mod suppression;

use std::path::PathBuf;
use std::time::Duration;

use regex::{Regex, RegexBuilder};

use crate::event::Tally;
use crate::profile::{Profile, Site};
use crate::symbol::NamedStack;
use suppression::Suppression;

pub use noise::{NoiseSet, list_noise};
pub use suppression::SuppressionError;

/// What the user asks for. Nothing, by default.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct FilterOptions {
    /// A call stack is shown only if one of its functions matches one of these expressions.
    pub include_functions: Vec<String>,
    /// A call stack is not shown if one of its functions matches one of these.
    pub exclude_functions: Vec<String>,
    /// The same with the thread, `[thread 4322 worker]`, of runs made with `--by-thread`.
    pub include_threads: Vec<String>,
    /// The same.
    pub exclude_threads: Vec<String>,
    /// The same with the paths of modules.
    pub include_modules: Vec<String>,
    /// The same.
    pub exclude_modules: Vec<String>,
    /// The same with the paths of source files.
    pub include_files: Vec<String>,
    /// The same.
    pub exclude_files: Vec<String>,
    /// Blocks of at least so many bytes: call stacks by the mean of all their blocks, single blocks by their size.
    pub min_size: Option<u64>,
    /// Of at most so many.
    pub max_size: Option<u64>,
    /// Blocks that live at least so long at the end: call stacks by their oldest.
    pub min_age: Option<Duration>,
    /// At most so long.
    pub max_age: Option<Duration>,
    /// Files that name known leaks.
    pub suppressions: Vec<PathBuf>,
    /// The frames to hide.
    pub noise: Vec<NoiseSet>,
}

/// Why a filter cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// An expression is none.
    #[error("cannot filter by {text:?}: {}", reason(cause))]
    Expression {
        /// The expression.
        text: String,
        /// What is wrong with it.
        cause: regex::Error,
    },
    /// A suppression file cannot be used.
    #[error(transparent)]
    Suppressions(#[from] SuppressionError),
}

/// The last line says what is wrong; those before draw the place.
fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// Filters, ready for use. Those made of the same options are equal.
#[derive(Clone, Debug)]
pub struct Filters {
    options: FilterOptions,
    functions: Names,
    threads: Names,
    modules: Names,
    files: Names,
    sizes: (u64, u64),
    /// `None` if any age will do.
    ages: Option<(Duration, Duration)>,
    suppressions: Vec<Suppression>,
    noise: Vec<NoiseSet>,
}

impl PartialEq for Filters {
    fn eq(&self, other: &Filters) -> bool {
        self.options == other.options
    }
}

impl Default for Filters {
    /// Those that leave all as it is.
    fn default() -> Filters {
        let none = || Names { include: Vec::new(), exclude: Vec::new() };
        Filters {
            options: FilterOptions::default(),
            functions: none(),
            threads: none(),
            modules: none(),
            files: none(),
            sizes: (0, u64::MAX),
            ages: None,
            suppressions: Vec::new(),
            noise: Vec::new(),
        }
    }
}

/// What becomes of a call stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is shown.
    Shown,
    /// A filter by name leaves it out.
    Filtered,
    /// It is a known leak: the suppression of this number (from 0).
    Suppressed(usize),
}

#[derive(Clone, Debug)]
struct Names {
    include: Vec<Regex>,
    exclude: Vec<Regex>,
}

impl Names {
    fn new(include: &[String], exclude: &[String]) -> Result<Names, FilterError> {
        let compile = |texts: &[String]| -> Result<Vec<Regex>, FilterError> {
            let compile = |text: &String| {
                let compiled = RegexBuilder::new(text).build();
                compiled.map_err(|cause| FilterError::Expression { text: text.clone(), cause })
            };
            texts.iter().map(compile).collect()
        };
        Ok(Names { include: compile(include)?, exclude: compile(exclude)? })
    }

    fn is_empty(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    fn keep<'a>(&self, names: impl Iterator<Item = &'a str>) -> bool {
        let mut is_included = self.include.is_empty();
        for name in names {
            if self.exclude.iter().any(|expression| expression.is_match(name)) {
                return false;
            }
            is_included = is_included || self.include.iter().any(|expression| expression.is_match(name));
        }
        is_included
    }
}

impl Filters {
    /// Filters as the user wants them.
    ///
    /// # Errors
    /// If an expression or a suppression file is wrong.
    pub fn new(options: &FilterOptions) -> Result<Filters, FilterError> {
        let mut suppressions = Vec::new();
        for path in &options.suppressions {
            suppressions.extend(suppression::read(path)?);
        }
        let ages = (options.min_age.unwrap_or_default(), options.max_age.unwrap_or(Duration::MAX));
        Ok(Filters {
            options: options.clone(),
            functions: Names::new(&options.include_functions, &options.exclude_functions)?,
            threads: Names::new(&options.include_threads, &options.exclude_threads)?,
            modules: Names::new(&options.include_modules, &options.exclude_modules)?,
            files: Names::new(&options.include_files, &options.exclude_files)?,
            sizes: (options.min_size.unwrap_or(0), options.max_size.unwrap_or(u64::MAX)),
            ages: (options.min_age.is_some() || options.max_age.is_some()).then_some(ages),
            suppressions,
            noise: options.noise.clone(),
        })
    }

    /// True if some call stacks may not be shown.
    #[must_use]
    pub fn leave_out(&self) -> bool {
        FilterOptions { noise: Vec::new(), ..self.options.clone() } != FilterOptions::default()
    }

    /// What the names on a call stack say of it.
    #[must_use]
    pub fn judge(&self, stack: &NamedStack) -> Verdict {
        if let Some(number) = self.suppressions.iter().position(|suppression| suppression.matches(stack)) {
            return Verdict::Suppressed(number);
        }
        self.judge_names(stack)
    }

    fn judge_names(&self, stack: &NamedStack) -> Verdict {
        let functions = stack.calls().filter_map(|call| call.function);
        // An expression may be meant for either.
        let keeps_functions = self.functions.is_empty()
            || self.functions.keep(functions.flat_map(|function| [function.name.as_str(), function.raw.as_str()]));
        let keeps_modules =
            self.modules.is_empty() || self.modules.keep(stack.frames.iter().map(|frame| frame.module.as_str()));
        let keeps_files = self.files.is_empty() || self.files.keep(stack.calls().filter_map(|call| call.file()));
        let threads = stack.frames.iter().filter_map(|frame| frame.thread());
        let keeps_threads = self.threads.is_empty() || self.threads.keep(threads);
        if keeps_functions && keeps_threads && keeps_modules && keeps_files {
            Verdict::Shown
        } else {
            Verdict::Filtered
        }
    }

    /// Names a suppression: `The suppression leak:x (file:3)`.
    #[must_use]
    pub fn suppression(&self, number: usize) -> String {
        self.suppressions.get(number).map(|suppression| format!("The suppression {suppression}")).unwrap_or_default()
    }

    /// The profile without what is filtered out or known; its remarks say how much that is.
    #[must_use]
    pub fn apply(&self, mut profile: Profile) -> Profile {
        profile.objects = profile.objects.into_iter().map(|objects| self.apply(objects)).collect();
        let mut filtered = Left::default();
        let mut suppressed = vec![Left::default(); self.suppressions.len()];
        let mut places = Vec::with_capacity(profile.sites.len());
        let mut kept = Vec::with_capacity(profile.sites.len());
        for site in std::mem::take(&mut profile.sites) {
            // What is freed is no leak, so none that is known.
            let verdict = if site.live.count > 0 { self.judge(&site.stack) } else { self.judge_names(&site.stack) };
            let verdict = match verdict {
                Verdict::Shown if !self.keeps_by_numbers(&site) => Verdict::Filtered,
                verdict => verdict,
            };
            match verdict {
                Verdict::Filtered => filtered.add(&site),
                Verdict::Suppressed(number) => suppressed[number].add(&site),
                Verdict::Shown => {}
            }
            places.push((verdict == Verdict::Shown).then_some(kept.len()));
            if verdict == Verdict::Shown {
                kept.push(site);
            }
        }
        profile.sites = kept;
        profile.renumber_sites(&places);
        self.filter_blocks(&mut profile);
        self.remark(&mut profile, filtered, &suppressed);
        if !self.noise.is_empty() {
            hiding::hide_noise(&mut profile, &self.noise);
        }
        profile
    }

    fn keeps_by_numbers(&self, site: &Site) -> bool {
        let mean = site.allocated.bytes.checked_div(site.allocated.count).unwrap_or_default();
        let (smallest, largest) = self.sizes;
        let is_of_age = |(youngest, oldest)| site.oldest.is_some_and(|age| youngest <= age && age <= oldest);
        smallest <= mean && mean <= largest && self.ages.is_none_or(is_of_age)
    }

    fn filter_blocks(&self, profile: &mut Profile) {
        let (smallest, largest) = self.sizes;
        let (youngest, oldest) = self.ages.unwrap_or((Duration::ZERO, Duration::MAX));
        profile
            .blocks
            .retain(|block| (smallest..=largest).contains(&block.size) && (youngest..=oldest).contains(&block.age));
    }

    fn remark(&self, profile: &mut Profile, filtered: Left, suppressed: &[Left]) {
        if filtered.stacks > 0 {
            profile.remarks.push(format!("Filters left out {filtered}."));
        }
        for (suppression, left) in self.suppressions.iter().zip(suppressed).filter(|(_, left)| left.stacks > 0) {
            profile.remarks.push(format!("Suppressed by {suppression}: {left}."));
        }
        if filtered.stacks > 0 || suppressed.iter().any(|left| left.stacks > 0) {
            let text = "The peak and the course of time are those of the whole program, with what was left out.";
            profile.remarks.push(text.into());
        }
    }
}

/// Call stacks that are left out.
#[derive(Clone, Copy, Default, Debug)]
struct Left {
    stacks: u64,
    allocated: Tally,
    live: Tally,
}

impl Left {
    fn add(&mut self, site: &Site) {
        self.stacks += 1;
        self.allocated = self.allocated.plus(site.allocated);
        self.live = self.live.plus(site.live);
    }
}

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stacks = if self.stacks == 1 { "stack" } else { "stacks" };
        let blocks = if self.allocated.count == 1 { "block" } else { "blocks" };
        let Left { stacks: number, allocated, live } = self;
        write!(f, "{number} call {stacks} with {} {blocks} ({} bytes), ", allocated.count, allocated.bytes)?;
        write!(f, "{} of them ({} bytes) never freed", live.count, live.bytes)
    }
}

#[cfg(test)]
mod tests;
