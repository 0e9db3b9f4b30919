//! Which stops of one thread belong to the same call of the program into the allocator.
//!
//! Allocators call each other (`realloc` calls `malloc`, `operator delete` calls `free`); such calls count once, as the
//! outermost. A call may also end without returning: an exception or a longjmp leaves it. All of this is decided from
//! stack pointers, which fall with each call (the stack grows down), and from the return address that stays in
//! the stack for as long as the call lasts.

use crate::event::CallId;
use crate::event::StackId;

use super::isa::native::RETURN_ADDRESS_SIZE;

/// Stack pointers further apart than this may be of different stacks (`sigaltstack`, coroutines).
const SAME_STACK: u64 = 1 << 20;

/// What a call into the allocator will have done once it returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// The result is the block.
    Allocate {
        /// Bytes asked for.
        size: u64,
    },
    /// The block's address is stored at `out`, the result is an error number.
    AllocateInto {
        /// Where.
        out: u64,
        /// Bytes asked for.
        size: u64,
        /// Whatever the result is.
        always: bool,
    },
    /// The object is in memory that the caller has, the result is an error number.
    Initialize {
        /// Its address.
        object: u64,
        /// Its bytes.
        size: u64,
        /// Whatever the result is.
        always: bool,
    },
    /// The result is the block that takes the place of `old`.
    Reallocate {
        /// Names the call in events.
        call: CallId,
        /// The old block; not 0.
        old: u64,
        /// The new size.
        size: u64,
        /// A failure frees the old block, too (`reallocf`).
        frees_on_failure: bool,
    },
    /// `mmap` of anonymous memory.
    Map {
        /// Bytes asked for.
        size: u64,
    },
    /// The block is resized where it is, or not at all.
    Expand {
        /// Names the call in events.
        call: CallId,
        /// The block; not 0.
        block: u64,
        /// The size wanted.
        size: u64,
        /// The result is the size that the block has then, else the block or NULL.
        to_size: bool,
    },
    /// `mremap`.
    Remap {
        /// First byte.
        from: u64,
        /// Bytes of the old mapping.
        from_size: u64,
        /// Bytes asked for.
        size: u64,
    },
}

/// A call that has been entered and whose return is awaited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Pending {
    /// The function's entry.
    pub(super) function: u64,
    /// Where it will return to.
    pub(super) return_address: u64,
    /// The stack pointer just after it has returned.
    pub(super) returned_sp: u64,
    /// What it does.
    pub(super) purpose: Purpose,
    /// Who called it.
    pub(super) stack: StackId,
    /// How many calls within it were passed over.
    pub(super) nested: u32,
}

impl Pending {
    /// Where in the stack its return address is for as long as it lasts.
    pub(super) fn return_slot(&self) -> u64 {
        self.returned_sp.wrapping_sub(RETURN_ADDRESS_SIZE)
    }
}

/// What the entry into a function that allocates is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    /// A call of the program.
    Outermost,
    /// A call within the awaited one.
    Nested,
    /// A call of the program. The one that was awaited can no longer return.
    Supersedes(Pending),
}

/// A call that frees. Its return is not awaited.
#[derive(Clone, Copy, Debug)]
struct Release {
    address: u64,
    sp: u64,
    return_address: Option<u64>,
    /// The functions that took part, outermost first; unused places are 0.
    functions: [u64; 4],
}

/// What the entry into a function that frees is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ReleaseEntry {
    /// A call of the program.
    Outermost,
    /// A call within the one before, whose function is `within`.
    Nested {
        /// Entry of the outermost function.
        within: u64,
    },
}

/// A call that adds a reference to an object, or takes one. Its return is not awaited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Count {
    /// It takes one.
    pub(super) releases: bool,
    /// The function's entry.
    pub(super) function: u64,
    /// The object.
    pub(super) object: u64,
    /// The stack pointer at the entry, where its return address is.
    pub(super) sp: u64,
    pub(super) return_address: u64,
}

/// One thread's calls of the functions of one class.
#[derive(Debug, Default)]
pub(super) struct Calls {
    pending: Option<Pending>,
    release: Option<Release>,
    count: Option<Count>,
    /// Breakpoints that will be hit once more without a new call, as a signal came first: address and stack pointer.
    rewound: Vec<(u64, u64)>,
}

impl Calls {
    /// The call whose return is awaited.
    pub(super) fn pending(&self) -> Option<&Pending> {
        self.pending.as_ref()
    }

    /// Takes note of an entry into a `function` that allocates. `lasts` tells if a call's return address is still in
    /// its place; it is asked only where stack pointers do not decide.
    pub(super) fn enter(&mut self, function: u64, sp: u64, lasts: impl FnOnce(&Pending) -> bool) -> Entry {
        self.release = None;
        let Some(pending) = &mut self.pending else { return Entry::Outermost };
        let slot = pending.return_slot();
        let above = sp > slot && sp - slot < SAME_STACK;
        let repeated = sp == slot && function == pending.function;
        if !above && !repeated && lasts(pending) {
            pending.nested += 1;
            return Entry::Nested;
        }
        let superseded = *pending;
        self.pending = None;
        Entry::Supersedes(superseded)
    }

    /// From now on the return of this call is awaited.
    pub(super) fn await_return(&mut self, pending: Pending) {
        self.pending = Some(pending);
    }

    /// The call that returned, if the thread came to `return_address` by the awaited return.
    pub(super) fn leave(&mut self, return_address: u64, sp: u64) -> Option<Pending> {
        let returned = self.pending.take_if(|p| p.return_address == return_address && p.returned_sp == sp);
        if returned.is_some() {
            self.release = None;
        }
        returned
    }

    /// Takes note of an entry into a `function` that frees `address`. `return_address` is that of this call, if it is
    /// known; `word` reads the stack.
    pub(super) fn release(
        &mut self,
        function: u64,
        address: u64,
        sp: u64,
        return_address: Option<u64>,
        word: impl FnOnce(u64) -> Option<u64>,
    ) -> ReleaseEntry {
        if let Some(outer) = &mut self.release
            && outer.address == address
            && sp <= outer.sp
            && !outer.functions.contains(&function)
            && let Some(place) = outer.functions.iter_mut().find(|place| **place == 0)
            && outer.return_address.is_none_or(|expected| word(outer.sp) == Some(expected))
        {
            *place = function;
            return ReleaseEntry::Nested { within: outer.functions[0] };
        }
        self.release = Some(Release { address, sp, return_address, functions: [function, 0, 0, 0] });
        ReleaseEntry::Outermost
    }

    /// Takes note of a call that counts references. Returns the one within which it may have been made: to tell for sure takes a look at the stack.
    pub(super) fn count(&mut self, count: Count) -> Option<Count> {
        let outer = self.count.replace(count)?;
        let is_akin = outer.releases == count.releases && outer.object == count.object;
        (is_akin && outer.function != count.function && count.sp <= outer.sp).then_some(outer)
    }

    /// The call noted last was made within `outer`.
    pub(super) fn is_within(&mut self, outer: Count) {
        self.count = Some(outer);
    }

    /// The thread's program counter was put back to a breakpoint that it had passed.
    pub(super) fn rewind(&mut self, breakpoint: u64, sp: u64) {
        self.rewound.push((breakpoint, sp));
    }

    /// True if this hit is the one that [`rewind`](Self::rewind) announced.
    pub(super) fn was_rewound(&mut self, breakpoint: u64, sp: u64) -> bool {
        // Frames that lie below were left, by a signal handler that jumped out.
        self.rewound.retain(|&(_, rewound_sp)| rewound_sp >= sp || sp - rewound_sp >= SAME_STACK);
        let before = self.rewound.len();
        self.rewound.retain(|&rewound| rewound != (breakpoint, sp));
        self.rewound.len() < before
    }

    /// True if some hit was announced by [`rewind`](Self::rewind).
    pub(super) fn has_rewound(&self) -> bool {
        !self.rewound.is_empty()
    }

    /// Forgets the awaited call: its thread has ended, or it is known to be gone.
    pub(super) fn abandon(&mut self) -> Option<Pending> {
        self.pending.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MALLOC: u64 = 0x1000;
    const CALLOC: u64 = 0x1100;
    const FREE: u64 = 0x1200;
    const DELETE: u64 = 0x1300;
    const SITE: u64 = 0x2005;

    fn call(function: u64, entry_sp: u64) -> Pending {
        Pending {
            function,
            return_address: SITE,
            returned_sp: entry_sp + 8,
            purpose: Purpose::Allocate { size: 8 },
            stack: StackId(0),
            nested: 0,
        }
    }

    fn awaiting(function: u64, entry_sp: u64) -> Calls {
        let mut calls = Calls::default();
        assert_eq!(calls.enter(function, entry_sp, |_| unreachable!()), Entry::Outermost);
        calls.await_return(call(function, entry_sp));
        calls
    }

    #[test]
    fn a_return_is_matched_by_address_and_stack_pointer() {
        let mut calls = awaiting(MALLOC, 0x7000);
        assert_eq!(calls.leave(SITE, 0x7000), None);
        assert_eq!(calls.leave(SITE + 1, 0x7008), None);
        assert_eq!(calls.leave(SITE, 0x7008), Some(call(MALLOC, 0x7000)));
        assert_eq!(calls.leave(SITE, 0x7008), None);
    }

    #[test]
    fn a_deeper_entry_is_nested_while_the_return_address_is_in_its_place() {
        let mut calls = awaiting(MALLOC, 0x7000);
        assert_eq!(calls.enter(CALLOC, 0x6f00, |_| true), Entry::Nested);
        assert_eq!(calls.enter(MALLOC, 0x6e00, |_| true), Entry::Nested);
        assert!(calls.leave(SITE, 0x7008).is_some());
    }

    #[test]
    fn a_deeper_entry_supersedes_a_call_whose_return_address_is_gone() {
        let mut calls = awaiting(MALLOC, 0x7000);
        assert_eq!(calls.enter(CALLOC, 0x6f00, |_| false), Entry::Supersedes(call(MALLOC, 0x7000)));
        assert_eq!(calls.pending(), None);
    }

    #[test]
    fn a_tail_call_is_nested() {
        let mut calls = awaiting(CALLOC, 0x7000);
        assert_eq!(calls.enter(MALLOC, 0x7000, |_| true), Entry::Nested);
    }

    #[test]
    fn a_repeated_call_supersedes() {
        let mut calls = awaiting(MALLOC, 0x7000);
        assert!(matches!(calls.enter(MALLOC, 0x7000, |_| true), Entry::Supersedes(_)));
    }

    #[test]
    fn an_entry_from_an_outer_frame_supersedes_without_a_look_at_the_stack() {
        let mut calls = awaiting(MALLOC, 0x7000);
        assert!(matches!(calls.enter(MALLOC, 0x7080, |_| unreachable!()), Entry::Supersedes(_)));
    }

    #[test]
    fn an_entry_on_another_stack_is_decided_by_the_return_address() {
        let mut calls = awaiting(MALLOC, 0x7000);
        assert_eq!(calls.enter(MALLOC, 0x7000 + SAME_STACK * 2, |_| true), Entry::Nested);
        assert!(matches!(calls.enter(MALLOC, 0x7000 + SAME_STACK * 2, |_| false), Entry::Supersedes(_)));
    }

    #[test]
    fn delete_that_calls_free_is_one_release() {
        let mut calls = Calls::default();
        let word = |at| (at == 0x7000).then_some(SITE);
        assert_eq!(calls.release(DELETE, 0xb10c, 0x7000, Some(SITE), word), ReleaseEntry::Outermost);
        assert_eq!(calls.release(FREE, 0xb10c, 0x6ff0, None, word), ReleaseEntry::Nested { within: DELETE });
        // The same address handed out by another thread, and passed on to this one.
        assert_eq!(calls.release(DELETE, 0xb10c, 0x7000, Some(SITE), word), ReleaseEntry::Outermost);
        assert_eq!(calls.release(FREE, 0xb10c, 0x7000, None, word), ReleaseEntry::Nested { within: DELETE });
        assert_eq!(calls.release(FREE, 0xb10c, 0x7000, None, word), ReleaseEntry::Outermost);
    }

    #[test]
    fn a_release_by_another_call_is_another_release() {
        let mut calls = Calls::default();
        assert_eq!(calls.release(DELETE, 0xb10c, 0x7000, Some(SITE), |_| None), ReleaseEntry::Outermost);
        assert_eq!(calls.release(FREE, 0xb10c, 0x7000, None, |_| Some(SITE + 8)), ReleaseEntry::Outermost);
        assert_eq!(
            calls.release(DELETE, 0xb10c, 0x7000, None, |_| unreachable!()),
            ReleaseEntry::Nested { within: FREE }
        );
        assert_eq!(calls.release(FREE, 0xb200, 0x6ff0, None, |_| unreachable!()), ReleaseEntry::Outermost);
    }

    #[test]
    fn the_same_function_twice_is_two_releases() {
        let mut calls = Calls::default();
        for _ in 0..3 {
            assert_eq!(calls.release(FREE, 0xb10c, 0x7000, None, |_| unreachable!()), ReleaseEntry::Outermost);
        }
    }

    #[test]
    fn a_call_in_between_ends_a_release() {
        let mut calls = Calls::default();
        calls.release(DELETE, 0xb10c, 0x7000, None, |_| unreachable!());
        calls.enter(MALLOC, 0x7000, |_| unreachable!());
        assert_eq!(calls.release(FREE, 0xb10c, 0x6ff0, None, |_| unreachable!()), ReleaseEntry::Outermost);
    }

    #[test]
    fn a_rewound_hit_is_recognised_once() {
        let mut calls = Calls::default();
        calls.rewind(MALLOC, 0x7000);
        assert!(!calls.was_rewound(MALLOC, 0x6000));
        assert!(calls.was_rewound(MALLOC, 0x7000));
        assert!(!calls.was_rewound(MALLOC, 0x7000));
    }

    #[test]
    fn a_rewound_hit_is_forgotten_once_its_frame_was_left() {
        let mut calls = Calls::default();
        calls.rewind(MALLOC, 0x7000);
        assert!(!calls.was_rewound(FREE, 0x7100));
        assert!(!calls.has_rewound());
    }
}
