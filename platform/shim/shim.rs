//! The four calls.

use std::io;

use libc::{c_int, user_regs_struct};
use memleax_platform::freebsd::abi::{self, LwpInfo, Reg};
use memleax_platform::freebsd::{Name, Request, Sys};

use super::kernel::{Activity, Kernel};
use super::{facts, linux, remote, signals};

/// Added to Linux's ids of threads, so that none is that of a process.
const LWP: i32 = 1_000_000_000;

/// Linux by FreeBSD's rules.
#[derive(Debug, Default)]
pub struct Shim {
    kernel: Kernel,
}

fn error<T>(number: c_int) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(number))
}

impl Shim {
    /// Process and thread of an id, by the rules of when they may be asked for.
    fn stopped(&mut self, id: i32) -> io::Result<(i32, i32)> {
        let pid = if id >= LWP { self.kernel.process_of(id - LWP) } else { Some(id) };
        let Some(pid) = pid else { return error(libc::ESRCH) };
        let process = self.kernel.process(pid)?;
        if process.status.is_some() {
            return error(libc::ESRCH);
        }
        if !process.is_stopped || !process.is_waited {
            return error(libc::EBUSY);
        }
        match if id >= LWP { Some(id - LWP) } else { process.reporter } {
            Some(tid) if process.threads.contains_key(&tid) => Ok((pid, tid)),
            _ => error(libc::ESRCH),
        }
    }

    fn proceed(&mut self, pid: i32, signal: c_int) -> io::Result<()> {
        let process = self.kernel.process(pid)?;
        if let Some(thread) = process.reporter.take().and_then(|tid| process.threads.get_mut(&tid)) {
            let signal = signals::to_linux(signal);
            let stops = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&signal);
            // What came before the SIGSTOP of attaching is still due.
            if thread.event.take().is_none_or(|event| event.delivery != 0) || thread.signal == 0 {
                thread.signal = if stops { 0 } else { signal };
            }
        }
        process.is_stopped = false;
        process.is_waited = false;
        for (&tid, thread) in &mut process.threads {
            if thread.activity == Activity::Stopped && !thread.is_suspended && thread.event.is_none() {
                thread.run(tid);
            }
        }
        Ok(())
    }

    fn detach(&mut self, pid: i32, signal: c_int) -> io::Result<()> {
        let mut process = std::mem::take(self.kernel.process(pid)?);
        self.kernel.processes.remove(&pid);
        let reporter = process.reporter;
        for (&tid, thread) in &mut process.threads {
            // What was not reported is dropped on the thread.
            let unreported = thread.event.map_or(thread.signal, |event| event.delivery);
            let signal = if reporter == Some(tid) { signals::to_linux(signal) } else { unreported };
            match thread.activity {
                Activity::InVfork => drop(self.kernel.parting.insert(tid)),
                _ => drop(linux::detach(tid, signal)),
            }
            if thread.is_stepping {
                linux::kill_thread(pid, tid, libc::SIGTRAP)?;
            }
        }
        // It stops by itself in a moment; whoever looks after the detach is to see it stopped.
        const LOOKS: usize = 10_000;
        let mut looks = 0..if signal == abi::SIGSTOP { LOOKS } else { 0 };
        while looks.next().is_some() && facts::runs(pid) {
            std::thread::yield_now();
        }
        Ok(())
    }

    fn info(&mut self, pid: i32, tid: i32) -> io::Result<LwpInfo> {
        let thread = &self.kernel.process(pid)?.threads[&tid];
        let mut info = LwpInfo { lwpid: tid + LWP, ..LwpInfo::default() };
        if let Some(event) = thread.event {
            (info.event, info.flags) = (abi::PL_EVENT_SIGNAL, event.flags);
            (info.siginfo, info.child_pid) = (event.info, event.child);
        }
        Ok(info)
    }
}

impl Sys for Shim {
    // The programs are Linux's.
    const MAP_ANONYMOUS: u64 = libc::MAP_ANONYMOUS as u64;

    fn ptrace(&mut self, id: i32, request: Request<'_>) -> io::Result<u64> {
        if let Request::Attach = request {
            return self.kernel.attach(id).map(|()| 0);
        }
        let (pid, tid) = self.stopped(id)?;
        let process = self.kernel.process(pid)?;
        let Some(thread) = process.threads.get_mut(&tid) else { return error(libc::ESRCH) };
        match request {
            Request::Attach => {}
            Request::Detach(signal) => self.detach(pid, signal)?,
            Request::Continue(signal) => self.proceed(pid, signal)?,
            Request::SetEventMask(events) => process.events = events,
            Request::LwpInfo(info) => *info = self.info(pid, tid)?,
            Request::LwpCount => return Ok(process.threads.len() as u64),
            Request::LwpList(ids) => {
                let living = process.threads.iter().filter(|(_, thread)| thread.activity != Activity::Ended);
                let living: Vec<i32> = living.map(|(tid, _)| tid + LWP).collect();
                let count = living.len().min(ids.len());
                ids[..count].copy_from_slice(&living[..count]);
                return Ok(count as u64);
            }
            Request::Suspend => thread.is_suspended = true,
            Request::Resume => thread.is_suspended = false,
            Request::SetStep => thread.is_stepping = true,
            Request::ClearStep => thread.is_stepping = false,
            Request::Registers(registers) => {
                *registers = match (thread.activity, thread.registers) {
                    (Activity::InVfork, Some((registers, _))) => to_freebsd(&registers),
                    _ => to_freebsd(&linux::registers(tid)?),
                }
            }
            Request::SetRegisters(registers) => match (thread.activity, &mut thread.registers) {
                (Activity::InVfork, Some((all, is_set))) => {
                    set(all, registers);
                    *is_set = true;
                }
                _ => {
                    let mut all = linux::registers(tid)?;
                    set(&mut all, registers);
                    linux::set_registers(tid, &all)?;
                }
            },
            Request::Read { address, buffer } => {
                linux::read(tid, address, buffer)?;
                return Ok(buffer.len() as u64);
            }
            Request::Write { address, bytes } => {
                linux::write(tid, address, bytes)?;
                return Ok(bytes.len() as u64);
            }
            // Only where it has stopped for a signal of its own is a thread at the kernel's border.
            Request::SystemCall { .. } if process.reporter != Some(tid) => return error(libc::EBUSY),
            // In vfork it would wait for the child.
            Request::SystemCall { .. } if thread.registers.is_some() => return error(libc::EBUSY),
            Request::SystemCall { number, arguments } => {
                if std::mem::take(&mut thread.is_creating) {
                    remote::end_call(pid, tid)?;
                }
                return remote::call(pid, tid, number, arguments);
            }
        }
        Ok(0)
    }

    fn waitpid(&mut self, pid: i32) -> io::Result<(i32, c_int)> {
        loop {
            let pids = self.kernel.processes.keys().copied().filter(|&other| pid == -1 || other == pid);
            let pids: Vec<i32> = pids.collect();
            if pids.is_empty() {
                return error(libc::ECHILD);
            }
            let mut has_changed = false;
            for pid in pids {
                let process = self.kernel.process(pid)?;
                if let Some(status) = process.status {
                    self.kernel.processes.remove(&pid);
                    return Ok((pid, status));
                }
                if process.is_waited || process.ready().is_none() {
                    continue;
                }
                if !process.is_stopped {
                    self.kernel.stop_all(pid)?;
                }
                let Ok(process) = self.kernel.process(pid) else { continue };
                match process.ready().and_then(|tid| Some((tid, process.threads[&tid].event?))) {
                    Some((tid, event)) => {
                        process.is_waited = true;
                        process.reporter = Some(tid);
                        return Ok((pid, event.signal << 8 | 0x7f));
                    }
                    // Whoever had something to report is no more.
                    None => {
                        self.proceed(pid, 0)?;
                        has_changed = true;
                    }
                }
            }
            if !has_changed {
                self.kernel.pump()?;
            }
        }
    }

    fn kill(&mut self, pid: i32, signal: c_int) -> io::Result<()> {
        linux::kill(pid, signals::to_linux(signal))
    }

    fn sysctl(&mut self, name: Name<'_>) -> io::Result<Vec<u8>> {
        match name {
            Name::Numbers(&[abi::CTL_KERN, abi::KERN_PROC, abi::KERN_PROC_PID, pid]) => facts::process_record(pid),
            Name::Numbers(&[abi::CTL_KERN, abi::KERN_PROC, abi::KERN_PROC_VMMAP, pid]) => facts::mapping_records(pid),
            Name::Numbers(&[abi::CTL_KERN, abi::KERN_PROC, abi::KERN_PROC_AUXV, pid]) => facts::auxiliary_vector(pid),
            _ => error(libc::ENOENT),
        }
    }
}

macro_rules! with_registers {
    ($macro:ident) => {
        $macro!(r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, rip, rsp, cs, ss)
    };
}

fn to_freebsd(all: &user_regs_struct) -> Reg {
    macro_rules! copy {
        ($($name:ident),*) => { Reg { $($name: all.$name,)* rflags: all.eflags, ..Reg::default() } };
    }
    with_registers!(copy)
}

fn set(all: &mut user_regs_struct, registers: &Reg) {
    macro_rules! copy {
        ($($name:ident),*) => { $(all.$name = registers.$name;)* };
    }
    with_registers!(copy);
    all.eflags = registers.rflags;
}
