//! Compressed sections.

use std::io::{self, Read};

use object::elf;
use ruzstd::decoding::StreamingDecoder;

/// The largest section that is decompressed: what it holds is kept in memory, and 32-bit DWARF can refer to no more.
const LARGEST: u64 = 4 << 30;

/// The most memory, in KiB, that xz may take for its window. Distributions use 8 MiB and less.
const XZ_WINDOW_KIB: u32 = 256 << 10;

/// The largest symbol table that xz may hold.
const LARGEST_XZ: u64 = 1 << 30;

/// Why something cannot be decompressed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum Error {
    /// The compression header is missing or cut short.
    #[error("its compression header is damaged")]
    Header,
    /// Neither zlib nor zstd (gABI, "Compression Header").
    #[error("compression type {0} is unknown")]
    Type(u32),
    /// More than is taken into memory.
    #[error("it says to have {0} bytes, which is more than memleax takes into memory")]
    TooLarge(u64),
    /// The stream is damaged.
    #[error("{0}")]
    Data(String),
    /// The stream ends early or late.
    #[error("it has not the {expected} bytes that its header promises")]
    Size {
        /// As the header says.
        expected: u64,
    },
}

/// A section with `SHF_COMPRESSED`: `Elf64_Chdr` and a stream.
pub(super) fn section(data: &[u8]) -> Result<Vec<u8>, Error> {
    let (header, stream) = data.split_first_chunk::<24>().ok_or(Error::Header)?;
    let kind = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    let size = u64::from_le_bytes(*header[8..].first_chunk().ok_or(Error::Header)?);
    match kind {
        elf::ELFCOMPRESS_ZLIB => read_exactly(flate2::read::ZlibDecoder::new(stream), size, stream.len()),
        elf::ELFCOMPRESS_ZSTD => {
            let decoder = StreamingDecoder::new(stream).map_err(|cause| Error::Data(cause.to_string()))?;
            read_exactly(decoder, size, stream.len())
        }
        other => Err(Error::Type(other)),
    }
}

/// A `.zdebug_…` section: `ZLIB`, the size in big-endian order, and a stream.
pub(super) fn legacy(data: &[u8]) -> Result<Vec<u8>, Error> {
    let (size, stream) = data.strip_prefix(b"ZLIB").and_then(<[u8]>::split_first_chunk).ok_or(Error::Header)?;
    read_exactly(flate2::read::ZlibDecoder::new(stream), u64::from_be_bytes(*size), stream.len())
}

/// An xz file, as in `.gnu_debugdata`.
pub(super) fn xz(data: &[u8]) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let reader = lzma_rust2::XzReader::new_mem_limit(data, true, XZ_WINDOW_KIB);
    let read = reader.take(LARGEST_XZ + 1).read_to_end(&mut bytes).map_err(data_error)?;
    if read as u64 > LARGEST_XZ { Err(Error::TooLarge(read as u64)) } else { Ok(bytes) }
}

/// Reads `size` bytes, whatever the stream holds: a small file cannot make memleax take more memory than it promises.
fn read_exactly(stream: impl Read, size: u64, compressed: usize) -> Result<Vec<u8>, Error> {
    if size > LARGEST {
        return Err(Error::TooLarge(size));
    }
    let mut bytes = Vec::new();
    // Debug sections shrink to about a third; a promise of much more is believed when it is kept.
    let likely = size.min(compressed as u64 * 8);
    bytes.try_reserve_exact(likely as usize).map_err(|_| Error::TooLarge(size))?;
    stream.take(size + 1).read_to_end(&mut bytes).map_err(data_error)?;
    if bytes.len() as u64 == size { Ok(bytes) } else { Err(Error::Size { expected: size }) }
}

fn data_error(cause: io::Error) -> Error {
    Error::Data(cause.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn zlib(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(content).expect("compressed");
        encoder.finish().expect("compressed")
    }

    fn compressed(kind: u32, size: u64, stream: &[u8]) -> Vec<u8> {
        let mut section = [kind.to_le_bytes(), [0; 4]].concat();
        section.extend(size.to_le_bytes());
        section.extend(1u64.to_le_bytes());
        section.extend(stream);
        section
    }

    #[test]
    fn zlib_sections_are_read_in_both_forms() {
        let stream = zlib(b"some debug information");
        assert_eq!(
            section(&compressed(elf::ELFCOMPRESS_ZLIB, 22, &stream)).as_deref(),
            Ok(&b"some debug information"[..])
        );
        let old = [b"ZLIB", &22u64.to_be_bytes()[..], &stream].concat();
        assert_eq!(legacy(&old).as_deref(), Ok(&b"some debug information"[..]));
    }

    #[test]
    fn a_stream_must_have_the_promised_size() {
        let stream = zlib(&[0; 100_000]);
        for size in [0, 99_999, 100_001] {
            let read = section(&compressed(elf::ELFCOMPRESS_ZLIB, size, &stream));
            assert_eq!(read, Err(Error::Size { expected: size }));
        }
        assert_eq!(section(&compressed(elf::ELFCOMPRESS_ZLIB, u64::MAX, &stream)), Err(Error::TooLarge(u64::MAX)));
    }

    #[test]
    fn damaged_streams_are_errors() {
        assert_eq!(section(&[0; 23]), Err(Error::Header));
        assert_eq!(legacy(b"ZLIB"), Err(Error::Header));
        assert_eq!(section(&compressed(77, 1, b"")), Err(Error::Type(77)));
        for kind in [elf::ELFCOMPRESS_ZLIB, elf::ELFCOMPRESS_ZSTD] {
            assert!(matches!(section(&compressed(kind, 10, b"not compressed at all")), Err(Error::Data(_))));
        }
        assert!(matches!(xz(b"\xfd7zXZ\0 and then something else"), Err(Error::Data(_))));
    }
}
