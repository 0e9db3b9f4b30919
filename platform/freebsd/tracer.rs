//! The tracer itself: what is known, and which file does what.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::path::Path;
use std::time::Duration;

use super::abi::Reg;
use super::processes::{Births, Held, Processes};
use super::root::RootDirectory;
use super::sys::Sys;
use crate::tick::Tick;
use crate::{
    AuxiliaryVector, Error, Guard, Leftover, Mapping, Pid, ProcessFacts, Registers, Report, Resume, Stop, StopKind,
    Tracer,
};

/// Traces processes by FreeBSD's `ptrace(2)`, whatever kernel `S` is.
///
/// That thread which made it must not wait for child processes of its own while it traces: [`Tracer::wait`] takes their
/// statuses.
#[derive(Debug, Default)]
pub struct FreebsdTracer<S> {
    pub(super) sys: S,
    pub(super) processes: Processes,
    pub(super) births: Births,
    /// What happened while something else was waited for.
    pub(super) queue: VecDeque<Report>,
    tick: Option<Tick>,
    _thread: PhantomData<*const ()>,
}

impl<S: Sys> FreebsdTracer<S> {
    /// A tracer that traces nothing yet.
    #[must_use]
    pub fn new(sys: S) -> Self {
        FreebsdTracer {
            sys,
            processes: Processes::default(),
            births: Births::default(),
            queue: VecDeque::new(),
            tick: None,
            _thread: PhantomData,
        }
    }

    /// The registers of a held thread, asked for once a stop.
    fn cached_registers(&mut self, stop: &Stop) -> Result<Reg, Error> {
        let held = self.processes.get(stop.pid).and_then(|process| process.held.get(&stop.tid));
        if let Some(registers) = held.ok_or(Error::Gone(stop.tid))?.registers {
            return Ok(registers);
        }
        let registers = self.all_registers(stop.tid)?;
        self.cache(stop, registers);
        Ok(registers)
    }

    fn cache(&mut self, stop: &Stop, registers: Reg) {
        if let Some(held) = self.processes.get_mut(stop.pid).and_then(|process| process.held.get_mut(&stop.tid)) {
            held.registers = Some(registers);
        }
    }

    fn store_registers(&mut self, stop: &Stop, registers: &Reg) -> Result<(), Error> {
        self.set_all_registers(stop.tid, registers)?;
        self.cache(stop, *registers);
        Ok(())
    }

    /// Takes a stop back: what becomes of the thread is decided, and the thread no longer held.
    fn give_back(&mut self, stop: &Stop, how: Resume) -> Result<(), Error> {
        let gone = || Error::Gone(stop.tid);
        let process = self.processes.get_mut(stop.pid).ok_or_else(gone)?;
        let held = *process.held.get(&stop.tid).ok_or_else(gone)?;
        let is_reporter = process.reporter == Some(stop.tid);
        match (how, stop.kind) {
            (Resume::Deliver, StopKind::Trap) if is_reporter => process.signal = libc::SIGTRAP,
            // The report was consumed while others were drained. The breakpoint, which is not the caller's, is still
            // there, so the trap comes again.
            (Resume::Deliver, StopKind::Trap) if held.is_by_breakpoint() => {
                let mut registers = self.cached_registers(stop)?;
                registers.rip = registers.rip.wrapping_sub(BREAKPOINT_SIZE);
                self.set_all_registers(stop.tid, &registers)?;
            }
            (Resume::Deliver, StopKind::Signal(signal)) if is_reporter => process.signal = signal.0,
            // One that was consumed has been delivered already: it takes effect when the thread runs.
            (Resume::Deliver, _) => {}
            (Resume::Swallow, StopKind::Halted) => {}
            (Resume::Swallow, _) if is_reporter => process.signal = 0,
            (Resume::Swallow, _) => {}
        }
        if let Some(process) = self.processes.get_mut(stop.pid) {
            process.held.remove(&stop.tid);
        }
        Ok(())
    }
}

/// How far the program counter is past a breakpoint that was hit.
const BREAKPOINT_SIZE: u64 = 1;

impl<S: Sys> Tracer for FreebsdTracer<S> {
    const MAP_ANONYMOUS: u64 = S::MAP_ANONYMOUS;

    fn attach(&mut self, pid: Pid) -> Result<(), Error> {
        self.attach_to(pid)
    }

    fn wait(&mut self) -> Result<Report, Error> {
        self.next_report()
    }

    fn set_tick(&mut self, period: Duration) -> Result<(), Error> {
        self.tick = Some(Tick::new(period)?);
        Ok(())
    }

    fn resume(&mut self, stop: Stop, how: Resume) -> Result<(), Error> {
        self.give_back(&stop, how)?;
        self.continue_unless_held(stop.pid)
    }

    fn step(&mut self, stop: &mut Stop) -> Result<(), Error> {
        self.step_one(stop)
    }

    fn halt(&mut self, pid: Pid) -> Result<Vec<Stop>, Error> {
        self.halt_process(pid)
    }

    fn detach(&mut self, stop: Stop, how: Resume) -> Result<(), Error> {
        self.give_back(&stop, how)?;
        match self.processes.get(stop.pid) {
            Some(process) if process.held.is_empty() => self.release(stop.pid),
            _ => Ok(()),
        }
    }

    /// By default (`kern.kill_on_debugger_exit`); else what is left behind ends at the next breakpoint.
    fn ends_with_tracer(&self) -> bool {
        true
    }

    fn traced(&self) -> Vec<Pid> {
        let mut pids = self.processes.pids();
        pids.extend(self.births.pending());
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    fn is_breakpoint_trap(&mut self, stop: &Stop) -> Result<bool, Error> {
        let held = self.processes.get(stop.pid).and_then(|process| process.held.get(&stop.tid));
        held.map(Held::is_by_breakpoint).ok_or(Error::Gone(stop.tid))
    }

    fn registers(&mut self, stop: &Stop) -> Result<Registers, Error> {
        self.cached_registers(stop).map(|all| general(&all))
    }

    fn set_registers(&mut self, stop: &Stop, registers: &Registers) -> Result<(), Error> {
        let mut all = self.cached_registers(stop)?;
        set_general(&mut all, registers);
        self.store_registers(stop, &all)
    }

    fn set_program_counter(&mut self, stop: &Stop, address: u64) -> Result<(), Error> {
        let mut all = self.cached_registers(stop)?;
        all.rip = address;
        self.store_registers(stop, &all)
    }

    fn read(&mut self, stop: &Stop, address: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        self.read_memory(stop, address, buffer)
    }

    fn write(&mut self, stop: &Stop, address: u64, bytes: &[u8]) -> Result<(), Error> {
        self.write_memory(stop, address, bytes)
    }

    fn map_code(&mut self, stop: &Stop, near: u64, length: usize) -> Result<u64, Error> {
        self.map_code_near(stop, near, length)
    }

    fn unmap_code(&mut self, stop: &Stop, address: u64, length: usize) -> Result<(), Error> {
        self.unmap_code_at(stop, address, length)
    }

    /// There is none: by default the kernel ends the target together with its tracer (`kern.kill_on_debugger_exit`).
    fn install_guard(&mut self, _: &Stop) -> Result<bool, Error> {
        Ok(false)
    }

    fn guard(&mut self, _: &Stop, _: Guard) -> Result<(), Error> {
        Ok(())
    }

    fn unblock_trap(&mut self, _: &Stop) -> Result<bool, Error> {
        Ok(false)
    }

    fn guard_lost(&mut self, _: Pid) -> bool {
        false
    }

    fn remove_guard(&mut self, _: &Stop) -> Result<(), Error> {
        Ok(())
    }

    fn leftovers(&mut self, _: &Stop) -> Result<Vec<Leftover>, Error> {
        Ok(Vec::new())
    }

    fn facts(&mut self, pid: Pid) -> Result<ProcessFacts, Error> {
        // What executes a set-user-id program while it is traced gains nothing by it, whoever traces (`do_execve`).
        Ok(ProcessFacts { name: self.process_info(pid)?.name, exec_gains_nothing: true, ..ProcessFacts::default() })
    }

    fn mappings(&mut self, pid: Pid) -> Result<Vec<Mapping>, Error> {
        self.read_mappings(pid)
    }

    fn auxiliary_vector(&mut self, pid: Pid) -> Result<AuxiliaryVector, Error> {
        self.read_auxiliary_vector(pid)
    }

    fn open_mapping(&mut self, _: Pid, mapping: &Mapping) -> io::Result<File> {
        super::facts::open_mapped_file(mapping)
    }

    fn open_path(&mut self, pid: Pid, path: &Path) -> io::Result<File> {
        RootDirectory::of(pid)?.open(path)
    }
}

/// Calls a macro with each register that the contract knows.
macro_rules! with_general_registers {
    ($macro:ident) => {
        $macro!(r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, rip, rsp, rflags)
    };
}

fn general(all: &Reg) -> Registers {
    macro_rules! copy {
        ($($name:ident),*) => { Registers { $($name: all.$name,)* } };
    }
    with_general_registers!(copy)
}

fn set_general(all: &mut Reg, registers: &Registers) {
    macro_rules! copy {
        ($($name:ident),*) => { $(all.$name = registers.$name;)* };
    }
    with_general_registers!(copy);
}
