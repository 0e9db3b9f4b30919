//! Linux's own calls.

use std::fs::{File, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::ptr;

use libc::{c_int, c_uint, c_void, siginfo_t, user_regs_struct};

const OPTIONS: c_int = libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACEVFORKDONE
    | libc::PTRACE_O_TRACEEXEC;

/// # Safety
/// `data` must be what the request expects.
unsafe fn request(name: c_uint, tid: i32, data: *mut c_void) -> io::Result<()> {
    // SAFETY: the caller vouches for `data`; none of the requests made here uses its address argument.
    match unsafe { libc::ptrace(name, tid, ptr::null_mut::<c_void>(), data) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn plain(name: c_uint, tid: i32, data: c_int) -> io::Result<()> {
    // SAFETY: an integer is no memory.
    unsafe { request(name, tid, ptr::without_provenance_mut(data as usize)) }
}

pub(crate) fn seize(tid: i32) -> io::Result<()> {
    plain(libc::PTRACE_SEIZE, tid, OPTIONS)
}

pub(crate) fn interrupt(tid: i32) -> io::Result<()> {
    plain(libc::PTRACE_INTERRUPT, tid, 0)
}

pub(crate) fn cont(tid: i32, signal: c_int) -> io::Result<()> {
    plain(libc::PTRACE_CONT, tid, signal)
}

pub(crate) fn step(tid: i32, signal: c_int) -> io::Result<()> {
    plain(libc::PTRACE_SINGLESTEP, tid, signal)
}

pub(crate) fn detach(tid: i32, signal: c_int) -> io::Result<()> {
    plain(libc::PTRACE_DETACH, tid, signal)
}

pub(crate) fn registers(tid: i32) -> io::Result<user_regs_struct> {
    let mut registers = MaybeUninit::<user_regs_struct>::uninit();
    // SAFETY: the request fills it.
    unsafe { request(libc::PTRACE_GETREGS, tid, registers.as_mut_ptr().cast()) }?;
    // SAFETY: it succeeded.
    Ok(unsafe { registers.assume_init() })
}

pub(crate) fn set_registers(tid: i32, registers: &user_regs_struct) -> io::Result<()> {
    // SAFETY: the request only reads it.
    unsafe { request(libc::PTRACE_SETREGS, tid, ptr::from_ref(registers).cast_mut().cast()) }
}

/// Code, sender.
pub(crate) fn signal_info(tid: i32) -> io::Result<(c_int, i32)> {
    let mut info = MaybeUninit::<siginfo_t>::zeroed();
    // SAFETY: the request fills it; all-zero bytes are valid, too, and the pid is a plain integer in every shape.
    unsafe {
        request(libc::PTRACE_GETSIGINFO, tid, info.as_mut_ptr().cast())?;
        let info = info.assume_init();
        Ok((info.si_code, info.si_pid()))
    }
}

/// A SIGTRAP of the thread's own is about to be reported.
pub(crate) fn is_about_to_trap(tid: i32) -> bool {
    /// `struct ptrace_peeksiginfo_args`, of the thread's own signals.
    #[repr(C)]
    struct Arguments {
        off: u64,
        flags: u32,
        nr: i32,
    }
    const PTRACE_PEEKSIGINFO: c_uint = 0x4209;
    const MOST: usize = 8;
    let mut arguments = Arguments { off: 0, flags: 0, nr: MOST as i32 };
    let mut pending = [MaybeUninit::<siginfo_t>::zeroed(); MOST];
    // SAFETY: the request reads its arguments, and fills at most as many as they say.
    let count = unsafe {
        libc::ptrace(PTRACE_PEEKSIGINFO, tid, ptr::from_mut(&mut arguments).cast::<c_void>(), pending.as_mut_ptr())
    };
    // SAFETY: filled, or all zero.
    let mut signals = pending.iter().take(count.max(0) as usize).map(|info| unsafe { info.assume_init_ref() }.si_signo);
    signals.any(|signal| signal == libc::SIGTRAP)
}

/// Whom a thread that stopped by a fork created.
pub(crate) fn event_message(tid: i32) -> io::Result<i32> {
    let mut message: libc::c_ulong = 0;
    // SAFETY: the request fills an unsigned long.
    unsafe { request(libc::PTRACE_GETEVENTMSG, tid, ptr::from_mut(&mut message).cast()) }?;
    Ok(message as i32)
}

/// The next status of any tracee, or of this one.
pub(crate) fn wait(tid: i32) -> io::Result<(i32, c_int)> {
    let mut status = 0;
    // SAFETY: a live integer.
    match unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) } {
        -1 => Err(io::Error::last_os_error()),
        tid => Ok((tid, status)),
    }
}

/// [`wait`] for one tracee, whatever signals come meanwhile.
pub(crate) fn wait_patiently(tid: i32) -> io::Result<c_int> {
    loop {
        match wait(tid) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(|(_, status)| status),
        }
    }
}

pub(crate) fn kill(pid: i32, signal: c_int) -> io::Result<()> {
    // SAFETY: touches no memory.
    match unsafe { libc::kill(pid, signal) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

pub(crate) fn kill_thread(pid: i32, tid: i32, signal: c_int) -> io::Result<()> {
    // SAFETY: touches no memory.
    match unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// All of `buffer` or nothing, as PT_IO.
pub(crate) fn read(tid: i32, address: u64, buffer: &mut [u8]) -> io::Result<()> {
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let remote = libc::iovec { iov_base: ptr::without_provenance_mut(address as usize), iov_len: buffer.len() };
    // SAFETY: `local` is the caller's buffer; `remote` is never dereferenced in this process.
    let count = unsafe { libc::process_vm_readv(tid, &raw const local, 1, &raw const remote, 1, 0) };
    if count >= 0 && count as usize == buffer.len() {
        return Ok(());
    }
    File::open(format!("/proc/{tid}/mem"))
        .and_then(|file| file.read_exact_at(buffer, address))
        .map_err(|_| io::Error::from_raw_os_error(libc::EFAULT))
}

/// All of `bytes`.
pub(crate) fn write(tid: i32, address: u64, bytes: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(format!("/proc/{tid}/mem"));
    file.and_then(|file| file.write_all_at(bytes, address)).map_err(|_| io::Error::from_raw_os_error(libc::EFAULT))
}
