//! Sets breakpoints: at functions, and at the addresses they return to.

use iced_x86::Instruction;
use memleax_platform::{Error, Guard, Stop, Tracer};

use super::breakpoints::{Breakpoint, Meaning, Passage, Permanence};
use super::engine::Engine;
use super::isa::native::{self, Unmovable};
use super::slots::SlotError;

/// Why no breakpoint can be set somewhere.
#[derive(Debug, thiserror::Error)]
pub(super) enum SiteError {
    /// Somebody changed the code: another debugger's breakpoint, an uprobe, a patch.
    #[error("the code there differs from the file it is mapped from")]
    Altered,
    /// A breakpoint would be seen by other processes, or change a file.
    #[error("the memory there is shared with other processes")]
    Shared,
    /// There is no memory.
    #[error("the memory there is unreadable")]
    Unreadable,
    /// The instruction can be executed nowhere else.
    #[error("the instruction there cannot be displaced: {0}")]
    Unmovable(#[from] Unmovable),
    /// A request failed.
    #[error(transparent)]
    Platform(#[from] Error),
}

/// The program's own code at an address.
struct Code {
    bytes: [u8; native::LONGEST_INSTRUCTION],
    length: usize,
    permanence: Permanence,
}

impl<T: Tracer> Engine<T> {
    /// Sets a breakpoint, or gives the one there another meaning besides.
    pub(super) fn set_breakpoint(&mut self, stop: &Stop, address: u64, meaning: Meaning) -> Result<(), SiteError> {
        if let Some(present) = self.breakpoints.get_mut(address) {
            let present = &mut present.meaning;
            present.function = present.function.or(meaning.function);
            present.has_objects |= meaning.has_objects;
            present.purpose = present.purpose.and(meaning.purpose);
            present.is_loader_state |= meaning.is_loader_state;
            return Ok(());
        }
        let Code { bytes, length, permanence } = self.code_at(stop, address)?;
        let instruction = native::decode(&bytes[..length], address)?;
        let original = bytes[0];
        let passage = match self.code_refused {
            Some(_) => Passage::Emulate(instruction),
            None => match self.slots.place(&mut self.tracer, stop, &instruction, &bytes) {
                Ok(slot) => Passage::Slot(slot),
                // The guard can only send a thread to a slot.
                Err(SlotError::Unmovable(why)) if self.is_guarded => return Err(why.into()),
                Err(SlotError::Unmovable(_)) => Passage::Emulate(instruction),
                // Whoever meets the breakpoint makes up for it.
                Err(SlotError::Platform(Error::NotNow { .. })) if !self.is_guarded => Passage::Late(instruction),
                Err(SlotError::Platform(error @ Error::Remote { .. })) => {
                    self.refuse_code(error.to_string());
                    Passage::Emulate(instruction)
                }
                Err(SlotError::Platform(error)) => return Err(error.into()),
            },
        };
        if let Passage::Slot(slot) = passage
            && self.is_guarded
        {
            self.tracer.guard(stop, Guard { breakpoint: address, slot, original })?;
        }
        #[allow(clippy::cast_possible_truncation)]
        let length = instruction.len() as u8;
        let breakpoint = Breakpoint { original, length, passage, meaning, permanence };
        self.breakpoints.insert(&mut self.tracer, stop, address, breakpoint)?;
        self.counters.breakpoints += 1;
        Ok(())
    }

    /// How to get past a breakpoint whose slot is still to be made, by the first thread that has met it.
    pub(super) fn place_late(&mut self, stop: &Stop, instruction: Instruction) -> Result<Passage, Error> {
        let address = instruction.ip();
        let mut bytes = [0; native::LONGEST_INSTRUCTION];
        let readable = self.tracer.read(stop, address, &mut bytes)?;
        self.breakpoints.mask(address, &mut bytes[..readable]);
        let passage = match self.slots.place(&mut self.tracer, stop, &instruction, &bytes) {
            Ok(slot) => Passage::Slot(slot),
            Err(SlotError::Platform(error @ Error::Gone(_))) => return Err(error),
            Err(SlotError::Platform(Error::NotNow { .. })) => return Ok(Passage::Emulate(instruction)),
            Err(SlotError::Platform(error @ Error::Remote { .. })) => {
                self.refuse_code(error.to_string());
                Passage::Emulate(instruction)
            }
            Err(_) => Passage::Emulate(instruction),
        };
        if let Some(breakpoint) = self.breakpoints.get_mut(address) {
            breakpoint.passage = passage;
        }
        Ok(passage)
    }

    /// Makes sure that there is a breakpoint where a call will return to. False if there cannot be one.
    pub(super) fn is_awaitable(&mut self, stop: &Stop, return_address: u64) -> Result<bool, Error> {
        if let Some(breakpoint) = self.breakpoints.get_mut(return_address) {
            if let Permanence::WhileAwaited(calls) = &mut breakpoint.permanence {
                *calls += 1;
            }
            return Ok(true);
        }
        if self.unobservable.contains(&return_address) {
            return Ok(false);
        }
        match self.set_breakpoint(stop, return_address, Meaning::default()) {
            Ok(()) => {
                if let Some(breakpoint) = self.breakpoints.get_mut(return_address)
                    && let Permanence::WhileAwaited(calls) = &mut breakpoint.permanence
                {
                    *calls = 1;
                }
                Ok(true)
            }
            Err(SiteError::Platform(error @ Error::Gone(_))) => Err(error),
            Err(error) => {
                self.unobservable.insert(return_address);
                let place = self.describe(return_address);
                self.complain(format!(
                    "cannot observe what the allocator returns to {place}: {error}; its blocks are missed"
                ));
                Ok(false)
            }
        }
    }

    /// A call returned to this address; perhaps nobody waits there any more.
    pub(super) fn no_longer_awaited(&mut self, stop: &Stop, return_address: u64) -> Result<(), Error> {
        let Some(breakpoint) = self.breakpoints.get_mut(return_address) else { return Ok(()) };
        let Permanence::WhileAwaited(calls) = &mut breakpoint.permanence else { return Ok(()) };
        *calls = calls.saturating_sub(1);
        if *calls == 0 {
            self.breakpoints.lift(&mut self.tracer, stop, return_address)?;
        }
        Ok(())
    }

    /// An address for messages.
    pub(super) fn describe(&self, address: u64) -> String {
        match self.images.map().lookup(address) {
            Some((module, in_file)) => format!("{}+{in_file:#x}", module.path.display()),
            None => format!("{address:#x}"),
        }
    }

    fn code_at(&mut self, stop: &Stop, address: u64) -> Result<Code, SiteError> {
        if !self.images.mapping(address).is_some_and(|mapping| mapping.executable) {
            // A library or JIT code of which no one told.
            self.refresh_images(stop)?;
        }
        let mapping = self.images.mapping(address).ok_or(SiteError::Unreadable)?;
        if mapping.shared {
            return Err(SiteError::Shared);
        }
        let mut memory = [0; native::LONGEST_INSTRUCTION];
        let readable = self.tracer.read(stop, address, &mut memory)?;
        self.breakpoints.mask(address, &mut memory[..readable]);
        if readable == 0 {
            return Err(SiteError::Unreadable);
        }
        let module = self.images.map().lookup(address);
        let Some((module, _)) = module else {
            return Ok(Code { bytes: memory, length: readable, permanence: Permanence::WhileAwaited(0) });
        };
        let mut file = [0; native::LONGEST_INSTRUCTION];
        let in_file = (1..=readable).rev().find(|&length| module.original_bytes(address, &mut file[..length]));
        // A copy of memory (the vdso, a file that cannot be read) tells no more than memory.
        let Some(in_file) = in_file else {
            return Ok(Code { bytes: memory, length: readable, permanence: Permanence::Lasting });
        };
        let length = native::decode(&file[..in_file], address)?.len();
        if file[..length] != memory[..length] {
            return Err(SiteError::Altered);
        }
        Ok(Code { bytes: file, length: in_file, permanence: Permanence::Lasting })
    }
}
