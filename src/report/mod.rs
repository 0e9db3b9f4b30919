//! What is printed: lines while monitoring goes on, the final statistics, and profiles in the formats that other tools read. One
//! file a format.

pub mod answers;
mod backtrace;
mod collapsed;
mod csv;
mod diagnosis;
mod firefox;
mod flame;
mod flamegraph;
mod format;
mod gprof2dot;
mod heaptrack;
mod html;
pub mod human;
mod json;
mod json_lines;
mod lasting;
mod lists;
mod live;
mod machine_lines;
mod machine_table;
mod markup;
mod notes;
mod pprof;
mod progress;
mod style;
mod text;
mod tree;
mod trend_json;
mod views;
mod wording;

use memleax_platform::ExitStatus;

use crate::tracker::Limit;

pub use diagnosis::write_diagnosis;
pub use format::{Detail, Format, Scope, WriteError};
pub use json_lines::JsonLines;
pub use lasting::LastingFile;
pub use live::Live;
pub use machine_lines::MachineLines;
pub use machine_table::{MachineReport, MachineTable, Users, Window};
pub use progress::Progress;
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

#[cfg(test)]
mod tests;
