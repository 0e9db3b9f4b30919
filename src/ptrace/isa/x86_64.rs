//! x86_64: `int3` breakpoints, displaced instructions, emulated instructions.

mod displace;
mod emulate;
#[cfg(test)]
mod tests;

use iced_x86::{Code, Decoder, DecoderOptions, Instruction};

pub(in crate::ptrace) use displace::{Boundary, displace};
pub(in crate::ptrace) use emulate::{Memory, emulate};

/// The breakpoint instruction, `int3`.
pub(in crate::ptrace) const BREAKPOINT: u8 = 0xcc;

/// How far the program counter is past a breakpoint that was hit.
pub(in crate::ptrace) const BREAKPOINT_SIZE: u64 = 1;

/// Bytes of a page.
pub(in crate::ptrace) const PAGE: u64 = 4096;

/// The longest instruction (Intel SDM volume 2, 2.3.11).
pub(in crate::ptrace) const LONGEST_INSTRUCTION: usize = 15;

/// Bytes that a call pushes.
pub(in crate::ptrace) const RETURN_ADDRESS_SIZE: u64 = 8;

/// Why an instruction can neither be moved nor emulated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(in crate::ptrace) enum Unmovable {
    /// The bytes are no instruction.
    #[error("its bytes are no valid instruction")]
    Invalid,
    /// A breakpoint instruction that belongs to the program.
    #[error("it is a breakpoint instruction")]
    Breakpoint,
    /// What it refers to cannot be reached from the slot.
    #[error("what it refers to is out of reach of its displaced copy")]
    OutOfReach,
    /// A kind of call that pushes more than a near return address, or jumps to the stack pointer.
    #[error("it is an unusual call")]
    UnusualCall,
}

/// The instruction at `address` that `bytes` begin with.
pub(in crate::ptrace) fn decode(bytes: &[u8], address: u64) -> Result<Instruction, Unmovable> {
    let instruction = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).decode();
    match instruction.code() {
        Code::INVALID => Err(Unmovable::Invalid),
        Code::Int3 => Err(Unmovable::Breakpoint),
        _ => Ok(instruction),
    }
}
