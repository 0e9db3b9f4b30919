//! The modules (executable, shared libraries, vdso) of the target, now and ever.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use memleax_platform::MappedFile;

use super::image::{Image, Layout, Segment};
use crate::event::ModuleId;

/// What a module is to its process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The program.
    Executable,
    /// The dynamic linker that the kernel started (`PT_INTERP`).
    Interpreter,
    /// The kernel's own library.
    Vdso,
    /// Any other.
    Library,
}

/// A module that was mapped into the target, perhaps no longer.
#[derive(Debug)]
pub struct Module {
    /// Its place in the [`ModuleTable`].
    pub id: ModuleId,
    /// As the target sees it; `[vdso]` for the vdso.
    pub path: PathBuf,
    /// Device and inode of the file; `(0, 0)` for the vdso.
    pub file_id: (u64, u64),
    /// What it is to its process.
    pub role: Role,
    /// `run-time address - bias` (wrapping) is the address that the file counts by.
    pub bias: u64,
    /// Run-time range of all its segments.
    pub range: Range<u64>,
    /// The ELF image; `None` if there is none to be had.
    pub image: Option<Image>,
    /// Why the file could not be read, if so; `image` is then a copy from memory or `None`.
    pub image_error: Option<String>,
    /// `NT_GNU_BUILD_ID`.
    pub build_id: Option<Box<[u8]>>,
    /// Its loadable segments, in ascending order; from the mappings where the file is unknown.
    pub segments: Vec<Segment>,
    /// Its first instruction, as the file counts addresses; 0 if it is not to be started.
    pub(super) entry: u64,
    /// Where `.eh_frame_hdr` is, as the file counts addresses.
    pub(super) eh_frame_hdr: Option<Range<u64>>,
}

impl Module {
    pub(super) fn from_layout(
        id: ModuleId,
        path: PathBuf,
        file_id: (u64, u64),
        role: Role,
        bias: u64,
        layout: Layout,
    ) -> Self {
        let span = layout.span();
        Module {
            id,
            path,
            file_id,
            role,
            bias,
            range: span.start.wrapping_add(bias)..span.end.wrapping_add(bias),
            image: None,
            image_error: None,
            build_id: layout.build_id,
            segments: layout.segments,
            entry: layout.entry,
            eh_frame_hdr: layout.eh_frame_hdr,
        }
    }

    /// A file by itself, whichever processes map it: run-time addresses are the file's own.
    ///
    /// # Errors
    /// Why it cannot be read, or is no 64-bit ELF file.
    pub fn of_file(path: PathBuf, file_id: (u64, u64), file: &File) -> io::Result<Self> {
        let image = Image::File(Arc::new(MappedFile::new(file)?));
        let layout = Layout::parse(image.bytes()).map_err(io::Error::other)?;
        let module = Module::from_layout(ModuleId(0), path, file_id, Role::Library, 0, layout);
        Ok(Module { image: Some(image), ..module })
    }

    /// The address as the file counts it.
    #[must_use]
    pub fn file_address(&self, run_time_address: u64) -> u64 {
        run_time_address.wrapping_sub(self.bias)
    }

    /// The run-time address of one that the file states.
    #[must_use]
    pub fn run_time_address(&self, file_address: u64) -> u64 {
        file_address.wrapping_add(self.bias)
    }

    /// True if `run_time_address` is in an executable segment.
    #[must_use]
    pub fn is_code(&self, run_time_address: u64) -> bool {
        let address = self.file_address(run_time_address);
        self.segments.iter().any(|segment| segment.executable && segment.addresses.contains(&address))
    }

    /// Copies what the *file* holds at a run-time address, so without breakpoints. False if not all of it is in the
    /// file: the module's image is a copy from memory, or the range leaves its segment.
    #[must_use]
    pub fn original_bytes(&self, run_time_address: u64, buffer: &mut [u8]) -> bool {
        let Some(Image::File(_)) = &self.image else { return false };
        match self.image_bytes(self.file_address(run_time_address), buffer.len()) {
            Some(bytes) => {
                buffer.copy_from_slice(bytes);
                true
            }
            None => false,
        }
    }

    /// Where in the file the byte at an address is (an address as the file counts it).
    #[must_use]
    pub fn file_offset(&self, file_address: u64) -> Option<u64> {
        let segment = self.segments.iter().find(|segment| {
            segment.addresses.contains(&file_address) && file_address - segment.addresses.start < segment.file_size
        })?;
        segment.offset.checked_add(file_address - segment.addresses.start)
    }

    /// The image's bytes at an address as the file counts it.
    #[must_use]
    pub fn image_bytes(&self, file_address: u64, length: usize) -> Option<&[u8]> {
        let rest = self.image_bytes_from(file_address)?;
        rest.get(..length)
    }

    /// The code from an address (as the file counts it) to the end of its segment.
    pub(super) fn code_from(&self, file_address: u64) -> Option<&[u8]> {
        let executable = |segment: &Segment| segment.executable && segment.addresses.contains(&file_address);
        self.segments.iter().any(executable).then(|| self.image_bytes_from(file_address))?
    }

    /// The image's bytes from an address (as the file counts it) to the end of its segment.
    #[must_use]
    pub fn image_bytes_from(&self, file_address: u64) -> Option<&[u8]> {
        let image = self.image.as_ref()?.bytes();
        // Of two segments that contain the address (they share a page), that one counts whose own bytes are there.
        let segment = self.segments.iter().find(|segment| {
            segment.addresses.contains(&file_address) && file_address - segment.addresses.start < segment.file_size
        })?;
        let start = segment.offset.checked_add(file_address - segment.addresses.start)?;
        let end = segment.offset.checked_add(segment.file_size)?.min(image.len() as u64);
        image.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
    }
}

/// Every module ever seen, in order of discovery; never shrinks.
#[derive(Clone, Debug, Default)]
pub struct ModuleTable {
    modules: Vec<Arc<Module>>,
}

impl ModuleTable {
    /// The module of an id.
    #[must_use]
    pub fn get(&self, id: ModuleId) -> &Arc<Module> {
        &self.modules[id.0 as usize]
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.modules.len()
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.modules.is_empty()
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Module>> {
        self.modules.iter()
    }

    /// The id that the next [`push`](Self::push) gives.
    pub(super) fn next_id(&self) -> ModuleId {
        ModuleId(u32::try_from(self.modules.len()).unwrap_or(u32::MAX))
    }

    /// Appends a module that was made with [`next_id`](Self::next_id).
    pub(super) fn push(&mut self, module: Arc<Module>) {
        self.modules.push(module);
    }
}
