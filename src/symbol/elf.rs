//! An ELF file: its sections, its identity, and where it says that its debug information is.

use memleax_platform::SharedBytes;
use object::LittleEndian;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, NoteIterator, ProgramHeader, SectionHeader};

use super::{compression, dynamic};

/// A 64-bit little-endian ELF file.
#[derive(Debug)]
pub(super) struct ElfFile {
    bytes: SharedBytes,
    sections: Vec<Section>,
    /// Dynamic symbols and their strings, where no section tells of them.
    dynamic: Option<[Section; 2]>,
    build_id: Option<BuildId>,
}

/// A section's header.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) name: String,
    /// `SHT_…`
    pub(super) kind: u32,
    /// `SHF_…`
    pub(super) flags: u64,
    pub(super) address: u64,
    pub(super) size: u64,
    /// Index of the section that this one refers to: a symbol table's strings.
    pub(super) link: usize,
    /// In the file.
    pub(super) offset: u64,
}

/// Why a file or a section of it cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum ElfError {
    /// Another kind of file, or another architecture's.
    #[error("it is no 64-bit little-endian ELF file")]
    NotElf,
    /// The file is shorter than its header says, or its section table is damaged.
    #[error("it is truncated or damaged ({0})")]
    Damaged(String),
    /// A section reaches beyond the end of the file.
    #[error("its section {0} reaches beyond the end of the file")]
    Truncated(String),
    /// A section cannot be decompressed.
    #[error("its section {name} cannot be decompressed: {cause}")]
    Compression {
        /// The section.
        name: String,
        /// What was wrong.
        cause: compression::Error,
    },
}

/// The identity that the linker gave to a program and that its debug file shares (`NT_GNU_BUILD_ID`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct BuildId(Vec<u8>);

impl BuildId {
    /// The path below a debug directory: `.build-id/ab/cdef….debug`; `None` for an id too short to have one.
    pub(super) fn debug_path(&self) -> Option<String> {
        let hex = self.to_string();
        let (first, rest) = hex.split_at_checked(2)?;
        (!rest.is_empty()).then(|| format!(".build-id/{first}/{rest}.debug"))
    }
}

impl std::fmt::Display for BuildId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The content of `.gnu_debuglink`.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct DebugLink {
    /// The file's name, without directory.
    pub(super) name: Vec<u8>,
    /// CRC-32 of the whole file.
    pub(super) crc: u32,
}

/// The content of `.gnu_debugaltlink` or `.debug_sup`: a file that holds what several debug files share (dwz).
#[derive(PartialEq, Eq, Debug)]
pub(super) struct AlternateLink {
    /// Absolute, or relative to the directory of the file that names it.
    pub(super) path: Vec<u8>,
    /// Of the alternate file.
    pub(super) build_id: BuildId,
}

impl ElfFile {
    /// Reads the headers.
    pub(super) fn parse(bytes: SharedBytes) -> Result<Self, ElfError> {
        let data: &[u8] = &bytes;
        let header = FileHeader64::<LittleEndian>::parse(data).map_err(|_| ElfError::NotElf)?;
        header.endian().map_err(|_| ElfError::NotElf)?;
        let damaged = |cause: object::Error| ElfError::Damaged(cause.to_string());
        let table = header.sections(LittleEndian, data).map_err(damaged)?;
        let sections: Vec<Section> = table
            .iter()
            .map(|section| Section {
                name: String::from_utf8_lossy(table.section_name(LittleEndian, section).unwrap_or_default())
                    .into_owned(),
                kind: section.sh_type(LittleEndian),
                flags: section.sh_flags(LittleEndian),
                address: section.sh_addr(LittleEndian),
                size: section.sh_size(LittleEndian),
                link: section.sh_link(LittleEndian) as usize,
                offset: section.sh_offset(LittleEndian),
            })
            .collect();
        let in_sections =
            table.iter().filter_map(|section| section.notes(LittleEndian, data).ok().flatten()).find_map(find_build_id);
        let build_id = in_sections.or_else(|| {
            let segments = header.program_headers(LittleEndian, data).unwrap_or_default();
            segments
                .iter()
                .filter_map(|segment| segment.notes(LittleEndian, data).ok().flatten())
                .find_map(find_build_id)
        });
        let dynamic = if sections.iter().any(|section| section.kind == elf::SHT_DYNSYM) {
            None
        } else {
            dynamic::symbol_sections(data)
        };
        Ok(Self { bytes, sections, dynamic, build_id })
    }

    /// The whole file.
    pub(super) fn bytes(&self) -> &SharedBytes {
        &self.bytes
    }

    pub(super) fn build_id(&self) -> Option<&BuildId> {
        self.build_id.as_ref()
    }

    pub(super) fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The symbol tables of this kind (`SHT_SYMTAB`, `SHT_DYNSYM`), each with the section of its strings.
    pub(super) fn symbol_tables(&self, kind: u32) -> impl Iterator<Item = (&Section, &Section)> {
        let sections = self.sections.iter().filter(move |section| section.kind == kind);
        let in_sections = sections.filter_map(|section| Some((section, self.sections.get(section.link)?)));
        let dynamic = self.dynamic.as_ref().filter(|_| kind == elf::SHT_DYNSYM);
        in_sections.chain(dynamic.map(|[symbols, strings]| (symbols, strings)))
    }

    /// The content of the section of this name, decompressed; `None` where the file has none. `.debug_…` also finds the
    /// compressed `.zdebug_…` of older tool chains.
    pub(super) fn section(&self, name: &str) -> Result<Option<SharedBytes>, ElfError> {
        if let Some(section) = self.sections.iter().find(|section| section.name == name && section.has_data()) {
            return self.data(section).map(Some);
        }
        let Some(legacy) = name.strip_prefix(".debug_").map(|rest| format!(".zdebug_{rest}")) else { return Ok(None) };
        let Some(section) = self.sections.iter().find(|section| section.name == legacy && section.has_data()) else {
            return Ok(None);
        };
        let raw = self.raw_data(section)?;
        compression::legacy(&raw)
            .map(|bytes| Some(bytes.into()))
            .map_err(|cause| ElfError::Compression { name: legacy, cause })
    }

    /// The content of a section, decompressed.
    pub(super) fn data(&self, section: &Section) -> Result<SharedBytes, ElfError> {
        let raw = self.raw_data(section)?;
        if section.flags & u64::from(elf::SHF_COMPRESSED) == 0 {
            return Ok(raw);
        }
        compression::section(&raw)
            .map(SharedBytes::from)
            .map_err(|cause| ElfError::Compression { name: section.name.clone(), cause })
    }

    fn raw_data(&self, section: &Section) -> Result<SharedBytes, ElfError> {
        let range = || {
            let start = usize::try_from(section.offset).ok()?;
            let end = start.checked_add(usize::try_from(section.size).ok()?)?;
            self.bytes.slice(start..end)
        };
        range().ok_or_else(|| ElfError::Truncated(section.name.clone()))
    }

    /// True if it holds DWARF units, and not only the empty headers that a stripped file may keep.
    pub(super) fn has_debug_info(&self) -> bool {
        self.sections.iter().any(|s| s.has_data() && matches!(s.name.as_str(), ".debug_info" | ".zdebug_info"))
    }

    /// True if it holds a full symbol table.
    pub(super) fn has_symbols(&self) -> bool {
        self.sections.iter().any(|section| section.kind == elf::SHT_SYMTAB && section.size > 0)
    }

    /// Where the linked debug file is; `None` if nowhere, or if the section is damaged.
    pub(super) fn debug_link(&self) -> Option<DebugLink> {
        let data = self.section(".gnu_debuglink").ok()??;
        let length = data.iter().position(|&byte| byte == 0)?;
        // The checksum is aligned to 4 bytes.
        let crc = data.get((length + 1).next_multiple_of(4)..)?.first_chunk()?;
        Some(DebugLink { name: data[..length].to_vec(), crc: u32::from_le_bytes(*crc) })
    }

    /// Where the alternate debug file is.
    pub(super) fn alternate_link(&self) -> Option<AlternateLink> {
        if let Ok(Some(data)) = self.section(".gnu_debugaltlink") {
            let length = data.iter().position(|&byte| byte == 0)?;
            let build_id = BuildId(data[length + 1..].to_vec());
            return Some(AlternateLink { path: data[..length].to_vec(), build_id });
        }
        // DWARF 5, section 7.3.6: version (2 bytes), is_supplementary, file name, length of the checksum (LEB128), checksum.
        let data = self.section(".debug_sup").ok()??;
        let rest = data.strip_prefix(&[5, 0, 0])?;
        let length = rest.iter().position(|&byte| byte == 0)?;
        let (&id_length, id) = rest.get(length + 1..)?.split_first()?;
        let build_id = BuildId(id.get(..usize::from(id_length))?.to_vec());
        Some(AlternateLink { path: rest[..length].to_vec(), build_id })
    }
}

impl Section {
    /// False for a section whose content was left out, as `objcopy --only-keep-debug` does with code.
    fn has_data(&self) -> bool {
        self.kind != elf::SHT_NOBITS && self.size > 0
    }
}

fn find_build_id(mut notes: NoteIterator<'_, FileHeader64<LittleEndian>>) -> Option<BuildId> {
    while let Ok(Some(note)) = notes.next() {
        if note.name() == elf::ELF_NOTE_GNU
            && note.n_type(LittleEndian) == elf::NT_GNU_BUILD_ID
            && !note.desc().is_empty()
        {
            return Some(BuildId(note.desc().to_vec()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_id_names_its_debug_file() {
        assert_eq!(BuildId(vec![0xab, 0x0c, 0xde]).debug_path().as_deref(), Some(".build-id/ab/0cde.debug"));
        assert_eq!(BuildId(vec![0xab]).debug_path(), None);
        assert_eq!(BuildId(Vec::new()).debug_path(), None);
    }

    #[test]
    fn what_is_no_elf_file_is_refused() {
        let mut big_endian = [0; 64];
        big_endian[..7].copy_from_slice(b"\x7fELF\x02\x02\x01");
        for bytes in [&b""[..], b"\x7fELF", b"#!/bin/sh\n", &[0; 64], &big_endian] {
            assert_eq!(ElfFile::parse(bytes.to_vec().into()).err(), Some(ElfError::NotElf));
        }
    }
}
