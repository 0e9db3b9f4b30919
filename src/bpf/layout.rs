//! The structures of `layout.bpf.h`, as words: what the kernel's side and ours agree on.

use memleax_platform::Registers;

/// `struct control`, word by word. Settings first, then counters.
#[allow(dead_code, reason = "the kernel's side uses those that this side does not")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(super) enum Control {
    /// First row of the table in use (upper half) and how many it has (lower half).
    Rows = 0,
    /// Nanoseconds.
    Expire,
    /// Frames (lower half), CPUs (upper half).
    DepthAndCpus,
    BucketBits,
    /// Not 0: nothing is counted.
    Closed,
    LoaderChanges,
    Tgid,
    Execs,
    ExecTime,
    NextSite,
    Overflowed,
    LostBlocks,
    LostSites,
    LostStacks,
    LostCalls,
    NeverReturned,
    UnknownFrees,
    LostMappings,
    Resized,
    ResizedBytes,
    Marks,
    LostMarks,
    LostNamed,
    /// The first of as many as there are classes.
    UnknownObjects,
}

impl Control {
    pub(super) const WORDS: usize = Control::UnknownObjects as usize + CLASSES;
}

/// `CLASSES`
pub(super) const CLASSES: usize = 32;
/// Where in a cookie and a block's key the class is: `CLASS_SHIFT`.
pub(super) const CLASS_SHIFT: u32 = 56;

/// `RULES`
pub(super) const RULES: usize = 8192;
/// `RULE_CACHE`
pub(super) const RULE_CACHE: usize = 65536;
/// `PAGE`
const PAGE: u64 = 4096;
/// `SITES`
pub(super) const SITES: usize = 65536;
/// `REFERENCES`
pub(super) const REFERENCES: usize = 1024;
/// `FRAMES`
pub(super) const FRAMES: usize = 128;
/// Scratch areas for each CPU.
pub(super) const SCRATCH_PER_CPU: u32 = 4;

/// `struct bucket`, in words: first the slots' addresses, then their blocks.
pub(super) mod bucket {
    pub(crate) const SLOTS: usize = 8;
    pub(crate) const WORDS: usize = SLOTS * (1 + BLOCK_WORDS);
    /// Addresses up to this one are states.
    pub(crate) const BUSY: u64 = 1;
    /// `struct block`
    pub(crate) const SIZE: usize = 0;
    pub(crate) const TIME: usize = 1;
    pub(crate) const SITE: usize = 2;
    pub(crate) const BLOCK_WORDS: usize = 3;
    /// What of a block's site is its number: the rest says how many refer to an object, or that `realloc` is about the block.
    pub(crate) const SITE_NUMBER: u64 = super::SITES as u64 - 1;
}

/// What of the upper half of a cookie is the function's number.
const FUNCTION_NUMBER: u64 = (1 << (CLASS_SHIFT - 32)) - 1;

/// `struct cached_rule`
pub(super) const CACHED_RULE_WORDS: usize = 2;

/// `struct site`
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Site {
    pub(super) allocated: u64,
    pub(super) allocated_bytes: u64,
    pub(super) freed: u64,
    pub(super) freed_bytes: u64,
    pub(super) expired_freed: u64,
    pub(super) expired_freed_bytes: u64,
    pub(super) expired_freed_age: u64,
    pub(super) freed_unseen: u64,
    pub(super) freed_unseen_bytes: u64,
    pub(super) age_sum: u64,
    pub(super) age_min: u64,
    pub(super) age_max: u64,
}

impl Site {
    pub(super) const WORDS: usize = 12;

    pub(super) fn from_words(words: [u64; Site::WORDS]) -> Site {
        let [
            allocated,
            allocated_bytes,
            freed,
            freed_bytes,
            expired_freed,
            expired_freed_bytes,
            expired_freed_age,
            freed_unseen,
            freed_unseen_bytes,
            age_sum,
            age_min,
            age_max,
        ] = words;
        // Stored as its complement, so that zeroed memory says "none".
        let age_min = !age_min;
        Site {
            allocated,
            allocated_bytes,
            freed,
            freed_bytes,
            expired_freed,
            expired_freed_bytes,
            expired_freed_age,
            freed_unseen,
            freed_unseen_bytes,
            age_sum,
            age_min,
            age_max,
        }
    }
}

/// Why the kernel's walk of a stack ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    Complete,
    Depth,
    Unreadable,
    Inconsistent,
    Gap,
    Slow,
}

/// `struct stack_record`, or `struct slow_record`
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct StackRecord {
    /// By which the kernel knows the stack.
    pub(super) hash: u64,
    pub(super) site: u64,
    pub(super) end: End,
    pub(super) by_frame_pointer: bool,
    /// The rule table did not suffice: the rest is the general unwinder's.
    pub(super) is_insufficient: bool,
    pub(super) function: u64,
    /// Address, and whether it is exact.
    pub(super) frames: Vec<(u64, bool)>,
    /// What the general unwinder needs: where the table did not suffice, or if asked for.
    pub(super) copy: Option<StackCopy>,
}

impl StackRecord {
    const HEAD: usize = 4 + FRAMES / 64;
    const WORDS: usize = StackRecord::HEAD + FRAMES;

    /// What follows the kind and the time. `None` if it is no such record. What the kernel calls a function has the class above its number.
    pub(super) fn parse(bytes: &[u8]) -> Option<StackRecord> {
        let (hash, bytes) = bytes.split_first_chunk()?;
        let (words, _) = bytes.as_chunks::<8>();
        let word = |index: usize| words.get(index).map(|word| u64::from_le_bytes(*word));
        let frames = (0..(word(1)? & 0xffff_ffff) as usize)
            .take(FRAMES)
            .map(|index| Some((word(StackRecord::HEAD + index)?, word(4 + index / 64)? >> (index % 64) & 1 == 1)))
            .collect::<Option<Vec<_>>>()?;
        let end = match word(1)? >> 32 {
            1 => End::Complete,
            2 => End::Depth,
            3 => End::Unreadable,
            4 => End::Inconsistent,
            5 => End::Gap,
            _ => End::Slow,
        };
        Some(StackRecord {
            hash: u64::from_le_bytes(*hash),
            site: word(0)?,
            end,
            by_frame_pointer: word(2)? & 0xffff_ffff != 0,
            is_insufficient: word(2)? >> 32 != 0,
            function: word(3)? & FUNCTION_NUMBER,
            frames,
            copy: StackCopy::parse(bytes.get(StackRecord::WORDS * 8..)?),
        })
    }
}

/// What the general unwinder needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct StackCopy {
    /// As at the function's first instruction, but for rip.
    pub(super) registers: Registers,
    /// Parts of the stack, by their first address.
    parts: [(u64, Vec<u8>); 2],
    /// Where a trampoline of the kernel's may be on the stack for us, and instead of which return address.
    traps: Vec<(u64, u64)>,
}

impl StackCopy {
    /// `struct pt_regs`
    const REGISTERS: usize = 21;
    /// `struct trap`, in words.
    const TRAP: usize = 4;
    /// `None` if the record ends before it.
    fn parse(bytes: &[u8]) -> Option<StackCopy> {
        let (registers, rest) = bytes.split_at_checked(StackCopy::REGISTERS * 8)?;
        let (count, rest) = rest.split_first_chunk()?;
        let count = usize::try_from(u64::from_le_bytes(*count)).ok()?;
        let (traps, parts) = rest.split_at_checked(count.checked_mul(StackCopy::TRAP * 8)?)?;
        let (traps, _) = traps.as_chunks::<8>();
        let traps = traps.as_chunks::<{ StackCopy::TRAP }>().0.iter().map(|trap| trap.map(u64::from_le_bytes));
        let traps = traps.filter(|&[sp, ..]| sp != 0).map(|[sp, return_address, ..]| (sp, return_address)).collect();
        let (words, _) = registers.as_chunks::<8>();
        let [r15, r14, r13, r12, rbp, rbx, ..] = *words else { return None };
        let [r15, r14, r13, r12, rbp, rbx] = [r15, r14, r13, r12, rbp, rbx].map(u64::from_le_bytes);
        let (innermost, rest) = parts.split_at(parts.len() / 2);
        let part = |bytes: &[u8]| {
            let word = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
            let length = usize::try_from(word(8)?).ok()?;
            Some((word(0)?, bytes.get(16..)?.get(..length)?.to_vec()))
        };
        let parts = [part(innermost)?, part(rest)?];
        let registers = Registers { r15, r14, r13, r12, rbp, rbx, rsp: parts[0].0, ..Registers::default() };
        Some(StackCopy { registers, parts, traps })
    }

    /// The word at a run-time address; where the kernel's trampoline is for us, what was there before.
    pub(super) fn word(&self, address: u64) -> Option<u64> {
        let word = self.parts.iter().find_map(|(start, bytes)| {
            let offset = usize::try_from(address.checked_sub(*start)?).ok()?;
            Some(u64::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
        })?;
        // As `is_like_trampoline` of traps.bpf.h.
        let trap = self.traps.iter().find(|&&(sp, _)| sp == address && word >> 32 != 0 && word % PAGE == 0);
        Some(trap.map_or(word, |&(_, return_address)| return_address))
    }
}
