//! When a recording gets its moments, and snapshots are taken.

use std::time::Duration;

use super::reporter::Reporter;
use super::{Feed, Signals};
use crate::event::Timestamp;
use crate::recording::Sample;
use crate::source::Source;

/// Between two moments of a recording.
const PERIOD: Duration = Duration::from_secs(1);

/// So many single events are written at once at the most.
const EVENTS: usize = 1 << 16;

/// What is due next.
pub(super) struct Moments {
    last: Timestamp,
    interval: Option<Duration>,
    last_interval: Timestamp,
}

impl Moments {
    /// With a snapshot each `interval`.
    pub(super) fn new(interval: Option<Duration>) -> Self {
        Self { last: Timestamp::default(), interval, last_interval: Timestamp::default() }
    }

    /// Does what is due.
    pub(super) fn pass(
        &mut self,
        feed: &mut Feed<'_>,
        signals: &Signals,
        source: &dyn Source,
        reporter: &mut Reporter,
    ) {
        feed.marks.hand_over(source, reporter);
        let now = feed.now;
        let cause = if signals.snapshot_requested() {
            Some("signal")
        } else if self.interval.is_some_and(|interval| now.since(self.last_interval) >= interval) {
            self.last_interval = now;
            Some("interval")
        } else {
            None
        };
        let is_due = now.since(self.last) >= PERIOD;
        match &mut feed.log {
            Some(log) => {
                if is_due || cause.is_some() || log.len() >= EVENTS {
                    self.last = now;
                    reporter.events(log.take(), source);
                }
            }
            // A moment that is left out is in the next.
            None => {
                if is_due && !reporter.is_behind() || cause.is_some() {
                    self.last = now;
                    // Whoever asks for a look wants to see how old what is.
                    let sample = match cause {
                        Some(_) => Sample::take_with_ages(feed.tracker, source.ages()),
                        None => Sample::take(feed.tracker),
                    };
                    reporter.sample(sample, source);
                }
            }
        }
        if let Some(cause) = cause {
            reporter.snapshot(cause.into(), true);
        }
    }
}
