//! From the reports of a tracer to actions: the dispatcher, and how a thread gets past a breakpoint.

use std::collections::VecDeque;

use memleax_platform::{Error, ExitStatus, Pid, Registers, Report, Resume, Stop, StopKind, Tid, Tracer};
use rustc_hash::{FxHashMap, FxHashSet};

use super::breakpoints::{Breakpoints, Passage, Permanence};
use super::callers::Callers;
use super::calls::{Calls, Pending};
use super::counters::Counters;
use super::images::Images;
use super::isa::native;
use super::slots::Slots;
use crate::allocator::{Function, NamedFunctions};
use crate::event::{Class, Event, Sink, Timestamp};
use crate::marker::Markers;
use crate::source::{Finished, Notice, Progress};
use crate::unwind::DebugFiles;

/// After so many losses of the guard the user is told.
const TOLERATED_GUARD_LOSSES: u32 = 3;

/// Of what may go wrong again and again the user is told so often.
const MOST_COMPLAINTS: u32 = 8;

/// A moment, and who takes what happens in it.
pub(super) struct Now<'a> {
    pub(super) at: Timestamp,
    pub(super) sink: &'a mut dyn Sink,
}

impl Now<'_> {
    pub(super) fn emit(&mut self, event: Event) {
        self.sink.event(self.at, event);
    }

    /// Of a block of memory or an object.
    pub(super) fn tell(&mut self, class: Class, event: Event) {
        if class == Class::MEMORY {
            self.sink.event(self.at, event);
        } else {
            self.sink.object(self.at, class, event);
        }
    }
}

/// What is asked of the engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Settings {
    /// The process to observe.
    pub(super) pid: Pid,
    /// Longest backtrace, the allocator's frame included.
    pub(super) depth: usize,
    /// Tell call stacks of different threads apart.
    pub(super) by_thread: bool,
    /// Observe `mmap` and its kin, too.
    pub(super) mmap: bool,
    /// Functions whose calls are told of.
    pub(super) markers: Markers,
    /// Functions of objects, and of memory besides those that are known.
    pub(super) named: NamedFunctions,
}

/// A thread of the target, as far as it was seen.
#[derive(Debug)]
pub(super) struct Thread {
    pub(super) pid: Pid,
    /// Of memory.
    pub(super) calls: Calls,
    /// Of objects, by class; as far as the thread has called their functions.
    objects: Vec<Calls>,
}

impl Thread {
    /// Its calls of the functions of a class.
    pub(super) fn calls_of(&mut self, class: Class) -> &mut Calls {
        let Some(place) = class.type_place() else { return &mut self.calls };
        if place >= self.objects.len() {
            self.objects.resize_with(place + 1, Calls::default);
        }
        &mut self.objects[place]
    }

    /// The calls that it will not return from any more.
    pub(super) fn abandon(&mut self) -> Vec<Pending> {
        self.objects.iter_mut().chain([&mut self.calls]).filter_map(Calls::abandon).collect()
    }
}

/// Everything known of the target.
#[derive(Debug)]
pub(super) struct Engine<T> {
    pub(super) tracer: T,
    pub(super) settings: Settings,
    pub(super) breakpoints: Breakpoints,
    pub(super) slots: Slots,
    pub(super) images: Images,
    pub(super) callers: Callers,
    pub(super) threads: FxHashMap<Tid, Thread>,
    /// Processes that share the target's memory until they call exec.
    pub(super) sharing: FxHashSet<Pid>,
    /// Why no code can be mapped into the target, if so: instructions are emulated then.
    pub(super) code_refused: Option<String>,
    /// The target survives the sudden death of the tracer.
    pub(super) is_guarded: bool,
    /// A child that executes a set-user-id program while it is traced gains no privileges by it.
    pub(super) exec_gains_nothing: bool,
    /// How often the guard was found missing; `u32::MAX` if it cannot be put back.
    pub(super) guard_losses: u32,
    /// Return addresses at which no breakpoint can be set.
    pub(super) unobservable: FxHashSet<u64>,
    /// Functions of memory hooked since attach or exec.
    pub(super) hooked_functions: usize,
    /// Functions of objects, by their addresses; at one address at most one of a type.
    pub(super) object_functions: FxHashMap<u64, Vec<&'static Function>>,
    /// Functions that free by calling another function that is observed, too.
    pub(super) wrappers: FxHashSet<u64>,
    /// Stops that came while all threads were halted for another reason.
    pub(super) deferred: VecDeque<Stop>,
    /// Where children are to be followed: those that have just come to memory of their own.
    pub(super) births: Option<Vec<Stop>>,
    pub(super) notices: Vec<Notice>,
    /// How often something went wrong that may go wrong again and again.
    complaints: u32,
    pub(super) counters: Counters,
    pub(super) next_call: u64,
    pub(super) ended: Option<ExitStatus>,
}

impl<T: Tracer> Engine<T> {
    pub(super) fn new(tracer: T, settings: Settings, debug_files: DebugFiles) -> Self {
        Engine {
            tracer,
            callers: Callers::new(settings.depth, settings.by_thread),
            settings,
            breakpoints: Breakpoints::default(),
            slots: Slots::default(),
            images: Images::new(debug_files),
            threads: FxHashMap::default(),
            sharing: FxHashSet::default(),
            code_refused: None,
            is_guarded: false,
            exec_gains_nothing: false,
            guard_losses: 0,
            unobservable: FxHashSet::default(),
            hooked_functions: 0,
            object_functions: FxHashMap::default(),
            wrappers: FxHashSet::default(),
            deferred: VecDeque::new(),
            births: None,
            notices: Vec::new(),
            complaints: 0,
            counters: Counters::default(),
            next_call: 0,
            ended: None,
        }
    }

    /// What is left to tell of a process that has ended, or is not observed any more.
    pub(super) fn finish(self, pid: Pid, commands: Vec<Vec<String>>, status: Option<ExitStatus>) -> Finished {
        let (stacks, modules) = (self.callers.into_table(), self.images.map().table().clone());
        Finished { pid, commands, status, stacks, modules, notices: self.notices }
    }

    /// Resumes the threads that were halted at attach.
    ///
    /// # Errors
    /// As those of [`handle`](Self::handle).
    pub(super) fn resume_halted(&mut self, now: &mut Now<'_>) -> Result<(), Error> {
        while let Some(stop) = self.deferred.pop_front() {
            self.stopped(stop, now)?;
        }
        Ok(())
    }

    /// Acts upon one report.
    ///
    /// # Errors
    /// Only those after which the target cannot be observed any longer.
    pub(super) fn handle(&mut self, report: Report, now: &mut Now<'_>) -> Result<Progress, Error> {
        match report {
            Report::Stopped(stop) => self.stopped(stop, now)?,
            Report::ThreadEnded { tid, .. } => self.thread_ended(tid, now),
            Report::ProcessEnded { pid, status } if pid == self.settings.pid => self.ended = Some(status),
            Report::ProcessEnded { pid, .. } => self.sharing_ended(pid, now),
            Report::Tick => {}
        }
        self.resume_halted(now)?;
        Ok(self.progress())
    }

    /// Whether the target runs on.
    pub(super) fn progress(&self) -> Progress {
        self.ended.map_or(Progress::Running, Progress::TargetEnded)
    }

    /// What is done now and then, busy or not: the guard is put back if the target took it away.
    ///
    /// # Errors
    /// As those of [`handle`](Self::handle).
    pub(super) fn tick(&mut self, now: &mut Now<'_>) -> Result<(), Error> {
        if self.ended.is_some()
            || !self.is_guarded
            || self.guard_losses == u32::MAX
            || !self.tracer.guard_lost(self.settings.pid)
        {
            return Ok(());
        }
        let stops = match self.tracer.halt(self.settings.pid) {
            Err(Error::Gone(_)) => return Ok(()),
            stops => stops?,
        };
        let guarded = self.guard_again(&stops);
        self.deferred.extend(stops);
        guarded.and_then(|()| self.resume_halted(now))
    }

    /// Warns of something that may happen again and again.
    pub(super) fn complain(&mut self, text: String) {
        self.complaints += 1;
        match self.complaints {
            ..MOST_COMPLAINTS => self.warn(text),
            MOST_COMPLAINTS => self.warn(format!("{text} (further problems of this kind are only counted)")),
            _ => tracing::debug!("{text}"),
        }
    }

    fn guard_again(&mut self, stops: &[Stop]) -> Result<(), Error> {
        let Some(stop) = stops.first() else { return Ok(()) };
        self.guard_losses += 1;
        if self.guard_losses == TOLERATED_GUARD_LOSSES {
            self.warn(
                "the target takes memleax's SIGTRAP handler away again and again, by blocking SIGTRAP where it allocates or \
                 by a handler of its own: if memleax is killed by SIGKILL, the target may die, too"
                    .into(),
            );
        }
        let restored = self.tracer.install_guard(stop).and_then(|_| {
            let facts = self.tracer.facts(self.settings.pid)?;
            self.unblock_traps(stops, &facts.threads_blocking_trap)
        });
        match restored {
            Ok(()) | Err(Error::Gone(_)) => Ok(()),
            Err(error) => {
                // Not looked after any longer, but still to be removed at the end.
                self.guard_losses = u32::MAX;
                self.warn(format!(
                    "the target took memleax's SIGTRAP handler away, and it cannot be put back: {error}; if memleax is \
                     killed by SIGKILL, the target dies, too"
                ));
                Ok(())
            }
        }
    }

    pub(super) fn warn(&mut self, text: String) {
        self.notices.push(Notice::Warning(text));
    }

    fn stopped(&mut self, mut stop: Stop, now: &mut Now<'_>) -> Result<(), Error> {
        let how = match stop.kind {
            StopKind::Trap => self.trapped(&mut stop, now),
            StopKind::Signal(_) => self.settle(&stop).map(|()| Resume::Deliver),
            StopKind::Halted => Ok(Resume::Swallow),
            StopKind::Forked { .. } => return self.forked(stop),
            StopKind::SharingChild { .. } => return self.shared(stop),
            StopKind::Exec => return self.exec(stop, now),
        };
        match how {
            Ok(how) => unless_gone(self.tracer.resume(stop, how)),
            Err(Error::Gone(_)) => Ok(()),
            Err(error) => {
                // Still to be dealt with by `detach`.
                self.deferred.push_back(stop);
                Err(error)
            }
        }
    }

    fn trapped(&mut self, stop: &mut Stop, now: &mut Now<'_>) -> Result<Resume, Error> {
        let mut registers = self.tracer.registers(stop)?;
        let address = registers.rip.wrapping_sub(native::BREAKPOINT_SIZE);
        let Some(breakpoint) = self.breakpoints.get(address) else { return self.foreign_trap(stop, address) };
        // Behind an instruction as short as the breakpoint a thread may be by itself, and be sent a SIGTRAP there.
        if u64::from(breakpoint.length) == native::BREAKPOINT_SIZE && !self.tracer.is_breakpoint_trap(stop)? {
            return self.foreign_trap(stop, address);
        }
        self.counters.stops += 1;
        registers.rip = address;
        match self.observe(stop, address, &registers, now) {
            Err(error @ Error::Gone(_)) => return Err(error),
            Err(error) => self.complain(format!("cannot follow thread {}: {error}", stop.tid)),
            Ok(()) => {}
        }
        self.pass(stop, address, registers)?;
        Ok(if stop.kind == StopKind::Trap { Resume::Swallow } else { Resume::Deliver })
    }

    /// What the hit of a breakpoint means.
    fn observe(&mut self, stop: &Stop, address: u64, registers: &Registers, now: &mut Now<'_>) -> Result<(), Error> {
        let calls = self.calls(stop);
        if calls.has_rewound() && calls.was_rewound(address, registers.rsp) {
            return Ok(());
        }
        if let Some(pending) = calls.leave(address, registers.rsp) {
            self.returned(stop, Class::MEMORY, &pending, registers.result(), now)?;
            self.no_longer_awaited(stop, address)?;
        }
        if !self.object_functions.is_empty() {
            self.objects_returned(stop, address, registers, now)?;
        }
        let Some(&breakpoint) = self.breakpoints.get(address) else { return Ok(()) };
        let purpose = breakpoint.meaning.purpose;
        for reference in purpose.references.iter() {
            now.emit(Event::Called { reference, count: 1 });
        }
        if let Some(number) = purpose.snapshot {
            now.emit(Event::Marked(number));
        }
        if let Some(function) = breakpoint.meaning.function {
            self.entered(stop, function, registers, now)?;
        }
        if breakpoint.meaning.has_objects {
            for function in self.object_functions.get(&address).cloned().unwrap_or_default() {
                self.entered(stop, function, registers, now)?;
            }
        }
        if breakpoint.meaning.is_loader_state {
            self.refresh_images(stop)?;
        }
        if breakpoint.permanence == Permanence::WhileAwaited(0) {
            self.breakpoints.lift(&mut self.tracer, stop, address)?;
        }
        Ok(())
    }

    /// Calls that hand out objects have returned to `address`: one that ended in a jump to another returns with that.
    fn objects_returned(
        &mut self,
        stop: &Stop,
        address: u64,
        registers: &Registers,
        now: &mut Now<'_>,
    ) -> Result<(), Error> {
        for place in 0..self.thread(stop).objects.len() {
            if let Some(pending) = self.thread(stop).objects[place].leave(address, registers.rsp) {
                self.returned(stop, Class::of_type(place), &pending, registers.result(), now)?;
                self.no_longer_awaited(stop, address)?;
            }
        }
        Ok(())
    }

    fn thread(&mut self, stop: &Stop) -> &mut Thread {
        let thread = self.threads.entry(stop.tid);
        thread.or_insert_with(|| Thread { pid: stop.pid, calls: Calls::default(), objects: Vec::new() })
    }

    pub(super) fn calls(&mut self, stop: &Stop) -> &mut Calls {
        &mut self.thread(stop).calls
    }

    pub(super) fn calls_of(&mut self, stop: &Stop, class: Class) -> &mut Calls {
        self.thread(stop).calls_of(class)
    }

    /// Lets a thread that hit the breakpoint at `address` (where `registers` have it) carry out what belongs there.
    fn pass(&mut self, stop: &mut Stop, address: u64, mut registers: Registers) -> Result<(), Error> {
        let passage = match self.breakpoints.get(address).map(|breakpoint| breakpoint.passage) {
            Some(Passage::Late(instruction)) => Some(self.place_late(stop, instruction)?),
            other => other,
        };
        match passage {
            None => self.tracer.set_program_counter(stop, address),
            Some(Passage::Slot(slot)) => self.tracer.set_program_counter(stop, slot),
            Some(Passage::Emulate(instruction) | Passage::Late(instruction)) => {
                let mut memory = TargetMemory { tracer: &mut self.tracer, stop };
                if native::emulate(&instruction, &mut registers, &mut memory) {
                    return self.tracer.set_registers(stop, &registers);
                }
                self.step_over(stop, address)
            }
        }
    }

    /// Takes the breakpoint out for one instruction of one thread, while every other thread stands still.
    fn step_over(&mut self, stop: &mut Stop, address: u64) -> Result<(), Error> {
        let Some(original) = self.breakpoints.get(address).map(|breakpoint| breakpoint.original) else { return Ok(()) };
        for pid in self.sharing_processes() {
            match self.tracer.halt(pid) {
                Ok(stops) => self.deferred.extend(stops),
                Err(Error::Gone(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.tracer.set_program_counter(stop, address)?;
        self.tracer.write(stop, address, &[original])?;
        let stepped = self.tracer.step(stop);
        self.tracer.write(stop, address, &[native::BREAKPOINT])?;
        if matches!(stop.kind, StopKind::Signal(_)) {
            // The instruction faulted: once the handler has returned, it is tried again.
            let sp = self.tracer.registers(stop)?.rsp;
            self.calls(stop).rewind(address, sp);
        }
        stepped
    }

    /// A SIGTRAP that no breakpoint of ours explains.
    fn foreign_trap(&mut self, stop: &Stop, address: u64) -> Result<Resume, Error> {
        let mut byte = [0];
        if self.breakpoints.was_lifted(address)
            && self.tracer.is_breakpoint_trap(stop)?
            && self.tracer.read(stop, address, &mut byte)? == 1
            && byte[0] != native::BREAKPOINT
        {
            self.tracer.set_program_counter(stop, address)?;
            return Ok(Resume::Swallow);
        }
        self.settle(stop)?;
        Ok(Resume::Deliver)
    }

    /// Sees to it that the thread is nowhere but in the program's own code, so that a signal handler (or a core dump, or
    /// the kernel) never meets the address of a slot.
    pub(super) fn settle(&mut self, stop: &Stop) -> Result<(), Error> {
        let Some((registers, repeats)) = self.home_of(stop)? else { return Ok(()) };
        self.tracer.set_registers(stop, &registers)?;
        if repeats {
            self.calls(stop).rewind(registers.rip, registers.rsp);
        }
        Ok(())
    }

    /// The registers that a thread in a slot would have had its instruction run at home, and whether it will hit the
    /// breakpoint there again. `None` if it is in no slot.
    pub(super) fn home_of(&mut self, stop: &Stop) -> Result<Option<(Registers, bool)>, Error> {
        let mut registers = self.tracer.registers(stop)?;
        let Some(home) = self.slots.home(registers.rip) else { return Ok(None) };
        registers.rip = home.address;
        registers.rsp = registers.rsp.wrapping_add(home.pop);
        Ok(Some((registers, home.repeats)))
    }
}

/// A thread that ended in the meantime is no trouble: its end is reported.
pub(super) fn unless_gone(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Gone(_)) => Ok(()),
        other => other,
    }
}

/// The memory of a stopped thread's process.
struct TargetMemory<'a, T> {
    tracer: &'a mut T,
    stop: &'a Stop,
}

impl<T: Tracer> native::Memory for TargetMemory<'_, T> {
    fn load(&mut self, address: u64, size: usize) -> Option<u64> {
        let mut bytes = [0; 8];
        let read = self.tracer.read(self.stop, address, &mut bytes[..size]).ok()?;
        (read == size).then(|| u64::from_le_bytes(bytes))
    }

    fn store(&mut self, address: u64, size: usize, value: u64) -> Option<()> {
        self.tracer.write(self.stop, address, &value.to_le_bytes()[..size]).ok()
    }
}
