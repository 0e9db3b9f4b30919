//! A child that may call the kernel for next to nothing, as one with a seccomp filter: to find out whether the kernel lets such a process return from a
//! function whose return is trapped.
//!
//! Since 6.11 the trampoline of uretprobes is a system call, which filters then denied, and so killed who returned, until 6.14 (and its time's stable kernels)
//! let it pass: `mode1_syscalls`, `kernel/seccomp.c`.

use std::fs;
use std::hint::black_box;
use std::io::{self, PipeReader, PipeWriter, Read, Write};

use crate::Pid;

/// A child, forked, that waits to be confined. Dropped, it ends.
#[derive(Debug)]
pub struct Confined {
    pid: Pid,
    go: Option<PipeWriter>,
}

/// What the child calls, and returns from if it can.
#[inline(never)]
extern "C" fn landing() {
    black_box(());
}

impl Confined {
    /// Forks it.
    ///
    /// # Errors
    /// Those of `pipe(2)` and `fork(2)`.
    pub fn fork() -> io::Result<Self> {
        let (wait, go) = io::pipe()?;
        // SAFETY: the child calls nothing that asks for a lock: it reads, confines itself and ends.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                drop(go);
                live(wait)
            }
            pid => Ok(Confined { pid: Pid(pid), go: Some(go) }),
        }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Where in the running program's file the function is that it will call.
    ///
    /// # Errors
    /// Those of reading `/proc`.
    pub fn offset() -> io::Result<u64> {
        let address = landing as *const () as u64;
        let maps = fs::read_to_string("/proc/self/maps")?;
        let offset = |line: &str| {
            let mut words = line.split(' ');
            let (start, end) = words.next()?.split_once('-')?;
            let hexadecimal = |text| u64::from_str_radix(text, 16).ok();
            let (start, end, offset) = (hexadecimal(start)?, hexadecimal(end)?, hexadecimal(words.nth(1)?)?);
            (start..end).contains(&address).then(|| address - start + offset)
        };
        maps.lines().find_map(offset).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Lets it be confined, call and return; true if it lived to end in order.
    ///
    /// # Errors
    /// Those of `write(2)` and `waitpid(2)`.
    pub fn survives(mut self) -> io::Result<bool> {
        if let Some(mut go) = self.go.take() {
            go.write_all(&[1])?;
        }
        self.reap().map(|status| libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0)
    }

    fn reap(&self) -> io::Result<libc::c_int> {
        let mut status = 0;
        loop {
            // SAFETY: the status is written to a variable of ours.
            if unsafe { libc::waitpid(self.pid.0, &raw mut status, 0) } >= 0 {
                return Ok(status);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        // At the end of its pipe it ends by itself.
        if self.go.take().is_some() {
            _ = self.reap();
        }
    }
}

/// The child's life.
fn live(mut wait: PipeReader) -> ! {
    let is_wanted = matches!(wait.read(&mut [0]), Ok(1));
    // SAFETY: system calls with numbers only. Strict mode leaves read, write, exit and the return from signals; exit ends this only thread.
    unsafe {
        if is_wanted && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT, 0, 0, 0) == 0 {
            black_box(landing as extern "C" fn())();
        }
        libc::syscall(libc::SYS_exit, 0);
    }
    unreachable!("exit(2) does not return")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_probes_it_survives() {
        assert!(Confined::fork().expect("a child").survives().expect("its end"));
        drop(Confined::fork().expect("a child"));
        assert!(Confined::offset().expect("a place in the file") > 0);
    }
}
