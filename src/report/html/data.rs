//! The profile as the page's script takes it: JSON, in columns, each text once.
//!
//! - `functions` {name, module, color}, by name; `modules`, `files`: paths;
//! - `places` {function, file (-1: unknown), line (0: unknown), offset, inlined};
//! - `tree`: nodes of places, the root first, parents before children: `back` is how far back a node's parent is;
//! - `sites` {leaf (a node), ending, guessed, columns, sizes, lifetimes, growth}: histograms are `[first bucket, counts…]`, growth is
//!   `[column, bytes, column, bytes…]` from which column of `growthColumns` on how much was live (the most within it);
//! - `snapshots` {number, label, site, bytes, blocks}; `timeline`; `view`: what is shown first.
//!
//! Numbers that a double cannot hold are written as text.

use std::io::{self, Write};
use std::time::Duration;

use rustc_hash::FxHashMap;
use serde::{Serialize, Serializer};
use serde_json::ser::Formatter;

use super::timeline::Timeline;
use crate::event::Tally;
use crate::histogram::Histogram;
use crate::profile::{Profile, Site, Snapshot, View};
use crate::report::flame::{Names, Palette, Tree};
use crate::report::human;
use crate::report::markup::in_one_line;
use crate::report::wording;

/// Columns of a site's growth.
const GROWTH_COLUMNS: usize = 48;

/// Entries of snapshots (a site that was live at one) in all: some 8 MB. Beyond, snapshots are left out evenly.
const SNAPSHOT_ENTRIES: usize = 400_000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Data {
    functions: Functions,
    modules: Vec<String>,
    files: Vec<String>,
    places: Places,
    tree: Nodes,
    endings: Vec<&'static str>,
    guessed: &'static str,
    sites: Sites,
    growth_columns: usize,
    temporary_known: bool,
    snapshots: Vec<Taken>,
    timeline: Points,
    view: Shown,
}

#[derive(Serialize, Default)]
struct Functions {
    name: Vec<String>,
    module: Vec<usize>,
    color: Vec<String>,
}

#[derive(Serialize, Default)]
struct Places {
    function: Vec<u32>,
    offset: Vec<Exact>,
    file: Vec<i64>,
    line: Vec<u32>,
    inlined: Vec<u8>,
}

#[derive(Serialize)]
struct Nodes {
    back: Vec<u32>,
    place: Vec<u32>,
}

#[derive(Serialize, Default)]
struct Sites {
    leaf: Vec<u32>,
    ending: Vec<i64>,
    guessed: Vec<u8>,
    columns: Columns,
    sizes: Vec<Option<Buckets>>,
    lifetimes: Vec<Option<Buckets>>,
    growth: Vec<Vec<Exact>>,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Columns {
    allocated_blocks: Vec<Exact>,
    allocated_bytes: Vec<Exact>,
    freed_blocks: Vec<Exact>,
    freed_bytes: Vec<Exact>,
    live_blocks: Vec<Exact>,
    live_bytes: Vec<Exact>,
    expired_blocks: Vec<Exact>,
    expired_bytes: Vec<Exact>,
    freed_expired_blocks: Vec<Exact>,
    freed_expired_bytes: Vec<Exact>,
    peak_blocks: Vec<Exact>,
    peak_bytes: Vec<Exact>,
    temporary_blocks: Vec<Option<Exact>>,
    temporary_bytes: Vec<Option<Exact>>,
    shortest_life: Vec<Option<Exact>>,
    mean_life: Vec<Option<Exact>>,
    longest_life: Vec<Option<Exact>>,
    oldest: Vec<Option<Exact>>,
}

#[derive(Serialize)]
struct Taken {
    /// Among all, from 1.
    number: usize,
    label: String,
    site: Vec<usize>,
    bytes: Vec<Exact>,
    blocks: Vec<Exact>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Points {
    at: Vec<Exact>,
    bytes: Vec<Exact>,
    blocks: Vec<Exact>,
    allocated_bytes: Vec<Exact>,
    end: Exact,
    top: Exact,
}

/// A view; 0 is the beginning or the end.
#[derive(Serialize)]
struct Shown {
    kind: &'static str,
    snapshot: usize,
    from: usize,
    to: usize,
}

/// A number, whole.
#[derive(Clone, Copy)]
struct Exact(u64);

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 <= 1 << 53 { serializer.serialize_u64(self.0) } else { serializer.serialize_str(&self.0.to_string()) }
    }
}

/// The first that is not empty, and the counts from there.
struct Buckets(usize, Vec<u64>);

impl Serialize for Buckets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(std::iter::once(Exact(self.0 as u64)).chain(self.1.iter().copied().map(Exact)))
    }
}

impl Data {
    /// With what is left out, in sentences.
    pub(super) fn of(profile: &Profile, view: &View, timeline: &Timeline) -> (Data, Vec<String>) {
        let mut names = Names::default();
        let mut tree = Tree::new();
        let mut path = Vec::new();
        let mut sites = Sites::default();
        let mut endings = Vec::new();
        for site in &profile.sites {
            names.path(&site.stack, &mut path);
            sites.leaf.push(tree.insert(path.iter().copied()));
            sites.ending.push(match wording::ending(site.stack.ending) {
                Some(why) => position(&mut endings, why),
                None => -1,
            });
            sites.guessed.push(u8::from(site.stack.by_frame_pointer));
            sites.columns.push(site);
            sites.sizes.push(site.sizes.as_ref().map(buckets));
            sites.lifetimes.push(site.lifetimes.as_ref().map(buckets));
            sites.growth.push(growth(site, profile.timeline.len()));
        }
        let rank = names.rank();
        let (modules, functions) = functions(&names, &rank, &profile.run.executable);
        let (files, places) = places(&names, &rank);
        let back = |node: u32| node - tree.parent(node);
        let nodes: Vec<u32> = (0..tree.len()).map(|node| u32::try_from(node).expect("a node's number")).collect();
        let kept = kept(&profile.snapshots, view);
        let shown = shown(view, &kept);
        let left_out = (kept.len() < profile.snapshots.len()).then(|| {
            let (all, few) = (profile.snapshots.len(), kept.len());
            format!("{} of {all} snapshots are not in this file, which would become too large; {few} are.", all - few)
        });
        let data = Data {
            functions,
            modules,
            files,
            places,
            tree: Nodes {
                back: nodes.iter().map(|&node| back(node)).collect(),
                // The root has none.
                place: nodes.iter().map(|&node| if node == 0 { 0 } else { tree.item(node) }).collect(),
            },
            endings,
            guessed: wording::BY_FRAME_POINTER,
            sites,
            growth_columns: columns(profile.timeline.len()),
            temporary_known: profile.sites.iter().all(|site| site.temporary.is_some()),
            snapshots: kept.iter().map(|&number| taken(number, &profile.snapshots[number - 1])).collect(),
            timeline: points(timeline),
            view: shown,
        };
        (data, left_out.into_iter().collect())
    }

    /// Writes the JSON so that it can stand in a `script` element.
    ///
    /// # Errors
    /// Those of `output`.
    pub(super) fn write(&self, output: &mut dyn Write) -> io::Result<()> {
        let mut serializer = serde_json::Serializer::with_formatter(output, InScript);
        Ok(self.serialize(&mut serializer)?)
    }
}

impl Columns {
    fn push(&mut self, site: &Site) {
        let put = |blocks: &mut Vec<Exact>, bytes: &mut Vec<Exact>, tally: Tally| {
            blocks.push(Exact(tally.count));
            bytes.push(Exact(tally.bytes));
        };
        put(&mut self.allocated_blocks, &mut self.allocated_bytes, site.allocated);
        put(&mut self.freed_blocks, &mut self.freed_bytes, site.freed);
        put(&mut self.live_blocks, &mut self.live_bytes, site.live);
        put(&mut self.expired_blocks, &mut self.expired_bytes, site.expired);
        put(&mut self.freed_expired_blocks, &mut self.freed_expired_bytes, site.freed_expired);
        put(&mut self.peak_blocks, &mut self.peak_bytes, site.at_peak);
        self.temporary_blocks.push(site.temporary.map(|tally| Exact(tally.count)));
        self.temporary_bytes.push(site.temporary.map(|tally| Exact(tally.bytes)));
        let (shortest, mean, longest) = match site.lives {
            Some((shortest, mean, longest)) => (Some(shortest), Some(mean), Some(longest)),
            None => (None, None, None),
        };
        self.shortest_life.push(shortest.map(nanoseconds));
        self.mean_life.push(mean.map(nanoseconds));
        self.longest_life.push(longest.map(nanoseconds));
        self.oldest.push(site.oldest.map(nanoseconds));
    }
}

fn nanoseconds(time: Duration) -> Exact {
    Exact(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

fn buckets(histogram: &Histogram) -> Buckets {
    let all = histogram.buckets();
    let first = all.iter().position(|&count| count > 0).unwrap_or(all.len());
    Buckets(first, all[first..].to_vec())
}

fn columns(moments: usize) -> usize {
    moments.min(GROWTH_COLUMNS)
}

/// The most that was live within each column, where that changes.
fn growth(site: &Site, moments: usize) -> Vec<Exact> {
    let columns = columns(moments);
    let mut changes = Vec::new();
    let (mut live, mut last) = (0, 0);
    let mut rest = site.growth.iter().filter(|(moment, _)| *moment < moments).peekable();
    for column in 0..columns {
        let mut most = live;
        let mut first = true;
        while let Some((moment, tally)) = rest.next_if(|(moment, _)| moment * columns / moments == column) {
            // What was live before counts unless it changed with the column's first moment.
            let begins = first && (*moment * columns).is_multiple_of(moments);
            most = if begins { tally.bytes } else { most.max(tally.bytes) };
            live = tally.bytes;
            first = false;
        }
        if most != last {
            changes.extend([Exact(column as u64), Exact(most)]);
            last = most;
        }
    }
    changes
}

/// The place of `one` in `all`, where it is put if it is missing.
fn position<T: PartialEq>(all: &mut Vec<T>, one: T) -> i64 {
    let place = all.iter().position(|known| *known == one).unwrap_or_else(|| {
        all.push(one);
        all.len() - 1
    });
    i64::try_from(place).expect("fewer than 2^63")
}

/// Functions in the order of `rank`.
fn functions(names: &Names<'_>, rank: &[u32], executable: &str) -> (Vec<String>, Functions) {
    let palette = Palette::of(executable);
    let mut order: Vec<usize> = (0..rank.len()).collect();
    order.sort_by_key(|&function| rank[function]);
    let mut modules = Vec::new();
    let mut numbers: FxHashMap<&str, usize> = FxHashMap::default();
    let mut functions = Functions::default();
    for function in order.into_iter().map(|function| &names.functions()[function]) {
        let module = *numbers.entry(function.module).or_insert_with(|| {
            modules.push(in_one_line(function.module));
            modules.len() - 1
        });
        functions.name.push(in_one_line(&function.name));
        functions.module.push(module);
        functions.color.push(palette.class(function));
    }
    (modules, functions)
}

fn places(names: &Names<'_>, rank: &[u32]) -> (Vec<String>, Places) {
    let mut files = Vec::new();
    let mut numbers: FxHashMap<&str, i64> = FxHashMap::default();
    let mut places = Places::default();
    for place in names.places() {
        places.function.push(rank[place.function as usize]);
        places.offset.push(Exact(place.offset));
        places.file.push(place.file.map_or(-1, |file| {
            *numbers.entry(file).or_insert_with(|| {
                files.push(in_one_line(file));
                i64::try_from(files.len() - 1).expect("fewer than 2^63")
            })
        }));
        places.line.push(place.line.unwrap_or(0));
        places.inlined.push(u8::from(place.inlined));
    }
    (files, places)
}

/// The numbers of the snapshots for which there is room: every n-th, the last, and those that `view` is of.
fn kept(snapshots: &[Snapshot], view: &View) -> Vec<usize> {
    let wanted = match view {
        View::Snapshot(number) => [Some(*number), None],
        View::Growth { from, to } => [*from, *to],
        _ => [None, None],
    };
    let entries = |numbers: &[usize]| numbers.iter().map(|&number| snapshots[number - 1].live.len()).sum::<usize>();
    let every = |step: usize| -> Vec<usize> {
        let kept = |number: &usize| (snapshots.len() - number).is_multiple_of(step) || wanted.contains(&Some(*number));
        (1..=snapshots.len()).filter(kept).collect()
    };
    let mut step = 1;
    while step < snapshots.len() && entries(&every(step)) > SNAPSHOT_ENTRIES {
        step *= 2;
    }
    every(step)
}

fn taken(number: usize, snapshot: &Snapshot) -> Taken {
    let after = human::time(Duration::from_nanos(snapshot.moment.at.0));
    let (cause, bytes) = (in_one_line(&snapshot.cause), human::bytes(snapshot.moment.live.bytes));
    Taken {
        number,
        label: format!("{number}: {cause} after {after}, {bytes}"),
        site: snapshot.live.iter().map(|&(site, _)| site).collect(),
        bytes: snapshot.live.iter().map(|&(_, live)| Exact(live.bytes)).collect(),
        blocks: snapshot.live.iter().map(|&(_, live)| Exact(live.count)).collect(),
    }
}

fn points(timeline: &Timeline) -> Points {
    let column =
        |of: fn(&crate::profile::Moment) -> u64| timeline.points.iter().map(|moment| Exact(of(moment))).collect();
    Points {
        at: column(|moment| moment.at.0),
        bytes: column(|moment| moment.live.bytes),
        blocks: column(|moment| moment.live.count),
        allocated_bytes: column(|moment| moment.allocated.bytes),
        end: Exact(timeline.end),
        top: Exact(timeline.top),
    }
}

/// `view`, with snapshots by their place in the file, from 1.
fn shown(view: &View, kept: &[usize]) -> Shown {
    let place = |number: usize| kept.iter().position(|&kept| kept == number).map_or(1, |place| place + 1);
    let (kind, snapshot, from, to) = match view {
        View::Leaks => ("leaks", 1, 1, 0),
        View::Expired => ("expired", 1, 1, 0),
        View::Peak => ("peak", 1, 1, 0),
        View::Allocated => ("allocated", 1, 1, 0),
        View::Temporary => ("temporary", 1, 1, 0),
        View::Snapshot(number) => ("snapshot", place(*number), 1, 0),
        View::Growth { from, to } => ("growth", 1, from.map_or(0, place), to.map_or(0, place)),
    };
    Shown { kind, snapshot, from, to }
}

/// JSON in which nothing can end a `script` element or begin a comment there, and that is valid JavaScript, too.
struct InScript;

impl Formatter for InScript {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        for part in fragment.split_inclusive(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let last = part.chars().next_back().unwrap_or(' ');
            let escape = match last {
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => format!("\\u{:04x}", u32::from(last)),
                _ => String::new(),
            };
            let kept = if escape.is_empty() { part } else { &part[..part.len() - last.len_utf8()] };
            writer.write_all(kept.as_bytes())?;
            writer.write_all(escape.as_bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::profile::sample;

    fn data(profile: &Profile) -> (String, Value) {
        let (data, _) = Data::of(profile, &View::Leaks, &Timeline::of(profile));
        let mut text = Vec::new();
        data.write(&mut text).expect("a Vec takes everything");
        let text = String::from_utf8(text).expect("UTF-8");
        let value = serde_json::from_str(&text).expect("JSON");
        (text, value)
    }

    #[test]
    fn names_cannot_end_the_script_element() {
        let mut profile = sample::profile();
        profile.snapshots[0].cause = "</script><!--\u{2028}&".into();
        let (text, value) = data(&profile);
        assert!(!text.contains(['<', '>', '&', '\u{2028}', '\u{1b}']), "{text}");
        assert!(value["snapshots"][0]["label"].as_str().is_some_and(|label| label.contains("</script><!--\u{2028}&")));
        let names: Vec<&str> =
            value["functions"]["name"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        assert!(names.contains(&"evil;\u{fffd}<b>\"&\u{fffd}[31m λ"), "{names:?}");
    }

    #[test]
    fn the_tree_leads_from_each_site_to_its_outermost_function() {
        let (_, value) = data(&sample::profile());
        let at = |list: &Value, index: u64| list[usize::try_from(index).expect("small")].as_u64().expect("a number");
        let mut node = at(&value["sites"]["leaf"], 0);
        let mut stack = Vec::new();
        while node != 0 {
            let place = at(&value["tree"]["place"], node);
            let function = at(&value["places"]["function"], place);
            stack.push(value["functions"]["name"][usize::try_from(function).expect("small")].clone());
            node -= at(&value["tree"]["back"], node);
        }
        assert_eq!(json!(stack), json!(["malloc", "Pool::take(int)", "serve(std::vector<int> const&)", "main"]));
        assert_eq!(value["sites"]["columns"]["liveBytes"], json!([1024, 0, 0]));
        assert_eq!(value["sites"]["columns"]["meanLife"], json!([1_000_000_500_u64, 6_000_000, null]));
        assert_eq!(value["sites"]["sizes"], json!([[8, 10], [11, 3], [0, 1]]));
        assert_eq!(value["sites"]["growth"][1], json!([1, 4000, 2, 0]));
    }

    #[test]
    fn large_numbers_keep_each_digit() {
        let mut profile = sample::profile();
        profile.sites[0].live.bytes = u64::MAX;
        assert_eq!(data(&profile).1["sites"]["columns"]["liveBytes"][0], json!("18446744073709551615"));
    }

    #[test]
    fn growth_tells_the_most_within_each_column() {
        let mut site = sample::profile().sites.remove(0);
        let bytes = |bytes| Tally { count: 1, bytes };
        // 96 moments in 48 columns: two each.
        site.growth = vec![(0, bytes(5)), (3, bytes(9)), (4, bytes(1)), (95, bytes(7))];
        let told: Vec<u64> = growth(&site, 96).into_iter().map(|Exact(number)| number).collect();
        assert_eq!(told, [0, 5, 1, 9, 2, 1, 47, 7]);
    }

    #[test]
    fn snapshots_beyond_the_room_are_left_out_evenly_and_told() {
        let mut profile = sample::profile();
        let mut snapshot = profile.snapshots[0].clone();
        snapshot.live = vec![(0, Tally { count: 1, bytes: 1 }); SNAPSHOT_ENTRIES / 4];
        profile.snapshots = vec![snapshot; 9];
        let (data, left_out) = Data::of(&profile, &View::Snapshot(2), &Timeline::of(&profile));
        let numbers: Vec<usize> = data.snapshots.iter().map(|taken| taken.number).collect();
        // What was asked for is there.
        assert_eq!((numbers, data.view.snapshot), (vec![1, 2, 5, 9], 2));
        assert_eq!(left_out, ["5 of 9 snapshots are not in this file, which would become too large; 4 are."]);
    }
}
