//! From an allocator's function to its probe: where it sits and what its cookie says.

use super::kernel::{Probe, Role};
use super::placement::{Placement, placement};
use crate::allocator::{Function, Hook, Shape, Size};
use crate::marker::Marker;
use crate::unwind::Module;

/// `SHAPE_…` and `COOKIE_…` of `layout.bpf.h`.
mod cookie {
    pub(super) const ALLOCATE: u64 = 1;
    pub(super) const ALLOCATE_INTO: u64 = 3;
    pub(super) const REALLOCATE: u64 = 4;
    pub(super) const EXPAND: u64 = 6;
    pub(super) const EXPAND_TO_SIZE: u64 = 7;
    pub(super) const FREE: u64 = 8;
    pub(super) const MAP: u64 = 9;
    pub(super) const REMAP: u64 = 10;
    pub(super) const UNMAP: u64 = 11;
    /// Added to [`ALLOCATE`] or [`REALLOCATE`]: the size is a product.
    pub(super) const PRODUCT: u64 = 1;
    pub(super) const FREES_ON_FAILURE: u64 = 1 << 20;
}

/// No code of an allocator's function beyond this is looked at.
const LONGEST: usize = 4096;

/// What a call means to the programs in the kernel.
struct Operands {
    shape: u64,
    /// Arguments: size, second factor of the size (or `mmap`'s flags, `mremap`'s old length), block or pointer.
    size: Option<u8>,
    factor: Option<u8>,
    block: Option<u8>,
    traps_return: bool,
}

/// The probe for a function, whose number is `number`. `None` if the module's code cannot be read, or the kernel's programs do not know what it does.
pub(super) fn probe(module: &Module, hook: &Hook, number: u32) -> Option<(Probe, Placement)> {
    let operands = operands(hook.function)?;
    let code = module.image_bytes_from(hook.address)?;
    let code = &code[..code.len().min(LONGEST)];
    let arguments: Vec<u8> = [operands.size, operands.factor, operands.block].into_iter().flatten().collect();
    let place = placement(code, &arguments, operands.traps_return);
    let address = hook.address + place.offset;
    let mut registers = place.registers.iter().copied();
    let mut register =
        |operand: Option<u8>, shift: u32| operand.and_then(|_| registers.next()).map_or(0, |it| u64::from(it) << shift);
    let registers = register(operands.size, 8) | register(operands.factor, 12) | register(operands.block, 16);
    let displacement = u64::from(place.displacement / 8) << 24;
    let probe = Probe {
        role: if operands.traps_return { Role::Call } else { Role::Free },
        offset: module.file_offset(address)?,
        address,
        cookie: operands.shape | registers | displacement | u64::from(number) << 32,
    };
    Some((probe, place))
}

/// The probe for a function that the user has named, whose calls are counted at `place`. `None` if the module's code cannot be read.
pub(super) fn marker(module: &Module, marker: &Marker, place: Option<u32>) -> Option<Probe> {
    let code = module.image_bytes_from(marker.address)?;
    let address = marker.address + placement(&code[..code.len().min(LONGEST)], &[], false).offset;
    // What is 0 is none.
    let number = |number: Option<u32>| number.map_or(0, |number| u64::from(number) + 1);
    let cookie = number(marker.purpose.snapshot) << 32 | number(place);
    Some(Probe { role: Role::Marker, offset: module.file_offset(address)?, address, cookie })
}

fn operands(function: &Function) -> Option<Operands> {
    let call = |shape: u64, size: Size, block: Option<u8>, product: u64| match size {
        Size::Argument(size) => Operands { shape, size: Some(size), factor: None, block, traps_return: true },
        Size::Product(size, factor) => {
            Operands { shape: shape + product, size: Some(size), factor: Some(factor), block, traps_return: true }
        }
        Size::Nothing => Operands { shape, size: None, factor: None, block, traps_return: true },
    };
    Some(match function.shape {
        Shape::Allocate { size } => call(cookie::ALLOCATE, size, None, cookie::PRODUCT),
        Shape::AllocateInto { out, size, .. } => call(cookie::ALLOCATE_INTO, size, Some(out), 0),
        Shape::Reallocate { block, size, frees_on_failure } => {
            let mut operands = call(cookie::REALLOCATE, size, Some(block), cookie::PRODUCT);
            operands.shape |= if frees_on_failure { cookie::FREES_ON_FAILURE } else { 0 };
            operands
        }
        Shape::Expand { block, size } => call(cookie::EXPAND, size, Some(block), 0),
        Shape::ExpandToSize { block, size } => call(cookie::EXPAND_TO_SIZE, size, Some(block), 0),
        Shape::Free { block } => {
            Operands { shape: cookie::FREE, size: None, factor: None, block: Some(block), traps_return: false }
        }
        Shape::Initialize { .. } | Shape::Retain { .. } | Shape::Release { .. } => return None,
        Shape::Map { length, flags } => {
            Operands { shape: cookie::MAP, size: Some(length), factor: Some(flags), block: None, traps_return: true }
        }
        Shape::Remap { address, old_length, new_length } => Operands {
            shape: cookie::REMAP,
            size: Some(new_length),
            factor: Some(old_length),
            block: Some(address),
            traps_return: true,
        },
        Shape::Unmap { address, length } => Operands {
            shape: cookie::UNMAP,
            size: Some(length),
            factor: None,
            block: Some(address),
            traps_return: false,
        },
    })
}
