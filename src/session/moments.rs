//! When a recording gets its moments, and snapshots are taken.

use std::time::{Duration, Instant};

use super::inquiry::{Question, Reception};
use super::objects::with_memory;
use super::reporter::Reporter;
use super::{Feed, Signals};
use crate::event::{Event, Loss, Sink, Timestamp};
use crate::recording::{Look, Sample};
use crate::source::Source;

/// Between two moments of a recording.
const PERIOD: Duration = Duration::from_secs(1);

/// So many single events are written at once at the most.
const EVENTS: usize = 1 << 16;

/// Between two looks at each block for those who ask pass so many times what one costs.
const SPARING: u32 = 20;

/// What is due next.
pub(super) struct Moments {
    last: Timestamp,
    interval: Option<Duration>,
    last_interval: Timestamp,
    /// Why a snapshot was asked for, and when: it is taken once the source has looked.
    asked: Option<(&'static str, Timestamp)>,
    /// When each block may be looked at again.
    next_look: Option<Instant>,
    /// To be answered once the source has told how things are now.
    waiting: Vec<Question>,
}

impl Moments {
    /// With a snapshot each `interval`.
    pub(super) fn new(interval: Option<Duration>) -> Self {
        let never = Timestamp::default();
        Self { last: never, interval, last_interval: never, asked: None, next_look: None, waiting: Vec::new() }
    }

    /// Does what is due.
    pub(super) fn pass(
        &mut self,
        feed: &mut Feed<'_>,
        signals: &Signals,
        source: &mut dyn Source,
        reporter: &mut Reporter,
        reception: &Reception,
    ) {
        feed.marks.hand_over(source, reporter);
        bound_events(feed, reporter);
        let now = feed.now;
        let new = if signals.snapshot_requested() {
            Some("signal")
        } else if self.interval.is_some_and(|interval| now.since(self.last_interval) >= interval) {
            self.last_interval = now;
            Some("interval")
        } else {
            None
        };
        // Who asks himself is not put off with what is due anyway.
        if new == Some("signal") || self.asked.is_none() {
            self.asked = new.map(|cause| (cause, now)).or(self.asked);
        }
        let cause = self.asked.take_if(|(_, at)| source.last_look().is_none_or(|look| look >= *at));
        if self.asked.is_some() {
            source.hasten();
        }
        let cause = cause.map(|(cause, _)| cause);
        let questions = self.questions(source, reception);
        let is_asked = cause.is_some() || !questions.is_empty();
        let is_due = now.since(self.last) >= PERIOD;
        // A moment that is left out is in the next.
        if is_due && !reporter.is_behind() || is_asked {
            self.last = now;
            take(feed, cause.is_some(), source, reporter);
        } else if let Some(log) = &mut feed.log
            && (is_due || log.len() >= EVENTS)
        {
            reporter.events(log.take(), source);
        }
        if is_asked {
            self.look(feed, source, reporter);
        }
        if let Some(cause) = cause {
            reporter.snapshot(cause.into(), true);
        }
        if !questions.is_empty() {
            reporter.questions(questions);
        }
    }

    /// Observation ends: a snapshot that was asked for is of what is known.
    pub(super) fn settle(&mut self, feed: &mut Feed<'_>, source: &mut dyn Source, reporter: &mut Reporter) {
        if let Some((cause, _)) = self.asked.take() {
            take(feed, true, source, reporter);
            reporter.snapshot(cause.into(), true);
        }
    }

    /// What is to be answered now.
    fn questions(&mut self, source: &mut dyn Source, reception: &Reception) -> Vec<Question> {
        let due = std::mem::take(&mut self.waiting);
        if reception.is_asked() {
            self.waiting = reception.take();
        }
        if self.waiting.is_empty() || !source.hasten() {
            return due;
        }
        due.into_iter().chain(self.waiting.drain(..)).collect()
    }

    /// Looks at each block, if that was not done just now.
    fn look(&mut self, feed: &Feed<'_>, source: &dyn Source, reporter: &mut Reporter) {
        if !source.tells_events() {
            let counted = Look { oldest: Vec::new(), blocks: source.notable_blocks(), ages: source.ages() };
            reporter.look(counted, source);
            return;
        }
        let began = Instant::now();
        if self.next_look.is_none_or(|next| began >= next) {
            reporter.look(Look::take(feed.tracker), source);
            let ended = Instant::now();
            self.next_look = Some(ended + (ended - began) * SPARING);
        }
    }
}

/// Leaves single events out while too many wait to be written: the target is not to wait for a slow disk, nor memory to fill. They are
/// counted, here and in the recording.
fn bound_events(feed: &mut Feed<'_>, reporter: &Reporter) {
    let Some(log) = &mut feed.log else { return };
    let left_out = log.set_full(reporter.is_full(log.is_full()));
    if left_out > 0 {
        feed.event(feed.now, Event::Lost(Loss::EventNotRecorded, left_out));
    }
}

/// A moment, for the recording and for those who ask. A snapshot tells how old what is.
fn take(feed: &mut Feed<'_>, is_snapshot: bool, source: &dyn Source, reporter: &mut Reporter) {
    let has_ages = is_snapshot && feed.log.is_none();
    let of_types = feed.objects.samples(|class, tracker| match has_ages {
        true => Sample::take_with_ages(tracker, source.object_ages(class)),
        false => Sample::take(tracker),
    });
    let sample = match has_ages {
        true => Sample::take_with_ages(feed.tracker, source.ages()),
        false => Sample::take(feed.tracker),
    };
    let samples = with_memory(of_types, sample);
    match &mut feed.log {
        Some(log) => {
            reporter.events(log.take(), source);
            samples.for_each(|(class, sample)| reporter.note(class, sample, source));
        }
        None => samples.for_each(|(class, sample)| reporter.sample(class, sample, source)),
    }
}
