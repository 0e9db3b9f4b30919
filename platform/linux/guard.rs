//! The guard: a SIGTRAP handler inside the target, which takes over when the tracer is killed.
//!
//! While the tracer lives, the kernel shows each breakpoint's SIGTRAP to it, and the handler is never entered for one.
//! Once the tracer is gone, the signal is delivered, and the handler lets the thread go on at the breakpoint's slot: the
//! breakpoints stay, and cost a signal each (about a microsecond). SIGTRAPs of the program's own are passed on to
//! the action that the program had set.
//!
//! # Why it does not take the breakpoints away
//! A handler could put the original byte back. To write to its program's text it would have to make it writable and
//! executable at once (other threads execute that page), which security policies deny (SELinux `execmod`,
//! `PR_SET_MDWE`), or to open `/proc/self/mem`, which chroots and containers may lack, and which takes a file descriptor
//! number at a moment when the program may count on getting it. What is there is slow, but cannot fail; and a later
//! memleax removes what it finds ([`Guards::leftovers`]).
//!
//! # What it does not cover
//! - An int3 executed while the thread blocks SIGTRAP, which also means: in a SIGTRAP handler. The kernel resets the
//!   action to the default and kills the process. With a tracer it only resets the action, and [`Guards::lost`] sees it.
//! - A program that sets an action for SIGTRAP of its own later on: its handler then gets breakpoints that are not its
//!   own.
//! - A program that ignores SIGTRAP, and to which somebody sends one: a system call that cannot be restarted
//!   (`signal(7)`) fails with EINTR.
//!
//! Shadow stacks (CET) do not mind: the kernel pushes the restorer's address there as well, each `call` in the handler
//! has its `ret`, and it begins with `endbr64`.

use std::collections::HashMap;
use std::io;
use std::ops::Range;

use super::action::{Action, Scratch};
use super::guard_code::GuardCode;
use super::guard_image::GuardImage;
use super::guard_table::{FIRST_CAPACITY, FIRST_TABLE, MAGIC, TABLES, Table, VERSION, Write, header};
use super::remote::Remote;
use super::status::{self, Status};
use super::stub::Place;
use super::{code_map, facts, memory, ptrace};
use crate::{Error, Guard, Leftover, Mapping, Pid, Stop, StopKind, Tid};

const PAGE: usize = 4096;

/// What was put into each process.
#[derive(Debug, Default)]
pub(super) struct Guards {
    processes: HashMap<Pid, Injected>,
    /// Processes that use another one's memory, and so what was put into that.
    sharing: HashMap<Pid, Pid>,
}

/// What was put into one process.
#[derive(Debug, Default)]
struct Injected {
    /// By [`Guards::map_code`].
    areas: Vec<Range<u64>>,
    guard: Option<Installed>,
}

impl Guards {
    /// Forgets a process that ended or executed another program.
    pub(super) fn forget(&mut self, pid: Pid) {
        self.processes.remove(&pid);
        self.sharing.remove(&pid);
    }

    /// A process uses the memory of its parent.
    pub(super) fn share(&mut self, pid: Pid, parent: Pid) {
        let owner = self.owner(parent);
        self.sharing.insert(pid, owner);
    }

    /// In whose memory a process runs.
    fn owner(&self, pid: Pid) -> Pid {
        self.sharing.get(&pid).copied().unwrap_or(pid)
    }

    /// See [`Tracer::map_code`](crate::Tracer::map_code).
    pub(super) fn map_code(&mut self, stop: &Stop, near: u64, length: usize) -> Result<u64, Error> {
        let remote = Remote::new(stop)?;
        let address = code_map::map_code(&remote, near, length)?;
        let area = address..address + length as u64;
        let injected = self.processes.entry(self.owner(stop.pid)).or_default();
        injected.areas.push(area.clone());
        if let Some(guard) = &mut injected.guard {
            guard.make_room(stop)?;
            let writes = guard.table.insert_area(area);
            guard.write(stop.tid, &writes)?;
        }
        Ok(address)
    }

    /// See [`Tracer::unmap_code`](crate::Tracer::unmap_code).
    pub(super) fn unmap_code(&mut self, stop: &Stop, address: u64, length: usize) -> Result<(), Error> {
        code_map::unmap(&Remote::new(stop)?, address, length)?;
        let Some(injected) = self.processes.get_mut(&self.owner(stop.pid)) else { return Ok(()) };
        injected.areas.retain(|area| area.start != address);
        match &mut injected.guard {
            Some(guard) => {
                let writes = guard.table.remove_area(address);
                guard.write(stop.tid, &writes)
            }
            None => Ok(()),
        }
    }

    /// See [`Tracer::install_guard`](crate::Tracer::install_guard).
    pub(super) fn install(&mut self, stop: &Stop) -> Result<(), Error> {
        let remote = Remote::new(stop)?;
        let code = GuardCode::assemble().map_err(|error| failed(stop.pid, io::Error::other(error)))?;
        let injected = self.processes.entry(stop.pid).or_default();
        let scratch = Scratch::map(&remote)?;
        let result = match &injected.guard {
            Some(guard) => guard.arm_again(stop.tid, &scratch, &code),
            None => Installed::new(stop, &remote, &scratch, &code, &injected.areas)
                .map(|guard| injected.guard = Some(guard)),
        };
        result.and(scratch.unmap())
    }

    /// See [`Tracer::guard`](crate::Tracer::guard). Does nothing where no guard is installed.
    pub(super) fn add(&mut self, stop: &Stop, entry: Guard) -> Result<(), Error> {
        let injected = self.processes.get_mut(&self.owner(stop.pid));
        let Some(guard) = injected.and_then(|injected| injected.guard.as_mut()) else { return Ok(()) };
        guard.make_room(stop)?;
        let writes = guard.table.insert(entry);
        guard.write(stop.tid, &writes)
    }

    /// See [`Tracer::guard_lost`](crate::Tracer::guard_lost).
    pub(super) fn lost(&self, pid: Pid) -> bool {
        self.own_base(pid).is_some()
            && Status::of(facts::living_thread(pid))
                .is_ok_and(|status| !status.has_ended() && !status.catches(libc::SIGTRAP))
    }

    /// See [`Tracer::remove_guard`](crate::Tracer::remove_guard).
    pub(super) fn remove(&mut self, stop: &Stop) -> Result<(), Error> {
        let own = self.own_base(stop.pid);
        let mappings = facts::mappings(stop.pid)?;
        clear_stubs(stop, &mappings)?;
        let mut images = GuardImage::find(stop.tid, &mappings)?;
        images.retain(|image| image.is_known() && !image.retired);
        if !images.is_empty() {
            self.forget_handled_traps(stop.pid)?;
            let remote = Remote::new(stop)?;
            let scratch = Scratch::map(&remote)?;
            let restored = restore_action(stop.tid, &scratch, &images, own);
            let restored = scratch.unmap().and(restored)?;
            for image in images {
                // Only the process's own memory, and only if nothing points there any more: neither a return address of
                // the program's handler, nor an action that the program saved to set it again.
                let is_own = own == Some(image.base) || matches!(stop.kind, StopKind::Forked { .. });
                if is_own && restored == Some(image) && can_be_unmapped(stop, &image)? {
                    image.unmap(&remote)?;
                } else {
                    image.retire(stop.tid)?;
                }
            }
        }
        if let Some(injected) = self.processes.get_mut(&stop.pid) {
            injected.guard = None;
        }
        Ok(())
    }

    /// See [`Tracer::leftovers`](crate::Tracer::leftovers).
    pub(super) fn leftovers(&self, stop: &Stop) -> Result<Vec<Leftover>, Error> {
        let own = self.own_base(stop.pid);
        let mut leftovers = Vec::new();
        for image in GuardImage::find(stop.tid, &facts::mappings(stop.pid)?)? {
            if !image.retired && Some(image.base) != own {
                image.check_version(stop.pid)?;
                let breakpoints = image.breakpoints(stop.tid)?.into_iter();
                leftovers.extend(breakpoints.map(|it| Leftover { address: it.breakpoint, original: it.original }));
            }
        }
        leftovers.sort_unstable_by_key(|leftover| leftover.address);
        leftovers.dedup_by_key(|leftover| leftover.address);
        Ok(leftovers)
    }

    /// Makes the kernel forget the traps that the tracer has dealt with: if the tracer is killed before it resumes these
    /// threads, the signal is not delivered, as there will be no guard any more to tell it from the program's own.
    fn forget_handled_traps(&self, pid: Pid) -> Result<(), Error> {
        let Some(guard) = self.processes.get(&pid).and_then(|injected| injected.guard.as_ref()) else { return Ok(()) };
        for tid in status::threads_of(pid)? {
            match ptrace::registers(tid) {
                Ok(registers) if guard.table.knows(registers.rip) && is_breakpoint_trap(tid)? => {
                    ptrace::collect_stop(tid)?;
                }
                Ok(_) | Err(Error::Gone(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Where the guard is that this tracer installed.
    fn own_base(&self, pid: Pid) -> Option<u64> {
        Some(self.processes.get(&pid)?.guard.as_ref()?.base)
    }
}

/// Puts the program's action back, if that of one of `images` is in place; returns that guard.
fn restore_action(
    tid: Tid,
    scratch: &Scratch,
    images: &[GuardImage],
    own: Option<u64>,
) -> Result<Option<GuardImage>, Error> {
    let current = scratch.action()?;
    let active = images.iter().find(|image| current.handler == image.handler());
    // The kernel may have reset the action (see `arm_again`).
    let reset = images.iter().find(|image| Some(image.base) == own && current.is_default());
    let Some(image) = active.or(reset) else { return Ok(None) };
    if active.is_some() || !image.old_action(tid)?.is_for_once() {
        scratch.exchange(image.base + header::OLD_ACTION)?;
    }
    Ok(Some(*image))
}

/// True for a thread that has stopped because of a breakpoint instruction.
fn is_breakpoint_trap(tid: Tid) -> Result<bool, Error> {
    let info = ptrace::signal_info(tid)?;
    Ok((info.si_signo, info.si_code) == (libc::SIGTRAP, ptrace::SI_KERNEL))
}

/// True if no thread is in the guard, or will return to it: a handler of the program's own may have been interrupted.
fn can_be_unmapped(stop: &Stop, image: &GuardImage) -> Result<bool, Error> {
    Ok(!image.old_action(stop.tid)?.has_handler() && !is_any_thread_in(stop.pid, &image.range(stop.tid)?)?)
}

/// True unless every thread of the process is known to be elsewhere.
fn is_any_thread_in(pid: Pid, range: &Range<u64>) -> Result<bool, Error> {
    for tid in status::threads_of(pid)? {
        match ptrace::registers(tid) {
            Ok(registers) if !range.contains(&registers.rip) => {}
            Err(Error::Gone(_)) if Status::of(tid).map_or(true, |status| status.has_ended()) => {}
            Ok(_) | Err(Error::Gone(_)) => return Ok(true),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Takes away the stubs that killed tracers left, if no thread is on its way through.
fn clear_stubs(stop: &Stop, mappings: &[Mapping]) -> Result<(), Error> {
    for place in Place::left(stop.tid, mappings)? {
        if !is_any_thread_in(stop.pid, &place.range())? {
            place.clear(stop.tid)?;
        }
    }
    Ok(())
}

/// A guard that this tracer installed.
#[derive(Debug)]
struct Installed {
    /// Address of its header.
    base: u64,
    table: Table,
    table_address: u64,
    /// Index of the table in the header.
    table_index: usize,
}

impl Installed {
    fn new(
        stop: &Stop,
        remote: &Remote,
        scratch: &Scratch,
        code: &GuardCode,
        areas: &[Range<u64>],
    ) -> Result<Self, Error> {
        let leftovers = GuardImage::find(stop.tid, &facts::mappings(stop.pid)?)?;
        // A trap in the stub was dealt with, too.
        let areas: Vec<_> = areas.iter().cloned().chain(remote.stub_range()).collect();
        let table = first_table(stop.tid, &areas, &leftovers)?;
        let table_bytes = table.bytes();
        let length = (FIRST_TABLE as usize + table_bytes.len()).next_multiple_of(PAGE);
        let base = code_map::map_anywhere(remote, length, libc::PROT_READ | libc::PROT_EXEC)?;
        let guard = Installed { base, table, table_address: base + FIRST_TABLE, table_index: 0 };
        let armed = guard
            .write_first(stop.tid, length, code, &table_bytes)
            .and_then(|()| guard.arm(stop.tid, scratch, code, &leftovers));
        match armed {
            Ok(()) => Ok(guard),
            Err(error) => {
                code_map::unmap(remote, base, length)?;
                Err(error)
            }
        }
    }

    /// Writes all but the actions. The magic comes last: without it nobody looks at the rest.
    fn write_first(&self, tid: Tid, length: usize, code: &GuardCode, table: &[u8]) -> Result<(), Error> {
        let write = |offset: u64, bytes: &[u8]| memory::write_memory(tid, self.base + offset, bytes);
        write(FIRST_TABLE, table)?;
        write(header::SIZE, &code.bytes)?;
        write(header::TABLES, &self.table_address.to_le_bytes())?;
        write(header::LENGTH, &(length as u64).to_le_bytes())?;
        write(header::VERSION, &VERSION.to_le_bytes())?;
        write(header::MAGIC, &MAGIC)
    }

    /// Puts the guard's action in place of the program's.
    fn arm(&self, tid: Tid, scratch: &Scratch, code: &GuardCode, leftovers: &[GuardImage]) -> Result<(), Error> {
        let current = scratch.action()?;
        // If a killed tracer's guard is in place, the program's own action is the one that it saved.
        let leftover = leftovers.iter().find(|image| image.is_known() && image.handler() == current.handler);
        let old = leftover.map_or(Ok(current), |image| image.old_action(tid))?;
        let replaced = self.exchange(tid, scratch, code, old)?;
        if replaced != current {
            // Another thread of the target set one in between.
            self.exchange(tid, scratch, code, replaced)?;
        }
        Ok(())
    }

    /// Puts the guard's action in place once more, if it is not.
    fn arm_again(&self, tid: Tid, scratch: &Scratch, code: &GuardCode) -> Result<(), Error> {
        let current = scratch.action()?;
        if current.handler == self.base + code.handler {
            return Ok(());
        }
        let old = Action::read(tid, self.base + header::OLD_ACTION)?;
        // The default action is most likely the kernel's doing: a thread that blocks SIGTRAP met a breakpoint.
        let reset_by_kernel = current.is_default() && !old.is_for_once();
        self.exchange(tid, scratch, code, if reset_by_kernel { old } else { current }).map(drop)
    }

    /// Sets the guard's action, with `old` as the program's; returns what it replaced.
    fn exchange(&self, tid: Tid, scratch: &Scratch, code: &GuardCode, old: Action) -> Result<Action, Error> {
        let guarded = old.guarded(self.base + code.handler, self.base + code.restorer);
        memory::write_memory(tid, self.base + header::OLD_ACTION, &old.bytes())?;
        memory::write_memory(tid, self.base + header::NEW_ACTION, &guarded.bytes())?;
        scratch.exchange(self.base + header::NEW_ACTION)
    }

    /// If the table is full, replaces it by one that is twice as big. The old one stays, as a handler may be reading it.
    fn make_room(&mut self, stop: &Stop) -> Result<(), Error> {
        if !self.table.is_full() {
            return Ok(());
        }
        let index = self.table_index + 1;
        if index >= TABLES {
            return Err(failed(stop.pid, io::Error::other("there are too many breakpoints")));
        }
        let table = self.table.grown();
        let bytes = table.bytes();
        let address = code_map::map_anywhere(&Remote::new(stop)?, bytes.len(), libc::PROT_READ)?;
        memory::write_memory(stop.tid, address, &bytes)?;
        memory::write_memory(stop.tid, self.base + header::TABLES + 8 * index as u64, &address.to_le_bytes())?;
        memory::write_memory(stop.tid, self.base + header::CURRENT, &[index as u8])?;
        *self = Installed { base: self.base, table, table_address: address, table_index: index };
        Ok(())
    }

    fn write(&self, tid: Tid, writes: &[Write]) -> Result<(), Error> {
        writes.iter().try_for_each(|(offset, bytes)| memory::write_memory(tid, self.table_address + offset, bytes))
    }
}

/// A table with `areas`, and with the breakpoints of killed tracers: threads may have met them already, and their slots
/// are still there.
fn first_table(tid: Tid, areas: &[Range<u64>], leftovers: &[GuardImage]) -> Result<Table, Error> {
    let mut table = Table::new(FIRST_CAPACITY);
    for image in leftovers.iter().filter(|image| image.is_known() && !image.retired) {
        for breakpoint in image.breakpoints(tid)? {
            table = table.with_room();
            table.insert(breakpoint);
        }
    }
    for area in areas {
        table = table.with_room();
        table.insert_area(area.clone());
    }
    Ok(table)
}

fn failed(pid: Pid, cause: io::Error) -> Error {
    Error::Remote { what: "guard breakpoints", pid, cause }
}
