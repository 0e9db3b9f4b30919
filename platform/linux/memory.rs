//! The memory of a stopped thread.
//!
//! Named by thread, not by process: once the main thread has ended by itself, the process id reaches no memory any more.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use super::ptrace;
use crate::{Error, Pid, Tid};

/// Reads from `address` on; returns how many bytes were readable (perhaps 0).
pub(super) fn read_memory(tid: Tid, address: u64, buffer: &mut [u8]) -> Result<usize, Error> {
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(address as usize), iov_len: buffer.len() };
    // SAFETY: `local` is the caller's buffer; `remote` is never dereferenced in this process.
    let count = unsafe { libc::process_vm_readv(tid.0, &raw const local, 1, &raw const remote, 1, 0) };
    if count >= 0 {
        return Ok(count as usize);
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::ESRCH) => Err(Error::Gone(tid)),
        // Memory without PROT_READ, or a kernel or filter that refuses the call: the file reads it nevertheless.
        _ => read_memory_file(tid, address, buffer),
    }
}

/// Fills `buffer` from `address` on.
pub(super) fn read_exactly(tid: Tid, address: u64, buffer: &mut [u8]) -> Result<(), Error> {
    if read_memory(tid, address, buffer)? == buffer.len() {
        return Ok(());
    }
    let cause = io::Error::from_raw_os_error(libc::EFAULT);
    Err(Error::Memory { what: "read", length: buffer.len(), address, pid: Pid(tid.0), cause })
}

fn read_memory_file(tid: Tid, address: u64, buffer: &mut [u8]) -> Result<usize, Error> {
    let file = File::open(format!("/proc/{tid}/mem")).map_err(|cause| open_error("read the memory of", tid, cause))?;
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], address.wrapping_add(done as u64)) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // EIO: nothing is mapped there. EINVAL or EOVERFLOW: no address.
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Writes all of `bytes`, read-only text included (`FOLL_FORCE`; the process gets a private copy of the page).
pub(super) fn write_memory(tid: Tid, address: u64, bytes: &[u8]) -> Result<(), Error> {
    // Opened each time: an open file stays with the old image over an exec, and writes are rare.
    let file = OpenOptions::new().write(true).open(format!("/proc/{tid}/mem"));
    let file = file.map_err(|cause| open_error("write the memory of", tid, cause))?;
    let Err(cause) = file.write_all_at(bytes, address) else { return Ok(()) };
    // A kernel may deny to write read-only memory this way (`proc_mem.force_override=never`), but not by ptrace.
    match poke_memory(tid, address, bytes) {
        Ok(()) => Ok(()),
        Err(error @ Error::Gone(_)) => Err(error),
        Err(_) => Err(Error::Memory { what: "write", length: bytes.len(), address, pid: Pid(tid.0), cause }),
    }
}

/// [`write_memory`] by ptrace, which knows whole words only.
fn poke_memory(tid: Tid, address: u64, bytes: &[u8]) -> Result<(), Error> {
    const SIZE: usize = size_of::<u64>();
    let skew = (address % SIZE as u64) as usize;
    let first = address - skew as u64;
    let mut words = vec![0; (skew + bytes.len()).next_multiple_of(SIZE)];
    // Words do not cross pages: what cannot be read cannot be written either, which the requests will tell.
    read_memory(tid, first, &mut words)?;
    words[skew..skew + bytes.len()].copy_from_slice(bytes);
    let (words, _) = words.as_chunks::<SIZE>();
    for (index, word) in words.iter().enumerate() {
        ptrace::poke(tid, first + (index * SIZE) as u64, u64::from_ne_bytes(*word))?;
    }
    Ok(())
}

fn open_error(what: &'static str, tid: Tid, cause: io::Error) -> Error {
    match cause.raw_os_error() {
        Some(libc::ESRCH | libc::ENOENT) => Error::Gone(tid),
        _ => Error::Os { what, pid: Pid(tid.0), cause },
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn read_only_memory_is_written_by_ptrace_too() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("started");
        let tid = Tid(child.id() as i32);
        child.stdin.as_mut().expect("piped").write_all(b"\n").expect("it reads");
        child.stdout.as_mut().expect("piped").read_exact(&mut [0]).expect("it writes");
        ptrace::seize(tid).expect("traced");
        ptrace::interrupt(tid).expect("interrupted");
        ptrace::wait_for_stop(tid).expect("stopped");
        let text = ptrace::registers(tid).expect("readable").rip;
        for skew in 0..9 {
            let address = text + skew;
            let mut before = [0; 11];
            assert_eq!(read_memory(tid, address - 1, &mut before).expect("readable"), before.len());
            poke_memory(tid, address, b"breakpoin").expect("written");
            let mut after = [0; 11];
            assert_eq!(read_memory(tid, address - 1, &mut after).expect("readable"), after.len());
            assert_eq!(after[1..10], *b"breakpoin");
            assert_eq!((after[0], after[10]), (before[0], before[10]));
        }
        assert!(matches!(poke_memory(tid, 16, b"x"), Err(Error::Os { .. })));
        assert!(matches!(write_memory(tid, 16, b"x"), Err(Error::Memory { .. })));
        child.kill().expect("killed");
        child.wait().expect("collected");
        assert!(matches!(write_memory(tid, text, b"x"), Err(Error::Gone(_))));
    }
}
