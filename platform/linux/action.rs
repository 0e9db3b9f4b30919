//! What the target does on SIGTRAP: read and set by system calls made in its name.

use super::remote::Remote;
use super::{code_map, memory};
use crate::{Error, Tid};

const SIG_DFL: u64 = libc::SIG_DFL as u64;
const SIG_IGN: u64 = libc::SIG_IGN as u64;
const SA_RESTORER: u64 = 0x0400_0000;
const SA_RESETHAND: u64 = 0x8000_0000;

/// The size of the kernel's `sigset_t`.
const SIGNAL_SET_SIZE: u64 = 8;

/// `struct kernel_sigaction` (`arch/x86/include/uapi/asm/signal.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Action {
    pub(super) handler: u64,
    flags: u64,
    restorer: u64,
    mask: u64,
}

impl Action {
    /// Its size in the target's memory.
    pub(super) const SIZE: usize = 32;

    fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let word = |index: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[index * 8 + byte]));
        Action { handler: word(0), flags: word(1), restorer: word(2), mask: word(3) }
    }

    /// As the kernel reads it.
    pub(super) fn bytes(&self) -> [u8; Self::SIZE] {
        let words = [self.handler, self.flags, self.restorer, self.mask].map(u64::to_le_bytes);
        std::array::from_fn(|byte| words[byte / 8][byte % 8])
    }

    /// Reads one from the target's memory.
    pub(super) fn read(tid: Tid, address: u64) -> Result<Self, Error> {
        let mut bytes = [0; Self::SIZE];
        memory::read_exactly(tid, address, &mut bytes)?;
        Ok(Self::from_bytes(bytes))
    }

    /// True unless the signal is ignored or has its default effect.
    pub(super) fn has_handler(&self) -> bool {
        !self.is_default() && self.handler != SIG_IGN
    }

    pub(super) fn is_default(&self) -> bool {
        self.handler == SIG_DFL
    }

    /// Handled once, then by default.
    pub(super) fn is_for_once(&self) -> bool {
        self.has_handler() && self.flags & SA_RESETHAND != 0
    }

    /// The action that calls a guard's `handler` such that the program's own, `self`, notices no difference when the
    /// guard calls it.
    pub(super) fn guarded(&self, handler: u64, restorer: u64) -> Self {
        if !self.has_handler() {
            // No signal interrupts the guard, so a look at the program counters tells who is in it. SA_ONSTACK: small
            // stacks usually come with an alternate one.
            let flags = (libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK) as u64 | SA_RESTORER;
            return Action { handler, flags, restorer, mask: !0 };
        }
        // The program's handler returns to the program's own restorer, not into the guard. What SA_RESETHAND asks for,
        // the guard does itself.
        let restorer = if self.flags & SA_RESTORER != 0 { self.restorer } else { restorer };
        let flags = (self.flags & !SA_RESETHAND) | libc::SA_SIGINFO as u64 | SA_RESTORER;
        Action { handler, flags, restorer, mask: self.mask }
    }
}

/// A writable page in the target, into which the kernel stores the actions that it is asked for. The stack of a thread
/// may be too small to borrow some of it.
#[derive(Debug)]
pub(super) struct Scratch<'a> {
    remote: &'a Remote,
    address: u64,
}

impl<'a> Scratch<'a> {
    const SIZE: usize = 4096;

    pub(super) fn map(remote: &'a Remote) -> Result<Self, Error> {
        let address = code_map::map_anywhere(remote, Self::SIZE, libc::PROT_READ | libc::PROT_WRITE)?;
        Ok(Scratch { remote, address })
    }

    pub(super) fn unmap(self) -> Result<(), Error> {
        code_map::unmap(self.remote, self.address, Self::SIZE)
    }

    /// What the target does on SIGTRAP now.
    pub(super) fn action(&self) -> Result<Action, Error> {
        self.exchange(0)
    }

    /// Sets the action that stands at `new` in the target's memory; returns the one that it replaced.
    pub(super) fn exchange(&self, new: u64) -> Result<Action, Error> {
        let arguments = [libc::SIGTRAP as u64, new, self.address, SIGNAL_SET_SIZE, 0, 0];
        self.remote.call("set the action for SIGTRAP", libc::SYS_rt_sigaction, arguments)?;
        Action::read(self.remote.tid(), self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: Action = Action { handler: 0x1000, flags: SA_RESTORER, restorer: 0x2000, mask: 1 };

    #[test]
    fn bytes_and_back() {
        assert_eq!(Action::from_bytes(PROGRAM.bytes()), PROGRAM);
        assert_eq!(PROGRAM.bytes()[..8], 0x1000u64.to_le_bytes());
    }

    #[test]
    fn a_program_handler_keeps_its_flags_mask_and_restorer() {
        let program = Action { flags: SA_RESTORER | SA_RESETHAND | libc::SA_NODEFER as u64, ..PROGRAM };
        let guarded = program.guarded(0x5000, 0x6000);
        let flags = SA_RESTORER | (libc::SA_NODEFER | libc::SA_SIGINFO) as u64;
        assert_eq!(guarded, Action { handler: 0x5000, flags, restorer: 0x2000, mask: 1 });
        assert!(program.is_for_once());
    }

    #[test]
    fn without_a_program_handler_nothing_interrupts_the_guard() {
        for handler in [SIG_DFL, SIG_IGN] {
            let guarded = Action { handler, flags: SA_RESETHAND, restorer: 0, mask: 0 }.guarded(0x5000, 0x6000);
            assert_eq!((guarded.handler, guarded.restorer, guarded.mask), (0x5000, 0x6000, !0));
        }
    }
}
