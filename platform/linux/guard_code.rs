//! The machine code of the guard: a handler for SIGTRAP that stands on its own.
//!
//! Position independent, uses nothing of the program's libraries, and calls only what is async-signal-safe. It may
//! change any register, as the kernel restores all of them from the signal frame; the frame is what it works upon.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::guard_table::{HASH_FACTOR, entry, header, table};
use super::ptrace::SI_KERNEL;

/// The guard's code, to be placed right behind its header.
#[derive(Debug)]
pub(super) struct GuardCode {
    /// The machine code.
    pub(super) bytes: Vec<u8>,
    /// Offset of the handler from the start of the header.
    pub(super) handler: u64,
    /// Offset of the restorer, to which the handler returns.
    pub(super) restorer: u64,
}

/// Offsets in `siginfo_t`.
const SI_CODE: i32 = 8;
/// `si_code` of a completed single step.
const TRAP_TRACE: i32 = 2;

/// Offsets in `struct ucontext` (`arch/x86/include/uapi/asm/sigcontext.h`).
const UC_RIP: i32 = 168;
const UC_EFLAGS: i32 = 176;
const UC_SIGMASK: i32 = 296;
/// The trap flag in eflags.
const TF: i32 = 0x100;

const SIGTRAP: i32 = libc::SIGTRAP;
const SIG_IGN: i32 = 1;
const SA_RESETHAND: i32 = i32::MIN;
const SIGNAL_SET_SIZE: i32 = 8;
const EFAULT: i32 = 14;

/// The first byte of `int3` and of the two-byte `int 3`.
const INT3: i32 = 0xcc;
const INT: i32 = 0xcd;

/// `mov rax, SYS_rt_sigreturn; syscall`, in the very bytes by which unwinders recognise a signal frame.
const RESTORER: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05];

impl GuardCode {
    /// Assembles it.
    pub(super) fn assemble() -> Result<Self, IcedError> {
        let mut asm = CodeAssembler::new(64)?;
        write_handler(&mut asm)?;
        let mut bytes = asm.assemble(header::SIZE)?;
        let restorer = header::SIZE + bytes.len() as u64;
        bytes.extend_from_slice(&RESTORER);
        Ok(GuardCode { bytes, handler: header::SIZE, restorer })
    }
}

/// `handler(rdi: signal, rsi: siginfo_t *, rdx: ucontext *)`, entered and left as the System V ABI says.
fn write_handler(asm: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut start = asm.create_label();
    let mut find = asm.create_label();
    let mut resumed = asm.create_label();
    let mut not_a_breakpoint = asm.create_label();
    let mut program_breakpoint = asm.create_label();
    let mut chain = asm.create_label();
    let (rip_, code) = (rdx + UC_RIP, dword_ptr(rsi + SI_CODE));

    asm.set_label(&mut start)?;
    asm.endbr64()?;
    asm.lea(r8, ptr(start))?;
    asm.sub(r8, header::SIZE as i32)?;
    asm.cmp(code, SI_KERNEL)?;
    asm.jne(not_a_breakpoint)?;

    // A breakpoint of the tracer's: go on at its slot.
    let mut not_behind_breakpoint = asm.create_label();
    asm.mov(rax, qword_ptr(rip_))?;
    asm.movzx(ecx, byte_ptr(r8 + header::CURRENT))?;
    asm.mov(r9, qword_ptr(r8 + rcx * 8 + header::TABLES))?;
    asm.lea(rcx, ptr(rax - 1))?;
    asm.call(find)?;
    asm.test(r10, r10)?;
    asm.jz(not_behind_breakpoint)?;
    asm.mov(rax, qword_ptr(r10 + entry::SLOT))?;
    asm.mov(qword_ptr(rip_), rax)?;
    asm.ret()?;

    // The tracer was killed after it had dealt with the trap, and before it resumed the thread: at the
    // breakpoint itself, ...
    asm.set_label(&mut not_behind_breakpoint)?;
    asm.mov(rcx, rax)?;
    asm.call(find)?;
    asm.test(r10, r10)?;
    asm.jnz(resumed)?;

    // ... or in a slot.
    let mut area = asm.create_label();
    let mut next_area = asm.create_label();
    asm.mov(r10, qword_ptr(r9 + table::AREAS))?;
    asm.add(r10, r9)?;
    asm.set_label(&mut area)?;
    asm.cmp(byte_ptr(r10 + entry::STATE), i32::from(entry::FREE))?;
    asm.je(program_breakpoint)?;
    asm.cmp(byte_ptr(r10 + entry::STATE), i32::from(entry::USED))?;
    asm.jne(next_area)?;
    asm.cmp(rax, qword_ptr(r10 + entry::ADDRESS))?;
    asm.jb(next_area)?;
    asm.cmp(rax, qword_ptr(r10 + entry::SLOT))?;
    asm.jb(resumed)?;
    asm.set_label(&mut next_area)?;
    asm.add(r10, entry::SIZE as i32)?;
    asm.jmp(area)?;

    write_program_breakpoint(asm, &mut program_breakpoint, resumed, chain)?;
    write_other_trap(asm, &mut not_a_breakpoint, resumed, chain)?;
    write_chain(asm, &mut chain)?;
    write_find(asm, &mut find)?;

    asm.set_label(&mut resumed)?;
    asm.ret()
}

/// In: rcx an address, r9 the table. Out: r10 its entry or 0. Changes r11.
fn write_find(asm: &mut CodeAssembler, find: &mut CodeLabel) -> Result<(), IcedError> {
    let mut probe = asm.create_label();
    let mut next = asm.create_label();
    let mut none = asm.create_label();
    let mut found = asm.create_label();
    asm.set_label(find)?;
    asm.mov(r11, HASH_FACTOR)?;
    asm.imul_2(r11, rcx)?;
    asm.shr(r11, 32)?;
    asm.set_label(&mut probe)?;
    asm.and(r11, qword_ptr(r9 + table::MASK))?;
    asm.lea(r10, ptr(r11 + r11 * 2))?;
    asm.lea(r10, ptr(r9 + r10 * 8 + table::ENTRIES))?;
    asm.cmp(byte_ptr(r10 + entry::STATE), i32::from(entry::FREE))?;
    asm.je(none)?;
    asm.cmp(qword_ptr(r10 + entry::ADDRESS), rcx)?;
    asm.jne(next)?;
    asm.cmp(byte_ptr(r10 + entry::STATE), i32::from(entry::USED))?;
    asm.je(found)?;
    asm.set_label(&mut next)?;
    asm.inc(r11)?;
    asm.jmp(probe)?;
    asm.set_label(&mut none)?;
    asm.xor(r10d, r10d)?;
    asm.set_label(&mut found)?;
    asm.ret()
}

/// A breakpoint trap that is not the tracer's. In: rax the program counter, r8 the header.
fn write_program_breakpoint(
    asm: &mut CodeAssembler,
    start: &mut CodeLabel,
    resumed: CodeLabel,
    chain: CodeLabel,
) -> Result<(), IcedError> {
    let mut two_bytes = asm.create_label();
    let mut die = asm.create_label();
    asm.set_label(start)?;
    asm.cmp(qword_ptr(r8 + header::OLD_ACTION), SIG_IGN)?;
    asm.ja(chain)?;

    // Nobody handles it, so the process dies; unless there is no breakpoint instruction, because the tracer had already
    // dealt with the trap by emulating what the breakpoint displaced. Not asked where the program has a handler: that
    // may be one that patches code, and its instruction be gone by now.
    // rt_sigprocmask with an invalid `how` reads 8 bytes and changes nothing: may these bytes be read?
    asm.push(rsi)?;
    asm.push(rdx)?;
    asm.push(rax)?;
    asm.mov(edi, -1)?;
    asm.lea(rsi, ptr(rax - 2))?;
    asm.xor(edx, edx)?;
    asm.mov(r10d, SIGNAL_SET_SIZE)?;
    asm.mov(eax, libc::SYS_rt_sigprocmask as i32)?;
    asm.syscall()?;
    asm.mov(ecx, eax)?;
    asm.pop(rax)?;
    asm.pop(rdx)?;
    asm.pop(rsi)?;
    // Code that may only be executed: surely not the tracer's doing.
    asm.cmp(ecx, -EFAULT)?;
    asm.je(die)?;
    asm.cmp(byte_ptr(rax - 1), INT3)?;
    asm.je(die)?;
    asm.cmp(byte_ptr(rax - 1), 3)?;
    asm.jne(resumed)?;
    asm.cmp(byte_ptr(rax - 2), INT)?;
    asm.je(two_bytes)?;
    asm.ret()?;

    // By executing it once more, without a handler: the state that a core dump shows is the program's.
    asm.set_label(&mut two_bytes)?;
    asm.dec(rax)?;
    asm.set_label(&mut die)?;
    asm.dec(rax)?;
    asm.mov(qword_ptr(rdx + UC_RIP), rax)?;
    write_set_default(asm)?;
    asm.ret()
}

/// A SIGTRAP that is not a breakpoint's. In: r8 the header.
fn write_other_trap(
    asm: &mut CodeAssembler,
    start: &mut CodeLabel,
    resumed: CodeLabel,
    chain: CodeLabel,
) -> Result<(), IcedError> {
    let mut not_a_step = asm.create_label();
    let mut die = asm.create_label();
    let code = dword_ptr(rsi + SI_CODE);
    asm.set_label(start)?;
    asm.cmp(qword_ptr(r8 + header::OLD_ACTION), SIG_IGN)?;
    asm.ja(chain)?;

    // The tracer was killed while it let the thread step: the trap flag was not set by the program, so the kernel does
    // not show it, and cleared it before this handler was entered (`handle_signal`).
    asm.cmp(code, TRAP_TRACE)?;
    asm.jne(not_a_step)?;
    asm.test(dword_ptr(rdx + UC_EFLAGS), TF)?;
    asm.jz(resumed)?;
    asm.set_label(&mut not_a_step)?;

    // SIG_IGN ignores what was sent, not what an instruction caused (si_code above 0).
    asm.cmp(qword_ptr(r8 + header::OLD_ACTION), SIG_IGN)?;
    asm.jne(die)?;
    asm.cmp(code, 0)?;
    asm.jle(resumed)?;

    // The signal comes once more when this handler has returned, with the same siginfo_t, unblocked (sigsuspend's
    // caller may block it) and without a handler.
    asm.set_label(&mut die)?;
    write_set_default_keeping(asm)?;
    asm.and(dword_ptr(rdx + UC_SIGMASK), !(1 << (SIGTRAP - 1)))?;
    asm.mov(r10, rsi)?;
    asm.mov(eax, libc::SYS_getpid as i32)?;
    asm.syscall()?;
    asm.mov(edi, eax)?;
    asm.mov(eax, libc::SYS_gettid as i32)?;
    asm.syscall()?;
    asm.mov(esi, eax)?;
    asm.mov(edx, SIGTRAP)?;
    asm.mov(eax, libc::SYS_rt_tgsigqueueinfo as i32)?;
    asm.syscall()?;
    asm.ret()
}

/// To the program's own handler, with the handler's own arguments. It returns to the restorer that the kernel put on
/// the stack, which is the program's own. In: r8 the header.
fn write_chain(asm: &mut CodeAssembler, start: &mut CodeLabel) -> Result<(), IcedError> {
    let mut jump = asm.create_label();
    asm.set_label(start)?;
    asm.mov(rax, qword_ptr(r8 + header::OLD_ACTION))?;
    // SA_RESETHAND: what the kernel would have done.
    asm.test(dword_ptr(r8 + (header::OLD_ACTION + 8)), SA_RESETHAND)?;
    asm.jz(jump)?;
    asm.push(rdi)?;
    asm.push(rax)?;
    write_set_default_keeping(asm)?;
    asm.pop(rax)?;
    asm.pop(rdi)?;
    asm.set_label(&mut jump)?;
    asm.jmp(rax)
}

/// [`write_set_default`] that keeps rsi and rdx.
fn write_set_default_keeping(asm: &mut CodeAssembler) -> Result<(), IcedError> {
    asm.push(rsi)?;
    asm.push(rdx)?;
    write_set_default(asm)?;
    asm.pop(rdx)?;
    asm.pop(rsi)
}

/// `rt_sigaction(SIGTRAP, default, NULL, 8)`. In: r8 the header. Keeps only rbx, rbp, rsp, r8, r9, r12 to r15.
fn write_set_default(asm: &mut CodeAssembler) -> Result<(), IcedError> {
    asm.mov(edi, SIGTRAP)?;
    asm.lea(rsi, ptr(r8 + header::DEFAULT_ACTION))?;
    asm.xor(edx, edx)?;
    asm.mov(r10d, SIGNAL_SET_SIZE)?;
    asm.mov(eax, libc::SYS_rt_sigaction as i32)?;
    asm.syscall()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::super::guard_table::{FIRST_TABLE, Table};
    use super::*;
    use crate::Guard;

    type Handler = unsafe extern "sysv64" fn(i32, *const i32, *mut u64);

    /// A guard in this process.
    struct Memory {
        base: *mut u8,
        table: Table,
        handler: Handler,
    }

    impl Memory {
        const SIZE: usize = 64 << 10;

        fn new() -> Self {
            let code = GuardCode::assemble().expect("assembled");
            let (protection, flags) =
                (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            // SAFETY: a new mapping.
            let base = unsafe { libc::mmap(std::ptr::null_mut(), Self::SIZE, protection, flags, -1, 0) };
            assert_ne!(base, libc::MAP_FAILED);
            // SAFETY: code for such a function will be there.
            let handler =
                unsafe { std::mem::transmute::<*mut u8, Handler>(base.cast::<u8>().add(code.handler as usize)) };
            let mut memory = Memory { base: base.cast(), table: Table::new(512), handler };
            memory.write(header::SIZE, &code.bytes);
            memory.write(header::TABLES, &(base as u64 + FIRST_TABLE).to_le_bytes());
            memory.write(FIRST_TABLE, &memory.table.bytes());
            memory
        }

        fn write(&mut self, offset: u64, bytes: &[u8]) {
            assert!(offset as usize + bytes.len() <= Self::SIZE);
            // SAFETY: within the mapping.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(offset as usize), bytes.len()) };
        }

        fn insert(&mut self, breakpoint: u64, slot: u64) {
            for (offset, bytes) in self.table.insert(Guard { breakpoint, slot, original: 0 }) {
                self.write(FIRST_TABLE + offset, &bytes);
            }
        }

        fn insert_area(&mut self, area: std::ops::Range<u64>) {
            for (offset, bytes) in self.table.insert_area(area) {
                self.write(FIRST_TABLE + offset, &bytes);
            }
        }

        /// Calls the handler as the kernel would; returns the program counter that it leaves in the frame.
        fn trap(&self, code: i32, program_counter: u64) -> u64 {
            let info = [SIGTRAP, 0, code, 0];
            let mut context = [0u64; 120];
            context[UC_RIP as usize / 8] = program_counter;
            // SAFETY: the handler reads and writes these, and what the table names.
            unsafe { (self.handler)(SIGTRAP, info.as_ptr(), context.as_mut_ptr()) };
            context[UC_RIP as usize / 8]
        }
    }

    impl Drop for Memory {
        fn drop(&mut self) {
            // SAFETY: nobody else knows the mapping.
            unsafe { libc::munmap(self.base.cast(), Self::SIZE) };
        }
    }

    /// Bytes without a breakpoint instruction, and an address amid them.
    fn harmless_code() -> (Box<[u8; 64]>, u64) {
        let bytes = Box::new([0x90; 64]);
        let address = bytes.as_ptr() as u64 + 32;
        (bytes, address)
    }

    #[test]
    fn the_restorer_is_what_unwinders_look_for() {
        let code = GuardCode::assemble().expect("assembled");
        assert_eq!(code.bytes[(code.restorer - header::SIZE) as usize..], RESTORER);
        assert_eq!(code.bytes[..4], [0xf3, 0x0f, 0x1e, 0xfa], "endbr64");
        assert!(header::SIZE as usize + code.bytes.len() <= FIRST_TABLE as usize);
    }

    #[test]
    fn a_breakpoint_goes_on_at_its_slot() {
        let mut memory = Memory::new();
        // Many in few entries: some collide.
        for index in 0..250 {
            memory.insert(0x40_0000 + index * 7, 0x10_0000 + index);
        }
        for index in 0..250 {
            assert_eq!(memory.trap(SI_KERNEL, 0x40_0000 + index * 7 + 1), 0x10_0000 + index);
        }
        memory.insert(0x40_0000, 0x77);
        assert_eq!(memory.trap(SI_KERNEL, 0x40_0001), 0x77, "replaced");
    }

    #[test]
    fn what_the_tracer_dealt_with_is_left_alone() {
        let mut memory = Memory::new();
        memory.insert(0x40_0000, 0x10_0000);
        memory.insert_area(0x20_0000..0x20_1000);
        memory.insert_area(0x10_0000..0x10_1000);
        assert_eq!(memory.trap(SI_KERNEL, 0x40_0000), 0x40_0000, "moved back to the breakpoint");
        assert_eq!(memory.trap(SI_KERNEL, 0x10_0000), 0x10_0000, "moved to a slot");
        assert_eq!(memory.trap(SI_KERNEL, 0x20_0fff), 0x20_0fff, "moved to a slot");
        let (_code, address) = harmless_code();
        assert_eq!(memory.trap(SI_KERNEL, address), address, "emulated");
        assert_eq!(memory.trap(TRAP_TRACE, address), address, "a step");
    }

    #[test]
    fn ignored_signals_stay_ignored() {
        let mut memory = Memory::new();
        memory.write(header::OLD_ACTION, &1u64.to_le_bytes());
        let (_code, address) = harmless_code();
        assert_eq!(memory.trap(libc::SI_USER, address), address);
        assert_eq!(memory.trap(libc::SI_TKILL, address), address);
    }

    #[test]
    fn a_handler_of_the_program_gets_the_rest() {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        unsafe extern "sysv64" fn program(signal: i32, info: *const i32, context: *mut u64) {
            CALLS.fetch_add(1, Ordering::Relaxed);
            assert_eq!(signal, SIGTRAP);
            // SAFETY: as given to the handler.
            unsafe { *context.add(UC_RIP as usize / 8) += *info.add(SI_CODE as usize / 4) as u64 };
        }
        let mut memory = Memory::new();
        memory.insert(0x40_0000, 0x10_0000);
        memory.write(header::OLD_ACTION, &(program as *const () as u64).to_le_bytes());
        let (_code, address) = harmless_code();
        assert_eq!(memory.trap(SI_KERNEL, address), address + SI_KERNEL as u64, "its own breakpoint");
        assert_eq!(memory.trap(TRAP_TRACE, address), address + TRAP_TRACE as u64, "its own step");
        assert_eq!(memory.trap(libc::SI_USER, address), address, "sent");
        assert_eq!(memory.trap(SI_KERNEL, 0x40_0001), 0x10_0000, "not its own");
        assert_eq!(CALLS.load(Ordering::Relaxed), 3);
    }
}
