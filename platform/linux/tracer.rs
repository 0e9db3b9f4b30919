//! The tracer itself: what is known, and which file does what.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::path::Path;
use std::time::Duration;

use super::affinity::Follower;
use super::guard::Guards;
use super::isa::user_regs_struct;
use super::step::{self, Step};
use super::threads::{Activity, Threads};
use super::trap_mask::TrapMasks;
use super::{facts, memory, ptrace};
use crate::tick::Tick;
use crate::{
    AuxiliaryVector, Error, Guard, Leftover, Mapping, Pid, ProcessFacts, Registers, Report, Resume, Signal, Stop,
    StopKind, Tid, Tracer,
};

/// Traces processes by `ptrace(2)`.
///
/// The kernel binds a tracee to the thread that attached, so all work is done in the thread that made this (it is not
/// `Send`). When that thread ends, the kernel lets go of whatever is still traced, without removing a breakpoint.
/// That thread must not wait for child processes of its own while it traces: [`Tracer::wait`] takes their statuses.
#[derive(Debug, Default)]
pub struct LinuxTracer {
    pub(super) threads: Threads,
    /// What happened while something else was waited for.
    pub(super) queue: VecDeque<Report>,
    /// For a new process whose first stop has not come yet, who created it.
    pub(super) creators: HashMap<Tid, Pid>,
    /// Processes of which a thread was detached, while others could not be stopped yet.
    pub(super) leaving: HashSet<Pid>,
    pub(super) guards: Guards,
    pub(super) trap_masks: TrapMasks,
    follower: Follower,
    tick: Option<Tick>,
    _thread: PhantomData<*const ()>,
}

impl LinuxTracer {
    /// A tracer that traces nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Tracer for LinuxTracer {
    const MAP_ANONYMOUS: u64 = libc::MAP_ANONYMOUS as u64;

    fn attach(&mut self, pid: Pid) -> Result<(), Error> {
        self.attach_to(pid)
    }

    fn wait(&mut self) -> Result<Report, Error> {
        let report = self.next_report()?;
        if let Report::Stopped(stop) = &report {
            self.follower.stopped(stop.pid, stop.tid);
        }
        Ok(report)
    }

    fn set_tick(&mut self, period: Duration) -> Result<(), Error> {
        self.tick = Some(Tick::new(period)?);
        Ok(())
    }

    fn resume(&mut self, stop: Stop, how: Resume) -> Result<(), Error> {
        let thread = self.threads.get_mut(stop.tid).ok_or(Error::Gone(stop.tid))?;
        thread.activity = Activity::Running;
        if thread.group_stopped {
            // It stops again before it executes anything, and then listens.
            ptrace::interrupt(stop.tid)?;
        }
        ptrace::cont(stop.tid, signal_to_deliver(&stop, how))
    }

    fn step(&mut self, stop: &mut Stop) -> Result<(), Error> {
        if let Step::Faulted(fault) = step::step(stop.pid, stop.tid)? {
            if let StopKind::Signal(signal) = stop.kind {
                step::send(stop.pid, stop.tid, signal.0)?;
            }
            stop.kind = StopKind::Signal(fault);
        }
        Ok(())
    }

    fn halt(&mut self, pid: Pid) -> Result<Vec<Stop>, Error> {
        self.halt_process(pid)
    }

    fn detach(&mut self, stop: Stop, how: Resume) -> Result<(), Error> {
        self.trap_masks.restore(stop.tid)?;
        // If job control has stopped the process, the kernel stops the thread again (`__ptrace_unlink`).
        if let Err(error) = ptrace::detach(stop.tid, signal_to_deliver(&stop, how)) {
            // Killed: its status is still to come, and its parent waits until it is fetched.
            self.threads.set(stop.tid, Activity::Running);
            return Err(error);
        }
        self.threads.remove(stop.tid);
        if self.threads.any_living(stop.pid) {
            self.leaving.insert(stop.pid);
        } else {
            self.leaving.remove(&stop.pid);
        }
        Ok(())
    }

    fn traced(&self) -> Vec<Pid> {
        let mut pids = self.threads.processes();
        pids.retain(|&pid| self.threads.any_living(pid));
        pids.extend(self.creators.keys().map(|tid| Pid(tid.0)));
        pids
    }

    fn is_breakpoint_trap(&mut self, stop: &Stop) -> Result<bool, Error> {
        Ok(stop.kind == StopKind::Trap && ptrace::signal_info(stop.tid)?.si_code == ptrace::SI_KERNEL)
    }

    fn registers(&mut self, stop: &Stop) -> Result<Registers, Error> {
        ptrace::registers(stop.tid).map(|registers| general(&registers))
    }

    fn set_registers(&mut self, stop: &Stop, registers: &Registers) -> Result<(), Error> {
        let mut all = ptrace::registers(stop.tid)?;
        set_general(&mut all, registers);
        ptrace::set_registers(stop.tid, &all)
    }

    fn set_program_counter(&mut self, stop: &Stop, address: u64) -> Result<(), Error> {
        ptrace::set_program_counter(stop.tid, address)
    }

    fn read(&mut self, stop: &Stop, address: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        memory::read_memory(stop.tid, address, buffer)
    }

    fn write(&mut self, stop: &Stop, address: u64, bytes: &[u8]) -> Result<(), Error> {
        memory::write_memory(stop.tid, address, bytes)
    }

    fn map_code(&mut self, stop: &Stop, near: u64, length: usize) -> Result<u64, Error> {
        self.guards.map_code(stop, near, length)
    }

    fn unmap_code(&mut self, stop: &Stop, address: u64, length: usize) -> Result<(), Error> {
        self.guards.unmap_code(stop, address, length)
    }

    fn install_guard(&mut self, stop: &Stop) -> Result<bool, Error> {
        self.guards.install(stop).map(|()| true)
    }

    fn guard(&mut self, stop: &Stop, entry: Guard) -> Result<(), Error> {
        self.guards.add(stop, entry)
    }

    fn unblock_trap(&mut self, stop: &Stop) -> Result<bool, Error> {
        self.trap_masks.unblock(stop.tid)
    }

    fn guard_lost(&mut self, pid: Pid) -> bool {
        self.guards.lost(pid)
    }

    fn remove_guard(&mut self, stop: &Stop) -> Result<(), Error> {
        self.guards.remove(stop)
    }

    fn leftovers(&mut self, stop: &Stop) -> Result<Vec<Leftover>, Error> {
        self.guards.leftovers(stop)
    }

    fn facts(&mut self, pid: Pid) -> Result<ProcessFacts, Error> {
        self.read_facts(pid)
    }

    fn mappings(&mut self, pid: Pid) -> Result<Vec<Mapping>, Error> {
        facts::mappings(pid)
    }

    fn auxiliary_vector(&mut self, pid: Pid) -> Result<AuxiliaryVector, Error> {
        self.read_auxiliary_vector(pid)
    }

    fn open_mapping(&mut self, pid: Pid, mapping: &Mapping) -> io::Result<File> {
        self.open_mapped_file(pid, mapping)
    }

    fn open_path(&mut self, pid: Pid, path: &Path) -> io::Result<File> {
        self.open_in_root(pid, path)
    }
}

fn signal_to_deliver(stop: &Stop, how: Resume) -> Option<Signal> {
    match (how, stop.kind) {
        (Resume::Deliver, StopKind::Trap) => Some(Signal(libc::SIGTRAP)),
        (Resume::Deliver, StopKind::Signal(signal)) => Some(signal),
        _ => None,
    }
}

/// Calls a macro with each register that the contract knows.
macro_rules! with_general_registers {
    ($macro:ident) => {
        $macro!(r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, rip, rsp)
    };
}

fn general(all: &user_regs_struct) -> Registers {
    macro_rules! copy {
        ($($name:ident),*) => { Registers { $($name: all.$name,)* rflags: all.eflags } };
    }
    with_general_registers!(copy)
}

fn set_general(all: &mut user_regs_struct, registers: &Registers) {
    macro_rules! copy {
        ($($name:ident),*) => { $(all.$name = registers.$name;)* };
    }
    with_general_registers!(copy);
    all.eflags = registers.rflags;
}
