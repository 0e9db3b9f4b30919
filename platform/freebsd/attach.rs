//! Starting to trace a process, or the reason why not.

use std::io;

use super::abi;
use super::facts::ProcessInfo;
use super::sys::{Name, Request, Sys};
use super::tracer::FreebsdTracer;
use crate::{AttachRefusal, Error, Pid, Report, Tid};

/// What lets users trace their own processes (`mac(4)`, `security(7)`).
pub(super) const DEBUG_SETTING: &str = "security.bsd.unprivileged_proc_debug";
/// What lets users see the processes of others.
pub(super) const SIGHT_SETTING: &str = "security.bsd.see_other_uids";
/// What becomes of a traced process whose tracer is killed (`ptrace(2)`).
pub(super) const KILL_SETTING: &str = "kern.kill_on_debugger_exit";

impl<S: Sys> FreebsdTracer<S> {
    /// See [`Tracer::attach`](crate::Tracer::attach). The process stays stopped until it is next waited for, so that
    /// halting it at once costs nothing.
    pub(super) fn attach_to(&mut self, pid: Pid) -> Result<(), Error> {
        let info = self.refuse_unfit(pid)?;
        if let Err(cause) = self.sys.ptrace(pid.0, Request::Attach) {
            return Err(self.refusal(pid, &info, cause));
        }
        let process = self.processes.add(pid);
        process.owes_sigstop = true;
        process.is_frozen = info.stat == abi::SSTOP && info.flags & abi::P_STOPPED_SIG != 0;
        let result = self.take_over(pid);
        if let Err(error) = result {
            if self.release(pid).is_err() {
                self.processes.remove(pid);
            }
            self.queue.clear();
            return Err(match error {
                Error::Gone(_) => Error::Refused { pid, why: AttachRefusal::NoSuchProcess },
                error => error,
            });
        }
        Ok(())
    }

    /// Waits for the first stop. Whatever else it reports by that is kept.
    fn take_over(&mut self, pid: Pid) -> Result<(), Error> {
        let mut stops = Vec::new();
        while !self.await_stop(pid, &mut stops)? {
            // It cannot be let go before; and were the tracer to end now, so would the process.
            tracing::warn!("process {pid} does not stop: one of its threads sleeps in the kernel, and is waited for");
        }
        self.queue.extend(stops.into_iter().map(Report::Stopped));
        self.look_at_threads(pid)?;
        self.ask_for_events(pid)?;
        // Without its map nothing can be found in the process.
        self.read_mappings(pid).map(drop)
    }

    /// Refuses what can be seen to be no process that could be traced, before it is touched.
    pub(super) fn refuse_unfit(&mut self, pid: Pid) -> Result<ProcessInfo, Error> {
        let refuse = |why| Err(Error::Refused { pid, why });
        if pid.0 <= 0 {
            return refuse(AttachRefusal::NoSuchProcess);
        }
        if pid.0 == nix::unistd::getpid().as_raw() {
            return refuse(AttachRefusal::Itself);
        }
        let info = match self.process_info(pid) {
            Ok(info) => info,
            Err(Error::Gone(Tid(_))) => {
                let why = self.setting(SIGHT_SETTING, "0", "see").unwrap_or(AttachRefusal::NoSuchProcess);
                return refuse(why);
            }
            Err(error) => return Err(error),
        };
        if info.stat == abi::SZOMB {
            return refuse(AttachRefusal::Zombie);
        }
        if info.flags & (abi::P_SYSTEM | abi::P_KPROC) != 0 {
            return refuse(AttachRefusal::KernelThread);
        }
        if info.flags & abi::P_TRACED != 0 {
            return refuse(self.already_traced(&info));
        }
        // As `sysentvec` names the kinds: "FreeBSD ELF64", "FreeBSD ELF32", "Linux ELF64" …
        if !info.emulation.is_empty() && !info.emulation.starts_with("FreeBSD ELF64") {
            let bits = if info.emulation.ends_with("ELF32") { "32-bit " } else { "" };
            return refuse(AttachRefusal::OtherArchitecture(format!("a {bits}process ({})", info.emulation)));
        }
        Ok(info)
    }

    /// Why the kernel denied to trace a process (`p_candebug`, `sys/kern/kern_prot.c`).
    pub(super) fn refusal(&mut self, pid: Pid, info: &ProcessInfo, cause: io::Error) -> Error {
        let why = match cause.raw_os_error() {
            Some(libc::ESRCH) => AttachRefusal::NoSuchProcess,
            Some(libc::EBUSY) => self.already_traced(info),
            Some(libc::EPERM) => {
                let own = nix::unistd::geteuid();
                let other = info.users.into_iter().find(|&user| user != own.as_raw());
                match (own.is_root(), other) {
                    (true, _) => AttachRefusal::Denied,
                    (false, Some(user)) if info.users[0] != own.as_raw() => AttachRefusal::OtherUser(user),
                    (false, Some(_)) => AttachRefusal::Privileged,
                    (false, None) => self.setting(DEBUG_SETTING, "0", "trace").unwrap_or(AttachRefusal::Privileged),
                }
            }
            _ => return Error::Os { what: "trace", pid, cause },
        };
        Error::Refused { pid, why }
    }

    /// The refusal that names a system-wide setting, if that has the forbidding value and we are not root.
    fn setting(&mut self, name: &'static str, forbidding: &str, verb: &str) -> Option<AttachRefusal> {
        if nix::unistd::geteuid().is_root() {
            return None;
        }
        let bytes = self.sys.sysctl(Name::Text(name)).ok()?;
        let value = i32::from_ne_bytes(*bytes.first_chunk()?).to_string();
        let remedy = format!("run memleax as root, or allow users to {verb} processes: `sysctl {name}=1` (as root)");
        (value == forbidding).then_some(AttachRefusal::Setting { name, value, remedy })
    }

    fn already_traced(&mut self, info: &ProcessInfo) -> AttachRefusal {
        let by = Pid(info.tracer);
        AttachRefusal::AlreadyTraced { by, name: self.process_info(by).map(|info| info.name).unwrap_or_default() }
    }
}
