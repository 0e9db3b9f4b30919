//! From what was recorded to what is shown: the [`Profile`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::reader::{Books, Replayed, Told};
use super::record::{ENDINGS, ModuleRecord, StackRecord, TypeRecord};
use crate::event::{Class, Ending, Frame, Tally, Timestamp};
use crate::profile::{LiveBlock, Module, Moment, Profile, Reference, Run, Site, Snapshot};
use crate::symbol::{Function, NamedFrame, NamedStack};
use crate::tracker::Level;
use crate::unwind::NotedModule;

/// Modules that may be missing between others.
const LOST: usize = 1000;

/// Moments that a profile has at the most: more than a screen has columns.
pub(super) const MOMENTS: usize = 1000;

impl Replayed {
    /// True if the recording tells the names of its frames itself: its run came to its end.
    #[must_use]
    pub fn has_names(&self) -> bool {
        !self.names.is_empty()
    }

    /// Lets frames be named anew.
    pub fn forget_names(&mut self) {
        self.names.clear();
    }

    /// How many frames there are to name.
    #[must_use]
    pub fn count_frames(&self) -> usize {
        self.frames.len()
    }

    /// The modules, by their numbers, none left out.
    #[must_use]
    pub fn modules(&self) -> Vec<NotedModule> {
        let last = self.modules.keys().next_back().map_or(0, |last| last + 1);
        let noted = |id| {
            let Some(module) = self.modules.get(&id) else {
                // Lost with a damaged part. Its frames keep their addresses.
                let path = "[lost module]".into();
                return NotedModule { path, build_id: Vec::new(), range: 0..0, bias: 0, is_executable: false };
            };
            NotedModule {
                path: module.path.clone().into(),
                build_id: module.build_id.clone(),
                range: module.start..module.end,
                bias: module.bias,
                is_executable: module.is_executable,
            }
        };
        // As many as there are records, however large a number a damaged one may have.
        (0..last).take(self.modules.len() + LOST).map(noted).collect()
    }

    /// All that it tells. `name` is asked for frames whose names the recording has not got; `None` if it cannot name them.
    #[must_use]
    pub fn into_profile(mut self, name: &mut dyn FnMut(&Frame) -> Option<Arc<NamedFrame>>) -> Profile {
        let objects = self.objects_profiles(name);
        let end = self.ending.as_ref().map(|(at, _)| *at).max(self.timeline.last().map(|told| told.level.at));
        let end = end.unwrap_or_default();
        let mut naming = Naming { replayed: &self, frames: vec![None; self.frames.len()], name };
        let stacks: Vec<NamedStack> = self.sites.keys().map(|stack| naming.stack(self.stacks.get(stack))).collect();
        let kept = thin(&self.timeline);
        let indexes: BTreeMap<u32, usize> = self.sites.keys().copied().zip(0..).collect();
        let references = self.references(&kept);
        let sites = std::mem::take(&mut self.sites);
        let sites =
            sites.into_values().zip(stacks).map(|(books, stack)| site(books, stack, end, &kept, &self)).collect();
        let mut sites: Vec<Site> = sites;
        if let Some(ages) = &self.ages {
            for (stack, &index) in &indexes {
                sites[index].ages = Some(ages.get(stack).cloned().unwrap_or_default());
            }
        }
        let live = |live: Vec<(u32, Tally)>| {
            live.into_iter().filter_map(|(stack, tally)| Some((*indexes.get(&stack)?, tally))).collect()
        };
        let snapshots = std::mem::take(&mut self.snapshots)
            .into_iter()
            .map(|taken| Snapshot { cause: taken.cause, moment: moment(taken.level), live: live(taken.live) })
            .collect();
        let blocks = self.blocks.iter().filter_map(|block| {
            let age = end.since(block.allocated);
            Some(LiveBlock { address: block.address, size: block.size, age, site: *indexes.get(&block.stack.0)? })
        });
        let blocks = blocks.collect();
        let mut modules: Vec<&ModuleRecord> = self.modules.values().collect();
        modules.sort_by_key(|module| !module.is_executable);
        Profile {
            run: Run {
                pid: self.begin.pid,
                command: self.begin.command,
                executable: self.begin.executable,
                backend: self.begin.backend,
                version: self.begin.version,
                started: self.begin.started,
                monitored: end.since(Timestamp::default()),
                expire: Duration::from_nanos(self.begin.expire),
                launched: self.begin.launched,
                by_event: self.begin.by_event,
                ending: self.ending.map(|(_, ending)| ending),
            },
            modules: modules.into_iter().map(module).collect(),
            sites,
            timeline: kept.iter().map(|&index| moment(self.timeline[index].level)).collect(),
            references,
            peak: self.peak.map(moment),
            snapshots,
            blocks,
            unknown_frees: self.unknown_frees,
            resized: self.resized,
            losses: self.losses,
            remarks: self.remarks,
            of: None,
            objects,
        }
    }
}

impl Replayed {
    /// The types of objects, in the order of their classes.
    fn objects_profiles(&mut self, name: &mut dyn FnMut(&Frame) -> Option<Arc<NamedFrame>>) -> Vec<Profile> {
        let (types, mut objects) = (std::mem::take(&mut self.types), std::mem::take(&mut self.objects));
        let profile = |(place, of): (usize, TypeRecord)| {
            let books = objects.remove(&Class::of_type(place).0).unwrap_or_default().replayed;
            let of_process = Replayed {
                begin: self.begin.clone(),
                modules: self.modules.clone(),
                frames: self.frames.clone(),
                stacks: self
                    .stacks
                    .iter()
                    .filter(|(id, _)| books.sites.contains_key(id))
                    .map(|(id, stack)| (*id, stack.clone()))
                    .collect(),
                names: self.names.clone(),
                references: self.references.clone(),
                ending: self.ending.clone(),
                ..books
            };
            let mut profile = of_process.into_profile(name);
            if of.is_counted {
                // The count may have ended before what is freed again.
                profile.unknown_frees = 0;
            }
            profile.of = Some(of.name);
            profile
        };
        types.into_iter().enumerate().map(profile).collect()
    }

    /// How often each reference was called until the moments kept.
    fn references(&self, kept: &[usize]) -> Vec<Reference> {
        let counts = |number: usize| {
            let of_moment = |&index: &usize| self.timeline[index].calls.get(number).copied().unwrap_or(0);
            kept.iter().map(of_moment).collect()
        };
        let names = self.references.iter().enumerate();
        names.map(|(number, name)| Reference { name: name.clone(), counts: counts(number) }).collect()
    }
}

/// Names each frame once.
struct Naming<'a> {
    replayed: &'a Replayed,
    /// By their numbers.
    frames: Vec<Option<Arc<NamedFrame>>>,
    name: &'a mut dyn FnMut(&Frame) -> Option<Arc<NamedFrame>>,
}

impl Naming<'_> {
    fn stack(&mut self, record: Option<&StackRecord>) -> NamedStack {
        let Some(record) = record else {
            let frames = vec![placeholder("[call stack lost with a damaged part of the recording]")];
            return NamedStack { frames, ending: Ending::UnreadableStack, by_frame_pointer: false };
        };
        let mut frames: Vec<_> = record.frames.iter().map(|&number| self.frame(number)).collect();
        if frames.is_empty() {
            frames.push(placeholder("[call stack unknown]"));
        }
        let ending = ENDINGS.get(usize::from(record.ending)).copied().unwrap_or(Ending::UnreadableStack);
        NamedStack { frames, ending, by_frame_pointer: record.by_frame_pointer }
    }

    fn frame(&mut self, number: u32) -> Arc<NamedFrame> {
        let index = number as usize;
        let Some(frame) = self.replayed.frames.get(index).copied().flatten() else {
            return placeholder("[frame lost with a damaged part of the recording]");
        };
        if let Some(named) = &self.frames[index] {
            return Arc::clone(named);
        }
        let named = match self.replayed.names.get(&number) {
            Some(names) => Arc::new(self.located(&frame, names.iter().map(Function::from).collect())),
            None => (self.name)(&frame).unwrap_or_else(|| Arc::new(self.located(&frame, Vec::new()))),
        };
        self.frames[index] = Some(Arc::clone(&named));
        named
    }

    fn located(&self, frame: &Frame, functions: Vec<Function>) -> NamedFrame {
        let module = frame.module.and_then(|id| self.replayed.modules.get(&id.0));
        NamedFrame {
            address: module.map_or(frame.address, |module| frame.address.wrapping_add(module.bias)),
            module: module.map(|module| module.path.clone()).unwrap_or_default(),
            offset: frame.address,
            functions,
        }
    }
}

/// A frame that says why there is none.
fn placeholder(text: &str) -> Arc<NamedFrame> {
    let function =
        Function { name: text.into(), raw: String::new(), offset: None, file: None, line: None, inlined: false };
    Arc::new(NamedFrame { address: 0, module: String::new(), offset: 0, functions: vec![function] })
}

fn site(books: Books, stack: NamedStack, end: Timestamp, kept: &[usize], replayed: &Replayed) -> Site {
    let by_event = replayed.begin.by_event;
    Site {
        stack,
        allocated: books.allocated,
        freed: books.allocated.without(books.live),
        live: books.live,
        expired: books.expired,
        freed_expired: books.freed_expired,
        at_peak: books.at_peak,
        temporary: by_event.then_some(books.temporary),
        sizes: by_event.then_some(books.sizes),
        lifetimes: by_event.then_some(books.lifetimes),
        lives: books.lives,
        ages: None,
        oldest: books.oldest.filter(|_| books.live.count > 0).map(|oldest| end.since(oldest)),
        growth: regrown(&books.growth, kept),
    }
}

fn module(record: &ModuleRecord) -> Module {
    Module {
        path: record.path.clone(),
        build_id: record.build_id.clone(),
        range: record.start..record.end,
        bias: record.bias,
        file_offset: record.file_offset,
    }
}

fn moment(level: Level) -> Moment {
    Moment { at: level.at, allocated: level.allocated, live: level.live }
}

/// The moments to show: of each stretch of time the last. Indexes, ascending.
pub(super) fn thin(timeline: &[Told]) -> Vec<usize> {
    if timeline.len() <= MOMENTS {
        return (0..timeline.len()).collect();
    }
    let span = timeline.last().map_or(0, |told| told.level.at.0);
    let stretch = |told: &Told| u128::from(told.level.at.0) * MOMENTS as u128 / (u128::from(span) + 1);
    (0..timeline.len())
        .filter(|&index| timeline.get(index + 1).is_none_or(|next| stretch(next) != stretch(&timeline[index])))
        .collect()
}

/// What a site had live, told by the places of moments among those kept.
pub(super) fn regrown(growth: &[(usize, Tally)], kept: &[usize]) -> Vec<(usize, Tally)> {
    let mut regrown: Vec<(usize, Tally)> = Vec::new();
    for &(index, live) in growth {
        // As of the first moment kept that is not before.
        let place = kept.partition_point(|&kept| kept < index);
        match regrown.last_mut() {
            Some(last) if last.0 == place => last.1 = live,
            _ => regrown.push((place, live)),
        }
    }
    regrown.dedup_by_key(|entry| entry.1);
    regrown
}
