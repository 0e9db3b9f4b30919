//! A run, written down while it goes on: a file that tells the whole of it, or as much as had happened when memleax or its
//! target broke off.
//!
//! `docs/recording.md` describes the bytes. In short: a header, then chunks of one record each, only ever
//! appended. A chunk has a magic number, its length and a checksum, so that a reader finds what is whole in a damaged file.
//! Numbers are absolute, never differences: a lost chunk makes the reader miss a moment, not everything after it.
//!
//! By default, a second is one record: the counters of each call stack that changed in it. When the file has grown to its limit, it is
//! written anew with fewer moments ([`Writer`]). With `--full`, the records hold each event instead; the reader replays
//! them, so what it tells equals what a live run tells.

mod chunk;
mod file;
mod full;
mod ledger;
mod names;
mod profile;
mod reader;
mod record;
mod sample;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::PathBuf;

pub use file::read;
pub use full::EventLog;
pub use ledger::Ledger;
pub use reader::{Replayed, replay};
pub use record::Begin;
pub use sample::{Look, Sample};
pub use writer::{LIMIT, Storage, Writer};

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the recording {}: {cause}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It is something else.
    #[error("cannot read the recording {}: it is no recording of memleax; `memleax record -o FILE` makes one", .path.display())]
    NoRecording {
        /// The file.
        path: PathBuf,
    },
    /// It is of a later version.
    #[error("cannot read the recording {}: its format is version {found}, this memleax knows version {}; use the memleax that made it, or a newer one", .path.display(), chunk::VERSION)]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u16,
    },
    /// Nothing in it is whole.
    #[error("cannot read the recording {}: its first record is lost, which tells what was watched", .path.display())]
    NoBeginning {
        /// The file.
        path: PathBuf,
    },
}
