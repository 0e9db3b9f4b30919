//! The general registers of a stopped x86_64 thread.

/// The general registers of a stopped x86_64 thread, in the order of `struct user_regs_struct`
/// (`arch/x86/include/asm/user_64.h`); segment registers are left out as nothing here may change them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[allow(missing_docs)]
pub struct Registers {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rip: u64,
    pub rsp: u64,
    pub rflags: u64,
}

impl Registers {
    /// Integer argument `index` (0 to 5) of a function at its first instruction
    /// (System V x86_64 psABI, 3.2.3 "Parameter Passing").
    ///
    /// # Panics
    /// If `index` is above 5: such arguments are on the stack.
    #[must_use]
    pub fn argument(&self, index: usize) -> u64 {
        [self.rdi, self.rsi, self.rdx, self.rcx, self.r8, self.r9][index]
    }

    /// The integer result of a function that has just returned.
    #[must_use]
    pub fn result(&self) -> u64 {
        self.rax
    }
}
