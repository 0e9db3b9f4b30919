//! Symbol tables: from an address to the function that it lies in.

use memleax_platform::SharedBytes;
use object::elf;

use super::elf::{ElfError, ElfFile, Section};
use super::plt;

/// Bytes of an `Elf64_Sym`.
const ENTRY: usize = 24;

/// The functions of a module, from however many symbol tables.
#[derive(Debug, Default)]
pub(super) struct SymbolTable {
    strings: Vec<SharedBytes>,
    /// By ascending address, which is unique once [`finish`](Self::finish) was called.
    symbols: Vec<Symbol>,
    /// For each symbol, the farthest end of it and those before.
    farthest_end: Vec<u64>,
    /// True if there is more than stubs.
    has_functions: bool,
}

#[derive(Debug, Clone, Copy)]
struct Symbol {
    start: u64,
    /// Address after its last byte; for a symbol without size where the next begins.
    end: u64,
    /// Offset in `strings[table]`.
    name: u32,
    table: u16,
    sized: bool,
    /// Marked as a function, and not only known to be in code.
    typed: bool,
    /// Known to its own compilation unit only.
    local: bool,
    /// Has a version that is not the default one (`cfree@GLIBC_2.2.5`).
    outdated: bool,
}

/// A function found by address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FoundSymbol<'t> {
    /// As in the table, without the version (`@@GLIBC_2.2.5`).
    pub(super) name: &'t [u8],
    /// Address of its first byte.
    pub(super) start: u64,
    /// True if the table says how long it is; otherwise it is only the nearest before the address.
    pub(super) sized: bool,
}

impl SymbolTable {
    /// Adds the functions of all tables in `file` of this kind (`SHT_SYMTAB`, `SHT_DYNSYM`).
    pub(super) fn add(&mut self, file: &ElfFile, kind: u32) -> Result<(), ElfError> {
        for (entries, strings) in file.symbol_tables(kind) {
            let (entries, strings) = (file.data(entries)?, file.data(strings)?);
            let Ok(table) = u16::try_from(self.strings.len()) else { continue };
            let symbols =
                entries.chunks_exact(ENTRY).filter_map(|entry| read_symbol(entry, table, file.sections(), &strings));
            let before = self.symbols.len();
            self.symbols.extend(symbols);
            self.has_functions |= self.symbols.len() > before;
            self.strings.push(strings);
        }
        Ok(())
    }

    /// Adds the stubs through which `file` calls functions of others.
    pub(super) fn add_stubs(&mut self, file: &ElfFile) -> Result<(), ElfError> {
        let Ok(table) = u16::try_from(self.strings.len()) else { return Ok(()) };
        let mut strings = Vec::new();
        for stub in plt::stubs(file)? {
            let Ok(name) = u32::try_from(strings.len()) else { break };
            strings.extend([&stub.name, plt::SUFFIX.as_bytes(), b"\0"].concat());
            let end = stub.start.saturating_add(stub.size);
            let plain =
                Symbol { start: stub.start, end, name, table, sized: true, typed: true, local: true, outdated: false };
            self.symbols.push(plain);
        }
        self.strings.push(strings.into());
        Ok(())
    }

    /// Puts in order what was added. To be called before the first look-up.
    pub(super) fn finish(&mut self) {
        let strings = std::mem::take(&mut self.strings);
        let key = |symbol: &Symbol| {
            let name = name(&strings, symbol);
            // Of the names of one address the first is kept. In static glibc malloc is a local symbol, __malloc a global one.
            (symbol.start, !symbol.sized, !symbol.typed, underscores(name), symbol.local, symbol.outdated, name.len())
        };
        self.symbols
            .sort_unstable_by(|a, b| key(a).cmp(&key(b)).then_with(|| name(&strings, a).cmp(name(&strings, b))));
        self.symbols.dedup_by_key(|symbol| symbol.start);
        self.strings = strings;

        // A symbol without size reaches to the next one, and is a mere label inside a symbol with one.
        let starts: Vec<u64> = self.symbols.iter().skip(1).map(|symbol| symbol.start).collect();
        let mut covered = 0;
        let mut next = starts.into_iter();
        self.symbols.retain_mut(|symbol| {
            let next = next.next().unwrap_or(u64::MAX);
            if !symbol.sized {
                symbol.end = symbol.end.min(next);
                return symbol.start >= covered;
            }
            covered = covered.max(symbol.end);
            true
        });
        self.symbols.shrink_to_fit();
        let mut farthest = 0;
        self.farthest_end = self
            .symbols
            .iter()
            .map(|symbol| {
                farthest = farthest.max(symbol.end);
                farthest
            })
            .collect();
    }

    /// The innermost function that `address` lies in.
    pub(super) fn find(&self, address: u64) -> Option<FoundSymbol<'_>> {
        let after = self.symbols.partition_point(|symbol| symbol.start <= address);
        let candidates = self.symbols[..after].iter().zip(&self.farthest_end).rev();
        let (symbol, _) =
            candidates.take_while(|&(_, &farthest)| farthest > address).find(|(symbol, _)| symbol.end > address)?;
        Some(FoundSymbol { name: name(&self.strings, symbol), start: symbol.start, sized: symbol.sized })
    }

    /// True if it names functions of the module itself, and not only stubs.
    pub(super) fn has_functions(&self) -> bool {
        self.has_functions
    }
}

/// Takes the symbols that may name code (`Elf64_Sym`, gABI chapter 4).
fn read_symbol(entry: &[u8], table: u16, sections: &[Section], strings: &[u8]) -> Option<Symbol> {
    let (name, rest) = entry.split_first_chunk()?;
    let (&[info, _other, index_low, index_high], rest) = rest.split_first_chunk()?;
    let (start, rest) = rest.split_first_chunk()?;
    let name = u32::from_le_bytes(*name);
    let start = u64::from_le_bytes(*start);
    let size = u64::from_le_bytes(*rest.first_chunk()?);
    let section_index = u16::from_le_bytes([index_low, index_high]);
    if section_index == elf::SHN_UNDEF || start == 0 {
        return None;
    }
    let section = sections.get(usize::from(section_index));
    let typed = match info & 0xf {
        elf::STT_FUNC | elf::STT_GNU_IFUNC => true,
        // Functions written in assembly language may lack a type.
        elf::STT_NOTYPE if section.is_some_and(|s| s.flags & u64::from(elf::SHF_EXECINSTR) != 0) => false,
        _ => return None,
    };
    let text = strings.get(name as usize..)?;
    // Local labels of assemblers, and the marks between code and data on some machines ($x, $d).
    if matches!(text.first(), None | Some(0 | b'$')) || text.starts_with(b".L") {
        return None;
    }
    let outdated =
        text[..end_of_name(text)].split(|&byte| byte == b'@').nth(1).is_some_and(|version| !version.is_empty());
    let end = if size > 0 {
        start.saturating_add(size)
    } else {
        section.map_or(u64::MAX, |section| section.address.saturating_add(section.size))
    };
    let local = info >> 4 == elf::STB_LOCAL;
    Some(Symbol { start, end, name, table, sized: size > 0, typed, local, outdated })
}

fn end_of_name(text: &[u8]) -> usize {
    text.iter().position(|&byte| byte == 0).unwrap_or(text.len())
}

/// The name without its version.
fn name<'t>(strings: &'t [SharedBytes], symbol: &Symbol) -> &'t [u8] {
    let text = strings[usize::from(symbol.table)].get(symbol.name as usize..).unwrap_or_default();
    let name = &text[..end_of_name(text)];
    match name.iter().position(|&byte| byte == b'@') {
        Some(length) if length > 0 && !name.ends_with(plt::SUFFIX.as_bytes()) => &name[..length],
        _ => name,
    }
}

/// How many underscores mark the name as an internal one: among the aliases of a function, people know it by the
/// plainest (`malloc`, not `__libc_malloc`).
fn underscores(name: &[u8]) -> usize {
    if name.starts_with(b"_Z") || name.starts_with(b"_R") {
        return 0;
    }
    name.iter().take_while(|&&byte| byte == b'_').count()
}
