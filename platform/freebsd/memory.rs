//! The memory of a stopped process.

use std::io;

use super::sys::{Request, Sys};
use super::tracer::FreebsdTracer;
use crate::placement::PAGE;
use crate::{Error, Pid, Stop};

impl<S: Sys> FreebsdTracer<S> {
    /// Reads from `address` on; returns how many bytes were readable (perhaps 0).
    ///
    /// A request that meets an unreadable page fails as a whole, and does not tell how far it came: then each page is
    /// asked for by itself.
    pub(super) fn read_memory(&mut self, stop: &Stop, address: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        match self.sys.ptrace(stop.pid.0, Request::Read { address, buffer: &mut *buffer }) {
            Ok(count) => return Ok(usize::try_from(count).unwrap_or_default().min(buffer.len())),
            Err(error) if is_gone(&error) => return Err(Error::Gone(stop.tid)),
            Err(_) => {}
        }
        let mut done = 0;
        while done < buffer.len() {
            let at = address.wrapping_add(done as u64);
            let end = done + up_to_page_end(at, buffer.len() - done);
            match self.sys.ptrace(stop.pid.0, Request::Read { address: at, buffer: &mut buffer[done..end] }) {
                Ok(count) if count > 0 => done += usize::try_from(count).unwrap_or_default(),
                Err(error) if is_gone(&error) => return Err(Error::Gone(stop.tid)),
                _ => break,
            }
        }
        Ok(done.min(buffer.len()))
    }

    /// Writes all of `bytes`, read-only text included (`VM_PROT_COPY`: the process gets a private copy of the page).
    pub(super) fn write_memory(&mut self, stop: &Stop, address: u64, bytes: &[u8]) -> Result<(), Error> {
        let mut done = 0;
        while done < bytes.len() {
            let at = address.wrapping_add(done as u64);
            let end = done + up_to_page_end(at, bytes.len() - done);
            match self.sys.ptrace(stop.pid.0, Request::Write { address: at, bytes: &bytes[done..end] }) {
                Ok(count) if count > 0 => done += usize::try_from(count).unwrap_or_default(),
                Err(error) if is_gone(&error) => return Err(Error::Gone(stop.tid)),
                Ok(_) => return Err(unwritable(stop.pid, address, bytes, io::ErrorKind::WriteZero.into())),
                Err(cause) => return Err(unwritable(stop.pid, address, bytes, cause)),
            }
        }
        Ok(())
    }
}

fn up_to_page_end(address: u64, length: usize) -> usize {
    length.min(usize::try_from(PAGE - address % PAGE).unwrap_or(length))
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EBUSY))
}

fn unwritable(pid: Pid, address: u64, bytes: &[u8], cause: io::Error) -> Error {
    Error::Memory { what: "write", length: bytes.len(), address, pid, cause }
}
