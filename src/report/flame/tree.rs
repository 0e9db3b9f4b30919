//! Call stacks that begin alike as a tree.

use rustc_hash::FxHashMap;

/// A tree of numbers (of functions, of places): each node stands for a beginning of call stacks. Node 0 is the root, all stacks' own
/// beginning; parents stand before their children.
#[derive(Debug)]
pub(in crate::report) struct Tree {
    nodes: Vec<Node>,
    children: FxHashMap<(u32, u32), u32>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    parent: u32,
    item: u32,
    depth: u32,
}

impl Tree {
    /// A root only.
    pub(in crate::report) fn new() -> Tree {
        Tree { nodes: vec![Node { parent: 0, item: u32::MAX, depth: 0 }], children: FxHashMap::default() }
    }

    /// The node that `path` leads to from the root.
    pub(in crate::report) fn insert(&mut self, path: impl IntoIterator<Item = u32>) -> u32 {
        let Tree { nodes, children } = self;
        path.into_iter().fold(0, |parent, item| {
            *children.entry((parent, item)).or_insert_with(|| {
                let depth = nodes[parent as usize].depth + 1;
                nodes.push(Node { parent, item, depth });
                u32::try_from(nodes.len() - 1).expect("fewer than 2^32 nodes fit into memory")
            })
        })
    }

    /// How many nodes there are, the root included.
    pub(in crate::report) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The node below; the root's own is itself.
    pub(in crate::report) fn parent(&self, node: u32) -> u32 {
        self.nodes[node as usize].parent
    }

    /// What the node adds to its parent's path; of no meaning for the root.
    pub(in crate::report) fn item(&self, node: u32) -> u32 {
        self.nodes[node as usize].item
    }

    /// How many nodes are below it.
    pub(in crate::report) fn depth(&self, node: u32) -> u32 {
        self.nodes[node as usize].depth
    }

    /// All nodes but the root, by parent, and those of one parent by `rank` of their items: parents before children.
    pub(in crate::report) fn ordered(&self, rank: impl Fn(u32) -> u32) -> Vec<u32> {
        let mut order: Vec<u32> =
            (1..self.nodes.len()).map(|node| u32::try_from(node).expect("a node's number")).collect();
        order.sort_unstable_by_key(|&node| (self.parent(node), rank(self.item(node))));
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_alike_is_there_once() {
        let mut tree = Tree::new();
        let (one, other) = (tree.insert([7, 8, 9]), tree.insert([7, 8, 3]));
        assert_eq!(tree.insert([7, 8, 9]), one);
        assert_eq!(tree.len(), 5);
        assert_eq!(tree.parent(one), tree.parent(other));
        assert_eq!((tree.item(other), tree.depth(other)), (3, 3));
        assert_eq!(tree.insert([]), 0);
        assert_eq!(tree.ordered(|item| item), [1, 2, other, one]);
    }
}
