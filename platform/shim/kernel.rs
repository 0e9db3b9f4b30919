//! What stands still, what runs, and what waits to be reported.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use libc::{c_int, user_regs_struct};
use memleax_platform::freebsd::abi::{self, SignalInfo};

use super::{facts, linux, signals};

/// What a thread has to report.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Event {
    /// FreeBSD's number.
    pub(crate) signal: c_int,
    pub(crate) flags: c_int,
    pub(crate) info: SignalInfo,
    pub(crate) child: i32,
    /// Linux stopped the thread before the delivery of this signal.
    pub(crate) delivery: c_int,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Activity {
    #[default]
    Stopped,
    Running,
    /// It waits for its vforked child; Linux does not stop it.
    InVfork,
    /// The main thread, which has ended before others.
    Ended,
}

#[derive(Clone, Default, Debug)]
pub(crate) struct Thread {
    pub(crate) activity: Activity,
    pub(crate) event: Option<Event>,
    /// To be delivered when it runs; Linux's number.
    pub(crate) signal: c_int,
    pub(crate) is_suspended: bool,
    pub(crate) is_stepping: bool,
    /// It stopped amid a system call that created a thread or process, or executes a program, and has no result yet.
    pub(crate) is_creating: bool,
    /// Its registers, if Linux does not tell them because it is in vfork; and whether they were set since.
    pub(crate) registers: Option<(user_regs_struct, bool)>,
}

#[derive(Clone, Default, Debug)]
pub(crate) struct Process {
    pub(crate) threads: BTreeMap<i32, Thread>,
    pub(crate) events: c_int,
    pub(crate) is_stopped: bool,
    pub(crate) is_waited: bool,
    pub(crate) reporter: Option<i32>,
    /// The status of its end, which waits to be collected.
    pub(crate) status: Option<c_int>,
    /// Nobody is to see that its threads stop one after the other.
    is_stopping: bool,
}

/// Every traced process.
#[derive(Debug, Default)]
pub(crate) struct Kernel {
    pub(crate) processes: BTreeMap<i32, Process>,
    /// To be detached as soon as they stop.
    pub(crate) parting: BTreeSet<i32>,
}

impl Process {
    /// A thread that has something to report, and may.
    pub(crate) fn ready(&self) -> Option<i32> {
        let mut threads = self.threads.iter();
        threads.find(|(_, thread)| thread.event.is_some() && !thread.is_suspended).map(|(&tid, _)| tid)
    }

    fn still_runs(&self) -> bool {
        self.threads.values().any(|thread| thread.activity == Activity::Running)
    }
}

impl Kernel {
    pub(crate) fn process_of(&self, tid: i32) -> Option<i32> {
        self.processes.iter().find(|(_, process)| process.threads.contains_key(&tid)).map(|(&pid, _)| pid)
    }

    pub(crate) fn process(&mut self, pid: i32) -> io::Result<&mut Process> {
        self.processes.get_mut(&pid).ok_or(io::Error::from_raw_os_error(libc::ESRCH))
    }

    fn thread(&mut self, tid: i32) -> Option<&mut Thread> {
        self.processes.values_mut().find_map(|process| process.threads.get_mut(&tid))
    }

    /// Starts to trace a process: it stops with SIGSTOP.
    pub(crate) fn attach(&mut self, pid: i32) -> io::Result<()> {
        let mut seized = BTreeMap::new();
        loop {
            let before = seized.len();
            for tid in facts::threads(pid) {
                if seized.contains_key(&tid) {
                    continue;
                }
                match linux::seize(tid) {
                    Ok(()) => drop(seized.insert(tid, Thread { activity: Activity::Running, ..Thread::default() })),
                    // One that a seized one has created is traced already; one that has ended is not needed.
                    Err(error) if seized.is_empty() && tid == pid && !facts::has_ended(tid) => return Err(error),
                    Err(_) if facts::has_ended(tid) => {}
                    Err(_) => drop(seized.insert(tid, Thread { activity: Activity::Running, ..Thread::default() })),
                }
            }
            if seized.len() == before {
                break;
            }
        }
        if seized.is_empty() {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        let process = Process { threads: seized, events: abi::PTRACE_EXEC, ..Process::default() };
        self.processes.insert(pid, process);
        self.stop_all(pid)?;
        let process = self.process(pid)?;
        let leader =
            if process.threads.contains_key(&pid) { Some(pid) } else { process.threads.keys().next().copied() };
        if let Some(thread) = leader.and_then(|tid| process.threads.get_mut(&tid)) {
            let info = SignalInfo { signo: abi::SIGSTOP, code: abi::SI_KERNEL, ..SignalInfo::default() };
            // What it was about to receive comes afterwards.
            thread.signal = thread.event.map_or(0, |event| event.delivery);
            thread.event = Some(Event { signal: abi::SIGSTOP, flags: abi::PL_FLAG_SI, info, ..Event::default() });
        }
        Ok(())
    }

    /// Takes the next status of Linux. EINTR if a signal came.
    pub(crate) fn pump(&mut self) -> io::Result<()> {
        let (tid, status) = linux::wait(-1)?;
        self.apply(tid, status)
    }

    /// Stops every thread of a process. What they have to report waits.
    pub(crate) fn stop_all(&mut self, pid: i32) -> io::Result<()> {
        let Some(process) = self.processes.get_mut(&pid) else { return Ok(()) };
        process.is_stopping = true;
        loop {
            let Some(process) = self.processes.get_mut(&pid).filter(|process| process.status.is_none()) else {
                return Ok(());
            };
            for (&tid, thread) in &mut process.threads {
                if thread.activity == Activity::Running && linux::interrupt(tid).is_err() {
                    thread.activity = Activity::Ended;
                }
            }
            while self.processes.get(&pid).is_some_and(Process::still_runs) {
                match self.pump() {
                    // The main thread may have ended before it could stop.
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                        if let Some(leader) = self.thread(pid)
                            && facts::has_ended(pid)
                        {
                            leader.activity = Activity::Ended;
                        }
                    }
                    result => result?,
                }
            }
            // One that has executed a breakpoint may have stopped because it was interrupted: it is to report that.
            let Some(process) = self.processes.get_mut(&pid) else { return Ok(()) };
            let mut all = true;
            for (&tid, thread) in &mut process.threads {
                let is_quiet = thread.event.is_none() && thread.activity == Activity::Stopped;
                if is_quiet && linux::is_about_to_trap(tid) && linux::cont(tid, thread.signal).is_ok() {
                    (thread.signal, thread.activity, all) = (0, Activity::Running, false);
                }
            }
            if all {
                process.is_stopping = false;
                process.is_stopped = true;
                process.is_waited = false;
                return Ok(());
            }
        }
    }

    fn apply(&mut self, tid: i32, status: c_int) -> io::Result<()> {
        if !libc::WIFSTOPPED(status) {
            self.ended(tid, status);
            return Ok(());
        }
        if self.parting.remove(&tid) {
            _ = linux::detach(tid, 0);
            return Ok(());
        }
        let event = status >> 16;
        let signal = libc::WSTOPSIG(status);
        let is_new = self.process_of(tid).is_none();
        if is_new {
            let Some(pid) = facts::process_of(tid) else { return Ok(()) };
            let process = self.processes.entry(pid).or_default();
            process.threads.insert(tid, Thread::default());
            if pid == tid {
                process.events = abi::PTRACE_EXEC;
                process.is_stopped = true;
                let info = SignalInfo::default();
                let born = Event { signal: abi::SIGSTOP, flags: abi::PL_FLAG_CHILD, info, ..Event::default() };
                process.threads.insert(tid, Thread { event: Some(born), ..Thread::default() });
                return Ok(());
            }
        }
        let Some(pid) = self.process_of(tid) else { return Ok(()) };
        let events = self.process(pid)?.events;
        let trap = |flags, child| Event { signal: libc::SIGTRAP, flags, child, ..Event::default() };
        let report = match event {
            libc::PTRACE_EVENT_EXEC => {
                let process = self.process(pid)?;
                process.threads.retain(|&other, _| other == tid);
                Some(trap(abi::PL_FLAG_EXEC, 0))
            }
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK => {
                let child = linux::event_message(tid).unwrap_or_default();
                let is_vfork = event == libc::PTRACE_EVENT_VFORK;
                if is_vfork && let Ok(registers) = linux::registers(tid) {
                    let Some(thread) = self.thread(tid) else { return Ok(()) };
                    thread.registers = Some((registers, false));
                }
                if events & abi::PTRACE_FORK == 0 {
                    // It runs away.
                    match self.processes.remove(&child) {
                        Some(_) => drop(linux::detach(child, 0)),
                        None => drop(self.parting.insert(child)),
                    }
                    None
                } else {
                    Some(trap(abi::PL_FLAG_FORKED | if is_vfork { abi::PL_FLAG_VFORKED } else { 0 }, child))
                }
            }
            libc::PTRACE_EVENT_VFORK_DONE => {
                let Some(thread) = self.thread(tid) else { return Ok(()) };
                if let Some((registers, true)) = thread.registers.take() {
                    linux::set_registers(tid, &registers)?;
                }
                (events & abi::PTRACE_VFORK != 0).then(|| trap(abi::PL_FLAG_VFORK_DONE, 0))
            }
            0 => {
                let (code, sender) = linux::signal_info(tid).unwrap_or_default();
                let number = signals::to_freebsd(signal);
                let code = signals::code(signal, code);
                let info = SignalInfo { signo: number, code, pid: sender, ..SignalInfo::default() };
                Some(Event { signal: number, flags: abi::PL_FLAG_SI, info, child: 0, delivery: signal })
            }
            _ => None,
        };
        let process = self.process(pid)?;
        let stays = process.is_stopped || process.is_stopping;
        let Some(thread) = process.threads.get_mut(&tid) else { return Ok(()) };
        thread.activity = Activity::Stopped;
        thread.is_creating = matches!(
            event,
            libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_EXEC
        );
        if let Some(report) = report {
            // The trap of a step takes the step back.
            thread.is_stepping &= report.info.code != abi::TRAP_TRACE || report.delivery != libc::SIGTRAP;
            thread.event = Some(report);
        } else if !stays && !thread.is_suspended {
            thread.run(tid);
        }
        Ok(())
    }

    fn ended(&mut self, tid: i32, status: c_int) {
        self.parting.remove(&tid);
        let Some(pid) = self.process_of(tid) else { return };
        let Some(process) = self.processes.get_mut(&pid) else { return };
        process.threads.remove(&tid);
        if tid == pid {
            process.threads.clear();
            process.status = Some(match libc::WIFSIGNALED(status) {
                true => signals::to_freebsd(libc::WTERMSIG(status)),
                false => status,
            });
        }
    }
}

impl Thread {
    /// Lets it run, or execute one instruction.
    pub(crate) fn run(&mut self, tid: i32) {
        let signal = std::mem::take(&mut self.signal);
        let is_in_vfork = self.registers.is_some();
        if is_in_vfork && let Ok(registers) = linux::registers(tid) {
            self.registers = Some((registers, false));
        }
        let run = if self.is_stepping { linux::step } else { linux::cont };
        // One that was killed meanwhile has a status to come.
        _ = run(tid, signal);
        self.activity = if is_in_vfork { Activity::InVfork } else { Activity::Running };
    }
}
