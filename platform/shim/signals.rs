//! The numbers of signals.

use libc::c_int;
use memleax_platform::freebsd::abi;

/// FreeBSD's number of each of Linux's signals 1 to 31. Those that FreeBSD lacks get numbers that are free there.
const NUMBERS: [c_int; 31] =
    [1, 2, 3, 4, 5, 6, 10, 8, 9, 30, 11, 31, 13, 14, 15, 29, 20, 19, 17, 18, 21, 22, 16, 24, 25, 26, 27, 28, 23, 7, 12];

/// Real-time signals begin at 65 there.
const DISTANCE: c_int = 64;

pub(crate) fn to_freebsd(signal: c_int) -> c_int {
    let known = usize::try_from(signal - 1).ok().and_then(|index| NUMBERS.get(index));
    known.copied().unwrap_or(if signal == 0 { 0 } else { signal + DISTANCE })
}

pub(crate) fn to_linux(signal: c_int) -> c_int {
    match NUMBERS.iter().position(|&number| number == signal) {
        Some(index) => index as c_int + 1,
        None => (signal - DISTANCE).max(0),
    }
}

/// A set of Linux's signals, as `/proc` shows it.
pub(crate) fn set(bits: u64) -> abi::SignalSet {
    let mut set = abi::SignalSet::default();
    (1..=64).filter(|signal| bits & 1 << (signal - 1) != 0).for_each(|signal| set.insert(to_freebsd(signal)));
    set
}

/// `si_code`.
pub(crate) fn code(signal: c_int, code: c_int) -> c_int {
    const SI_KERNEL: c_int = 0x80;
    const SI_TKILL: c_int = -6;
    match (signal, code) {
        (libc::SIGTRAP, SI_KERNEL) => abi::TRAP_BRKPT,
        // Only this crate sends to a thread what was sent to the process.
        (_, libc::SI_USER | SI_TKILL) => abi::SI_USER,
        (_, SI_KERNEL) => abi::SI_KERNEL,
        (_, code) => code,
    }
}
