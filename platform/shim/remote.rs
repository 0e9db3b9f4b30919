//! `PT_SC_REMOTE`: a system call in the name of a stopped thread.

use std::io;

use libc::user_regs_struct;
use memleax_platform::freebsd::abi;

use super::linux;

/// The machine code of `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// Makes the call. All other threads stand still, so a `syscall` instruction is put where the thread is. Signals that come
/// meanwhile are sent again.
pub(crate) fn call(pid: i32, tid: i32, number: u32, arguments: &[u64]) -> io::Result<u64> {
    let (number, arguments) = translate(number, arguments)?;
    let registers = linux::registers(tid)?;
    let mut bytes = [0; 2];
    linux::read(tid, registers.rip, &mut bytes)?;
    linux::write(tid, registers.rip, &SYSCALL)?;
    let mut calling = registers;
    // No interrupted call is to be restarted now.
    calling.orig_rax = u64::MAX;
    calling.rax = number;
    [calling.rdi, calling.rsi, calling.rdx, calling.r10, calling.r8, calling.r9] = arguments;
    step(pid, tid, &calling)?;
    let result = linux::registers(tid)?.rax.cast_signed();
    linux::write(tid, registers.rip, &bytes)?;
    linux::set_registers(tid, &registers)?;
    match result {
        // MAP_EXCL calls it an invalid argument.
        result if result == -i64::from(libc::EEXIST) => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        -4095..0 => Err(io::Error::from_raw_os_error((-result) as i32)),
        result => Ok(result.cast_unsigned()),
    }
}

/// Lets a thread that stopped amid a system call come to the end of that, so that its registers have the result.
pub(crate) fn end_call(pid: i32, tid: i32) -> io::Result<()> {
    linux::step(tid, 0)?;
    wait_for_trap(pid, tid, || Ok(()))
}

/// Makes a thread execute one instruction with these registers.
fn step(pid: i32, tid: i32, registers: &user_regs_struct) -> io::Result<()> {
    linux::set_registers(tid, registers)?;
    linux::step(tid, 0)?;
    wait_for_trap(pid, tid, || linux::set_registers(tid, registers))
}

/// Waits for the trap of a step. What comes before it is sent again, and the step tried again, after `prepare`.
fn wait_for_trap(pid: i32, tid: i32, prepare: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let mut again = Vec::new();
    loop {
        let status = linux::wait_patiently(tid)?;
        if !libc::WIFSTOPPED(status) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        match libc::WSTOPSIG(status) {
            libc::SIGTRAP if status >> 16 == 0 => break,
            signal if status >> 16 == 0 => again.push(signal),
            _ => {}
        }
        prepare()?;
        linux::step(tid, 0)?;
    }
    for signal in again {
        // A process's signals are sent to the process.
        match signal {
            libc::SIGSTOP => linux::kill(pid, signal)?,
            _ => linux::kill_thread(pid, tid, signal)?,
        }
    }
    Ok(())
}

fn translate(number: u32, arguments: &[u64]) -> io::Result<(u64, [u64; 6])> {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    let number = match number {
        abi::SYS_MMAP => {
            let flags = [
                (abi::MAP_PRIVATE, libc::MAP_PRIVATE),
                (abi::MAP_ANON, libc::MAP_ANONYMOUS),
                (abi::MAP_FIXED | abi::MAP_EXCL, libc::MAP_FIXED_NOREPLACE),
            ];
            let has = |bits| all[3] & bits == bits;
            all[3] = flags.iter().filter(|(bits, _)| has(*bits)).map(|&(_, flag)| flag as u64).sum();
            libc::SYS_mmap
        }
        abi::SYS_MUNMAP => libc::SYS_munmap,
        _ => return Err(io::Error::from_raw_os_error(libc::ENOSYS)),
    };
    Ok((number as u64, all))
}
