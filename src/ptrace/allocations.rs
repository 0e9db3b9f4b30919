//! From the entries and returns of functions to events.

use memleax_platform::{Error, Registers, Stop, Tracer};

use super::breakpoints::Permanence;
use super::callers::Caller;
use super::calls::{Count, Entry, Pending, Purpose, ReleaseEntry};
use super::engine::{Engine, Now};
use super::isa::native;
use crate::allocator::{Class, Family, Function, Shape, Size};
use crate::event::{CallId, Event, Loss};

/// A call within another is taken for that only as long as no more than this many follow each other; then the stack is
/// unwound to make sure.
const UNQUESTIONED_NESTED_CALLS: u32 = 16;

/// `MAP_FAILED` and, for allocators that return system call errors, whatever is above.
const HIGHEST_ADDRESS: u64 = (-4096_i64).cast_unsigned();

impl<T: Tracer> Engine<T> {
    /// A thread is at the first instruction of `function`.
    pub(super) fn entered(
        &mut self,
        stop: &Stop,
        function: &'static Function,
        registers: &Registers,
        now: &mut Now<'_>,
    ) -> Result<(), Error> {
        let argument = |index: u8| registers.argument(usize::from(index));
        let size_of = |size: Size| match size {
            Size::Argument(index) => Some(argument(index)),
            Size::Product(left, right) => argument(left).checked_mul(argument(right)),
            Size::Nothing => Some(0),
        };
        let purpose = match function.shape {
            Shape::Free { block } => return self.freeing(stop, function, argument(block), registers, now),
            Shape::Unmap { address, length } => {
                self.unmapping(argument(address), argument(length), now);
                return Ok(());
            }
            // A size beyond all bounds fails.
            Shape::Allocate { size } => size_of(size).map(|size| Purpose::Allocate { size }),
            Shape::AllocateInto { out, size, always } => {
                size_of(size).map(|size| Purpose::AllocateInto { out: argument(out), size, always })
            }
            Shape::Initialize { object, .. } if argument(object) == 0 => None,
            Shape::Initialize { object, size, always } => {
                size_of(size).map(|size| Purpose::Initialize { object: argument(object), size, always })
            }
            Shape::Retain { object } | Shape::Release { object } => {
                return self.counting(stop, function, argument(object), registers, now);
            }
            Shape::Reallocate { block, size, frees_on_failure } => {
                size_of(size).or(frees_on_failure.then_some(u64::MAX)).map(|size| match argument(block) {
                    0 => Purpose::Allocate { size },
                    old => Purpose::Reallocate { call: self.call_id(), old, size, frees_on_failure },
                })
            }
            Shape::Expand { block, size } | Shape::ExpandToSize { block, size } if argument(block) != 0 => {
                let to_size = matches!(function.shape, Shape::ExpandToSize { .. });
                size_of(size).map(|size| Purpose::Expand {
                    call: self.call_id(),
                    block: argument(block),
                    size,
                    to_size,
                })
            }
            Shape::Expand { .. } | Shape::ExpandToSize { .. } => None,
            Shape::Map { length, flags } => {
                (argument(flags) & T::MAP_ANONYMOUS != 0).then(|| Purpose::Map { size: argument(length) })
            }
            Shape::Remap { address, old_length, new_length } => Some(Purpose::Remap {
                from: argument(address),
                from_size: argument(old_length).checked_next_multiple_of(native::PAGE).unwrap_or(u64::MAX),
                size: argument(new_length),
            }),
        };
        match purpose {
            Some(purpose) => self.calling(stop, function.class, purpose, registers, now),
            None => Ok(()),
        }
    }

    fn call_id(&mut self) -> CallId {
        self.next_call += 1;
        CallId(self.next_call)
    }

    /// The entry into a function whose result matters.
    fn calling(
        &mut self,
        stop: &Stop,
        class: Class,
        purpose: Purpose,
        registers: &Registers,
        now: &mut Now<'_>,
    ) -> Result<(), Error> {
        let (function, sp) = (registers.rip, registers.rsp);
        let (tracer, counters) = (&mut self.tracer, &mut self.counters);
        let lasts = |pending: &Pending| {
            counters.extra_reads += 1;
            word(tracer, stop, pending.return_slot()) == Some(pending.return_address)
        };
        let Some(thread) = self.threads.get_mut(&stop.tid) else { return Ok(()) };
        match thread.calls_of(class).enter(function, sp, lasts) {
            Entry::Outermost => {}
            Entry::Nested => {
                let Some(pending) = thread.calls_of(class).pending().copied() else { return Ok(()) };
                if pending.nested % UNQUESTIONED_NESTED_CALLS != 0 {
                    return Ok(());
                }
                self.caller(stop, registers)?;
                if self.callers.last_contains(pending.return_address) {
                    return Ok(());
                }
                self.calls_of(stop, class).abandon();
                self.never_returned(&pending, now);
            }
            Entry::Supersedes(pending) => self.never_returned(&pending, now),
        }

        self.counters.allocations += 1;
        let Caller { stack, return_address, is_kept } = self.caller(stop, registers)?;
        let Some(return_address) = return_address else {
            now.emit(Event::Lost(Loss::NoStack, 1));
            return Ok(());
        };
        if !self.is_awaitable(stop, return_address)? {
            if let Purpose::Reallocate { old, .. } = purpose {
                now.emit(Event::Freed { address: old });
            }
            now.emit(Event::Lost(Loss::ReturnUnobservable, 1));
            return Ok(());
        }
        if !is_kept {
            now.emit(Event::Lost(Loss::StackNotKept, 1));
        }
        if let Purpose::Reallocate { call, old: address, .. } | Purpose::Expand { call, block: address, .. } = purpose {
            now.emit(Event::Reallocating { call, address });
        }
        let returned_sp = sp.wrapping_add(native::RETURN_ADDRESS_SIZE);
        let pending = Pending { function, return_address, returned_sp, purpose, stack, nested: 0 };
        self.calls_of(stop, class).await_return(pending);
        Ok(())
    }

    fn caller(&mut self, stop: &Stop, registers: &Registers) -> Result<Caller, Error> {
        let (unwinder, modules) = self.images.unwinding();
        self.callers.of(&mut self.tracer, stop, registers, unwinder, modules, &mut self.counters)
    }

    /// The entry into a function that frees: its effect is certain, so its return does not matter.
    fn freeing(
        &mut self,
        stop: &Stop,
        function: &'static Function,
        address: u64,
        registers: &Registers,
        now: &mut Now<'_>,
    ) -> Result<(), Error> {
        if address == 0 {
            return Ok(());
        }
        let sp = registers.rsp;
        let (tracer, counters) = (&mut self.tracer, &mut self.counters);
        let mut word = |address| {
            counters.extra_reads += 1;
            word(tracer, stop, address)
        };
        let Some(thread) = self.threads.get_mut(&stop.tid) else { return Ok(()) };
        let calls = thread.calls_of(function.class);
        // realloc may free the old block itself; whatever else a call frees (a new-handler's reserve) is free.
        if let Some(pending) = calls.pending()
            && matches!(pending.purpose, Purpose::Reallocate { old, .. } if old == address)
            && word(pending.return_slot()) == Some(pending.return_address)
        {
            return Ok(());
        }
        let wraps = self.wrappers.contains(&registers.rip);
        let return_address = if wraps { word(sp) } else { None };
        match calls.release(registers.rip, address, sp, return_address, word) {
            ReleaseEntry::Outermost => {
                tracing::trace!("{} of {address:#x} by thread {}", function.name, stop.tid);
                self.counters.releases += 1;
                now.tell(function.class, Event::Freed { address });
            }
            ReleaseEntry::Nested { within } => {
                self.wrappers.insert(within);
            }
        }
        Ok(())
    }

    /// The entry into a function that adds or takes a reference: its effect is certain, too.
    fn counting(
        &mut self,
        stop: &Stop,
        function: &'static Function,
        object: u64,
        registers: &Registers,
        now: &mut Now<'_>,
    ) -> Result<(), Error> {
        let releases = matches!(function.shape, Shape::Release { .. });
        let sp = registers.rsp;
        if object == 0 {
            return Ok(());
        }
        let mut word = |address| {
            self.counters.extra_reads += 1;
            word(&mut self.tracer, stop, address)
        };
        let Some(return_address) = word(sp) else {
            now.emit(Event::Lost(Loss::NoStack, 1));
            return Ok(());
        };
        let Some(thread) = self.threads.get_mut(&stop.tid) else { return Ok(()) };
        let count = Count { releases, function: registers.rip, object, sp, return_address };
        if let Some(outer) = thread.calls_of(function.class).count(count)
            && word(outer.sp) == Some(outer.return_address)
        {
            // What a call has left in the stack may be there still.
            let is_tail_call = sp == outer.sp;
            let is_within = is_tail_call || {
                self.caller(stop, registers)?;
                self.callers.last_contains(outer.return_address)
            };
            if is_within {
                self.calls_of(stop, function.class).is_within(outer);
                return Ok(());
            }
        }
        tracing::trace!("{} of {object:#x} by thread {}", function.name, stop.tid);
        let address = object;
        now.tell(function.class, if releases { Event::Released { address } } else { Event::Retained { address } });
        Ok(())
    }

    /// The entry into `munmap`, which fails only where it is called wrongly.
    fn unmapping(&mut self, address: u64, length: u64, now: &mut Now<'_>) {
        if length != 0
            && address.is_multiple_of(native::PAGE)
            && let Some(size) = length.checked_next_multiple_of(native::PAGE)
        {
            self.counters.releases += 1;
            now.emit(Event::Unmapped { address, size });
        }
    }

    /// An awaited call has returned `result`.
    pub(super) fn returned(
        &mut self,
        stop: &Stop,
        class: Class,
        pending: &Pending,
        result: u64,
        now: &mut Now<'_>,
    ) -> Result<(), Error> {
        let stack = pending.stack;
        match pending.purpose {
            Purpose::Allocate { size } => {
                if result != 0 {
                    now.tell(class, Event::Allocated { address: result, size, stack });
                }
            }
            Purpose::AllocateInto { out, size, always } => {
                if always || is_zero(result) {
                    self.counters.extra_reads += 1;
                    match word(&mut self.tracer, stop, out) {
                        Some(0) | None => {}
                        Some(address) => now.tell(class, Event::Allocated { address, size, stack }),
                    }
                }
            }
            Purpose::Initialize { object: address, size, always } => {
                if always || is_zero(result) {
                    now.tell(class, Event::Allocated { address, size, stack });
                }
            }
            Purpose::Reallocate { call, size, frees_on_failure, .. } => now.emit(match result {
                0 if size == 0 || frees_on_failure => Event::ReallocFreed { call },
                0 => Event::ReallocFailed { call },
                address => Event::Reallocated { call, address, size, stack },
            }),
            Purpose::Expand { call, block, size, to_size } => {
                let succeeded = if to_size { result >= size } else { result != 0 };
                now.emit(match succeeded {
                    true => Event::Reallocated { call, address: block, size, stack },
                    false => Event::ReallocFailed { call },
                });
            }
            Purpose::Map { size } => {
                if result < HIGHEST_ADDRESS {
                    now.emit(Event::Mapped { address: result, size, stack });
                }
            }
            Purpose::Remap { from, from_size, size } => {
                if result < HIGHEST_ADDRESS {
                    now.emit(Event::Remapped { from, from_size, address: result, size, stack });
                }
            }
        }
        Ok(())
    }

    /// An awaited call will not return any more.
    pub(super) fn never_returned(&mut self, pending: &Pending, now: &mut Now<'_>) {
        if let Some(breakpoint) = self.breakpoints.get_mut(pending.return_address)
            && let Permanence::WhileAwaited(calls) = &mut breakpoint.permanence
        {
            *calls = calls.saturating_sub(1);
        }
        if let Purpose::Reallocate { call, .. } | Purpose::Expand { call, .. } = pending.purpose {
            now.emit(Event::ReallocFailed { call });
        }
        // operator new that throws hands out no block.
        let function = self.breakpoints.get(pending.function).and_then(|breakpoint| breakpoint.meaning.function);
        if function.is_none_or(|function| function.family != Family::Cxx) {
            now.emit(Event::Lost(Loss::NeverReturned, 1));
        }
    }
}

/// True if what a function that returns an int has returned is 0: the upper half of the register is undefined.
fn is_zero(result: u64) -> bool {
    result & u64::from(u32::MAX) == 0
}

/// 8 bytes of the target's memory.
fn word<T: Tracer>(tracer: &mut T, stop: &Stop, address: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    (tracer.read(stop, address, &mut bytes).ok()? == bytes.len()).then(|| u64::from_le_bytes(bytes))
}
