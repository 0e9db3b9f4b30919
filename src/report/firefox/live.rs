//! What was live, over time, as allocations and frees.
//!
//! A profile tells what each call stack had live at some moments, so what is written is the difference between one moment and the
//! next. The format tells what is retained by matching each free with its allocation, whole: so what grew is cut into pieces that are freed as a
//! whole, the youngest first, and the pieces have numbers in place of addresses. Then what a reader sees as retained in a span of time is what
//! grew in it and stayed.

use super::tables::NativeAllocations;
use crate::event::Tally;
use crate::profile::{Profile, Site};

/// A piece of memory that is allocated, or freed, as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Piece {
    /// Index of the moment; beyond the last: the end of the run.
    moment: usize,
    bytes: i64,
    number: u64,
}

/// The pieces of all call stacks, in order of time; `rows` are those of the sites' stacks.
pub(super) fn over_time(profile: &Profile, rows: &[Option<usize>]) -> NativeAllocations {
    let mut last = 0;
    let mut all = Vec::new();
    for (site, &row) in profile.sites.iter().zip(rows) {
        all.extend(pieces(site, profile.timeline.len(), &mut last).into_iter().map(|piece| (piece, row)));
    }
    // Stable: an allocation stays before its free.
    all.sort_by_key(|(piece, _)| piece.moment);
    let end = super::end(profile);
    let mut table = NativeAllocations::new(true);
    for (piece, row) in all {
        let time = profile.timeline.get(piece.moment).map_or(end, |moment| super::milliseconds(moment.at.0.into()));
        table.add(time, piece.bytes, row, piece.number);
    }
    table
}

/// Those of one call stack; `last` is the number that was given last.
fn pieces(site: &Site, end: usize, last: &mut u64) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    // Indices of those that are not freed, the youngest last.
    let mut live: Vec<usize> = Vec::new();
    let mut bytes = 0;
    let mut number = || {
        *last += 1;
        *last
    };
    for &(moment, Tally { bytes: now, .. }) in site.growth.iter().chain([&(end, site.live)]) {
        let mut less = bytes - now.cast_signed();
        bytes = now.cast_signed();
        if less < 0 {
            live.push(pieces.len());
            pieces.push(Piece { moment, bytes: -less, number: number() });
        }
        while less > 0 {
            let Some(youngest) = live.pop() else { break };
            let piece = pieces[youngest];
            let freed = less.min(piece.bytes);
            less -= freed;
            if freed == piece.bytes {
                pieces.push(Piece { moment, bytes: -freed, ..piece });
            } else {
                // Two pieces from the beginning, of which one stays.
                pieces[youngest].bytes -= freed;
                live.push(youngest);
                let parted = Piece { bytes: freed, number: number(), ..piece };
                pieces.extend([parted, Piece { moment, bytes: -freed, ..parted }]);
            }
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::sample;

    fn of(growth: &[u64], live: u64) -> Vec<(usize, i64, u64)> {
        let tally = |bytes| Tally { count: 1, bytes };
        let growth = growth.iter().enumerate().map(|(moment, &bytes)| (moment, tally(bytes))).collect();
        let site = Site { growth, live: tally(live), ..sample::profile().sites[0].clone() };
        let mut pieces = pieces(&site, 9, &mut 0);
        pieces.sort_by_key(|piece| piece.moment);
        pieces.into_iter().map(|piece| (piece.moment, piece.bytes, piece.number)).collect()
    }

    #[test]
    fn what_shrinks_is_freed_as_it_was_allocated_the_youngest_first() {
        assert_eq!(
            of(&[10, 30, 25, 4], 4),
            [(0, 4, 1), (0, 6, 4), (1, 15, 2), (1, 5, 3), (2, -5, 3), (3, -15, 2), (3, -6, 4)]
        );
    }

    #[test]
    fn what_the_moments_missed_comes_at_the_end() {
        assert_eq!(of(&[10], 12), [(0, 10, 1), (9, 2, 2)]);
        assert_eq!(of(&[], 0), []);
    }
}
