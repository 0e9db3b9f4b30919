//! From the kernel's records to numbered call stacks.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use memleax_platform::{MappedFile, Mapping, Registers, Tracer, native};

use super::{BpfSource, HookedFunction, Known};
use crate::bpf::history::State;
use crate::bpf::layout::{End, StackCopy, StackRecord};
use crate::bpf::records::{MappingRecord, Records};
use crate::event::{Backtrace, Class, Ending, FrameKind, Sink, Timestamp};
use crate::unwind::{Module, RawBacktrace, RawFrame};

/// True if a file that is at a mapping's path now is the one that was mapped, some time after the monotonic clock showed `since`. Stacked
/// file systems may tell other inodes, but a file that has not changed since before, name and all, is that of then.
fn is_what_was_mapped(file: &Metadata, mapping: &Mapping, since: u64) -> bool {
    let age = Duration::from_nanos(native::monotonic_nanoseconds().saturating_sub(since));
    let changed = Duration::new(file.ctime().try_into().unwrap_or(0), file.ctime_nsec().try_into().unwrap_or(0));
    let is_unchanged = SystemTime::now().checked_sub(age).is_some_and(|then| UNIX_EPOCH + changed < then);
    (file.dev(), file.ino()) == mapping.file_id || (is_unchanged && !mapping.deleted)
}

impl<T: Tracer> BpfSource<T> {
    /// Numbers the stacks that the kernel has told of, and tells what was mapped and unmapped; all until a time of the kernel's.
    pub(super) fn take_records(&mut self, until: u64, sink: &mut dyn Sink) {
        let Records { stacks, mappings, marks } = std::mem::take(&mut *self.records.borrow_mut());
        let (stacks, later_stacks): (Vec<_>, Vec<_>) = stacks.into_iter().partition(|&(time, _)| time <= until);
        let (mappings, later_mappings) = mappings.into_iter().partition(|&(time, _)| time <= until);
        let (marks, later_marks): (Vec<_>, Vec<_>) = marks.into_iter().partition(|&(time, _)| time <= until);
        *self.records.borrow_mut() = Records { stacks: later_stacks, mappings: later_mappings, marks: later_marks };
        self.marks.extend(marks.into_iter().map(|(_, number)| number));
        if !self.modules.knows_return_trampoline() && stacks.iter().any(|(_, record)| record.end == End::Gap) {
            // A target that is ending has nothing to look at any more.
            let _ = self.look_again();
        }
        let mut shown = None;
        for (time, record) in stacks {
            self.show(time, &record, &mut shown);
            let by_table = self.backtrace(&record, time);
            let by_copy = record.copy.as_ref().map(|copy| self.walk_copy(&record, copy));
            // A frame between the copied parts stops the general unwinder before the end of the kernel's walk.
            let backtrace = by_copy.filter(|copy| copy.frames.len() >= by_table.frames.len()).unwrap_or(by_table);
            let id = self.stacks.intern(&backtrace);
            let class = self.function(&record).map_or(Class::MEMORY, |function| function.class);
            self.sites.insert(record.site, Known { stack: id, class, hash: record.hash });
            if self.trusted(&record, time) < record.frames.len() {
                // By the table in use now it is walked to its end.
                self.kernel.forget_stack(record.hash);
            }
        }
        if shown.is_some() {
            self.return_to_now();
        }
        if until == u64::MAX {
            self.history.settle();
        }
        self.tell_mappings(mappings, sink);
    }

    fn tell_mappings(&mut self, mappings: Vec<(u64, MappingRecord)>, sink: &mut dyn Sink) {
        for (time, record) in mappings {
            for event in record.events(|site| self.sites.get(&site).map(|known| known.stack)).into_iter().flatten() {
                self.told = self.told.max(Timestamp(time.saturating_sub(self.began)));
                sink.event(self.told, event);
            }
        }
    }

    /// The stack as the general unwinder sees it.
    pub(super) fn walk_copy(&mut self, record: &StackRecord, copy: &StackCopy) -> Backtrace {
        let entry = self.entry(record);
        let rip = entry.map_or(0, |(module, address)| module.run_time_address(address));
        let registers = Registers { rip, ..copy.registers };
        let mut raw = RawBacktrace::default();
        self.unwinder.unwind_from_call_entry(&registers, &mut |address| copy.word(address), self.depth, &mut raw);
        raw.to_backtrace(&self.modules)
    }

    /// The function that a record is about.
    fn function(&self, record: &StackRecord) -> Option<&HookedFunction> {
        self.functions.get(usize::try_from(record.function).ok()?)
    }

    /// The same: its module, and its address as the module's file counts it.
    fn entry(&self, record: &StackRecord) -> Option<(&Module, u64)> {
        let function = self.function(record)?;
        let module = self.modules.live().iter().find(|module| module.file_id == function.file)?;
        Some((module, function.address))
    }

    /// The stack as the kernel walked it.
    pub(super) fn backtrace(&self, record: &StackRecord, time: u64) -> Backtrace {
        let entry = self.entry(record).map(|(module, address)| module.run_time_address(address));
        let entry = entry.map(|pc| RawFrame { pc, kind: FrameKind::Exact });
        let trusted = self.trusted(record, time);
        let frames = record.frames[..trusted].iter().map(|&(pc, is_exact)| {
            let kind = if is_exact { FrameKind::Exact } else { FrameKind::ReturnAddress };
            RawFrame { pc, kind }
        });
        let ending = match record.end {
            _ if trusted < record.frames.len() => Ending::NoUnwindInfo,
            End::Complete => Ending::Complete,
            End::Depth => Ending::DepthLimit,
            End::Unreadable => Ending::UnreadableStack,
            End::Inconsistent => Ending::Inconsistent,
            End::Slow => Ending::NoUnwindInfo,
            End::Gap => match record.frames.last() {
                Some(&(address, _)) if self.modules.lookup(address.wrapping_sub(1)).is_none() => Ending::UnknownCode,
                _ => Ending::NoUnwindInfo,
            },
        };
        let frames = entry.into_iter().chain(frames).collect();
        RawBacktrace { frames, ending, by_frame_pointer: record.by_frame_pointer, thread: None }
            .to_backtrace(&self.modules)
    }

    /// Lets the modules be those of the time of a record, if it may be about others than are mapped now. `shown` is the state of the
    /// past that they are in already.
    fn show(&mut self, time: u64, record: &StackRecord, shown: &mut Option<State>) {
        let Some(state) = self.history.state(time) else {
            if shown.take().is_some() {
                self.return_to_now();
            }
            return;
        };
        let differs = |&(pc, is_exact): &(u64, bool)| {
            self.history.contradicts(state, &self.modules, pc.wrapping_sub(u64::from(!is_exact)))
        };
        // Beyond what the kernel walked there may be more.
        let may_differ = record.copy.is_some() || record.frames.iter().any(differs);
        if may_differ && *shown != Some(state) {
            self.recall(self.history.mappings(state), self.history.began(state));
            *shown = Some(state);
        }
    }

    /// Lets the modules be those that the newest look at the target showed.
    fn return_to_now(&mut self) {
        self.recall(self.history.newest().to_vec(), 0);
    }

    /// Lets the modules be those of mappings that may be gone. Those not known yet were made after the monotonic clock showed `since`.
    fn recall(&mut self, mappings: Vec<Mapping>, since: u64) {
        let (facts, target) = (&mut self.facts, self.target);
        let mut open = |mapping: &Mapping| {
            let file = facts.open_path(target, &mapping.path)?;
            if !is_what_was_mapped(&file.metadata()?, mapping, since) {
                return Err(io::Error::other("another file has taken its place"));
            }
            MappedFile::new(&file)
        };
        self.modules.recall(&mappings, &self.auxiliary, &mut open);
        self.unwinder.update(&self.modules, &mut self.debug_files);
    }

    /// How many frames of the kernel's walk were found by rules of the code that was there.
    fn trusted(&self, record: &StackRecord, time: u64) -> usize {
        let [old, new] = self.tables;
        let (look, began) = match new.published <= time {
            true => (self.history.newest(), new.looked),
            false => (self.history.before(), old.looked),
        };
        let is_mistaken = |&(pc, _): &(u64, bool)| self.history.is_mistaken(look, began, pc, time);
        record.frames.iter().position(is_mistaken).map_or(record.frames.len(), |index| index + 1)
    }

    /// Lets the kernel number anew the stacks that go through modules that are gone: other code may be there some day.
    pub(super) fn forget_stacks_of(&mut self, removed: &[Arc<Module>]) {
        let is_gone = |stack: &Backtrace| {
            stack.frames.iter().any(|frame| removed.iter().any(|module| frame.module == Some(module.id)))
        };
        for known in self.sites.values().filter(|known| is_gone(self.stacks.get(known.stack))) {
            self.kernel.forget_stack(known.hash);
        }
    }
}
