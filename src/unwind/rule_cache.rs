//! Rules by code address: a program allocates from a few thousand places.

use super::rule::Rule;

/// A power of two. An entry is 40 bytes.
const ENTRIES: usize = 1 << 14;

#[derive(Clone, Copy)]
struct Entry {
    /// The frame's pc; 0 is an empty entry.
    pc: u64,
    rule: Rule,
}

/// A direct-mapped cache of the rules of return addresses.
pub(super) struct RuleCache(Box<[Entry]>);

impl RuleCache {
    pub(super) fn new() -> Self {
        RuleCache(vec![Entry { pc: 0, rule: Rule::UnknownCode }; ENTRIES].into())
    }

    /// The rule of a frame's pc.
    #[inline]
    pub(super) fn get(&self, pc: u64) -> Option<Rule> {
        let entry = &self.0[slot(pc)];
        (entry.pc == pc && pc != 0).then_some(entry.rule)
    }

    pub(super) fn insert(&mut self, pc: u64, rule: Rule) {
        self.0[slot(pc)] = Entry { pc, rule };
    }

    pub(super) fn clear(&mut self) {
        self.0.fill(Entry { pc: 0, rule: Rule::UnknownCode });
    }
}

/// Fibonacci hashing: neighbouring return addresses spread.
fn slot(pc: u64) -> usize {
    (pc.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - ENTRIES.trailing_zeros())) as usize
}
