//! A target observed by uprobes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::error::Error;
use std::rc::Rc;
use std::time::Duration;

use libbpf_rs::RingBuffer;
use memleax_platform::{AuxiliaryVector, MappedFile, Mapping, Pid, Tracer, native};
use rustc_hash::FxHashMap;

use super::attachment::Attachment;
use super::books::{self, Census};
use super::history::History;
use super::kernel::{Copies, Kernel, Probe, Sizes};
use super::layout::{CLASSES, Control};
use super::mmap_events::{Learnt, MmapEvents};
use super::records::Records;
use super::table::RuleTable;
use crate::allocator::NamedFunctions;
use crate::config::Config;
use crate::event::{Backtrace, Class, Ending, Event, Loss, Sink, StackId, Tally, Timestamp, Totals};
use crate::histogram::Histogram;
use crate::marker::{Markers, References};
use crate::notable::KnownBlock;
use crate::source::{Notice, Progress, Source};
use crate::stack::StackTable;
use crate::unwind::{DebugFiles, ModuleMap, ModuleTable, Role as ModuleRole, Unwinder};

pub use error::AttachError;

/// How long [`Source::observe`] observes.
const TICK: Duration = Duration::from_millis(100);

/// How often all live blocks are looked at, at the least.
const CENSUS: Duration = Duration::from_secs(1);

/// Buckets for a million live blocks, four million beyond those, and room for libraries that are loaded later.
const SIZES: Sizes = Sizes {
    rows: 1 << 18,
    bucket_bits: 17,
    overflow: 1 << 22,
    records: 1 << 23,
    copies: Copies::WHERE_NEEDED,
    objects: false,
};

/// Between two looks passes so many times what one costs in processor time.
const SPARING: u32 = 20;

const MAY_BE_MISSING: &str = "a library that was loaded and gone again within milliseconds may be missing in stacks";

/// A target observed by uprobes.
pub struct BpfSource<T> {
    facts: T,
    target: Pid,
    debug_files: DebugFiles,
    kernel: Kernel,
    ring: RingBuffer<'static>,
    records: Rc<RefCell<Records>>,
    modules: ModuleMap,
    unwinder: Unwinder,
    depth: usize,
    mmap: bool,
    /// Functions of objects, and of memory besides those that are known.
    named: NamedFunctions,
    markers: Markers,
    /// What the kernel counts calls for, by place.
    places: Vec<References>,
    /// Of each reference, as far as they were told of.
    calls: Vec<u64>,
    /// Calls of functions that the user has named which were told of as lost.
    lost_named: u64,
    /// Calls of them since the last count.
    marks: Vec<u32>,
    table: RuleTable,
    /// By number.
    functions: Vec<HookedFunction>,
    /// Files with probes. These are of the file, not of the place where it is mapped.
    hooked: FxHashMap<FileId, Vec<Probe>>,
    stacks: StackTable,
    /// By class.
    notable: Vec<Vec<KnownBlock>>,
    /// Of the live blocks at the last look.
    ages: BTreeMap<(Class, StackId), Histogram>,
    /// By the kernel's number.
    sites: FxHashMap<u64, Known>,
    /// By the kernel's number: the blocks that went away with a program that was replaced.
    dropped: FxHashMap<u64, Tally>,
    notices: Vec<Notice>,
    watch: native::ProcessWatch,
    expire: Duration,
    began: u64,
    /// The time of the last event.
    told: Timestamp,
    /// The time of the last census.
    counted: Timestamp,
    next_census: u64,
    /// No census before, whoever asks.
    earliest_census: u64,
    seen: Counters,
    /// The rule cache is to be emptied once more.
    cache_is_stale: bool,
    /// As of the newest look.
    auxiliary: AuxiliaryVector,
    history: History,
    /// `None` if the kernel denies them.
    mmap_events: Option<MmapEvents>,
    /// Not every mapping of code was told; this was said.
    has_missed_mappings: bool,
    /// Code was mapped since the newest look.
    is_behind: bool,
    /// Of the rule table in use and the one before, which comes first.
    tables: [TableTimes; 2],
}

/// A rule table's times, of the kernel's monotonic clock.
#[derive(Clone, Copy, Debug)]
struct TableTimes {
    /// When the look began that it goes by.
    looked: u64,
    /// Since when it is in use.
    published: u64,
}

/// A call stack that has a number of the kernel's.
#[derive(Clone, Copy, Debug)]
struct Known {
    stack: StackId,
    /// Of the function at its inner end.
    class: Class,
    /// By which the kernel knows it.
    hash: u64,
}

/// Device and inode.
type FileId = (u64, u64);

/// A function with a probe.
#[derive(Clone, Copy, Debug)]
struct HookedFunction {
    file: FileId,
    /// As the file counts addresses.
    address: u64,
    class: Class,
}

/// Counters of the kernel's that were told of.
#[derive(Clone, Copy, Default)]
struct Counters {
    loader_changes: u64,
    execs: u64,
    losses: [u64; LOSSES.len()],
    unknown_frees: u64,
    /// By class.
    unknown_objects: [u64; CLASSES],
    resized: Tally,
}

/// Which of the kernel's counters are losses, and which.
const LOSSES: [(Control, Loss); 7] = [
    (Control::LostCalls, Loss::NotFollowed),
    (Control::LostBlocks, Loss::BlockNotKept),
    (Control::LostSites, Loss::StackNotKept),
    (Control::LostStacks, Loss::NoStack),
    (Control::NeverReturned, Loss::NeverReturned),
    (Control::LostMappings, Loss::MappingNotKept),
    (Control::LostMarks, Loss::SnapshotNotTaken),
];

impl<T: Tracer> BpfSource<T> {
    /// Sets probes in process `target`. `facts` is asked about it and traces nothing.
    ///
    /// # Errors
    /// [`AttachError`]; the process has then been left as it was.
    pub fn attach(target: Pid, config: &Config, facts: T, debug_files: DebugFiles) -> Result<Self, AttachError> {
        Self::attach_with(target, config, facts, debug_files, &Attachment::BEST_FIRST, SIZES)
    }

    /// The same by one of `variants`, with other sizes; `sizes.rows` is what is to be left for libraries that are loaded later.
    fn attach_with(
        target: Pid,
        config: &Config,
        facts: T,
        debug_files: DebugFiles,
        variants: &[Attachment],
        sizes: Sizes,
    ) -> Result<Self, AttachError> {
        let watch = native::ProcessWatch::new(target)?;
        let mut modules = ModuleMap::default();
        let mut facts = facts;
        // Before the first look, so that no mapping is missed.
        let mut notices = Vec::new();
        let mmap_events = MmapEvents::new(target).map_err(|why| {
            notices.push(Notice::Warning(format!("cannot observe mappings of code: {why}; {MAY_BE_MISSING}")));
        });
        let mut history = History::default();
        let (auxiliary, _) = refresh(&mut facts, target, &mut modules, &mut history)?;
        history.settle();
        let looked = history.looked();
        let mut debug_files = debug_files;
        let mut unwinder = Unwinder::default();
        unwinder.update(&modules, &mut debug_files);
        let mut table = RuleTable::new();
        let rows = table.rows(&modules, &mut debug_files);
        let rows_at_most = 2 * (rows.len() + sizes.rows as usize);
        let objects = !config.objects.types().is_empty();
        let sizes = Sizes { rows: u32::try_from(rows_at_most).unwrap_or(u32::MAX), objects, ..sizes };
        let mut kernel = Kernel::load(variants, sizes).map_err(|cause| AttachError::Load { cause })?;
        let frames = u32::try_from(config.depth.saturating_sub(1)).unwrap_or(u32::MAX);
        kernel.configure(config.limits.expire, frames);
        table.publish(&rows, &kernel.table());
        let records = Rc::new(RefCell::new(Records::default()));
        let inbox = Rc::clone(&records);
        let ring = kernel
            .records(move |bytes| inbox.borrow_mut().add(bytes))
            .map_err(|cause| AttachError::Records { cause })?;
        if let Err(why) = kernel.watch_exec(target) {
            tracing::warn!("cannot observe exec: {why:#}");
        }
        let markers = Markers::new(&config.snapshot_at, &config.references);
        let calls = vec![0; markers.count_references()];
        let mut source = BpfSource {
            facts,
            target,
            debug_files,
            kernel,
            ring,
            records,
            modules,
            unwinder,
            depth: config.depth,
            mmap: config.mmap,
            named: NamedFunctions::new(config.objects.functions()),
            markers,
            places: Vec::new(),
            calls,
            lost_named: 0,
            marks: Vec::new(),
            table,
            functions: Vec::new(),
            hooked: FxHashMap::default(),
            stacks: StackTable::default(),
            sites: FxHashMap::default(),
            notable: Vec::new(),
            ages: BTreeMap::new(),
            dropped: FxHashMap::default(),
            notices,
            watch,
            expire: config.limits.expire,
            began: native::monotonic_nanoseconds(),
            told: Timestamp::default(),
            counted: Timestamp::default(),
            next_census: 0,
            earliest_census: 0,
            seen: Counters::default(),
            cache_is_stale: false,
            auxiliary,
            history,
            mmap_events: mmap_events.ok(),
            has_missed_mappings: false,
            is_behind: false,
            tables: [TableTimes { looked, published: 0 }; 2],
        };
        let live = source.modules.live().to_vec();
        for module in &live {
            source.hook(module)?;
        }
        source.kernel.open_books();
        let missing = source.named.missing();
        if !missing.is_empty() {
            return Err(AttachError::Missing { pid: target, missing });
        }
        if !source.functions.iter().any(|function| function.class == Class::MEMORY) {
            let searched: Vec<String> = live.iter().map(|module| module.path.display().to_string()).collect();
            let error = AttachError::NoAllocator { pid: target, searched: searched.join(", ") };
            if source.functions.is_empty() {
                return Err(error);
            }
            source.notices.push(Notice::Warning(format!("{error}; only objects are followed")));
        }
        let awaited = source.named.awaited();
        source.notices.extend(awaited.map(|awaited| {
            Notice::Warning(format!(
                "{awaited}; calls in the first milliseconds after that are missed, which --backend=ptrace sees"
            ))
        }));
        source.notices.extend(source.markers.missing().into_iter().map(Notice::Warning));
        Ok(source)
    }

    fn now(&self) -> Timestamp {
        Timestamp(native::monotonic_nanoseconds().saturating_sub(self.began))
    }

    /// Looks at what is mapped now.
    fn modules_changed(&mut self) -> Result<(), AttachError> {
        let (auxiliary, changes) = refresh(&mut self.facts, self.target, &mut self.modules, &mut self.history)?;
        self.auxiliary = auxiliary;
        let looked = self.history.looked();
        if changes.added.is_empty() && changes.removed.is_empty() {
            self.tables[1].looked = looked;
            return Ok(());
        }
        self.forget_stacks_of(&changes.removed);
        self.unwinder.update(&self.modules, &mut self.debug_files);
        let rows = self.table.rows(&self.modules, &mut self.debug_files);
        if !self.table.publish(&rows, &self.kernel.table()) {
            let message = "no room for the unwind information of the libraries loaded now: stacks end there";
            self.notices.push(Notice::Warning(message.into()));
        }
        self.cache_is_stale = true;
        self.tables = [self.tables[1], TableTimes { looked, published: native::monotonic_nanoseconds() }];
        for module in changes.added {
            if let Err(why) = self.hook(&module) {
                self.notices.push(Notice::Warning(why.to_string()));
            }
        }
        Ok(())
    }

    /// The same; a target that is just ending has nothing to look at any more, and its end is told next.
    fn look_again(&mut self) -> Result<(), AttachError> {
        match self.modules_changed() {
            Err(AttachError::Platform(memleax_platform::Error::Gone(_))) => Ok(()),
            result => result,
        }
    }

    /// Waits for a tick, or for what is more urgent, learns what is mapped now, and receives the kernel's records. True if the target
    /// has ended.
    fn receive(&mut self, sink: &mut dyn Sink) -> Result<bool, Box<dyn Error + Send + Sync>> {
        let ended = self.watch.wait(self.ring.epoll_fd(), TICK)?;
        if std::mem::take(&mut self.cache_is_stale) {
            super::table::forget_cached(self.kernel.table().rule_cache);
        }
        let execs = self.kernel.counter(Control::Execs);
        if std::mem::replace(&mut self.seen.execs, execs) != execs {
            // What the old program did is told by its own modules.
            self.consume()?;
            self.take_records(self.kernel.counter(Control::ExecTime), sink);
            self.replaced(ended, sink)?;
        }
        let changes = self.kernel.counter(Control::LoaderChanges);
        let has_changed = std::mem::replace(&mut self.seen.loader_changes, changes) != changes;
        if !ended && (has_changed | std::mem::take(&mut self.is_behind)) {
            self.look_again()?;
        }
        self.consume()?;
        Ok(ended)
    }

    /// Takes what the kernel has written. First its records, then the mappings that were made: so those that a record is about are known.
    fn consume(&mut self) -> libbpf_rs::Result<()> {
        self.ring.consume()?;
        let Some(mmap_events) = &mut self.mmap_events else { return Ok(()) };
        let Learnt { made, is_incomplete } = mmap_events.receive();
        self.is_behind |= self.history.add(made);
        if is_incomplete {
            self.history.forget();
        }
        if is_incomplete && !std::mem::replace(&mut self.has_missed_mappings, true) {
            let why = "the system has mapped more code than the kernel had room to tell of";
            self.notices.push(Notice::Warning(format!("{why}: {MAY_BE_MISSING}")));
        }
        Ok(())
    }

    /// Tells the tracker what was counted until now.
    fn count(&mut self, sink: &mut dyn Sink) -> libbpf_rs::Result<()> {
        // First the counters, then the blocks: see Census::totals.
        let unnumbered = 0..CLASSES as u64;
        let sites: Vec<_> = unnumbered
            .chain(self.sites.keys().copied())
            .map(|number| (number, books::site(self.kernel.sites(), number)))
            .collect();
        let at = self.now();
        (self.told, self.counted) = (at, at);
        let now = native::monotonic_nanoseconds();
        let expired_until = now.saturating_sub(u64::try_from(self.expire.as_nanos()).unwrap_or(u64::MAX));
        let mut census = Census::new(now);
        for block in books::blocks(self.kernel.live()) {
            census.add(block, expired_until);
        }
        if self.kernel.counter(Control::Overflowed) > 0 {
            self.kernel.overflow(|block| census.add(block, expired_until))?;
        }
        let mut totals: FxHashMap<(Class, StackId), Totals> = FxHashMap::default();
        self.ages.clear();
        for (number, site) in sites {
            if site.allocated == 0 {
                continue;
            }
            let of_stack = match self.sites.get(&number) {
                Some(known) => (known.class, known.stack),
                None => {
                    let frames = Vec::new();
                    let unknown = Backtrace { frames, ending: Ending::UnreadableStack, by_frame_pointer: false };
                    (Class(number as u8), self.stacks.intern(&unknown))
                }
            };
            let mut of_site = census.totals(number, &site, self.began);
            of_site.dropped = self.dropped.get(&number).copied().unwrap_or_default();
            self.ages.entry(of_stack).or_default().merge(&census.ages(number));
            totals.entry(of_stack).and_modify(|totals| totals.add(&of_site)).or_insert(of_site);
        }
        let mut totals: Vec<_> = totals.into_iter().collect();
        let (began, known) = (self.began, &self.sites);
        self.notable = census.into_notable(began, |number| known.get(&number).map(|site| site.stack));
        totals.sort_unstable_by_key(|&(of_stack, _)| of_stack);
        for ((class, stack), totals) in totals {
            match class {
                Class::MEMORY => sink.counted(at, stack, &totals),
                class => sink.object_counted(at, class, stack, &totals),
            }
        }
        self.tell_losses(at, sink);
        self.tell_calls(at, sink);
        for number in self.marks.drain(..) {
            sink.event(at, Event::Marked(number));
        }
        Ok(())
    }

    /// The target has replaced its program: what was live is gone. What the new one has done since is its own already.
    fn replaced(&mut self, ended: bool, sink: &mut dyn Sink) -> Result<(), Box<dyn Error + Send + Sync>> {
        let dropped = &mut self.dropped;
        self.kernel.forget_blocks_before(self.kernel.counter(Control::ExecTime), |block| {
            let of_site: &mut Tally = dropped.entry(block.site).or_default();
            *of_site = of_site.plus(Tally { count: 1, bytes: block.size });
        })?;
        self.count(sink)?;
        sink.event(self.told, Event::Replaced);
        if ended {
            self.notices.push(Notice::Warning(
                "the target replaced its program (exec), and the new one ended before its allocator could be looked for: if that is in \
                 no file that was observed before, nothing of it is counted, and call stacks of it are wrong; --backend ptrace sees all"
                    .into(),
            ));
            return Ok(());
        }
        let files = self.hooked.len();
        self.look_again()?;
        if self.hooked.len() > files {
            let missed = "what the new program allocated before probes were set is missing; --backend ptrace sees all";
            self.notices.push(Notice::Warning(missed.into()));
        }
        let path = self.modules.with_role(ModuleRole::Executable).map(|module| module.path.display().to_string());
        self.notices.push(Notice::Exec(path.unwrap_or_default()));
        Ok(())
    }

    fn tell_losses(&mut self, at: Timestamp, sink: &mut dyn Sink) {
        for (seen, (counter, loss)) in self.seen.losses.iter_mut().zip(LOSSES) {
            let now = self.kernel.counter(counter);
            if now > *seen {
                sink.event(at, Event::Lost(loss, now - *seen));
            }
            *seen = now;
        }
        let unknown = self.kernel.counter(Control::UnknownFrees);
        sink.event(at, Event::UnknownFrees(unknown - self.seen.unknown_frees));
        self.seen.unknown_frees = unknown;
        for (seen, class) in self.seen.unknown_objects.iter_mut().zip((0..).map(Class)) {
            let unknown = self.kernel.unknown_objects(class);
            if unknown > *seen {
                sink.object(at, class, Event::UnknownFrees(unknown - *seen));
            }
            *seen = unknown;
        }
        let resized =
            Tally { count: self.kernel.counter(Control::Resized), bytes: self.kernel.counter(Control::ResizedBytes) };
        sink.event(at, Event::Resized(resized.without(self.seen.resized)));
        self.seen.resized = resized;
    }
}

/// From one census to the next, if one takes `cost` of processor time: at most a twentieth of a processor for many millions of blocks, too.
fn pause(expire: Duration, cost: Duration) -> Duration {
    CENSUS.min(expire / 2).max(SPARING * cost)
}

fn refresh<T: Tracer>(
    facts: &mut T,
    target: Pid,
    modules: &mut ModuleMap,
    history: &mut History,
) -> Result<(AuxiliaryVector, crate::unwind::Changes), AttachError> {
    let looked = native::monotonic_nanoseconds();
    let mappings = facts.mappings(target)?;
    let auxiliary = facts.auxiliary_vector(target)?;
    let mut open = |mapping: &Mapping| MappedFile::new(&facts.open_mapping(target, mapping)?);
    let mut read = |address, buffer: &mut [u8]| native::read_memory(target, address, buffer);
    let changes = modules.refresh(&mappings, &auxiliary, &mut open, &mut read);
    history.look(looked, mappings);
    Ok((auxiliary, changes))
}

impl<T: Tracer> Source for BpfSource<T> {
    fn observe(&mut self, sink: &mut dyn Sink) -> Result<Progress, Box<dyn Error + Send + Sync>> {
        let ended = self.receive(sink)?;
        self.take_records(u64::MAX, sink);
        let now = self.now();
        if ended || now.0 >= self.next_census || !self.marks.is_empty() {
            let before = native::thread_processor_time();
            self.count(sink)?;
            let cost = native::thread_processor_time().saturating_sub(before);
            let after = |pause: Duration| now.0 + u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX);
            self.next_census = after(pause(self.expire, cost));
            self.earliest_census = after(SPARING * cost);
        }
        self.told = self.now();
        sink.event(self.told, Event::Idle);
        Ok(if ended { Progress::TargetEnded(self.watch.status()) } else { Progress::Running })
    }

    fn notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    fn detach(&mut self, sink: &mut dyn Sink) -> Result<Vec<Notice>, Box<dyn Error + Send + Sync>> {
        self.kernel.detach();
        self.consume()?;
        self.take_records(u64::MAX, sink);
        self.count(sink)?;
        Ok(self.notices())
    }

    fn tells_events(&self) -> bool {
        false
    }

    fn notable_blocks(&self) -> Vec<KnownBlock> {
        self.notable_objects(Class::MEMORY)
    }

    fn notable_objects(&self, class: Class) -> Vec<KnownBlock> {
        self.notable.get(usize::from(class.0)).cloned().unwrap_or_default()
    }

    fn last_look(&self) -> Option<Timestamp> {
        Some(self.counted)
    }

    fn ages(&self) -> Vec<(StackId, Histogram)> {
        self.object_ages(Class::MEMORY)
    }

    fn hasten(&mut self) -> bool {
        self.next_census = self.next_census.min(self.earliest_census);
        false
    }

    fn object_ages(&self, class: Class) -> Vec<(StackId, Histogram)> {
        let living = self.ages.iter().filter(|((of, _), ages)| *of == class && ages.count() > 0);
        living.map(|(&(_, stack), ages)| (stack, ages.clone())).collect()
    }

    fn stacks(&self) -> &StackTable {
        &self.stacks
    }

    fn modules(&self) -> &ModuleTable {
        self.modules.table()
    }
}

mod error;
mod functions;
mod markers;
mod stacks;

#[cfg(test)]
mod tests;
