//! What is printed: lines while monitoring goes on, and the final statistics. One file a format.

mod diagnosis;
mod text;

use std::sync::Arc;

use memleax_platform::ExitStatus;

use crate::event::Ending;
use crate::symbol::NamedFrame;
use crate::tracker::Limit;

pub use diagnosis::write_diagnosis;
pub use text::Text;

/// A call stack as it is printed, innermost frame first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedStack {
    /// At least the allocator's entry.
    pub frames: Vec<Arc<NamedFrame>>,
    /// Why it ends.
    pub ending: Ending,
    /// Frames beyond one are a guess, as it was found by the frame pointer.
    pub by_frame_pointer: bool,
}

/// Why monitoring ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The target ended by itself.
    TargetEnded(ExitStatus),
    /// A limit (`-m`, `-c`) was reached.
    Limit(Limit),
    /// The user or `--duration` ended it, or it broke off.
    Terminated,
}
