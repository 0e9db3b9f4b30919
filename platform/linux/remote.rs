//! System calls made in a stopped thread's name.
//!
//! The thread executes a `syscall` instruction that is in its memory anyway, between two `PTRACE_SYSCALL` stops, and
//! has its registers back before anything else happens. Single-stepping would need no second stop, but its trap is a
//! signal that the kernel forces upon the thread: a program that blocks or ignores SIGTRAP would lose that setting.
//!
//! What the thread was doing goes on as if nothing had happened:
//! - All signals are blocked meanwhile, so none is delivered with borrowed registers. SIGSTOP, which cannot be
//!   blocked, is passed on, and its stop is shown again afterwards.
//! - A system call that the stop interrupted is restarted by the kernel, which looks for `-ERESTART*` in rax and for
//!   the call's number in orig_rax only when the thread at last returns to user mode. The calls made here do not touch
//!   its restart block.
//! - A signal that stopped the thread can still be delivered, with its `siginfo_t`.
//! - A restartable sequence (`rseq(2)`) that was interrupted is still aborted.
//!
//! Should this process be killed meanwhile, the thread makes the call, and then gives itself its registers and its
//! signal mask back (see [`stub`]). A signal that had stopped it may be lost then, though not a breakpoint's: the thread
//! meets the breakpoint again. One that comes in that very moment is handled before an interrupted call is restarted,
//! and not after it failed with EINTR. Only where no place is found for a stub is the thread lost.

use std::io;
use std::ops::Range;

use libc::{c_int, c_long, siginfo_t};

use super::isa::user_regs_struct;
use super::status::Status;
use super::stub::{self, Place};
use super::{facts, memory, ptrace, step};
use crate::{Error, Mapping, Pid, Signal, Stop, Tid};

/// The machine code of `syscall`.
pub(super) const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// The machine code of `int3`.
const INT3: [u8; 1] = [0xcc];
/// That of the two-byte `int 3`, which only programs themselves contain.
const LONG_INT3: [u8; 2] = [0xcd, 0x03];

/// Offset of `rseq_cs` in `struct rseq` (`include/uapi/linux/rseq.h`).
const RSEQ_CS: u64 = 8;

/// The right to make system calls in the name of one stopped thread.
#[derive(Debug)]
pub(super) struct Remote {
    pid: Pid,
    tid: Tid,
    means: Means,
}

/// By what code calls are made.
#[derive(Clone, Copy, Debug)]
enum Means {
    /// A stub that is put there.
    Stub(Place),
    /// A `syscall` instruction of the program's own.
    Instruction(u64),
}

/// Why no system call may be made in the name of the thread, if so.
fn refusal(tid: Tid) -> Result<Option<&'static str>, Error> {
    if Status::of(tid)?.seccomp != 0 {
        return Ok(Some("its seccomp filter might kill it for that"));
    }
    if ptrace::dispatches_system_calls(tid)? {
        return Ok(Some("it has its system calls dispatched (PR_SET_SYSCALL_USER_DISPATCH)"));
    }
    Ok(None)
}

impl Remote {
    /// Finds out how calls can be made in the name of the thread of `stop`.
    ///
    /// # Errors
    /// [`Error::Remote`] if a filter forbids it, or if there is no `syscall` instruction.
    pub(super) fn new(stop: &Stop) -> Result<Self, Error> {
        let (pid, tid) = (stop.pid, stop.tid);
        let refused = |cause: io::Error| Error::Remote { what: "make system calls", pid, cause };
        if let Some(why) = refusal(tid)? {
            return Err(refused(io::Error::new(io::ErrorKind::PermissionDenied, why)));
        }
        let mappings = facts::mappings(pid)?;
        if let Some(place) = Place::find(tid, &mappings)? {
            return Ok(Remote { pid, tid, means: Means::Stub(place) });
        }
        match find_syscall_instruction(tid, &mappings)? {
            Some(instruction) => Ok(Remote { pid, tid, means: Means::Instruction(instruction) }),
            None => Err(refused(io::Error::new(io::ErrorKind::NotFound, "its code has no syscall instruction"))),
        }
    }

    /// Where a thread may be while it makes a call.
    pub(super) fn stub_range(&self) -> Option<Range<u64>> {
        match self.means {
            Means::Stub(place) => Some(place.range()),
            Means::Instruction(_) => None,
        }
    }

    /// The process.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// The thread.
    pub(super) fn tid(&self) -> Tid {
        self.tid
    }

    /// Makes the system call `number`; returns its result.
    ///
    /// # Errors
    /// [`Error::Remote`] with the call's own error, [`Error::Gone`].
    pub(super) fn call(&self, what: &'static str, number: c_long, arguments: [u64; 6]) -> Result<u64, Error> {
        let tid = self.tid;
        let mut run = Run { pid: self.pid, tid, missed_stop: false };
        let mut info = ptrace::signal_info(tid)?;
        if stop_event(&info) == libc::PTRACE_EVENT_VFORK {
            // It would wait for its child, deaf to everything.
            let cause = io::Error::new(io::ErrorKind::WouldBlock, "it waits for the child that it created by vfork");
            return Err(Error::Remote { what, pid: self.pid, cause });
        }
        if !matches!(stop_event(&info), 0 | libc::PTRACE_EVENT_STOP) {
            // Amid a system call (exec, clone), whose end would overwrite the registers.
            run.reach_event_stop()?;
            info = ptrace::signal_info(tid)?;
        }
        let is_collected = ptrace::is_collected(tid)?;
        let registers = ptrace::registers(tid)?;
        let way_back = WayBack::of(tid, &info, registers.rip, is_collected)?;
        let mask = ptrace::signal_mask(tid)?;
        let critical_section = CriticalSection::of(tid)?;
        let mut going_on = stub::registers_in_user_mode(&registers);
        if way_back == WayBack::Breakpoint {
            going_on.rip -= INT3.len() as u64;
        }

        // At each point the thread would find its way back by itself.
        let instruction = match self.means {
            Means::Stub(place) => place.put(self.pid, tid, &going_on, mask)?,
            Means::Instruction(instruction) => instruction,
        };
        ptrace::set_registers(tid, &call_registers(&going_on, instruction, number, arguments))?;
        ptrace::set_signal_mask(tid, !0)?;
        let result = run.through_system_call();
        ptrace::set_signal_mask(tid, mask)?;
        ptrace::set_registers(tid, &going_on)?;
        if let Means::Stub(place) = self.means {
            place.clear(tid)?;
        }
        if let Some(section) = critical_section {
            section.put_back(tid)?;
        }
        match way_back {
            WayBack::Breakpoint => run.reach_breakpoint(mask)?,
            WayBack::Signal => run.reach_signal_stop(&info, mask)?,
            WayBack::Event => run.reach_event_stop()?,
            WayBack::Past => {
                run.reach_event_stop()?;
                ptrace::set_signal_info(tid, &info)?;
            }
        }
        ptrace::set_registers(tid, &registers)?;
        if is_collected {
            ptrace::collect_stop(tid)?;
        }
        if run.missed_stop {
            ptrace::interrupt(tid)?;
        }
        match -(result? as i64) {
            error @ 1..=4095 => {
                Err(Error::Remote { what, pid: self.pid, cause: io::Error::from_raw_os_error(error as i32) })
            }
            result => Ok(-result as u64),
        }
    }
}

/// `registers`, changed so that a thread makes a system call at `instruction`.
fn call_registers(
    registers: &user_regs_struct,
    instruction: u64,
    number: c_long,
    arguments: [u64; 6],
) -> user_regs_struct {
    let [rdi, rsi, rdx, r10, r8, r9] = arguments;
    user_regs_struct { rip: instruction, rax: number as u64, rdi, rsi, rdx, r10, r8, r9, ..*registers }
}

/// A stopped thread on its way from stop to stop.
struct Run {
    pid: Pid,
    tid: Tid,
    /// A `PTRACE_EVENT_STOP` passed that somebody else must see, job control's for example.
    missed_stop: bool,
}

impl Run {
    /// Executes the `syscall` instruction at the program counter; returns rax.
    fn through_system_call(&mut self) -> Result<u64, Error> {
        for _entry_and_exit in 0..2 {
            self.until(ptrace::run_to_system_call, |status| libc::WSTOPSIG(status) == ptrace::SYSTEM_CALL)?;
        }
        Ok(ptrace::registers(self.tid)?.rax)
    }

    /// To a `PTRACE_EVENT_STOP`, without an instruction executed.
    fn reach_event_stop(&mut self) -> Result<(), Error> {
        ptrace::interrupt(self.tid)?;
        self.until(ptrace::cont, |status| ptrace::event(status) == libc::PTRACE_EVENT_STOP)?;
        ptrace::collect_stop(self.tid).map(drop)
    }

    /// Back to the stop for the breakpoint instruction at the program counter, which is executed.
    fn reach_breakpoint(&mut self, mask: u64) -> Result<(), Error> {
        let mut was_sent = false;
        loop {
            self.reach_signal(libc::SIGTRAP, mask)?;
            if is_breakpoint_trap(&ptrace::signal_info(self.tid)?) {
                break;
            }
            was_sent = true;
        }
        if was_sent { step::send(self.pid, self.tid, libc::SIGTRAP) } else { Ok(()) }
    }

    /// Back to a stop before the delivery of a signal, without an instruction executed.
    fn reach_signal_stop(&mut self, info: &siginfo_t, mask: u64) -> Result<(), Error> {
        let signal = info.si_signo;
        step::send(self.pid, self.tid, signal)?;
        self.reach_signal(signal, mask)?;
        if !is_own(&ptrace::signal_info(self.tid)?) {
            // One of somebody else was pending, and ours came after it or was merged with it.
            step::send(self.pid, self.tid, signal)?;
        }
        ptrace::set_signal_info(self.tid, info)
    }

    /// To a stop before the delivery of `signal`, while all others are blocked.
    fn reach_signal(&mut self, signal: c_int, mask: u64) -> Result<(), Error> {
        ptrace::set_signal_mask(self.tid, !(1 << (signal - 1)))?;
        self.until(ptrace::cont, |status| ptrace::is_signal_stop(status) && libc::WSTOPSIG(status) == signal)?;
        ptrace::set_signal_mask(self.tid, mask)
    }

    /// Resumes by `how` until a stop is `wanted`, which is not collected.
    fn until(
        &mut self,
        how: impl Fn(Tid, Option<Signal>) -> Result<(), Error>,
        wanted: impl Fn(c_int) -> bool,
    ) -> Result<(), Error> {
        let mut deliver = None;
        loop {
            how(self.tid, deliver.take())?;
            let status = ptrace::look_for_stop(self.tid)?;
            if wanted(status) {
                return Ok(());
            }
            if ptrace::event(status) == 0 {
                // Only SIGSTOP, which leads to a PTRACE_EVENT_STOP, is not blocked.
                deliver = Some(Signal(libc::WSTOPSIG(status)));
            } else {
                self.missed_stop = true;
            }
        }
    }
}

/// How a thread gets back into the stop that it was in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum WayBack {
    /// A breakpoint that is still there stopped it, right behind: it meets that again.
    Breakpoint,
    /// A breakpoint stopped it that is no more there, or that is dealt with: there is no signal to deliver. Were one sent
    /// to stop the thread again, and the tracer killed before it could be told from the program's own, it might end the
    /// process.
    Past,
    /// Another signal stopped it, which may have to be delivered.
    Signal,
    /// An event stopped it.
    Event,
}

impl WayBack {
    fn of(tid: Tid, info: &siginfo_t, program_counter: u64, is_collected: bool) -> Result<Self, Error> {
        if stop_event(info) != 0 {
            return Ok(WayBack::Event);
        }
        if !is_breakpoint_trap(info) {
            return Ok(WayBack::Signal);
        }
        if !is_collected && are_before(tid, program_counter, INT3)? {
            return Ok(WayBack::Breakpoint);
        }
        Ok(if are_before(tid, program_counter, LONG_INT3)? { WayBack::Signal } else { WayBack::Past })
    }
}

/// True if these bytes end where the program counter is.
fn are_before<const N: usize>(tid: Tid, program_counter: u64, bytes: [u8; N]) -> Result<bool, Error> {
    let mut before = [0; N];
    let count = memory::read_memory(tid, program_counter.wrapping_sub(N as u64), &mut before)?;
    Ok(count == N && before == bytes)
}

/// True for a SIGTRAP that a breakpoint instruction caused.
fn is_breakpoint_trap(info: &siginfo_t) -> bool {
    (info.si_signo, info.si_code) == (libc::SIGTRAP, ptrace::SI_KERNEL)
}

/// True for a signal that this process sent by tgkill. A sender in another PID namespace is 0.
fn is_own(info: &siginfo_t) -> bool {
    // SAFETY: a signal that tgkill sent has this member.
    info.si_code == libc::SI_TKILL && [0, std::process::id() as libc::pid_t].contains(&unsafe { info.si_pid() })
}

/// The `PTRACE_EVENT_*` of the current stop; 0 if it is one before the delivery of a signal.
fn stop_event(info: &siginfo_t) -> c_int {
    if info.si_code > 0 { info.si_code >> 8 } else { 0 }
}

/// The restartable sequence that a thread may be in. When the thread returns to user mode, the kernel looks whether
/// the program counter is in it; if not, as in a borrowed system call, it forgets the sequence.
struct CriticalSection {
    address: u64,
    descriptor: [u8; 8],
}

impl CriticalSection {
    fn of(tid: Tid) -> Result<Option<Self>, Error> {
        let Some(area) = ptrace::rseq_area(tid)? else { return Ok(None) };
        let (address, mut descriptor) = (area + RSEQ_CS, [0; 8]);
        let count = memory::read_memory(tid, address, &mut descriptor)?;
        Ok((count == descriptor.len() && descriptor != [0; 8]).then_some(CriticalSection { address, descriptor }))
    }

    fn put_back(&self, tid: Tid) -> Result<(), Error> {
        memory::write_memory(tid, self.address, &self.descriptor)
    }
}

/// The address of a `syscall` instruction: in the vdso, which has one in each version, or else in any other code.
fn find_syscall_instruction(tid: Tid, mappings: &[Mapping]) -> Result<Option<u64>, Error> {
    let is_vdso = |mapping: &&Mapping| mapping.path.as_os_str() == "[vdso]";
    let code = |mapping: &&Mapping| mapping.executable && mapping.path.as_os_str() != "[vsyscall]";
    let first = mappings.iter().filter(is_vdso);
    for mapping in first.chain(mappings.iter().filter(code).filter(|mapping| !is_vdso(mapping))) {
        let mut chunk = vec![0; 64 * 1024];
        let mut start = mapping.start;
        while start < mapping.end {
            let length = chunk.len().min((mapping.end - start) as usize);
            let count = memory::read_memory(tid, start, &mut chunk[..length])?;
            if let Some(offset) = chunk[..count].windows(SYSCALL.len()).position(|bytes| bytes == SYSCALL) {
                return Ok(Some(start + offset as u64));
            }
            start += length as u64;
        }
    }
    Ok(None)
}
