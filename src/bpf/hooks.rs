//! From an allocator's function to its probe: where it sits and what its cookie says.

use super::kernel::{Probe, Role};
use super::layout::CLASS_SHIFT;
use super::placement::{Placement, placement};
use crate::allocator::{Class, Function, Hook, Shape, Size};
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
    pub(super) const RETAIN: u64 = 12;
    pub(super) const RELEASE: u64 = 13;
    pub(super) const INITIALIZE: u64 = 14;
    /// Added to [`ALLOCATE`] or [`REALLOCATE`]: the size is a product.
    pub(super) const PRODUCT: u64 = 1;
    pub(super) const FREES_ON_FAILURE: u64 = 1 << 20;
    pub(super) const ALWAYS: u64 = 1 << 21;
    /// Added to [`ALLOCATE_INTO`] or [`INITIALIZE`]: the size is a product.
    pub(super) const BY_FACTOR: u64 = 1 << 22;
    /// In place of a register.
    pub(super) const NO_REGISTER: u64 = 15;
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

/// The probe for a function, whose number is `number`. `None` if the module's code cannot be read.
pub(super) fn probe(module: &Module, hook: &Hook, number: u32) -> Option<(Probe, Placement)> {
    let operands = operands(hook.function);
    let code = module.image_bytes_from(hook.address)?;
    let code = &code[..code.len().min(LONGEST)];
    let arguments: Vec<u8> = [operands.size, operands.factor, operands.block].into_iter().flatten().collect();
    let place = placement(code, &arguments, operands.traps_return);
    let address = hook.address + place.offset;
    let probe = Probe {
        role: if operands.traps_return { Role::Call } else { Role::Free },
        offset: module.file_offset(address)?,
        address,
        cookie: cookie(&operands, &place, number, hook.function.class),
    };
    Some((probe, place))
}

fn cookie(operands: &Operands, place: &Placement, number: u32, class: Class) -> u64 {
    let mut registers = place.registers.iter().copied();
    let mut register = |operand: Option<u8>, shift: u32| {
        operand.and_then(|_| registers.next()).map_or(cookie::NO_REGISTER, u64::from) << shift
    };
    let registers = register(operands.size, 8) | register(operands.factor, 12) | register(operands.block, 16);
    let displacement = u64::from(place.displacement / 8) << 24;
    let function = u64::from(number) << 32 | u64::from(class.0) << CLASS_SHIFT;
    operands.shape | registers | displacement | function
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

fn operands(function: &Function) -> Operands {
    let call = |shape: u64, size: Size, block: Option<u8>, product: u64| match size {
        Size::Argument(size) => Operands { shape, size: Some(size), factor: None, block, traps_return: true },
        Size::Product(size, factor) => {
            Operands { shape: shape + product, size: Some(size), factor: Some(factor), block, traps_return: true }
        }
        Size::Nothing => Operands { shape, size: None, factor: None, block, traps_return: true },
    };
    let immediate =
        |shape: u64, block: u8| Operands { shape, size: None, factor: None, block: Some(block), traps_return: false };
    let whatever = |always: bool| if always { cookie::ALWAYS } else { 0 };
    match function.shape {
        Shape::Allocate { size } => call(cookie::ALLOCATE, size, None, cookie::PRODUCT),
        Shape::AllocateInto { out, size, always } => {
            call(cookie::ALLOCATE_INTO | whatever(always), size, Some(out), cookie::BY_FACTOR)
        }
        Shape::Initialize { object, size, always } => {
            call(cookie::INITIALIZE | whatever(always), size, Some(object), cookie::BY_FACTOR)
        }
        Shape::Reallocate { block, size, frees_on_failure } => {
            let mut operands = call(cookie::REALLOCATE, size, Some(block), cookie::PRODUCT);
            operands.shape |= if frees_on_failure { cookie::FREES_ON_FAILURE } else { 0 };
            operands
        }
        Shape::Expand { block, size } => call(cookie::EXPAND, size, Some(block), 0),
        Shape::ExpandToSize { block, size } => call(cookie::EXPAND_TO_SIZE, size, Some(block), 0),
        Shape::Free { block } => immediate(cookie::FREE, block),
        Shape::Retain { object } => immediate(cookie::RETAIN, object),
        Shape::Release { object } => immediate(cookie::RELEASE, object),
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocator::Family;
    use crate::bpf::layout::CLASSES;

    fn function(class: Class, shape: Shape) -> Function {
        Function { name: "f", shape, family: Family::Own, class }
    }

    /// Registers by their numbers in `struct pt_regs`: rdi 14, rsi 13, rdx 12.
    fn cookie_of(class: Class, shape: Shape, registers: &[u8]) -> u64 {
        let place = Placement { offset: 0, registers: registers.to_vec(), displacement: 16, emulated: true };
        cookie(&operands(&function(class, shape)), &place, 0x12_3456, class)
    }

    #[test]
    fn a_cookie_says_what_a_call_does_to_what() {
        let malloc = Shape::Allocate { size: Size::Argument(0) };
        assert_eq!(cookie_of(Class::MEMORY, malloc, &[14]), 0x0012_3456_020f_fe01);
        let calloc = Shape::Allocate { size: Size::Product(0, 1) };
        assert_eq!(cookie_of(Class::MEMORY, calloc, &[14, 13]), 0x0012_3456_020f_de02);
        let open = Shape::AllocateInto { out: 1, size: Size::Nothing, always: true };
        assert_eq!(cookie_of(Class(31), open, &[13]), 0x1f12_3456_022d_ff03);
        let file = Shape::AllocateInto { out: 0, size: Size::Product(1, 2), always: false };
        assert_eq!(cookie_of(Class(3), file, &[13, 12, 14]), 0x0312_3456_024e_cd03);
        let up = Shape::Retain { object: 0 };
        assert_eq!(cookie_of(Class(1), up, &[14]), 0x0112_3456_020e_ff0c);
        let init = Shape::Initialize { object: 0, size: Size::Argument(2), always: false };
        assert_eq!(cookie_of(Class(2), init, &[12, 14]), 0x0212_3456_020e_fc0e);
    }

    /// There is room for every class that may be.
    #[test]
    fn both_sides_have_as_many_classes_as_the_user_may_name() {
        assert_eq!(CLASSES, Class::MOST_TYPES + 1);
    }
}
