//! The registers of one frame while a stack is walked.

use memleax_platform::Registers;

/// A register by its DWARF number (System V x86_64 psABI, figure 3.36): 0 to 15, and 16 for the return address.
pub(super) type Number = u8;

/// How many there are.
pub(super) const COUNT: usize = 17;

pub(super) const RBX: Number = 3;
pub(super) const RBP: Number = 6;
pub(super) const RSP: Number = 7;
pub(super) const RIP: Number = 16;

/// Reads 8 bytes of the target's memory.
pub(super) type ReadWord<'a> = dyn FnMut(u64) -> Option<u64> + 'a;

/// General registers and program counter of a frame. A register that a callee saved is read when it is first asked
/// for, which for most never happens.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameRegisters {
    /// The value, or the address of the memory that holds it.
    slots: [u64; COUNT],
    /// A bit for each register that is in memory.
    in_memory: u32,
}

impl FrameRegisters {
    pub(super) fn new(registers: &Registers) -> Self {
        let r = registers;
        FrameRegisters {
            slots: [
                r.rax, r.rdx, r.rcx, r.rbx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14,
                r.r15, r.rip,
            ],
            in_memory: 0,
        }
    }

    /// The register's value; `None` if the memory that holds it cannot be read.
    #[inline]
    pub(super) fn get(&mut self, register: Number, read: &mut ReadWord<'_>) -> Option<u64> {
        let index = usize::from(register);
        if self.in_memory & (1 << index) != 0 {
            let value = read(self.slots[index])?;
            self.set(register, value);
        }
        Some(self.slots[index])
    }

    #[inline]
    pub(super) fn set(&mut self, register: Number, value: u64) {
        self.slots[usize::from(register)] = value;
        self.in_memory &= !(1 << register);
    }

    /// The register is in memory at `address`.
    #[inline]
    pub(super) fn set_saved_at(&mut self, register: Number, address: u64) {
        self.slots[usize::from(register)] = address;
        self.in_memory |= 1 << register;
    }
}
