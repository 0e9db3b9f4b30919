//! A file mapped into memleax's own memory.

use std::fs::File;
use std::io;
use std::ops::Deref;

/// A whole file, mapped read-only and private: costs address space, not memory, even for a 500 MB binary.
#[derive(Debug)]
pub struct MappedFile(memmap2::Mmap);

impl MappedFile {
    /// Maps all of `file`.
    ///
    /// # Errors
    /// The error of `fstat(2)` or `mmap(2)`.
    pub fn new(file: &File) -> io::Result<Self> {
        // SAFETY: the mapping is private and read-only. A file truncated by somebody afterwards raises SIGBUS,
        // which ends memleax but leaves the target unharmed; package managers replace files by rename.
        unsafe { memmap2::Mmap::map(file) }.map(MappedFile)
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
