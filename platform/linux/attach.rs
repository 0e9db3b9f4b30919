//! Starting to trace a process: all of its threads, or with the reason none.

use std::fs::{self, File};
use std::io::Read;

use super::privileges::is_confined;
use super::status::{self, Status};
use super::threads::Activity;
use super::{LinuxTracer, facts, isa, ptrace};
use crate::{AttachRefusal, Error, Pid, Resume, Tid, Tracer};

/// `PF_KTHREAD` of `include/linux/sched.h`, in the ninth field of `/proc/PID/stat`.
const PF_KTHREAD: u64 = 0x0020_0000;

const YAMA_SETTING: &str = "kernel.yama.ptrace_scope";

impl LinuxTracer {
    /// See [`Tracer::attach`].
    pub(super) fn attach_to(&mut self, pid: Pid) -> Result<(), Error> {
        refuse_unfit(pid)?;
        refuse_traced(pid)?;
        let result = self.seize_threads(pid).and_then(|()| self.check_access(pid));
        if result.is_err() {
            self.let_go(pid);
        }
        result
    }

    /// Seizes threads until a look at the list finds no new one. From then on each thread that is created is traced
    /// from its start, as its creator is.
    fn seize_threads(&mut self, pid: Pid) -> Result<(), Error> {
        loop {
            let mut found = false;
            for tid in status::threads_of(pid).map_err(|error| refuse_gone(pid, error))? {
                if self.threads.get(tid).is_none() {
                    found |= self.seize(pid, tid)?;
                }
            }
            if !found {
                break;
            }
        }
        if self.threads.of(pid).next().is_none() {
            return Err(Error::Refused { pid, why: AttachRefusal::NoSuchProcess });
        }
        Ok(())
    }

    /// Seizes one thread; false if there is no such thread any more.
    fn seize(&mut self, pid: Pid, tid: Tid) -> Result<bool, Error> {
        let error = match ptrace::seize(tid) {
            Ok(()) => {
                self.threads.add(tid, pid, Activity::Running);
                return Ok(true);
            }
            Err(Error::Gone(_)) => return Ok(false),
            Err(error) => error,
        };
        let status = match Status::of(tid) {
            Ok(status) => status,
            Err(Error::Gone(_)) => return Ok(false),
            Err(error) => return Err(error),
        };
        if status.has_ended() {
            return Ok(false);
        }
        if status.is_traced_here() {
            // Its creator was seized before it was created.
            self.threads.add(tid, pid, Activity::Running);
            return Ok(true);
        }
        match refusal(&status) {
            Some(why) => Err(Error::Refused { pid, why }),
            None => Err(error),
        }
    }

    /// Without its map nothing can be found in the process.
    fn check_access(&mut self, pid: Pid) -> Result<(), Error> {
        facts::mappings(pid).map(drop)
    }

    /// Stops tracing whatever of `pid` is traced. Nothing was written to it, so all that threads have stopped for is
    /// their own.
    fn let_go(&mut self, pid: Pid) {
        let stops = self.halt_process(pid).unwrap_or_default();
        for stop in stops {
            if let Err(error) = self.detach(stop, Resume::Deliver) {
                tracing::debug!("after a failed attach: {error}");
            }
        }
    }
}

/// Refuses what can be seen to be no process that could be traced, before it is touched.
pub(super) fn refuse_unfit(pid: Pid) -> Result<(), Error> {
    let refuse = |why| Err(Error::Refused { pid, why });
    if pid.0 <= 0 {
        return refuse(AttachRefusal::NoSuchProcess);
    }
    if pid.0 as u32 == std::process::id() {
        return refuse(AttachRefusal::Itself);
    }
    let status = match Status::of(Tid(pid.0)) {
        Ok(status) => status,
        Err(Error::Gone(_)) if is_hidden(pid) => return refuse(AttachRefusal::Privileged),
        Err(Error::Gone(_)) => return refuse(AttachRefusal::NoSuchProcess),
        Err(error) => return Err(error),
    };
    if status.process != pid.0 {
        return refuse(AttachRefusal::ThreadOf(status.pid()));
    }
    if is_kernel_thread(pid) {
        return refuse(AttachRefusal::KernelThread);
    }
    if status.has_ended() && !has_living_thread(pid) {
        return refuse(AttachRefusal::Zombie);
    }
    match isa::REFUSAL.map(Into::into).or_else(|| architecture(pid)) {
        Some(what) => refuse(AttachRefusal::OtherArchitecture(what)),
        None => Ok(()),
    }
}

pub(super) fn refuse_traced(pid: Pid) -> Result<(), Error> {
    match Status::of(Tid(pid.0)) {
        Ok(status) if status.tracer != 0 => Err(Error::Refused { pid, why: already_traced(status.tracer) }),
        _ => Ok(()),
    }
}

fn refuse_gone(pid: Pid, error: Error) -> Error {
    match error {
        Error::Gone(_) => Error::Refused { pid, why: AttachRefusal::NoSuchProcess },
        error => error,
    }
}

/// Why the kernel denied to trace a thread (EPERM; `ptrace_may_access` and `yama_ptrace_access_check`).
pub(super) fn refusal(target: &Status) -> Option<AttachRefusal> {
    if target.tracer != 0 {
        return Some(already_traced(target.tracer));
    }
    let own = Status::of_this_thread().ok()?;
    let privileged = own.may_trace_any();
    let user = own.users[0];
    if !privileged && target.users[..3].iter().all(|&other| other != user) {
        return Some(AttachRefusal::OtherUser(target.users[0]));
    }
    if !privileged && target.users[..3].iter().any(|&other| other != user) {
        return Some(AttachRefusal::Privileged);
    }
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let remedy = match (scope.trim(), privileged) {
        ("1", false) => format!("run memleax as root, or allow it: `sudo sysctl -w {YAMA_SETTING}=0`"),
        ("2", false) => format!("run memleax as root, or allow it: `sudo sysctl -w {YAMA_SETTING}=1`"),
        ("3", _) => "it forbids tracing until the next boot; set it to less in /etc/sysctl.d and reboot".into(),
        (_, true) if is_confined() => return Some(AttachRefusal::Confined),
        (_, true) => return Some(AttachRefusal::Denied),
        (_, false) => return Some(AttachRefusal::Privileged),
    };
    Some(AttachRefusal::Setting { name: YAMA_SETTING, value: scope.trim().into(), remedy })
}

/// `tracer` is the tracing thread, whose process is what a user can find and end.
fn already_traced(tracer: i32) -> AttachRefusal {
    let status = Status::of(Tid(tracer)).unwrap_or_default();
    let by = if status.process == 0 { Pid(tracer) } else { status.pid() };
    AttachRefusal::AlreadyTraced { by, name: status.name }
}

/// `/proc` may hide the processes of other users (its mount option `hidepid`).
fn is_hidden(pid: Pid) -> bool {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.0), None) == Err(nix::errno::Errno::EPERM)
}

fn is_kernel_thread(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The fields after the name, which stands in parentheses and may contain any character, begin with the third.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    fields
        .split(' ')
        .nth(9 - 3)
        .and_then(|flags| flags.parse::<u64>().ok())
        .is_some_and(|flags| flags & PF_KTHREAD != 0)
}

/// The main thread may end before the others.
fn has_living_thread(pid: Pid) -> bool {
    let tids = status::threads_of(pid).unwrap_or_default();
    tids.into_iter().any(|tid| Status::of(tid).is_ok_and(|status| !status.has_ended()))
}

/// What a process is, if it is not of the tracer's own architecture and word size: as the executable's ELF header says
/// (the file may be unreadable; then the kernel's refusal to trace it follows).
fn architecture(pid: Pid) -> Option<String> {
    let mut header = [0; 20];
    File::open(format!("/proc/{pid}/exe")).and_then(|mut file| file.read_exact(&mut header)).ok()?;
    describe_other_architecture(&header)
}

fn describe_other_architecture(header: &[u8; 20]) -> Option<String> {
    const ELFCLASS32: u8 = 1;
    let (class, machine) = (header[4], u16::from_le_bytes([header[18], header[19]]));
    match (class, machine) {
        _ if header[..4] != *b"\x7fELF" => None,
        (ELFCLASS32, 3) => Some("a 32-bit x86 process".into()),
        (ELFCLASS32, 62) => Some("an x32 process".into()),
        (ELFCLASS32, 40) => Some("a 32-bit ARM process".into()),
        (_, 62) => None,
        (_, 183) => Some("an aarch64 process".into()),
        (_, machine) => Some(format!("a process of another architecture (ELF machine {machine})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_architectures_are_named() {
        let header = |class: u8, machine: u16| {
            let mut header = [0; 20];
            header[..5].copy_from_slice(&[0x7f, b'E', b'L', b'F', class]);
            header[18..].copy_from_slice(&machine.to_le_bytes());
            describe_other_architecture(&header)
        };
        assert_eq!(header(2, 62), None);
        assert_eq!(header(1, 3).as_deref(), Some("a 32-bit x86 process"));
        assert_eq!(header(1, 62).as_deref(), Some("an x32 process"));
        assert_eq!(header(2, 243).as_deref(), Some("a process of another architecture (ELF machine 243)"));
    }
}
