//! How to get from one frame to its caller.

use super::registers::{FrameRegisters, Number, RBP, RBX, RIP, RSP, ReadWord};

/// The callee-saved registers but rsp (System V x86_64 psABI, 3.2.1), in the order of [`FrameRule::saved`].
pub(super) const CALLEE_SAVED: [Number; 6] = [RBX, RBP, 12, 13, 14, 15];

/// A callee-saved register that the function did not save.
pub(super) const UNCHANGED: i16 = i16::MIN;

/// What is known of a code address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rule {
    /// It is in no module.
    UnknownCode,
    /// Its module has unwind information, but none for this address; nor does the code tell.
    Missing,
    /// Its module has no unwind information at all, and the code does not tell.
    FramePointer,
    /// Nothing called it: so says the unwind information, or it is where a program starts.
    Outermost,
    /// A function that somebody put on the stack as if it had made a call (`makecontext`).
    NeverCalled,
    /// No call precedes it, so it is no return address: the walk is lost.
    NoCallSite,
    /// The kernel's signal trampoline: the interrupted registers are on the stack.
    Signal,
    /// As almost every function is described.
    Frame(FrameRule),
    /// As the code itself tells, for want of unwind information.
    Inferred(FrameRule),
    /// The unwind information has to be evaluated each time (expressions).
    Evaluate,
}

/// Where the CFA is and which registers are saved relative to it; the return address is at CFA - 8.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FrameRule {
    pub(super) cfa_register: Number,
    /// The CFA is the word at `cfa_register + cfa_offset` instead of that address itself (realigned stacks).
    pub(super) cfa_indirect: bool,
    pub(super) cfa_offset: i32,
    /// For each of [`CALLEE_SAVED`]: where it is, in words from the CFA, or [`UNCHANGED`].
    pub(super) saved: [i16; CALLEE_SAVED.len()],
}

impl FrameRule {
    /// A function that has done nothing yet: the return address is at rsp.
    pub(super) const AT_ENTRY: FrameRule =
        FrameRule { cfa_register: RSP, cfa_indirect: false, cfa_offset: 8, saved: [UNCHANGED; CALLEE_SAVED.len()] };

    /// Turns a frame's registers into its caller's; `None` if memory could not be read.
    #[inline]
    pub(super) fn step(&self, registers: &mut FrameRegisters, read: &mut ReadWord<'_>) -> Option<()> {
        let base = registers.get(self.cfa_register, read)?;
        let mut cfa = base.wrapping_add_signed(self.cfa_offset.into());
        if self.cfa_indirect {
            cfa = read(cfa)?;
        }
        let return_address = read(cfa.wrapping_sub(8))?;
        for (register, offset) in CALLEE_SAVED.into_iter().zip(self.saved) {
            if offset != UNCHANGED {
                registers.set_saved_at(register, cfa.wrapping_add_signed(i64::from(offset) * 8));
            }
        }
        registers.set(RSP, cfa);
        registers.set(RIP, return_address);
        Some(())
    }
}

/// The registers that a signal interrupted, which the kernel left on the stack of the handler.
pub(super) mod signal {
    use super::*;

    /// `mov $15, %rax; syscall` and `mov $15, %eax; syscall`: `rt_sigreturn`, to which a handler returns. The forms that
    /// the C libraries use, and that debuggers look for.
    const TRAMPOLINES: [&[u8]; 2] =
        [&[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05], &[0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05]];

    /// True if these bytes at a return address make it a signal trampoline.
    pub(in super::super) fn is_trampoline(code: &[u8]) -> bool {
        TRAMPOLINES.iter().any(|trampoline| code.starts_with(trampoline))
    }

    /// From rsp in the trampoline (where `struct ucontext` begins) to `struct sigcontext`
    /// (`arch/x86/include/uapi/asm/{ucontext,sigcontext}.h`).
    const CONTEXT: u64 = 40;

    /// The registers, in the order of `struct sigcontext_64`.
    const ORDER: [Number; 17] = [8, 9, 10, 11, 12, 13, 14, 15, 5, 4, RBP, RBX, 1, 0, 2, RSP, RIP];

    /// Turns the trampoline's registers into those of the interrupted code; `None` if memory could not be read.
    pub(in super::super) fn step(registers: &mut FrameRegisters, read: &mut ReadWord<'_>) -> Option<()> {
        let context = registers.get(RSP, read)?.wrapping_add(CONTEXT);
        for (register, at) in ORDER.into_iter().zip((context..).step_by(8)) {
            registers.set_saved_at(register, at);
        }
        registers.get(RSP, read)?;
        registers.get(RIP, read)?;
        Some(())
    }
}
