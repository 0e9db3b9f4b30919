//! A process that is watched without being traced.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::attach::refuse_unfit;
use super::memory;
use crate::{Error, ExitStatus, Pid, Signal, Tid};

/// Learns of the end of a process that is no child and not traced (`pidfd_open(2)`, Linux 5.3).
#[derive(Debug)]
pub struct ProcessWatch {
    pid: Pid,
    pidfd: OwnedFd,
}

impl ProcessWatch {
    /// Starts to watch.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is no such process, or it is none whose calls can be observed.
    pub fn new(pid: Pid) -> Result<Self, Error> {
        refuse_unfit(pid)?;
        // SAFETY: pidfd_open takes a number and flags, and returns a new descriptor or -1.
        let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.0, 0) };
        if descriptor < 0 {
            let cause = io::Error::last_os_error();
            return Err(match cause.raw_os_error() {
                Some(libc::ESRCH) => Error::Gone(Tid(pid.0)),
                _ => Error::Os { what: "watch", pid, cause },
            });
        }
        // SAFETY: the descriptor is new, open and owned by nobody else; descriptors fit an i32.
        Ok(ProcessWatch { pid, pidfd: unsafe { OwnedFd::from_raw_fd(descriptor as i32) } })
    }

    /// Waits until the process ends, there is something to read from `other`, a signal arrives or `period` is over. True if
    /// the process has ended.
    ///
    /// # Errors
    /// The error of `poll(2)`.
    pub fn wait(&self, other: RawFd, period: Duration) -> io::Result<bool> {
        let mut polls = [self.pidfd.as_raw_fd(), other].map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
        let milliseconds = i32::try_from(period.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: `polls` is an array of so many valid structures.
        match unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, milliseconds) } {
            -1 => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
                error => Err(error),
            },
            _ => Ok(polls[0].revents != 0),
        }
    }

    /// How the process ended, as far as it can be known: until its parent has taken note of it, `/proc` tells
    /// (proc_pid_stat(5), `exit_code`).
    #[must_use]
    pub fn status(&self) -> ExitStatus {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        match stat.rsplit(' ').next().and_then(|field| field.trim().parse::<i32>().ok()) {
            Some(code) if stat.contains(") Z ") && libc::WIFSIGNALED(code) => {
                ExitStatus::Killed(Signal(libc::WTERMSIG(code)))
            }
            Some(code) if stat.contains(") Z ") => ExitStatus::Exited(libc::WEXITSTATUS(code)),
            _ => ExitStatus::Unknown,
        }
    }
}

/// Reads memory of a process that need not be stopped or traced; returns how many bytes were readable.
pub fn read_memory(pid: Pid, address: u64, buffer: &mut [u8]) -> usize {
    memory::read_memory(Tid(pid.0), address, buffer).unwrap_or(0)
}

/// How long the calling thread has had a processor.
#[must_use]
pub fn thread_processor_time() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// The clock of `bpf_ktime_get_ns` (`CLOCK_MONOTONIC`), in nanoseconds.
#[must_use]
pub fn monotonic_nanoseconds() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
