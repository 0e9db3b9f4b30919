//! A deterministic machine behind the [`Tracer`] contract, for tests: memory, threads, and a processor that executes what
//! `isa` can emulate. It does nothing by itself: tests say which thread runs, and what happens to it.

mod program;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use iced_x86::Mnemonic;
use memleax_platform::{
    AuxiliaryVector, Error, ExitStatus, Guard, Leftover, Mapping, Pid, ProcessFacts, Registers, Report, Resume, Signal,
    Stop, StopKind, Tid, Tracer,
};

use super::isa::native;
pub(super) use program::{Program, TEXT};

/// The process observed.
pub(super) const TARGET: Pid = Pid(100);
/// Its first thread.
pub(super) const MAIN: Tid = Tid(100);
/// A word that the fake allocator returns.
pub(super) const RESULT: u64 = DATA;
/// What the fake `posix_memalign` returns.
pub(super) const STATUS: u64 = DATA + 8;
/// Readable and writable memory.
pub(super) const DATA: u64 = 0x7f00_0000_0000;
/// Memory for code made at run time.
pub(super) const JIT: u64 = 0x7e00_0000_0000;
const PROGRAM: u64 = 0x5555_5555_4000;
const INTERPRETER: u64 = 0x7ff0_0000_0000;
const PLUGIN: u64 = 0x7fd0_0000_0000;
const STACKS: u64 = 0x7fff_0000_0000;
const STACK: u64 = 0x10000;

/// What a test can ask about afterwards.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Action {
    Resumed(Tid, Resume),
    Detached(Tid, Resume),
    MappedCode(u64),
    UnmappedCode(u64),
    InstalledGuard,
    RemovedGuard(Pid),
    UnblockedTrap(Tid),
}

#[derive(Clone, Debug)]
struct Thread {
    pid: Pid,
    registers: Registers,
    stopped: bool,
    /// The last SIGTRAP was caused by an int3.
    by_breakpoint: bool,
    traced: bool,
    /// It cannot be halted before this process has gone on.
    in_vfork_of: Option<Pid>,
}

type Memory = BTreeMap<u64, Vec<u8>>;

/// The machine.
#[derive(Debug)]
pub(super) struct Machine {
    memories: BTreeMap<Pid, Memory>,
    sharing: BTreeMap<Pid, Pid>,
    threads: BTreeMap<Tid, Thread>,
    programs: BTreeMap<PathBuf, Program>,
    mappings: Vec<Mapping>,
    pub(super) reports: VecDeque<Report>,
    pub(super) actions: Vec<Action>,
    pub(super) guarded: BTreeMap<u64, Guard>,
    pub(super) leftovers: Vec<Leftover>,
    pub(super) facts: ProcessFacts,
    pub(super) guard_lost: bool,
    /// As on a system whose kernel ends the target together with its tracer.
    pub(super) lacks_guard: bool,
    pub(super) trap_pending: bool,
    pub(super) refuse_registers: bool,
    pub(super) refuse_code: bool,
    /// The target ends with its tracer; who is in vfork comes back after so many ticks.
    pub(super) ends_with_tracer: Option<u32>,
    /// Only a thread that has trapped can map code.
    pub(super) maps_in_traps_only: bool,
    pub(super) attached: bool,
    arenas: u64,
}

/// Why a thread no longer runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ran {
    /// It came to a breakpoint, which is reported.
    Trapped,
    /// It came to `hlt`, the end of each piece of the program.
    Rested,
    /// It may go on.
    Running,
}

impl Machine {
    /// A process of one thread, at rest.
    pub(super) fn new() -> Self {
        let mut machine = Machine {
            memories: BTreeMap::from([(TARGET, Memory::new())]),
            sharing: BTreeMap::new(),
            threads: BTreeMap::new(),
            programs: BTreeMap::new(),
            mappings: Vec::new(),
            reports: VecDeque::new(),
            actions: Vec::new(),
            guarded: BTreeMap::new(),
            leftovers: Vec::new(),
            facts: ProcessFacts::default(),
            guard_lost: false,
            lacks_guard: false,
            trap_pending: false,
            refuse_registers: false,
            refuse_code: false,
            ends_with_tracer: None,
            maps_in_traps_only: false,
            attached: false,
            arenas: 0,
        };
        machine.map_program("/program", PROGRAM, program::program());
        machine.map_program("/interpreter", INTERPRETER, program::interpreter());
        machine.map_anonymous(DATA, 0x1000, false);
        machine.map_anonymous(STACKS, 0x10 * STACK as usize, false);
        machine.add_thread(TARGET, MAIN);
        machine
    }

    /// A thread at rest.
    pub(super) fn add_thread(&mut self, pid: Pid, tid: Tid) {
        let rsp = STACKS + STACK * (self.threads.len() as u64 + 1) - 0x800;
        let registers = Registers { rip: self.label("/program", "rest"), rsp, ..Registers::default() };
        self.threads.insert(
            tid,
            Thread { pid, registers, stopped: false, by_breakpoint: false, traced: true, in_vfork_of: None },
        );
    }

    /// The run-time address of a label.
    pub(super) fn label(&self, path: &str, label: &str) -> u64 {
        let mapping = self.mappings.iter().find(|mapping| mapping.path == Path::new(path)).expect("a mapped file");
        mapping.start + self.programs[Path::new(path)].labels[label]
    }

    /// Maps the plug-in (again), as dlopen does.
    pub(super) fn map_plugin(&mut self) {
        self.map_program("/plugin", PLUGIN, program::plugin());
    }

    /// Unmaps a file, as dlclose does.
    pub(super) fn unmap(&mut self, path: &str) {
        let index = self.mappings.iter().position(|mapping| mapping.path == Path::new(path)).expect("a mapped file");
        let mapping = self.mappings.remove(index);
        self.memory(TARGET).remove(&mapping.start);
    }

    fn map_program(&mut self, path: &str, start: u64, program: Program) {
        let mut bytes = vec![0; TEXT as usize];
        bytes.extend(&program.text);
        bytes.resize(bytes.len().next_multiple_of(native::PAGE as usize), 0);
        self.mappings.push(Mapping {
            start,
            end: start + bytes.len() as u64,
            offset: 0,
            readable: true,
            writable: false,
            executable: true,
            shared: false,
            file_id: (1, start),
            path: path.into(),
            deleted: false,
        });
        self.mappings.sort_by_key(|mapping| mapping.start);
        self.memory(TARGET).insert(start, bytes);
        self.programs.insert(path.into(), program);
    }

    /// Maps memory without a file.
    pub(super) fn map_anonymous(&mut self, start: u64, length: usize, executable: bool) {
        self.mappings.push(Mapping {
            start,
            end: start + length as u64,
            offset: 0,
            readable: true,
            writable: true,
            executable,
            shared: false,
            file_id: (0, 0),
            path: PathBuf::new(),
            deleted: false,
        });
        self.mappings.sort_by_key(|mapping| mapping.start);
        self.memory(TARGET).insert(start, vec![0; length]);
    }

    fn memory(&mut self, pid: Pid) -> &mut Memory {
        let owner = self.sharing.get(&pid).copied().unwrap_or(pid);
        self.memories.get_mut(&owner).expect("a process")
    }

    /// Memory of a process, as it is.
    pub(super) fn peek(&mut self, pid: Pid, address: u64, length: usize) -> Option<&mut [u8]> {
        let (&start, bytes) = self.memory(pid).range_mut(..=address).next_back()?;
        let offset = (address - start) as usize;
        let end = (offset + length).min(bytes.len());
        (offset < end).then(|| &mut bytes[offset..end])
    }

    /// Sets a word.
    pub(super) fn poke(&mut self, address: u64, word: u64) {
        self.peek(TARGET, address, 8).expect("mapped memory").copy_from_slice(&word.to_le_bytes());
    }

    /// A thread's registers, to look at and to change.
    pub(super) fn thread(&mut self, tid: Tid) -> &mut Registers {
        &mut self.threads.get_mut(&tid).expect("a thread").registers
    }

    /// True if the thread is at the end of a piece of the program.
    pub(super) fn rests(&mut self, tid: Tid) -> bool {
        let Thread { pid, registers, .. } = self.threads[&tid];
        const HLT: u8 = 0xf4;
        self.peek(pid, registers.rip, 1).is_some_and(|byte| byte[0] == HLT)
    }

    /// True if the thread is stopped.
    pub(super) fn is_stopped(&self, tid: Tid) -> bool {
        self.threads[&tid].stopped
    }

    /// Addresses of the process's breakpoints in files' code.
    pub(super) fn patched(&mut self, pid: Pid) -> Vec<u64> {
        let mut patched = Vec::new();
        for mapping in self.mappings.clone() {
            let Some(text) = self.programs.get(&mapping.path).map(|program| program.text.clone()) else { continue };
            let start = mapping.start + TEXT;
            let Some(memory) = self.peek(pid, start, text.len()) else { continue };
            let differs = memory.iter().zip(&text).enumerate().filter(|(_, (now, file))| now != file);
            patched.extend(differs.map(|(offset, _)| start + offset as u64));
        }
        patched
    }

    /// Lets a running thread execute until it rests or hits a breakpoint, which is then reported.
    pub(super) fn run(&mut self, tid: Tid) -> Ran {
        let ran = self.run_for(tid, 1000);
        assert_ne!(ran, Ran::Running, "thread {tid} runs in circles");
        ran
    }

    /// The same, for so many instructions at the most.
    pub(super) fn run_for(&mut self, tid: Tid, instructions: usize) -> Ran {
        for _ in 0..instructions {
            let pid = self.threads[&tid].pid;
            let mut registers = self.threads[&tid].registers;
            assert!(!self.threads[&tid].stopped, "thread {tid} is stopped");
            let bytes = self.peek(pid, registers.rip, native::LONGEST_INSTRUCTION).expect("executable memory").to_vec();
            if bytes[0] == native::BREAKPOINT {
                self.thread(tid).rip += 1;
                self.stop(tid, StopKind::Trap);
                self.threads.get_mut(&tid).expect("a thread").by_breakpoint = true;
                return Ran::Trapped;
            }
            let instruction = native::decode(&bytes, registers.rip).expect("an instruction");
            match instruction.mnemonic() {
                Mnemonic::Hlt => return Ran::Rested,
                Mnemonic::Cld => registers.rip = instruction.next_ip(),
                _ => {
                    let mut memory = OfProcess(self, pid);
                    let done = native::emulate(&instruction, &mut registers, &mut memory);
                    assert!(done, "the fake processor cannot execute {instruction:?}");
                }
            }
            *self.thread(tid) = registers;
        }
        Ran::Running
    }

    /// Stops a thread for another reason than a breakpoint, and reports it.
    pub(super) fn stop(&mut self, tid: Tid, kind: StopKind) {
        let thread = self.threads.get_mut(&tid).expect("a thread");
        assert!(!thread.stopped, "thread {tid} is stopped");
        thread.stopped = true;
        thread.by_breakpoint = false;
        let pid = thread.pid;
        self.reports.push_back(Report::Stopped(Stop { pid, tid, kind }));
    }

    /// A thread forks; the child is reported.
    pub(super) fn fork(&mut self, tid: Tid, child: Pid) {
        let memory = self.memory(TARGET).clone();
        self.memories.insert(child, memory);
        let thread = Thread { pid: child, stopped: false, ..self.threads[&tid].clone() };
        self.threads.insert(Tid(child.0), thread);
        self.stop(Tid(child.0), StopKind::Forked { parent: TARGET });
    }

    /// A thread vforks; the child is reported.
    pub(super) fn vfork(&mut self, tid: Tid, child: Pid) {
        self.sharing.insert(child, TARGET);
        let thread = Thread { pid: child, stopped: false, ..self.threads[&tid].clone() };
        self.threads.insert(Tid(child.0), thread);
        self.threads.get_mut(&tid).expect("a thread").in_vfork_of = Some(child);
        self.stop(Tid(child.0), StopKind::SharingChild { parent: TARGET });
    }

    /// A process replaces its program (by the same); all its other threads are gone.
    pub(super) fn exec(&mut self, pid: Pid) {
        if self.sharing.remove(&pid).is_some() {
            self.end_vfork(pid);
            self.memories.insert(pid, Memory::new());
        } else {
            self.threads.retain(|tid, thread| thread.pid != pid || tid.0 == pid.0);
            self.guarded.clear();
            for (path, program) in &self.programs {
                let mapping = self.mappings.iter().find(|mapping| mapping.path == *path).expect("a mapped file");
                let memory = self.memories.get_mut(&pid).expect("a process").get_mut(&mapping.start).expect("memory");
                memory[TEXT as usize..TEXT as usize + program.text.len()].copy_from_slice(&program.text);
            }
        }
        self.stop(Tid(pid.0), StopKind::Exec);
    }

    /// A thread ends.
    pub(super) fn end_thread(&mut self, tid: Tid) {
        let pid = self.threads.remove(&tid).expect("a thread").pid;
        self.reports.push_back(Report::ThreadEnded { pid, tid });
    }

    /// A process ends.
    pub(super) fn end_process(&mut self, pid: Pid, status: ExitStatus) {
        self.threads.retain(|_, thread| thread.pid != pid);
        self.end_vfork(pid);
        self.reports.push_back(Report::ProcessEnded { pid, status });
    }

    /// A thread is sent SIGTRAP.
    pub(super) fn send_trap(&mut self, tid: Tid) {
        self.stop(tid, StopKind::Trap);
    }

    /// A thread is sent a signal.
    pub(super) fn send(&mut self, tid: Tid, signal: i32) {
        self.stop(tid, StopKind::Signal(Signal(signal)));
    }

    /// A vforked child has gone on: its parent, too, may.
    fn end_vfork(&mut self, child: Pid) {
        for thread in self.threads.values_mut().filter(|thread| thread.in_vfork_of == Some(child)) {
            thread.in_vfork_of = None;
        }
    }

    fn stopped_thread(&mut self, stop: &Stop) -> Result<&mut Thread, Error> {
        let thread = self.threads.get_mut(&stop.tid).ok_or(Error::Gone(stop.tid))?;
        assert!(thread.stopped, "thread {} is not stopped", stop.tid);
        Ok(thread)
    }
}

struct OfProcess<'a>(&'a mut Machine, Pid);

impl native::Memory for OfProcess<'_> {
    fn load(&mut self, address: u64, size: usize) -> Option<u64> {
        let mut word = [0; 8];
        word[..size].copy_from_slice(self.0.peek(self.1, address, size)?);
        Some(u64::from_le_bytes(word))
    }

    fn store(&mut self, address: u64, size: usize, value: u64) -> Option<()> {
        self.0.peek(self.1, address, size)?.copy_from_slice(&value.to_le_bytes()[..size]);
        Some(())
    }
}

impl Tracer for Machine {
    const MAP_ANONYMOUS: u64 = 0x20;

    fn attach(&mut self, _pid: Pid) -> Result<(), Error> {
        self.attached = true;
        Ok(())
    }

    fn wait(&mut self) -> Result<Report, Error> {
        if let Some(ticks @ 1..) = self.ends_with_tracer.as_mut().filter(|_| self.reports.is_empty()) {
            *ticks -= 1;
            if *ticks == 0 {
                self.threads.values_mut().for_each(|thread| thread.in_vfork_of = None);
            }
        }
        Ok(self.reports.pop_front().unwrap_or(Report::Tick))
    }

    fn set_tick(&mut self, _period: Duration) -> Result<(), Error> {
        Ok(())
    }

    fn ends_with_tracer(&self) -> bool {
        self.ends_with_tracer.is_some()
    }

    fn resume(&mut self, stop: Stop, how: Resume) -> Result<(), Error> {
        self.stopped_thread(&stop)?.stopped = false;
        self.actions.push(Action::Resumed(stop.tid, how));
        Ok(())
    }

    fn step(&mut self, stop: &mut Stop) -> Result<(), Error> {
        let mut registers = self.stopped_thread(stop)?.registers;
        assert!(
            self.threads.values().all(|thread| thread.pid != stop.pid || thread.stopped),
            "a thread runs meanwhile"
        );
        let bytes =
            self.peek(stop.pid, registers.rip, native::LONGEST_INSTRUCTION).expect("executable memory").to_vec();
        let instruction = native::decode(&bytes, registers.rip).expect("no breakpoint here");
        assert_eq!(instruction.mnemonic(), Mnemonic::Cld);
        registers.rip = instruction.next_ip();
        self.stopped_thread(stop)?.registers = registers;
        Ok(())
    }

    fn halt(&mut self, pid: Pid) -> Result<Vec<Stop>, Error> {
        let mut stops = Vec::new();
        let mut others = VecDeque::new();
        for report in self.reports.drain(..) {
            match report {
                Report::Stopped(stop) if stop.pid == pid => stops.push(stop),
                other => others.push_back(other),
            }
        }
        self.reports = others;
        for (&tid, thread) in self.threads.iter_mut().filter(|(_, thread)| thread.pid == pid && !thread.stopped) {
            if thread.in_vfork_of.is_some() {
                continue;
            }
            thread.stopped = true;
            thread.by_breakpoint = false;
            stops.push(Stop { pid, tid, kind: StopKind::Halted });
        }
        Ok(stops)
    }

    fn detach(&mut self, stop: Stop, how: Resume) -> Result<(), Error> {
        let thread = self.stopped_thread(&stop)?;
        thread.stopped = false;
        thread.traced = false;
        if self.ends_with_tracer.is_none() {
            self.end_vfork(stop.pid);
        }
        self.actions.push(Action::Detached(stop.tid, how));
        Ok(())
    }

    fn traced(&self) -> Vec<Pid> {
        let traced = self.threads.values().filter(|thread| thread.traced);
        traced.map(|thread| thread.pid).collect::<BTreeSet<Pid>>().into_iter().collect()
    }

    fn is_breakpoint_trap(&mut self, stop: &Stop) -> Result<bool, Error> {
        Ok(self.stopped_thread(stop)?.by_breakpoint)
    }

    fn registers(&mut self, stop: &Stop) -> Result<Registers, Error> {
        if self.refuse_registers {
            let cause = io::ErrorKind::Other.into();
            return Err(Error::Os { what: "read the registers of", pid: stop.pid, cause });
        }
        Ok(self.stopped_thread(stop)?.registers)
    }

    fn set_registers(&mut self, stop: &Stop, registers: &Registers) -> Result<(), Error> {
        self.stopped_thread(stop)?.registers = *registers;
        Ok(())
    }

    fn set_program_counter(&mut self, stop: &Stop, address: u64) -> Result<(), Error> {
        self.stopped_thread(stop)?.registers.rip = address;
        Ok(())
    }

    fn read(&mut self, stop: &Stop, address: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        self.stopped_thread(stop)?;
        let Some(memory) = self.peek(stop.pid, address, buffer.len()) else { return Ok(0) };
        buffer[..memory.len()].copy_from_slice(memory);
        Ok(memory.len())
    }

    fn write(&mut self, stop: &Stop, address: u64, bytes: &[u8]) -> Result<(), Error> {
        self.stopped_thread(stop)?;
        let pid = stop.pid;
        if bytes == [native::BREAKPOINT] && self.refuse_code {
            assert!(self.guarded.is_empty());
        }
        match self.peek(pid, address, bytes.len()) {
            Some(memory) if memory.len() == bytes.len() => memory.copy_from_slice(bytes),
            _ => {
                let cause = io::ErrorKind::AddrNotAvailable.into();
                return Err(Error::Memory { what: "write", length: bytes.len(), address, pid, cause });
            }
        }
        Ok(())
    }

    fn map_code(&mut self, stop: &Stop, near: u64, length: usize) -> Result<u64, Error> {
        self.stopped_thread(stop)?;
        if self.refuse_code {
            let cause = io::ErrorKind::PermissionDenied.into();
            return Err(Error::Remote { what: "map memory", pid: stop.pid, cause });
        }
        if self.maps_in_traps_only && stop.kind != StopKind::Trap {
            return Err(Error::NotNow { what: "map memory", pid: stop.pid });
        }
        self.arenas += 1;
        let address = (near & !0xff_ffff) - self.arenas * 0x100_0000;
        self.memory(stop.pid).insert(address, vec![0; length]);
        self.actions.push(Action::MappedCode(address));
        Ok(address)
    }

    fn unmap_code(&mut self, stop: &Stop, address: u64, length: usize) -> Result<(), Error> {
        self.stopped_thread(stop)?;
        let range = address..address + length as u64;
        assert!(self.threads.values().all(|thread| !range.contains(&thread.registers.rip)), "a thread runs there");
        self.memory(stop.pid).remove(&address);
        self.actions.push(Action::UnmappedCode(address));
        Ok(())
    }

    fn install_guard(&mut self, stop: &Stop) -> Result<bool, Error> {
        self.stopped_thread(stop)?;
        if self.lacks_guard {
            return Ok(false);
        }
        self.guard_lost = false;
        self.actions.push(Action::InstalledGuard);
        Ok(true)
    }

    fn guard(&mut self, stop: &Stop, entry: Guard) -> Result<(), Error> {
        let byte = self.peek(stop.pid, entry.breakpoint, 1).expect("memory")[0];
        assert_ne!(byte, native::BREAKPOINT, "the guard must know of a breakpoint before it is written");
        self.guarded.insert(entry.breakpoint, entry);
        Ok(())
    }

    fn unblock_trap(&mut self, stop: &Stop) -> Result<bool, Error> {
        self.stopped_thread(stop)?;
        self.actions.push(Action::UnblockedTrap(stop.tid));
        Ok(!self.trap_pending)
    }

    fn guard_lost(&mut self, _pid: Pid) -> bool {
        self.guard_lost
    }

    fn remove_guard(&mut self, stop: &Stop) -> Result<(), Error> {
        self.actions.push(Action::RemovedGuard(stop.pid));
        Ok(())
    }

    fn leftovers(&mut self, _stop: &Stop) -> Result<Vec<Leftover>, Error> {
        Ok(self.leftovers.clone())
    }

    fn facts(&mut self, _pid: Pid) -> Result<ProcessFacts, Error> {
        Ok(self.facts.clone())
    }

    fn mappings(&mut self, _pid: Pid) -> Result<Vec<Mapping>, Error> {
        Ok(self.mappings.clone())
    }

    fn auxiliary_vector(&mut self, _pid: Pid) -> Result<AuxiliaryVector, Error> {
        Ok(AuxiliaryVector {
            program_headers: PROGRAM + 64,
            entry: PROGRAM + TEXT,
            interpreter_base: INTERPRETER,
            vdso: 0,
        })
    }

    fn open_mapping(&mut self, _pid: Pid, mapping: &Mapping) -> io::Result<File> {
        self.programs[&mapping.path].file.try_clone()
    }

    fn open_path(&mut self, _pid: Pid, _path: &Path) -> io::Result<File> {
        Err(io::ErrorKind::NotFound.into())
    }
}
