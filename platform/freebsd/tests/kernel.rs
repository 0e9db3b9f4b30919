//! A deterministic kernel with FreeBSD's rules behind [`Sys`]. Its threads do nothing by themselves: a test writes down what
//! each does when it is let run. What the real kernel would refuse or would harm the target by makes the test fail.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use libc::c_int;

use crate::freebsd::abi::{self, LwpInfo, Reg, SignalInfo, SignalSet, process, vmentry};
use crate::freebsd::{Name, Request, Sys};

/// The one mapping of each process: code at first, then what is not mapped.
pub(super) const TEXT: u64 = 0x1000_0000;
/// Its length: two pages.
pub(super) const TEXT_SIZE: usize = 0x2000;
/// A signal that no system gives another number.
pub(super) const SIGURG: c_int = 16;

/// What a thread does when it runs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    /// Executes what is at this address: a breakpoint, if there is one.
    Execute(u64),
    /// Receives a signal, of which the kernel tells this code, perhaps.
    Receive(c_int, Option<c_int>),
    Fork(i32),
    Vfork(i32),
    /// Its vforked child lets it go.
    LeaveVfork,
    Exec,
    /// The thread ends.
    End,
    /// The process ends.
    Exit(c_int),
}

#[derive(Clone, Copy, Default, Debug)]
struct Event {
    signal: c_int,
    flags: c_int,
    info: SignalInfo,
    child: i32,
}

#[derive(Clone, Default, Debug)]
pub(super) struct Thread {
    pub(super) registers: Reg,
    pub(super) acts: VecDeque<Act>,
    event: Option<Event>,
    /// Given to it when the process continued; it takes effect when the thread runs.
    signal: c_int,
    /// Left over from the last signal.
    stale: SignalInfo,
    is_suspended: bool,
    pub(super) is_stepping: bool,
    in_vfork: bool,
}

#[derive(Clone, Default, Debug)]
pub(super) struct Process {
    pub(super) parent: i32,
    pub(super) threads: BTreeMap<i32, Thread>,
    pub(super) memory: Vec<u8>,
    /// Sent to the process, not yet taken by a thread: number and sender.
    pub(super) pending: VecDeque<(c_int, i32)>,
    pub(super) is_traced: bool,
    pub(super) stat: c_int,
    pub(super) flags: i64,
    pub(super) uid: u32,
    pub(super) caught: SignalSet,
    events: c_int,
    is_stopped: bool,
    is_waited: bool,
    reporter: Option<i32>,
    status: Option<c_int>,
    /// What would be dead on a real system: by which signal.
    pub(super) killed_by: Option<c_int>,
    /// Job control stopped it after it was let go.
    pub(super) was_left_stopped: bool,
    /// Signals that reached their thread: thread, number, where the thread was.
    pub(super) delivered: Vec<(i32, c_int, u64)>,
}

#[derive(Default, Debug)]
pub(super) struct Kernel {
    pub(super) processes: BTreeMap<i32, Process>,
    /// The requests made, by name, and of whom.
    pub(super) requests: Vec<(&'static str, i32)>,
    /// Whether two SIGSTOPs that wait together become one.
    pub(super) merges: bool,
    /// Whether it tells nothing of signals that were sent.
    pub(super) is_taciturn: bool,
    /// Sysctls by name.
    pub(super) settings: BTreeMap<&'static str, i32>,
}

/// The sender of what nobody sent.
const KERNEL: i32 = 0;

/// Ids of threads begin here.
pub(super) const LWP: i32 = 100_000;

impl Kernel {
    /// With one process of so many threads, [`LWP`] and up, that rest.
    pub(super) fn with_process(pid: i32, threads: i32) -> Self {
        let mut kernel = Kernel::default();
        let mut process = Process { parent: 1, memory: vec![0x90; TEXT_SIZE], uid: 1, ..Process::default() };
        for lwp in LWP..LWP + threads {
            process.threads.insert(lwp, Thread::at(TEXT));
        }
        kernel.processes.insert(pid, process);
        kernel
    }

    pub(super) fn process(&mut self, pid: i32) -> &mut Process {
        self.processes.get_mut(&pid).expect("a process")
    }

    pub(super) fn thread(&mut self, lwp: i32) -> &mut Thread {
        self.processes.values_mut().find_map(|process| process.threads.get_mut(&lwp)).expect("a thread")
    }

    /// What a thread is to do, in order.
    pub(super) fn plan(&mut self, lwp: i32, acts: &[Act]) {
        self.thread(lwp).acts.extend(acts);
    }

    /// Ends a process as SIGKILL does, whatever it is doing.
    pub(super) fn kill_process(&mut self, pid: i32) {
        let process = self.process(pid);
        process.status = Some(libc::SIGKILL);
        process.is_stopped = false;
        process.threads.clear();
    }

    /// Lets a process that is not traced run to the end of its plans.
    pub(super) fn run_freely(&mut self, pid: i32) {
        let process = self.process(pid);
        assert!(!process.is_traced, "it is still traced");
        for thread in process.threads.values_mut() {
            while let Some(act) = thread.acts.pop_front() {
                if let Act::Execute(address) = act
                    && process.memory[(address - TEXT) as usize] == 0xcc
                {
                    process.killed_by = Some(libc::SIGTRAP);
                }
            }
        }
    }

    /// Lets the threads of a traced process run until one has something to report.
    fn run(&mut self, pid: i32) {
        let mut born = Vec::new();
        let told = if self.is_taciturn { 0 } else { abi::PL_FLAG_SI };
        let process = self.process(pid);
        if process.is_stopped || !process.is_traced || process.status.is_some() {
            return;
        }
        for lwp in process.threads.keys().copied().collect::<Vec<_>>() {
            let Some(thread) = process.threads.get_mut(&lwp) else { continue };
            if thread.is_suspended || thread.event.is_some() {
                continue;
            }
            let runs = !thread.in_vfork || matches!(thread.acts.front(), Some(Act::LeaveVfork));
            if !runs {
                continue;
            }
            process.deliver(lwp);
            let Some(thread) = process.threads.get_mut(&lwp) else { continue };
            // A signal that is sent comes before the next step, and after what a thread has begun.
            let is_at_rest = thread.is_stepping || matches!(thread.acts.front(), None | Some(Act::Receive(..)));
            let event = match process.pending.front().copied() {
                Some((signal, sender)) if is_at_rest => {
                    process.pending.pop_front();
                    let code = if sender == KERNEL { abi::SI_KERNEL } else { abi::SI_USER };
                    let info = SignalInfo { signo: signal, code, pid: sender, ..SignalInfo::default() };
                    let info = if told == 0 { SignalInfo::default() } else { info };
                    Some(Event { signal, flags: told, info, child: 0 })
                }
                _ => process.act(pid, lwp, &mut born),
            };
            if let (Some(event), Some(thread)) = (event, process.threads.get_mut(&lwp)) {
                if event.flags & abi::PL_FLAG_SI != 0 {
                    thread.stale = event.info;
                }
                thread.event = Some(event);
            }
            if process.status.is_some() {
                break;
            }
        }
        process.is_stopped = process.threads.values().any(|thread| thread.event.is_some() && !thread.is_suspended);
        process.is_waited = false;
        self.processes.extend(born);
    }

    fn detach(&mut self, pid: i32, signal: c_int) {
        let process = self.process(pid);
        process.is_traced = false;
        process.is_stopped = false;
        for (lwp, thread) in &mut process.threads {
            thread.is_suspended = false;
            let is_reporter = process.reporter == Some(*lwp);
            match thread.event.take() {
                _ if is_reporter => thread.signal = signal,
                Some(event) => thread.signal = event.signal,
                None => {}
            }
            process.was_left_stopped |= thread.signal == abi::SIGSTOP;
            if thread.is_stepping {
                process.killed_by = Some(libc::SIGTRAP);
            }
        }
        for lwp in process.threads.keys().copied().collect::<Vec<_>>() {
            process.deliver(lwp);
        }
        process.was_left_stopped |= process.pending.iter().any(|&(signal, _)| signal == abi::SIGSTOP);
    }

    fn proceed(&mut self, pid: i32, signal: c_int) {
        let process = self.process(pid);
        process.is_stopped = false;
        if let Some(lwp) = process.reporter.take()
            && let Some(thread) = process.threads.get_mut(&lwp)
        {
            thread.event = None;
            // Stop signals are ignored while it is traced.
            thread.signal = if signal == abi::SIGSTOP { 0 } else { signal };
        }
    }

    fn pid_of(&self, id: i32) -> Option<i32> {
        let has = |process: &Process| process.threads.contains_key(&id);
        self.processes.iter().find(|(pid, process)| **pid == id || has(process)).map(|(&pid, _)| pid)
    }
}

impl Thread {
    pub(super) fn at(address: u64) -> Self {
        Thread { registers: Reg { rip: address, ..Reg::default() }, ..Thread::default() }
    }
}

impl Process {
    /// A thread runs, and receives the signal that it was given.
    fn deliver(&mut self, lwp: i32) {
        let Some(thread) = self.threads.get_mut(&lwp) else { return };
        match std::mem::take(&mut thread.signal) {
            0 => {}
            libc::SIGTRAP => self.killed_by = Some(libc::SIGTRAP),
            signal => self.delivered.push((lwp, signal, thread.registers.rip)),
        }
    }

    /// Carries out the next act of a thread; what it is to report.
    fn act(&mut self, pid: i32, lwp: i32, born: &mut Vec<(i32, Process)>) -> Option<Event> {
        let thread = self.threads.get_mut(&lwp)?;
        let event = |signal, flags, child| Some(Event { signal, flags, child, info: thread.stale });
        let trap = |code| {
            let info = SignalInfo { signo: libc::SIGTRAP, code, ..SignalInfo::default() };
            Some(Event { signal: libc::SIGTRAP, flags: abi::PL_FLAG_SI, info, child: 0 })
        };
        if thread.is_stepping && !matches!(thread.acts.front(), Some(Act::Receive(..))) {
            thread.is_stepping = false;
            thread.registers.rip += 1;
            return trap(abi::TRAP_TRACE);
        }
        match thread.acts.pop_front()? {
            Act::Execute(address) => {
                thread.registers.rip = address + 1;
                (self.memory[(address - TEXT) as usize] == 0xcc).then(|| trap(abi::TRAP_BRKPT)).flatten()
            }
            Act::Receive(signal, Some(code)) => {
                let info = SignalInfo { signo: signal, code, ..SignalInfo::default() };
                Some(Event { signal, flags: abi::PL_FLAG_SI, info, child: 0 })
            }
            // What PL_FLAG_SI then shows is left over.
            Act::Receive(signal, None) => event(signal, abi::PL_FLAG_SI, 0),
            Act::Fork(child) | Act::Vfork(child) if self.events & abi::PTRACE_FORK == 0 => {
                panic!("nobody follows {child}")
            }
            Act::Fork(child) => {
                let forked = event(libc::SIGTRAP, abi::PL_FLAG_SI | abi::PL_FLAG_FORKED, child);
                born.push((child, self.child(pid, lwp)));
                forked
            }
            Act::Vfork(child) => {
                thread.in_vfork = true;
                let flags = abi::PL_FLAG_SI | abi::PL_FLAG_FORKED | abi::PL_FLAG_VFORKED;
                let forked = event(libc::SIGTRAP, flags, child);
                born.push((child, self.child(pid, lwp)));
                forked
            }
            Act::LeaveVfork => {
                thread.in_vfork = false;
                event(libc::SIGTRAP, abi::PL_FLAG_VFORK_DONE, 0)
            }
            Act::Exec => {
                let executed = event(libc::SIGTRAP, abi::PL_FLAG_EXEC, 0);
                self.threads.retain(|&other, _| other == lwp);
                self.memory.fill(0x90);
                executed
            }
            Act::End => {
                self.threads.remove(&lwp);
                None
            }
            Act::Exit(status) => {
                self.status = Some(status << 8);
                self.threads.clear();
                None
            }
        }
    }

    /// A child of one thread, stopped at its first instruction, with the default events only.
    fn child(&self, pid: i32, lwp: i32) -> Process {
        let mut thread = Thread::at(self.threads[&lwp].registers.rip);
        let info = SignalInfo::default();
        thread.event = Some(Event { signal: abi::SIGSTOP, flags: abi::PL_FLAG_CHILD, info, child: 0 });
        Process {
            parent: pid,
            threads: BTreeMap::from([(lwp + 1000, thread)]),
            memory: self.memory.clone(),
            is_traced: true,
            is_stopped: true,
            events: abi::PTRACE_EXEC,
            ..Process::default()
        }
    }

    fn record(&self, pid: i32) -> Vec<u8> {
        let mut record = vec![0; process::SIZE];
        let mut put = |at: usize, bytes: &[u8]| record[at..at + bytes.len()].copy_from_slice(bytes);
        let tracer = if self.is_traced { std::process::id().cast_signed() } else { 0 };
        let mut flags = self.flags;
        flags |= if self.is_traced { abi::P_TRACED } else { 0 };
        let mut pending = SignalSet::default();
        self.pending.iter().for_each(|&(signal, _)| pending.insert(signal));
        for (at, value) in [
            (process::STRUCTSIZE, process::SIZE as i32),
            (process::PID, pid),
            (process::PPID, self.parent),
            (process::UID, self.uid.cast_signed()),
            (process::RUID, self.uid.cast_signed()),
            (process::SVUID, self.uid.cast_signed()),
            (process::TRACER, tracer),
            (process::NUMTHREADS, self.threads.len() as i32),
            (process::STAT, self.stat),
        ] {
            put(at, &value.to_ne_bytes()[..if at == process::STAT { 1 } else { 4 }]);
        }
        put(process::FLAG, &flags.to_ne_bytes());
        for (at, set) in [(process::SIGLIST, pending), (process::SIGCATCH, self.caught)] {
            set.0.iter().enumerate().for_each(|(index, word)| put(at + 4 * index, &word.to_ne_bytes()));
        }
        put(process::COMM, b"target");
        put(process::EMUL, b"FreeBSD ELF64");
        record
    }
}

impl Sys for Kernel {
    fn ptrace(&mut self, id: i32, request: Request<'_>) -> io::Result<u64> {
        let error = |number| Err(io::Error::from_raw_os_error(number));
        let name = name_of(&request);
        self.requests.push((name, id));
        let Some(pid) = self.pid_of(id).filter(|pid| self.processes[pid].status.is_none()) else {
            return error(libc::ESRCH);
        };
        let process = self.process(pid);
        if let Request::Attach = request {
            if process.is_traced {
                return error(libc::EBUSY);
            }
            process.is_traced = true;
            process.events = abi::PTRACE_EXEC;
            process.pending.push_front((abi::SIGSTOP, KERNEL));
            return Ok(0);
        }
        assert!(process.is_traced && process.is_stopped && process.is_waited, "EBUSY: {request:?} of {id}");
        let lwp = if id == pid { process.reporter.expect("a reporter") } else { id };
        let Some(thread) = process.threads.get_mut(&lwp) else { return error(libc::ESRCH) };
        match request {
            Request::Attach => {}
            Request::Detach(signal) => self.detach(pid, signal),
            Request::Continue(signal) => self.proceed(pid, signal),
            Request::SetEventMask(events) => process.events = events,
            Request::LwpInfo(info) => {
                *info = LwpInfo { lwpid: lwp, ..LwpInfo::default() };
                if let Some(event) = thread.event {
                    (info.event, info.flags) = (abi::PL_EVENT_SIGNAL, event.flags);
                    (info.siginfo, info.child_pid) = (event.info, event.child);
                }
            }
            Request::LwpCount => return Ok(process.threads.len() as u64),
            Request::LwpList(ids) => {
                let count = ids.len().min(process.threads.len());
                ids.iter_mut().zip(process.threads.keys()).for_each(|(id, lwp)| *id = *lwp);
                return Ok(count as u64);
            }
            Request::Suspend => thread.is_suspended = true,
            Request::Resume => thread.is_suspended = false,
            Request::SetStep => thread.is_stepping = true,
            Request::ClearStep => thread.is_stepping = false,
            Request::Registers(registers) => *registers = thread.registers,
            Request::SetRegisters(registers) => thread.registers = *registers,
            Request::Read { address, buffer } => {
                let start = usize::try_from(address.wrapping_sub(TEXT)).unwrap_or(usize::MAX);
                let Some(bytes) = process.memory.get(start..start.saturating_add(buffer.len())) else {
                    return error(libc::EFAULT);
                };
                buffer.copy_from_slice(bytes);
                return Ok(buffer.len() as u64);
            }
            Request::Write { address, bytes } => {
                let start = usize::try_from(address.wrapping_sub(TEXT)).unwrap_or(usize::MAX);
                let Some(memory) = process.memory.get_mut(start..start.saturating_add(bytes.len())) else {
                    return error(libc::EFAULT);
                };
                memory.copy_from_slice(bytes);
                return Ok(bytes.len() as u64);
            }
            // A thread can make one where it trapped or was signalled, not amid a call of its own.
            Request::SystemCall { number, arguments } => {
                return match (thread.event, number) {
                    (None, _) => error(libc::EBUSY),
                    (Some(_), abi::SYS_MMAP) => Ok(arguments[0]),
                    (Some(_), _) => Ok(0),
                };
            }
        }
        Ok(0)
    }

    fn waitpid(&mut self, pid: i32) -> io::Result<(i32, c_int)> {
        let pids: Vec<i32> = self.processes.keys().copied().filter(|&other| pid == -1 || pid == other).collect();
        if !pids.iter().any(|pid| self.processes[pid].is_traced) {
            return Err(io::Error::from_raw_os_error(libc::ECHILD));
        }
        for &pid in &pids {
            self.run(pid);
            let process = self.process(pid);
            if let Some(status) = process.status.filter(|_| process.is_traced) {
                self.processes.remove(&pid);
                return Ok((pid, status));
            }
            if process.is_stopped && !process.is_waited {
                let ready = process.threads.iter().find(|(_, thread)| thread.event.is_some() && !thread.is_suspended);
                let (&lwp, event) = ready.map(|(lwp, thread)| (lwp, thread.event)).expect("a reason to stop");
                process.is_waited = true;
                process.reporter = Some(lwp);
                return Ok((pid, event.map_or(0, |event| event.signal) << 8 | 0x7f));
            }
        }
        Err(io::Error::from_raw_os_error(libc::EINTR))
    }

    fn kill(&mut self, pid: i32, signal: c_int) -> io::Result<()> {
        let merges = self.merges;
        let process = self.processes.get_mut(&pid).ok_or(io::Error::from_raw_os_error(libc::ESRCH))?;
        if !(merges && process.pending.iter().any(|&(other, _)| other == signal)) {
            process.pending.push_back((signal, std::process::id().cast_signed()));
        }
        Ok(())
    }

    fn sysctl(&mut self, name: Name<'_>) -> io::Result<Vec<u8>> {
        let numbers = match name {
            Name::Numbers(numbers) => numbers,
            Name::Text(text) => {
                let value = self.settings.get(text).ok_or(io::Error::from_raw_os_error(libc::ENOENT))?;
                return Ok(value.to_ne_bytes().to_vec());
            }
        };
        let [abi::CTL_KERN, abi::KERN_PROC, kind, pid] = *numbers else { panic!("sysctl {numbers:?}") };
        let process = self.processes.get(&pid).ok_or(io::Error::from_raw_os_error(libc::ESRCH))?;
        Ok(match kind {
            abi::KERN_PROC_PID => process.record(pid),
            abi::KERN_PROC_VMMAP => mapping_record(TEXT, TEXT + TEXT_SIZE as u64, "/program"),
            _ => Vec::new(),
        })
    }
}

/// A `struct kinfo_vmentry` as the kernel packs it: cut off behind the path, and padded.
pub(super) fn mapping_record(start: u64, end: u64, path: &str) -> Vec<u8> {
    let mut record = vec![0; vmentry::PATH];
    record.extend(path.as_bytes());
    record.resize((record.len() + 1).next_multiple_of(8), 0);
    let mut put = |at: usize, bytes: &[u8]| record[at..at + bytes.len()].copy_from_slice(bytes);
    put(vmentry::TYPE, &abi::KVME_TYPE_VNODE.to_ne_bytes());
    put(vmentry::START, &start.to_ne_bytes());
    put(vmentry::END, &end.to_ne_bytes());
    put(vmentry::VN_FILEID, &7u64.to_ne_bytes());
    put(vmentry::FLAGS, &abi::KVME_FLAG_COW.to_ne_bytes());
    put(vmentry::PROTECTION, &(abi::KVME_PROT_READ | abi::KVME_PROT_EXEC).to_ne_bytes());
    let size = i32::try_from(record.len()).expect("a short path");
    record[..4].copy_from_slice(&size.to_ne_bytes());
    record
}

fn name_of(request: &Request<'_>) -> &'static str {
    match request {
        Request::Attach => "attach",
        Request::Detach(_) => "detach",
        Request::Continue(_) => "continue",
        Request::SetEventMask(_) => "events",
        Request::LwpInfo(_) => "info",
        Request::LwpCount | Request::LwpList(_) => "list",
        Request::Suspend => "suspend",
        Request::Resume => "resume",
        Request::SetStep => "step",
        Request::ClearStep => "clear step",
        Request::Registers(_) => "registers",
        Request::SetRegisters(_) => "set registers",
        Request::Read { .. } => "read",
        Request::Write { .. } => "write",
        Request::SystemCall { .. } => "system call",
    }
}
