//! A flame graph as one SVG file: a picture everywhere; in a browser, a click zooms, Ctrl-F (or the button) searches, Escape goes back.
//!
//! The root is at the bottom, widths are bytes (of growth: whatever their sign, see [`flame`](super::flame)). Functions that are narrower than a
//! tenth of a pixel are left out and counted, as are all beyond 20,000: browsers get slow. Call stacks of no bytes have
//! no width, so they are told in words.

use std::fmt::{self, Display};
use std::io::{self, Write};

use super::flame::{Layout, Limits, Names, Palette, Placed, Tree, growth_class, style};
use super::format::WriteError;
use super::human;
use super::markup::{Escaped, in_one_line};
use super::wording::{self, plural};
use crate::profile::{Change, Profile, View, Weighed};

const WIDTH: f64 = 1200.0;
const MARGIN: f64 = 10.0;
const ROW: u32 = 17;
const LINE: u32 = 17;
/// Of a monospaced font of 12 pixels.
const CHARACTER: f64 = 7.23;
const LIMITS: Limits = Limits { narrowest: 0.1 / (WIDTH - 2.0 * MARGIN), boxes: 20_000 };

/// Writes the flame graph of a view. Nothing is withheld from its reader.
///
/// # Errors
/// If `view` cannot be had, or `output` fails.
pub(super) fn write(profile: &Profile, view: &View, output: &mut dyn Write) -> Result<Vec<String>, WriteError> {
    let weighed = profile.weigh(view)?;
    let differs = matches!(view, View::Growth { .. });
    let graph = Graph::of(&weighed, differs);
    graph.write_file(&weighed, output)?;
    Ok(Vec::new())
}

/// What is drawn.
pub(super) struct Graph<'a> {
    names: Names<'a>,
    tree: Tree,
    layout: Layout,
    palette: Palette<'a>,
    differs: bool,
}

impl<'a> Graph<'a> {
    /// The flame graph of a view; `differs` if it is of growth.
    pub(super) fn of(weighed: &Weighed<'a>, differs: bool) -> Graph<'a> {
        let mut names = Names::default();
        let mut tree = Tree::new();
        let mut path = Vec::new();
        let mut costs = Vec::with_capacity(weighed.costs.len());
        for cost in &weighed.costs {
            names.path(&cost.site.stack, &mut path);
            let places = names.places();
            costs.push((tree.insert(path.iter().map(|&place| places[place as usize].function)), cost.change));
        }
        let rank = names.rank();
        let layout = Layout::of(&tree, costs, |function| rank[function as usize], LIMITS);
        Graph { names, tree, layout, palette: Palette::of(&weighed.profile.run.executable), differs }
    }

    fn write_file(&self, weighed: &Weighed<'_>, output: &mut dyn Write) -> io::Result<()> {
        let warnings: Vec<String> =
            wording::shortcomings(weighed.profile).iter().flat_map(|text| wrapped(text, 158)).collect();
        let facts = self.facts(weighed);
        let lines = u32::try_from(facts.len() + warnings.len()).unwrap_or(u32::MAX / (2 * LINE));
        let controls = 34 + lines * LINE;
        let top = controls + 26;
        let graph = self.height();
        let height = top + graph + 28;
        writeln!(
            output,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\">"
        )?;
        writeln!(output, "<style><![CDATA[\n{}{}]]></style>", include_str!("flamegraph/flamegraph.css"), style())?;
        writeln!(output, "<rect class=\"paper\" width=\"{WIDTH}\" height=\"{height}\"/>")?;
        writeln!(output, "<text class=\"head\" x=\"{MARGIN}\" y=\"24\">{}</text>", Escaped(heading(weighed)))?;
        let classed = facts.iter().map(|text| ("fact", text)).chain(warnings.iter().map(|text| ("warning", text)));
        for ((class, text), y) in classed.zip((43..).step_by(LINE as usize)) {
            writeln!(output, "<text class=\"{class}\" x=\"{MARGIN}\" y=\"{y}\">{}</text>", Escaped(text))?;
        }
        for (id, text) in [("reset", "Reset zoom"), ("search", "Search")] {
            writeln!(
                output,
                "<g id=\"{id}\" class=\"button hidden\" data-y=\"{controls}\"><rect y=\"{controls}\" width=\"80\" height=\"20\" rx=\"3\"/><text x=\"40\" y=\"{}\" text-anchor=\"middle\">{text}</text></g>",
                controls + 14
            )?;
        }
        writeln!(output, "<g id=\"frames\">")?;
        self.write_boxes(top, output)?;
        let bottom = top + graph + 18;
        writeln!(output, "</g>\n<text id=\"details\" x=\"{MARGIN}\" y=\"{bottom}\"> </text>")?;
        writeln!(
            output,
            "<text id=\"matched\" x=\"{}\" y=\"{}\" text-anchor=\"end\"> </text>",
            WIDTH - MARGIN,
            controls - 6
        )?;
        writeln!(output, "<script><![CDATA[\n{}]]></script>\n</svg>", include_str!("flamegraph/flamegraph.js"))
    }

    /// What the picture shows and what it leaves out.
    fn facts(&self, weighed: &Weighed<'_>) -> Vec<String> {
        let total = weighed.total();
        let stacks = weighed.costs.len() as u64;
        let grouped = human::grouped(stacks);
        let mut facts = vec![if self.differs {
            format!(
                "{} ({} bytes) on the whole, in {grouped} call stack{}; red grew, blue shrank, widths are bytes of both",
                human::change(total),
                human::grouped_signed(total.bytes),
                plural(stacks)
            )
        } else {
            format!(
                "{} ({} bytes) of {grouped} call stack{}",
                human::tally(total_of(total)),
                human::grouped(total.bytes.cast_unsigned()),
                plural(stacks)
            )
        }];
        let weightless = || weighed.costs.iter().filter(|cost| cost.change.bytes == 0);
        let count = weightless().count() as u64;
        if count > 0 {
            let blocks = weightless().fold(Change::default(), |sum, cost| sum.plus(cost.change)).count;
            facts.push(format!(
                "{} call stack{} with {} block{} of 0 bytes together has no width.",
                human::grouped(count),
                plural(count),
                human::grouped_signed(blocks),
                plural(blocks.unsigned_abs()),
            ));
        }
        if self.layout.culled > 0 {
            facts.push(format!(
                "{} boxes that are too narrow to be seen are left out.",
                human::grouped(self.layout.culled as u64)
            ));
        }
        facts
    }

    /// In pixels.
    pub(super) fn height(&self) -> u32 {
        (self.layout.deepest + 1) * ROW
    }

    /// Writes the boxes as `g` elements, a box before those upon it, below `top` pixels.
    ///
    /// # Errors
    /// Those of `output`.
    pub(super) fn write_boxes(&self, top: u32, output: &mut dyn Write) -> io::Result<()> {
        let total = self.layout.boxes.first().map_or(0, |root| root.weight);
        for placed in &self.layout.boxes {
            let y = top + (self.layout.deepest - placed.depth) * ROW;
            let (x, width) = (MARGIN + placed.start * (WIDTH - 2.0 * MARGIN), placed.width * (WIDTH - 2.0 * MARGIN));
            let name = self.name(placed);
            write!(
                output,
                "<g><title>{}\n{}</title><rect class=\"{}\" x=\"{}\" y=\"{y}\" width=\"{}\" height=\"{}\"/>",
                Escaped(&name),
                Escaped(self.told(placed, total)),
                self.class(placed),
                Coordinate(x),
                Coordinate(width),
                ROW - 1,
            )?;
            let text = fitted(&name, width);
            if !text.is_empty() {
                let (x, y) = (Coordinate(x + 3.0), f64::from(y) + 12.5);
                write!(output, "<text x=\"{x}\" y=\"{y}\">{}</text>", Escaped(text))?;
            }
            writeln!(output, "</g>")?;
        }
        Ok(())
    }

    fn name(&self, placed: &Placed) -> String {
        if placed.node == 0 {
            return "all".into();
        }
        in_one_line(&self.names.functions()[self.tree.item(placed.node) as usize].name)
    }

    fn class(&self, placed: &Placed) -> String {
        if self.differs {
            growth_class(placed.change, placed.weight)
        } else if placed.node == 0 {
            Palette::root()
        } else {
            self.palette.class(&self.names.functions()[self.tree.item(placed.node) as usize])
        }
    }

    /// A box's numbers, and where its function is from.
    fn told(&self, placed: &Placed, total: u128) -> String {
        let mut text = if self.differs {
            format!("{} ({} bytes)", human::change(placed.change), human::grouped_signed(placed.change.bytes))
        } else {
            let bytes = human::grouped(placed.change.bytes.cast_unsigned());
            format!("{} ({bytes} bytes)", human::tally(total_of(placed.change)))
        };
        text += &format!(", {:.2}%", percent(placed.weight, total));
        if placed.node != 0 {
            let module = self.names.functions()[self.tree.item(placed.node) as usize].module;
            text += &format!("\n{}", if module.is_empty() { "code in no file".into() } else { in_one_line(module) });
        }
        text
    }
}

/// The view, and of what.
fn heading(weighed: &Weighed<'_>) -> String {
    let run = &weighed.profile.run;
    let command = if run.command.is_empty() { run.executable.clone() } else { run.command.join(" ") };
    let text = in_one_line(&format!("memleax: {} · {command} ({})", weighed.label, run.pid));
    fitted_by(&text, 120)
}

fn total_of(change: Change) -> crate::event::Tally {
    crate::event::Tally { count: change.count.cast_unsigned(), bytes: change.bytes.cast_unsigned() }
}

#[expect(clippy::cast_precision_loss, reason = "for a human, with two decimals")]
fn percent(part: u128, total: u128) -> f64 {
    if total == 0 { 0.0 } else { 100.0 * part as f64 / total as f64 }
}

/// What of a name fits into a box.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number of characters; at least 0")]
fn fitted(name: &str, width: f64) -> String {
    let room = ((width - 5.0) / CHARACTER).max(0.0) as usize;
    if room < 3 { String::new() } else { fitted_by(name, room) }
}

/// The same by columns: characters from Hangul on may take two.
fn fitted_by(name: &str, mut room: usize) -> String {
    let columns = |c: char| if u32::from(c) < 0x1100 { 1 } else { 2 };
    if name.chars().map(columns).sum::<usize>() <= room {
        return name.into();
    }
    let kept = name.chars().take_while(|&c| {
        room = room.saturating_sub(columns(c));
        room >= 1
    });
    kept.chain(['…']).collect()
}

/// Broken at spaces where it can be.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in in_one_line(text).split(' ') {
        let last = lines.last_mut().expect("there is always one");
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.into());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

/// Six decimals, without zeros at the end: zooming makes much of little.
struct Coordinate(f64);

impl Display for Coordinate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:.6}", self.0);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::sample;

    fn svg(profile: &Profile, view: &View) -> String {
        let mut output = Vec::new();
        assert!(write(profile, view, &mut output).expect("a Vec takes everything").is_empty());
        String::from_utf8(output).expect("UTF-8")
    }

    /// The boxes only.
    fn boxes(svg: &str) -> Vec<&str> {
        svg.split("<g><title>").skip(1).collect()
    }

    #[test]
    fn a_view_is_drawn_with_its_numbers_and_its_losses() {
        let svg = svg(&sample::profile(), &View::Leaks);
        assert!(svg.contains("9 blocks, 1.0 KiB (1,024 bytes) of 2 call stacks"));
        assert!(svg.contains("1 call stack with 1 block of 0 bytes together has no width."));
        assert!(svg.contains("2 allocator calls never returned"));
        assert!(svg.contains("Names of one library are missing."));
        assert!(svg.contains("<title>Pool::take(int)\n8 blocks, 1.0 KiB (1,024 bytes), 100.00%\n/srv/server</title>"));
        // The root, main, serve, take and malloc; the stack of 0 bytes has none.
        assert_eq!(boxes(&svg).len(), 5);
        assert!(boxes(&svg)[0].starts_with("all\n"));
    }

    #[test]
    fn hostile_names_stay_names() {
        let svg = svg(&sample::profile(), &View::Peak);
        assert!(svg.contains("evil;\u{fffd}&lt;b&gt;&quot;&amp;\u{fffd}[31m λ"));
        assert!(!svg.contains("<b>") && !svg.contains('\u{1b}'));
    }

    #[test]
    fn growth_is_drawn_with_both_signs() {
        let svg = svg(&sample::profile(), &View::Growth { from: Some(1), to: None });
        assert!(
            svg.contains("+0 blocks, -3.7 KiB (-3,744 bytes) on the whole, in 2 call stacks; red grew, blue shrank"),
            "{svg}"
        );
        assert!(
            svg.contains("<title>serve(std::vector&lt;int&gt; const&amp;)\n+2 blocks, +256 bytes (256 bytes), 6.02%")
        );
        assert!(boxes(&svg).iter().any(|line| line.contains("class=\"s4\"")), "{svg}");
    }

    #[test]
    fn a_profile_of_nothing_is_a_picture_all_the_same() {
        let mut profile = sample::profile();
        profile.sites.clear();
        let svg = svg(&profile, &View::Leaks);
        assert_eq!(boxes(&svg).len(), 1);
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn names_are_cut_where_the_box_ends() {
        assert_eq!(fitted("serve", 5.0 * CHARACTER + 5.1), "serve");
        assert_eq!(fitted("serves", 5.0 * CHARACTER + 5.1), "serv…");
        assert_eq!(fitted("serve", 20.0), "");
        assert_eq!(fitted_by("漢字漢字", 5), "漢字…");
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(Coordinate(10.500).to_string(), "10.5");
        assert_eq!(Coordinate(100.0).to_string(), "100");
    }
}
