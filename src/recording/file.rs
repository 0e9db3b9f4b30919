//! Recordings as files.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use memleax_platform::MappedFile;

use super::Error;
use super::chunk::{HEADER, MAGIC, VERSION};
use super::reader::{Replayed, replay};

/// Reads a recording, as far as it is whole; see [`replay`].
///
/// # Errors
/// If the file cannot be read, or is no recording that this version knows.
pub fn read(path: &Path, expire: Option<Duration>) -> Result<Replayed, Error> {
    let unreadable = |cause: io::Error| Error::Unreadable { path: path.into(), cause };
    let file = File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.len() < HEADER as u64 {
        return Err(Error::NoRecording { path: path.into() });
    }
    let bytes = MappedFile::new(&file).map_err(unreadable)?;
    if !bytes.starts_with(MAGIC) {
        return Err(Error::NoRecording { path: path.into() });
    }
    let version = u16::from_le_bytes([bytes[8], bytes[9]]);
    if version > VERSION {
        return Err(Error::TooNew { path: path.into(), found: version });
    }
    replay(&bytes, expire).ok_or_else(|| Error::NoBeginning { path: path.into() })
}
