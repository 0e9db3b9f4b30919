//! Functions that the user has named (`--snapshot-at`): which of them a module defines.

use std::collections::BTreeMap;
use std::ops::Deref;

use object::elf::{STT_FUNC, STT_GNU_IFUNC};
use object::read::elf::ElfFile64;
use object::{LittleEndian, Object, ObjectSymbol, SymbolKind};

/// How many names that are like a missing one are told.
const NEAR: usize = 3;

/// Names that differ by more characters are not alike.
const FARTHEST: usize = 2;

/// Shorter names are part of too many others to say anything.
const SHORTEST_PART: usize = 4;

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
    /// Names of other functions that are like it, the most alike first.
    near: Vec<(usize, String)>,
}

impl Markers {
    /// For functions of these names, as the linker knows them.
    #[must_use]
    pub fn new(names: &[String]) -> Markers {
        let wanted = |name: &String| Wanted { name: name.clone(), found: false, indirect: false, near: Vec::new() };
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
                    wanted.compare(name);
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
    /// Keeps a function's name if it is among the most alike.
    fn compare(&mut self, other: &str) {
        if self.found {
            return;
        }
        let Some(distance) = distance(&self.name, other) else { return };
        let place = self.near.partition_point(|(nearer, _)| *nearer <= distance);
        if place < NEAR && !self.near.iter().any(|(_, known)| known == other) {
            self.near.insert(place, (distance, other.to_owned()));
            self.near.truncate(NEAR);
        }
    }

    fn is_missing(&self) -> String {
        let name = &self.name;
        if self.indirect {
            return format!("cannot take snapshots at calls of {name}: which code it is, is chosen at run time");
        }
        let near: Vec<&str> = self.near.iter().map(|(_, name)| name.as_str()).collect();
        let near = if near.is_empty() { String::new() } else { format!("; like it are {}", near.join(", ")) };
        format!(
            "no function {name} yet: snapshots are taken at its calls once a library is loaded that has a symbol of that name{near}"
        )
    }
}

/// How far apart two names are; nothing for those that are not alike. A name that is part of the other (as in `_Z4markv`) is farther than one
/// that is misspelt.
fn distance(wanted: &str, other: &str) -> Option<usize> {
    let by_length = wanted.len().abs_diff(other.len());
    let misspelt = (by_length <= FARTHEST && wanted.len() > FARTHEST)
        .then(|| strsim::osa_distance(&wanted.to_lowercase(), &other.to_lowercase()))
        .filter(|&distance| distance <= FARTHEST);
    misspelt.or_else(|| (wanted.len() >= SHORTEST_PART && other.contains(wanted)).then_some(FARTHEST + by_length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alike_are_misspelt_names_and_those_with_the_name_in_them() {
        assert_eq!(distance("snapshot_here", "Snapshot_here"), Some(0));
        assert_eq!(distance("snapshot_here", "snapshot_heer"), Some(1));
        assert_eq!(distance("mark_now", "_Z8mark_nowv"), Some(6));
        assert_eq!(distance("mark_now", "free"), None);
        assert_eq!(distance("f", "g"), None);
    }

    #[test]
    fn the_most_alike_are_told_once() {
        let mut markers = Markers::new(&["mark_now".into()]);
        for name in ["_ZN4main8mark_nowEv", "mark_now_too", "mark_not", "mark_not", "mark_nov", "other"] {
            markers.wanted[0].compare(name);
        }
        let [text] = &markers.missing()[..] else { panic!("one is missing") };
        assert!(
            text.starts_with("no function mark_now yet")
                && text.ends_with("like it are mark_not, mark_nov, mark_now_too")
        );
    }
}
