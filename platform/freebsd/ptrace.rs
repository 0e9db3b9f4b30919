//! Each request that the tracer makes, typed, with its errors sorted.
//!
//! All of them are made while the process is stopped and was waited for. So EBUSY means what ESRCH means: SIGKILL has
//! woken it, and its end will be reported (`kern_ptrace`, `sys/kern/sys_process.c`).

use std::io;

use super::abi::{self, LwpInfo, Reg};
use super::sys::{Request, Sys};
use super::tracer::FreebsdTracer;
use crate::{Error, Pid, Tid};

/// What a traced process reports besides signals. Not the birth and end of threads, which would cost two stops each: the
/// list of threads tells of them.
const EVENTS: libc::c_int = abi::PTRACE_EXEC | abi::PTRACE_FORK | abi::PTRACE_VFORK;

/// The error of a request.
pub(super) fn error_of(what: &'static str, id: i32, cause: io::Error) -> Error {
    match cause.raw_os_error() {
        Some(libc::ESRCH | libc::EBUSY) => Error::Gone(Tid(id)),
        _ => Error::Os { what, pid: Pid(id), cause },
    }
}

impl<S: Sys> FreebsdTracer<S> {
    pub(super) fn request(&mut self, what: &'static str, id: i32, request: Request<'_>) -> Result<u64, Error> {
        self.sys.ptrace(id, request).map_err(|cause| error_of(what, id, cause))
    }

    /// What the process reported last.
    pub(super) fn last_report(&mut self, pid: Pid) -> Result<LwpInfo, Error> {
        self.lwp_info(pid.0)
    }

    /// How a thread is.
    pub(super) fn thread_info(&mut self, tid: Tid) -> Result<LwpInfo, Error> {
        self.lwp_info(tid.0)
    }

    fn lwp_info(&mut self, id: i32) -> Result<LwpInfo, Error> {
        let mut info = LwpInfo::default();
        self.request("learn why there stopped", id, Request::LwpInfo(&mut info))?;
        Ok(info)
    }

    /// The threads of a process.
    pub(super) fn list_threads(&mut self, pid: Pid) -> Result<Vec<Tid>, Error> {
        const WHAT: &str = "list the threads of";
        let count = self.request(WHAT, pid.0, Request::LwpCount)?;
        let mut ids = vec![0; usize::try_from(count).unwrap_or_default()];
        let count = self.request(WHAT, pid.0, Request::LwpList(&mut ids))?;
        ids.truncate(usize::try_from(count).unwrap_or_default());
        Ok(ids.into_iter().map(Tid).collect())
    }

    /// Makes forks, vforks and execs of a process report themselves.
    pub(super) fn ask_for_events(&mut self, pid: Pid) -> Result<(), Error> {
        self.request("trace the children of", pid.0, Request::SetEventMask(EVENTS)).map(drop)
    }

    /// All registers of a thread.
    pub(super) fn all_registers(&mut self, tid: Tid) -> Result<Reg, Error> {
        let mut registers = Reg::default();
        self.request("read the registers of", tid.0, Request::Registers(&mut registers))?;
        Ok(registers)
    }

    /// Sets all registers of a thread.
    pub(super) fn set_all_registers(&mut self, tid: Tid, registers: &Reg) -> Result<(), Error> {
        self.request("set the registers of", tid.0, Request::SetRegisters(registers)).map(drop)
    }

    /// Keeps the threads from running when the process continues.
    pub(super) fn suspend(&mut self, tids: &[Tid]) -> Result<(), Error> {
        tids.iter().try_for_each(|tid| self.request("suspend", tid.0, Request::Suspend).map(drop))
    }

    /// Takes that back.
    pub(super) fn unsuspend(&mut self, tids: &[Tid]) -> Result<(), Error> {
        for tid in tids {
            match self.request("resume", tid.0, Request::Resume) {
                // One thread may have ended; that the process has, its status tells.
                Ok(_) | Err(Error::Gone(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
