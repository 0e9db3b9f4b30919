//! Functions that the user has named (`--object`, `--allocator`): which of them a module defines.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use object::elf::{STT_FUNC, STT_GNU_IFUNC};
use object::read::elf::ElfFile64;
use object::{LittleEndian, Object, ObjectSymbol, SymbolKind};

use super::pattern::{Names, Pattern};
use super::{Class, Family, Function, Hook, Shape};
use crate::likeness::Near;

/// A function as the user names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedFunction {
    /// Its symbol, its name in the source with or without the parameter list, or a glob for either.
    pub name: String,
    /// What it does.
    pub shape: Shape,
    /// What it hands out or takes back.
    pub class: Class,
    /// What asks for it, for messages: `object type conn`.
    pub asked_by: String,
    /// Nothing is amiss if there is no such function.
    pub may_be_missing: bool,
}

/// The functions, and what became of each name.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct NamedFunctions {
    wanted: Vec<Wanted>,
    /// Nobody waits for those that are missing.
    all_may_be_missing: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Wanted {
    function: &'static Function,
    pattern: Pattern,
    asked_by: String,
    may_be_missing: bool,
    found: bool,
    /// Some module has it as a function whose code is chosen at run time.
    indirect: bool,
    near: Near,
}

impl NamedFunctions {
    /// Nothing of them is freed before the program ends, so that hooks are alike, whoever named their functions: to be called once a run.
    #[must_use]
    pub fn new(functions: Vec<NamedFunction>) -> NamedFunctions {
        let wanted = |NamedFunction { name, shape, class, asked_by, may_be_missing }| {
            let pattern = Pattern::new(&name);
            let name = String::leak(name);
            let function = Box::leak(Box::new(Function { name, shape, family: Family::Own, class }));
            let (found, indirect, near) = (false, false, Near::default());
            Wanted { function, pattern, asked_by, may_be_missing, found, indirect, near }
        };
        NamedFunctions { wanted: functions.into_iter().map(wanted).collect(), all_may_be_missing: false }
    }

    /// The same functions, where it does not matter which are missing.
    #[must_use]
    pub fn optional(&self) -> NamedFunctions {
        NamedFunctions { all_may_be_missing: true, ..self.clone() }
    }

    /// Which of them a module defines, in order of address; at one address at most one of a class, that which was named first. `elf` is the
    /// module's file. Where that has lost its symbol table, `debug_file` is asked for a file that has one.
    pub fn of<File: Deref<Target = [u8]>>(
        &mut self,
        elf: &[u8],
        debug_file: impl FnOnce() -> Option<File>,
    ) -> Vec<Hook> {
        let mut found = BTreeMap::new();
        if !self.wanted.is_empty()
            && !self.collect(elf, &mut found)
            && let Some(debug_file) = debug_file()
        {
            self.collect(&debug_file, &mut found);
        }
        let hook =
            |((address, _), number): ((u64, Class), usize)| Hook { function: self.wanted[number].function, address };
        found.into_iter().map(hook).collect()
    }

    /// The names that no module had yet and that must not be missing: which, for what, and what is like them.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let missing = self.unknown().filter(|wanted| !wanted.may_be_missing);
        missing.map(Wanted::is_missing).collect()
    }

    /// What to tell the user of the names that may be missing, if some are until now.
    #[must_use]
    pub fn awaited(&self) -> Option<String> {
        let awaited: Vec<String> =
            self.unknown().filter(|wanted| wanted.may_be_missing).map(Wanted::to_string).collect();
        let names = awaited.join(", ");
        (!awaited.is_empty())
            .then(|| format!("no module has {names} yet: followed as soon as a library is loaded that has"))
    }

    fn unknown(&self) -> impl Iterator<Item = &Wanted> {
        self.wanted.iter().filter(|wanted| !wanted.found && !self.all_may_be_missing)
    }

    /// By address and class: the first in the user's list. False if the file has no symbol table but for what the dynamic linker needs.
    fn collect(&mut self, elf: &[u8], found: &mut BTreeMap<(u64, Class), usize>) -> bool {
        let Ok(file) = ElfFile64::<LittleEndian>::parse(elf) else { return true };
        for symbol in file.symbols().chain(file.dynamic_symbols()) {
            // Undefined symbols may have a value: the PLT entry that a non-PIE program uses as the function's address.
            if symbol.is_undefined() || symbol.address() == 0 {
                continue;
            }
            let kind = symbol.elf_symbol().st_type();
            // What is written in assembly may have no type.
            let is_function = kind == STT_FUNC || symbol.kind() == SymbolKind::Text;
            if !is_function && kind != STT_GNU_IFUNC {
                continue;
            }
            let Some(mut names) = symbol.name().ok().and_then(Names::of) else { continue };
            for (number, wanted) in self.wanted.iter_mut().enumerate() {
                if !wanted.pattern.matches(&mut names) {
                    if !wanted.found && !wanted.pattern.is_glob() {
                        wanted.near.compare(wanted.pattern.text(), wanted.pattern.comparable(&mut names));
                    }
                } else if kind == STT_GNU_IFUNC {
                    wanted.indirect = true;
                } else {
                    tracing::debug!("{} is {}", wanted.pattern.text(), names.raw());
                    wanted.found = true;
                    let first = found.entry((symbol.address(), wanted.function.class)).or_insert(number);
                    *first = number.min(*first);
                }
            }
        }
        file.symbols().next().is_some()
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (for {})", self.pattern.text(), self.asked_by)
    }
}

impl Wanted {
    fn is_missing(&self) -> String {
        let Wanted { asked_by, near, .. } = self;
        let name = self.pattern.text();
        if self.indirect {
            format!("of {name} (for {asked_by}) the code is chosen at run time")
        } else {
            format!("it has no function {name} (for {asked_by}{near})")
        }
    }
}
