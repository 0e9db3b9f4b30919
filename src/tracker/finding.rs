//! What the tracker found: the live lines of the report.

use std::fmt;
use std::time::Duration;

use crate::event::StackId;

/// The number by which the report names a call stack: given from 1 in the order of first expiry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallStackNumber(pub u32);

impl fmt::Display for CallStackNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Something worth a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finding {
    /// The first block of a call stack expired, which gave the call stack its number.
    Expired {
        /// Its number from now on.
        callstack: CallStackNumber,
        /// The call stack.
        stack: StackId,
        /// The block's size.
        bytes: u64,
    },
    /// A further block of a call stack expired.
    ExpiredAgain {
        /// Which call stack.
        callstack: CallStackNumber,
        /// The block's size.
        bytes: u64,
        /// How many have expired, this one included.
        count: u64,
    },
    /// A block that had expired was freed after all.
    ExpiredFreed {
        /// Which call stack.
        callstack: CallStackNumber,
        /// How long it lived.
        after: Duration,
    },
    /// So many expired blocks of this call stack were freed that it will not be mentioned any more.
    Muted {
        /// Which call stack.
        callstack: CallStackNumber,
    },
}

/// A limit that ends monitoring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// `-m`: this many blocks of one call stack expired.
    ExpiredBlocks {
        /// Which call stack.
        callstack: CallStackNumber,
        /// As many as the user set.
        count: u64,
        /// How many of them were freed since.
        freed: u64,
    },
    /// `-c`: this many call stacks have leaked.
    CallStacks {
        /// As many as the user set.
        count: u64,
    },
    /// `--stop-after`: this many blocks have expired and were not freed.
    LeakedBlocks {
        /// At least as many as the user set.
        count: u64,
    },
}
