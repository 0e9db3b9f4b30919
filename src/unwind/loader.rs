//! How the dynamic linker tells debuggers that libraries came or went.

use object::read::elf::ElfFile64;
use object::{LittleEndian, Object, ObjectSymbol};

use super::module::Module;

/// The function that the dynamic linker calls before and after it changes its list of libraries (`r_brk` of
/// `struct r_debug`, `<link.h>`): glibc and musl export it by the first name, FreeBSD's by the second.
const STATE_CHANGED: [&str; 2] = ["_dl_debug_state", "r_debug_state"];

/// Run-time address of the function that `interpreter` calls when libraries come or go.
#[must_use]
pub fn state_changed_function(interpreter: &Module) -> Option<u64> {
    let image = interpreter.image.as_ref()?;
    let file = ElfFile64::<LittleEndian>::parse(image.bytes()).ok()?;
    file.dynamic_symbols()
        .chain(file.symbols())
        .find(|symbol| symbol.is_definition() && symbol.name().is_ok_and(|name| STATE_CHANGED.contains(&name)))
        .map(|symbol| interpreter.run_time_address(symbol.address()))
}
