//! Functions that the user has named (`--snapshot-at`): which of them a module defines.

use std::collections::BTreeMap;
use std::ops::Deref;

use object::elf::{STT_FUNC, STT_GNU_IFUNC};
use object::read::elf::ElfFile64;
use object::{LittleEndian, Object, ObjectSymbol, SymbolKind};

use crate::likeness::Near;

/// A function each of whose calls is an [`Event::Marked`](crate::event::Event::Marked).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marker {
    /// Its name's place among those that the user gave.
    pub number: u32,
    /// Its first instruction, as the module's file counts addresses.
    pub address: u64,
}

/// The names, and what became of each.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Markers {
    wanted: Vec<Wanted>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Wanted {
    name: String,
    found: bool,
    /// Some module has it as a function whose code is chosen at run time.
    indirect: bool,
    near: Near,
}

impl Markers {
    /// For functions of these names, as the linker knows them.
    #[must_use]
    pub fn new(names: &[String]) -> Markers {
        let wanted =
            |name: &String| Wanted { name: name.clone(), found: false, indirect: false, near: Near::default() };
        Markers { wanted: names.iter().map(wanted).collect() }
    }

    /// The name of that number.
    #[must_use]
    pub fn name(&self, number: u32) -> &str {
        self.wanted.get(number as usize).map_or("", |wanted| &wanted.name)
    }

    /// Which of the functions a module defines, by address; each address once. `elf` is its file. Where that has lost its symbol table,
    /// `debug_file` is asked for a file that has one.
    pub fn of<File: Deref<Target = [u8]>>(
        &mut self,
        elf: &[u8],
        debug_file: impl FnOnce() -> Option<File>,
    ) -> Vec<Marker> {
        let mut found = BTreeMap::new();
        if !self.wanted.is_empty()
            && !self.collect(elf, &mut found)
            && let Some(debug_file) = debug_file()
        {
            self.collect(&debug_file, &mut found);
        }
        found.into_iter().map(|(address, number)| Marker { number, address }).collect()
    }

    /// What to tell the user of functions that no module has yet.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        self.wanted.iter().filter(|wanted| !wanted.found).map(Wanted::is_missing).collect()
    }

    /// False if the file has no symbol table but for what the dynamic linker needs.
    fn collect(&mut self, elf: &[u8], found: &mut BTreeMap<u64, u32>) -> bool {
        let Ok(file) = ElfFile64::<LittleEndian>::parse(elf) else { return true };
        for symbol in file.symbols().chain(file.dynamic_symbols()) {
            if symbol.is_undefined() || symbol.address() == 0 {
                continue;
            }
            let kind = symbol.elf_symbol().st_type();
            // What is written in assembly may have no type.
            let is_function = kind == STT_FUNC || symbol.kind() == SymbolKind::Text;
            if !is_function && kind != STT_GNU_IFUNC {
                continue;
            }
            let Ok(name) = symbol.name() else { continue };
            // Followed by a version.
            let name = name.split('@').next().unwrap_or(name);
            for (number, wanted) in (0..).zip(&mut self.wanted) {
                if wanted.name != name {
                    if !wanted.found {
                        wanted.near.compare(&wanted.name, name);
                    }
                } else if kind == STT_GNU_IFUNC {
                    wanted.indirect = true;
                } else {
                    wanted.found = true;
                    found.entry(symbol.address()).or_insert(number);
                }
            }
        }
        file.symbols().next().is_some()
    }
}

impl Wanted {
    fn is_missing(&self) -> String {
        let name = &self.name;
        if self.indirect {
            return format!("cannot take snapshots at calls of {name}: which code it is, is chosen at run time");
        }
        format!(
            "no function {name} yet: snapshots are taken at its calls once a library is loaded that has a symbol of that name{}",
            self.near
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_alike_are_told_once() {
        let mut markers = Markers::new(&["mark_now".into()]);
        for name in ["_ZN4main8mark_nowEv", "mark_now_too", "mark_not", "mark_not", "mark_nov", "other"] {
            markers.wanted[0].near.compare("mark_now", name);
        }
        let [text] = &markers.missing()[..] else { panic!("one is missing") };
        assert!(
            text.starts_with("no function mark_now yet")
                && text.ends_with("like it are mark_not, mark_nov, mark_now_too")
        );
    }
}
