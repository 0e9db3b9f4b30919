//! The four calls, on FreeBSD itself.

use std::ffi::CString;
use std::io;
use std::ptr;

use libc::{c_char, c_int, c_void};

use crate::freebsd::abi::{self, IoDescriptor, RemoteCall};
use crate::freebsd::{FreebsdTracer, Name, Request, Sys};
use crate::{Error, Host, Pid, Tid};

pub use crate::freebsd::RootDirectory;

/// The tracer of the system that this was compiled for.
pub type NativeTracer = FreebsdTracer<NativeSys>;

/// The kernel.
#[derive(Clone, Copy, Default, Debug)]
pub struct NativeSys;

/// How often a sysctl whose value grows meanwhile is asked again.
const ATTEMPTS: usize = 8;

/// What this machine allows.
#[must_use]
pub fn host() -> Host {
    crate::freebsd::host(&mut NativeSys)
}

/// The command line of a process; empty if it has none or is no more.
#[must_use]
pub fn command_line(pid: Pid) -> Vec<String> {
    crate::freebsd::command_line(&mut NativeSys, pid)
}

/// The name of a thread: not asked for here, where ids must do.
#[must_use]
pub fn thread_name(_: Pid, _: Tid) -> Option<String> {
    None
}

/// The user whose process has connected, as of then.
///
/// # Errors
/// Those of `getpeereid(3)`.
pub fn peer_user(stream: &std::os::unix::net::UnixStream) -> io::Result<u32> {
    Ok(nix::unistd::getpeereid(stream)?.0.as_raw())
}

/// Whether a process may be traced, without beginning to.
///
/// # Errors
/// As [`Tracer::attach`](crate::Tracer::attach) would refuse it.
pub fn check_access(pid: Pid) -> Result<(), Error> {
    crate::freebsd::check_access(NativeSys, pid)
}

/// The id of the calling thread.
pub(crate) fn thread_id() -> libc::lwpid_t {
    // SAFETY: touches no memory.
    unsafe { libc::pthread_getthreadid_np() }
}

/// One call of `ptrace(2)`.
///
/// # Safety
/// `address` must be what `request` expects: an integer, or a pointer to memory that it may read or write.
unsafe fn ptrace(request: c_int, id: i32, address: *mut c_void, data: c_int) -> io::Result<c_int> {
    // SAFETY: the caller vouches for `address`. No request is made that may return -1 without an error.
    match unsafe { libc::ptrace(request, id, address.cast::<c_char>(), data) } {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

fn size_of_data<T>() -> c_int {
    c_int::try_from(size_of::<T>()).unwrap_or(c_int::MAX)
}

/// Reads or writes memory of a process.
///
/// # Safety
/// `local` must be memory of `length` bytes that may be read or, for `PIOD_READ_D`, written.
unsafe fn transfer(id: i32, op: c_int, address: u64, local: *mut u8, length: usize) -> io::Result<u64> {
    let offs = ptr::without_provenance_mut(address as usize);
    let mut descriptor = IoDescriptor { op, offs, addr: local.cast(), len: length };
    // SAFETY: a live descriptor; the caller vouches for what it points to, and `offs` is an address of the target.
    unsafe { ptrace(abi::PT_IO, id, (&raw mut descriptor).cast(), 0)? };
    Ok(descriptor.len as u64)
}

impl Sys for NativeSys {
    fn ptrace(&mut self, id: i32, request: Request<'_>) -> io::Result<u64> {
        let none = ptr::null_mut();
        // PT_CONTINUE and PT_DETACH: where the thread is.
        let here = ptr::without_provenance_mut(1);
        // SAFETY: each request gets what the manual says that it expects: nothing, an integer, or a live value of the
        // structure whose layout `abi_table` asserts, which is mutable where the kernel fills it.
        let result = unsafe {
            match request {
                Request::Attach => ptrace(abi::PT_ATTACH, id, none, 0),
                Request::Detach(signal) => ptrace(abi::PT_DETACH, id, here, signal),
                Request::Continue(signal) => ptrace(abi::PT_CONTINUE, id, here, signal),
                Request::SetEventMask(mut events) => {
                    ptrace(abi::PT_SET_EVENT_MASK, id, (&raw mut events).cast(), size_of_data::<c_int>())
                }
                Request::LwpInfo(info) => {
                    ptrace(abi::PT_LWPINFO, id, ptr::from_mut(info).cast(), size_of_data::<abi::LwpInfo>())
                }
                Request::LwpCount => ptrace(abi::PT_GETNUMLWPS, id, none, 0),
                Request::LwpList(ids) => {
                    let length = c_int::try_from(ids.len()).unwrap_or(c_int::MAX);
                    ptrace(abi::PT_GETLWPLIST, id, ids.as_mut_ptr().cast(), length)
                }
                Request::Suspend => ptrace(abi::PT_SUSPEND, id, none, 0),
                Request::Resume => ptrace(abi::PT_RESUME, id, none, 0),
                Request::SetStep => ptrace(abi::PT_SETSTEP, id, none, 0),
                Request::ClearStep => ptrace(abi::PT_CLEARSTEP, id, none, 0),
                Request::Registers(registers) => ptrace(abi::PT_GETREGS, id, ptr::from_mut(registers).cast(), 0),
                Request::SetRegisters(registers) => {
                    ptrace(abi::PT_SETREGS, id, ptr::from_ref(registers).cast_mut().cast(), 0)
                }
                Request::Read { address, buffer } => {
                    return transfer(id, abi::PIOD_READ_D, address, buffer.as_mut_ptr(), buffer.len());
                }
                Request::Write { address, bytes } => {
                    return transfer(id, abi::PIOD_WRITE_I, address, bytes.as_ptr().cast_mut(), bytes.len());
                }
                Request::SystemCall { number, arguments } => {
                    let mut arguments = arguments.to_vec();
                    let mut call = RemoteCall {
                        retval: [0; 2],
                        error: 0,
                        padding: 0,
                        syscall: number,
                        nargs: u32::try_from(arguments.len()).unwrap_or_default(),
                        args: arguments.as_mut_ptr(),
                    };
                    ptrace(abi::PT_SC_REMOTE, id, (&raw mut call).cast(), size_of_data::<RemoteCall>())?;
                    return match call.error {
                        0 => Ok(call.retval[0]),
                        error => Err(io::Error::from_raw_os_error(error)),
                    };
                }
            }
        };
        result.map(|result| u64::try_from(result).unwrap_or_default())
    }

    fn waitpid(&mut self, pid: i32) -> io::Result<(i32, c_int)> {
        let mut status = 0;
        // SAFETY: a live integer.
        match unsafe { libc::waitpid(pid, &raw mut status, 0) } {
            -1 => Err(io::Error::last_os_error()),
            pid => Ok((pid, status)),
        }
    }

    fn kill(&mut self, pid: i32, signal: c_int) -> io::Result<()> {
        // SAFETY: touches no memory.
        match unsafe { libc::kill(pid, signal) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    fn sysctl(&mut self, name: Name<'_>) -> io::Result<Vec<u8>> {
        let numbers;
        let numbers = match name {
            Name::Numbers(numbers) => numbers,
            Name::Text(text) => {
                numbers = numbers_of(text)?;
                &numbers
            }
        };
        for _ in 0..ATTEMPTS {
            let length = read_sysctl(numbers, None)?;
            // What it may grow meanwhile.
            let mut value = vec![0; length + length / 4];
            match read_sysctl(numbers, Some(&mut value)) {
                Ok(length) => {
                    value.truncate(length);
                    return Ok(value);
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::from_raw_os_error(libc::ENOMEM))
    }
}

/// The length of a value, which is read if there is a `buffer`.
fn read_sysctl(name: &[c_int], buffer: Option<&mut Vec<u8>>) -> io::Result<usize> {
    let count = name.len().try_into().unwrap_or_default();
    let (value, mut length) = buffer.map_or((ptr::null_mut(), 0), |buffer| (buffer.as_mut_ptr(), buffer.len()));
    // SAFETY: `name` has `count` numbers; `value` is null or `length` bytes long; nothing is set.
    let result = unsafe { libc::sysctl(name.as_ptr(), count, value.cast(), &raw mut length, ptr::null(), 0) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(length) }
}

fn numbers_of(name: &str) -> io::Result<Vec<c_int>> {
    let name = CString::new(name)?;
    let mut numbers = vec![0; libc::CTL_MAXNAME as usize];
    let mut length = numbers.len();
    // SAFETY: a string that ends with a zero; `numbers` has `length` elements.
    if unsafe { libc::sysctlnametomib(name.as_ptr(), numbers.as_mut_ptr(), &raw mut length) } == -1 {
        return Err(io::Error::last_os_error());
    }
    numbers.truncate(length);
    Ok(numbers)
}
