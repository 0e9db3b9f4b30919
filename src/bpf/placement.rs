//! Where in a function a probe costs least.
//!
//! The kernel emulates some instructions under a uprobe and single-steps all others out of line, which costs twenty times as
//! much (arch/x86/kernel/uprobes.c: `branch_setup_xol_ops`, `push_setup_xol_ops`). An allocator's first block
//! nearly always holds an emulated one before the arguments are gone, so the probe goes there.

use std::collections::HashSet;

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
    Register,
};

/// How many instructions from the entry on are considered.
const REACH: usize = 16;

/// The registers of the integer arguments (System V x86_64 psABI, 3.2.3).
const ARGUMENTS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];

/// Where to put the probe, and what is where when it hits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placement {
    /// Bytes from the function's first instruction.
    pub offset: u64,
    /// Which register holds each argument asked for, in their order; as the number that `struct pt_regs` gives it.
    pub registers: Vec<u8>,
    /// Bytes between rsp and the return address.
    pub displacement: u32,
    /// The kernel emulates the instruction; otherwise this is the entry, at the price of a single step.
    pub emulated: bool,
}

/// The best place for a probe in the function whose code is `code` (from its first instruction to its end, or as much of it as
/// is known). `arguments` are the ones to be read there; a function whose return is to be trapped as well needs its return
/// address at rsp.
#[must_use]
pub fn placement(code: &[u8], arguments: &[u8], traps_return: bool) -> Placement {
    let targets = branch_targets(code);
    let mut walk = Walk::new(arguments);
    let mut factory = InstructionInfoFactory::new();
    for instruction in Decoder::with_ip(64, code, 0, DecoderOptions::NONE).iter().take(REACH) {
        let at = instruction.ip();
        if instruction.is_invalid() || walk.holders.iter().any(Vec::is_empty) || (at > 0 && targets.contains(&at)) {
            break;
        }
        if is_emulated(&instruction, code) && !(traps_return && walk.displacement != 0) {
            return Placement {
                offset: at,
                registers: walk.holders.iter().map(|holders| pt_regs_number(holders[0])).collect(),
                displacement: walk.displacement,
                emulated: true,
            };
        }
        if instruction.flow_control() != FlowControl::Next || !walk.step(&instruction, &mut factory) {
            break;
        }
    }
    let entry = Walk::new(arguments);
    Placement {
        offset: 0,
        registers: entry.holders.iter().map(|holders| pt_regs_number(holders[0])).collect(),
        displacement: 0,
        emulated: false,
    }
}

/// What is where while the instructions are gone through.
struct Walk {
    /// For each argument asked for, the registers that hold it.
    holders: Vec<Vec<Register>>,
    displacement: u32,
}

impl Walk {
    fn new(arguments: &[u8]) -> Self {
        let holders = arguments.iter().map(|&argument| vec![ARGUMENTS[usize::from(argument)]]).collect();
        Walk { holders, displacement: 0 }
    }

    /// Goes past an instruction that does not branch. False if the stack pointer is unknown after it.
    fn step(&mut self, instruction: &Instruction, factory: &mut InstructionInfoFactory) -> bool {
        if instruction.is_stack_instruction() {
            let increment = instruction.stack_pointer_increment();
            let Some(displacement) = self.displacement.checked_add_signed(-increment) else { return false };
            self.displacement = displacement;
        } else if instruction.mnemonic() == Mnemonic::Sub
            && instruction.op0_register() == Register::RSP
            && matches!(instruction.op1_kind(), OpKind::Immediate8to64 | OpKind::Immediate32to64)
        {
            let Ok(amount) = u32::try_from(instruction.immediate(1)) else { return false };
            self.displacement += amount;
        } else if writes(instruction, factory, Register::RSP) {
            return false;
        }
        if let Some((to, from)) = copy(instruction) {
            for holders in &mut self.holders {
                let is_copied = holders.contains(&from);
                holders.retain(|&holder| holder != to);
                if is_copied {
                    holders.push(to);
                }
            }
            return true;
        }
        for holders in &mut self.holders {
            holders.retain(|&holder| !writes(instruction, factory, holder));
        }
        self.displacement.is_multiple_of(8) && self.displacement < 8 * 256
    }
}

/// The registers of a `mov` from one to another.
fn copy(instruction: &Instruction) -> Option<(Register, Register)> {
    let is_move = matches!(instruction.code(), Code::Mov_r64_rm64 | Code::Mov_rm64_r64);
    (is_move && instruction.op0_kind() == OpKind::Register && instruction.op1_kind() == OpKind::Register)
        .then(|| (instruction.op0_register(), instruction.op1_register()))
}

fn writes(instruction: &Instruction, factory: &mut InstructionInfoFactory, register: Register) -> bool {
    factory.info(instruction).used_registers().iter().any(|used| {
        used.register().full_register() == register
            && !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None | OpAccess::NoMemAccess)
    })
}

/// What `branch_setup_xol_ops` and `push_setup_xol_ops` take.
fn is_emulated(instruction: &Instruction, code: &[u8]) -> bool {
    let start = instruction.ip() as usize;
    let Some(bytes) = code.get(start..start + instruction.len()) else { return false };
    matches!(
        *bytes,
        [0x50..=0x57 | 0x90]
            | [0x41, 0x50..=0x57]
            | [0xe8 | 0xe9, _, _, _, _]
            | [0xeb | 0x70..=0x7f, _]
            | [0x0f, 0x80..=0x8f, _, _, _, _]
    )
}

/// Where the function's own branches lead.
fn branch_targets(code: &[u8]) -> HashSet<u64> {
    Decoder::with_ip(64, code, 0, DecoderOptions::NONE)
        .iter()
        .filter(|instruction| matches!(instruction.op0_kind(), OpKind::NearBranch64))
        .map(|instruction| instruction.near_branch_target())
        .collect()
}

/// A register's place in `struct pt_regs` (arch/x86/include/asm/ptrace.h).
fn pt_regs_number(register: Register) -> u8 {
    const ORDER: [Register; 15] = [
        Register::R15,
        Register::R14,
        Register::R13,
        Register::R12,
        Register::RBP,
        Register::RBX,
        Register::R11,
        Register::R10,
        Register::R9,
        Register::R8,
        Register::RAX,
        Register::RCX,
        Register::RDX,
        Register::RSI,
        Register::RDI,
    ];
    // rsp and rip hold no argument.
    ORDER.iter().position(|&other| other == register).map_or(u8::MAX, |place| place as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: &[u8], arguments: &[u8], traps_return: bool) -> (u64, Vec<u8>, u32, bool) {
        let found = placement(code, arguments, traps_return);
        (found.offset, found.registers, found.displacement, found.emulated)
    }

    #[test]
    fn a_push_at_the_entry_is_taken() {
        // glibc malloc: push r12; push rbp; push rbx
        assert_eq!(of(&[0x41, 0x54, 0x55, 0x53, 0xc3], &[0], true), (0, vec![14], 0, true));
    }

    #[test]
    fn a_branch_after_a_test_is_taken() {
        // glibc free: test rdi,rdi; je +4; nop…; ret
        assert_eq!(of(&[0x48, 0x85, 0xff, 0x74, 0x04, 0xc3], &[0], false), (3, vec![14], 0, true));
    }

    #[test]
    fn endbr64_is_gone_past() {
        assert_eq!(of(&[0xf3, 0x0f, 0x1e, 0xfa, 0x41, 0x54, 0xc3], &[0], true), (4, vec![14], 0, true));
    }

    #[test]
    fn an_argument_is_followed_into_another_register() {
        // mov rsi, rdi; xor edi, edi; jmp
        assert_eq!(of(&[0x48, 0x89, 0xfe, 0x31, 0xff, 0xeb, 0x00], &[0], true), (5, vec![13], 0, true));
    }

    #[test]
    fn a_lost_argument_ends_the_search_at_the_entry() {
        // xor edi, edi; jmp
        assert_eq!(of(&[0x31, 0xff, 0xeb, 0x00], &[0], true), (0, vec![14], 0, false));
    }

    #[test]
    fn a_moved_stack_is_no_place_to_trap_the_return() {
        // sub rsp, 24; jmp
        let code = [0x48, 0x83, 0xec, 0x18, 0xeb, 0x00];
        assert_eq!(of(&code, &[0], true), (0, vec![14], 0, false));
        assert_eq!(of(&code, &[0], false), (4, vec![14], 24, true));
    }

    #[test]
    fn a_branch_target_is_no_place() {
        // test rdi,rdi; push rbp; jmp back to the push
        assert_eq!(of(&[0x48, 0x85, 0xff, 0x55, 0xeb, 0xfd], &[0], true), (0, vec![14], 0, false));
    }
}
