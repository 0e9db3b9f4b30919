//! Simple instructions carried out on a stopped thread's registers, for targets in which no code can be mapped.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use memleax_platform::Registers;

const CARRY: u64 = 1 << 0;
const PARITY: u64 = 1 << 2;
const ADJUST: u64 = 1 << 4;
const ZERO: u64 = 1 << 6;
const SIGN: u64 = 1 << 7;
const OVERFLOW: u64 = 1 << 11;
const ARITHMETIC: u64 = CARRY | PARITY | ADJUST | ZERO | SIGN | OVERFLOW;

/// The memory of the process of the emulated thread. Values are little-endian, of `size` 1, 2, 4 or 8 bytes.
pub(in crate::ptrace) trait Memory {
    /// The value at `address`; `None` if it is unreadable.
    fn load(&mut self, address: u64, size: usize) -> Option<u64>;
    /// Stores the low bytes of `value`; `None` if it is unwritable.
    fn store(&mut self, address: u64, size: usize, value: u64) -> Option<()>;
}

/// Carries out `instruction`, as `registers.rip` had arrived at it, if it is one of those that begin functions or
/// follow calls. Otherwise, or if it would fault, returns false and leaves `registers` alone.
pub(in crate::ptrace) fn emulate(
    instruction: &Instruction,
    registers: &mut Registers,
    memory: &mut impl Memory,
) -> bool {
    let mut machine = Machine { registers: *registers, memory };
    machine.registers.rip = instruction.next_ip();
    let done = !instruction.has_lock_prefix() && machine.execute(instruction).is_some();
    if done {
        *registers = machine.registers;
    }
    done
}

struct Machine<'a, M> {
    registers: Registers,
    memory: &'a mut M,
}

impl<M: Memory> Machine<'_, M> {
    fn execute(&mut self, i: &Instruction) -> Option<()> {
        match i.mnemonic() {
            Mnemonic::Nop | Mnemonic::Endbr64 => Some(()),
            Mnemonic::Push => {
                let value = sign_extend(self.operand(i, 0)?, operand_size(i, 0)?);
                (i.stack_pointer_increment() == -8).then_some(())?;
                self.push(value)
            }
            Mnemonic::Pop => {
                (i.stack_pointer_increment() == 8 && i.op0_kind() == OpKind::Register).then_some(())?;
                let value = self.pop()?;
                self.set_operand(i, value)
            }
            Mnemonic::Mov => {
                let value = self.operand(i, 1)?;
                self.set_operand(i, value)
            }
            Mnemonic::Movzx => {
                let value = self.operand(i, 1)?;
                self.set_operand(i, value)
            }
            Mnemonic::Movsx | Mnemonic::Movsxd => {
                let value = sign_extend(self.operand(i, 1)?, operand_size(i, 1)?);
                self.set_operand(i, value)
            }
            Mnemonic::Lea => {
                let value = self.effective_address(i, 1)?;
                self.set_operand(i, value)
            }
            Mnemonic::Test | Mnemonic::And | Mnemonic::Or | Mnemonic::Xor => self.logic(i),
            Mnemonic::Cmp | Mnemonic::Sub | Mnemonic::Add => self.arithmetic(i),
            Mnemonic::Jmp => {
                self.registers.rip = self.branch_target(i)?;
                Some(())
            }
            Mnemonic::Call => {
                let target = self.branch_target(i)?;
                self.push(i.next_ip())?;
                self.registers.rip = target;
                Some(())
            }
            Mnemonic::Ret => {
                (i.stack_pointer_increment() == 8).then_some(())?;
                self.registers.rip = self.pop()?;
                Some(())
            }
            _ if i.is_jcc_short_or_near() => {
                if self.condition(i) {
                    self.registers.rip = i.near_branch_target();
                }
                Some(())
            }
            _ => None,
        }
    }

    fn branch_target(&mut self, i: &Instruction) -> Option<u64> {
        match i.op0_kind() {
            OpKind::NearBranch64 => Some(i.near_branch_target()),
            OpKind::Register | OpKind::Memory => (operand_size(i, 0)? == 8).then(|| self.operand(i, 0))?,
            _ => None,
        }
    }

    fn push(&mut self, value: u64) -> Option<()> {
        let top = self.registers.rsp.wrapping_sub(8);
        self.memory.store(top, 8, value)?;
        self.registers.rsp = top;
        Some(())
    }

    fn pop(&mut self) -> Option<u64> {
        let value = self.memory.load(self.registers.rsp, 8)?;
        self.registers.rsp = self.registers.rsp.wrapping_add(8);
        Some(value)
    }

    fn logic(&mut self, i: &Instruction) -> Option<()> {
        let size = operand_size(i, 0)?;
        let (left, right) = (self.operand(i, 0)?, self.operand(i, 1)?);
        let result = match i.mnemonic() {
            Mnemonic::Or => left | right,
            Mnemonic::Xor => left ^ right,
            _ => left & right,
        } & mask(size);
        if i.mnemonic() != Mnemonic::Test {
            self.set_operand(i, result)?;
        }
        self.set_flags(result_flags(result, size));
        Some(())
    }

    fn arithmetic(&mut self, i: &Instruction) -> Option<()> {
        let size = operand_size(i, 0)?;
        let (left, right) = (self.operand(i, 0)? & mask(size), self.operand(i, 1)? & mask(size));
        let adds = i.mnemonic() == Mnemonic::Add;
        let result = if adds { left.wrapping_add(right) } else { left.wrapping_sub(right) } & mask(size);
        let carry = if adds { result < left } else { left < right };
        let sign = 1 << (size * 8 - 1);
        let overflow = if adds { !(left ^ right) & (left ^ result) } else { (left ^ right) & (left ^ result) } & sign;
        if i.mnemonic() != Mnemonic::Cmp {
            self.set_operand(i, result)?;
        }
        let mut flags = result_flags(result, size);
        flags |= if carry { CARRY } else { 0 };
        flags |= if overflow != 0 { OVERFLOW } else { 0 };
        flags |= (left ^ right ^ result) & ADJUST;
        self.set_flags(flags);
        Some(())
    }

    fn set_flags(&mut self, flags: u64) {
        self.registers.rflags = self.registers.rflags & !ARITHMETIC | flags;
    }

    fn condition(&self, i: &Instruction) -> bool {
        use iced_x86::ConditionCode as C;
        let is = |flag| self.registers.rflags & flag != 0;
        let less = is(SIGN) != is(OVERFLOW);
        match i.condition_code() {
            C::None => false,
            C::o => is(OVERFLOW),
            C::no => !is(OVERFLOW),
            C::b => is(CARRY),
            C::ae => !is(CARRY),
            C::e => is(ZERO),
            C::ne => !is(ZERO),
            C::be => is(CARRY) || is(ZERO),
            C::a => !is(CARRY) && !is(ZERO),
            C::s => is(SIGN),
            C::ns => !is(SIGN),
            C::p => is(PARITY),
            C::np => !is(PARITY),
            C::l => less,
            C::ge => !less,
            C::le => less || is(ZERO),
            C::g => !less && !is(ZERO),
        }
    }

    fn operand(&mut self, i: &Instruction, index: u32) -> Option<u64> {
        match i.op_kind(index) {
            OpKind::Register => self.register(i.op_register(index)),
            OpKind::Memory => {
                let address = self.effective_address(i, index)?;
                self.memory.load(address, operand_size(i, index)?)
            }
            _ => i.try_immediate(index).ok(),
        }
    }

    fn set_operand(&mut self, i: &Instruction, value: u64) -> Option<()> {
        match i.op0_kind() {
            OpKind::Register => self.set_register(i.op0_register(), value),
            OpKind::Memory => {
                let address = self.effective_address(i, 0)?;
                self.memory.store(address, operand_size(i, 0)?, value)
            }
            _ => None,
        }
    }

    fn effective_address(&self, i: &Instruction, index: u32) -> Option<u64> {
        // The bases of FS and GS are not among the registers that a tracer hands out.
        if matches!(i.memory_segment(), Register::FS | Register::GS) {
            return None;
        }
        i.virtual_address(index, 0, |register, _, _| match register {
            Register::CS | Register::DS | Register::ES | Register::SS => Some(0),
            _ => self.register(register),
        })
    }

    fn register(&self, register: Register) -> Option<u64> {
        let mut copy = self.registers;
        let value = *full_register(&mut copy, register)?;
        let shift = if is_second_byte(register) { 8 } else { 0 };
        Some(value >> shift & mask(register.size()))
    }

    fn set_register(&mut self, register: Register, value: u64) -> Option<()> {
        let size = register.size();
        let full = full_register(&mut self.registers, register)?;
        let shift = if is_second_byte(register) { 8 } else { 0 };
        // A 32-bit result clears the upper half; a shorter one leaves the rest.
        let kept = if size >= 4 { 0 } else { !(mask(size) << shift) };
        *full = *full & kept | (value & mask(size)) << shift;
        Some(())
    }
}

fn is_second_byte(register: Register) -> bool {
    matches!(register, Register::AH | Register::BH | Register::CH | Register::DH)
}

fn full_register(registers: &mut Registers, register: Register) -> Option<&mut u64> {
    Some(match register.full_register() {
        Register::RAX => &mut registers.rax,
        Register::RBX => &mut registers.rbx,
        Register::RCX => &mut registers.rcx,
        Register::RDX => &mut registers.rdx,
        Register::RSI => &mut registers.rsi,
        Register::RDI => &mut registers.rdi,
        Register::RBP => &mut registers.rbp,
        Register::RSP => &mut registers.rsp,
        Register::R8 => &mut registers.r8,
        Register::R9 => &mut registers.r9,
        Register::R10 => &mut registers.r10,
        Register::R11 => &mut registers.r11,
        Register::R12 => &mut registers.r12,
        Register::R13 => &mut registers.r13,
        Register::R14 => &mut registers.r14,
        Register::R15 => &mut registers.r15,
        _ => return None,
    })
}

fn operand_size(i: &Instruction, index: u32) -> Option<usize> {
    let size = match i.op_kind(index) {
        OpKind::Register => i.op_register(index).size(),
        OpKind::Memory => i.memory_size().size(),
        _ => 8,
    };
    matches!(size, 1 | 2 | 4 | 8).then_some(size)
}

fn mask(size: usize) -> u64 {
    u64::MAX >> (64 - size * 8)
}

fn sign_extend(value: u64, size: usize) -> u64 {
    let shift = 64 - size * 8;
    (value << shift).cast_signed().wrapping_shr(shift as u32).cast_unsigned()
}

fn result_flags(result: u64, size: usize) -> u64 {
    let mut flags = 0;
    if result == 0 {
        flags |= ZERO;
    }
    if result >> (size * 8 - 1) & 1 != 0 {
        flags |= SIGN;
    }
    #[allow(clippy::cast_possible_truncation)]
    if (result as u8).count_ones().is_multiple_of(2) {
        flags |= PARITY;
    }
    flags
}
