//! The file system as a process sees it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::Pid;

/// A root directory below which files are opened. The paths that the kernel tells of a process in a jail are the
/// tracer's own, so it is the tracer's root.
#[derive(Debug)]
pub struct RootDirectory(PathBuf);

impl RootDirectory {
    /// The root of a running process.
    ///
    /// # Errors
    /// None on this system.
    pub fn of(_: Pid) -> io::Result<Self> {
        Ok(Self("/".into()))
    }

    /// Any directory as a root.
    ///
    /// # Errors
    /// None on this system.
    pub fn at(directory: &Path) -> io::Result<Self> {
        Ok(Self(directory.to_owned()))
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// That of `open(2)`; [`io::ErrorKind::InvalidInput`] if it is no regular file.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        let path = self.0.join(path.strip_prefix("/").unwrap_or(path));
        // Looked at first, as opening a FIFO waits for its other end.
        if !path.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        File::open(path)
    }
}
