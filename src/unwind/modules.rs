//! The modules (executable, shared libraries, vdso) of the target, now and ever.

use std::path::PathBuf;
use std::sync::Arc;

use memleax_platform::MappedFile;

use crate::event::ModuleId;

/// Bytes of an ELF image: a mapped file, or a copy from memory (vdso).
#[derive(Debug, Clone)]
pub enum Image {
    /// The file that the target mapped, kept open: it stays readable when deleted or when the target ends.
    File(Arc<MappedFile>),
    /// A copy of the target's memory.
    Memory(Arc<[u8]>),
}

/// A module that was mapped into the target, perhaps no longer.
#[derive(Debug)]
pub struct Module {
    /// Its place in the [`ModuleTable`].
    pub id: ModuleId,
    /// As the target sees it; `[vdso]` for the vdso.
    pub path: PathBuf,
    /// `run-time address - bias` is the address that the file counts by.
    pub bias: u64,
    /// Run-time range of all its segments.
    pub range: std::ops::Range<u64>,
    /// The ELF file; `None` if it could not be opened.
    pub image: Option<Image>,
}

/// Every module ever seen, in order of discovery; never shrinks.
#[derive(Debug, Default)]
pub struct ModuleTable {
    modules: Vec<Arc<Module>>,
}

impl ModuleTable {
    /// The module of an id.
    #[must_use]
    pub fn get(&self, id: ModuleId) -> &Arc<Module> {
        &self.modules[id.0 as usize]
    }
}
