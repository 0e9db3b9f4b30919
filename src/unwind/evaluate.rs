//! Rules from call frame information: once into a [`Rule`] where that can hold it, else evaluated for each frame.

use gimli::{
    CfaRule, Encoding, Evaluation, EvaluationResult, EvaluationStorage, Expression, Location, Operation, Piece, Reader,
    RegisterRule, UnwindContext, UnwindExpression, UnwindSection, UnwindTableRow, Value,
};

use super::cfi::{Cfi, Slice};
use super::registers::{COUNT, FrameRegisters, Number, RIP, RSP, ReadWord};
use super::rule::{CALLEE_SAVED, FrameRule, Rule, UNCHANGED};
use crate::event::{Ending, FrameKind};

/// Rows are evaluated in place: no allocation after the first.
pub(super) type Context = UnwindContext<usize>;

/// The return address is at CFA - 8 in every function that was called by `call`.
const RETURN_ADDRESS_OFFSET: i64 = -8;

/// What the call frame information says of an address, as its file counts it.
pub(super) fn rule(cfi: &Cfi, address: u64, context: &mut Context) -> Rule {
    let bases = cfi.bases();
    if let (Some(fde), Some(section)) = (cfi.find_in_eh_frame(address), cfi.eh_frame()) {
        let special = fde.is_signal_trampoline();
        let row = fde.unwind_info_for_address(&section, bases, context, address);
        return row.map_or(Rule::Missing, |row| compact(&section, row, special));
    }
    if let (Some(fde), Some(section)) = (cfi.find_in_debug_frame(address), cfi.debug_frame()) {
        let special = fde.is_signal_trampoline();
        let row = fde.unwind_info_for_address(&section, bases, context, address);
        return row.map_or(Rule::Missing, |row| compact(&section, row, special));
    }
    Rule::Missing
}

/// Turns a frame's registers into its caller's, by full evaluation; returns what the caller's pc is.
pub(super) fn step(
    cfi: &Cfi,
    address: u64,
    context: &mut Context,
    registers: &mut FrameRegisters,
    read: &mut ReadWord<'_>,
) -> Result<FrameKind, Ending> {
    let bases = cfi.bases();
    let kind = |is_signal| if is_signal { FrameKind::Exact } else { FrameKind::ReturnAddress };
    if let (Some(fde), Some(section)) = (cfi.find_in_eh_frame(address), cfi.eh_frame()) {
        let row = fde.unwind_info_for_address(&section, bases, context, address).map_err(|_| Ending::NoUnwindInfo)?;
        apply(&section, row, fde.cie().encoding(), registers, read)?;
        return Ok(kind(fde.is_signal_trampoline()));
    }
    if let (Some(fde), Some(section)) = (cfi.find_in_debug_frame(address), cfi.debug_frame()) {
        let row = fde.unwind_info_for_address(&section, bases, context, address).map_err(|_| Ending::NoUnwindInfo)?;
        apply(&section, row, fde.cie().encoding(), registers, read)?;
        return Ok(kind(fde.is_signal_trampoline()));
    }
    Err(Ending::NoUnwindInfo)
}

/// The row as a [`FrameRule`] if it is like that of most functions.
fn compact<'a>(section: &impl UnwindSection<Slice<'a>>, row: &UnwindTableRow<usize>, is_signal: bool) -> Rule {
    if matches!(row.register(gimli::X86_64::RA), Some(RegisterRule::Undefined)) {
        return Rule::Outermost;
    }
    if is_signal {
        return Rule::Evaluate;
    }
    frame_rule(section, row).map_or(Rule::Evaluate, Rule::Frame)
}

fn frame_rule<'a>(section: &impl UnwindSection<Slice<'a>>, row: &UnwindTableRow<usize>) -> Option<FrameRule> {
    let (register, offset, cfa_indirect) = match *row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => (register, offset, false),
        CfaRule::Expression(expression) => {
            let (register, offset) = word_at_register(section, expression)?;
            (register, offset, true)
        }
    };
    let mut saved = [UNCHANGED; CALLEE_SAVED.len()];
    let mut return_address_is_saved = false;
    for &(register, ref rule) in row.registers() {
        let register = number(register)?;
        match *rule {
            RegisterRule::Offset(RETURN_ADDRESS_OFFSET) if register == RIP => return_address_is_saved = true,
            RegisterRule::Offset(offset) => {
                let index = CALLEE_SAVED.iter().position(|&saved| saved == register)?;
                let words = i16::try_from(offset / 8).ok().filter(|_| offset % 8 == 0)?;
                saved[index] = words;
            }
            RegisterRule::SameValue | RegisterRule::Undefined if register != RIP && register != RSP => {}
            _ => return None,
        }
    }
    return_address_is_saved.then_some(FrameRule {
        cfa_register: number(register)?,
        cfa_indirect,
        cfa_offset: i32::try_from(offset).ok()?,
        saved,
    })
}

/// `DW_OP_breg<n> <offset>; DW_OP_deref`: how compilers describe a frame whose stack they realigned.
fn word_at_register<'a>(
    section: &impl UnwindSection<Slice<'a>>,
    expression: UnwindExpression<usize>,
) -> Option<(gimli::Register, i64)> {
    let encoding = Encoding { address_size: 8, format: gimli::Format::Dwarf32, version: 4 };
    let mut operations = expression.get(section).ok()?.operations(encoding);
    let first = operations.next().ok()??;
    let second = operations.next().ok()??;
    match (first, second, operations.next()) {
        (
            Operation::RegisterOffset { register, offset, .. },
            Operation::Deref { size: 8, space: false, .. },
            Ok(None),
        ) => Some((register, offset)),
        _ => None,
    }
}

fn number(register: gimli::Register) -> Option<Number> {
    Number::try_from(register.0).ok().filter(|&number| usize::from(number) < COUNT)
}

/// Evaluates a row. A register of which nothing is said keeps its value, as in every other unwinder.
fn apply<'a>(
    section: &impl UnwindSection<Slice<'a>>,
    row: &UnwindTableRow<usize>,
    encoding: Encoding,
    registers: &mut FrameRegisters,
    read: &mut ReadWord<'_>,
) -> Result<(), Ending> {
    let before = *registers;
    let mut frame = Frame { registers: before, read, encoding };
    let cfa = match *row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => {
            let base = frame.register(register)?;
            base.wrapping_add_signed(offset)
        }
        CfaRule::Expression(expression) => frame.evaluate(section, expression, None)?,
    };
    registers.set(RSP, cfa);
    let mut has_return_address = false;
    for &(register, ref rule) in row.registers() {
        let Some(register) = number(register) else { continue };
        has_return_address |= register == RIP;
        match *rule {
            RegisterRule::Undefined if register == RIP => return Err(Ending::Complete),
            RegisterRule::Undefined | RegisterRule::SameValue => {}
            RegisterRule::Offset(offset) => registers.set_saved_at(register, cfa.wrapping_add_signed(offset)),
            RegisterRule::ValOffset(offset) => registers.set(register, cfa.wrapping_add_signed(offset)),
            RegisterRule::Register(other) => {
                let other = number(other).ok_or(Ending::NoUnwindInfo)?;
                let value = before.clone().get(other, frame.read).ok_or(Ending::UnreadableStack)?;
                registers.set(register, value);
            }
            RegisterRule::Expression(expression) => {
                registers.set_saved_at(register, frame.evaluate(section, expression, Some(cfa))?);
            }
            RegisterRule::ValExpression(expression) => {
                registers.set(register, frame.evaluate(section, expression, Some(cfa))?);
            }
            RegisterRule::Constant(value) => registers.set(register, value),
            _ => return Err(Ending::NoUnwindInfo),
        }
    }
    if !has_return_address {
        return Err(Ending::NoUnwindInfo);
    }
    registers.get(RSP, read).ok_or(Ending::UnreadableStack)?;
    registers.get(RIP, read).ok_or(Ending::UnreadableStack)?;
    Ok(())
}

/// What an expression may look at: the registers of the frame itself, and memory.
struct Frame<'r, 'm> {
    registers: FrameRegisters,
    read: &'r mut ReadWord<'m>,
    encoding: Encoding,
}

/// Expressions are evaluated without allocating.
struct Fixed;

impl<R: Reader> EvaluationStorage<R> for Fixed {
    type Stack = [Value; 64];
    type ExpressionStack = [(R, R); 4];
    type Result = [Piece<R>; 1];
}

impl Frame<'_, '_> {
    fn register(&mut self, register: gimli::Register) -> Result<u64, Ending> {
        let register = number(register).ok_or(Ending::NoUnwindInfo)?;
        self.registers.get(register, self.read).ok_or(Ending::UnreadableStack)
    }

    fn evaluate<'a>(
        &mut self,
        section: &impl UnwindSection<Slice<'a>>,
        expression: UnwindExpression<usize>,
        initial: Option<u64>,
    ) -> Result<u64, Ending> {
        /// More than any compiler emits; ends loops.
        const MOST_OPERATIONS: u32 = 1000;
        let Expression(code) = expression.get(section).map_err(|_| Ending::NoUnwindInfo)?;
        let mut evaluation = Evaluation::<Slice<'a>, Fixed>::new_in(code, self.encoding);
        evaluation.set_max_iterations(MOST_OPERATIONS);
        if let Some(value) = initial {
            evaluation.set_initial_value(value);
        }
        let mut result = evaluation.evaluate();
        loop {
            result = match result.map_err(|_| Ending::NoUnwindInfo)? {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresRegister { register, .. } => {
                    evaluation.resume_with_register(Value::Generic(self.register(register)?))
                }
                EvaluationResult::RequiresMemory { address, size: size @ 1..=8, space: None, .. } => {
                    let word = (self.read)(address).ok_or(Ending::UnreadableStack)?;
                    evaluation.resume_with_memory(Value::Generic(word & (u64::MAX >> (64 - 8 * u32::from(size)))))
                }
                _ => return Err(Ending::NoUnwindInfo),
            };
        }
        match evaluation.as_result() {
            [Piece { location: Location::Address { address }, .. }] => Ok(*address),
            _ => Err(Ending::NoUnwindInfo),
        }
    }
}

#[cfg(test)]
mod tests;
