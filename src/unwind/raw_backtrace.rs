//! A call stack as the unwinder leaves it: run-time addresses.

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
    /// The thread, if stacks of different threads are to be told apart.
    pub thread: Option<u32>,
}

impl Default for RawBacktrace {
    fn default() -> Self {
        RawBacktrace { frames: Vec::new(), ending: Ending::UnknownCode, by_frame_pointer: false, thread: None }
    }
}

impl RawBacktrace {
    /// Empties it and puts the innermost frame there.
    pub(super) fn begin(&mut self, pc: u64) {
        self.frames.clear();
        self.frames.push(RawFrame { pc, kind: FrameKind::Exact });
        self.by_frame_pointer = false;
        self.thread = None;
    }

    /// The same, relative to the modules that are mapped now.
    #[must_use]
    pub fn to_backtrace(&self, modules: &ModuleMap) -> Backtrace {
        let frames = self.frames.iter().map(|frame| {
            // A call that never returns may be the last instruction of its module's segment.
            let within = match frame.kind {
                FrameKind::Exact | FrameKind::Thread => frame.pc,
                FrameKind::ReturnAddress => frame.pc.wrapping_sub(1),
            };
            match modules.lookup(within) {
                Some((module, _)) => {
                    Frame { module: Some(module.id), kind: frame.kind, address: module.file_address(frame.pc) }
                }
                None => Frame { module: None, kind: frame.kind, address: frame.pc },
            }
        });
        let mut backtrace =
            Backtrace { frames: frames.collect(), ending: self.ending, by_frame_pointer: self.by_frame_pointer };
        if self.ending == Ending::UnknownCode
            && self.frames.last().is_some_and(|frame| modules.is_return_trampoline(frame.pc))
        {
            // It stands where the return address was.
            backtrace.frames.pop();
            backtrace.ending = Ending::HiddenByProbe;
        }
        let thread = |tid: u32| Frame { module: None, kind: FrameKind::Thread, address: tid.into() };
        backtrace.frames.extend(self.thread.map(thread));
        backtrace
    }
}
