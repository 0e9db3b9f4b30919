//! What is printed: lines while monitoring goes on, and the final statistics. One file a format.

mod diagnosis;
mod text;
mod wording;

use memleax_platform::ExitStatus;

use crate::tracker::Limit;

pub use diagnosis::write_diagnosis;
pub use text::Text;

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
