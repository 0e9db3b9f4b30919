//! What a source tells: events, the call stacks they name, when they happened; and remarks for the user.

use std::time::Duration;

use memleax_platform::Pid;

/// Nanoseconds since monitoring began. Time is data: the source hands it out, nobody else asks a clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The time from `earlier` to `self`; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// What kind of thing a block is: memory, or an object of one of the types that the user has named (`--object`). Each class has books of its
/// own: an object's address is usually a block of memory's, too, and both count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Class(pub u8);

impl Class {
    /// Memory.
    pub const MEMORY: Class = Class(0);

    /// How many types of objects there may be: classes 1 to this.
    pub const MOST_TYPES: usize = 31;

    /// The class of the type of that place in the user's list. Places beyond [`MOST_TYPES`](Self::MOST_TYPES) are for whoever makes the list to refuse.
    #[must_use]
    pub fn of_type(place: usize) -> Class {
        Class(u8::try_from(place + 1).unwrap_or(u8::MAX))
    }

    /// The place of its type in the user's list; `None` for memory.
    #[must_use]
    pub fn type_place(self) -> Option<usize> {
        usize::from(self.0).checked_sub(1)
    }
}

/// A module (executable, shared library, vdso) ever seen mapped in the target: an index into the source's
/// append-only module table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ModuleId(pub u32);

/// What the address of a [`Frame`] is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FrameKind {
    /// The instruction itself: an allocator's entry, or where a signal interrupted.
    Exact,
    /// The instruction after a call: names and lines are those of the byte before.
    ReturnAddress,
    /// No code: beyond the outermost caller, the id of the thread (`--by-thread`).
    Thread,
}

/// One frame of a call stack, kept relative to its module so that it survives the module's unloading.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Frame {
    /// The module; `None` for code in no file (JIT).
    pub module: Option<ModuleId>,
    /// What `address` is.
    pub kind: FrameKind,
    /// The address as the module's own file counts it (`run-time address - load bias`); the run-time address where there
    /// is no module.
    pub address: u64,
}

/// Why a backtrace ends where it does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ending {
    /// At the outermost frame: the unwind information says that nothing called it.
    Complete,
    /// At the depth that the user asked for; there are more callers.
    DepthLimit,
    /// The last frame's module has unwind information, but none for this address.
    NoUnwindInfo,
    /// The last frame is in no module (JIT code, unloaded library).
    UnknownCode,
    /// A uprobe on the last frame's return hides from where it was called (another tool's).
    HiddenByProbe,
    /// The stack could not be read there.
    UnreadableStack,
    /// The unwind information contradicts the stack (the stack pointer did not move towards its base).
    Inconsistent,
}

/// A call stack, innermost (the allocator's entry) first.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Backtrace {
    /// At least the allocator's entry.
    pub frames: Vec<Frame>,
    /// Why it ends.
    pub ending: Ending,
    /// A frame was found by the frame pointer because its module has no unwind information at all: frames beyond are a
    /// guess.
    pub by_frame_pointer: bool,
}

/// A distinct [`Backtrace`]: an index into the source's [`StackTable`](crate::stack::StackTable), dense from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StackId(pub u32);

/// A call into the allocator that has begun and not yet returned.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CallId(pub u64);

/// Something that the target did, or that the source could not see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A block was handed to the program. Failed allocations are no events.
    Allocated {
        /// First byte.
        address: u64,
        /// As the program asked (may be 0).
        size: u64,
        /// Who asked.
        stack: StackId,
    },
    /// A block is given back. An address that is not a tracked block's is one from before monitoring began.
    Freed {
        /// As passed to the deallocator; never 0.
        address: u64,
    },
    /// `realloc(address, …)` was entered. Until [`Event::Reallocated`] or [`Event::ReallocFailed`] of the same call, another
    /// thread may be handed the old address.
    Reallocating {
        /// Names the call until its end.
        call: CallId,
        /// The old block; never 0.
        address: u64,
    },
    /// A realloc succeeded.
    Reallocated {
        /// As in [`Event::Reallocating`].
        call: CallId,
        /// The new block; may equal the old.
        address: u64,
        /// The new size.
        size: u64,
        /// Who asked.
        stack: StackId,
    },
    /// A realloc failed, or its caller's thread ended within: the old block stays as it was.
    ReallocFailed {
        /// As in [`Event::Reallocating`].
        call: CallId,
    },
    /// A realloc gave the old block back and made no new one: `realloc(p, 0)` of glibc, a failed `reallocf`.
    ReallocFreed {
        /// As in [`Event::Reallocating`].
        call: CallId,
    },
    /// Anonymous memory was mapped (`--mmap`); whatever mapping was tracked in the range is gone. A size that is no
    /// multiple of the page is preceded by an [`Event::Unmapped`] if it lies over older mappings.
    Mapped {
        /// First byte.
        address: u64,
        /// Bytes, as the program asked.
        size: u64,
        /// Who asked.
        stack: StackId,
    },
    /// The mapped blocks in this range are gone in whole or in part (`--mmap`).
    Unmapped {
        /// First byte.
        address: u64,
        /// Bytes, whole pages: as the kernel does it, not as the program asked.
        size: u64,
    },
    /// `mremap` succeeded (`--mmap`). In place, the mapping keeps its age and its stack; moved, it is a new one.
    Remapped {
        /// First byte of the old range.
        from: u64,
        /// Bytes of the old range, whole pages.
        from_size: u64,
        /// First byte of the new range; may equal `from`.
        address: u64,
        /// Bytes of the new range, as the program asked.
        size: u64,
        /// Who asked.
        stack: StackId,
    },
    /// One more reference to an object.
    Retained {
        /// The object.
        address: u64,
    },
    /// One reference to an object less. It begins with one, and is gone with the last.
    Released {
        /// The object.
        address: u64,
    },
    /// So many frees, more than were told of, of addresses that are not tracked blocks'. Told by sources that keep the books themselves.
    UnknownFrees(u64),
    /// So many blocks, more than were told of, were resized where they were; with the bytes that they had before. Told by sources that keep
    /// the books themselves.
    Resized(Tally),
    /// A function that the user has named (`--snapshot-at`, by its place there) was called: a snapshot is to be taken of what was told until
    /// now.
    Marked(u32),
    /// Functions that the user has named (`--reference`) were called so many times more than were told of.
    Called {
        /// The place of its name there.
        reference: u32,
        /// Calls.
        count: u64,
    },
    /// Nothing happened until now: time for expiry.
    Idle,
    /// The program was replaced (exec): all blocks that were told of one by one are gone without having been freed.
    Replaced,
    /// Something was not seen, so many times, so the numbers are too low or a stack is wrong.
    Lost(Loss, u64),
}

impl Event {
    /// True if it concerns the process as a whole, and so its objects, too.
    #[must_use]
    pub fn concerns_objects(self) -> bool {
        matches!(self, Event::Idle | Event::Replaced | Event::Called { .. })
    }
}

/// Takes events as they happen. Implemented by the tracker.
pub trait Sink {
    /// Takes one event. Times never go back.
    fn event(&mut self, at: Timestamp, event: Event);

    /// Takes what a source that keeps the books itself has counted for one call stack since monitoring began. Such a source
    /// tells of blocks in no other way.
    fn counted(&mut self, at: Timestamp, stack: StackId, totals: &Totals);

    /// Takes one event in the life of an object. Of events only [`Event::Allocated`], [`Event::Freed`], [`Event::Retained`],
    /// [`Event::Released`] and, by who keeps the books, [`Event::UnknownFrees`] are told so: what is not seen ([`Event::Lost`]), and all that concerns the process, is told once by
    /// [`event`](Self::event), for all classes.
    fn object(&mut self, at: Timestamp, class: Class, event: Event) {
        let _ = (at, class, event);
    }

    /// [`counted`](Self::counted) for objects of a class. Call stacks are numbered as those of memory.
    fn object_counted(&mut self, at: Timestamp, class: Class, stack: StackId, totals: &Totals) {
        let _ = (at, class, stack, totals);
    }

    /// What is told from now on happened in `process`: the target, or one that it has started.
    fn turn(&mut self, process: Pid) {
        let _ = process;
    }

    /// A process that the target has started is observed from now on: with a copy of the memory of `copy_of`, or with none of it.
    fn born(&mut self, at: Timestamp, process: Pid, copy_of: Option<Pid>) {
        let _ = (at, process, copy_of);
    }
}

/// A number of blocks and their bytes. Bytes wrap: sizes are the target's word.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// Blocks.
    pub count: u64,
    /// Their bytes together.
    pub bytes: u64,
}

/// The counters of one call stack, kept by a source.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Totals {
    /// All blocks.
    pub allocated: Tally,
    /// All whose free was seen.
    pub freed: Tally,
    /// Those gone without: their address was handed out again.
    pub unseen_frees: Tally,
    /// Those that went away with a program that was replaced (exec).
    pub dropped: Tally,
    /// All that ever expired.
    pub expired: Tally,
    /// Those of them that were freed.
    pub freed_expired: Tally,
    /// Size of the block that expired last.
    pub last_expired: u64,
    /// How long the block lived that was freed last after its expiry.
    pub last_freed_expired: Duration,
    /// The shortest, longest and total life of the freed blocks.
    pub lives: (Duration, Duration, Duration),
    /// When the oldest live block was allocated.
    pub oldest: Option<Timestamp>,
}

impl Tally {
    /// The two together.
    #[must_use]
    pub fn plus(self, other: Tally) -> Tally {
        Tally { count: self.count + other.count, bytes: self.bytes.wrapping_add(other.bytes) }
    }

    /// What is left when `part`, which is counted in `self`, is taken away.
    #[must_use]
    pub fn without(self, part: Tally) -> Tally {
        Tally { count: self.count.wrapping_sub(part.count), bytes: self.bytes.wrapping_sub(part.bytes) }
    }
}

impl Totals {
    /// Adds what was counted for the same call stack under another name.
    pub fn add(&mut self, other: &Totals) {
        let (min, max, total) = self.lives;
        self.lives = match (self.freed.count, other.freed.count) {
            (0, _) => other.lives,
            (_, 0) => self.lives,
            _ => (min.min(other.lives.0), max.max(other.lives.1), total + other.lives.2),
        };
        self.allocated = self.allocated.plus(other.allocated);
        self.freed = self.freed.plus(other.freed);
        self.expired = self.expired.plus(other.expired);
        self.unseen_frees = self.unseen_frees.plus(other.unseen_frees);
        self.dropped = self.dropped.plus(other.dropped);
        self.freed_expired = self.freed_expired.plus(other.freed_expired);
        self.last_expired = self.last_expired.max(other.last_expired);
        self.last_freed_expired = self.last_freed_expired.max(other.last_freed_expired);
        self.oldest = match (self.oldest, other.oldest) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
}

/// What was not seen. Every loss reaches the report.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Loss {
    /// An allocation whose return could not be observed (no breakpoint could be set at its return address).
    ReturnUnobservable,
    /// A call into the allocator that never returned (longjmp, exception, thread ended within).
    NeverReturned,
    /// An allocation whose stack could not be read at all.
    NoStack,
    /// A call into the allocator for which the source had no room: what it did is not counted.
    NotFollowed,
    /// An allocation for which the source had no room; should it leak, it is missing.
    BlockNotKept,
    /// An allocation for whose call stack the source had no room.
    StackNotKept,
    /// A call of `mmap`, `mremap` or `munmap` for which the source had no room.
    MappingNotKept,
    /// A call at which a snapshot was to be taken, and was not.
    SnapshotNotTaken,
    /// A call that was to be counted (`--reference`), and was not.
    CallNotCounted,
    /// An event that the recording of each single one (`--full`) has not, for lack of room until it could be written.
    EventNotRecorded,
}

impl Loss {
    /// All kinds. Recordings number them so: others are appended.
    pub const ALL: [Loss; 10] = [
        Loss::ReturnUnobservable,
        Loss::NeverReturned,
        Loss::NoStack,
        Loss::NotFollowed,
        Loss::BlockNotKept,
        Loss::StackNotKept,
        Loss::MappingNotKept,
        Loss::SnapshotNotTaken,
        Loss::CallNotCounted,
        Loss::EventNotRecorded,
    ];

    /// Its name in formats for machines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Loss::ReturnUnobservable => "return_unobservable",
            Loss::NeverReturned => "never_returned",
            Loss::NoStack => "no_stack",
            Loss::NotFollowed => "not_followed",
            Loss::BlockNotKept => "block_not_kept",
            Loss::StackNotKept => "stack_not_kept",
            Loss::MappingNotKept => "mapping_not_kept",
            Loss::SnapshotNotTaken => "snapshot_not_taken",
            Loss::CallNotCounted => "call_not_counted",
            Loss::EventNotRecorded => "event_not_recorded",
        }
    }
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
