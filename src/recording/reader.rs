//! The reading end: what the records add up to.

use std::collections::BTreeMap;
use std::time::Duration;

use super::chunk::{self, Chunks, Found};
use super::full;
use super::record::{
    Begin, FunctionRecord, LevelRecord, ModuleRecord, NamesRecord, Record, SampleRecord, SiteRecord, StackRecord,
    TallyRecord, TypeRecord, losses, tally, with_buckets,
};
use crate::event::{Class, Frame, Loss, Tally, Timestamp};
use crate::histogram::Histogram;
use crate::notable::KnownBlock;
use crate::tracker::Level;

/// A recording, read.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Replayed {
    pub(super) begin: Begin,
    pub(super) modules: BTreeMap<u32, ModuleRecord>,
    /// By their numbers.
    pub(super) frames: Vec<Option<Frame>>,
    pub(super) stacks: BTreeMap<u32, StackRecord>,
    pub(super) sites: BTreeMap<u32, Books>,
    pub(super) timeline: Vec<Told>,
    /// Functions whose calls are counted, by number.
    pub(super) references: Vec<String>,
    pub(super) peak: Option<Level>,
    pub(super) snapshots: Vec<Taken>,
    pub(super) blocks: Vec<KnownBlock>,
    /// Of the live blocks as of the last sample, in seconds, by call stack; `None` if they were not asked for then.
    pub(super) ages: Option<BTreeMap<u32, Histogram>>,
    pub(super) unknown_frees: u64,
    pub(super) resized: Tally,
    pub(super) losses: BTreeMap<Loss, u64>,
    pub(super) remarks: Vec<String>,
    /// The functions of frames, by the frames' numbers.
    pub(super) names: BTreeMap<u32, Vec<FunctionName>>,
    pub(super) ending: Option<(Timestamp, String)>,
    /// The types of objects, in the order of their classes.
    pub(super) types: Vec<TypeRecord>,
    /// By class: what is known of their books.
    pub(super) objects: BTreeMap<u8, OfType>,
}

/// The books of a type of objects.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct OfType {
    /// Without what is told of the process: modules, frames, stacks.
    pub(super) replayed: Replayed,
    pub(super) shares: Shares,
}

/// A moment.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Told {
    pub(super) level: Level,
    /// Of each reference until then; what is missing was not called.
    pub(super) calls: Vec<u64>,
}

/// What is known of one call stack.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Books {
    pub(super) allocated: Tally,
    pub(super) live: Tally,
    pub(super) expired: Tally,
    pub(super) freed_expired: Tally,
    pub(super) at_peak: Tally,
    pub(super) temporary: Tally,
    pub(super) sizes: Histogram,
    pub(super) lifetimes: Histogram,
    pub(super) lives: Option<(Duration, Duration, Duration)>,
    pub(super) oldest: Option<Timestamp>,
    /// Index of a moment, and what was live from then on.
    pub(super) growth: Vec<(usize, Tally)>,
}

/// A snapshot: what was live, by call stack.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Taken {
    pub(super) cause: String,
    pub(super) level: Level,
    pub(super) live: Vec<(u32, Tally)>,
}

/// A function of a frame, its strings looked up.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct FunctionName {
    pub(super) name: String,
    pub(super) raw: String,
    pub(super) file: Option<String>,
    pub(super) record: FunctionRecord,
}

/// Reads a recording as far as it is whole; what is not is told in its remarks. `None` without its first record.
///
/// `expire` replaces the expiry time, if the recording holds single events; else it says in a remark that it cannot.
#[must_use]
pub fn replay(bytes: &[u8], expire: Option<Duration>) -> Option<Replayed> {
    if full::has_events(bytes) {
        // It is made in memory, where nothing fails.
        let summary = full::summed_up(bytes, expire).ok()?;
        return read(&summary);
    }
    let mut replayed = read(bytes)?;
    let recorded = Duration::from_nanos(replayed.begin.expire);
    if expire.is_some_and(|expire| expire != recorded) {
        replayed.remarks.push(format!(
            "The expiry time is the recording's, {} s: only a recording made with --full can be asked for another.",
            recorded.as_secs_f64()
        ));
    }
    Some(replayed)
}

fn read(bytes: &[u8]) -> Option<Replayed> {
    let mut replayed: Option<Replayed> = None;
    let mut shares = Shares::default();
    let (mut damage, mut damaged_bytes) = (0_u64, 0);
    for found in Chunks::new(bytes) {
        match (found, &mut replayed) {
            (Found::Record(Record::Begin(begin)), None) => replayed = Some(Replayed { begin, ..Replayed::default() }),
            (Found::Record(record), Some(replayed)) => replayed.take(record, &mut shares),
            (Found::Record(_), None) => {}
            (Found::Damage(lost), _) => {
                damage += 1;
                damaged_bytes += lost;
            }
            (Found::CutShort(_), _) => {}
        }
    }
    let mut replayed = replayed?;
    replayed.share(&shares);
    if damage > 0 {
        replayed.remarks.push(format!(
            "The recording is damaged in {damage} place{}, {damaged_bytes} bytes in all: moments or names may be missing.",
            if damage == 1 { "" } else { "s" }
        ));
    }
    Some(replayed)
}

impl Replayed {
    /// What each call stack had at the last peak.
    pub(super) fn share(&mut self, shares: &Shares) {
        for (&stack, books) in &mut self.sites {
            books.at_peak = shares.at_peak(stack);
        }
        for OfType { replayed, shares } in self.objects.values_mut() {
            replayed.share(shares);
        }
    }

    pub(super) fn take(&mut self, record: Record, shares: &mut Shares) {
        match record {
            // A second beginning is damage that looks whole.
            Record::Begin(_) | Record::Events(_) => {}
            Record::Module(module) => {
                self.modules.insert(module.id, module);
            }
            Record::Frames(record) => {
                let Ok(first) = usize::try_from(record.first) else { return };
                // A lost record leaves a gap, but not one that a number made up could tear open.
                if first > self.frames.len() + (1 << 20) {
                    return;
                }
                let end = first + record.frames.len();
                if end > self.frames.len() {
                    self.frames.resize(end, None);
                }
                for (frame, record) in self.frames[first..end].iter_mut().zip(record.frames) {
                    *frame = Some(record.into());
                }
            }
            Record::Stack(stack) => {
                self.stacks.insert(stack.id, stack);
            }
            Record::Sample(sample) => self.sample(&sample, shares),
            Record::Types(types) => self.types = types,
            Record::Object(class, record) => {
                let OfType { replayed, shares } = self.objects.entry(class).or_default();
                replayed.take(record.into(), shares);
            }
            Record::Snapshot(cause) => {
                for OfType { replayed, shares } in self.objects.values_mut() {
                    replayed.take(Record::Snapshot(cause.clone()), shares);
                }
                let Some(level) = self.timeline.last().map(|told| told.level) else { return };
                let live = self.sites.iter().filter(|(_, books)| books.live != Tally::default());
                let live = live.map(|(&stack, books)| (stack, books.live)).collect();
                self.snapshots.push(Taken { cause, level, live });
            }
            Record::Blocks(blocks) => {
                self.blocks = blocks
                    .into_iter()
                    .map(|block| KnownBlock {
                        size: block.size,
                        allocated: Timestamp(block.allocated),
                        address: block.address,
                        stack: crate::event::StackId(block.stack),
                    })
                    .collect();
            }
            Record::Remark(remark) => self.remarks.push(remark),
            Record::Names(names) => self.name(&names),
            Record::End(end) => self.ending = Some((Timestamp(end.at), end.ending)),
            Record::Ages(ages) => {
                let nothing = Histogram::default();
                let of_stack = |(stack, buckets): (u32, Vec<(u8, u64)>)| (stack, with_buckets(&nothing, &buckets));
                self.ages = Some(ages.into_iter().map(of_stack).collect());
            }
            Record::References(names) => self.references = names,
            Record::Calls(calls) => {
                if let Some(told) = self.timeline.last_mut() {
                    told.calls = calls;
                }
            }
        }
    }

    fn sample(&mut self, sample: &SampleRecord, shares: &mut Shares) {
        shares.take(sample);
        let moment = self.timeline.len();
        // Unless there is more to tell of.
        let calls = self.timeline.last().map(|told| told.calls.clone()).unwrap_or_default();
        self.timeline.push(Told { level: sample.level.into(), calls });
        self.peak = sample.peak.map(Level::from).or(self.peak);
        self.unknown_frees = sample.unknown_frees;
        self.resized = tally(sample.resized);
        self.losses = losses(&sample.losses);
        self.ages = None;
        for site in &sample.sites {
            let books = self.sites.entry(site.stack).or_default();
            let live = tally(site.live);
            if live != books.live {
                books.growth.push((moment, live));
            }
            books.allocated = tally(site.allocated);
            books.live = live;
            books.expired = tally(site.expired);
            books.freed_expired = tally(site.freed_expired);
            books.temporary = tally(site.temporary);
            books.sizes = with_buckets(&books.sizes, &site.sizes);
            books.lifetimes = with_buckets(&books.lifetimes, &site.lifetimes);
            let duration = Duration::from_nanos;
            books.lives = site.lives.map(|(min, mean, max)| (duration(min), duration(mean), duration(max)));
            books.oldest = site.oldest.map(Timestamp);
        }
    }

    fn name(&mut self, names: &NamesRecord) {
        let text = |number: u32| names.strings.get(usize::try_from(number).ok()?).cloned();
        for (frame, functions) in &names.frames {
            let functions = functions
                .iter()
                .map(|record| FunctionName {
                    name: text(record.name).unwrap_or_default(),
                    raw: text(record.raw).unwrap_or_default(),
                    file: record.file.and_then(text),
                    record: record.clone(),
                })
                .collect();
            self.names.insert(*frame, functions);
        }
    }
}

/// What each call stack had live at the last peak: told with a sample that has a new one, else what it had live before it changed for the
/// first time after.
#[derive(Clone, PartialEq, Default, Debug)]
pub(super) struct Shares {
    peaks: u64,
    sites: BTreeMap<u32, Share>,
}

#[derive(Default, Clone, Copy, PartialEq, Debug)]
struct Share {
    live: TallyRecord,
    at_peak: TallyRecord,
    of_peak: u64,
}

impl Shares {
    fn take(&mut self, sample: &SampleRecord) {
        if sample.peak.is_some() {
            self.peaks += 1;
        }
        for site in &sample.sites {
            let share = self.sites.entry(site.stack).or_default();
            if share.of_peak != self.peaks {
                share.at_peak = share.live;
                share.of_peak = self.peaks;
            }
            share.live = site.live;
            if let Some(at_peak) = site.at_peak {
                share.at_peak = at_peak;
            }
        }
    }

    pub(super) fn at_peak(&self, stack: u32) -> Tally {
        let share = self.sites.get(&stack).copied().unwrap_or_default();
        tally(if share.of_peak == self.peaks { share.at_peak } else { share.live })
    }
}

/// At most so many moments are left of a recording that is written anew.
const MOMENTS: u64 = 512;

/// The same recording with fewer moments, so that it takes `length` bytes if that is possible. What is damaged is left out.
pub(super) fn thinned(bytes: &[u8], length: u64) -> Vec<u8> {
    let span = Chunks::new(bytes)
        .filter_map(|found| match found {
            Found::Record(Record::Sample(sample)) => Some(sample.level.at),
            _ => None,
        })
        .max()
        .unwrap_or(0);
    let mut interval = span / MOMENTS;
    loop {
        let thinned = with_interval(bytes, interval);
        if thinned.len() as u64 <= length || interval > span {
            return thinned;
        }
        interval = interval.saturating_mul(2).max(1);
    }
}

/// The same recording with moments at least so many nanoseconds apart, but for snapshots and the last.
fn with_interval(bytes: &[u8], interval: u64) -> Vec<u8> {
    let mut thinned = chunk::header().to_vec();
    let mut classes: BTreeMap<u8, Thinning> = BTreeMap::new();
    let mut write = |record: Record| {
        // Into memory: it does not fail.
        _ = chunk::append(&record, &mut thinned);
    };
    for found in Chunks::new(bytes) {
        let Found::Record(record) = found else { continue };
        let (class, record) = match record {
            Record::Object(class, record) => (class, record.into()),
            other => (Class::MEMORY.0, other),
        };
        let is_last = matches!(record, Record::Snapshot(_) | Record::Blocks(_) | Record::End(_));
        if is_last && class == Class::MEMORY.0 {
            classes.iter_mut().for_each(|(&class, of)| of.flush(Class(class), &mut write));
        }
        let of = classes.entry(class).or_insert_with(|| Thinning { next: interval, ..Thinning::default() });
        of.take(Class(class), record, interval, &mut write);
    }
    for (class, mut of) in classes {
        of.flush(Class(class), &mut write);
        of.ages.into_iter().for_each(|ages| write(Record::of_class(Class(class), ages)));
    }
    thinned
}

/// The moments of a class on their way to fewer.
#[derive(Default)]
struct Thinning {
    shares: Shares,
    merged: Option<SampleRecord>,
    /// Of that sample.
    calls: Option<Record>,
    /// Only those of the last moment are of use.
    ages: Option<Record>,
    next: u64,
}

impl Thinning {
    fn take(&mut self, class: Class, record: Record, interval: u64, write: &mut impl FnMut(Record)) {
        match record {
            Record::Sample(sample) => {
                self.ages = None;
                self.shares.take(&sample);
                if let Some(at) = self.merged.as_ref().map(|earlier| earlier.level.at).filter(|&at| at >= self.next) {
                    self.next = at.saturating_add(interval);
                    self.flush(class, write);
                }
                self.merged = Some(match self.merged.take() {
                    Some(earlier) => merge(earlier, sample, &self.shares),
                    None => sample,
                });
            }
            Record::Calls(_) => self.calls = Some(record),
            Record::Ages(_) => self.ages = Some(record),
            record => {
                if matches!(record, Record::Blocks(_)) {
                    self.flush(class, write);
                }
                write(Record::of_class(class, record));
            }
        }
    }

    /// Writes what is held back.
    fn flush(&mut self, class: Class, write: &mut impl FnMut(Record)) {
        let held = self.merged.take().map(Record::Sample).into_iter().chain(self.calls.take());
        held.for_each(|record| write(Record::of_class(class, record)));
    }
}

/// Two samples as one.
fn merge(earlier: SampleRecord, later: SampleRecord, shares: &Shares) -> SampleRecord {
    let peak: Option<LevelRecord> = later.peak.or(earlier.peak);
    let mut sites: BTreeMap<u32, SiteRecord> = earlier.sites.into_iter().map(|site| (site.stack, site)).collect();
    for mut site in later.sites {
        if let Some(old) = sites.remove(&site.stack) {
            site.sizes = merge_buckets(&old.sizes, &site.sizes);
            site.lifetimes = merge_buckets(&old.lifetimes, &site.lifetimes);
        }
        sites.insert(site.stack, site);
    }
    let has_peak = peak.is_some();
    let mut sites: Vec<SiteRecord> = sites.into_values().collect();
    for site in &mut sites {
        let share = shares.at_peak(site.stack);
        site.at_peak = has_peak.then_some((share.count, share.bytes));
    }
    SampleRecord { peak, sites, ..later }
}

fn merge_buckets(earlier: &[(u8, u64)], later: &[(u8, u64)]) -> Vec<(u8, u64)> {
    let mut buckets: BTreeMap<u8, u64> = earlier.iter().copied().collect();
    buckets.extend(later.iter().copied());
    buckets.into_iter().collect()
}
