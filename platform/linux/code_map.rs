//! Executable memory in the target, near the code that it belongs to.

use std::fs;
use std::io;

use super::facts;
use super::remote::Remote;
use crate::Error;
use crate::placement::{PAGE, choose_place};

/// How often another thread of the target may take the chosen place first.
const ATTEMPTS: usize = 16;

/// Maps `length` bytes, readable and executable, within 1 GiB of `near`.
pub(super) fn map_code(remote: &Remote, near: u64, length: usize) -> Result<u64, Error> {
    let failed = |cause| Error::Remote { what: "map memory for displaced instructions", pid: remote.pid(), cause };
    let lowest = lowest_mappable();
    for _ in 0..ATTEMPTS {
        let Some(place) = choose_place(&facts::mappings(remote.pid())?, near, length as u64, lowest) else {
            let text = format!("no free place within 1 GiB of {near:#x}");
            return Err(failed(io::Error::new(io::ErrorKind::OutOfMemory, text)));
        };
        match map_at(remote, place, length) {
            Ok(address) if address == place => return Ok(place),
            // Before Linux 4.17, which lacks MAP_FIXED_NOREPLACE, the address is a hint.
            Ok(address) => unmap(remote, address, length)?,
            Err(Error::Remote { cause, .. }) if cause.raw_os_error() == Some(libc::EEXIST) => {}
            Err(error) => return Err(error),
        }
    }
    Err(failed(io::Error::new(io::ErrorKind::AddrInUse, "each chosen place was taken meanwhile")))
}

fn map_at(remote: &Remote, address: u64, length: usize) -> Result<u64, Error> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    map(remote, address, length, libc::PROT_READ | libc::PROT_EXEC, flags)
}

/// `mmap(2)` of private, anonymous memory wherever the kernel likes.
pub(super) fn map_anywhere(remote: &Remote, length: usize, protection: i32) -> Result<u64, Error> {
    map(remote, 0, length, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)
}

fn map(remote: &Remote, address: u64, length: usize, protection: i32, flags: i32) -> Result<u64, Error> {
    let arguments = [address, length as u64, protection as u64, flags as u64, u64::MAX, 0];
    remote.call("map memory", libc::SYS_mmap, arguments)
}

/// `munmap(2)`.
pub(super) fn unmap(remote: &Remote, address: u64, length: usize) -> Result<(), Error> {
    remote.call("unmap memory", libc::SYS_munmap, [address, length as u64, 0, 0, 0, 0]).map(drop)
}

/// The lowest address that an unprivileged process may map.
fn lowest_mappable() -> u64 {
    let text = fs::read_to_string("/proc/sys/vm/mmap_min_addr").unwrap_or_default();
    text.trim().parse::<u64>().unwrap_or(0).max(16 * PAGE).next_multiple_of(PAGE)
}
