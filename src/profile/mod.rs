//! What a run found, whole and named: the input of every view and of every format.
//!
//! Nothing here knows how the target was observed or where the numbers were kept: a run that has just ended and a recording
//! that is read years later give the same [`Profile`].

mod call;
mod compare;
mod identity;
mod join;
mod objects;
#[cfg(test)]
pub(crate) mod sample;
mod topic;
mod view;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use crate::event::{Loss, Tally, Timestamp};
use crate::histogram::Histogram;
use crate::symbol::NamedStack;

pub use call::Call;
pub use compare::{Comparison, compare};
pub use identity::SiteId;
pub use topic::{SiteOrder, Topic};
pub use view::{Change, Cost, View, ViewError, Weighed};

/// All that is known of one run.
#[derive(Clone, PartialEq, Debug)]
pub struct Profile {
    /// What was watched, when and how.
    pub run: Run,
    /// The modules that stacks name, the executable first if it is known.
    pub modules: Vec<Module>,
    /// Every call stack that allocated. In no particular order.
    pub sites: Vec<Site>,
    /// All sites together over time, in order; from the first moment to the last.
    pub timeline: Vec<Moment>,
    /// Functions whose calls were counted, in the order in which they were asked for.
    pub references: Vec<Reference>,
    /// The high-water mark of live bytes; `None` if nothing was ever live.
    pub peak: Option<Moment>,
    /// Those that were asked for, in order.
    pub snapshots: Vec<Snapshot>,
    /// The largest and the oldest live blocks at the end, largest first; a choice, not all. Empty where they are not known.
    pub blocks: Vec<LiveBlock>,
    /// Frees of addresses where no block was known.
    pub unknown_frees: u64,
    /// Blocks that `realloc` left where they were, which are no allocations of their own, and the bytes that they had before.
    pub resized: Tally,
    /// What the source could not see: how often each.
    pub losses: BTreeMap<Loss, u64>,
    /// What a reader has to know besides: damage of the recording, what filters left out, what could not be seen. Sentences.
    pub remarks: Vec<String>,
    /// The type of objects that all this is of; `None`: of memory.
    pub of: Option<String>,
    /// The same of objects of each type that was followed, in the order in which they were asked for. Run, modules and references are those of the whole.
    pub objects: Vec<Profile>,
}

/// What was watched, when and how.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Run {
    /// The process.
    pub pid: u32,
    /// Its command line, as far as known.
    pub command: Vec<String>,
    /// Its executable's path.
    pub executable: String,
    /// The backend's name, and why it was chosen.
    pub backend: String,
    /// memleax's version.
    pub version: String,
    /// When monitoring began: nanoseconds since 1970 (UTC).
    pub started: u64,
    /// How long it lasted.
    pub monitored: Duration,
    /// Blocks that lived longer count as expired.
    pub expire: Duration,
    /// memleax started the program, so each of its blocks is known; else blocks from before are not.
    pub launched: bool,
    /// The peak and the temporary blocks are of each single event; else of looks at the target, a second apart or more.
    pub by_event: bool,
    /// How the run ended, as a sentence; `None` if the recording breaks off.
    pub ending: Option<String>,
}

/// A module that stacks name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Module {
    /// As the target sees it.
    pub path: String,
    /// `NT_GNU_BUILD_ID`; empty if it has none.
    pub build_id: Vec<u8>,
    /// Run-time addresses of all its segments.
    pub range: Range<u64>,
    /// `run-time address - bias` (wrapping) is the address that the file counts by.
    pub bias: u64,
    /// Offset in the file of what lies at the start of `range`.
    pub file_offset: u64,
}

/// A call stack that allocated, and what became of its blocks.
#[derive(Clone, PartialEq, Debug)]
pub struct Site {
    /// Innermost frame first; the first is the allocator's own.
    pub stack: NamedStack,
    /// All blocks.
    pub allocated: Tally,
    /// Those that are gone, by whatever way.
    pub freed: Tally,
    /// Those that are live at the end: never freed.
    pub live: Tally,
    /// Those that lived longer than [`Run::expire`].
    pub expired: Tally,
    /// Of the expired, those that are gone.
    pub freed_expired: Tally,
    /// What was live at [`Profile::peak`].
    pub at_peak: Tally,
    /// Blocks that were freed as the next thing after they were allocated; `None` where this is not known.
    pub temporary: Option<Tally>,
    /// Sizes in bytes of all blocks; `None` where they are not known.
    pub sizes: Option<Histogram>,
    /// Life times in nanoseconds of the freed blocks; `None` where they are not known.
    pub lifetimes: Option<Histogram>,
    /// The shortest, mean and longest life of the freed blocks.
    pub lives: Option<(Duration, Duration, Duration)>,
    /// Ages in seconds of the live blocks at the end; `None` where they are not known.
    pub ages: Option<Histogram>,
    /// The age of the oldest live block at the end.
    pub oldest: Option<Duration>,
    /// What was live: from `timeline[index]` on, until the next entry's index. Ascending.
    pub growth: Vec<(usize, Tally)>,
}

/// A function whose calls were counted: the work that growth is measured by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reference {
    /// Its symbol.
    pub name: String,
    /// How often it had been called, from the beginning of monitoring to each moment of [`Profile::timeline`].
    pub counts: Vec<u64>,
}

/// The whole program at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Moment {
    /// When.
    pub at: Timestamp,
    /// All blocks until then.
    pub allocated: Tally,
    /// What was live then.
    pub live: Tally,
}

/// What was live when it was asked for.
#[derive(Clone, PartialEq, Debug)]
pub struct Snapshot {
    /// Why it was taken: `signal`, `interval`, or the symbol that was called.
    pub cause: String,
    /// When, and the totals.
    pub moment: Moment,
    /// By index into [`Profile::sites`]; what is missing had nothing live. Ascending.
    pub live: Vec<(usize, Tally)>,
}

/// A block that was live at the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LiveBlock {
    /// First byte.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// How long it has lived.
    pub age: Duration,
    /// Index into [`Profile::sites`].
    pub site: usize,
}
