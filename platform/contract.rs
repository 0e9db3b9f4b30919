//! The contract itself: see the crate's documentation for its rules.

use std::fs::File;
use std::io;
use std::time::Duration;

use crate::{AuxiliaryVector, Error, Mapping, Pid, ProcessFacts, Registers, Signal, Tid};

/// Why a thread stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopKind {
    /// SIGTRAP, as a breakpoint instruction causes it. It may also be one that somebody sent:
    /// [`Tracer::is_breakpoint_trap`] tells, at the cost of a system call.
    Trap,
    /// Another signal, not yet delivered.
    Signal(Signal),
    /// [`Tracer::halt`] stopped it; nothing is to be delivered.
    Halted,
    /// The first stop of a child process with a copy of its parent's memory, breakpoints included.
    Forked {
        /// The process that called fork.
        parent: Pid,
    },
    /// The first stop of a child process that shares its parent's memory (vfork, posix_spawn, `CLONE_VM`).
    SharingChild {
        /// The process whose memory it uses.
        parent: Pid,
    },
    /// The process has replaced its image: all its memory is new, all its other threads are gone.
    Exec,
}

/// A stopped thread: the right to look into it and to resume it. Not `Clone`, so a thread is resumed once.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a thread that is never resumed hangs its process"]
pub struct Stop {
    /// The process.
    pub pid: Pid,
    /// The thread.
    pub tid: Tid,
    /// Why.
    pub kind: StopKind,
}

/// How a stopped thread goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resume {
    /// As if the stop had not happened: the trap was the caller's own.
    Swallow,
    /// With the signal that stopped it (for [`StopKind::Trap`]: SIGTRAP), if one did.
    Deliver,
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitStatus {
    /// By `exit`, with this status.
    Exited(i32),
    /// By this signal.
    Killed(Signal),
    /// Its parent took note of it before we could.
    Unknown,
}

/// What [`Tracer::wait`] has to tell.
#[derive(Debug, PartialEq, Eq)]
pub enum Report {
    /// A thread stopped.
    Stopped(Stop),
    /// A thread ended; its process goes on.
    ThreadEnded {
        /// The process.
        pid: Pid,
        /// The thread that is no more.
        tid: Tid,
    },
    /// The last thread of a process ended.
    ProcessEnded {
        /// The process.
        pid: Pid,
        /// How.
        status: ExitStatus,
    },
    /// The tick period passed, or a signal for the tracer itself arrived.
    Tick,
}

/// A breakpoint left behind by a tracer that was killed, as its guard's table tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leftover {
    /// Address of the breakpoint.
    pub address: u64,
    /// The byte that belongs there.
    pub original: u8,
}

/// One breakpoint, as the guard inside the target must know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Guard {
    /// Address of the breakpoint.
    pub breakpoint: u64,
    /// Where the displaced copy of its instruction is.
    pub slot: u64,
    /// The byte that the breakpoint replaced.
    pub original: u8,
}

/// A kernel's means to control another process. The rules are in the crate's documentation.
///
/// Every method but [`wait`](Self::wait) may fail with [`Error::Gone`].
pub trait Tracer {
    /// The flag of `mmap(2)` for memory without a file.
    const MAP_ANONYMOUS: u64;

    /// Starts to trace every thread of `pid`; they go on running.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason. After any error no thread is traced.
    fn attach(&mut self, pid: Pid) -> Result<(), Error>;

    /// The next report, or [`Report::Tick`] after the period given to [`set_tick`](Self::set_tick): also when
    /// there is always something to report.
    ///
    /// # Errors
    /// Only if the platform's wait call itself fails.
    fn wait(&mut self) -> Result<Report, Error>;

    /// Sets the period of the ticks, and so how long [`wait`](Self::wait) waits at the most.
    ///
    /// # Errors
    /// If the platform offers no such timer.
    fn set_tick(&mut self, period: Duration) -> Result<(), Error>;

    /// Lets the thread run.
    ///
    /// # Errors
    /// [`Error::Gone`]; the end is reported by a later [`wait`](Self::wait).
    fn resume(&mut self, stop: Stop, how: Resume) -> Result<(), Error>;

    /// Executes one instruction and stops again: slow, for cold paths. The other threads must be halted if
    /// what is stepped over must not be seen by them. A signal that comes first is kept and delivered later.
    ///
    /// # Errors
    /// [`Error::Gone`].
    fn step(&mut self, stop: &mut Stop) -> Result<(), Error>;

    /// Stops every thread of `pid`, one [`Stop`] each. Threads that report something else first are returned
    /// with that ([`StopKind::Trap`], [`StopKind::Signal`], …); see rule 5. Threads whose `Stop` the caller holds are
    /// left alone.
    ///
    /// A thread inside vfork cannot be stopped before its child executes a program or ends; it is not among the
    /// results. It executes no instruction until then, and stops before it does if it is to be detached
    /// ([`detach`](Self::detach)).
    ///
    /// # Errors
    /// [`Error::Gone`] if the process has ended.
    fn halt(&mut self, pid: Pid) -> Result<Vec<Stop>, Error>;

    /// Stops tracing the thread and lets it run, with or without the signal that stopped it.
    /// A thread that was stopped by job control stays so.
    ///
    /// After the first one of a process, a thread that [`halt`](Self::halt) could not stop is reported by
    /// [`wait`](Self::wait) as [`StopKind::Halted`] as soon as it can be detached. So the last thing that a caller does
    /// is to detach what is reported until [`traced`](Self::traced) is empty.
    ///
    /// # Errors
    /// [`Error::Gone`].
    fn detach(&mut self, stop: Stop, how: Resume) -> Result<(), Error>;

    /// True if the kernel ends whatever is traced when the tracer ends: a caller must not give up before all are detached.
    fn ends_with_tracer(&self) -> bool {
        false
    }

    /// The processes that have a traced thread, also those whose first stop has not been reported yet.
    fn traced(&self) -> Vec<Pid>;

    /// True if a [`StopKind::Trap`] was caused by a breakpoint instruction and not sent by somebody.
    ///
    /// # Errors
    /// [`Error::Gone`].
    fn is_breakpoint_trap(&mut self, stop: &Stop) -> Result<bool, Error>;

    /// The general registers.
    ///
    /// # Errors
    /// [`Error::Gone`].
    fn registers(&mut self, stop: &Stop) -> Result<Registers, Error>;

    /// Sets all general registers.
    ///
    /// # Errors
    /// [`Error::Gone`].
    fn set_registers(&mut self, stop: &Stop, registers: &Registers) -> Result<(), Error>;

    /// Sets the program counter only: cheaper than [`set_registers`](Self::set_registers).
    ///
    /// # Errors
    /// [`Error::Gone`].
    fn set_program_counter(&mut self, stop: &Stop, address: u64) -> Result<(), Error>;

    /// Reads memory; returns how many bytes were readable from `address` on (perhaps fewer than asked, or 0).
    ///
    /// # Errors
    /// [`Error::Gone`]; unreadable memory is no error but a short count.
    fn read(&mut self, stop: &Stop, address: u64, buffer: &mut [u8]) -> Result<usize, Error>;

    /// Writes memory, read-only text included (the process gets a private copy of the page).
    ///
    /// # Errors
    /// [`Error::Memory`] if not all could be written.
    fn write(&mut self, stop: &Stop, address: u64, bytes: &[u8]) -> Result<(), Error>;

    /// Maps `length` bytes of readable, executable memory in the target, so that every byte of it is within
    /// 1 GiB of `near`, at a place where neither heap nor stack will want to grow.
    ///
    /// # Errors
    /// [`Error::Remote`] where the target's filters or address space refuse it; [`Error::NotNow`].
    fn map_code(&mut self, stop: &Stop, near: u64, length: usize) -> Result<u64, Error>;

    /// Unmaps what [`map_code`](Self::map_code) mapped. No thread may run in it.
    ///
    /// # Errors
    /// [`Error::Remote`], [`Error::NotNow`].
    fn unmap_code(&mut self, stop: &Stop, address: u64, length: usize) -> Result<(), Error>;

    /// Makes the target survive the tracer's sudden death: from now on a breakpoint that no tracer sees
    /// goes on at its slot. Done once after attaching, and again when [`guard_lost`](Self::guard_lost) says so.
    /// False on a platform that has no guard, as its kernel ends the target together with its tracer.
    ///
    /// The tracer may die at any moment, also between setting the program counter of a thread in a
    /// [`StopKind::Trap`] and resuming it; the guard then sees a trap at the new program counter. It knows a breakpoint's
    /// address, and addresses within what [`map_code`](Self::map_code) mapped, to mean that the trap was dealt with. So
    /// a thread whose displaced instruction has been emulated must not be left right behind a breakpoint one byte
    /// long; it is to be resumed behind that instruction's copy in the slot. And `stop`, as that given to
    /// [`map_code`](Self::map_code), [`unmap_code`](Self::unmap_code) and [`guard`](Self::guard), must not be the
    /// [`StopKind::Trap`] of a breakpoint that was taken out before its program counter was set: of such a trap the
    /// system calls made in the thread's name leave nothing that a guard could see.
    ///
    /// # Errors
    /// [`Error::Remote`].
    fn install_guard(&mut self, stop: &Stop) -> Result<bool, Error>;

    /// Tells the guard of a breakpoint; to be called before the breakpoint is written. A second call for the same
    /// breakpoint replaces the first.
    ///
    /// # Errors
    /// [`Error::Memory`] or [`Error::Remote`] if its table has to grow and cannot.
    fn guard(&mut self, stop: &Stop, entry: Guard) -> Result<(), Error>;

    /// Sees to it that the thread does not block the signal of breakpoints: the kernel would take the guard away as soon
    /// as such a thread meets one. [`detach`](Self::detach) blocks it again, unless the thread has changed what it blocks
    /// in the meantime. False if it stays blocked, as one is waiting to be delivered.
    ///
    /// # Errors
    /// [`Error::Gone`].
    fn unblock_trap(&mut self, stop: &Stop) -> Result<bool, Error>;

    /// True if the target's signal handling was changed so that the guard is no longer in place. Cheap enough
    /// for every tick.
    fn guard_lost(&mut self, pid: Pid) -> bool;

    /// Removes the guard from the process of `stop` (the traced one, or a forked copy of it): the program has its own
    /// action back. All threads must be halted, the breakpoints removed, and no thread be right behind one of them: the
    /// program counter of one in such a [`StopKind::Trap`] must have been set back, or forth to a slot.
    ///
    /// In a process that shares its parent's memory, only its own signal handling is changed.
    ///
    /// # Errors
    /// [`Error::Remote`].
    fn remove_guard(&mut self, stop: &Stop) -> Result<(), Error>;

    /// Breakpoints that a killed tracer of this program left in the process, read from the guard it installed. Those
    /// whose memory does not hold a breakpoint instruction are gone. A thread may be in the [`StopKind::Trap`] of one.
    ///
    /// To be asked, and the original bytes to be written, after attaching and before
    /// [`install_guard`](Self::install_guard).
    ///
    /// # Errors
    /// [`Error::Memory`] if a guard is there but cannot be read.
    fn leftovers(&mut self, stop: &Stop) -> Result<Vec<Leftover>, Error>;

    /// What can and cannot be done to the process.
    ///
    /// # Errors
    /// [`Error::Gone`], or [`Error::Os`] if the facts are unreadable.
    fn facts(&mut self, pid: Pid) -> Result<ProcessFacts, Error>;

    /// The mappings, in ascending order.
    ///
    /// # Errors
    /// [`Error::Gone`], or [`Error::Os`] if they are unreadable.
    fn mappings(&mut self, pid: Pid) -> Result<Vec<Mapping>, Error>;

    /// What the kernel told the program at its start.
    ///
    /// # Errors
    /// [`Error::Gone`], or [`Error::Os`] if it is unreadable.
    fn auxiliary_vector(&mut self, pid: Pid) -> Result<AuxiliaryVector, Error>;

    /// Opens the very file behind a mapping: through the target's own root, and if that path now names another
    /// file or none, through the kernel's own reference to it.
    ///
    /// # Errors
    /// The error of the last way tried.
    fn open_mapping(&mut self, pid: Pid, mapping: &Mapping) -> io::Result<File>;

    /// Opens a path as the target sees it (its own root).
    ///
    /// # Errors
    /// The error of `open(2)`.
    fn open_path(&mut self, pid: Pid, path: &std::path::Path) -> io::Result<File>;
}
