//! The dynamic symbols of a file that has lost its section headers: a loader finds them without, by `PT_DYNAMIC`.

use object::LittleEndian;
use object::elf::{
    DT_GNU_HASH, DT_HASH, DT_STRSZ, DT_STRTAB, DT_SYMTAB, FileHeader64, PT_LOAD, ProgramHeader64, SHT_DYNSYM,
    SHT_STRTAB,
};
use object::read::elf::{Dyn, FileHeader, GnuHashTable, HashTable, ProgramHeader};

use super::elf::Section;

type Header = FileHeader64<LittleEndian>;

/// Bytes of an `Elf64_Sym`.
const SYMBOL: u64 = 24;

/// The symbol table and its strings, as sections would describe them; `None` if there is no such table.
pub(super) fn symbol_sections(data: &[u8]) -> Option<[Section; 2]> {
    let segments = Header::parse(data).ok()?.program_headers(LittleEndian, data).ok()?;
    let entries = segments.iter().find_map(|segment| segment.dynamic(LittleEndian, data).ok().flatten())?;
    let value =
        |tag| entries.iter().find(|entry| entry.d_tag(LittleEndian) == tag).map(|entry| entry.d_val(LittleEndian));
    let offset = |tag| offset_of(value(tag)?, segments);
    let table_at = |tag| data.get(usize::try_from(offset(tag)?).ok()?..);

    // Nothing says how long the table is but the hash tables over it.
    let length = table_at(DT_GNU_HASH)
        .and_then(|table| GnuHashTable::<Header>::parse(LittleEndian, table).ok()?.symbol_table_length(LittleEndian))
        .or_else(|| Some(HashTable::<Header>::parse(LittleEndian, table_at(DT_HASH)?).ok()?.symbol_table_length()))?;
    let section = |name: &str, kind, offset, size, link| Section {
        name: name.to_owned(),
        kind,
        flags: 0,
        address: 0,
        size,
        link,
        offset,
    };
    Some([
        section(".dynsym", SHT_DYNSYM, offset(DT_SYMTAB)?, u64::from(length) * SYMBOL, 1),
        section(".dynstr", SHT_STRTAB, offset(DT_STRTAB)?, value(DT_STRSZ)?, 0),
    ])
}

/// Where in the file the byte at an address is.
fn offset_of(address: u64, segments: &[ProgramHeader64<LittleEndian>]) -> Option<u64> {
    segments.iter().filter(|segment| segment.p_type(LittleEndian) == PT_LOAD).find_map(|segment| {
        let within = address.checked_sub(segment.p_vaddr(LittleEndian))?;
        (within < segment.p_filesz(LittleEndian)).then(|| segment.p_offset(LittleEndian).checked_add(within))?
    })
}
