//! What can be asked of a profile, by the names that users write.

use std::fmt;
use std::str::FromStr;

use super::View;

/// A question that text answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Topic {
    /// What was watched, and its totals.
    Summary,
    /// The call stacks of a view, each with its costs.
    View(View),
    /// The call stacks with the most of something, a line each.
    Sites(SiteOrder),
    /// Single blocks that are live at the end, with their age.
    Blocks,
    /// How large blocks were, all and by call stack.
    Sizes,
    /// How long freed blocks lived, all and by call stack.
    Lifetimes,
    /// How old live blocks are at the end, all and by call stack.
    Ages,
    /// What was live over time, all and by call stack.
    Timeline,
    /// How fast what is live grows with the work, by call stack.
    Trends,
    /// Which snapshots were taken.
    Snapshots,
}

/// What makes a site come first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SiteOrder {
    /// Bytes that are live at the end.
    LiveBytes,
    /// Blocks that are live at the end.
    LiveBlocks,
    /// Bytes of all blocks.
    AllocatedBytes,
    /// All blocks.
    AllocatedBlocks,
    /// Bytes a second of monitoring.
    Rate,
}

const ORDERS: [(&str, SiteOrder, &str); 5] = [
    ("live", SiteOrder::LiveBytes, "live bytes"),
    ("live-blocks", SiteOrder::LiveBlocks, "live blocks"),
    ("allocated", SiteOrder::AllocatedBytes, "allocated bytes"),
    ("blocks", SiteOrder::AllocatedBlocks, "allocated blocks"),
    ("rate", SiteOrder::Rate, "bytes allocated a second"),
];

impl SiteOrder {
    /// What is ordered by, in words.
    #[must_use]
    pub fn name(self) -> &'static str {
        ORDERS.iter().find(|(_, order, _)| *order == self).map_or("", |(_, _, name)| name)
    }
}

impl Topic {
    /// The names, as a help text has them.
    pub const NAMES: &str = "summary, leaks, expired, peak, allocated, temporary, snapshots, snapshot:N, growth[:N[..M]], \
                             sites[:live|live-blocks|allocated|blocks|rate], blocks, sizes, lifetimes, ages, timeline, trends";

    /// The view, if it is one: what formats other than text can show.
    #[must_use]
    pub fn view(&self) -> Option<&View> {
        match self {
            Topic::View(view) => Some(view),
            _ => None,
        }
    }
}

impl FromStr for Topic {
    type Err = String;

    fn from_str(text: &str) -> Result<Topic, String> {
        let (name, detail) = text.split_once(':').map_or((text, None), |(name, detail)| (name, Some(detail)));
        let number = |text: &str| match text.parse::<usize>() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(format!("{text:?} is no number of a snapshot; they are numbered from 1")),
        };
        Ok(match (name, detail) {
            ("summary", None) => Topic::Summary,
            ("leaks", None) => Topic::View(View::Leaks),
            ("expired", None) => Topic::View(View::Expired),
            ("peak", None) => Topic::View(View::Peak),
            ("allocated", None) => Topic::View(View::Allocated),
            ("temporary", None) => Topic::View(View::Temporary),
            ("snapshots", None) => Topic::Snapshots,
            ("snapshot", Some(snapshot)) => Topic::View(View::Snapshot(number(snapshot)?)),
            ("growth", None) => Topic::View(View::Growth { from: None, to: None }),
            ("growth", Some(range)) => {
                let (from, to) = range.split_once("..").unwrap_or((range, ""));
                let end = |text: &str| if text.is_empty() { Ok(None) } else { number(text).map(Some) };
                Topic::View(View::Growth { from: end(from)?, to: end(to)? })
            }
            ("sites", None) => Topic::Sites(SiteOrder::LiveBytes),
            ("sites", Some(order)) => match ORDERS.iter().find(|(name, ..)| *name == order) {
                Some((_, order, _)) => Topic::Sites(*order),
                None => {
                    return Err(format!(
                        "call stacks are ordered by live, live-blocks, allocated, blocks or rate, not {order:?}"
                    ));
                }
            },
            ("blocks", None) => Topic::Blocks,
            ("sizes", None) => Topic::Sizes,
            ("lifetimes", None) => Topic::Lifetimes,
            ("ages", None) => Topic::Ages,
            ("timeline", None) => Topic::Timeline,
            ("trends", None) => Topic::Trends,
            _ => return Err(format!("the views are {}", Topic::NAMES)),
        })
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |end: Option<usize>| end.map(|end| end.to_string()).unwrap_or_default();
        f.write_str(match self {
            Topic::Summary => "summary",
            Topic::View(View::Leaks) => "leaks",
            Topic::View(View::Expired) => "expired",
            Topic::View(View::Peak) => "peak",
            Topic::View(View::Allocated) => "allocated",
            Topic::View(View::Temporary) => "temporary",
            Topic::View(View::Snapshot(number)) => return write!(f, "snapshot:{number}"),
            Topic::View(View::Growth { from, to }) => return write!(f, "growth:{}..{}", end(*from), end(*to)),
            Topic::Sites(order) => {
                let name = ORDERS.iter().find(|(_, known, _)| known == order).map_or("", |(name, ..)| name);
                return write!(f, "sites:{name}");
            }
            Topic::Blocks => "blocks",
            Topic::Sizes => "sizes",
            Topic::Lifetimes => "lifetimes",
            Topic::Ages => "ages",
            Topic::Timeline => "timeline",
            Topic::Trends => "trends",
            Topic::Snapshots => "snapshots",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_means_a_topic() {
        for name in Topic::NAMES.split(", ") {
            let plain = name.split('[').next().expect("a name").replace(":N", ":1");
            let topic: Topic = plain.parse().expect("a topic");
            assert_eq!(topic.to_string().parse(), Ok(topic), "{plain}");
        }
        for (text, topic) in [
            ("growth", Topic::View(View::Growth { from: None, to: None })),
            ("growth:2", Topic::View(View::Growth { from: Some(2), to: None })),
            ("growth:..3", Topic::View(View::Growth { from: None, to: Some(3) })),
            ("growth:1..2", Topic::View(View::Growth { from: Some(1), to: Some(2) })),
            ("snapshot:7", Topic::View(View::Snapshot(7))),
            ("sites:rate", Topic::Sites(SiteOrder::Rate)),
            ("sites", Topic::Sites(SiteOrder::LiveBytes)),
        ] {
            assert_eq!(text.parse(), Ok(topic));
        }
    }

    #[test]
    fn what_is_no_topic_is_answered_with_what_is() {
        for (text, problem) in [
            ("leak", "the views are summary, leaks"),
            ("leaks:1", "the views are"),
            ("snapshot:0", "\"0\" is no number of a snapshot"),
            ("growth:1..x", "\"x\" is no number"),
            ("sites:name", "call stacks are ordered by live,"),
        ] {
            let answer = text.parse::<Topic>().expect_err(text);
            assert!(answer.starts_with(problem), "{answer}");
        }
    }
}
