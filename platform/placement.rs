//! Where in a target's address space code may be put without being in anything's way.

use std::ops::Range;

use crate::Mapping;

/// Every byte is at most this far away, so that code there reaches the module, and the module's data, by 32-bit
/// displacements.
const REACH: u64 = 1 << 30;

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;

/// The end of the lower half of the address space (`TASK_SIZE_MAX` of `arch/x86/include/asm/page_64_types.h` with four
/// page table levels; with five, what asks for no more gets no more; FreeBSD's `VM_MAXUSER_ADDRESS` is one page above it).
const USER_END: u64 = 0x7fff_ffff_f000;

/// Distance kept from a mapping above that might grow downwards.
const MARGIN: u64 = 16 << 20;

/// Distance kept from what `brk` grows upwards from.
const BREAK_DISTANCE: u64 = 512 << 20;

/// A free place for `length` bytes, all of it within 1 GiB of `near`, where it is in nothing's way:
/// - below `near` rather than above, as close as possible: below an executable nothing grows, and below the libraries
///   the kernel itself would put the next mapping;
/// - not in the gap below a stack, which grows downwards;
/// - far from the executable's end and the heap, from where `brk` grows upwards.
pub(crate) fn choose_place(mappings: &[Mapping], near: u64, length: u64, lowest: u64) -> Option<u64> {
    let length = length.next_multiple_of(PAGE);
    let reachable = near.saturating_sub(REACH).next_multiple_of(PAGE)..near.saturating_add(REACH) & !(PAGE - 1);
    let places = gaps(mappings, lowest).filter_map(|gap| gap.place(&reachable, length));
    places.min_by_key(|&place| (place >= near, place.abs_diff(near)))
}

struct Gap {
    range: Range<u64>,
    /// `brk` may grow into it from below.
    is_for_break: bool,
    /// What is above it never grows downwards.
    has_firm_end: bool,
}

impl Gap {
    /// The highest place in the gap that is `reachable` and leaves its neighbours room.
    fn place(&self, reachable: &Range<u64>, length: u64) -> Option<u64> {
        let start = self.range.start.max(reachable.start);
        let end = self.range.end.min(reachable.end);
        let place = end.checked_sub(length).filter(|&place| place >= start)?;
        if self.is_for_break && place < self.range.start.saturating_add(BREAK_DISTANCE) {
            return None;
        }
        // Not needed where the reach ends first; half the room where there is little.
        let margin = if self.has_firm_end || end < self.range.end { 0 } else { MARGIN.min((place - start) / 2) };
        Some((place - margin) & !(PAGE - 1))
    }
}

/// The gaps between mappings in which something may be put.
fn gaps(mappings: &[Mapping], lowest: u64) -> impl Iterator<Item = Gap> {
    let below = std::iter::once(None).chain(mappings.iter().map(Some));
    let above = mappings.iter().map(Some).chain(std::iter::once(None));
    let break_end = break_end(mappings);
    below.zip(above).filter_map(move |(below, above)| {
        let start = below.map_or(0, |mapping| mapping.end).max(lowest);
        let end = above.map_or(USER_END, |mapping| mapping.start).min(USER_END);
        let is_stack = above.is_some_and(|mapping| mapping.path.as_os_str() == "[stack]");
        let has_firm_end = above.is_none_or(|mapping| mapping.file_id != (0, 0));
        let gap = Gap { range: start..end, is_for_break: Some(start) == break_end, has_firm_end };
        (start < end && !is_stack).then_some(gap)
    })
}

/// Where `brk` will grow upwards from: the end of the heap or, as long as there is none, of the main executable.
fn break_end(mappings: &[Mapping]) -> Option<u64> {
    if let Some(heap) = mappings.iter().find(|mapping| mapping.path.as_os_str() == "[heap]") {
        return Some(heap.end);
    }
    // The kernel puts it below all libraries.
    let executable = mappings.iter().find(|mapping| mapping.file_id != (0, 0))?.file_id;
    let mut end = None;
    for mapping in mappings {
        // What follows immediately is its zero-initialised data.
        if mapping.file_id == executable || end == Some(mapping.start) {
            end = Some(mapping.end);
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const LENGTH: u64 = 64 << 10;
    const LOWEST: u64 = 0x1_0000;

    fn mapping(start: u64, end: u64, path: &str) -> Mapping {
        Mapping {
            start,
            end,
            offset: 0,
            readable: true,
            writable: false,
            executable: true,
            shared: false,
            // A path that begins with a slash is a file; the same path the same file.
            file_id: if path.starts_with('/') { (1, path.len() as u64) } else { (0, 0) },
            path: PathBuf::from(path),
            deleted: false,
        }
    }

    fn position_independent() -> Vec<Mapping> {
        vec![
            mapping(0x5555_5555_4000, 0x5555_5555_8000, "/exe"),
            mapping(0x5555_5555_8000, 0x5555_5557_9000, "[heap]"),
            mapping(0x7fff_f400_0000, 0x7fff_f402_1000, ""),
            mapping(0x7fff_f7c0_0000, 0x7fff_f7e0_0000, "/libc.so"),
            mapping(0x7fff_f7e0_0000, 0x7fff_f7e0_d000, ""),
            mapping(0x7fff_f7fc_1000, 0x7fff_f7fc_5000, "[vvar]"),
            mapping(0x7fff_f7fc_5000, 0x7fff_f7fc_7000, "[vdso]"),
            mapping(0x7fff_f7fc_7000, 0x7fff_f7ff_f000, "/ld-linux.so"),
            mapping(0x7fff_fffd_e000, 0x7fff_ffff_f000, "[stack]"),
        ]
    }

    #[test]
    fn right_below_a_position_independent_executable() {
        let place = choose_place(&position_independent(), 0x5555_5555_5000, LENGTH, LOWEST);
        assert_eq!(place, Some(0x5555_5555_4000 - LENGTH));
    }

    #[test]
    fn right_below_a_library() {
        let place = choose_place(&position_independent(), 0x7fff_f7c9_0000, LENGTH, LOWEST);
        assert_eq!(place, Some(0x7fff_f7c0_0000 - LENGTH));
    }

    #[test]
    fn below_a_fixed_executable() {
        let mappings = [
            mapping(0x40_0000, 0x4c_0000, "/exe"),
            mapping(0x4c_0000, 0x4f_0000, "[heap]"),
            mapping(0x7ffc_0000_0000, 0x7ffc_0002_1000, "[stack]"),
        ];
        assert_eq!(choose_place(&mappings, 0x40_1000, LENGTH, LOWEST), Some(0x40_0000 - LENGTH));
    }

    #[test]
    fn far_above_the_break_where_there_is_no_room_below() {
        let mappings = [mapping(LOWEST, 0x4c_0000, "/exe"), mapping(0x4c_0000, 0x4f_0000, "[heap]")];
        let near = 0x40_1000;
        let place = choose_place(&mappings, near, LENGTH, LOWEST).expect("a place");
        assert!(place >= 0x4f_0000 + BREAK_DISTANCE, "{place:#x}");
        assert!(place + LENGTH <= near + REACH, "{place:#x}");
    }

    #[test]
    fn not_below_the_lowest_mappable_address() {
        let mappings = [mapping(0x2_0000, 0x4c_0000, "/exe")];
        assert!(choose_place(&mappings, 0x2_1000, LENGTH, LOWEST).is_some_and(|place| place == LOWEST));
        assert!(choose_place(&mappings, 0x2_1000, 2 * LENGTH, LOWEST).is_some_and(|place| place > 0x4c_0000));
    }

    #[test]
    fn not_in_the_gap_below_the_stack() {
        let mappings = [
            mapping(0x7fff_b000_0000, 0x7fff_f000_0000, "/big"),
            mapping(0x7fff_f000_0000, 0x7fff_f100_0000, "/ld-linux.so"),
            mapping(0x7fff_fffd_e000, 0x7fff_ffff_f000, "[stack]"),
        ];
        assert_eq!(choose_place(&mappings, 0x7fff_f050_0000, LENGTH, LOWEST), None);
    }

    #[test]
    fn away_from_what_may_grow_downwards() {
        let mappings =
            [mapping(0x7000_0000_0000, 0x7000_0010_0000, ""), mapping(0x7000_2000_0000, 0x7000_2010_0000, "")];
        let place = choose_place(&mappings, 0x7000_2000_1000, LENGTH, LOWEST);
        assert_eq!(place, Some(0x7000_2000_0000 - MARGIN - LENGTH));
    }

    #[test]
    fn every_byte_is_within_reach() {
        for length in [1, 4096, LENGTH, 16 << 20] {
            for near in [0x5555_5555_4000u64, 0x7fff_f7c9_0123, 0x7fff_f7fe_0fff] {
                let place = choose_place(&position_independent(), near, length, LOWEST).expect("a place");
                assert_eq!(place % PAGE, 0);
                assert!(
                    place.abs_diff(near) <= REACH && (place + length).abs_diff(near) <= REACH,
                    "{near:#x} {length:#x}"
                );
                let free = |mapping: &Mapping| place + length <= mapping.start || place >= mapping.end;
                assert!(position_independent().iter().all(free), "{near:#x} {length:#x}");
            }
        }
    }

    #[test]
    fn the_break_starts_behind_the_executable_and_its_data() {
        let mappings = &mut position_independent();
        assert_eq!(break_end(mappings), Some(0x5555_5557_9000));
        mappings[1].path = PathBuf::new();
        assert_eq!(break_end(mappings), Some(0x5555_5557_9000), "zero-initialised data");
        mappings.remove(1);
        assert_eq!(break_end(mappings), Some(0x5555_5555_8000));
        assert_eq!(break_end(&[]), None);
    }

    #[test]
    fn no_place_where_all_is_taken() {
        assert_eq!(choose_place(&[mapping(0, USER_END, "")], 0x40_0000, LENGTH, LOWEST), None);
    }
}
