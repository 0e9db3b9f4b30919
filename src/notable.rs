//! The live blocks that are worth a line of their own: a choice, as they may be millions.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::event::{StackId, Timestamp};

/// A live block.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct KnownBlock {
    /// Bytes.
    pub size: u64,
    /// When it was allocated.
    pub allocated: Timestamp,
    /// First byte.
    pub address: u64,
    /// Who asked.
    pub stack: StackId,
}

/// Chooses the largest blocks of those that it is shown, and as many of the oldest.
#[derive(Debug)]
pub struct Notable {
    count: usize,
    /// The smallest is on top.
    largest: BinaryHeap<Reverse<KnownBlock>>,
    /// The youngest is on top.
    oldest: BinaryHeap<(Timestamp, KnownBlock)>,
}

impl Notable {
    /// `count` of each.
    #[must_use]
    pub fn new(count: usize) -> Notable {
        Notable { count, largest: BinaryHeap::new(), oldest: BinaryHeap::new() }
    }

    /// Shows a block.
    pub fn add(&mut self, block: KnownBlock) {
        if self.largest.len() < self.count {
            self.largest.push(Reverse(block));
            self.oldest.push((block.allocated, block));
            return;
        }
        if self.largest.peek().is_some_and(|Reverse(smallest)| block > *smallest) {
            self.largest.pop();
            self.largest.push(Reverse(block));
        }
        if self.oldest.peek().is_some_and(|youngest| (block.allocated, block) < *youngest) {
            self.oldest.pop();
            self.oldest.push((block.allocated, block));
        }
    }

    /// Those chosen, each once, the largest first.
    #[must_use]
    pub fn into_blocks(self) -> Vec<KnownBlock> {
        let largest = self.largest.into_iter().map(|Reverse(block)| block);
        let mut blocks: Vec<_> = largest.chain(self.oldest.into_iter().map(|(_, block)| block)).collect();
        blocks.sort_unstable_by_key(|&block| Reverse(block));
        blocks.dedup();
        blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_and_the_oldest_are_chosen_each_once() {
        let mut notable = Notable::new(2);
        for (size, allocated) in [(10, 5), (300, 6), (20, 1), (200, 2), (30, 9)] {
            notable.add(KnownBlock { size, allocated: Timestamp(allocated), address: size * 16, stack: StackId(0) });
        }
        let sizes: Vec<u64> = notable.into_blocks().iter().map(|block| block.size).collect();
        assert_eq!(sizes, [300, 200, 20]);
    }

    #[test]
    fn none_are_chosen_of_none() {
        assert!(Notable::new(3).into_blocks().is_empty());
        let mut none = Notable::new(0);
        none.add(KnownBlock { size: 1, allocated: Timestamp(1), address: 1, stack: StackId(0) });
        assert!(none.into_blocks().is_empty());
    }
}
