//! Names for the stubs through which a module calls others (procedure linkage table, x86-64 psABI 5.2): `malloc@plt`.

use std::collections::BTreeMap;

use object::elf::{R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT, SHF_EXECINSTR, SHT_RELA};

use super::elf::{ElfError, ElfFile, Section};

/// What is appended to the name of the function that a stub calls.
pub(super) const SUFFIX: &str = "@plt";

/// Bytes of an `Elf64_Rela` and of an `Elf64_Sym`.
const ENTRY: usize = 24;

/// `jmp *displacement(%rip)`, without the displacement.
const INDIRECT_JUMP: [u8; 2] = [0xff, 0x25];

/// A stub.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stub {
    /// Address of its first byte.
    pub(super) start: u64,
    /// Bytes.
    pub(super) size: u64,
    /// Of the function that it calls, without suffix.
    pub(super) name: Vec<u8>,
}

/// The stubs of a file, whose sections (`.plt`, `.plt.sec`, `.plt.got`) tell nothing but their code.
pub(super) fn stubs(file: &ElfFile) -> Result<Vec<Stub>, ElfError> {
    let slots = slots(file)?;
    let mut stubs = Vec::new();
    let is_table =
        |section: &&Section| section.name.starts_with(".plt") && section.flags & u64::from(SHF_EXECINSTR) != 0;
    for section in file.sections().iter().filter(is_table) {
        let code = file.data(section)?;
        let jumps = code.windows(6).enumerate().filter(|(_, code)| code.starts_with(&INDIRECT_JUMP));
        for (at, jump) in jumps {
            let displacement = i32::from_le_bytes([jump[2], jump[3], jump[4], jump[5]]);
            let next = section.address.wrapping_add(at as u64 + 6);
            let Some(name) = slots.get(&next.wrapping_add_signed(displacement.into())) else { continue };
            // Only the stubs of .plt.got may be of 8 bytes, and then begin with the jump.
            let size = if at % 16 == 8 || code.get(at + 8..at + 10) == Some(&INDIRECT_JUMP) { 8 } else { 16 };
            let start = section.address.wrapping_add(at as u64 / size * size);
            stubs.push(Stub { start, size, name: name.clone() });
        }
    }
    Ok(stubs)
}

/// The functions whose addresses the dynamic linker writes, by where it writes them.
fn slots(file: &ElfFile) -> Result<BTreeMap<u64, Vec<u8>>, ElfError> {
    let mut slots = BTreeMap::new();
    for section in file.sections().iter().filter(|section| section.kind == SHT_RELA) {
        let Some(symbols) = file.sections().get(section.link) else { continue };
        let Some(strings) = file.sections().get(symbols.link) else { continue };
        let (relocations, symbols, strings) = (file.data(section)?, file.data(symbols)?, file.data(strings)?);
        for relocation in relocations.chunks_exact(ENTRY) {
            let word = |at: usize| relocation[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            let (slot, kind, symbol) = (word(0), word(8) as u32, word(8) >> 32);
            if kind == R_X86_64_JUMP_SLOT || kind == R_X86_64_GLOB_DAT {
                slots.extend(symbol_name(&symbols, symbol as usize, &strings).map(|name| (slot, name)));
            }
        }
    }
    Ok(slots)
}

fn symbol_name(symbols: &[u8], index: usize, strings: &[u8]) -> Option<Vec<u8>> {
    let offset = symbols.get(index.checked_mul(ENTRY)?..)?.first_chunk()?;
    let text = strings.get(u32::from_le_bytes(*offset) as usize..)?;
    let name = text.split(|&byte| byte == 0).next().filter(|name| !name.is_empty())?;
    Some(name.to_vec())
}
