//! `/proc/PID/status` (`proc_pid_status(5)`).

use std::fs;
use std::io;

use crate::{Error, Pid, Tid};

/// `CAP_SYS_PTRACE` of `include/uapi/linux/capability.h`.
const CAP_SYS_PTRACE: u32 = 19;

/// What the status file of a thread says.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Status {
    /// `Name`: its `comm`.
    pub(super) name: String,
    /// `State`: one letter; `Z` and `X` for ended.
    pub(super) state: char,
    /// `Tgid`: its process.
    pub(super) process: i32,
    /// `PPid`: the parent of its process.
    pub(super) parent: i32,
    /// `TracerPid`: the thread that traces it, or 0.
    pub(super) tracer: i32,
    /// `Uid`: real, effective, saved and file system user.
    pub(super) users: [u32; 4],
    /// `CapEff`: its capabilities.
    pub(super) capabilities: u64,
    /// `SigPnd`: signals pending for the thread, bit `n - 1` for signal `n`.
    pub(super) pending: u64,
    /// `ShdPnd`: signals pending for its process.
    pub(super) shared_pending: u64,
    /// `SigBlk`: signals that it blocks.
    pub(super) blocked: u64,
    /// `SigCgt`: signals that have a handler.
    pub(super) caught: u64,
    /// `Seccomp`: 0 none, 1 strict, 2 filter.
    pub(super) seccomp: u32,
}

impl Status {
    /// Reads the status of a thread or, by the id of its main thread, of a process.
    pub(super) fn of(tid: Tid) -> Result<Self, Error> {
        let text =
            fs::read(format!("/proc/{tid}/status")).map_err(|error| proc_error("read the status of", tid, error))?;
        Ok(Self::parse(&String::from_utf8_lossy(&text)))
    }

    /// Reads the status of the calling thread.
    pub(super) fn of_this_thread() -> Result<Self, Error> {
        Self::of(Tid(nix::unistd::gettid().as_raw()))
    }

    fn parse(text: &str) -> Self {
        let mut status = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            let number = || value.parse().unwrap_or_default();
            let set = || u64::from_str_radix(value, 16).unwrap_or_default();
            match key {
                "Name" => status.name = value.into(),
                "State" => status.state = value.chars().next().unwrap_or_default(),
                "Tgid" => status.process = number(),
                "PPid" => status.parent = number(),
                "TracerPid" => status.tracer = number(),
                "Uid" => {
                    for (user, text) in status.users.iter_mut().zip(value.split_whitespace()) {
                        *user = text.parse().unwrap_or_default();
                    }
                }
                "CapEff" => status.capabilities = set(),
                "SigPnd" => status.pending = set(),
                "ShdPnd" => status.shared_pending = set(),
                "SigBlk" => status.blocked = set(),
                "SigCgt" => status.caught = set(),
                "Seccomp" => status.seccomp = value.parse().unwrap_or_default(),
                _ => {}
            }
        }
        status
    }

    /// The thread has ended (and a main thread perhaps waits for the others to end).
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }

    /// It may trace any process.
    pub(super) fn may_trace_any(&self) -> bool {
        self.capabilities & 1 << CAP_SYS_PTRACE != 0
    }

    /// The calling thread traces it.
    pub(super) fn is_traced_here(&self) -> bool {
        self.tracer == nix::unistd::gettid().as_raw()
    }

    /// The process that the thread belongs to.
    pub(super) fn pid(&self) -> Pid {
        Pid(self.process)
    }

    /// `signal` has a handler.
    pub(super) fn catches(&self, signal: i32) -> bool {
        self.caught & 1 << (signal - 1) != 0
    }

    /// `signal` is blocked.
    pub(super) fn blocks(&self, signal: i32) -> bool {
        self.blocked & 1 << (signal - 1) != 0
    }

    /// `signal` waits for the thread or any thread of its process.
    pub(super) fn is_pending(&self, signal: i32) -> bool {
        (self.pending | self.shared_pending) & 1 << (signal - 1) != 0
    }

    /// `signal` will be delivered as soon as the thread runs.
    pub(super) fn is_imminent(&self, signal: i32) -> bool {
        self.pending & !self.blocked & 1 << (signal - 1) != 0
    }
}

/// The error of reading a file of `/proc` that concerns `tid`.
pub(super) fn proc_error(what: &'static str, tid: Tid, cause: io::Error) -> Error {
    match cause.raw_os_error() {
        Some(libc::ESRCH | libc::ENOENT) => Error::Gone(tid),
        _ => Error::Os { what, pid: Pid(tid.0), cause },
    }
}

/// The threads of a process, as far as they have not ended and been reaped.
pub(super) fn threads_of(pid: Pid) -> Result<Vec<Tid>, Error> {
    let error = |cause| proc_error("list the threads of", Tid(pid.0), cause);
    let mut tids = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).map_err(error)? {
        if let Some(tid) = entry.map_err(error)?.file_name().to_str().and_then(|name| name.parse().ok()) {
            tids.push(Tid(tid));
        }
    }
    Ok(tids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_file_is_parsed() {
        let text = "Name:\tsome: name\nState:\tt (tracing stop)\nTgid:\t10\nPid:\t12\nPPid:\t1\nTracerPid:\t9\n\
            Uid:\t1000\t1001\t1002\t1003\nSigQ:\t0/96000\nSigPnd:\t0000000000000010\nShdPnd:\t0000000000000001\n\
            SigBlk:\t0000000000000010\nSigCgt:\t0000000180000000\nCapEff:\t000001ffffffffff\nSeccomp:\t2\n";
        let status = Status::parse(text);
        assert_eq!(status.name, "some: name");
        assert_eq!((status.state, status.pid(), status.parent, status.tracer), ('t', Pid(10), 1, 9));
        assert_eq!(status.users, [1000, 1001, 1002, 1003]);
        assert_eq!((status.caught, status.capabilities, status.seccomp), (0x1_8000_0000, 0x1ff_ffff_ffff, 2));
        assert!(!status.is_imminent(libc::SIGTRAP), "blocked");
        assert!(
            status.is_pending(libc::SIGTRAP) && status.is_pending(libc::SIGHUP) && !status.is_pending(libc::SIGINT)
        );
        assert!(Status { blocked: 0, ..status }.is_imminent(libc::SIGTRAP));
    }

    #[test]
    fn the_own_status_is_read() {
        let pid = Pid(i32::try_from(std::process::id()).expect("a pid"));
        let status = Status::of(Tid(pid.0)).expect("readable");
        assert_eq!((status.pid(), status.has_ended()), (pid, false));
        assert!(threads_of(pid).expect("readable").contains(&Tid(pid.0)));
    }

    #[test]
    fn a_process_that_is_no_more_is_gone() {
        assert!(matches!(Status::of(Tid(i32::MAX)), Err(Error::Gone(_))));
        assert!(matches!(threads_of(Pid(i32::MAX)), Err(Error::Gone(_))));
    }
}
