//! Which functions only forward to another function of the table: by a look at their first instructions.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Mnemonic, OpKind};
use object::read::elf::ElfFile64;
use object::{LittleEndian, Object, ObjectSegment, ObjectSymbol, ObjectSymbolTable, RelocationTarget};
use rustc_hash::{FxHashMap, FxHashSet};

use super::Function;

/// A module's code, and what its calls lead to.
pub(super) struct Forwarding<'a> {
    file: &'a ElfFile64<'a, LittleEndian>,
    /// Addresses of functions of the table in this module.
    own: &'a FxHashMap<u64, usize>,
    /// Addresses of pointers that the dynamic linker fills with the address of a function of the table.
    slots: FxHashSet<u64>,
}

/// Where the first call or jump of a piece of code leads.
enum Transfer {
    Call(u64),
    Jump(u64),
    Through { slot: u64 },
}

impl<'a> Forwarding<'a> {
    pub(super) fn new(
        file: &'a ElfFile64<'a, LittleEndian>,
        own: &'a FxHashMap<u64, usize>,
        table: &'static [Function],
    ) -> Self {
        let names: FxHashSet<&str> = table.iter().map(|function| function.name).collect();
        let mut slots = FxHashSet::default();
        if let (Some(relocations), Some(symbols)) = (file.dynamic_relocations(), file.dynamic_symbol_table()) {
            for (slot, relocation) in relocations {
                let RelocationTarget::Symbol(symbol) = relocation.target() else { continue };
                let name = symbols.symbol_by_index(symbol).ok().and_then(|symbol| symbol.name().ok());
                if name.is_some_and(|name| names.contains(name)) {
                    slots.insert(slot);
                }
            }
        }
        Forwarding { file, own, slots }
    }

    /// True if the first thing that the function at `address` does, whatever its arguments, is to call or jump to
    /// another function of the table.
    pub(super) fn forwards(&self, address: u64) -> bool {
        const MOST_JUMPS: usize = 4;
        let mut at = address;
        for _ in 0..MOST_JUMPS {
            match self.first_transfer(at) {
                Some(Transfer::Through { slot }) => return self.slots.contains(&slot),
                Some(Transfer::Call(target) | Transfer::Jump(target)) if self.own.contains_key(&target) => {
                    return target != address;
                }
                // Only a PLT entry: what else is called may allocate for itself.
                Some(Transfer::Call(target)) => {
                    return self.plt_slot(target).is_some_and(|it| self.slots.contains(&it));
                }
                Some(Transfer::Jump(target)) => at = target,
                None => return false,
            }
        }
        false
    }

    /// `None` if there is a decision or a return first, or nothing recognisable.
    fn first_transfer(&self, address: u64) -> Option<Transfer> {
        const MOST_INSTRUCTIONS: usize = 24;
        let code = self.code(address)?;
        let decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
        for instruction in decoder.into_iter().take(MOST_INSTRUCTIONS) {
            match instruction.flow_control() {
                FlowControl::Next => {}
                FlowControl::Call if instruction.op0_kind() == OpKind::NearBranch64 => {
                    return Some(Transfer::Call(instruction.near_branch_target()));
                }
                FlowControl::UnconditionalBranch if instruction.op0_kind() == OpKind::NearBranch64 => {
                    return Some(Transfer::Jump(instruction.near_branch_target()));
                }
                FlowControl::IndirectCall | FlowControl::IndirectBranch if instruction.is_ip_rel_memory_operand() => {
                    return Some(Transfer::Through { slot: instruction.ip_rel_memory_address() });
                }
                _ => return None,
            }
        }
        None
    }

    /// The pointer that a PLT entry jumps through.
    fn plt_slot(&self, address: u64) -> Option<u64> {
        let decoder = Decoder::with_ip(64, self.code(address)?, address, DecoderOptions::NONE);
        let jump = decoder.into_iter().find(|instruction| instruction.mnemonic() != Mnemonic::Endbr64)?;
        let is_jump = jump.flow_control() == FlowControl::IndirectBranch && jump.is_ip_rel_memory_operand();
        is_jump.then(|| jump.ip_rel_memory_address())
    }

    fn code(&self, address: u64) -> Option<&'a [u8]> {
        self.file.segments().find_map(|segment| {
            let data = segment.data().ok()?;
            data.get(usize::try_from(address.checked_sub(segment.address())?).ok()?..)
        })
    }
}
