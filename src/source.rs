//! The tracker's feed: one interface for every way to observe a target.

use memleax_platform::ExitStatus;

pub use crate::event::Sink;
use crate::stack::StackTable;
use crate::unwind::ModuleTable;

/// Whether there is more to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// The target runs on.
    Running,
    /// The target ended by itself; there is nothing left to detach from.
    TargetEnded(ExitStatus),
}

/// What is hooked in one module, for the start lines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HookedModule {
    /// The module's path as the target sees it.
    pub path: String,
    /// Names of the functions that are observed, in order of address.
    pub functions: Vec<&'static str>,
}

/// A remark of the source that the user must see, at the start or while monitoring goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// Allocator functions are observed in this module from now on.
    Hooked(HookedModule),
    /// Something cannot be seen or done; what, why, and what it costs.
    Warning(String),
    /// The target replaced its program by exec; monitoring goes on with the new one (its path).
    Exec(String),
}

/// A way to observe a target. Created attached.
pub trait Source {
    /// Observes for at most one tick (a fraction of a second) or until something worth the caller's attention
    /// happened; ends with [`Event::Idle`](crate::event::Event::Idle).
    ///
    /// # Errors
    /// Only when observation cannot go on at all.
    fn observe(&mut self, sink: &mut dyn Sink) -> Result<Progress, Box<dyn std::error::Error + Send + Sync>>;

    /// Takes what there is to tell since the last call.
    fn notices(&mut self) -> Vec<Notice>;

    /// Stops observing and leaves the target as it was found; verified. Returns what could not be put back, in words.
    ///
    /// # Errors
    /// When the target could not be left cleanly.
    fn detach(&mut self) -> Result<Vec<Notice>, Box<dyn std::error::Error + Send + Sync>>;

    /// The stacks that events named.
    fn stacks(&self) -> &StackTable;

    /// The modules that stacks name.
    fn modules(&self) -> &ModuleTable;
}
