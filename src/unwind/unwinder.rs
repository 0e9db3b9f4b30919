//! The walk from registers and stack to a backtrace.

use std::sync::Arc;

use memleax_platform::Registers;

use super::image::Image;
use super::module::Module;
use super::module_map::ModuleMap;
use crate::event::{Backtrace, Ending, Frame, FrameKind};

/// One frame of a [`RawBacktrace`]: a run-time address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RawFrame {
    /// The instruction, or the one after the call.
    pub pc: u64,
    /// Which of both.
    pub kind: FrameKind,
}

/// A call stack by run-time addresses, meant to be used again for each unwinding: so it costs no allocation.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RawBacktrace {
    /// Innermost first.
    pub frames: Vec<RawFrame>,
    /// Why it ends.
    pub ending: Ending,
    /// See [`Backtrace::by_frame_pointer`].
    pub by_frame_pointer: bool,
}

impl Default for RawBacktrace {
    fn default() -> Self {
        RawBacktrace { frames: Vec::new(), ending: Ending::UnknownCode, by_frame_pointer: false }
    }
}

impl RawBacktrace {
    /// The same, relative to the modules that are mapped now.
    #[must_use]
    pub fn to_backtrace(&self, modules: &ModuleMap) -> Backtrace {
        let frames = self.frames.iter().map(|frame| {
            // A call that never returns may be the last instruction of its module's segment.
            let within = match frame.kind {
                FrameKind::Exact => frame.pc,
                FrameKind::ReturnAddress => frame.pc.wrapping_sub(1),
            };
            match modules.lookup(within) {
                Some((module, _)) => {
                    Frame { module: Some(module.id), kind: frame.kind, address: module.file_address(frame.pc) }
                }
                None => Frame { module: None, kind: frame.kind, address: frame.pc },
            }
        });
        Backtrace { frames: frames.collect(), ending: self.ending, by_frame_pointer: self.by_frame_pointer }
    }
}

/// Walks stacks by the call frame information of the live modules.
#[derive(Debug, Default)]
pub struct Unwinder {
    live: Vec<Arc<Module>>,
}

impl Unwinder {
    /// Learns of the modules that are live now; to be called after each [`ModuleMap::refresh`] that changed something.
    /// `debug_file` finds the separate debug file of a module without unwind information of its own.
    pub fn update(&mut self, modules: &ModuleMap, debug_file: &mut dyn FnMut(&Module) -> Option<Image>) {
        self.live = modules.live().to_vec();
        self.live.iter().for_each(|module| drop(debug_file(module)));
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
        backtrace.frames.clear();
        backtrace.by_frame_pointer = false;
        backtrace.frames.push(RawFrame { pc: registers.rip, kind: FrameKind::Exact });
        backtrace.ending = match read(registers.rsp) {
            None => Ending::UnreadableStack,
            Some(_) if depth < 2 => Ending::DepthLimit,
            Some(pc) => {
                backtrace.frames.push(RawFrame { pc, kind: FrameKind::ReturnAddress });
                Ending::NoUnwindInfo
            }
        };
    }

    /// The stack of a thread stopped anywhere.
    pub fn unwind_from_registers(
        &mut self,
        registers: &Registers,
        _read: &mut dyn FnMut(u64) -> Option<u64>,
        _depth: usize,
        backtrace: &mut RawBacktrace,
    ) {
        backtrace.frames.clear();
        backtrace.by_frame_pointer = false;
        backtrace.frames.push(RawFrame { pc: registers.rip, kind: FrameKind::Exact });
        backtrace.ending = Ending::NoUnwindInfo;
    }
}
