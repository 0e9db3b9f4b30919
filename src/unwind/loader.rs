//! How the dynamic linker tells debuggers that libraries came or went (`<link.h>`, `struct r_debug`).

use object::read::elf::ElfFile64;
use object::{LittleEndian, Object, ObjectSymbol};

use super::module::Module;

/// The function that it calls before and after it changes its list of libraries (`r_brk`): glibc and musl export it by the first
/// name, FreeBSD's by the second.
const STATE_CHANGED: [&str; 2] = ["_dl_debug_state", "r_debug_state"];

/// The `struct r_debug`, as glibc and FreeBSD export it.
const STATE: [&str; 2] = ["_r_debug", "r_debug"];

/// A pointer to it, as musl exports it.
const STATE_POINTER: [&str; 1] = ["_dl_debug_addr"];

/// Offset of `r_state` in `struct r_debug`, and its value between changes (`RT_CONSISTENT`).
const R_STATE: u64 = 24;
const CONSISTENT: u32 = 0;

/// Run-time address of the function that `interpreter` calls when libraries come or go.
#[must_use]
pub fn state_changed_function(interpreter: &Module) -> Option<u64> {
    symbol(interpreter, &STATE_CHANGED)
}

/// Where a dynamic linker tells what it does.
#[derive(Clone, Copy, Debug)]
pub struct LoaderState {
    /// Run-time address of the function that it calls when libraries come or go.
    pub changed: u64,
    /// Run-time address of the state, or of a pointer to it.
    state: u64,
    is_pointer: bool,
}

impl LoaderState {
    /// That of `interpreter`, if it exports what is needed.
    #[must_use]
    pub fn of(interpreter: &Module) -> Option<Self> {
        let changed = state_changed_function(interpreter)?;
        match symbol(interpreter, &STATE) {
            Some(state) => Some(Self { changed, state, is_pointer: false }),
            None => symbol(interpreter, &STATE_POINTER).map(|state| Self { changed, state, is_pointer: true }),
        }
    }

    /// True if all libraries that are to be there are there. `read` copies memory and returns how many bytes were readable; what
    /// cannot be read counts as consistent.
    pub fn is_consistent(&self, read: &mut dyn FnMut(u64, &mut [u8]) -> usize) -> bool {
        let mut state = self.state;
        if self.is_pointer {
            let mut pointer = [0; 8];
            if read(self.state, &mut pointer) != pointer.len() {
                return true;
            }
            state = u64::from_le_bytes(pointer);
        }
        let mut value = [0; 4];
        read(state.wrapping_add(R_STATE), &mut value) != value.len() || u32::from_le_bytes(value) == CONSISTENT
    }
}

/// Run-time address of the symbol that has one of these names.
fn symbol(module: &Module, names: &[&str]) -> Option<u64> {
    let image = module.image.as_ref()?;
    let file = ElfFile64::<LittleEndian>::parse(image.bytes()).ok()?;
    file.dynamic_symbols()
        .chain(file.symbols())
        .find(|symbol| symbol.is_definition() && symbol.name().is_ok_and(|name| names.contains(&name)))
        .map(|symbol| module.run_time_address(symbol.address()))
}
