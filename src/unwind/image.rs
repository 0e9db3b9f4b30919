//! ELF images: the bytes, and the few facts that tell how a loader lays them out.

use std::ops::Range;
use std::sync::Arc;

use memleax_platform::{MappedFile, SharedBytes};
use object::LittleEndian;
use object::elf::{ET_EXEC, FileHeader64, PF_X, PT_GNU_EH_FRAME, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};

/// Bytes of an ELF image, always in the layout of the file.
#[derive(Debug, Clone)]
pub enum Image {
    /// The file that the target mapped, kept open: it stays readable when deleted or when the target ends.
    File(Arc<MappedFile>),
    /// Put together from the target's memory (vdso; files that cannot be opened): section headers may be missing,
    /// and code may contain breakpoints.
    Memory(Arc<[u8]>),
}

impl Image {
    /// All bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Image::File(file) => file,
            Image::Memory(bytes) => bytes,
        }
    }

    /// All bytes, without a lifetime.
    #[must_use]
    pub fn shared(&self) -> SharedBytes {
        match self {
            Image::File(file) => Arc::clone(file).into(),
            Image::Memory(bytes) => Arc::clone(bytes).into(),
        }
    }
}

/// A loadable segment (`PT_LOAD`), as its file states it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Addresses as the file counts them (`p_vaddr`, `p_memsz`).
    pub addresses: Range<u64>,
    /// Offset in the file of the first byte (`p_offset`).
    pub offset: u64,
    /// Bytes that the file holds; the rest of the segment is zero (`p_filesz`).
    pub file_size: u64,
    /// Mapped for execution (`PF_X`).
    pub executable: bool,
}

/// How a loader maps an ELF file (System V gABI, chapter 5 "Program Header").
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    /// Mapped at its own addresses, bias 0 (`ET_EXEC`).
    pub(super) fixed: bool,
    /// Where the kernel or the dynamic linker starts it (`e_entry`).
    pub(super) entry: u64,
    /// In ascending order of address.
    pub(super) segments: Vec<Segment>,
    /// Address of `.eh_frame_hdr` (`PT_GNU_EH_FRAME`), which is known even where section headers are stripped.
    pub(super) eh_frame_hdr: Option<Range<u64>>,
    /// `NT_GNU_BUILD_ID`.
    pub(super) build_id: Option<Box<[u8]>>,
}

impl Layout {
    /// Reads the headers of a 64-bit little-endian ELF file.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let header = FileHeader64::<LittleEndian>::parse(bytes).map_err(|error| error.to_string())?;
        let endian = header.endian().map_err(|error| error.to_string())?;
        let program_headers = header.program_headers(endian, bytes).map_err(|error| error.to_string())?;
        let mut layout = Layout {
            fixed: header.e_type(endian) == ET_EXEC,
            entry: header.e_entry(endian),
            segments: Vec::new(),
            eh_frame_hdr: None,
            build_id: None,
        };
        for program_header in program_headers {
            let start = program_header.p_vaddr(endian);
            let Some(end) = start.checked_add(program_header.p_memsz(endian)) else { continue };
            match program_header.p_type(endian) {
                PT_LOAD if start < end => layout.segments.push(Segment {
                    addresses: start..end,
                    offset: program_header.p_offset(endian),
                    file_size: program_header.p_filesz(endian).min(end - start),
                    executable: program_header.p_flags(endian) & PF_X != 0,
                }),
                PT_GNU_EH_FRAME => layout.eh_frame_hdr = Some(start..end),
                _ => {}
            }
            if layout.build_id.is_none()
                && let Ok(Some(mut notes)) = program_header.notes(endian, bytes)
            {
                while let Ok(Some(note)) = notes.next() {
                    if note.name() == object::elf::ELF_NOTE_GNU && note.n_type(endian) == object::elf::NT_GNU_BUILD_ID {
                        layout.build_id = Some(note.desc().into());
                    }
                }
            }
        }
        if layout.segments.is_empty() {
            return Err("it has no loadable segment".into());
        }
        layout.segments.sort_by_key(|segment| segment.addresses.start);
        Ok(layout)
    }

    /// All addresses of all segments, as the file counts them.
    pub(super) fn span(&self) -> Range<u64> {
        let end = self.segments.iter().map(|segment| segment.addresses.end).max().unwrap_or(0);
        self.segments.first().map_or(0, |segment| segment.addresses.start)..end
    }
}
