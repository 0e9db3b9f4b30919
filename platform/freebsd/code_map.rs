//! Executable memory in the target, near the code that it belongs to, by system calls made in its name (FreeBSD 14).

use std::io;

use super::abi;
use super::sys::{Request, Sys};
use super::tracer::FreebsdTracer;
use crate::placement::{PAGE, choose_place};
use crate::{Error, Stop, Tid};

/// How often another thread of the target may take the chosen place first.
const ATTEMPTS: usize = 16;

/// Below that nothing is put, though `security.bsd.map_at_zero` allows it.
const LOWEST: u64 = 16 * PAGE;

impl<S: Sys> FreebsdTracer<S> {
    /// See [`Tracer::map_code`](crate::Tracer::map_code).
    pub(super) fn map_code_near(&mut self, stop: &Stop, near: u64, length: usize) -> Result<u64, Error> {
        const WHAT: &str = "map memory for displaced instructions";
        let failed = |cause| Error::Remote { what: WHAT, pid: stop.pid, cause };
        let flags = abi::MAP_PRIVATE | abi::MAP_ANON | abi::MAP_FIXED | abi::MAP_EXCL;
        let protection = abi::PROT_READ | abi::PROT_EXEC;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let mappings = self.read_mappings(stop.pid)?;
            let Some(place) = choose_place(&mappings, near, length as u64, LOWEST) else {
                let text = format!("no free place within 1 GiB of {near:#x}");
                return Err(failed(io::Error::new(io::ErrorKind::OutOfMemory, text)));
            };
            // With MAP_EXCL, a place that is taken is an invalid argument; so is the request to an older kernel.
            if last == Some(place) {
                let text = "the kernel makes no system calls in its name (PT_SC_REMOTE, FreeBSD 14)";
                return Err(failed(io::Error::new(io::ErrorKind::Unsupported, text)));
            }
            last = Some(place);
            let arguments = [place, length as u64, protection, flags, u64::MAX, 0];
            match self.system_call(stop, abi::SYS_MMAP, &arguments) {
                Ok(address) => return Ok(address),
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Err(Error::Gone(stop.tid)),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    return Err(Error::NotNow { what: WHAT, pid: stop.pid });
                }
                Err(cause) => return Err(failed(cause)),
            }
        }
        Err(failed(io::Error::new(io::ErrorKind::AddrInUse, "each chosen place was taken meanwhile")))
    }

    /// See [`Tracer::unmap_code`](crate::Tracer::unmap_code).
    pub(super) fn unmap_code_at(&mut self, stop: &Stop, address: u64, length: usize) -> Result<(), Error> {
        const WHAT: &str = "unmap memory";
        match self.system_call(stop, abi::SYS_MUNMAP, &[address, length as u64]) {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Err(Error::NotNow { what: WHAT, pid: stop.pid }),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(Error::Gone(stop.tid)),
            Err(cause) => Err(Error::Remote { what: WHAT, pid: stop.pid, cause }),
        }
    }

    /// Makes a system call in the name of the thread or, if that one sleeps amid one of its own (EBUSY), of another.
    fn system_call(&mut self, stop: &Stop, number: u32, arguments: &[u64]) -> io::Result<u64> {
        let process = self.processes.get(stop.pid);
        let others: Vec<Tid> = process.map(|process| process.threads.iter().copied().collect()).unwrap_or_default();
        let mut result = self.sys.ptrace(stop.tid.0, Request::SystemCall { number, arguments });
        for tid in others.into_iter().filter(|&tid| tid != stop.tid) {
            match &result {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    result = self.sys.ptrace(tid.0, Request::SystemCall { number, arguments });
                }
                _ => break,
            }
        }
        result
    }
}
