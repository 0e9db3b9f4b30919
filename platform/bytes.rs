//! Bytes that many owners may look at, without a lifetime.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use stable_deref_trait::{CloneStableDeref, StableDeref};

use crate::MappedFile;

/// Immutable bytes, a file's or from memory, or a part of them. A clone shares them and costs a reference count.
///
/// It may be read through a pointer for as long as any clone lives ([`CloneStableDeref`]), which is what
/// `gimli::EndianReader` asks for: so readers of debug information own what they read.
#[derive(Clone)]
pub struct SharedBytes {
    owner: Owner,
    /// Within the owner's length.
    range: Range<usize>,
}

#[derive(Clone)]
enum Owner {
    File(Arc<MappedFile>),
    Memory(Arc<[u8]>),
    Buffer(Arc<Vec<u8>>),
}

impl SharedBytes {
    /// The file, if these are all bytes of one.
    #[must_use]
    pub fn whole_file(&self) -> Option<&Arc<MappedFile>> {
        match &self.owner {
            Owner::File(file) if self.range == (0..file.len()) => Some(file),
            _ => None,
        }
    }

    /// The part at `range`, counted from the start of these bytes; `None` if it reaches beyond their end.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        if range.start > range.end || range.end > self.range.len() {
            return None;
        }
        let start = self.range.start;
        Some(Self { owner: self.owner.clone(), range: start + range.start..start + range.end })
    }
}

impl Deref for SharedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let all: &[u8] = match &self.owner {
            Owner::File(file) => file,
            Owner::Memory(bytes) => bytes,
            Owner::Buffer(bytes) => bytes,
        };
        &all[self.range.clone()]
    }
}

// SAFETY: each owner is behind an `Arc` of which no mutable reference is ever made, so the bytes neither move nor change
// when the `SharedBytes` itself is moved.
unsafe impl StableDeref for SharedBytes {}

// SAFETY: a clone holds another count of the same `Arc` and the same range, so it dereferences to the same address.
unsafe impl CloneStableDeref for SharedBytes {}

impl From<Arc<MappedFile>> for SharedBytes {
    fn from(file: Arc<MappedFile>) -> Self {
        Self { range: 0..file.len(), owner: Owner::File(file) }
    }
}

impl From<Arc<[u8]>> for SharedBytes {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self { range: 0..bytes.len(), owner: Owner::Memory(bytes) }
    }
}

impl From<Vec<u8>> for SharedBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self { range: 0..bytes.len(), owner: Owner::Buffer(Arc::new(bytes)) }
    }
}

impl Default for SharedBytes {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedBytes({} bytes)", self.range.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_part_counts_from_the_parts_start() {
        let bytes = SharedBytes::from(vec![0, 1, 2, 3, 4, 5]);
        let part = bytes.slice(1..5).and_then(|part| part.slice(1..3));
        assert_eq!(part.as_deref(), Some(&[2, 3][..]));
    }

    #[test]
    fn a_part_beyond_the_end_is_none() {
        let part = SharedBytes::from(vec![0; 8]).slice(2..4).expect("within");
        assert!(part.slice(0..3).is_none());
        assert!(part.slice(0..2).is_some());
        let (start, end) = (2, 1);
        assert!(part.slice(start..end).is_none());
    }

    #[test]
    fn a_clone_has_the_same_address() {
        for bytes in [SharedBytes::from(vec![7; 3]), SharedBytes::from(Arc::<[u8]>::from([7; 3]))] {
            let (part, moved) = (bytes.slice(1..3).expect("within"), Box::new(bytes.clone()));
            drop(bytes);
            assert_eq!(part.as_ptr(), moved[1..].as_ptr());
        }
    }
}
