//! Files and shared objects mapped into memleax's own memory.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicU64;

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

/// Memory shared with the kernel (a mmapable BPF map), as words that either side may change at any time.
#[derive(Debug)]
pub struct SharedWords {
    map: memmap2::MmapRaw,
    words: usize,
}

impl SharedWords {
    /// Maps the first `words` words of `object`, readable and writable.
    ///
    /// # Errors
    /// The error of `mmap(2)`.
    pub fn new(object: BorrowedFd<'_>, words: usize) -> io::Result<Self> {
        let map = memmap2::MmapOptions::new().len(words * size_of::<u64>()).map_raw(&object)?;
        Ok(SharedWords { map, words })
    }
}

impl Deref for SharedWords {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping starts at a page, is `words` words long and lives as long as `self`; every bit pattern
        // is an AtomicU64, and both sides touch it by whole words only.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast(), self.words) }
    }
}
