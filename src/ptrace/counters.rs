//! What observation costs, counted.

use std::fmt;

/// How often the target was stopped and read. The benchmark and `--log info` print it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Breakpoints hit.
    pub stops: u64,
    /// Calls whose stack was taken.
    pub allocations: u64,
    /// Calls that free.
    pub releases: u64,
    /// Stacks read: one an allocation.
    pub stack_reads: u64,
    /// Further reads: a stack deeper than expected, results stored in memory, nested calls.
    pub extra_reads: u64,
    /// Breakpoints written.
    pub breakpoints: u64,
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counters { stops, allocations, releases, stack_reads, extra_reads, breakpoints } = self;
        write!(
            f,
            "{stops} stops for {allocations} allocations and {releases} releases; {stack_reads} stack reads, \
             {extra_reads} further reads; {breakpoints} breakpoints"
        )
    }
}
