//! Observes all processes by uprobes in the files that they map, whose BPF programs keep the totals of each in the kernel.
//!
//! `machine.bpf.c` follows processes and their calls, `kernel` loads and attaches it, `files` finds where its probes go, `layout` reads what it
//! counted.

mod cgroups;
mod error;
mod files;
mod kernel;
mod layout;

use std::fs;
use std::io;
use std::path::Path;

use memleax_platform::{Pid, native};
use rustc_hash::FxHashSet;

use super::kernel::FIRST_PID_NAMESPACE;
use super::mmap_events::{Mapped, MmapEvents};
use crate::machine::{Losses, Process, Seen, Wanted};
use crate::source::Notice;
use crate::unwind::DebugFiles;
use cgroups::Cgroups;
use files::{Files, Found};
use kernel::{Kernel, Sizes};
use layout::{Control, PLACES, place};

pub use error::MachineError;

/// Four million live blocks in buckets (64 MiB), a million beyond those.
const SIZES: Sizes = Sizes { bucket_bits: 19, overflow: 1 << 20, places: PLACES };

/// How often processes are looked at that may have come into a cgroup without mapping anything, in nanoseconds.
const SCAN: u64 = 1_000_000_000;

/// Blocks of processes that have ended, or places, which are swept out when there are so many.
const DEAD_BLOCKS: u64 = 1 << 18;
const DEAD_PLACES: usize = PLACES as usize / 4;

/// All processes of the machine, observed.
pub struct Machine {
    kernel: Kernel,
    files: Files,
    events: MmapEvents,
    /// Processes whose first calls were not seen.
    late: FxHashSet<Pid>,
    /// Places of processes that have ended, some of whose blocks are still in the books.
    dead: Vec<u32>,
    dead_blocks: u64,
    /// Processes and programs that have ended, as of the newest look.
    ended: u64,
    /// When what processes map was last looked at.
    scanned: u64,
    notices: Vec<Notice>,
}

impl Machine {
    /// Sets probes in all files that processes map, or those `wanted` by their ids.
    ///
    /// # Errors
    /// [`MachineError`].
    pub fn observe(wanted: &Wanted, debug_files: DebugFiles) -> Result<Machine, MachineError> {
        Self::observe_with(wanted, debug_files, SIZES)
    }

    fn observe_with(wanted: &Wanted, debug_files: DebugFiles, sizes: Sizes) -> Result<Machine, MachineError> {
        if !is_first_pid_namespace() {
            return Err(MachineError::Contained);
        }
        if let Some(&missing) = wanted.pids.iter().find(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            return Err(MachineError::NoProcess(missing));
        }
        let cgroups = Cgroups::open(&wanted.cgroups)?;
        let mut kernel = Kernel::load(sizes).map_err(MachineError::Load)?;
        kernel.watch_processes(&cgroups.folders).map_err(MachineError::Processes)?;
        // Before the first look, so that no mapping is missed.
        let events = MmapEvents::of_all().map_err(MachineError::Mappings)?;
        let files = Files::new(debug_files, wanted.pids.clone(), cgroups);
        let mut machine = Machine {
            kernel,
            files,
            events,
            late: FxHashSet::default(),
            dead: Vec::new(),
            dead_blocks: 0,
            ended: 0,
            scanned: 0,
            notices: Vec::new(),
        };
        machine.scan().map_err(MachineError::Mappings)?;
        // What was mapped meanwhile.
        machine.learn_mappings();
        machine.kernel.is_ready();
        Ok(machine)
    }

    /// Sets probes in files that processes have mapped since, and returns those processes that have ended since.
    ///
    /// # Errors
    /// The kernel's.
    pub fn look(&mut self) -> io::Result<Vec<Process>> {
        let ended = self.kernel.counter(Control::Ended);
        let mut over: Vec<(u32, Process, bool)> = Vec::new();
        if self.ended != ended {
            self.ended = ended;
            let gone = self.kernel.places().filter(|&(_, _, used)| used == place::ENDED || used == place::REPLACED);
            over = gone.map(|(place, words, used)| (place, layout::process(words), used == place::ENDED)).collect();
        }
        // Whatever they mapped was told before they ended.
        self.learn_mappings();
        if self.files.are_to_be_scanned() && native::monotonic_nanoseconds() - self.scanned >= SCAN {
            self.scan()?;
        }
        let mut processes = Vec::new();
        for (place, process, has_ended) in over {
            let process = self.with_lateness(process);
            if process.live.count == 0 {
                self.kernel.free(place).map_err(io::Error::other)?;
            } else {
                self.kernel.hold(place);
                self.dead.push(place);
                self.dead_blocks += process.live.count;
            }
            if has_ended {
                self.late.remove(&process.pid);
                processes.push(process);
            }
        }
        if self.dead_blocks >= DEAD_BLOCKS || self.dead.len() >= DEAD_PLACES {
            self.sweep()?;
        }
        Ok(processes)
    }

    /// The processes that run and have allocated something.
    #[must_use]
    pub fn running(&self) -> Vec<Process> {
        let running = self.kernel.places().filter(|&(_, _, used)| used == place::RUNNING);
        let mut processes: Vec<Process> =
            running.map(|(_, words, _)| self.with_lateness(layout::process(words))).collect();
        processes.retain(|process| process.allocated.count > 0);
        processes
    }

    /// What could not be kept or followed so far.
    #[must_use]
    pub fn losses(&self) -> Losses {
        Losses {
            processes: self.kernel.counter(Control::LostProcesses),
            calls: self.kernel.counter(Control::LostCalls),
            blocks: self.kernel.counter(Control::LostBlocks),
        }
    }

    /// What happened since the last call.
    pub fn notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Removes all probes.
    pub fn detach(&mut self) {
        self.kernel.detach();
    }

    fn with_lateness(&self, process: Process) -> Process {
        match process.seen {
            Seen::All if self.late.contains(&process.pid) => Process { seen: Seen::NotAtOnce, ..process },
            _ => process,
        }
    }

    fn scan(&mut self) -> io::Result<()> {
        let began = native::monotonic_nanoseconds();
        let mut late = Vec::new();
        let notices = &mut self.notices;
        self.files.scan(&mut self.kernel, |pid, found| match found {
            Found::Nothing | Found::Gone => {}
            Found::Hooked(module) => {
                notices.push(Notice::Hooked(module));
                late.push(pid);
            }
            Found::Unobserved(why) => notices.push(Notice::Warning(why)),
        })?;
        self.scanned = began;
        late.into_iter().for_each(|pid| self.is_late(pid, began, native::monotonic_nanoseconds()));
        Ok(())
    }

    fn learn_mappings(&mut self) {
        let (mapped, is_incomplete) = self.events.receive_all();
        for Mapped { time, pid, generation, mapping } in mapped {
            match self.files.look(&mut self.kernel, pid, &mapping, generation) {
                Found::Nothing => {}
                Found::Gone => self.is_late(pid, time, native::monotonic_nanoseconds()),
                Found::Hooked(module) => {
                    self.notices.push(Notice::Hooked(module));
                    self.is_late(pid, time, native::monotonic_nanoseconds());
                }
                Found::Unobserved(why) => self.notices.push(Notice::Warning(why)),
            }
        }
        if is_incomplete {
            let text = "more was mapped at once than the kernel could tell of: of some processes the first calls may be missing";
            self.notices.push(Notice::Warning(text.into()));
            if let Err(why) = self.scan() {
                self.notices.push(Notice::Warning(format!("cannot look at what processes map: {why}")));
            }
        }
    }

    /// A process, and children that it has had meanwhile, may have called what had no probes.
    fn is_late(&mut self, pid: Pid, from: u64, until: u64) {
        self.late.insert(pid);
        for (_, words, used) in self.kernel.places() {
            let process = layout::process(words);
            let began = u64::try_from(process.began.as_nanos()).unwrap_or(u64::MAX);
            if used != place::FREE && process.parent == pid && (from..=until).contains(&began) {
                self.late.insert(process.pid);
            }
        }
    }

    fn sweep(&mut self) -> io::Result<()> {
        let mut is_dead = vec![false; PLACES as usize];
        for &place in &self.dead {
            is_dead[place as usize] = true;
        }
        self.kernel.sweep(|place| is_dead.get(place).is_some_and(|&dead| dead)).map_err(io::Error::other)?;
        for place in self.dead.drain(..) {
            self.kernel.free(place).map_err(io::Error::other)?;
        }
        self.dead_blocks = 0;
        Ok(())
    }
}

fn is_first_pid_namespace() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|namespace| namespace.as_os_str() == FIRST_PID_NAMESPACE)
}
