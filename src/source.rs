//! The tracker's feed: one interface for every way to observe a target.

use memleax_platform::{ExitStatus, Pid};

pub use crate::event::{Class, HookedModule, Notice, Sink};
use crate::event::{StackId, Timestamp};
use crate::histogram::Histogram;
use crate::notable::KnownBlock;
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

/// A process that the target has started, and that was observed to its end.
#[derive(Debug)]
pub struct Finished {
    /// The process.
    pub pid: Pid,
    /// The command line of each program that it has executed, in order.
    pub commands: Vec<Vec<String>>,
    /// How it ended; `None` if it goes on.
    pub status: Option<ExitStatus>,
    /// The stacks that its events named.
    pub stacks: StackTable,
    /// The modules that stacks name.
    pub modules: ModuleTable,
    /// What is to be told of it.
    pub notices: Vec<Notice>,
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

    /// Stops observing and leaves the target as it was found; verified. Tells `sink` what was counted until then, if that is not
    /// told yet. Returns what could not be put back, in words.
    ///
    /// # Errors
    /// When the target could not be left cleanly.
    fn detach(&mut self, sink: &mut dyn Sink) -> Result<Vec<Notice>, Box<dyn std::error::Error + Send + Sync>>;

    /// How the target has ended, if it has while processes that it started go on.
    fn target_ended(&self) -> Option<ExitStatus> {
        None
    }

    /// Takes the processes that the target has started and that are not observed any more, in order of their end. What happened in
    /// them was told after [`Sink::turn`].
    fn finished(&mut self) -> Vec<Finished> {
        Vec::new()
    }

    /// True if it tells each event as it happens; false if it counts itself and tells totals now and then.
    fn tells_events(&self) -> bool;

    /// Of a source that counts itself: some of the largest and of the oldest live blocks, at its last look.
    fn notable_blocks(&self) -> Vec<KnownBlock> {
        Vec::new()
    }

    /// Of a source that counts itself: how old the live blocks were at its last look, in seconds, by call stack, ascending.
    fn ages(&self) -> Vec<(StackId, Histogram)> {
        Vec::new()
    }

    /// Somebody wants to know how things are now. True if all is told that there is; else [`observe`](Self::observe) tells it the next
    /// time, unless that would cost too much.
    fn hasten(&mut self) -> bool {
        true
    }

    /// [`notable_blocks`](Self::notable_blocks) of objects of a class.
    fn notable_objects(&self, class: Class) -> Vec<KnownBlock> {
        let _ = class;
        Vec::new()
    }

    /// [`ages`](Self::ages) of objects of a class.
    fn object_ages(&self, class: Class) -> Vec<(StackId, Histogram)> {
        let _ = class;
        Vec::new()
    }

    /// Of a source that counts itself: the time of its last look at all blocks.
    fn last_look(&self) -> Option<Timestamp> {
        None
    }

    /// The stacks that events named.
    fn stacks(&self) -> &StackTable;

    /// The modules that stacks name.
    fn modules(&self) -> &ModuleTable;
}
