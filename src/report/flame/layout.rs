//! Where each function lies in a flame graph.

use super::Tree;
use crate::profile::Change;

/// What is drawn at most.
#[derive(Clone, Copy, Debug)]
pub(in crate::report) struct Limits {
    /// The narrowest box, as a part of the whole.
    pub(in crate::report) narrowest: f64,
    /// How many boxes, the widest first.
    pub(in crate::report) boxes: usize,
}

/// A node of the tree in the picture.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(in crate::report) struct Placed {
    /// The node's number; 0 is the root, which is drawn first.
    pub(in crate::report) node: u32,
    /// How many boxes are below it.
    pub(in crate::report) depth: u32,
    /// Left edge, as a part of the whole's width.
    pub(in crate::report) start: f64,
    /// Width, as a part of the whole.
    pub(in crate::report) width: f64,
    /// Its bytes: those of all stacks that lead through it, whatever their signs.
    pub(in crate::report) weight: u128,
    /// The same with their signs, and the blocks.
    pub(in crate::report) change: Change,
}

/// A flame graph without its drawing.
#[derive(Debug)]
pub(in crate::report) struct Layout {
    /// What is to be drawn, a box before those upon it; at least the root.
    pub(in crate::report) boxes: Vec<Placed>,
    /// Boxes that have a width but are too narrow, or too many.
    pub(in crate::report) culled: usize,
    /// The depth of the highest box that is drawn.
    pub(in crate::report) deepest: u32,
}

impl Layout {
    /// Places the nodes of `tree`: boxes upon the same one by `rank` of their items, from left to right. `costs` are pairs of a leaf and what
    /// its stack costs.
    pub(in crate::report) fn of(
        tree: &Tree,
        costs: impl IntoIterator<Item = (u32, Change)>,
        rank: impl Fn(u32) -> u32,
        limits: Limits,
    ) -> Layout {
        let mut weights = vec![0_u128; tree.len()];
        let mut changes = vec![Change::default(); tree.len()];
        for (leaf, change) in costs {
            weights[leaf as usize] += u128::from(change.bytes.unsigned_abs());
            changes[leaf as usize] = changes[leaf as usize].plus(change);
        }
        for node in (1..tree.len()).rev() {
            let parent = tree.parent(index(node)) as usize;
            weights[parent] += weights[node];
            changes[parent] = changes[parent].plus(changes[node]);
        }
        let total = weights[0];
        let mut starts = vec![0_u128; tree.len()];
        // Where the next box upon each begins.
        let mut next = vec![0_u128; tree.len()];
        let mut boxes = vec![0];
        for node in tree.ordered(rank) {
            let (at, parent) = (node as usize, tree.parent(node) as usize);
            starts[at] = next[parent];
            next[parent] += weights[at];
            next[at] = starts[at];
            if weights[at] > 0 {
                boxes.push(node);
            }
        }
        let wide = boxes.len();
        boxes.retain(|&node| node == 0 || part(weights[node as usize], total) >= limits.narrowest);
        if boxes.len() > limits.boxes {
            // A box is no wider than the one below it, and deeper: whatever is kept has its support.
            boxes.sort_by_key(|&node| (std::cmp::Reverse(weights[node as usize]), tree.depth(node)));
            boxes.truncate(limits.boxes.max(1));
        }
        boxes.sort_by_key(|&node| (tree.depth(node), starts[node as usize]));
        let boxes: Vec<Placed> = boxes
            .into_iter()
            .map(|node| Placed {
                node,
                depth: tree.depth(node),
                start: part(starts[node as usize], total),
                width: if node == 0 { 1.0 } else { part(weights[node as usize], total) },
                weight: weights[node as usize],
                change: changes[node as usize],
            })
            .collect();
        let deepest = boxes.last().map_or(0, |last| last.depth);
        Layout { culled: wide - boxes.len(), boxes, deepest }
    }
}

#[expect(clippy::cast_precision_loss, reason = "for a picture")]
fn part(weight: u128, total: u128) -> f64 {
    if total == 0 { 0.0 } else { weight as f64 / total as f64 }
}

fn index(node: usize) -> u32 {
    u32::try_from(node).expect("a node's number")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Limits = Limits { narrowest: 0.0, boxes: usize::MAX };

    fn bytes(bytes: i64) -> Change {
        Change { count: bytes.signum(), bytes }
    }

    fn places(layout: &Layout) -> Vec<(u32, f64, f64)> {
        layout.boxes.iter().map(|placed| (placed.depth, placed.start, placed.width)).collect()
    }

    #[test]
    fn widths_are_bytes_and_the_root_bears_all() {
        let mut tree = Tree::new();
        let costs = [(tree.insert([1, 3]), bytes(10)), (tree.insert([1, 2]), bytes(20)), (tree.insert([5]), bytes(10))];
        let layout = Layout::of(&tree, costs, |item| item, ALL);
        assert_eq!(places(&layout), [(0, 0.0, 1.0), (1, 0.0, 0.75), (1, 0.75, 0.25), (2, 0.0, 0.5), (2, 0.5, 0.25)]);
        assert_eq!(layout.boxes[1].change, Change { count: 2, bytes: 30 });
        assert_eq!((layout.culled, layout.deepest), (0, 2));
    }

    #[test]
    fn a_stack_that_ends_amid_another_leaves_room_above_it() {
        let mut tree = Tree::new();
        let costs = [(tree.insert([1]), bytes(10)), (tree.insert([1, 2]), bytes(30))];
        assert_eq!(places(&Layout::of(&tree, costs, |item| item, ALL))[1..], [(1, 0.0, 1.0), (2, 0.0, 0.75)]);
    }

    #[test]
    fn growth_takes_room_whatever_its_sign() {
        let mut tree = Tree::new();
        let costs = [(tree.insert([1, 2]), bytes(30)), (tree.insert([1, 3]), bytes(-10))];
        let layout = Layout::of(&tree, costs, |item| item, ALL);
        assert_eq!(places(&layout)[2..], [(2, 0.0, 0.75), (2, 0.75, 0.25)]);
        assert_eq!((layout.boxes[0].weight, layout.boxes[0].change), (40, Change { count: 0, bytes: 20 }));
    }

    #[test]
    fn what_is_too_narrow_or_too_much_is_left_out_and_counted() {
        let mut tree = Tree::new();
        let costs: Vec<(u32, Change)> = (0..100).map(|n| (tree.insert([n, 1000]), bytes(i64::from(n)))).collect();
        let layout =
            |narrowest, boxes| Layout::of(&tree, costs.iter().copied(), |item| item, Limits { narrowest, boxes });
        // The stack of no bytes is no box; of the others, those of 50 bytes and more are left.
        assert_eq!(layout(50.0 / 4950.0, usize::MAX).culled, 2 * 49);
        let few = layout(0.0, 4);
        assert_eq!((few.boxes.len(), few.culled), (4, 1 + 2 * 99 - 4));
        // Each box has the one that it lies upon.
        assert_eq!(few.boxes.iter().map(|placed| placed.depth).collect::<Vec<_>>(), [0, 1, 1, 2]);
    }

    #[test]
    fn nothing_is_a_root_alone() {
        let tree = Tree::new();
        let layout = Layout::of(&tree, [(0, Change { count: 3, bytes: 0 })], |item| item, ALL);
        assert_eq!(places(&layout), [(0, 0.0, 1.0)]);
        assert_eq!(layout.boxes[0].change.count, 3);
    }

    #[test]
    fn a_stack_of_a_thousand_functions_has_its_place() {
        let mut tree = Tree::new();
        let leaf = tree.insert(0..1000);
        let layout = Layout::of(&tree, [(leaf, bytes(i64::MAX)), (leaf, bytes(i64::MAX))], |item| item, ALL);
        assert_eq!((layout.boxes.len(), layout.deepest), (1001, 1000));
        assert_eq!(layout.boxes[1000].width, 1.0);
    }
}
