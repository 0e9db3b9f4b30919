//! Threads that block SIGTRAP.
//!
//! A breakpoint's SIGTRAP cannot be blocked: the kernel unblocks it in that thread and resets its action for the whole
//! process (`force_sig_info_to_task`, `kernel/signal.c`), which takes the guard away. So it is unblocked beforehand.

use std::collections::HashMap;

use super::ptrace;
use super::status::Status;
use crate::{Error, Tid};

const TRAP: u64 = 1 << (libc::SIGTRAP - 1);

/// The masks of threads in which SIGTRAP was unblocked.
#[derive(Debug, Default)]
pub(super) struct TrapMasks(HashMap<Tid, u64>);

impl TrapMasks {
    /// Unblocks SIGTRAP in a stopped thread. False if the thread blocks it nevertheless, as one is pending.
    pub(super) fn unblock(&mut self, tid: Tid) -> Result<bool, Error> {
        let mask = ptrace::signal_mask(tid)?;
        if mask & TRAP == 0 {
            return Ok(true);
        }
        if Status::of(tid)?.is_pending(libc::SIGTRAP) {
            return Ok(false);
        }
        ptrace::set_signal_mask(tid, mask & !TRAP)?;
        self.0.insert(tid, mask);
        Ok(true)
    }

    /// Gives a stopped thread its mask back, unless it has set another one since.
    pub(super) fn restore(&mut self, tid: Tid) -> Result<(), Error> {
        if let Some(mask) = self.0.remove(&tid)
            && ptrace::signal_mask(tid)? == mask & !TRAP
        {
            ptrace::set_signal_mask(tid, mask)?;
        }
        Ok(())
    }

    /// Forgets a thread that has ended.
    pub(super) fn forget(&mut self, tid: Tid) {
        self.0.remove(&tid);
    }
}
