//! Call frame information of one module (DWARF 5, 6.4; Linux Standard Base, 10.6 "Exception Frames").

use std::cell::OnceCell;
use std::ops::Range;

use gimli::{
    BaseAddresses, CieOrFde, DebugFrame, EhFrame, EhFrameHdr, EndianSlice, FrameDescriptionEntry, LittleEndian,
    UnwindSection,
};
use memleax_platform::SharedBytes;
use object::read::elf::{ElfFile64, ElfSection64};
use object::{Object, ObjectSection};

use super::image::Image;
use super::module::Module;

/// A view of section bytes.
pub(super) type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// The sections that describe frames, if any.
#[derive(Debug, Default)]
pub(super) struct Cfi {
    eh_frame: Option<SharedBytes>,
    eh_frame_hdr: Option<SharedBytes>,
    debug_frame: Option<SharedBytes>,
    bases: BaseAddresses,
    /// Made when first needed: where there is no `.eh_frame_hdr`.
    eh_frame_index: OnceCell<Index>,
    debug_frame_index: OnceCell<Index>,
}

/// Frame descriptions in order of address.
#[derive(Debug, Default)]
struct Index(Vec<IndexEntry>);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct IndexEntry {
    start: u64,
    end: u64,
    /// In its section.
    offset: usize,
}

impl Cfi {
    /// Of a module's own image.
    pub(super) fn of_module(module: &Module) -> Self {
        let Some(image) = &module.image else { return Cfi::default() };
        let cfi = Cfi::of_image(image);
        if cfi.eh_frame.is_some() { cfi } else { Cfi { debug_frame: cfi.debug_frame, ..Cfi::of_segments(module) } }
    }

    /// By section headers.
    pub(super) fn of_image(image: &Image) -> Self {
        let mut cfi = Cfi::default();
        let Ok(file) = ElfFile64::<object::LittleEndian>::parse(image.bytes()) else { return cfi };
        for section in file.sections() {
            let Ok(name) = section.name() else { continue };
            let address = section.address();
            match name {
                ".eh_frame" => {
                    cfi.eh_frame = section_bytes(image, &section);
                    cfi.bases = cfi.bases.set_eh_frame(address);
                }
                ".eh_frame_hdr" => {
                    cfi.eh_frame_hdr = section_bytes(image, &section);
                    cfi.bases = cfi.bases.set_eh_frame_hdr(address);
                }
                ".debug_frame" | ".zdebug_frame" => cfi.debug_frame = section_bytes(image, &section),
                ".text" => cfi.bases = cfi.bases.set_text(address),
                ".got" => cfi.bases = cfi.bases.set_got(address),
                _ => {}
            }
        }
        cfi
    }

    /// By `PT_GNU_EH_FRAME`, where section headers are missing.
    fn of_segments(module: &Module) -> Self {
        let cfi = Cfi::default();
        let (Some(range), Some(image)) = (&module.eh_frame_hdr, &module.image) else { return cfi };
        let Some(header) = part_of_image(module, image, range.clone()) else { return cfi };
        let bases = BaseAddresses::default().set_eh_frame_hdr(range.start);
        let Ok(parsed) = EhFrameHdr::new(&header, LittleEndian).parse(&bases, 8) else { return cfi };
        let gimli::Pointer::Direct(address) = parsed.eh_frame_ptr() else { return cfi };
        let Some(length) = module.image_bytes_from(address).map(|bytes| bytes.len() as u64) else { return cfi };
        let Some(eh_frame) = part_of_image(module, image, address..address.saturating_add(length)) else { return cfi };
        Cfi { eh_frame: Some(eh_frame), eh_frame_hdr: Some(header), bases: bases.set_eh_frame(address), ..cfi }
    }

    /// True if nothing is described here.
    pub(super) fn is_empty(&self) -> bool {
        self.size() == 0
    }

    /// Bytes of all descriptions.
    pub(super) fn size(&self) -> usize {
        [&self.eh_frame, &self.debug_frame].into_iter().flatten().map(|section| section.len()).sum()
    }

    /// What a separate debug file adds.
    pub(super) fn add_debug_frame(&mut self, other: Cfi) {
        if self.debug_frame.is_none() {
            self.debug_frame = other.debug_frame;
        }
    }

    /// True if the description of a function begins at `address`.
    pub(super) fn starts_at(&self, address: u64) -> bool {
        let starts = |fde: FrameDescriptionEntry<Slice<'_>>| fde.initial_address() == address;
        self.find_in_eh_frame(address).is_some_and(starts) || self.find_in_debug_frame(address).is_some_and(starts)
    }

    pub(super) fn bases(&self) -> &BaseAddresses {
        &self.bases
    }

    pub(super) fn eh_frame(&self) -> Option<EhFrame<Slice<'_>>> {
        let mut section = EhFrame::new(self.eh_frame.as_ref()?, LittleEndian);
        section.set_address_size(8);
        Some(section)
    }

    pub(super) fn debug_frame(&self) -> Option<DebugFrame<Slice<'_>>> {
        let mut section = DebugFrame::new(self.debug_frame.as_ref()?, LittleEndian);
        section.set_address_size(8);
        Some(section)
    }

    /// The description of `address` in `.eh_frame`.
    pub(super) fn find_in_eh_frame(&self, address: u64) -> Option<FrameDescriptionEntry<Slice<'_>>> {
        let section = self.eh_frame()?;
        if let Some(header) = &self.eh_frame_hdr
            && let Ok(header) = EhFrameHdr::new(header, LittleEndian).parse(&self.bases, 8)
            && let Some(table) = header.table()
        {
            let fde = table.lookup(address, &self.bases).ok()?.direct().ok()?;
            let offset = fde.checked_sub(header.eh_frame_ptr().direct().ok()?)?;
            let offset = usize::try_from(offset).ok()?.into();
            let fde = section.fde_from_offset(&self.bases, offset, EhFrame::cie_from_offset).ok()?;
            return fde.contains(address).then_some(fde);
        }
        let index = self.eh_frame_index.get_or_init(|| Index::of(&section, &self.bases));
        let fde = section.fde_from_offset(&self.bases, index.find(address)?.into(), EhFrame::cie_from_offset);
        fde.ok()
    }

    /// The description of `address` in `.debug_frame`.
    pub(super) fn find_in_debug_frame(&self, address: u64) -> Option<FrameDescriptionEntry<Slice<'_>>> {
        let section = self.debug_frame()?;
        let index = self.debug_frame_index.get_or_init(|| Index::of(&section, &self.bases));
        let fde = section.fde_from_offset(&self.bases, index.find(address)?.into(), DebugFrame::cie_from_offset);
        fde.ok()
    }
}

impl Index {
    fn of<'a, S: UnwindSection<Slice<'a>>>(section: &S, bases: &BaseAddresses) -> Self {
        let mut index = Vec::new();
        let mut entries = section.entries(bases);
        // What follows a malformed entry cannot be found; what precedes it is good.
        while let Ok(Some(entry)) = entries.next() {
            let CieOrFde::Fde(partial) = entry else { continue };
            let Ok(fde) = partial.parse(S::cie_from_offset) else { continue };
            // Descriptions of functions that the linker dropped begin at 0.
            if fde.initial_address() != 0 && fde.len() != 0 {
                index.push(IndexEntry { start: fde.initial_address(), end: fde.end_address(), offset: fde.offset() });
            }
        }
        index.sort_unstable();
        Index(index)
    }

    fn find(&self, address: u64) -> Option<usize> {
        let after = self.0.partition_point(|entry| entry.start <= address);
        let entry = self.0.get(after.checked_sub(1)?)?;
        (address < entry.end).then_some(entry.offset)
    }
}

/// Uncompressed; without a copy where possible.
fn section_bytes(image: &Image, section: &ElfSection64<'_, '_, object::LittleEndian>) -> Option<SharedBytes> {
    let range = section.compressed_file_range().ok()?;
    if range.format == object::CompressionFormat::None {
        let end = range.offset.checked_add(range.uncompressed_size)?;
        image.shared().slice(usize::try_from(range.offset).ok()?..usize::try_from(end).ok()?)
    } else {
        Some(section.uncompressed_data().ok()?.into_owned().into())
    }
}

/// Addresses as the file counts them.
fn part_of_image(module: &Module, image: &Image, addresses: Range<u64>) -> Option<SharedBytes> {
    let length = usize::try_from(addresses.end.checked_sub(addresses.start)?).ok()?;
    let part = module.image_bytes(addresses.start, length)?;
    let start = part.as_ptr().addr() - image.bytes().as_ptr().addr();
    image.shared().slice(start..start + length)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::event::ModuleId;
    use crate::unwind::image::Layout;
    use crate::unwind::module::Role;

    /// The C library that the test runs with; without section headers if asked.
    fn library(section_headers: bool) -> Module {
        let maps = fs::read_to_string("/proc/self/maps").expect("the test's own mappings");
        let path = maps.split_whitespace().find(|word| word.contains("/libc.so")).expect("a dynamic C library");
        let mut bytes = fs::read(path).expect("a readable library");
        if !section_headers {
            bytes[0x28..0x30].fill(0);
            bytes[0x3c..0x40].fill(0);
        }
        let layout = Layout::parse(&bytes).expect("an ELF file");
        let mut module = Module::from_layout(ModuleId(0), path.into(), (0, 0), Role::Library, 0, layout);
        module.image = Some(Image::Memory(bytes.into()));
        module
    }

    fn code(module: &Module) -> impl Iterator<Item = u64> {
        let executable = module.segments.iter().find(|segment| segment.executable);
        executable.map_or(0..0, |segment| segment.addresses.clone()).step_by(61)
    }

    fn found(cfi: &Cfi, address: u64) -> Option<(usize, u64)> {
        cfi.find_in_eh_frame(address).map(|fde| (fde.offset(), fde.initial_address()))
    }

    #[test]
    fn the_linkers_search_table_and_our_own_agree() {
        let module = library(true);
        let with_table = Cfi::of_module(&module);
        let without = Cfi { eh_frame_hdr: None, ..Cfi::of_module(&module) };
        assert!(with_table.eh_frame_hdr.is_some());
        for address in code(&module) {
            assert_eq!(found(&with_table, address), found(&without, address), "{address:#x}");
        }
    }

    #[test]
    fn descriptions_are_found_without_section_headers() {
        let (with, without) = (library(true), library(false));
        let (with_headers, without_headers) = (Cfi::of_module(&with), Cfi::of_module(&without));
        assert!(without_headers.eh_frame.is_some());
        for address in code(&with) {
            assert_eq!(found(&with_headers, address), found(&without_headers, address), "{address:#x}");
        }
    }
}
