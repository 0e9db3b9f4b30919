//! Snapshots at calls of functions that the user has named: taken as the events come in, in their order.

use super::objects::{ObjectBooks, with_memory};
use super::reporter::Reporter;
use crate::event::Class;
use crate::recording::{EventLog, Sample};
use crate::source::Source;
use crate::tracker::Tracker;

/// So many are kept; the calls after that are only counted.
pub(super) const MOST: usize = 1000;

/// So many of them are printed besides.
const SHOWN: usize = 10;

/// The snapshots of a run.
pub(super) struct Marks {
    /// Of the functions, by number.
    names: Vec<String>,
    taken: usize,
    /// Not yet handed over.
    waiting: Vec<Mark>,
}

struct Mark {
    moment: Sample,
    /// Of the types of objects.
    of_types: Vec<(Class, Sample)>,
    /// Each event until then, if those are recorded.
    events: Option<EventLog>,
    cause: String,
    is_shown: bool,
}

impl Marks {
    pub(super) fn new(names: &[String]) -> Self {
        Marks { names: names.to_vec(), taken: 0, waiting: Vec::new() }
    }

    /// True if no more are to be taken.
    pub(super) fn is_full(&self) -> bool {
        self.taken == MOST
    }

    /// A snapshot of what `tracker` knows now.
    pub(super) fn take(
        &mut self,
        number: u32,
        tracker: &mut Tracker,
        objects: &mut ObjectBooks,
        log: Option<&mut EventLog>,
    ) {
        let Some(name) = self.names.get(number as usize) else { return };
        let (moment, events) = (Sample::take(tracker), log.map(EventLog::take));
        let of_types = objects.samples(|_, tracker| Sample::take(tracker));
        self.waiting.push(Mark { moment, of_types, events, cause: name.clone(), is_shown: self.taken < SHOWN });
        self.taken += 1;
    }

    /// Has those that were taken kept.
    pub(super) fn hand_over(&mut self, source: &dyn Source, reporter: &mut Reporter) {
        for Mark { moment, of_types, events, cause, is_shown } in self.waiting.drain(..) {
            match events {
                Some(events) => {
                    reporter.events(events, source);
                    for (class, sample) in with_memory(of_types, moment) {
                        reporter.note(class, sample, source);
                    }
                }
                None => {
                    for (class, sample) in with_memory(of_types, moment) {
                        reporter.sample(class, sample, source);
                    }
                }
            }
            reporter.snapshot(cause.into(), is_shown);
        }
    }
}
