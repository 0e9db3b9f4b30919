//! Which of the functions a module defines, and where.

use std::ops::Deref;
use std::path::Path;

use object::LittleEndian;
use object::elf::{STT_FUNC, STT_GNU_IFUNC};
use object::read::elf::ElfFile64;
use object::{Object, ObjectSymbol};
use rustc_hash::{FxHashMap, FxHashSet};

use super::forwarding::Forwarding;
use super::{Class, FUNCTIONS, Family, Function, MAPPING_FUNCTIONS};

/// A function to observe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hook {
    /// What it is.
    pub function: &'static Function,
    /// Its first instruction, as the module's file counts addresses.
    pub address: u64,
}

/// What a module defines.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Hooks {
    /// In order of address; each address once.
    pub hooks: Vec<Hook>,
    /// Functions whose code is chosen when the program starts (`STT_GNU_IFUNC`). The choice is observed only if it
    /// is also among `hooks`, by another name.
    pub indirect: Vec<&'static str>,
}

impl Hooks {
    /// These, and those of `named` that are not among them: at one address the known function is meant. In order of address; at one address at most
    /// one of a class.
    #[must_use]
    pub fn and(self, named: Vec<Hook>) -> Vec<Hook> {
        let mut hooks = self.hooks;
        let is_known = |hook: &Hook| {
            hook.function.class == Class::MEMORY && hooks.iter().any(|known| known.address == hook.address)
        };
        let new: Vec<Hook> = named.into_iter().filter(|hook| !is_known(hook)).collect();
        hooks.extend(new);
        hooks.sort_by_key(|hook| (hook.address, hook.function.class));
        hooks
    }
}

/// The functions to observe in a module: the allocator's, and with `mappings` those that map memory. `path` and `elf` as for
/// [`hooks`]. Where nothing allocates, `debug_file` is asked for a file with more symbols. Functions whose code is chosen at
/// run time are named only if no other stands for them.
#[must_use]
pub fn observed<File: Deref<Target = [u8]>>(
    path: &Path,
    elf: &[u8],
    debug_file: impl FnOnce() -> Option<File>,
    mappings: bool,
) -> Hooks {
    let mut found = hooks(path, elf, &[], FUNCTIONS);
    if found.hooks.is_empty()
        && let Some(debug_file) = debug_file()
    {
        found = hooks(path, elf, &[&debug_file], FUNCTIONS);
    }
    if !found.hooks.is_empty() {
        found.indirect.clear();
    }
    if mappings {
        found.hooks.extend(hooks(path, elf, &[], MAPPING_FUNCTIONS).hooks);
    }
    found
}

/// Libraries whose operators new and delete are wrappers around malloc and free.
const CXX_RUNTIMES: &[&str] = &["libstdc++.", "libc++.", "libc++abi.", "libsupc++.", "libcxxrt."];

/// The functions of `table` that a module defines. `path` is its name in the target, `elf` its file, `others` are more
/// ELF files with symbols of the same module (separate debug file, decompressed `.gnu_debugdata`).
///
/// Left out is what is not worth a stop because another function of the table sees the same call: C++ operators
/// that do nothing but call malloc, free or each other. Left out is also the dynamic linker's own allocator, which
/// serves it only until the C library's is there.
#[must_use]
pub fn hooks(path: &Path, elf: &[u8], others: &[&[u8]], table: &'static [Function]) -> Hooks {
    let Ok(file) = ElfFile64::<LittleEndian>::parse(elf) else { return Hooks::default() };
    let mut found = Found::new(table);
    found.collect(&file);
    for other in others {
        if let Ok(other) = ElfFile64::<LittleEndian>::parse(*other) {
            found.collect(&other);
        }
    }
    if found.is_dynamic_linker() {
        return Hooks::default();
    }
    let is_cxx_runtime = path
        .file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| CXX_RUNTIMES.iter().any(|prefix| name.starts_with(prefix)));
    let has_malloc = found.by_address.values().any(|&index| table[index].name == "malloc");
    let forwarding = Forwarding::new(&file, &found.by_address, table);
    let belongs = |function: &Function, address: u64| match function.family {
        Family::C => has_malloc,
        Family::Cxx => !is_cxx_runtime && !forwarding.forwards(address),
        Family::Own => true,
    };
    let mut hooks: Vec<Hook> = found
        .by_address
        .iter()
        .map(|(&address, &index)| Hook { function: &table[index], address })
        .filter(|hook| belongs(hook.function, hook.address))
        .collect();
    hooks.sort_by_key(|hook| hook.address);
    let mut indirect: Vec<usize> = found.indirect.into_iter().collect();
    indirect.retain(|&index| table[index].family != Family::C || has_malloc);
    indirect.sort_unstable();
    Hooks { hooks, indirect: indirect.into_iter().map(|index| table[index].name).collect() }
}

/// Symbols of the table that a module's files define; functions are indices into the table.
struct Found {
    names: FxHashMap<&'static str, usize>,
    /// Of several names at one address, the first of the table.
    by_address: FxHashMap<u64, usize>,
    indirect: FxHashSet<usize>,
    has_rtld_global: bool,
    has_start_main: bool,
}

impl Found {
    fn new(table: &'static [Function]) -> Self {
        Found {
            names: table.iter().enumerate().map(|(index, function)| (function.name, index)).collect(),
            by_address: FxHashMap::default(),
            indirect: FxHashSet::default(),
            has_rtld_global: false,
            has_start_main: false,
        }
    }

    fn collect(&mut self, file: &ElfFile64<'_, LittleEndian>) {
        for symbol in file.symbols().chain(file.dynamic_symbols()) {
            // Undefined symbols may have a value: the PLT entry that a non-PIE program uses as the function's address.
            if symbol.is_undefined() || symbol.address() == 0 {
                continue;
            }
            let Ok(name) = symbol.name() else { continue };
            match name {
                "_rtld_global" => self.has_rtld_global = true,
                "__libc_start_main" => self.has_start_main = true,
                _ => {}
            }
            let Some(&index) = self.names.get(name) else { continue };
            match symbol.elf_symbol().st_type() {
                STT_FUNC => {
                    let first = self.by_address.entry(symbol.address()).or_insert(index);
                    *first = index.min(*first);
                }
                STT_GNU_IFUNC => {
                    self.indirect.insert(index);
                }
                _ => {}
            }
        }
    }

    /// glibc's dynamic linker; musl's is the C library itself.
    fn is_dynamic_linker(&self) -> bool {
        self.has_rtld_global && !self.has_start_main
    }
}
