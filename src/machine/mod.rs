//! What is known of each process where all of a machine are watched, and which of them are of interest: pure.

mod interval;
#[cfg(test)]
pub(crate) mod sample;
mod wanted;

use std::time::Duration;

use memleax_platform::{ExitStatus, Pid};

use crate::event::Tally;

pub use interval::{Interval, Losses, Remarks};
pub use wanted::{NamePattern, Wanted};

/// A process: what its program has allocated so far, or until its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Process {
    /// Never the same for two processes or programs.
    pub serial: u64,
    /// As the machine's first pid namespace counts.
    pub pid: Pid,
    /// Who started it; 0 if that was before memleax watched.
    pub parent: Pid,
    /// Real user id.
    pub uid: u32,
    /// `/proc/PID/comm`.
    pub name: String,
    /// By the monotonic clock.
    pub began: Duration,
    /// When and how it ended; `None` if it runs.
    pub ended: Option<(Duration, ExitStatus)>,
    /// Its cgroup's id, which is its folder's inode number.
    pub cgroup: u64,
    /// It was in one of the cgroups asked for.
    pub in_cgroup: bool,
    /// How much of it was seen.
    pub seen: Seen,
    /// All blocks. One that `realloc` resizes counts as freed and allocated.
    pub allocated: Tally,
    /// All whose free was seen.
    pub freed: Tally,
    /// Those not freed.
    pub live: Tally,
    /// The most bytes that were live.
    pub peak_bytes: u64,
    /// Freed without that being seen: their address was handed out again.
    pub unseen_frees: Tally,
    /// Frees of blocks that are not known: older than the watching, or inherited by fork.
    pub unknown_frees: u64,
    /// Allocated, but not kept for want of room: not in `live`.
    pub not_kept: Tally,
    /// Calls that could not be followed.
    pub not_followed: u64,
    /// Calls that were not seen to return.
    pub never_returned: u64,
    /// What it was before, by exec.
    pub before_exec: BeforeExec,
}

/// How much of a process was seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// All since its program began.
    All,
    /// Its program began before memleax was ready.
    SinceReady,
    /// It mapped a file that no process had mapped before: if that has an allocator, its calls were not seen until the probes were set.
    NotAtOnce,
}

/// The programs that a process was before it became the one it is (exec).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct BeforeExec {
    /// How often it became another.
    pub execs: u64,
    /// What they allocated.
    pub allocated: Tally,
    /// What they had when they were replaced: gone with them.
    pub left: Tally,
}

/// What to watch, and how to tell of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// How often to report.
    pub interval: Duration,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// Tell of those that run, too.
    pub running: bool,
    /// JSON lines in place of tables.
    pub json_lines: bool,
    /// Which processes are told of.
    pub wanted: Wanted,
}
