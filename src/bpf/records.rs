//! What the kernel's programs tell by the ring buffer.

use super::layout::StackRecord;
use crate::event::{Event, StackId};

/// `PAGE`
const PAGE: u64 = 4096;

/// What came by the ring buffer and has not been dealt with; in the order of the ring, with the times of the kernel's monotonic clock.
/// A stack's record stands in the ring before all that names its site.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) stacks: Vec<(u64, StackRecord)>,
    pub(super) mappings: Vec<(u64, MappingRecord)>,
    /// Calls of functions that the user has named, by number.
    pub(super) marks: Vec<(u64, u32)>,
}

impl Records {
    /// Takes in a record as the kernel wrote it.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        let Some((head, rest)) = bytes.split_first_chunk::<16>() else { return };
        let [kind, time] = [0, 8].map(|at| u64::from_le_bytes(std::array::from_fn(|index| head[at + index])));
        match kind {
            1 => self.stacks.extend(StackRecord::parse(rest).map(|record| (time, record))),
            5 => {
                let number = rest.first_chunk().and_then(|word| u32::try_from(u64::from_le_bytes(*word)).ok());
                self.marks.extend(number.map(|number| (time, number)));
            }
            kind => self.mappings.extend(MappingRecord::parse(kind, rest).map(|record| (time, record))),
        }
    }
}

/// `struct mapping_record`: a call of mmap, mremap or munmap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MappingRecord {
    Mapped { site: u64, address: u64, size: u64 },
    Remapped { site: u64, address: u64, size: u64, from: u64, from_size: u64 },
    Unmapping { from: u64, from_size: u64 },
}

impl MappingRecord {
    fn parse(kind: u64, bytes: &[u8]) -> Option<MappingRecord> {
        let words: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let [site, address, size, from, from_size] = *words else { return None };
        Some(match kind {
            2 => MappingRecord::Mapped { site, address, size },
            3 => MappingRecord::Remapped { site, address, size, from, from_size },
            4 => MappingRecord::Unmapping { from, from_size },
            _ => return None,
        })
    }

    /// What the tracker is to hear. `stack` is that of a site, if it has one; where not, that is counted as lost already.
    pub(super) fn events(self, stack: impl Fn(u64) -> Option<StackId>) -> [Option<Event>; 2] {
        let unmapped = |address: u64, length: u64| {
            // As the kernel does it: it takes whole pages from the start of one.
            let size = length.checked_next_multiple_of(PAGE)?;
            (length != 0 && address.is_multiple_of(PAGE)).then_some(Event::Unmapped { address, size })
        };
        match self {
            MappingRecord::Mapped { site, address, size } => match stack(site) {
                Some(stack) => [Some(Event::Mapped { address, size, stack }), None],
                None => [unmapped(address, size), None],
            },
            MappingRecord::Remapped { site, address, size, from, from_size } => match stack(site) {
                Some(stack) => {
                    let from_size = from_size.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
                    [Some(Event::Remapped { from, from_size, address, size, stack }), None]
                }
                None => [unmapped(from, from_size), unmapped(address, size)],
            },
            MappingRecord::Unmapping { from, from_size } => [unmapped(from, from_size), None],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STACK: StackId = StackId(3);

    fn told(kind: u64, words: [u64; 5]) -> Vec<Event> {
        let mut records = Records::default();
        let bytes: Vec<u8> = [kind, 77].iter().chain(&words).flat_map(|word| word.to_le_bytes()).collect();
        records.add(&bytes);
        let [(77, record)] = *records.mappings else { panic!("{records:?}") };
        record.events(|site| (site == 1).then_some(STACK)).into_iter().flatten().collect()
    }

    #[test]
    fn mappings_are_told_as_the_kernel_makes_them() {
        let mapped = Event::Mapped { address: 0x1000, size: 5, stack: STACK };
        assert_eq!(told(2, [1, 0x1000, 5, 0, 0]), [mapped]);
        let remapped = Event::Remapped { from: 0x1000, from_size: 0x2000, address: 0x9000, size: 9, stack: STACK };
        assert_eq!(told(3, [1, 0x9000, 9, 0x1000, 0x1001]), [remapped]);
        assert_eq!(told(4, [0, 0, 0, 0x1000, 1]), [Event::Unmapped { address: 0x1000, size: 0x1000 }]);
    }

    #[test]
    fn a_call_that_fails_unmaps_nothing() {
        for (from, size) in [(0x1000, 0), (0x1001, 0x1000), (0x1000, u64::MAX)] {
            assert_eq!(told(4, [0, 0, 0, from, size]), []);
        }
    }

    #[test]
    fn what_was_there_is_gone_though_the_stack_is_unknown() {
        let unmapped = |address| Event::Unmapped { address, size: 0x1000 };
        assert_eq!(told(2, [0, 0x1000, 5, 0, 0]), [unmapped(0x1000)]);
        assert_eq!(told(3, [0, 0x9000, 5, 0x1000, 5]), [unmapped(0x1000), unmapped(0x9000)]);
    }

    #[test]
    fn a_wake_is_no_record() {
        let mut records = Records::default();
        records.add(&[0; 8]);
        assert!(records.stacks.is_empty() && records.mappings.is_empty() && records.marks.is_empty());
    }

    #[test]
    fn a_mark_tells_which_function_was_called() {
        let mut records = Records::default();
        let bytes: Vec<u8> = [5_u64, 77, 2].iter().flat_map(|word| word.to_le_bytes()).collect();
        records.add(&bytes);
        assert_eq!(records.marks, [(77, 2)]);
        records.add(&bytes[..16]);
        assert_eq!(records.marks.len(), 1, "one that is cut off is none");
    }
}
