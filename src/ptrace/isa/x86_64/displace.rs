//! One instruction made to run elsewhere as if it ran at home.

use iced_x86::{
    BlockEncoder, BlockEncoderOptions, Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionBlock,
    MemoryOperand, OpKind, Register,
};

use super::{RETURN_ADDRESS_SIZE, Unmovable};

/// The displaced copy of an instruction: what to write at its slot.
///
/// A call is never copied, as it would leave an address of the slot on the stack, where an unwinder meets it. Its slot
/// pushes the original return address and jumps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::ptrace) struct Displaced {
    /// Machine code for the slot's address.
    pub(in crate::ptrace) code: Vec<u8>,
    /// Every place where a thread can be found in it, in ascending order; the first is its start.
    pub(in crate::ptrace) boundaries: Vec<Boundary>,
}

/// Where in the program a thread is when it is between two instructions of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::ptrace) struct Boundary {
    /// Offset in the slot.
    pub(in crate::ptrace) offset: usize,
    /// The same place in the program.
    pub(in crate::ptrace) address: u64,
    /// What to add to the stack pointer to undo what the slot has pushed so far.
    pub(in crate::ptrace) pop: u64,
}

/// Makes `instruction` run at `slot` and then go on where it would have gone on.
pub(in crate::ptrace) fn displace(instruction: &Instruction, slot: u64) -> Result<Displaced, Unmovable> {
    let home = instruction.ip();
    let mut block = Vec::with_capacity(3);
    let is_call = matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall)
        && instruction.mnemonic() == iced_x86::Mnemonic::Call;
    if is_call {
        block.extend(call_as_push_and_jump(instruction)?);
    } else {
        block.push(*instruction);
        block.push(jump(instruction.next_ip())?);
    }
    for target in block.iter().filter(|i| is_direct_branch(i)).map(Instruction::near_branch_target) {
        // BlockEncoder would load an address from memory next to the code instead.
        if i32::try_from(target.wrapping_sub(slot).cast_signed()).is_err() {
            return Err(Unmovable::OutOfReach);
        }
    }
    let encoded = BlockEncoder::encode(64, InstructionBlock::new(&block, slot), BlockEncoderOptions::NONE)
        .map_err(|_| Unmovable::OutOfReach)?;
    let code = encoded.code_buffer;
    let boundaries = boundaries(&code, slot, home, is_call);
    Ok(Displaced { code, boundaries })
}

fn is_direct_branch(instruction: &Instruction) -> bool {
    matches!(instruction.op0_kind(), OpKind::NearBranch64)
}

fn jump(target: u64) -> Result<Instruction, Unmovable> {
    Instruction::with_branch(Code::Jmp_rel32_64, target).map_err(|_| Unmovable::OutOfReach)
}

/// `push low; mov dword [rsp+4], high; jmp target`: no 64-bit immediate can be pushed. Flags stay as they are.
fn call_as_push_and_jump(call: &Instruction) -> Result<[Instruction; 3], Unmovable> {
    let return_address = call.next_ip();
    #[allow(clippy::cast_possible_truncation)]
    let (low, high) = ((return_address as u32).cast_signed(), (return_address >> 32) as u32);
    let push = Instruction::with1(Code::Pushq_imm32, low).map_err(|_| Unmovable::UnusualCall)?;
    let high_half = MemoryOperand::with_base_displ(Register::RSP, 4);
    let patch = Instruction::with2(Code::Mov_rm32_imm32, high_half, high).map_err(|_| Unmovable::UnusualCall)?;
    let jump = match call.code() {
        Code::Call_rel32_64 => jump(call.near_branch_target())?,
        Code::Call_rm64 => {
            let mut jump = *call;
            jump.set_code(Code::Jmp_rm64);
            match call.op0_kind() {
                OpKind::Register if call.op0_register() == Register::RSP => return Err(Unmovable::UnusualCall),
                OpKind::Memory if call.memory_base() == Register::RSP => {
                    // A call computes its operand before it pushes.
                    let displacement = call.memory_displacement64().wrapping_add(RETURN_ADDRESS_SIZE);
                    let fits_a_byte = i8::try_from(displacement.cast_signed()).is_ok();
                    jump.set_memory_displacement64(displacement);
                    jump.set_memory_displ_size(if fits_a_byte { 1 } else { 8 });
                }
                _ => {}
            }
            jump
        }
        _ => return Err(Unmovable::UnusualCall),
    };
    Ok([push, patch, jump])
}

fn boundaries(code: &[u8], slot: u64, home: u64, is_call: bool) -> Vec<Boundary> {
    let instructions: Vec<Instruction> = Decoder::with_ip(64, code, slot, DecoderOptions::NONE).iter().collect();
    let home_of = |instruction: &Instruction| {
        // Behind the first instruction there are only jumps, which change nothing but the program counter.
        let mut at = *instruction;
        for _ in 0..instructions.len() {
            if at.ip() == slot {
                break;
            }
            let target = at.near_branch_target();
            match instructions.iter().find(|other| other.ip() == target) {
                Some(next) => at = *next,
                None => return target,
            }
        }
        home
    };
    instructions
        .iter()
        .enumerate()
        .map(|(index, instruction)| Boundary {
            #[allow(clippy::cast_possible_truncation)]
            offset: (instruction.ip() - slot) as usize,
            address: if is_call || index == 0 { home } else { home_of(instruction) },
            pop: if is_call && index > 0 { RETURN_ADDRESS_SIZE } else { 0 },
        })
        .collect()
}
