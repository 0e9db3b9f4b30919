//! Call trees as memtrail prints them: who allocated, and who called whom.
//!
//! ```text
//! never freed: 8,960B
//!   -> 68.57% (6,144B, 3x): malloc
//!   | -> 57.14% (5,120B, 2x): read_all [io.c:80]
//!   | | -> 57.14% (5,120B, 2x): main [main.c:12]
//!   | |
//!   | -> 11.43% (1,024B, 1x): main [main.c:14]
//!   |
//!   -> 31.43% (2,816B, 4x): calloc
//!     -> 31.43% (2,816B, 4x): main [main.c:20]
//! ```
//!
//! Shares are of the total; where some costs are negative (growth), of all
//! costs without their signs. (The spacer lines end in a
//! blank, as memtrail's do.)

use std::cmp::Reverse;
use std::io::{self, Write};

use rustc_hash::FxHashMap;

use super::format::{Detail, WriteError};
use super::human::{grouped, grouped_signed};
use super::style::{FAINT, FUNCTION, HEADING, Printable};
use super::wording;
use crate::profile::{Call, Change, Profile, View, Weighed};

/// What a tree is to look like.
#[derive(Clone, Copy, PartialEq, Debug)]
struct TreeOptions {
    /// What costs less than this share of the total, in percent, is told in one line.
    threshold: f64,
    /// From `main` to the allocators, not from the allocators to `main`.
    top_down: bool,
}

impl Default for TreeOptions {
    /// As memtrail has it.
    fn default() -> Self {
        TreeOptions { threshold: 1.0, top_down: false }
    }
}

/// The tree of one view, with the usual options.
///
/// # Errors
/// If the profile does not have what `view` asks for, or `output` fails.
pub(super) fn write(profile: &Profile, view: &View, output: &mut dyn Write) -> Result<Vec<String>, WriteError> {
    write_detail(profile, view, &Detail::default(), output)
}

/// The same as it is asked for.
///
/// # Errors
/// As [`write()`].
pub(super) fn write_detail(
    profile: &Profile,
    view: &View,
    detail: &Detail,
    output: &mut dyn Write,
) -> Result<Vec<String>, WriteError> {
    let usual = TreeOptions::default();
    let options = TreeOptions { threshold: detail.threshold.unwrap_or(usual.threshold), top_down: detail.top_down };
    write_tree(&profile.weigh(view)?, options, output)?;
    Ok(wording::shortcomings(profile))
}

/// Writes the tree of a profile as a view sees it.
///
/// # Errors
/// Those of `output`.
fn write_tree(weighed: &Weighed<'_>, options: TreeOptions, output: &mut dyn Write) -> io::Result<()> {
    let tree = Tree::new(weighed, options.top_down);
    let printer = Printer { tree: &tree, whole: tree.nodes[0].weight, threshold: options.threshold };
    let (label, total) = (Printable(&weighed.label), grouped_signed(weighed.total().bytes));
    writeln!(output, "{HEADING}{label}: {total}B{HEADING:#}")?;
    printer.write(output)
}

/// A node's place in [`Tree::nodes`].
type Id = usize;

struct Node {
    label: String,
    cost: Change,
    /// Bytes of all that changed below, without signs: growth and shrinkage do not hide each other.
    weight: u64,
    children: Vec<Id>,
}

impl Node {
    fn new(label: String) -> Node {
        Node { label, cost: Change::default(), weight: 0, children: Vec::new() }
    }

    fn add(&mut self, cost: Change) {
        self.cost = self.cost.plus(cost);
        self.weight = self.weight.saturating_add(cost.bytes.unsigned_abs());
    }
}

struct Tree {
    /// The root first.
    nodes: Vec<Node>,
}

impl Tree {
    fn new(weighed: &Weighed<'_>, top_down: bool) -> Tree {
        let mut tree = Tree { nodes: vec![Node::new(String::new())] };
        let mut known: FxHashMap<(Id, String), Id> = FxHashMap::default();
        let mut calls: Vec<Call<'_>> = Vec::new();
        for cost in &weighed.costs {
            calls.clear();
            calls.extend(cost.site.stack.calls());
            if top_down {
                calls.reverse();
            }
            let mut at = 0;
            tree.nodes[at].add(cost.change);
            for call in &calls {
                // Functions of the same name in different modules are different ones.
                let key = (at, format!("{}\0{call}", call.frame.module));
                let next = *known.entry(key).or_insert_with(|| {
                    let id = tree.nodes.len();
                    tree.nodes.push(Node::new(call.to_string()));
                    tree.nodes[at].children.push(id);
                    id
                });
                tree.nodes[next].add(cost.change);
                at = next;
            }
        }
        tree.sort();
        tree
    }

    /// The dearest first; of those that cost the same, the one met first.
    fn sort(&mut self) {
        for id in 0..self.nodes.len() {
            let mut children = std::mem::take(&mut self.nodes[id].children);
            children.sort_by_key(|&child| {
                let Node { weight, cost, .. } = self.nodes[child];
                Reverse((weight, cost.bytes, cost.count, Reverse(child)))
            });
            self.nodes[id].children = children;
        }
    }
}

struct Printer<'a> {
    tree: &'a Tree,
    /// Bytes that 100 % are.
    whole: u64,
    threshold: f64,
}

/// What is still to be printed: the stack of a walk, so that no depth of calls can exhaust memleax's own.
enum Task {
    Siblings { of: Id, from: usize, indent: usize },
    Spacer { indent: usize },
}

impl Printer<'_> {
    fn write(&self, output: &mut dyn Write) -> io::Result<()> {
        // For each level whether a line leads down to a sibling.
        let mut open: Vec<bool> = vec![false];
        let mut tasks = vec![Task::Siblings { of: 0, from: 0, indent: 1 }];
        while let Some(task) = tasks.pop() {
            match task {
                Task::Spacer { indent } => writeln!(output, "{FAINT}{}| {FAINT:#}", Indent(&open[..indent]))?,
                Task::Siblings { of, from, indent } => {
                    let children = &self.tree.nodes[of].children;
                    let Some(&child) = children.get(from) else { continue };
                    open.truncate(indent);
                    if self.is_below(self.tree.nodes[child].weight) {
                        self.write_pruned(&children[from..], &open, output)?;
                        continue;
                    }
                    self.write_node(&self.tree.nodes[child], &open, output)?;
                    let is_last = from + 1 == children.len();
                    if !is_last {
                        tasks.push(Task::Siblings { of, from: from + 1, indent });
                        tasks.push(Task::Spacer { indent });
                    }
                    open.push(!is_last);
                    tasks.push(Task::Siblings { of: child, from: 0, indent: indent + 1 });
                }
            }
        }
        Ok(())
    }

    fn write_node(&self, node: &Node, open: &[bool], output: &mut dyn Write) -> io::Result<()> {
        let label = Printable(&node.label);
        let (indent, cost) = (Indent(open), self.cost(node.cost));
        writeln!(output, "{FAINT}{indent}{FAINT:#}-> {cost}: {FUNCTION}{label}{FUNCTION:#}")
    }

    fn write_pruned(&self, pruned: &[Id], open: &[bool], output: &mut dyn Write) -> io::Result<()> {
        let cost = pruned.iter().fold(Change::default(), |sum, &id| sum.plus(self.tree.nodes[id].cost));
        let (indent, cost, count) = (Indent(open), self.cost(cost), grouped(pruned.len() as u64));
        let threshold = self.threshold;
        let below = format!("all below the {threshold:.2}% threshold");
        writeln!(output, "{FAINT}{indent}{FAINT:#}-> {cost} in {count} places, {below}")
    }

    /// `45.71% (4,096B, 2x)`.
    fn cost(&self, cost: Change) -> String {
        let (bytes, count) = (grouped_signed(cost.bytes), grouped_signed(cost.count));
        let sign = if cost.bytes < 0 { "-" } else { "" };
        format!("{sign}{:.2}% ({bytes}B, {count}x)", self.percent(cost.bytes.unsigned_abs()))
    }

    #[expect(clippy::cast_precision_loss, reason = "for a human, with two decimals")]
    fn percent(&self, bytes: u64) -> f64 {
        if self.whole == 0 { 0.0 } else { 100.0 * bytes as f64 / self.whole as f64 }
    }

    fn is_below(&self, weight: u64) -> bool {
        self.whole > 0 && self.percent(weight) < self.threshold
    }
}

/// Two columns a level.
struct Indent<'a>(&'a [bool]);

impl std::fmt::Display for Indent<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|&open| f.write_str(if open { "| " } else { "  " }))
    }
}

#[cfg(test)]
mod tests {
    use anstream::StripStream;
    use insta::assert_snapshot;

    use super::*;
    use crate::profile::sample;

    fn tree(view: &View, options: TreeOptions) -> String {
        let profile = sample::profile();
        let weighed = profile.weigh(view).expect("a view that can be had");
        let mut output = StripStream::new(Vec::new());
        write_tree(&weighed, options, &mut output).expect("a Vec takes everything");
        // Spacers end in a blank, which a snapshot does not show.
        String::from_utf8(output.into_inner()).expect("UTF-8").replace("| \n", "|·\n")
    }

    fn all() -> TreeOptions {
        TreeOptions { threshold: 0.0, ..TreeOptions::default() }
    }

    #[test]
    fn allocators_are_outermost_and_the_dearest_caller_is_first() {
        assert_snapshot!(tree(&View::Peak, all()), @r#"
        live at the peak (5.00 s): 4,768B
          -> 100.00% (4,768B, 9x): malloc
            -> 83.89% (4,000B, 2x): evil;�<b>"&�[31m λ [/src/server.cpp:7]
            | -> 83.89% (4,000B, 2x): /srv/plug in.so+0x4242
            |   -> 83.89% (4,000B, 2x): main [/src/server.cpp:80]
            |·
            -> 16.11% (768B, 6x): Pool::take(int) [/src/server.cpp:12]
            | -> 16.11% (768B, 6x): serve(std::vector<int> const&) [/src/server.cpp:44]
            |   -> 16.11% (768B, 6x): main [/src/server.cpp:80]
            |·
            -> 0.00% (0B, 1x): 0x7fff12345678
        "#);
    }

    #[test]
    fn what_is_below_the_threshold_is_counted_in_one_line() {
        assert_snapshot!(tree(&View::Peak, TreeOptions { threshold: 20.0, ..all() }), @r#"
        live at the peak (5.00 s): 4,768B
          -> 100.00% (4,768B, 9x): malloc
            -> 83.89% (4,000B, 2x): evil;�<b>"&�[31m λ [/src/server.cpp:7]
            | -> 83.89% (4,000B, 2x): /srv/plug in.so+0x4242
            |   -> 83.89% (4,000B, 2x): main [/src/server.cpp:80]
            |·
            -> 16.11% (768B, 7x) in 2 places, all below the 20.00% threshold
        "#);
        assert_snapshot!(tree(&View::Leaks, TreeOptions::default()), @r"
        never freed: 1,024B
          -> 100.00% (1,024B, 9x): malloc
            -> 100.00% (1,024B, 8x): Pool::take(int) [/src/server.cpp:12]
            | -> 100.00% (1,024B, 8x): serve(std::vector<int> const&) [/src/server.cpp:44]
            |   -> 100.00% (1,024B, 8x): main [/src/server.cpp:80]
            |·
            -> 0.00% (0B, 1x) in 1 places, all below the 1.00% threshold
        ");
    }

    #[test]
    fn top_down_begins_where_the_program_does() {
        assert_snapshot!(tree(&View::Peak, TreeOptions { top_down: true, ..all() }), @r#"
        live at the peak (5.00 s): 4,768B
          -> 100.00% (4,768B, 8x): main [/src/server.cpp:80]
          | -> 83.89% (4,000B, 2x): /srv/plug in.so+0x4242
          | | -> 83.89% (4,000B, 2x): evil;�<b>"&�[31m λ [/src/server.cpp:7]
          | |   -> 83.89% (4,000B, 2x): malloc
          | |·
          | -> 16.11% (768B, 6x): serve(std::vector<int> const&) [/src/server.cpp:44]
          |   -> 16.11% (768B, 6x): Pool::take(int) [/src/server.cpp:12]
          |     -> 16.11% (768B, 6x): malloc
          |·
          -> 0.00% (0B, 1x): 0x7fff12345678
            -> 0.00% (0B, 1x): malloc
        "#);
    }

    #[test]
    fn growth_may_be_negative_and_shares_are_of_all_that_changed() {
        assert_snapshot!(tree(&View::Growth { from: Some(1), to: None }, all()), @r#"
        growth from snapshot 1 (signal, 5.00 s) to the end: -3,744B
          -> -87.97% (-3,744B, 0x): malloc
            -> -93.98% (-4,000B, -2x): evil;�<b>"&�[31m λ [/src/server.cpp:7]
            | -> -93.98% (-4,000B, -2x): /srv/plug in.so+0x4242
            |   -> -93.98% (-4,000B, -2x): main [/src/server.cpp:80]
            |·
            -> 6.02% (256B, 2x): Pool::take(int) [/src/server.cpp:12]
              -> 6.02% (256B, 2x): serve(std::vector<int> const&) [/src/server.cpp:44]
                -> 6.02% (256B, 2x): main [/src/server.cpp:80]
        "#);
    }

    #[test]
    fn growth_and_shrinkage_below_one_caller_do_not_hide_each_other() {
        let mut profile = sample::profile();
        profile.sites[0].live.bytes = 768 + 4_000;
        let weighed = profile.weigh(&View::Growth { from: Some(1), to: None }).expect("one snapshot");
        assert_eq!(weighed.total().bytes, 0);
        let mut output = Vec::new();
        write_tree(&weighed, TreeOptions::default(), &mut output).expect("a Vec takes everything");
        let text = String::from_utf8_lossy(&output);
        assert!(text.contains("Pool::take") && text.contains("plug in.so"), "{text}");
    }

    #[test]
    fn blocks_without_bytes_are_shown_where_there_are_no_others() {
        let mut profile = sample::profile();
        profile.sites.drain(..2);
        let mut output = StripStream::new(Vec::new());
        let weighed = profile.weigh(&View::Leaks).expect("leaks");
        write_tree(&weighed, TreeOptions::default(), &mut output).expect("a Vec takes everything");
        let text = String::from_utf8(output.into_inner()).expect("UTF-8");
        assert_eq!(text, "never freed: 0B\n  -> 0.00% (0B, 1x): malloc\n    -> 0.00% (0B, 1x): 0x7fff12345678\n");
    }
}
