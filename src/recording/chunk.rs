//! Records as bytes: what makes a file of them readable after damage.

use std::io::{self, Write};

use super::record::Record;

/// First bytes of a recording. The last two make a transfer that changes line ends noticed.
pub(super) const MAGIC: &[u8; 8] = b"memleax\n";
/// Version of the format: what a reader of an earlier one would misread makes it the next.
pub(super) const VERSION: u16 = 1;
/// Magic, version, two bytes 0.
pub(super) const HEADER: usize = 12;

/// First bytes of each chunk: none of them is text.
const MARK: [u8; 4] = [0xF6, 0xB1, 0xE0, 0x9A];
/// Mark, length and checksum of the payload (both 32 bits, little endian).
const CHUNK_HEADER: usize = 12;

pub(super) fn header() -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header
}

/// Appends one chunk.
///
/// # Errors
/// Those of `output`. A record is never longer than 4 GiB: lists are cut before.
pub(super) fn append(record: &Record, output: &mut impl Write) -> io::Result<()> {
    let payload = postcard::to_stdvec(record).map_err(io::Error::other)?;
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut chunk = Vec::with_capacity(CHUNK_HEADER + payload.len());
    chunk.extend(MARK);
    chunk.extend(length.to_le_bytes());
    chunk.extend(crc32fast::hash(&payload).to_le_bytes());
    chunk.extend(payload);
    // At once, so that a kill leaves whole chunks.
    output.write_all(&chunk)
}

/// What stands next in a recording.
pub(super) enum Found {
    /// A whole record.
    Record(Record),
    /// So many bytes are not whole, or of no kind that is known.
    Damage(usize),
    /// So many bytes at the end are the beginning of a chunk: the writer was ended.
    CutShort(usize),
}

/// Goes through chunks, past damaged ones.
pub(super) struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Chunks<'a> {
    /// Those that follow the header of a recording.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Chunks { rest: bytes.get(HEADER..).unwrap_or_default() }
    }
}

impl Iterator for Chunks<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        if self.rest.is_empty() {
            return None;
        }
        if let Some((payload, rest)) = whole(self.rest)
            && let Ok(record) = postcard::from_bytes(payload)
        {
            self.rest = rest;
            return Some(Found::Record(record));
        }
        // The next place where a whole chunk begins. One that claims to be longer than the rest may be damaged, too.
        let next = memchr::memmem::find_iter(&self.rest[1..], &MARK)
            .map(|at| at + 1)
            .find(|&at| whole(&self.rest[at..]).is_some());
        let lost = next.unwrap_or(self.rest.len());
        let is_beginning = next.is_none() && (self.rest.starts_with(&MARK) || MARK.starts_with(self.rest));
        self.rest = &self.rest[lost..];
        Some(if is_beginning { Found::CutShort(lost) } else { Found::Damage(lost) })
    }
}

/// The payload of the chunk that begins here, and what follows it.
fn whole(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, rest) = bytes.split_at_checked(CHUNK_HEADER)?;
    let word = |at: usize| Some(u32::from_le_bytes(header.get(at..at + 4)?.try_into().ok()?));
    if !header.starts_with(&MARK) {
        return None;
    }
    let (payload, rest) = rest.split_at_checked(usize::try_from(word(4)?).ok()?)?;
    (crc32fast::hash(payload) == word(8)?).then_some((payload, rest))
}
