//! Which mapping covers an address. A mapping can be unmapped piece by piece: it is one block until its last piece is
//! gone.

use std::collections::BTreeMap;
use std::ops::Range;

use super::blocks::Slot;

/// A contiguous part of a mapping.
#[derive(Clone, Copy, Debug)]
struct Piece {
    end: u64,
    slot: Slot,
}

/// Disjoint pieces, by their first byte. None is empty.
#[derive(Debug, Default)]
pub(super) struct Mappings {
    pieces: BTreeMap<u64, Piece>,
}

impl Mappings {
    /// Enters a range that nothing covers.
    pub(super) fn insert(&mut self, range: Range<u64>, slot: Slot) {
        if !range.is_empty() {
            self.pieces.insert(range.start, Piece { end: range.end, slot });
        }
    }

    /// Cuts a range out; tells for each piece whose it was and how many bytes it had.
    pub(super) fn remove(&mut self, range: Range<u64>) -> Vec<(Slot, u64)> {
        if range.is_empty() {
            return Vec::new();
        }
        self.cut(range.start);
        self.cut(range.end);
        let removed = self.pieces.range(range).map(|(&start, piece)| (start, *piece)).collect::<Vec<_>>();
        removed
            .into_iter()
            .map(|(start, piece)| {
                self.pieces.remove(&start);
                (piece.slot, piece.end - start)
            })
            .collect()
    }

    /// Lengthens the last piece in a range to end at `end`, beyond the range; nothing covers what is between. Tells whose
    /// it is and by how many bytes it grew.
    pub(super) fn extend_last(&mut self, range: Range<u64>, end: u64) -> Option<(Slot, u64)> {
        self.cut(range.start);
        let (_, piece) = self.pieces.range_mut(range).next_back()?;
        let grown = end - piece.end;
        piece.end = end;
        Some((piece.slot, grown))
    }

    /// Makes a piece begin at `address` if one covers it.
    fn cut(&mut self, address: u64) {
        let Some((_, piece)) = self.pieces.range_mut(..address).next_back() else { return };
        if piece.end > address {
            let tail = *piece;
            piece.end = address;
            self.pieces.insert(address, tail);
        }
    }
}
