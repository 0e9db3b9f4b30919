//! One tracer for several engines, each of which observes a process.
//!
//! Only one thread may wait for tracees, and it is told of all of them; so who waits puts what is another's aside.

use std::cell::{Ref, RefCell, RefMut};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use memleax_platform::{
    AuxiliaryVector, Error, Guard, Leftover, Mapping, Pid, ProcessFacts, Registers, Report, Resume, Stop, StopKind,
    Tracer,
};
use rustc_hash::FxHashMap;

#[derive(Debug)]
struct Inner<T> {
    tracer: T,
    /// Whose a process is: that of the engine that observes it, or whose memory it shares.
    owners: FxHashMap<Pid, Pid>,
    /// What was put aside, in order.
    aside: VecDeque<(Pid, Report)>,
}

/// The tracer as the engine of one process has it.
#[derive(Debug)]
pub(super) struct Kin<T> {
    inner: Rc<RefCell<Inner<T>>>,
    own: Pid,
}

impl<T: Tracer> Kin<T> {
    /// The tracer for the engine of `own`.
    pub(super) fn new(tracer: T, own: Pid) -> Self {
        let owners = FxHashMap::from_iter([(own, own)]);
        Kin { inner: Rc::new(RefCell::new(Inner { tracer, owners, aside: VecDeque::new() })), own }
    }

    /// The same tracer for the engine of another process, whose that is from now on.
    pub(super) fn of(&self, own: Pid) -> Self {
        self.inner.borrow_mut().owners.insert(own, own);
        Kin { inner: Rc::clone(&self.inner), own }
    }

    /// The next report, and whose it is; what was put aside comes first.
    pub(super) fn next(&mut self) -> Result<(Pid, Report), Error> {
        let mut inner = self.inner.borrow_mut();
        match inner.aside.pop_front() {
            Some(next) => Ok(next),
            None => inner.next(),
        }
    }

    /// True if any process is traced, whosever it is.
    pub(super) fn traces_any(&self) -> bool {
        !self.inner().traced().is_empty()
    }

    /// True if there is a process of which nobody knows yet whose child it is.
    pub(super) fn awaits_newborn(&self) -> bool {
        let inner = self.inner.borrow();
        let is_aside =
            |pid| inner.aside.iter().any(|(_, report)| matches!(report, Report::Stopped(stop) if stop.pid == pid));
        inner.tracer.traced().into_iter().any(|pid| !inner.owners.contains_key(&pid) || is_aside(pid))
    }

    fn inner(&self) -> Ref<'_, T> {
        Ref::map(self.inner.borrow(), |inner| &inner.tracer)
    }

    fn inner_mut(&mut self) -> RefMut<'_, T> {
        RefMut::map(self.inner.borrow_mut(), |inner| &mut inner.tracer)
    }
}

impl<T: Tracer> Inner<T> {
    fn next(&mut self) -> Result<(Pid, Report), Error> {
        let report = self.tracer.wait()?;
        let owner = match &report {
            Report::Stopped(stop) => self.owner_of_stop(stop),
            Report::ThreadEnded { pid, .. } => self.owner(*pid),
            Report::ProcessEnded { pid, .. } => self.owners.remove(pid).unwrap_or(*pid),
            Report::Tick => Pid(0),
        };
        Ok((owner, report))
    }

    fn owner(&self, pid: Pid) -> Pid {
        self.owners.get(&pid).copied().unwrap_or(pid)
    }

    /// A newborn process is first its parent's.
    fn owner_of_stop(&mut self, stop: &Stop) -> Pid {
        if let StopKind::Forked { parent } | StopKind::SharingChild { parent } = stop.kind {
            let owner = self.owner(parent);
            self.owners.insert(stop.pid, owner);
        }
        self.owner(stop.pid)
    }
}

impl<T: Tracer> Tracer for Kin<T> {
    const MAP_ANONYMOUS: u64 = T::MAP_ANONYMOUS;

    fn attach(&mut self, pid: Pid) -> Result<(), Error> {
        self.inner_mut().attach(pid)
    }

    /// The next report that is the engine's own, or a tick.
    fn wait(&mut self) -> Result<Report, Error> {
        let mut inner = self.inner.borrow_mut();
        if let Some(at) = inner.aside.iter().position(|(owner, _)| *owner == self.own)
            && let Some((_, report)) = inner.aside.remove(at)
        {
            return Ok(report);
        }
        loop {
            match inner.next()? {
                (_, Report::Tick) => return Ok(Report::Tick),
                (owner, report) if owner == self.own => return Ok(report),
                other => inner.aside.push_back(other),
            }
        }
    }

    fn set_tick(&mut self, period: Duration) -> Result<(), Error> {
        self.inner_mut().set_tick(period)
    }

    fn resume(&mut self, stop: Stop, how: Resume) -> Result<(), Error> {
        self.inner_mut().resume(stop, how)
    }

    fn step(&mut self, stop: &mut Stop) -> Result<(), Error> {
        self.inner_mut().step(stop)
    }

    fn halt(&mut self, pid: Pid) -> Result<Vec<Stop>, Error> {
        let mut inner = self.inner.borrow_mut();
        // What the tracer has handed out already it does not hand out again.
        let mut stops = Vec::new();
        let aside = std::mem::take(&mut inner.aside);
        for (owner, report) in aside {
            match report {
                Report::Stopped(stop) if stop.pid == pid => stops.push(stop),
                report => inner.aside.push_back((owner, report)),
            }
        }
        for stop in inner.tracer.halt(pid)? {
            match inner.owner_of_stop(&stop) {
                owner if owner == self.own => stops.push(stop),
                owner => inner.aside.push_back((owner, Report::Stopped(stop))),
            }
        }
        Ok(stops)
    }

    fn detach(&mut self, stop: Stop, how: Resume) -> Result<(), Error> {
        self.inner_mut().detach(stop, how)
    }

    fn ends_with_tracer(&self) -> bool {
        self.inner().ends_with_tracer()
    }

    /// Those that are the engine's own, and newborn ones that may be.
    fn traced(&self) -> Vec<Pid> {
        let inner = self.inner.borrow();
        let mut traced = inner.tracer.traced();
        traced.retain(|pid| inner.owners.get(pid).is_none_or(|&owner| owner == self.own));
        traced
    }

    fn is_breakpoint_trap(&mut self, stop: &Stop) -> Result<bool, Error> {
        self.inner_mut().is_breakpoint_trap(stop)
    }

    fn registers(&mut self, stop: &Stop) -> Result<Registers, Error> {
        self.inner_mut().registers(stop)
    }

    fn set_registers(&mut self, stop: &Stop, registers: &Registers) -> Result<(), Error> {
        self.inner_mut().set_registers(stop, registers)
    }

    fn set_program_counter(&mut self, stop: &Stop, address: u64) -> Result<(), Error> {
        self.inner_mut().set_program_counter(stop, address)
    }

    fn read(&mut self, stop: &Stop, address: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        self.inner_mut().read(stop, address, buffer)
    }

    fn write(&mut self, stop: &Stop, address: u64, bytes: &[u8]) -> Result<(), Error> {
        self.inner_mut().write(stop, address, bytes)
    }

    fn map_code(&mut self, stop: &Stop, near: u64, length: usize) -> Result<u64, Error> {
        self.inner_mut().map_code(stop, near, length)
    }

    fn unmap_code(&mut self, stop: &Stop, address: u64, length: usize) -> Result<(), Error> {
        self.inner_mut().unmap_code(stop, address, length)
    }

    fn install_guard(&mut self, stop: &Stop) -> Result<bool, Error> {
        self.inner_mut().install_guard(stop)
    }

    fn guard(&mut self, stop: &Stop, entry: Guard) -> Result<(), Error> {
        self.inner_mut().guard(stop, entry)
    }

    fn unblock_trap(&mut self, stop: &Stop) -> Result<bool, Error> {
        self.inner_mut().unblock_trap(stop)
    }

    fn guard_lost(&mut self, pid: Pid) -> bool {
        self.inner_mut().guard_lost(pid)
    }

    fn remove_guard(&mut self, stop: &Stop) -> Result<(), Error> {
        self.inner_mut().remove_guard(stop)
    }

    fn leftovers(&mut self, stop: &Stop) -> Result<Vec<Leftover>, Error> {
        self.inner_mut().leftovers(stop)
    }

    fn facts(&mut self, pid: Pid) -> Result<ProcessFacts, Error> {
        self.inner_mut().facts(pid)
    }

    fn mappings(&mut self, pid: Pid) -> Result<Vec<Mapping>, Error> {
        self.inner_mut().mappings(pid)
    }

    fn auxiliary_vector(&mut self, pid: Pid) -> Result<AuxiliaryVector, Error> {
        self.inner_mut().auxiliary_vector(pid)
    }

    fn open_mapping(&mut self, pid: Pid, mapping: &Mapping) -> io::Result<File> {
        self.inner_mut().open_mapping(pid, mapping)
    }

    fn open_path(&mut self, pid: Pid, path: &Path) -> io::Result<File> {
        self.inner_mut().open_path(pid, path)
    }
}
