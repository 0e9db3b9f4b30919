//! The books of the types of objects, beside those of memory: one tracker each.

use crate::config::Limits;
use crate::event::{Class, Event, Sink, StackId, Tally, Timestamp, Totals};
use crate::objects::Objects;
use crate::recording::Sample;
use crate::source::Source;
use crate::tracker::{Finding, Statistics, Tracker};

/// All types, in the order of their classes.
#[derive(Debug)]
pub(super) struct ObjectBooks {
    types: Vec<Books>,
}

#[derive(Debug)]
struct Books {
    tracker: Tracker,
    /// Its objects may have more than one reference.
    is_counted: bool,
}

impl ObjectBooks {
    /// Of a process of which nothing is known yet. The limits that end a run are for memory.
    pub(super) fn new(objects: &Objects, limits: Limits) -> Self {
        let types = objects.types().iter();
        let books = |of: &crate::objects::ObjectType| Books {
            tracker: Tracker::new(Limits::none(limits.expire)),
            is_counted: of.is_counted(),
        };
        Self { types: types.map(books).collect() }
    }

    /// Of a process that has just got a copy of the memory of this one.
    pub(super) fn forked(&self, limits: Limits) -> Self {
        let forked = |books: &Books| Books {
            tracker: books.tracker.forked(Limits::none(limits.expire)),
            is_counted: books.is_counted,
        };
        Self { types: self.types.iter().map(forked).collect() }
    }

    /// Takes what concerns the process, as far as it concerns its objects.
    pub(super) fn event(&mut self, at: Timestamp, event: Event) {
        if event.concerns_objects() {
            for books in &mut self.types {
                books.tracker.event(at, event);
            }
        }
    }

    /// Takes an event in the life of an object.
    pub(super) fn object(&mut self, at: Timestamp, class: Class, event: Event) {
        if let Some(tracker) = self.tracker(class) {
            tracker.event(at, event);
        }
    }

    /// Takes what a source has counted.
    pub(super) fn counted(&mut self, at: Timestamp, class: Class, stack: StackId, totals: &Totals) {
        if let Some(tracker) = self.tracker(class) {
            tracker.counted(at, stack, totals);
        }
    }

    fn tracker(&mut self, class: Class) -> Option<&mut Tracker> {
        Some(&mut self.types.get_mut(class.type_place()?)?.tracker)
    }

    /// Takes what was found since the last call, in order.
    pub(super) fn drain_findings(&mut self) -> impl Iterator<Item = (Class, Finding)> {
        let classes = (0..).map(Class::of_type);
        let of_type = |(class, books): (Class, &mut Books)| {
            books.tracker.drain_findings().map(move |it| (class, it)).collect::<Vec<_>>()
        };
        classes.zip(&mut self.types).flat_map(of_type).collect::<Vec<_>>().into_iter()
    }

    /// A moment of each type.
    pub(super) fn samples(&mut self, take: impl Fn(Class, &mut Tracker) -> Sample) -> Vec<(Class, Sample)> {
        let classes = (0..).map(Class::of_type);
        classes.zip(&mut self.types).map(|(class, books)| (class, take(class, &mut books.tracker))).collect()
    }

    /// The last moment of each type, by a source that may have counted itself.
    pub(super) fn last_samples(&mut self, source: &dyn Source) -> Vec<(Class, Sample)> {
        self.samples(|class, tracker| {
            let mut sample = Sample::take_last(tracker, source.object_ages(class));
            if !source.tells_events() {
                sample.blocks = source.notable_objects(class);
            }
            sample
        })
    }

    /// The statistics of each type. Where references are counted, it says nothing that an unknown object was freed: the count may have ended it
    /// before.
    pub(super) fn statistics(&self) -> Vec<Statistics> {
        let of = |books: &Books| {
            let mut statistics = books.tracker.statistics();
            if books.is_counted {
                statistics.unknown_frees = 0;
            }
            statistics
        };
        self.types.iter().map(of).collect()
    }
}

/// All that was leaked, by these statistics.
pub(super) fn sum(statistics: &[Statistics], leaked: impl Fn(&Statistics) -> Tally) -> Tally {
    statistics.iter().map(leaked).fold(Tally::default(), Tally::plus)
}

/// A moment of all books, that of memory last.
pub(super) fn with_memory(of_types: Vec<(Class, Sample)>, memory: Sample) -> impl Iterator<Item = (Class, Sample)> {
    of_types.into_iter().chain([(Class::MEMORY, memory)])
}
