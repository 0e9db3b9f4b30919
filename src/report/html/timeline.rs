//! Live bytes over time, drawn so that it needs no script: a stretched SVG below labels in HTML.

use std::io::{self, Write};
use std::time::Duration;

use crate::profile::{Moment, Profile};
use crate::report::human;
use crate::report::markup::Escaped;

/// Points of the curve at most.
const POINTS: usize = 1_000;

/// Snapshots that are marked, at most: every n-th.
const MARKS: usize = 40;

/// What is drawn.
pub(super) struct Timeline {
    /// In order, from the beginning, where nothing was live.
    pub(super) points: Vec<Moment>,
    /// Nanoseconds at the right edge; at least 1.
    pub(super) end: u64,
    /// Bytes at the upper edge; at least 1.
    pub(super) top: u64,
}

impl Timeline {
    /// Of as many moments as can be seen: of those that fall on one point the highest, and the last.
    pub(super) fn of(profile: &Profile) -> Timeline {
        let mut all = vec![Moment::default()];
        all.extend(profile.timeline.iter().chain(&profile.peak).copied());
        all.sort_by_key(|moment| moment.at);
        all.dedup();
        let monitored = u64::try_from(profile.run.monitored.as_nanos()).unwrap_or(u64::MAX);
        let end = all.last().map_or(0, |moment| moment.at.0).max(monitored).max(1);
        let highest = all.iter().map(|moment| moment.live.bytes).max().unwrap_or(0);
        let points = if all.len() <= POINTS { all } else { thinned(&all) };
        Timeline { points, end, top: round_above(highest) }
    }

    /// Writes the picture with its marks.
    ///
    /// # Errors
    /// Those of `output`.
    pub(super) fn write(&self, profile: &Profile, output: &mut dyn Write) -> io::Result<()> {
        if self.points.len() < 2 {
            return writeln!(output, "<p class=\"hint\">Nothing is known of it.</p>");
        }
        let curve: Vec<String> = self
            .points
            .iter()
            .map(|moment| format!("{:.2},{:.2}", 10.0 * self.x(moment.at.0), 100.0 - self.y(moment.live.bytes)))
            .collect();
        let last = 10.0 * self.x(self.points.last().map_or(0, |moment| moment.at.0));
        writeln!(
            output,
            "<div class=\"chart\"><svg viewBox=\"0 0 1000 100\" preserveAspectRatio=\"none\" aria-hidden=\"true\">"
        )?;
        for quarter in 0..=4 {
            let y = 25 * quarter;
            writeln!(output, "<line class=\"grid\" x1=\"0\" x2=\"1000\" y1=\"{y}\" y2=\"{y}\"/>")?;
        }
        writeln!(output, "<polygon class=\"area\" points=\"0,100 {} {last:.2},100\"/>", curve.join(" "))?;
        writeln!(output, "<polyline class=\"curve\" points=\"{}\"/></svg>\n<div class=\"over\">", curve.join(" "))?;
        for quarter in 0..=4 {
            let bytes = u64::try_from(u128::from(self.top) * quarter / 4).unwrap_or(u64::MAX);
            writeln!(output, "<span class=\"y\" style=\"bottom:{}%\">{}</span>", 25 * quarter, human::bytes(bytes))?;
        }
        for quarter in 0..=4 {
            let at = u64::try_from(u128::from(self.end) * quarter / 4).unwrap_or(u64::MAX);
            let time = human::time(Duration::from_nanos(at));
            writeln!(output, "<i class=\"x\" style=\"left:{}%\">{time}</i>", 25 * quarter)?;
        }
        let step = profile.snapshots.len().div_ceil(MARKS).max(1);
        for (number, snapshot) in (1..).zip(&profile.snapshots).step_by(step) {
            self.write_snapshot(number, snapshot, output)?;
        }
        if let Some(peak) = profile.peak {
            let x = self.x(peak.at.0);
            let side = if x > 60.0 { " left" } else { "" };
            writeln!(
                output,
                "<div class=\"mark peak{side}\" style=\"left:{x:.3}%\"><span title=\"{} bytes in {} blocks after {}\">peak {}</span></div>",
                human::grouped(peak.live.bytes),
                human::grouped(peak.live.count),
                human::time(Duration::from_nanos(peak.at.0)),
                human::bytes(peak.live.bytes),
            )?;
        }
        writeln!(output, "</div></div>")
    }

    fn write_snapshot(
        &self,
        number: usize,
        snapshot: &crate::profile::Snapshot,
        output: &mut dyn Write,
    ) -> io::Result<()> {
        let moment = snapshot.moment;
        let side = if self.x(moment.at.0) > 96.0 { " left" } else { "" };
        writeln!(
            output,
            "<button type=\"button\" class=\"mark{side}\" data-snapshot=\"{number}\" style=\"left:{:.3}%\"><span title=\"snapshot {number}: {}, {} bytes after {}\">{number}</span></button>",
            self.x(moment.at.0),
            Escaped(&snapshot.cause),
            human::grouped(moment.live.bytes),
            human::time(Duration::from_nanos(moment.at.0)),
        )
    }

    /// Percent from the left.
    #[expect(clippy::cast_precision_loss, reason = "for a picture")]
    fn x(&self, nanoseconds: u64) -> f64 {
        100.0 * nanoseconds.min(self.end) as f64 / self.end as f64
    }

    /// Percent from below.
    #[expect(clippy::cast_precision_loss, reason = "for a picture")]
    fn y(&self, bytes: u64) -> f64 {
        100.0 * bytes.min(self.top) as f64 / self.top as f64
    }
}

/// Two of each span of moments: the highest and the last, in order.
fn thinned(all: &[Moment]) -> Vec<Moment> {
    let span = all.len().div_ceil(POINTS / 2);
    let mut points = vec![all[0]];
    for moments in all[1..].chunks(span) {
        let highest = moments.iter().max_by_key(|moment| moment.live.bytes).copied();
        points.extend(highest.into_iter().chain(moments.last().copied()));
    }
    points.dedup();
    points
}

/// The next number above whose quarters are short in binary units.
fn round_above(bytes: u64) -> u64 {
    const QUARTERS: [u64; 23] =
        [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 32, 40, 50, 64, 80, 100, 128, 160, 200, 256, 512];
    let units = (0..6).map(|unit| 1_u64 << (10 * unit));
    let tops = units.flat_map(|unit| QUARTERS.map(|quarter| unit.saturating_mul(4 * quarter)));
    tops.into_iter().find(|&top| top > bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Tally, Timestamp};
    use crate::profile::sample;

    #[test]
    fn the_curve_begins_with_nothing_and_has_the_peak_and_the_snapshots() {
        let profile = sample::profile();
        let timeline = Timeline::of(&profile);
        let live: Vec<u64> = timeline.points.iter().map(|moment| moment.live.bytes).collect();
        assert_eq!(live, [0, 128, 4768, 1024]);
        let mut html = Vec::new();
        timeline.write(&profile, &mut html).expect("a Vec takes everything");
        let html = String::from_utf8(html).expect("UTF-8");
        assert!(html.contains("points=\"0.00,100.00 100.00,98.44 500.00,41.80 1000.00,87.50\""), "{html}");
        assert!(
            html.contains("left:50.000%\"><span title=\"4,768 bytes in 9 blocks after 5.0 s\">peak 4.7 KiB"),
            "{html}"
        );
        assert!(html.contains("data-snapshot=\"1\""));
    }

    #[test]
    fn thousands_of_moments_keep_their_highest() {
        let moment = |at: u64| {
            let bytes = if at == 7_777 { 1_000 } else { at % 10 };
            Moment { at: Timestamp(at), allocated: Tally::default(), live: Tally { count: 1, bytes } }
        };
        let mut profile = sample::profile();
        profile.peak = None;
        profile.timeline = (1..=100_000).map(moment).collect();
        let timeline = Timeline::of(&profile);
        assert!(timeline.points.len() <= POINTS + 2, "{}", timeline.points.len());
        assert!(timeline.points.is_sorted_by_key(|moment| moment.at));
        assert!(timeline.points.contains(&moment(7_777)) && timeline.points.contains(&moment(100_000)));
    }

    #[test]
    fn nothing_live_and_everything_live_can_be_drawn() {
        assert_eq!([0, 3, 4, 5_000, 1 << 20].map(round_above), [4, 4, 8, 8_192, 2_097_152]);
        assert_eq!(round_above(u64::MAX), u64::MAX);
        let mut profile = sample::profile();
        profile.timeline.clear();
        profile.peak = None;
        let mut html = Vec::new();
        Timeline::of(&profile).write(&profile, &mut html).expect("a Vec takes everything");
        assert!(String::from_utf8_lossy(&html).contains("Nothing is known"));
    }
}
