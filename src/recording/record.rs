//! What a recording consists of. The order of variants and fields is the format (`docs/recording.md`): what is added
//! goes to the end of the list of variants; a changed field is a new version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::{Class, Ending, Frame, FrameKind, Loss, ModuleId, Tally, Timestamp};
use crate::histogram::Histogram;
use crate::tracker::Level;

/// One chunk.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub(super) enum Record {
    Begin(Begin),
    Module(ModuleRecord),
    Frames(FramesRecord),
    Stack(StackRecord),
    Sample(SampleRecord),
    /// What is live as of the last sample is a snapshot, for this reason.
    Snapshot(String),
    Blocks(Vec<BlockRecord>),
    Remark(String),
    Names(NamesRecord),
    End(EndRecord),
    Events(EventsRecord),
    /// As of the last sample: the ages in seconds of the live blocks of each call stack that has any, buckets that are not empty.
    Ages(Vec<(u32, Vec<(u8, u64)>)>),
    /// The names of functions whose calls are counted.
    References(Vec<String>),
    /// How often each was called until the last sample, in the order of their names; what is missing was not.
    Calls(Vec<u64>),
    /// The types of objects, in the order of their classes.
    Types(Vec<TypeRecord>),
    /// A record of objects of a class. Memory's losses are theirs, too.
    Object(u8, ObjectBooksRecord),
}

/// A type of objects.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub(super) struct TypeRecord {
    pub(super) name: String,
    /// Its objects may have more than one reference.
    pub(super) is_counted: bool,
}

/// As the variants of [`Record`] of these names.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub(super) enum ObjectBooksRecord {
    Sample(SampleRecord),
    Calls(Vec<u64>),
    Blocks(Vec<BlockRecord>),
    Ages(Vec<(u32, Vec<(u8, u64)>)>),
}

impl Record {
    /// A record of the books of a class.
    pub(super) fn of_class(class: Class, record: Record) -> Record {
        let record = match record {
            other if class == Class::MEMORY => return other,
            Record::Sample(sample) => ObjectBooksRecord::Sample(sample),
            Record::Calls(calls) => ObjectBooksRecord::Calls(calls),
            Record::Blocks(blocks) => ObjectBooksRecord::Blocks(blocks),
            Record::Ages(ages) => ObjectBooksRecord::Ages(ages),
            // Of the whole process.
            other => return other,
        };
        Record::Object(class.0, record)
    }
}

impl From<ObjectBooksRecord> for Record {
    fn from(record: ObjectBooksRecord) -> Record {
        match record {
            ObjectBooksRecord::Sample(sample) => Record::Sample(sample),
            ObjectBooksRecord::Calls(calls) => Record::Calls(calls),
            ObjectBooksRecord::Blocks(blocks) => Record::Blocks(blocks),
            ObjectBooksRecord::Ages(ages) => Record::Ages(ages),
        }
    }
}

/// What is watched: the first record.
#[derive(Serialize, Deserialize, Clone, PartialEq, Default, Debug)]
pub struct Begin {
    /// memleax's version.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// Its command line, as far as known.
    pub command: Vec<String>,
    /// Its executable's path.
    pub executable: String,
    /// The backend's name, and why it was chosen.
    pub backend: String,
    /// When monitoring began: nanoseconds since 1970 (UTC).
    pub started: u64,
    /// Expiry time in nanoseconds.
    pub expire: u64,
    /// memleax started the program.
    pub launched: bool,
    /// The source tells single events, not totals now and then.
    pub by_event: bool,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub(super) struct ModuleRecord {
    pub(super) id: u32,
    pub(super) path: String,
    pub(super) build_id: Vec<u8>,
    /// Run-time addresses.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) bias: u64,
    pub(super) file_offset: u64,
    pub(super) is_executable: bool,
}

/// Frames, numbered on from `first`.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub(super) struct FramesRecord {
    pub(super) first: u32,
    pub(super) frames: Vec<FrameRecord>,
}

#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Debug)]
pub(super) struct FrameRecord {
    pub(super) module: Option<u32>,
    /// See [`KINDS`].
    pub(super) kind: u8,
    /// As [`Frame::address`].
    pub(super) address: u64,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub(super) struct StackRecord {
    pub(super) id: u32,
    /// Numbers of frames, innermost first.
    pub(super) frames: Vec<u32>,
    /// See [`ENDINGS`].
    pub(super) ending: u8,
    pub(super) by_frame_pointer: bool,
}

/// A moment: all together, and the call stacks that have changed since the last one.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub(super) struct SampleRecord {
    pub(super) level: LevelRecord,
    /// The high-water mark, if there is a new one since the last sample: then each site's share follows anew.
    pub(super) peak: Option<LevelRecord>,
    pub(super) unknown_frees: u64,
    pub(super) resized: TallyRecord,
    /// See [`LOSSES`].
    pub(super) losses: Vec<(u8, u64)>,
    pub(super) sites: Vec<SiteRecord>,
}

/// Count and bytes.
pub(super) type TallyRecord = (u64, u64);

#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Debug)]
pub(super) struct LevelRecord {
    pub(super) at: u64,
    pub(super) allocated: TallyRecord,
    pub(super) live: TallyRecord,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub(super) struct SiteRecord {
    pub(super) stack: u32,
    pub(super) allocated: TallyRecord,
    pub(super) live: TallyRecord,
    pub(super) expired: TallyRecord,
    pub(super) freed_expired: TallyRecord,
    /// If the sample has a new peak. A site that is not in the sample had live then what it has live.
    pub(super) at_peak: Option<TallyRecord>,
    pub(super) temporary: TallyRecord,
    /// The buckets that changed: which, and their counts.
    pub(super) sizes: Vec<(u8, u64)>,
    pub(super) lifetimes: Vec<(u8, u64)>,
    /// Nanoseconds: shortest, mean, longest.
    pub(super) lives: Option<(u64, u64, u64)>,
    /// When the oldest live block was allocated.
    pub(super) oldest: Option<u64>,
}

#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Debug)]
pub(super) struct BlockRecord {
    pub(super) address: u64,
    pub(super) size: u64,
    pub(super) allocated: u64,
    pub(super) stack: u32,
}

/// Functions of frames. Strings are numbers into `strings` of the same record.
#[derive(Serialize, Deserialize, Clone, PartialEq, Default, Debug)]
pub(super) struct NamesRecord {
    pub(super) strings: Vec<String>,
    /// The frame's number, and its functions, innermost first.
    pub(super) frames: Vec<(u32, Vec<FunctionRecord>)>,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub(super) struct FunctionRecord {
    pub(super) name: u32,
    pub(super) raw: u32,
    pub(super) offset: Option<u64>,
    pub(super) file: Option<u32>,
    pub(super) line: Option<u32>,
    pub(super) inlined: bool,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub(super) struct EndRecord {
    pub(super) at: u64,
    pub(super) ending: String,
}

/// Each event, in order; each with the nanoseconds since the last (the first: since monitoring began).
#[derive(Serialize, Deserialize, Clone, PartialEq, Default, Debug)]
pub(super) struct EventsRecord {
    pub(super) events: Vec<(u64, EventRecord)>,
}

/// As [`Event`](crate::event::Event); see there.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Debug)]
pub(super) enum EventRecord {
    Allocated { address: u64, size: u64, stack: u32 },
    Freed { address: u64 },
    Reallocating { call: u64, address: u64 },
    Reallocated { call: u64, address: u64, size: u64, stack: u32 },
    ReallocFailed { call: u64 },
    ReallocFreed { call: u64 },
    Mapped { address: u64, size: u64, stack: u32 },
    Unmapped { address: u64, size: u64 },
    Remapped { from: u64, from_size: u64, address: u64, size: u64, stack: u32 },
    UnknownFrees { count: u64 },
    Replaced,
    Lost { loss: u8, count: u64 },
    Resized { count: u64, bytes: u64 },
    Marked { number: u32 },
    Called { reference: u32, count: u64 },
    Object { class: u8, event: ObjectRecord },
}

/// What happens to objects.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Debug)]
pub(super) enum ObjectRecord {
    Allocated { address: u64, size: u64, stack: u32 },
    Freed { address: u64 },
    Retained { address: u64 },
    Released { address: u64 },
}

/// By their numbers in the file.
pub(super) const KINDS: [FrameKind; 3] = [FrameKind::Exact, FrameKind::ReturnAddress, FrameKind::Thread];

/// By their numbers in the file.
pub(super) const ENDINGS: [Ending; 7] = [
    Ending::Complete,
    Ending::DepthLimit,
    Ending::NoUnwindInfo,
    Ending::UnknownCode,
    Ending::HiddenByProbe,
    Ending::UnreadableStack,
    Ending::Inconsistent,
];

/// By their numbers in the file.
pub(super) const LOSSES: [Loss; Loss::ALL.len()] = Loss::ALL;

/// The number of a value in one of these lists.
pub(super) fn number_of<T: PartialEq>(list: &[T], value: &T) -> u8 {
    list.iter().position(|other| other == value).and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX)
}

pub(super) fn losses(record: &[(u8, u64)]) -> BTreeMap<Loss, u64> {
    record.iter().filter_map(|&(number, count)| Some((*LOSSES.get(usize::from(number))?, count))).collect()
}

pub(super) fn tally(record: TallyRecord) -> Tally {
    Tally { count: record.0, bytes: record.1 }
}

impl From<Level> for LevelRecord {
    fn from(level: Level) -> Self {
        LevelRecord { at: level.at.0, allocated: pair(level.allocated), live: pair(level.live) }
    }
}

impl From<LevelRecord> for Level {
    fn from(record: LevelRecord) -> Self {
        Level { at: Timestamp(record.at), allocated: tally(record.allocated), live: tally(record.live) }
    }
}

pub(super) fn pair(tally: Tally) -> TallyRecord {
    (tally.count, tally.bytes)
}

impl From<&Frame> for FrameRecord {
    fn from(frame: &Frame) -> Self {
        FrameRecord {
            module: frame.module.map(|module| module.0),
            kind: number_of(&KINDS, &frame.kind),
            address: frame.address,
        }
    }
}

impl From<FrameRecord> for Frame {
    fn from(record: FrameRecord) -> Self {
        Frame {
            module: record.module.map(ModuleId),
            kind: KINDS.get(usize::from(record.kind)).copied().unwrap_or(FrameKind::Exact),
            address: record.address,
        }
    }
}

/// The buckets of `new` that differ from those of `old`.
pub(super) fn changed_buckets(old: &Histogram, new: &Histogram) -> Vec<(u8, u64)> {
    let (old, new) = (old.buckets(), new.buckets());
    (0..old.len().max(new.len()))
        .filter_map(|bucket| {
            let at = |buckets: &[u64]| buckets.get(bucket).copied().unwrap_or(0);
            (at(old) != at(new)).then_some((u8::try_from(bucket).ok()?, at(new)))
        })
        .collect()
}

/// `histogram` with these buckets.
pub(super) fn with_buckets(histogram: &Histogram, changed: &[(u8, u64)]) -> Histogram {
    let mut buckets = histogram.buckets().to_vec();
    for &(bucket, count) in changed {
        let bucket = usize::from(bucket);
        if bucket >= buckets.len() {
            buckets.resize(bucket + 1, 0);
        }
        buckets[bucket] = count;
    }
    Histogram::from_buckets(buckets)
}
