//! The walk from registers and stack to a backtrace.

use std::ops::Range;
use std::sync::Arc;

use memleax_platform::Registers;

use super::call_site;
use super::cfi::Cfi;
use super::evaluate::{self, Context};
use super::image::Image;
use super::inference::{self, Inferred, Program};
use super::module::Module;
use super::module_map::ModuleMap;
use super::raw_backtrace::{RawBacktrace, RawFrame};
use super::registers::{FrameRegisters, Number, RBP, RIP, RSP, ReadWord};
use super::rule::{FrameRule, Rule, signal};
use super::rule_cache::RuleCache;
use super::rules::{self, Row};
use crate::event::{Ending, FrameKind};

/// Walks stacks by the call frame information of the live modules.
pub struct Unwinder {
    live: Live,
    rules: RuleCache,
    context: Box<Context>,
}

/// The live modules, and how to unwind through them.
#[derive(Default)]
struct Live {
    modules: Vec<Unwindable>,
    /// Their segments, rounded to pages, ascending; with the index into `modules`.
    spans: Vec<(Range<u64>, usize)>,
}

struct Unwindable {
    module: Arc<Module>,
    cfi: Cfi,
    program: Program,
}

/// One walk along a stack.
struct Walk<'r, 'm> {
    /// Of the frame that was reached.
    registers: FrameRegisters,
    read: &'r mut ReadWord<'m>,
    by_frame_pointer: bool,
    /// The last step had no unwind information to go by: what it led to must look like a caller.
    is_guess: bool,
    /// How often the walk went on at a lower address: on another stack.
    stack_switches: u32,
}

impl Default for Unwinder {
    fn default() -> Self {
        Unwinder { live: Live::default(), rules: RuleCache::new(), context: Box::new(Context::new()) }
    }
}

impl Unwinder {
    /// Learns of the modules that are live now; to be called after each [`ModuleMap::refresh`] that changed something.
    /// `debug_file` finds the separate debug file of a module that says little of its frames itself.
    pub fn update(&mut self, modules: &ModuleMap, debug_file: &mut dyn FnMut(&Module) -> Option<Image>) {
        let mut before = std::mem::take(&mut self.live.modules);
        for module in modules.live() {
            let known = before.iter().position(|other| other.module.id == module.id);
            self.live.modules.push(match known {
                Some(index) => before.swap_remove(index),
                None => Unwindable {
                    module: Arc::clone(module),
                    cfi: cfi_of(module, debug_file),
                    program: Program::new(Arc::clone(module)),
                },
            });
        }
        self.live.spans = modules.spans().to_vec();
        self.rules.clear();
    }

    /// The stack of a thread at the first instruction of a function: `registers.rip` is the function, the return
    /// address lies at `registers.rsp`. `read` reads 8 bytes of the target's memory. At most `depth` frames, the
    /// function's own included.
    pub fn unwind_from_call_entry(
        &mut self,
        registers: &Registers,
        read: &mut dyn FnMut(u64) -> Option<u64>,
        depth: usize,
        backtrace: &mut RawBacktrace,
    ) {
        let mut walk = Walk::new(registers, read);
        backtrace.begin(registers.rip);
        let called = FrameRule::AT_ENTRY.step(&mut walk.registers, walk.read);
        let next = called.map(|()| FrameKind::ReturnAddress).ok_or(Ending::UnreadableStack);
        self.walk(&mut walk, next, depth, backtrace);
    }

    /// The stack of a thread stopped anywhere.
    pub fn unwind_from_registers(
        &mut self,
        registers: &Registers,
        read: &mut dyn FnMut(u64) -> Option<u64>,
        depth: usize,
        backtrace: &mut RawBacktrace,
    ) {
        let mut walk = Walk::new(registers, read);
        backtrace.begin(registers.rip);
        let mut frame = RawFrame { pc: registers.rip, kind: FrameKind::Exact };
        let rule = self.rule_of(&frame);
        let next = self.step(&mut walk, rule, &mut frame);
        self.walk(&mut walk, next, depth, backtrace);
    }

    /// Goes on from the step that `next` is the result of.
    fn walk(
        &mut self,
        walk: &mut Walk<'_, '_>,
        mut next: Result<FrameKind, Ending>,
        depth: usize,
        backtrace: &mut RawBacktrace,
    ) {
        backtrace.ending = loop {
            let (kind, pc) = match next.and_then(|kind| Ok((kind, walk.get(RIP)?))) {
                Ok((_, 0)) => break Ending::Complete,
                Ok(caller) => caller,
                Err(ending) => break ending,
            };
            let mut frame = RawFrame { pc, kind };
            let rule = self.rule_of(&frame);
            match rule {
                Rule::UnknownCode | Rule::NoCallSite if walk.is_guess => break Ending::NoUnwindInfo,
                Rule::NoCallSite => break Ending::Inconsistent,
                _ if backtrace.frames.len() >= depth => break Ending::DepthLimit,
                _ => {}
            }
            backtrace.by_frame_pointer = walk.by_frame_pointer;
            next = self.step(walk, rule, &mut frame);
            backtrace.frames.push(frame);
        };
    }

    /// Turns a frame's registers into its caller's; returns what the caller's pc is, or why there is no caller.
    fn step(&mut self, walk: &mut Walk<'_, '_>, rule: Rule, frame: &mut RawFrame) -> Result<FrameKind, Ending> {
        let stack = walk.get(RSP)?;
        walk.is_guess = matches!(rule, Rule::Inferred(_) | Rule::FramePointer);
        let next = match rule {
            Rule::Frame(rule) | Rule::Inferred(rule) => {
                rule.step(&mut walk.registers, walk.read).ok_or(Ending::UnreadableStack)?;
                FrameKind::ReturnAddress
            }
            Rule::Evaluate => {
                let (Unwindable { module, cfi, .. }, lookup) = self.live.find(*frame).ok_or(Ending::NoUnwindInfo)?;
                let address = module.file_address(lookup);
                evaluate::step(cfi, address, &mut self.context, &mut walk.registers, walk.read)?
            }
            Rule::FramePointer => walk.step_by_frame_pointer(stack)?,
            Rule::UnknownCode if !is_trampoline_in_memory(frame.pc, walk.read) => return Err(Ending::UnknownCode),
            Rule::Signal | Rule::UnknownCode => {
                signal::step(&mut walk.registers, walk.read).ok_or(Ending::UnreadableStack)?;
                FrameKind::Exact
            }
            Rule::NeverCalled => {
                frame.kind = FrameKind::Exact;
                return Err(Ending::Complete);
            }
            Rule::Outermost => return Err(Ending::Complete),
            Rule::Missing => return Err(Ending::NoUnwindInfo),
            Rule::NoCallSite => return Err(Ending::Inconsistent),
        };
        // A signal handler may have a stack of its own anywhere.
        if next == FrameKind::ReturnAddress && walk.get(RSP)? <= stack {
            self.check_stack_switch(walk)?;
        }
        Ok(next)
    }

    fn rule_of(&mut self, frame: &RawFrame) -> Rule {
        // Few frames are interrupted by signals: no need to remember those.
        if frame.kind == FrameKind::Exact {
            return self.find_rule(*frame);
        }
        if let Some(rule) = self.rules.get(frame.pc) {
            return rule;
        }
        let rule = self.find_rule(*frame);
        self.rules.insert(frame.pc, rule);
        rule
    }

    fn find_rule(&mut self, frame: RawFrame) -> Rule {
        let Some((Unwindable { module, cfi, program }, lookup)) = self.live.find(frame) else {
            return Rule::UnknownCode;
        };
        let (pc, lookup) = (module.file_address(frame.pc), module.file_address(lookup));
        if module.image_bytes_from(pc).is_some_and(signal::is_trampoline) {
            return Rule::Signal;
        }
        if frame.kind == FrameKind::ReturnAddress && module.code_from(pc).is_some() && !self.live.follows_call(frame.pc)
        {
            return if cfi.starts_at(pc) { Rule::NeverCalled } else { Rule::NoCallSite };
        }
        match evaluate::rule(cfi, lookup, &mut self.context) {
            Rule::Missing if is_entry_code(module, lookup) => Rule::Outermost,
            Rule::Missing => match inference::infer(program, pc, frame.kind) {
                Some(Inferred::Frame(rule)) => Rule::Inferred(rule),
                Some(Inferred::Outermost) => Rule::Outermost,
                None if cfi.is_empty() => Rule::FramePointer,
                None => Rule::Missing,
            },
            rule => rule,
        }
    }

    /// A caller at a lower address is on another stack (coroutines, `-fsplit-stack`), or the walk is lost.
    fn check_stack_switch(&self, walk: &mut Walk<'_, '_>) -> Result<(), Ending> {
        /// More than nested stacks need; ends loops.
        const MOST: u32 = 8;
        let pc = walk.get(RIP)?;
        walk.stack_switches += 1;
        if walk.stack_switches <= MOST && (pc == 0 || self.live.follows_call(pc)) {
            Ok(())
        } else {
            Err(Ending::Inconsistent)
        }
    }
}

impl Live {
    /// The module of a frame, and the address to look up in it: a call may be the last instruction of its function.
    fn find(&self, frame: RawFrame) -> Option<(&Unwindable, u64)> {
        let lookup = match frame.kind {
            FrameKind::Exact | FrameKind::Thread => frame.pc,
            FrameKind::ReturnAddress => frame.pc.wrapping_sub(1),
        };
        let after = self.spans.partition_point(|(range, _)| range.start <= lookup);
        let (range, index) = self.spans.get(after.checked_sub(1)?)?;
        range.contains(&lookup).then(|| (&self.modules[*index], lookup))
    }

    /// True if the instruction before `return_address` is a call.
    fn follows_call(&self, return_address: u64) -> bool {
        let frame = RawFrame { pc: return_address, kind: FrameKind::ReturnAddress };
        self.find(frame).is_some_and(|(Unwindable { module, .. }, _)| {
            let end = module.file_address(return_address);
            let before = |length: usize| module.image_bytes(end.wrapping_sub(length as u64), length);
            (1..=call_site::LONGEST).rev().find_map(before).is_some_and(call_site::ends_with_call)
        })
    }
}

impl<'r, 'm> Walk<'r, 'm> {
    fn new(registers: &Registers, read: &'r mut ReadWord<'m>) -> Self {
        Walk {
            registers: FrameRegisters::new(registers),
            read,
            by_frame_pointer: false,
            is_guess: false,
            stack_switches: 0,
        }
    }

    fn get(&mut self, register: Number) -> Result<u64, Ending> {
        self.registers.get(register, self.read).ok_or(Ending::UnreadableStack)
    }

    /// The caller of code without unwind information, if it keeps a frame pointer: `push %rbp; mov %rsp, %rbp`.
    fn step_by_frame_pointer(&mut self, stack: u64) -> Result<FrameKind, Ending> {
        let frame_pointer = self.get(RBP)?;
        // The psABI (3.4.1) asks that the outermost frame be marked so.
        if frame_pointer == 0 {
            return Err(Ending::Complete);
        }
        if frame_pointer % 8 != 0 || frame_pointer < stack {
            return Err(Ending::NoUnwindInfo);
        }
        let return_address = (self.read)(frame_pointer.wrapping_add(8)).ok_or(Ending::NoUnwindInfo)?;
        self.registers.set_saved_at(RBP, frame_pointer);
        self.registers.set(RSP, frame_pointer.wrapping_add(16));
        self.registers.set(RIP, return_address);
        self.by_frame_pointer = true;
        Ok(FrameKind::ReturnAddress)
    }
}

/// The rule table of a module, for those who walk stacks by it. `debug_file` as in [`Unwinder::update`].
#[must_use]
pub fn rule_rows(module: &Module, debug_file: &mut dyn FnMut(&Module) -> Option<Image>) -> Vec<Row> {
    rules::rows(module, &cfi_of(module, debug_file))
}

/// A module's own call frame information, and that of its separate debug file if there is little.
fn cfi_of(module: &Module, debug_file: &mut dyn FnMut(&Module) -> Option<Image>) -> Cfi {
    /// Less than a byte of frame description for so many of code is that of start-up code only (musl).
    const SPARSE: u64 = 100;
    /// As much describes the start-up code of a program that has nothing else described.
    const START_UP: u64 = 256;
    let mut cfi = Cfi::of_module(module);
    let code: u64 = module.segments.iter().filter(|segment| segment.executable).map(|it| it.file_size).sum();
    if (cfi.size() as u64) < START_UP.max(code / SPARSE)
        && let Some(image) = debug_file(module)
    {
        cfi.add_debug_frame(Cfi::of_image(&image));
    }
    cfi
}

/// True for the code where the kernel starts a program or its dynamic linker, which often has no description.
fn is_entry_code(module: &Module, address: u64) -> bool {
    module.entry != 0 && address.checked_sub(module.entry).is_some_and(|offset| offset < ENTRY_CODE)
}

/// A little more than the entry code of any C library.
pub(super) const ENTRY_CODE: u64 = 64;

/// True if the code at `pc`, in no module, is a signal trampoline.
fn is_trampoline_in_memory(pc: u64, read: &mut ReadWord<'_>) -> bool {
    let (Some(first), Some(second)) = (read(pc), read(pc.wrapping_add(8))) else { return false };
    let mut code = [0; 16];
    code[..8].copy_from_slice(&first.to_le_bytes());
    code[8..].copy_from_slice(&second.to_le_bytes());
    signal::is_trampoline(&code)
}

#[cfg(test)]
mod tests;
