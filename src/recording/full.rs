//! Each single event: its form in a recording, and the way back through the tracker.

use std::io;
use std::time::Duration;

use super::chunk::{Chunks, Found};
use super::record::{EventRecord, EventsRecord, LOSSES, ObjectRecord, Record, TypeRecord, number_of};
use super::sample::Sample;
use super::writer::{LIMIT, Storage, Writer};
use crate::config::Limits;
use crate::event::{CallId, Class, Event, Sink, StackId, Tally, Timestamp};
use crate::tracker::Tracker;

/// Between two moments of what is made of single events.
const INTERVAL: u64 = 1_000_000_000;

/// Events on their way into a recording.
#[derive(Debug, Default)]
pub struct EventLog {
    events: Vec<(u64, EventRecord)>,
    last: Timestamp,
    /// So many were left out while there was no room; `None` if there is.
    left_out: Option<u64>,
}

impl EventLog {
    /// Adds an event.
    pub fn push(&mut self, at: Timestamp, event: Event) {
        if let Some(record) = to_record(event) {
            self.add(at, record);
        }
    }

    /// Adds an event in the life of an object.
    pub fn push_object(&mut self, at: Timestamp, class: Class, event: Event) {
        if let Some(event) = to_object_record(event) {
            self.add(at, EventRecord::Object { class: class.0, event });
        }
    }

    fn add(&mut self, at: Timestamp, record: EventRecord) {
        if let Some(left_out) = &mut self.left_out {
            *left_out += 1;
            return;
        }
        self.events.push((at.0.saturating_sub(self.last.0), record));
        self.last = at;
    }

    /// True if there is no room for more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.left_out.is_some()
    }

    /// There is no room for more, or there is again. Returns how many were left out until now.
    pub fn set_full(&mut self, is_full: bool) -> u64 {
        match (is_full, self.left_out) {
            (true, None) => {
                self.left_out = Some(0);
                0
            }
            (false, Some(left_out)) => {
                self.left_out = None;
                left_out
            }
            _ => 0,
        }
    }

    /// How many wait to be written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// True if none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Takes what waits; what comes later continues it.
    #[must_use]
    pub fn take(&mut self) -> EventLog {
        EventLog { events: std::mem::take(&mut self.events), last: self.last, left_out: None }
    }

    pub(super) fn into_record(self) -> Option<EventsRecord> {
        (!self.events.is_empty()).then_some(EventsRecord { events: self.events })
    }
}

/// Nothing for what a recording need not tell.
fn to_record(event: Event) -> Option<EventRecord> {
    Some(match event {
        Event::Allocated { address, size, stack } => EventRecord::Allocated { address, size, stack: stack.0 },
        Event::Freed { address } => EventRecord::Freed { address },
        Event::Reallocating { call, address } => EventRecord::Reallocating { call: call.0, address },
        Event::Reallocated { call, address, size, stack } => {
            EventRecord::Reallocated { call: call.0, address, size, stack: stack.0 }
        }
        Event::ReallocFailed { call } => EventRecord::ReallocFailed { call: call.0 },
        Event::ReallocFreed { call } => EventRecord::ReallocFreed { call: call.0 },
        Event::Mapped { address, size, stack } => EventRecord::Mapped { address, size, stack: stack.0 },
        Event::Unmapped { address, size } => EventRecord::Unmapped { address, size },
        Event::Remapped { from, from_size, address, size, stack } => {
            EventRecord::Remapped { from, from_size, address, size, stack: stack.0 }
        }
        Event::UnknownFrees(count) => EventRecord::UnknownFrees { count },
        Event::Resized(Tally { count, bytes }) => EventRecord::Resized { count, bytes },
        Event::Replaced => EventRecord::Replaced,
        Event::Lost(loss, count) => EventRecord::Lost { loss: number_of(&LOSSES, &loss), count },
        Event::Marked(number) => EventRecord::Marked { number },
        Event::Called { reference, count } => EventRecord::Called { reference, count },
        // Of objects only.
        Event::Retained { .. } | Event::Released { .. } | Event::Idle => return None,
    })
}

/// Nothing for what does not happen to objects.
fn to_object_record(event: Event) -> Option<ObjectRecord> {
    Some(match event {
        Event::Allocated { address, size, stack } => ObjectRecord::Allocated { address, size, stack: stack.0 },
        Event::Freed { address } => ObjectRecord::Freed { address },
        Event::Retained { address } => ObjectRecord::Retained { address },
        Event::Released { address } => ObjectRecord::Released { address },
        _ => return None,
    })
}

fn to_object_event(record: ObjectRecord) -> Event {
    match record {
        ObjectRecord::Allocated { address, size, stack } => Event::Allocated { address, size, stack: StackId(stack) },
        ObjectRecord::Freed { address } => Event::Freed { address },
        ObjectRecord::Retained { address } => Event::Retained { address },
        ObjectRecord::Released { address } => Event::Released { address },
    }
}

/// Nothing for what happens to objects.
fn to_event(record: EventRecord) -> Option<Event> {
    Some(match record {
        EventRecord::Object { .. } => return None,
        EventRecord::Allocated { address, size, stack } => Event::Allocated { address, size, stack: StackId(stack) },
        EventRecord::Freed { address } => Event::Freed { address },
        EventRecord::Reallocating { call, address } => Event::Reallocating { call: CallId(call), address },
        EventRecord::Reallocated { call, address, size, stack } => {
            Event::Reallocated { call: CallId(call), address, size, stack: StackId(stack) }
        }
        EventRecord::ReallocFailed { call } => Event::ReallocFailed { call: CallId(call) },
        EventRecord::ReallocFreed { call } => Event::ReallocFreed { call: CallId(call) },
        EventRecord::Mapped { address, size, stack } => Event::Mapped { address, size, stack: StackId(stack) },
        EventRecord::Unmapped { address, size } => Event::Unmapped { address, size },
        EventRecord::Remapped { from, from_size, address, size, stack } => {
            Event::Remapped { from, from_size, address, size, stack: StackId(stack) }
        }
        EventRecord::UnknownFrees { count } => Event::UnknownFrees(count),
        EventRecord::Resized { count, bytes } => Event::Resized(Tally { count, bytes }),
        EventRecord::Marked { number } => Event::Marked(number),
        EventRecord::Called { reference, count } => Event::Called { reference, count },
        EventRecord::Replaced => Event::Replaced,
        EventRecord::Lost { loss, count } => Event::Lost(*LOSSES.get(usize::from(loss))?, count),
    })
}

/// The trackers that single events are told to anew.
struct Replay {
    limits: Limits,
    memory: Tracker,
    /// In the order of the classes.
    objects: Vec<Tracker>,
}

impl Replay {
    fn new(limits: Limits) -> Replay {
        Replay { limits, memory: Tracker::new(limits), objects: Vec::new() }
    }

    fn take(&mut self, at: Timestamp, record: EventRecord) {
        if let EventRecord::Object { class, event } = record {
            if let Some(tracker) = Class(class).type_place().and_then(|place| self.objects.get_mut(place)) {
                tracker.event(at, to_object_event(event));
                tracker.drain_findings();
            }
            return;
        }
        let Some(event) = to_event(record) else { return };
        self.memory.event(at, event);
        self.memory.drain_findings();
        if event.concerns_objects() {
            self.objects.iter_mut().for_each(|tracker| tracker.event(at, event));
        }
    }

    /// Time passes.
    fn pass(&mut self, at: Timestamp) {
        for tracker in self.all() {
            tracker.event(at, Event::Idle);
            tracker.drain_findings();
        }
    }

    fn sample(&mut self, writer: &mut Writer) -> io::Result<()> {
        self.write(writer, Sample::take)
    }

    fn sample_last(&mut self, writer: &mut Writer) -> io::Result<()> {
        self.write(writer, |tracker| Sample::take_last(tracker, Vec::new()))
    }

    fn write(&mut self, writer: &mut Writer, take: impl Fn(&mut Tracker) -> Sample) -> io::Result<()> {
        for (place, tracker) in self.objects.iter_mut().enumerate() {
            writer.sample_of(Class::of_type(place), &take(tracker))?;
        }
        writer.sample(&take(&mut self.memory))
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Tracker> {
        std::iter::once(&mut self.memory).chain(&mut self.objects)
    }
}

/// True if the records hold single events.
pub(super) fn has_events(bytes: &[u8]) -> bool {
    Chunks::new(bytes).any(|found| matches!(found, Found::Record(Record::Events(_))))
}

/// The recording of moments that a run with these events would have given. Damage is passed on to the reader of that.
///
/// # Errors
/// None in practice: it is made in memory.
pub(super) fn summed_up(bytes: &[u8], expire: Option<Duration>) -> io::Result<Vec<u8>> {
    let mut summary: Option<(Writer, Replay)> = None;
    let (mut now, mut next, mut has_ended) = (Timestamp::default(), INTERVAL, false);
    for found in Chunks::new(bytes) {
        let record = match found {
            Found::Record(record) => record,
            Found::Damage(lost) | Found::CutShort(lost) => {
                if let Some((writer, _)) = &mut summary {
                    writer.remark(&format!(
                        "{lost} bytes of the recording are damaged or cut off: the events in them are missing, so blocks may seem live that were freed."
                    ))?;
                }
                continue;
            }
        };
        match (record, &mut summary) {
            (Record::Begin(mut begin), None) => {
                if let Some(expire) = expire {
                    begin.expire = u64::try_from(expire.as_nanos()).unwrap_or(u64::MAX);
                }
                let expire = Duration::from_nanos(begin.expire.max(1));
                let limits = Limits::none(expire);
                summary = Some((Writer::begin(Storage::Memory(Vec::new()), LIMIT, begin)?, Replay::new(limits)));
            }
            (Record::Types(types), Some((writer, replay))) => {
                let tracker = |_: &TypeRecord| Tracker::new(replay.limits);
                replay.objects = types.iter().map(tracker).collect();
                writer.append(Record::Types(types))?;
            }
            (Record::Events(EventsRecord { events }), Some((writer, replay))) => {
                for (passed, event) in events {
                    now.0 = now.0.saturating_add(passed);
                    if now.0 >= next {
                        replay.pass(Timestamp(next));
                        replay.sample(writer)?;
                        next = (now.0 / INTERVAL).saturating_add(1).saturating_mul(INTERVAL);
                    }
                    replay.take(now, event);
                }
            }
            (Record::Snapshot(cause), Some((writer, replay))) => {
                replay.sample(writer)?;
                writer.snapshot(&cause)?;
            }
            (Record::End(end), Some((writer, replay))) => {
                replay.pass(Timestamp(end.at));
                replay.sample_last(writer)?;
                writer.append(Record::End(end))?;
                has_ended = true;
            }
            // Moments stand in such a recording only where the source itself had counted.
            (record, Some((writer, _))) => writer.append(record)?,
            (_, None) => {}
        }
    }
    let Some((mut writer, mut replay)) = summary else { return Ok(bytes.to_vec()) };
    if !has_ended {
        replay.pass(now);
        replay.sample_last(&mut writer)?;
    }
    writer.contents()
}
