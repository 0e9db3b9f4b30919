//! The debug file that the user names for a module.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memleax_platform::{MappedFile, SharedBytes};

use super::elf::ElfFile;
use super::image_bytes;
use super::search::{Found, Mismatch, check_belongs};
use crate::event::ModuleId;
use crate::unwind::Module;

/// A debug file that was checked to belong to a module.
#[derive(Clone, Debug)]
pub struct DebugFile {
    module: ModuleId,
    path: PathBuf,
    bytes: SharedBytes,
}

/// Why a file cannot be used as a module's debug file.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {path} as debug file of {module}: {cause}", path = .path.display(), module = .module.display())]
pub struct DebugFileError {
    path: PathBuf,
    module: PathBuf,
    cause: Cause,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("{0}")]
    Open(#[from] io::Error),
    #[error("{0}")]
    Elf(#[from] super::elf::ElfError),
    #[error("the program's own file cannot be read")]
    NoImage,
    #[error("{0}; give the file of the same build")]
    Mismatch(#[from] Mismatch),
    #[error("it holds neither debug information nor symbols; give one made by `objcopy --only-keep-debug`")]
    Empty,
}

impl DebugFile {
    /// Opens `path` and checks that it belongs to `module`: by build id, or else by the CRC-32 in the module's
    /// `.gnu_debuglink`. A module that has neither is believed to match, with a warning.
    ///
    /// # Errors
    /// If the file cannot be read, is no debug file, or is that of another build.
    pub fn check(module: &Module, path: &Path) -> Result<Self, DebugFileError> {
        Self::try_check(module, path).map_err(|cause| DebugFileError {
            path: path.to_owned(),
            module: module.path.clone(),
            cause,
        })
    }

    fn try_check(module: &Module, path: &Path) -> Result<Self, Cause> {
        let bytes = SharedBytes::from(Arc::new(MappedFile::new(&File::open(path)?)?));
        let candidate = ElfFile::parse(bytes.clone())?;
        let program = ElfFile::parse(image_bytes(module.image.as_ref().ok_or(Cause::NoImage)?))?;
        match check_belongs(&program, &candidate)? {
            Some(proof) => tracing::info!("{} belongs to {}: {proof}", path.display(), module.path.display()),
            None => tracing::warn!(
                "{} has neither build id nor .gnu_debuglink, so nothing shows whether {} belongs to it",
                module.path.display(),
                path.display()
            ),
        }
        if !candidate.has_debug_info() && !candidate.has_symbols() {
            return Err(Cause::Empty);
        }
        let path = std::path::absolute(path)?;
        Ok(Self { module: module.id, path, bytes })
    }

    /// The whole file.
    pub(super) fn bytes(&self) -> &SharedBytes {
        &self.bytes
    }

    /// The file, if it is this module's.
    pub(super) fn for_module(&self, module: ModuleId) -> Option<Found> {
        let elf = ElfFile::parse(self.bytes.clone()).ok().filter(|_| self.module == module)?;
        Some(Found { path: self.path.clone(), elf })
    }
}
