//! Unwinding by table: what the call frame information of a module says of each address, compiled to eight bytes.
//!
//! A [`Rule`] tells how to get from a frame to its caller when only rip, rsp, rbp and rbx are tracked: that is all
//! that compilers' CFA rules on x86_64 refer to. What a rule can't express is [`RuleKind::Slow`]: the general unwinder's work.
//! The table is small enough to be searched where no general unwinder can run (in a BPF program).

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, Expression, Operation, Reader, Register, RegisterRule, UnwindContext,
    UnwindExpression, UnwindSection, X86_64,
};

use super::cfi::{Cfi, Slice};
use super::module::Module;
use super::unwinder::ENTRY_CODE;

/// How the caller's frame is found.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum RuleKind {
    /// No unwind information covers the address.
    Gap = 0,
    /// CFA = register + offset.
    Offset = 1,
    /// CFA = the word at (register + offset): a frame whose stack was realigned.
    Indirect = 2,
    /// A procedure linkage table stub: CFA = rsp + 8, and 8 more where `rip & 15 >=` offset.
    Plt = 3,
    /// The kernel's signal frame: all registers are in the `rt_sigframe` at rsp.
    Signal = 4,
    /// Nothing called this function.
    End = 5,
    /// Expressible only by the general unwinder.
    Slow = 6,
}

/// The register that a CFA is counted from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Base {
    /// rsp
    Rsp = 0,
    /// rbp
    Rbp = 1,
    /// rbx
    Rbx = 2,
}

/// Where the caller's value of a callee-saved register is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Saved {
    /// Still in the register.
    Same,
    /// In memory at CFA + 8 * this.
    AtCfa(i8),
    /// In memory at rbp + 8 * this: realigned frames.
    AtRbp(i8),
}

impl Saved {
    fn encode(self) -> (u8, u8, i8) {
        match self {
            Saved::Same => (0, 0, 0),
            Saved::AtCfa(words) => (1, 0, words),
            Saved::AtRbp(words) => (1, 1, words),
        }
    }
}

/// One row's rule.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Rule {
    /// How the CFA is found; the other fields matter for [`RuleKind::Offset`], [`RuleKind::Indirect`] and (offset)
    /// [`RuleKind::Plt`].
    pub kind: RuleKind,
    /// What the CFA is counted from.
    pub base: Base,
    /// Bytes from `base`.
    pub offset: i32,
    /// The caller's rbp.
    pub rbp: Saved,
    /// The caller's rbx.
    pub rbx: Saved,
    /// The module has no unwind information: frames beyond are a guess.
    pub is_guess: bool,
}

impl Rule {
    const fn bare(kind: RuleKind) -> Self {
        Rule { kind, base: Base::Rsp, offset: 0, rbp: Saved::Same, rbx: Saved::Same, is_guess: false }
    }

    /// No unwind information.
    pub const GAP: Rule = Rule::bare(RuleKind::Gap);
    /// The outermost function.
    pub const END: Rule = Rule::bare(RuleKind::End);
    /// The kernel's signal frame.
    pub const SIGNAL: Rule = Rule::bare(RuleKind::Signal);
    /// Left to the general unwinder.
    pub const SLOW: Rule = Rule::bare(RuleKind::Slow);

    /// By frame pointer, for want of anything better: a guess.
    pub const FRAME_POINTER: Rule = Rule {
        kind: RuleKind::Offset,
        base: Base::Rbp,
        offset: 16,
        rbp: Saved::AtCfa(-2),
        rbx: Saved::Same,
        is_guess: true,
    };

    /// The eight bytes that a BPF program reads: byte 0 the kind, byte 1 flags (bits 0-1 the base, bits 2 and 3 whether rbp and
    /// rbx are saved, bits 4 and 5 whether relative to rbp instead of the CFA, bit 6 a guess), bytes 2 and 3 where rbp
    /// and rbx are, in words, bytes 4-7 the offset.
    #[must_use]
    pub fn encode(&self) -> u64 {
        let (rbp_saved, rbp_by_rbp, rbp) = self.rbp.encode();
        let (rbx_saved, rbx_by_rbp, rbx) = self.rbx.encode();
        let flags = self.base as u8
            | rbp_saved << 2
            | rbx_saved << 3
            | rbp_by_rbp << 4
            | rbx_by_rbp << 5
            | u8::from(self.is_guess) << 6;
        let [o0, o1, o2, o3] = self.offset.to_le_bytes();
        u64::from_le_bytes([self.kind as u8, flags, rbp.to_le_bytes()[0], rbx.to_le_bytes()[0], o0, o1, o2, o3])
    }
}

/// From `start` (as the file counts addresses) up to the next row's start, `rule` holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Row {
    /// First address.
    pub start: u64,
    /// What holds from there on.
    pub rule: Rule,
}

/// What is known of a module's code, ascending by address; from the first row on there is always one that holds.
#[must_use]
pub(super) fn rows(module: &Module, cfi: &Cfi) -> Vec<Row> {
    let mut functions = Vec::new();
    if let Some(section) = cfi.eh_frame() {
        functions_of(&section, cfi.bases(), &mut functions);
    }
    if let Some(section) = cfi.debug_frame() {
        functions_of(&section, cfi.bases(), &mut functions);
    }
    if cfi.is_empty() {
        for segment in module.segments.iter().filter(|segment| segment.executable) {
            let (start, end) = (segment.addresses.start, segment.addresses.end);
            functions.push(Function { start, end, rows: vec![Row { start, rule: Rule::FRAME_POINTER }] });
        }
    }
    if module.entry != 0 {
        let (start, end) = (module.entry, module.entry.saturating_add(ENTRY_CODE));
        functions.push(Function { start, end, rows: vec![Row { start, rule: Rule::END }] });
    }
    // Stable: of two descriptions of one address, .eh_frame's counts.
    functions.sort_by_key(|function| function.start);
    functions.dedup_by_key(|function| function.start);
    let mut out = Rows(Vec::new());
    for (index, function) in functions.iter().enumerate() {
        let next = functions.get(index + 1).map_or(u64::MAX, |next| next.start);
        function.rows.iter().filter(|row| row.start < next).for_each(|row| out.push(*row));
        if function.end < next {
            out.push(Row { start: function.end, rule: Rule::GAP });
        }
    }
    out.0
}

/// One frame description.
struct Function {
    start: u64,
    end: u64,
    rows: Vec<Row>,
}

/// Rows without two of one address or two equal rules in succession.
struct Rows(Vec<Row>);

impl Rows {
    fn push(&mut self, row: Row) {
        match self.0.last_mut() {
            Some(last) if last.start == row.start => *last = row,
            Some(last) if last.rule == row.rule => {}
            _ => self.0.push(row),
        }
    }
}

/// Entries that can't be parsed are left out: their addresses are gaps.
fn functions_of<'a, S: UnwindSection<Slice<'a>>>(section: &S, bases: &BaseAddresses, out: &mut Vec<Function>) {
    let mut context = UnwindContext::new();
    let mut entries = section.entries(bases);
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let Ok(fde) = partial.parse(S::cie_from_offset) else { continue };
        // Descriptions of functions that the linker dropped begin at 0.
        if fde.initial_address() == 0 || fde.len() == 0 {
            continue;
        }
        let mut function = Function { start: fde.initial_address(), end: fde.end_address(), rows: Vec::new() };
        let is_signal = fde.is_signal_trampoline();
        if let Ok(mut table) = fde.rows(section, bases, &mut context) {
            while let Ok(Some(row)) = table.next_row() {
                let rule = match is_signal {
                    true => Rule::SIGNAL,
                    false => compile(section, row.cfa(), |register| row.register(register)),
                };
                function.rows.push(Row { start: row.start_address(), rule });
            }
        }
        out.push(function);
    }
}

fn compile<'a, S: UnwindSection<Slice<'a>>>(
    section: &S,
    cfa: &CfaRule<usize>,
    register: impl Fn(Register) -> Option<RegisterRule<usize>>,
) -> Rule {
    match register(X86_64::RA) {
        Some(RegisterRule::Undefined) => return Rule::END,
        None | Some(RegisterRule::Offset(-8)) => {}
        Some(_) => return Rule::SLOW,
    }
    let (Some(rbp), Some(rbx)) =
        (saved(section, X86_64::RBP, register(X86_64::RBP)), saved(section, X86_64::RBX, register(X86_64::RBX)))
    else {
        return Rule::SLOW;
    };
    match cfa {
        CfaRule::RegisterAndOffset { register, offset } => match (base(*register), i32::try_from(*offset)) {
            (Some(base), Ok(offset)) => Rule { base, offset, rbp, rbx, ..Rule::bare(RuleKind::Offset) },
            _ => Rule::SLOW,
        },
        CfaRule::Expression(expression) => {
            let operations = operations(section, expression);
            match operations.as_slice() {
                [Operation::RegisterOffset { register, offset, .. }, Operation::Deref { size: 8, .. }] => {
                    match (base(*register), i32::try_from(*offset)) {
                        (Some(base), Ok(offset)) => Rule { base, offset, rbp, rbx, ..Rule::bare(RuleKind::Indirect) },
                        _ => Rule::SLOW,
                    }
                }
                _ => {
                    plt(&operations).map_or(Rule::SLOW, |offset| Rule { offset, rbp, rbx, ..Rule::bare(RuleKind::Plt) })
                }
            }
        }
    }
}

/// The threshold of the expression that linkers write for lazy PLT stubs:
/// `breg7 8; breg16 0; lit15; and; lit11; ge; lit3; shl; plus` (binutils, `elf_x86_64_eh_frame_plt`).
fn plt(operations: &[Operation<Slice<'_>>]) -> Option<i32> {
    let [
        Operation::RegisterOffset { register: X86_64::RSP, offset: 8, .. },
        Operation::RegisterOffset { register: X86_64::RA, offset: 0, .. },
        Operation::UnsignedConstant { value: 15 },
        Operation::And,
        Operation::UnsignedConstant { value: threshold },
        Operation::Ge,
        Operation::UnsignedConstant { value: 3 },
        Operation::Shl,
        Operation::Plus,
    ] = operations
    else {
        return None;
    };
    i32::try_from(*threshold).ok()
}

fn base(register: Register) -> Option<Base> {
    match register {
        X86_64::RSP => Some(Base::Rsp),
        X86_64::RBP => Some(Base::Rbp),
        X86_64::RBX => Some(Base::Rbx),
        _ => None,
    }
}

fn saved<'a, S: UnwindSection<Slice<'a>>>(
    section: &S,
    of: Register,
    rule: Option<RegisterRule<usize>>,
) -> Option<Saved> {
    let words = |offset: i64| (offset % 8 == 0).then(|| i8::try_from(offset / 8).ok()).flatten();
    match rule {
        // Undefined says that the caller does not need it: the value is not used, so keeping it harms nothing.
        None | Some(RegisterRule::SameValue | RegisterRule::Undefined) => Some(Saved::Same),
        Some(RegisterRule::Register(register)) if register == of => Some(Saved::Same),
        Some(RegisterRule::Offset(offset)) => words(offset).map(Saved::AtCfa),
        Some(RegisterRule::Expression(expression)) => match operations(section, &expression).as_slice() {
            [Operation::RegisterOffset { register: X86_64::RBP, offset, .. }] => words(*offset).map(Saved::AtRbp),
            _ => None,
        },
        Some(_) => None,
    }
}

fn operations<'a, S: UnwindSection<Slice<'a>>>(
    section: &S,
    expression: &UnwindExpression<usize>,
) -> Vec<Operation<Slice<'a>>> {
    let Ok(Expression(bytes)) = expression.get(section) else { return Vec::new() };
    let encoding = gimli::Encoding { address_size: 8, format: gimli::Format::Dwarf32, version: 4 };
    let mut input = bytes;
    let mut out = Vec::new();
    while !input.is_empty() {
        match Operation::parse(&mut input, encoding) {
            Ok(operation) => out.push(operation),
            Err(_) => return Vec::new(),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use memleax_platform::Registers;

    use super::*;
    use crate::event::{FrameKind, ModuleId};
    use crate::unwind::evaluate;
    use crate::unwind::image::{Image, Layout};
    use crate::unwind::module::Role;
    use crate::unwind::registers::{FrameRegisters, RBP, RBX, RIP, RSP};
    use crate::unwind::rule::Rule as ExactRule;

    fn module(path: &str) -> Arc<Module> {
        let bytes = std::fs::read(path).expect("a readable file");
        let layout = Layout::parse(&bytes).expect("an ELF file");
        let mut module = Module::from_layout(ModuleId(0), path.into(), (0, 0), Role::Library, 0, layout);
        module.image = Some(Image::Memory(bytes.into()));
        Arc::new(module)
    }

    /// Libraries that this test runs with.
    fn libraries() -> Vec<String> {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("the test's own mappings");
        let mut paths: Vec<String> =
            maps.split_whitespace().filter(|word| word.contains(".so")).map(Into::into).collect();
        paths.sort();
        paths.dedup();
        paths
    }

    /// Memory where every word tells where it is.
    fn word(address: u64) -> u64 {
        address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8
    }

    /// What the program in the kernel does with a rule: rip, rsp, rbp and rbx of the caller.
    fn step(rule: &Rule, at: &Registers) -> [u64; 4] {
        let base = [at.rsp, at.rbp, at.rbx][rule.base as usize];
        let cfa = match rule.kind {
            RuleKind::Indirect => word(base.wrapping_add_signed(rule.offset.into())),
            RuleKind::Plt => at.rsp + if at.rip & 15 >= rule.offset as u64 { 16 } else { 8 },
            _ => base.wrapping_add_signed(rule.offset.into()),
        };
        let restore = |saved: Saved, now: u64| match saved {
            Saved::Same => now,
            Saved::AtCfa(words) => word(cfa.wrapping_add_signed(i64::from(words) * 8)),
            Saved::AtRbp(words) => word(at.rbp.wrapping_add_signed(i64::from(words) * 8)),
        };
        [word(cfa.wrapping_sub(8)), cfa, restore(rule.rbp, at.rbp), restore(rule.rbx, at.rbx)]
    }

    #[test]
    fn every_row_leads_where_the_evaluator_leads() {
        let (mut rows, mut slow) = (0, 0);
        for path in libraries() {
            let module = module(&path);
            let cfi = Cfi::of_module(&module);
            let mut context = evaluate::Context::new();
            for row in super::rows(&module, &cfi) {
                rows += 1;
                slow += usize::from(row.rule == Rule::SLOW);
                let exact = evaluate::rule(&cfi, row.start, &mut context);
                let is_entry = row.start >= module.entry && row.start - module.entry < ENTRY_CODE;
                match row.rule.kind {
                    RuleKind::Gap => assert_eq!(exact, ExactRule::Missing, "{path}+{:#x}", row.start),
                    RuleKind::End => assert!(is_entry || exact == ExactRule::Outermost, "{path}+{:#x}", row.start),
                    RuleKind::Signal => assert_eq!(exact, ExactRule::Evaluate, "{path}+{:#x}", row.start),
                    RuleKind::Slow => {}
                    _ => {
                        let at = Registers {
                            rip: row.start,
                            rsp: 0x7000,
                            rbp: 0x7a00,
                            rbx: 0x7b00,
                            r12: 1,
                            r13: 2,
                            r14: 3,
                            r15: 4,
                            ..Registers::default()
                        };
                        let mut registers = FrameRegisters::new(&at);
                        let mut read = |address| Some(word(address));
                        let stepped = evaluate::step(&cfi, row.start, &mut context, &mut registers, &mut read);
                        assert_eq!(stepped, Ok(FrameKind::ReturnAddress), "{path}+{:#x}", row.start);
                        let exact = [RIP, RSP, RBP, RBX].map(|register| registers.get(register, &mut read).unwrap());
                        assert_eq!(step(&row.rule, &at), exact, "{path}+{:#x}: {:?}", row.start, row.rule);
                    }
                }
            }
        }
        assert!(rows > 1000, "{rows} rows");
        assert!(slow * 100 < rows, "{slow} of {rows} rows are left to the general unwinder");
    }

    #[test]
    fn a_rule_is_eight_bytes() {
        let rule = Rule {
            kind: RuleKind::Offset,
            base: Base::Rbp,
            offset: -2,
            rbp: Saved::AtCfa(-2),
            rbx: Saved::AtRbp(3),
            is_guess: false,
        };
        assert_eq!(rule.encode().to_le_bytes(), [1, 0b10_1101, 0xfe, 3, 0xfe, 0xff, 0xff, 0xff]);
        assert_eq!(Rule::GAP.encode(), 0);
    }
}
