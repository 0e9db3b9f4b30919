//! What the text calls blocks of memory, and objects.

use std::fmt::{self, Display};

use super::super::style::CALL_STACK;
use super::super::wording::{self, plural};
use crate::tracker::{CallStackNumber, Tally};

/// What the blocks are that are told of.
#[derive(Clone, Copy)]
pub(super) enum Kind<'a> {
    Memory,
    /// Objects of this type.
    Objects(&'a str),
}

impl Display for Kind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Memory => "memory",
            Kind::Objects(of) => of,
        })
    }
}

impl Kind<'_> {
    /// `CallStack[3]`; of objects, which have numbers of their own, `CallStack[conn 3]`.
    pub(super) fn label(self, number: CallStackNumber) -> String {
        match self {
            Kind::Memory => format!("{CALL_STACK}CallStack[{number}]{CALL_STACK:#}"),
            Kind::Objects(of) => format!("{CALL_STACK}CallStack[{of} {number}]{CALL_STACK:#}"),
        }
    }

    /// ` with 8 bytes`. Of objects the size may be unknown.
    pub(super) fn with(self, bytes: u64) -> String {
        match (self, bytes) {
            (Kind::Objects(_), 0) => String::new(),
            _ => format!(" with {bytes} bytes"),
        }
    }

    /// `2 (16 bytes)`.
    pub(super) fn tally(self, Tally { count, bytes }: Tally) -> String {
        match (self, bytes) {
            (Kind::Objects(_), 0) => count.to_string(),
            _ => format!("{count} ({bytes} bytes)"),
        }
    }

    /// `2 memory blocks (16 bytes)`.
    pub(super) fn blocks(self, Tally { count, bytes }: Tally) -> String {
        match (self, bytes) {
            (Kind::Objects(of), 0) => format!("{count} {of} object{}", plural(count)),
            (Kind::Objects(of), _) => format!("{count} {of} object{} ({bytes} bytes)", plural(count)),
            (Kind::Memory, _) => format!("{count} memory block{} ({bytes} bytes)", plural(count)),
        }
    }

    /// So many were never freed, as a sentence.
    pub(super) fn never_freed(self, tally: Tally) -> String {
        match (tally.count, self) {
            (0, Kind::Memory) => "Every memory block was freed.".into(),
            (0, Kind::Objects(of)) => format!("Every {of} object that was seen was freed."),
            (1, _) => format!("{} was never freed.", self.blocks(tally)),
            _ => format!("{} were never freed.", self.blocks(tally)),
        }
    }

    /// That so many frees could not be attributed, as a sentence.
    pub(super) fn unknown_frees(self, count: u64) -> String {
        match self {
            Kind::Memory => wording::unknown_frees(count),
            Kind::Objects(_) => wording::unknown_objects(count),
        }
    }
}
