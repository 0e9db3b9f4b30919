//! Functions that the user has named (`--snapshot-at`, `--reference`): which of them a module defines.

use std::collections::BTreeMap;
use std::ops::Deref;

use object::elf::{STT_FUNC, STT_GNU_IFUNC};
use object::read::elf::ElfFile64;
use object::{LittleEndian, Object, ObjectSymbol, SymbolKind};

use crate::likeness::Near;

/// A function whose calls are told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marker {
    /// Its first instruction, as the module's file counts addresses.
    pub address: u64,
    /// What for.
    pub purpose: Purpose,
}

/// What calls of a function are told of for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Purpose {
    /// Each is an [`Event::Marked`](crate::event::Event::Marked): the place of its name among those given for snapshots.
    pub snapshot: Option<u32>,
    /// They are counted ([`Event::Called`](crate::event::Event::Called)) for these.
    pub references: References,
}

impl Purpose {
    /// Both together. There is one snapshot a call, whatever names the function has.
    #[must_use]
    pub fn and(self, other: Purpose) -> Purpose {
        Purpose {
            snapshot: self.snapshot.or(other.snapshot),
            references: References(self.references.0 | other.references.0),
        }
    }
}

/// Some of the references, by the places of their names among those that the user gave.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct References(u64);

impl References {
    /// There may be so many at all.
    pub const MOST: usize = 64;

    /// Only this one; none if there are not so many.
    #[must_use]
    pub fn only(number: u32) -> References {
        References(1_u64.checked_shl(number).unwrap_or(0))
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Their numbers, ascending.
    pub fn iter(self) -> impl Iterator<Item = u32> {
        (0..u64::BITS).filter(move |number| self.0 >> number & 1 == 1)
    }
}

/// The names, and what became of each.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Markers {
    wanted: Vec<Wanted>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Wanted {
    name: String,
    purpose: Purpose,
    found: bool,
    /// Some module has it as a function whose code is chosen at run time.
    indirect: bool,
    near: Near,
}

impl Markers {
    /// For functions of these names, as the linker knows them: those whose calls take snapshots, and those whose calls are counted, of which
    /// the first [`References::MOST`] are.
    #[must_use]
    pub fn new(snapshot_at: &[String], references: &[String]) -> Markers {
        let wanted = |name: &String, purpose| Wanted {
            name: name.clone(),
            purpose,
            found: false,
            indirect: false,
            near: Near::default(),
        };
        let snapshots = (0..)
            .zip(snapshot_at)
            .map(|(number, name)| wanted(name, Purpose { snapshot: Some(number), references: References::default() }));
        let references = (0..)
            .zip(references)
            .take(References::MOST)
            .map(|(number, name)| wanted(name, Purpose { snapshot: None, references: References::only(number) }));
        Markers { wanted: snapshots.chain(references).collect() }
    }

    /// How many references there are.
    #[must_use]
    pub fn count_references(&self) -> usize {
        self.wanted.iter().filter(|wanted| !wanted.purpose.references.is_empty()).count()
    }

    /// True if calls of some function take snapshots.
    #[must_use]
    pub fn take_snapshots(&self) -> bool {
        self.wanted.iter().any(|wanted| wanted.purpose.snapshot.is_some())
    }

    /// What is to be done for a purpose, in words: `take snapshots at calls of mark`, `count calls of serve`.
    #[must_use]
    pub fn describe(&self, purpose: Purpose) -> String {
        let names = |is_meant: &dyn Fn(&Purpose) -> bool| {
            let names =
                self.wanted.iter().filter(|wanted| is_meant(&wanted.purpose)).map(|wanted| wanted.name.as_str());
            names.collect::<Vec<_>>().join(", ")
        };
        let mut texts = Vec::new();
        if purpose.snapshot.is_some() {
            texts.push(format!("take snapshots at calls of {}", names(&|of| of.snapshot == purpose.snapshot)));
        }
        if !purpose.references.is_empty() {
            let is_meant = |of: &Purpose| of.references.0 & purpose.references.0 != 0;
            texts.push(format!("count calls of {}", names(&is_meant)));
        }
        texts.join(" and ")
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
        found.into_iter().map(|(address, purpose)| Marker { address, purpose }).collect()
    }

    /// What to tell the user of functions that no module has yet.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        self.wanted.iter().filter(|wanted| !wanted.found).map(Wanted::is_missing).collect()
    }

    /// False if the file has no symbol table but for what the dynamic linker needs.
    fn collect(&mut self, elf: &[u8], found: &mut BTreeMap<u64, Purpose>) -> bool {
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
            for wanted in &mut self.wanted {
                if wanted.name != name {
                    if !wanted.found {
                        wanted.near.compare(&wanted.name, name);
                    }
                } else if kind == STT_GNU_IFUNC {
                    wanted.indirect = true;
                } else {
                    wanted.found = true;
                    let purpose: &mut Purpose = found.entry(symbol.address()).or_default();
                    *purpose = purpose.and(wanted.purpose);
                }
            }
        }
        file.symbols().next().is_some()
    }
}

impl Wanted {
    fn is_missing(&self) -> String {
        let Wanted { name, near, .. } = self;
        let (cannot, later) = match self.purpose.snapshot {
            Some(_) => ("take snapshots at", "snapshots are taken at its calls"),
            None => ("count", "its calls are counted"),
        };
        if self.indirect {
            return format!("cannot {cannot} calls of {name}: which code it is, is chosen at run time");
        }
        format!("no function {name} yet: {later} once a library is loaded that has a symbol of that name{near}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_alike_are_told_once() {
        let mut markers = Markers::new(&["mark_now".into()], &[]);
        for name in ["_ZN4main8mark_nowEv", "mark_now_too", "mark_not", "mark_not", "mark_nov", "other"] {
            markers.wanted[0].near.compare("mark_now", name);
        }
        let [text] = &markers.missing()[..] else { panic!("one is missing") };
        assert!(
            text.starts_with("no function mark_now yet")
                && text.ends_with("like it are mark_not, mark_nov, mark_now_too")
        );
    }

    #[test]
    fn a_function_may_be_named_for_both() {
        let markers = Markers::new(&["mark".into()], &["serve".into(), "mark".into()]);
        let both = Purpose { snapshot: Some(0), ..Purpose::default() }
            .and(Purpose { snapshot: None, references: References::only(1) });
        assert_eq!(markers.describe(both), "take snapshots at calls of mark and count calls of mark");
        assert_eq!(both.references.iter().collect::<Vec<_>>(), [1]);
        assert_eq!((markers.count_references(), markers.take_snapshots()), (2, true));
        assert!(References::only(64).is_empty());
        let missing = markers.missing();
        assert!(missing[1].starts_with("no function serve yet: its calls are counted once"), "{missing:?}");
    }
}
