//! Rules for code without unwind information (musl, hand-written assembly): from the instructions that lead from an
//! address to its function's return.
//!
//! Whatever a function has pushed it must pop before it returns, on every path and in the same order. So the paths to
//! `ret` tell where the return address is, and where the callee-saved registers are, without knowing where the
//! function begins. The paths are followed without values: both ways at a conditional jump, over calls.

use std::cell::{OnceCell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, InstructionInfoOptions, Mnemonic,
    OpAccess, OpKind, Register,
};
use object::read::elf::ElfFile64;
use object::{LittleEndian, Object, ObjectSymbol, SymbolKind};
use rustc_hash::{FxHashMap, FxHashSet};

use super::image::Image;
use super::module::Module;
use super::registers::{RBP, RSP};
use super::rule::{CALLEE_SAVED, FrameRule, UNCHANGED};
use crate::event::FrameKind;

/// Instructions looked at for one rule; large functions reach their end sooner.
const MOST_INSTRUCTIONS: usize = 3000;

/// In the order of [`CALLEE_SAVED`].
const REGISTERS: [Register; CALLEE_SAVED.len()] =
    [Register::RBX, Register::RBP, Register::R12, Register::R13, Register::R14, Register::R15];

/// The code of a module, and what was learned of it. Addresses are as its file counts them.
#[derive(Debug)]
pub(super) struct Program {
    module: Arc<Module>,
    /// Where functions are known to begin.
    functions: OnceCell<FxHashSet<u64>>,
    /// Functions that were looked at: whether they ever return.
    returning: RefCell<FxHashMap<u64, bool>>,
}

impl Program {
    pub(super) fn new(module: Arc<Module>) -> Self {
        Program { module, functions: OnceCell::new(), returning: RefCell::default() }
    }

    fn decode(&self, address: u64) -> Option<Instruction> {
        let code = self.module.code_from(address)?;
        let instruction = Decoder::with_ip(64, code, address, DecoderOptions::NONE).decode();
        (!instruction.is_invalid()).then_some(instruction)
    }

    /// True if a function is known to begin at `address`.
    fn begins_function(&self, address: u64) -> bool {
        self.functions.get_or_init(|| function_symbols(&self.module)).contains(&address)
    }

    /// True after a call of a function that never returns: what is there belongs to other code.
    fn is_never_reached(&self, address: u64) -> bool {
        const LENGTH: u64 = 5;
        let before = self.decode(address.wrapping_sub(LENGTH));
        self.begins_function(address)
            || before.is_some_and(|call| {
                call.next_ip() == address
                    && call.flow_control() == FlowControl::Call
                    && is_direct(&call)
                    && self.never_returns(call.near_branch_target())
            })
    }

    /// True if the code at `address` begins by making the result of the call before it an argument.
    fn passes_result_on(&self, address: u64) -> bool {
        self.decode(address).is_some_and(|first| {
            first.mnemonic() == Mnemonic::Mov
                && first.op0_register().full_register() == Register::RDI
                && first.op1_register().full_register() == Register::RAX
        })
    }

    /// True if no path from `address` comes to a return: `exit`, `abort`, and what ends by calling them.
    fn never_returns(&self, address: u64) -> bool {
        !Search { program: self, fuel: MOST_INSTRUCTIONS, open: Vec::new() }.returns(address).0
    }
}

/// A search for a function's return.
struct Search<'p> {
    program: &'p Program,
    /// Instructions still to be looked at.
    fuel: usize,
    /// The functions on the way here, which call each other.
    open: Vec<u64>,
}

impl Search<'_> {
    /// Whether the function at `address` returns, and whether that is certain: it is not where the search was given up
    /// or turned in a circle. What is not known is taken to return.
    fn returns(&mut self, address: u64) -> (bool, bool) {
        if let Some(&returns) = self.program.returning.borrow().get(&address) {
            return (returns, true);
        }
        if self.open.contains(&address) {
            return (true, false);
        }
        self.open.push(address);
        let (returns, certain) = self.search(address);
        self.open.pop();
        if certain || self.open.is_empty() {
            self.program.returning.borrow_mut().insert(address, returns);
        }
        (returns, certain)
    }

    fn search(&mut self, start: u64) -> (bool, bool) {
        let (mut paths, mut seen) = (VecDeque::from([start]), FxHashSet::default());
        let mut certain = true;
        while let Some(address) = paths.pop_front() {
            if !seen.insert(address) {
                continue;
            }
            let Some(instruction) = self.program.decode(address).filter(|_| self.fuel > 0) else {
                return (true, false);
            };
            self.fuel -= 1;
            let (target, next) = (instruction.near_branch_target(), instruction.next_ip());
            match instruction.flow_control() {
                FlowControl::Return | FlowControl::IndirectBranch => return (true, certain),
                _ if traps(&instruction) => {}
                FlowControl::UnconditionalBranch => paths.push_back(target),
                FlowControl::ConditionalBranch => paths.extend([target, next]),
                FlowControl::Call if is_direct(&instruction) => {
                    let (returns, sure) = self.returns(target);
                    certain &= sure;
                    if returns {
                        paths.push_back(next);
                    }
                }
                _ => paths.push_back(next),
            }
        }
        (false, true)
    }
}

/// What the code tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Inferred {
    /// How to get to the caller.
    Frame(FrameRule),
    /// It ends with what its callee returns, as in `exit(main(…))`: the first function of a process or thread.
    Outermost,
}

/// An address in the frame: one of the registers at the start, plus an offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    base: Base,
    offset: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Base {
    Rsp,
    Rbp,
}

/// What became of a callee-saved register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Saved {
    Unchanged,
    RestoredFrom(Place),
    Overwritten,
}

#[derive(Clone, Debug)]
struct State {
    address: u64,
    /// Where rsp points; `None` if that is not known.
    stack: Option<Place>,
    saved: [Saved; REGISTERS.len()],
    /// What this path itself has stored in the frame: a function at its end may jump to another, which saves and
    /// restores registers of its own.
    stored: Vec<(Place, Register, Saved)>,
}

/// The rule for a frame that goes on at `address`; `None` if the code does not tell, or contradicts itself.
pub(super) fn infer(program: &Program, address: u64, kind: FrameKind) -> Option<Inferred> {
    if kind == FrameKind::ReturnAddress && program.is_never_reached(address) {
        return None;
    }
    let mut explorer = Explorer::default();
    explorer.follow(State {
        address,
        stack: Some(Place { base: Base::Rsp, offset: 0 }),
        saved: [Saved::Unchanged; REGISTERS.len()],
        stored: Vec::new(),
    });
    let mut factory = InstructionInfoFactory::new();
    for _ in 0..MOST_INSTRUCTIONS {
        let Some(state) = explorer.open.pop_front() else { break };
        explorer.step(state, program, &mut factory);
    }
    match explorer.rule {
        Some(rule) => (!explorer.contradicts).then_some(Inferred::Frame(rule)),
        None => {
            let never_returns = explorer.ends && !explorer.unknown && explorer.open.is_empty();
            (never_returns && program.passes_result_on(address)).then_some(Inferred::Outermost)
        }
    }
}

#[derive(Default)]
struct Explorer {
    open: VecDeque<State>,
    seen: FxHashSet<u64>,
    rule: Option<FrameRule>,
    /// Two paths tell different things.
    contradicts: bool,
    /// A path ends in a function that never returns.
    ends: bool,
    /// A path leads where it cannot be followed.
    unknown: bool,
}

impl Explorer {
    fn follow(&mut self, state: State) {
        if self.seen.insert(state.address) {
            self.open.push_back(state);
        }
    }

    fn step(&mut self, mut state: State, program: &Program, factory: &mut InstructionInfoFactory) {
        let Some(instruction) = program.decode(state.address) else {
            self.unknown = true;
            return;
        };
        let (target, next) = (instruction.near_branch_target(), instruction.next_ip());
        match instruction.flow_control() {
            FlowControl::Return => self.returns(&state),
            _ if traps(&instruction) => self.ends = true,
            FlowControl::IndirectBranch => self.unknown = true,
            FlowControl::UnconditionalBranch if program.never_returns(target) => self.ends = true,
            FlowControl::UnconditionalBranch => self.follow(State { address: target, ..state }),
            FlowControl::ConditionalBranch => {
                self.follow(State { address: target, ..state.clone() });
                self.follow(State { address: next, ..state });
            }
            FlowControl::Call if is_direct(&instruction) && program.never_returns(target) => self.ends = true,
            FlowControl::Call | FlowControl::IndirectCall if program.begins_function(next) => self.ends = true,
            // `syscall` is a call, too.
            _ => {
                if !is_direct(&instruction) && instruction.flow_control() != FlowControl::IndirectCall {
                    state.execute(&instruction, factory);
                }
                self.follow(State { address: next, ..state });
            }
        }
    }

    fn returns(&mut self, state: &State) {
        let Some(rule) = state.rule() else { return };
        match self.rule {
            Some(other) => self.contradicts |= other != rule,
            None => self.rule = Some(rule),
        }
    }
}

impl State {
    /// Follows what the instruction does to rsp and the callee-saved registers.
    fn execute(&mut self, instruction: &Instruction, factory: &mut InstructionInfoFactory) {
        let (first, second) = (instruction.op0_register(), instruction.op1_register());
        match instruction.mnemonic() {
            Mnemonic::Push | Mnemonic::Pushfq => {
                self.move_stack(i64::from(instruction.stack_pointer_increment()));
                self.store(first, self.stack);
            }
            Mnemonic::Pop if first != Register::RSP => {
                if instruction.op0_kind() == OpKind::Register {
                    self.restore(first, self.stack);
                }
                self.move_stack(i64::from(instruction.stack_pointer_increment()));
            }
            Mnemonic::Popfq => self.move_stack(8),
            Mnemonic::Add if first == Register::RSP && is_immediate(instruction) => {
                self.move_stack(instruction.immediate(1).cast_signed());
            }
            Mnemonic::Sub if first == Register::RSP && is_immediate(instruction) => {
                self.move_stack(instruction.immediate(1).cast_signed().wrapping_neg());
            }
            Mnemonic::Lea if first == Register::RSP => self.stack = self.place(instruction),
            Mnemonic::Mov if first == Register::RSP && second == Register::RBP => self.stack = self.frame_pointer(),
            Mnemonic::Leave => {
                self.stack = self.frame_pointer();
                self.restore(Register::RBP, self.stack);
                self.move_stack(8);
            }
            Mnemonic::Mov if instruction.code() == Code::Mov_r64_rm64 && second == Register::None => {
                self.restore(first, self.place(instruction));
            }
            Mnemonic::Mov if instruction.code() == Code::Mov_rm64_r64 && first == Register::None => {
                self.store(second, self.place(instruction));
            }
            _ => {
                for used in factory.info_options(instruction, InstructionInfoOptions::NO_MEMORY_USAGE).used_registers()
                {
                    let writes = !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess);
                    let register = used.register().full_register();
                    if writes && register == Register::RSP {
                        self.stack = None;
                    } else if writes {
                        self.restore(register, None);
                    }
                }
            }
        }
    }

    fn move_stack(&mut self, by: i64) {
        if let Some(stack) = &mut self.stack {
            stack.offset = stack.offset.wrapping_add(by);
        }
    }

    /// Where rbp points, if it is still what it was.
    fn frame_pointer(&self) -> Option<Place> {
        (self.saved[1] == Saved::Unchanged).then_some(Place { base: Base::Rbp, offset: 0 })
    }

    /// The place that a memory operand names, if it names one in the frame.
    fn place(&self, instruction: &Instruction) -> Option<Place> {
        if instruction.memory_index() != Register::None || instruction.segment_prefix() != Register::None {
            return None;
        }
        let base = match instruction.memory_base() {
            Register::RSP => self.stack?,
            Register::RBP => self.frame_pointer()?,
            _ => return None,
        };
        let offset = base.offset.wrapping_add(instruction.memory_displacement64().cast_signed());
        Some(Place { base: base.base, offset })
    }

    /// The register is stored at a place in the frame.
    fn store(&mut self, register: Register, at: Option<Place>) {
        let Some(at) = at else { return };
        let saved = position(register).map_or(Saved::Overwritten, |index| self.saved[index]);
        self.stored.retain(|(place, ..)| *place != at);
        self.stored.push((at, register, saved));
    }

    /// The register is loaded from a place in the frame, or from anywhere else.
    fn restore(&mut self, register: Register, from: Option<Place>) {
        let Some(index) = position(register) else { return };
        self.saved[index] = match from {
            Some(place) => match self.stored.iter().find(|(stored, ..)| *stored == place) {
                Some(&(_, stored, saved)) if stored == register => saved,
                Some(_) => Saved::Overwritten,
                None => Saved::RestoredFrom(place),
            },
            None => Saved::Overwritten,
        };
    }

    /// The rule if this is a `ret` of a function that keeps to the psABI.
    fn rule(&self) -> Option<FrameRule> {
        let stack = self.stack?;
        let cfa = stack.offset.checked_add(8)?;
        if stack.base == Base::Rsp && stack.offset < 0 {
            return None;
        }
        let mut saved = [UNCHANGED; CALLEE_SAVED.len()];
        for (slot, state) in saved.iter_mut().zip(self.saved) {
            match state {
                Saved::Unchanged => {}
                Saved::RestoredFrom(place) if place.base == stack.base => {
                    let from_cfa = place.offset.wrapping_sub(cfa);
                    *slot = i16::try_from(from_cfa / 8).ok().filter(|&words| from_cfa % 8 == 0 && words < -1)?;
                }
                Saved::RestoredFrom(_) | Saved::Overwritten => return None,
            }
        }
        let cfa_register = match stack.base {
            Base::Rsp => RSP,
            Base::Rbp => RBP,
        };
        Some(FrameRule { cfa_register, cfa_indirect: false, cfa_offset: i32::try_from(cfa).ok()?, saved })
    }
}

fn function_symbols(module: &Module) -> FxHashSet<u64> {
    let bytes = module.image.as_ref().map_or(&[][..], Image::bytes);
    let Ok(file) = ElfFile64::<LittleEndian>::parse(bytes) else { return FxHashSet::default() };
    let symbols = file.symbols().chain(file.dynamic_symbols());
    symbols.filter(|it| it.is_definition() && it.kind() == SymbolKind::Text).map(|it| it.address()).collect()
}

/// In [`REGISTERS`], whatever part of it is meant.
fn position(register: Register) -> Option<usize> {
    REGISTERS.iter().position(|&saved| register != Register::None && saved == register.full_register())
}

/// True for what ends a thread: `hlt`, `ud2`, `int3`.
fn traps(instruction: &Instruction) -> bool {
    let flow = instruction.flow_control();
    matches!(flow, FlowControl::Interrupt | FlowControl::Exception) || instruction.mnemonic() == Mnemonic::Hlt
}

/// True for a call or jump to an address that stands in the instruction.
fn is_direct(instruction: &Instruction) -> bool {
    instruction.op0_kind() == OpKind::NearBranch64
}

fn is_immediate(instruction: &Instruction) -> bool {
    !matches!(instruction.op1_kind(), OpKind::Register | OpKind::Memory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ModuleId;
    use crate::unwind::cfi::Cfi;
    use crate::unwind::evaluate;
    use crate::unwind::image::{Image, Layout, Segment};
    use crate::unwind::module::Role;
    use crate::unwind::rule::Rule;

    /// Both may lead to the same frame from different registers; and a register may be restored that was never changed.
    fn agrees(rule: &FrameRule, expected: &FrameRule) -> bool {
        let same_cfa = rule.cfa_register != expected.cfa_register || rule.cfa_offset == expected.cfa_offset;
        let saved = rule.saved.iter().zip(expected.saved);
        same_cfa && saved.into_iter().all(|(&ours, theirs)| ours == theirs || ours == UNCHANGED)
    }

    /// A module as its file states it.
    fn module(path: &str) -> Arc<Module> {
        let bytes = std::fs::read(path).expect("a readable file");
        let layout = Layout::parse(&bytes).expect("an ELF file");
        let mut module = Module::from_layout(ModuleId(0), path.into(), (0, 0), Role::Library, 0, layout);
        module.image = Some(Image::Memory(bytes.into()));
        Arc::new(module)
    }

    /// The C library that this test runs with has call frame information: what the code tells must agree with it.
    #[test]
    fn the_code_tells_what_the_call_frame_information_says() {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("the test's own mappings");
        let path = maps.split_whitespace().find(|word| word.contains("/libc.so") || word.contains("/libc-"));
        let module = module(path.expect("a dynamic C library"));
        let (cfi, program) = (Cfi::of_module(&module), Program::new(Arc::clone(&module)));
        let mut context = evaluate::Context::new();
        let code = module.segments.iter().find(|segment| segment.executable).expect("code").addresses.start;
        let bytes = module.code_from(code).expect("code");
        let (mut right, mut wrong, mut unknown) = (0, 0, 0);
        let calls = Decoder::with_ip(64, bytes, code, DecoderOptions::NONE)
            .into_iter()
            .filter(|instruction| is_direct(instruction) && instruction.flow_control() == FlowControl::Call);
        for call in calls.step_by(31) {
            let at = call.next_ip();
            let Rule::Frame(expected) = evaluate::rule(&cfi, at - 1, &mut context) else { continue };
            match infer(&program, at, FrameKind::ReturnAddress) {
                Some(Inferred::Frame(rule)) if agrees(&rule, &expected) => right += 1,
                Some(_) => wrong += 1,
                None => unknown += 1,
            }
        }
        // The wrong ones are after calls that are not seen never to return; such an address is on no stack.
        assert!(right > 100 && right > 100 * wrong && right > 3 * unknown, "{right}, {wrong} wrong, {unknown} unknown");
    }

    proptest::proptest! {
        /// Whatever the bytes are, looking at them ends, and without a panic.
        #[test]
        fn any_code_is_survived(code in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..2000)) {
            let segment = Segment { addresses: 0..code.len() as u64, offset: 0, file_size: code.len() as u64, executable: true };
            let layout = Layout { fixed: false, entry: 0, segments: vec![segment], eh_frame_hdr: None, build_id: None };
            let mut module = Module::from_layout(ModuleId(0), "/code".into(), (0, 0), Role::Library, 0, layout);
            module.image = Some(Image::Memory(code.into()));
            let program = Program::new(Arc::new(module));
            for address in [0, 1, 7, 100] {
                let _ = infer(&program, address, FrameKind::Exact);
                let _ = infer(&program, address, FrameKind::ReturnAddress);
            }
        }
    }
}
