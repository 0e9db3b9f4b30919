//! What is mapped where, kept live over dlopen, dlclose and exec.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use memleax_platform::{AuxiliaryVector, MappedFile, Mapping};

use super::image::{Image, Layout, Segment};
use super::module::{Module, ModuleTable, Role};

const PAGE: u64 = 4096;

/// The pseudo path of the kernel's own library.
const VDSO: &str = "[vdso]";

/// That of the page to which functions return that have a uprobe on their return (`xol_add_vma`, `kernel/events/uprobes.c`).
const UPROBES: &str = "[uprobes]";

/// What a [`ModuleMap::refresh`] found.
#[derive(Debug, Default)]
pub struct Changes {
    /// Modules that are mapped now and were not before.
    pub added: Vec<Arc<Module>>,
    /// Modules that were mapped before and are not now.
    pub removed: Vec<Arc<Module>>,
}

/// Which module an address belongs to, now.
#[derive(Debug, Default)]
pub struct ModuleMap {
    table: ModuleTable,
    live: Vec<Arc<Module>>,
    /// Every segment of every live module, rounded to pages, ascending; with the index into `live`.
    spans: Vec<(Range<u64>, usize)>,
    /// Executable mappings, JIT code included, ascending.
    code: Vec<Range<u64>>,
    uprobes: Option<Range<u64>>,
    last_hit: Cell<usize>,
}

/// The mappings of one file.
struct FileMappings<'a> {
    path: &'a Path,
    file_id: (u64, u64),
    mappings: Vec<&'a Mapping>,
}

/// An ELF file and how it came to hand.
struct Opened {
    layout: Layout,
    image: Option<Image>,
    error: Option<String>,
    /// Known only where the layout was guessed from the mappings.
    bias: Option<u64>,
}

impl ModuleMap {
    /// Takes over the target's present mappings. `open` opens the very file behind a mapping; `read` copies memory
    /// of the target and returns how many bytes were readable.
    pub fn refresh(
        &mut self,
        mappings: &[Mapping],
        auxiliary: &AuxiliaryVector,
        open: &mut dyn FnMut(&Mapping) -> io::Result<MappedFile>,
        read: &mut dyn FnMut(u64, &mut [u8]) -> usize,
    ) -> Changes {
        self.uprobes = None;
        self.take_over(mappings, auxiliary, false, open, read)
    }

    /// Takes over mappings of the past, which may be gone: their memory is not read, and files that were known are not opened
    /// again.
    pub fn recall(
        &mut self,
        mappings: &[Mapping],
        auxiliary: &AuxiliaryVector,
        open: &mut dyn FnMut(&Mapping) -> io::Result<MappedFile>,
    ) -> Changes {
        self.take_over(mappings, auxiliary, true, open, &mut |_, _| 0)
    }

    fn take_over(
        &mut self,
        mappings: &[Mapping],
        auxiliary: &AuxiliaryVector,
        recalls: bool,
        open: &mut dyn FnMut(&Mapping) -> io::Result<MappedFile>,
        read: &mut dyn FnMut(u64, &mut [u8]) -> usize,
    ) -> Changes {
        let before = std::mem::take(&mut self.live);
        for file in group_by_file(mappings) {
            let is_it = |module: &&Arc<Module>| module.file_id == file.file_id && module.path == file.path;
            let known = before.iter().find(is_it);
            let opened = match known.or_else(|| self.table.iter().rev().filter(|_| recalls).find(is_it)) {
                Some(module) => Some(Opened::again(module)),
                None => Opened::open(&file, open, read),
            };
            let Some(opened) = opened else { continue };
            for bias in biases(&file, &opened, mappings) {
                self.adopt(&file, &opened, bias, auxiliary);
            }
        }
        self.adopt_vdso(mappings, auxiliary, &before, read);
        self.live.sort_by_key(|module| module.range.start);
        self.index(mappings);

        let is_in = |list: &[Arc<Module>], module: &Module| list.iter().any(|other| other.id == module.id);
        Changes {
            added: self.live.iter().filter(|module| !is_in(&before, module)).cloned().collect(),
            removed: before.iter().filter(|module| !is_in(&self.live, module)).cloned().collect(),
        }
    }

    /// The module that a run-time address belongs to, and the address as the module's file counts it.
    #[must_use]
    pub fn lookup(&self, address: u64) -> Option<(&Arc<Module>, u64)> {
        let mut at = self.last_hit.get();
        if !self.spans.get(at).is_some_and(|(range, _)| range.contains(&address)) {
            at = self.spans.partition_point(|(range, _)| range.start <= address).checked_sub(1)?;
            if !self.spans[at].0.contains(&address) {
                return None;
            }
            self.last_hit.set(at);
        }
        let module = &self.live[self.spans[at].1];
        Some((module, module.file_address(address)))
    }

    /// True if the address is in memory that was executable at the last refresh, JIT code included.
    #[must_use]
    pub fn is_code(&self, address: u64) -> bool {
        let after = self.code.partition_point(|range| range.start <= address);
        after > 0 && self.code[after - 1].contains(&address)
    }

    /// True if a function that returns to this address has a uprobe on its return: the kernel knows where it was called.
    #[must_use]
    pub fn is_return_trampoline(&self, address: u64) -> bool {
        self.uprobes.as_ref().is_some_and(|page| page.contains(&address))
    }

    /// True if the page is known in which such addresses are. It comes with the first uprobe that is hit.
    #[must_use]
    pub fn knows_return_trampoline(&self) -> bool {
        self.uprobes.is_some()
    }

    /// The modules that are mapped now, in order of address.
    #[must_use]
    pub fn live(&self) -> &[Arc<Module>] {
        &self.live
    }

    /// The first live module of a role.
    #[must_use]
    pub fn with_role(&self, role: Role) -> Option<&Arc<Module>> {
        self.live.iter().find(|module| module.role == role)
    }

    /// Every module ever seen.
    #[must_use]
    pub fn table(&self) -> &ModuleTable {
        &self.table
    }

    /// Every segment of every live module, rounded to pages, ascending; with the index into [`live`](Self::live).
    pub(super) fn spans(&self) -> &[(Range<u64>, usize)] {
        &self.spans
    }

    /// Makes the file mapped with this bias a live module: the one of before, if it is the same.
    fn adopt(&mut self, file: &FileMappings<'_>, opened: &Opened, bias: u64, auxiliary: &AuxiliaryVector) {
        let mut module = Module::from_layout(
            self.table.next_id(),
            file.path.to_owned(),
            file.file_id,
            Role::Library,
            bias,
            opened.layout.clone(),
        );
        module.image = self.known_image(&module).or_else(|| opened.image.clone());
        module.image_error.clone_from(&opened.error);
        module.role = if module.range.contains(&auxiliary.program_headers) || module.range.contains(&auxiliary.entry) {
            Role::Executable
        } else if auxiliary.interpreter_base != 0 && module.range.contains(&auxiliary.interpreter_base) {
            Role::Interpreter
        } else {
            Role::Library
        };
        self.go_live(module);
    }

    /// The image of a module of the same build that was loaded elsewhere before: a library that is loaded and unloaded for days, each
    /// time at another address, is to be mapped by us once.
    fn known_image(&self, module: &Module) -> Option<Image> {
        let is_same = |old: &&Arc<Module>| {
            old.build_id.is_some()
                && old.build_id == module.build_id
                && old.file_id == module.file_id
                && old.path == module.path
                && old.segments == module.segments
        };
        let same = self.table.iter().rev().find(is_same)?;
        same.image.clone().filter(|image| matches!(image, Image::File(_)))
    }

    fn go_live(&mut self, module: Module) {
        let same = self.table.iter().find(|old| {
            old.file_id == module.file_id
                && old.path == module.path
                && old.bias == module.bias
                && old.role == module.role
                && old.build_id == module.build_id
                && old.segments == module.segments
                && old.image.is_some() == module.image.is_some()
        });
        let module = match same {
            Some(old) => Arc::clone(old),
            None => {
                let module = Arc::new(module);
                self.table.push(Arc::clone(&module));
                module
            }
        };
        self.live.push(module);
    }

    fn adopt_vdso(
        &mut self,
        mappings: &[Mapping],
        auxiliary: &AuxiliaryVector,
        before: &[Arc<Module>],
        read: &mut dyn FnMut(u64, &mut [u8]) -> usize,
    ) {
        let holds_it =
            |mapping: &Mapping| auxiliary.vdso != 0 && (mapping.start..mapping.end).contains(&auxiliary.vdso);
        let is_vdso = |mapping: &&Mapping| mapping.path == Path::new(VDSO) || holds_it(mapping);
        let Some(mapping) = mappings.iter().filter(|mapping| mapping.executable).find(is_vdso) else { return };
        // FreeBSD's stands amid a page that it shares with other things.
        let start = if holds_it(mapping) { auxiliary.vdso } else { mapping.start };
        let known = before.iter().find(|module| module.role == Role::Vdso && module.range.contains(&start));
        if let Some(module) = known {
            self.live.push(Arc::clone(module));
            return;
        }
        let mut bytes = vec![0; usize::try_from(mapping.end - start).unwrap_or(0)];
        let length = read(start, &mut bytes);
        bytes.truncate(length);
        let Ok(layout) = Layout::parse(&bytes) else { return };
        let bias = start.wrapping_sub(layout.span().start);
        let mut module = Module::from_layout(self.table.next_id(), VDSO.into(), (0, 0), Role::Vdso, bias, layout);
        module.image = Some(Image::Memory(bytes.into()));
        self.go_live(module);
    }

    fn index(&mut self, mappings: &[Mapping]) {
        self.spans.clear();
        for (index, module) in self.live.iter().enumerate() {
            for segment in &module.segments {
                let start = module.run_time_address(segment.addresses.start) & !(PAGE - 1);
                let end = page_after(module.run_time_address(segment.addresses.end));
                self.spans.push((start..end, index));
            }
        }
        self.spans.sort_by_key(|(range, _)| range.start);
        self.code =
            mappings.iter().filter(|mapping| mapping.executable).map(|mapping| mapping.start..mapping.end).collect();
        // Once there it stays, even if a look from before is recalled.
        if let Some(page) = mappings.iter().find(|mapping| mapping.path == Path::new(UPROBES)) {
            self.uprobes = Some(page.start..page.end);
        }
        self.last_hit.set(0);
    }
}

impl Opened {
    fn again(module: &Module) -> Self {
        Opened {
            layout: Layout {
                fixed: false,
                entry: module.entry,
                segments: module.segments.clone(),
                eh_frame_hdr: module.eh_frame_hdr.clone(),
                build_id: module.build_id.clone(),
            },
            image: module.image.clone(),
            error: module.image_error.clone(),
            bias: module.image.is_none().then_some(module.bias),
        }
    }

    /// `None` if the file is no ELF file: then its code belongs to no module.
    fn open(
        file: &FileMappings<'_>,
        open: &mut dyn FnMut(&Mapping) -> io::Result<MappedFile>,
        read: &mut dyn FnMut(u64, &mut [u8]) -> usize,
    ) -> Option<Self> {
        let error = match open(file.mappings[0]) {
            Ok(mapped) => match Layout::parse(&mapped) {
                Ok(layout) => {
                    return Some(Opened {
                        layout,
                        image: Some(Image::File(Arc::new(mapped))),
                        error: None,
                        bias: None,
                    });
                }
                Err(why) => format!("cannot read {} as an ELF file: {why}", file.path.display()),
            },
            Err(why) => format!("cannot open {}: {why}", file.path.display()),
        };
        let first = file.mappings.iter().find(|mapping| mapping.offset == 0)?;
        let (layout, bytes) = read_from_memory(first.start, read)?;
        Some(Opened { layout, image: Some(Image::Memory(bytes.into())), error: Some(error), bias: None })
    }
}

/// The files with executable mappings, and those whose text may have been moved to anonymous memory.
fn group_by_file(mappings: &[Mapping]) -> Vec<FileMappings<'_>> {
    let mut files: BTreeMap<(&Path, (u64, u64)), Vec<&Mapping>> = BTreeMap::new();
    for mapping in mappings {
        // Devices must not be opened; they hold no ELF files.
        let device = mapping.path.starts_with("/dev") && !mapping.path.starts_with("/dev/shm");
        if mapping.file_id != (0, 0) && mapping.path.is_absolute() && !device {
            files.entry((&mapping.path, mapping.file_id)).or_default().push(mapping);
        }
    }
    let anonymous_code: Vec<&Mapping> =
        mappings.iter().filter(|mapping| mapping.executable && mapping.file_id == (0, 0)).collect();
    let may_hold_code = |of_file: &[&Mapping]| {
        let (first, last) = (of_file[0].start, of_file[of_file.len() - 1].end);
        of_file.iter().any(|mapping| mapping.executable)
            || anonymous_code.iter().any(|mapping| first < mapping.start && mapping.end < last)
    };
    files
        .into_iter()
        .filter(|(_, of_file)| may_hold_code(of_file))
        .map(|((path, file_id), mappings)| FileMappings { path, file_id, mappings })
        .collect()
}

/// With which load biases the file is mapped as code. Several: dlmopen, or two mappings by hand.
fn biases(file: &FileMappings<'_>, opened: &Opened, all: &[Mapping]) -> Vec<u64> {
    if let Some(bias) = opened.bias {
        return vec![bias];
    }
    let segments = &opened.layout.segments;
    let mut candidates: BTreeMap<u64, usize> = BTreeMap::new();
    for mapping in &file.mappings {
        for bias in segments.iter().filter_map(|segment| bias_of(mapping, segment)) {
            if bias % PAGE == 0 && (!opened.layout.fixed || bias == 0) {
                *candidates.entry(bias).or_default() += 1;
            }
        }
    }
    let executes = |bias: u64| {
        segments.iter().filter(|segment| segment.executable).any(|segment| {
            let start = bias.wrapping_add(segment.addresses.start);
            let end = page_after(bias.wrapping_add(segment.addresses.end));
            all.iter().filter(|mapping| mapping.executable).any(|mapping| {
                let its_own = mapping.file_id == file.file_id && bias_of(mapping, segment) == Some(bias);
                // Text copied to anonymous huge pages in place.
                let moved = mapping.file_id == (0, 0) && start <= mapping.start && mapping.end <= end;
                its_own || moved
            })
        })
    };
    // A file page that two segments share makes a false candidate, which fewer mappings agree with.
    let mut candidates: Vec<(u64, usize)> = candidates.into_iter().filter(|&(bias, _)| executes(bias)).collect();
    candidates.sort_by_key(|&(bias, support)| (std::cmp::Reverse(support), bias));
    let span = opened.layout.span();
    let mut accepted: Vec<u64> = Vec::new();
    for (bias, _) in candidates {
        if accepted.iter().all(|other| other.abs_diff(bias) >= span.end - span.start) {
            accepted.push(bias);
        }
    }
    accepted
}

/// The load bias if `mapping` is (part of) `segment`.
fn bias_of(mapping: &Mapping, segment: &Segment) -> Option<u64> {
    let first = segment.offset & !(PAGE - 1);
    let end = segment.offset.checked_add(segment.file_size)?.checked_next_multiple_of(PAGE)?;
    if segment.file_size == 0 || mapping.offset < first || mapping.offset >= end {
        return None;
    }
    let file_address = segment.addresses.start.wrapping_sub(segment.offset).wrapping_add(mapping.offset);
    Some(mapping.start.wrapping_sub(file_address))
}

/// The end of the page that ends at or after `address`.
fn page_after(address: u64) -> u64 {
    address.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX)
}

/// Puts an ELF image together from what is mapped from `start` on, in the layout of the file, without section headers.
fn read_from_memory(start: u64, read: &mut dyn FnMut(u64, &mut [u8]) -> usize) -> Option<(Layout, Vec<u8>)> {
    const LARGEST: u64 = 1 << 30;
    let mut head = vec![0; PAGE as usize];
    let length = read(start, &mut head);
    head.truncate(length);
    let layout = Layout::parse(&head).ok()?;
    let first = layout.segments.iter().find(|segment| segment.offset == 0)?;
    let bias = start.wrapping_sub(first.addresses.start);
    let size = layout.segments.iter().map(|segment| segment.offset.saturating_add(segment.file_size)).max()?;
    if size > LARGEST {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    for segment in &layout.segments {
        let from = usize::try_from(segment.offset).ok()?;
        let to = from + usize::try_from(segment.file_size).ok()?;
        read(bias.wrapping_add(segment.addresses.start), &mut bytes[from..to]);
    }
    // `e_shoff`, `e_shnum` and `e_shstrndx` of `Elf64_Ehdr`: the section headers are not mapped.
    bytes.get_mut(0x28..0x30)?.fill(0);
    bytes.get_mut(0x3c..0x40)?.fill(0);
    Some((layout, bytes))
}

#[cfg(test)]
mod tests;
