//! `layout.bpf.h` of this folder: the words of what the programs for the whole machine share.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use memleax_platform::{ExitStatus, Pid, Signal};

use crate::event::Tally;
use crate::machine::{BeforeExec, Process, Seen};

/// `PLACES`
pub(super) const PLACES: u32 = 32768;

/// `PLACE_…`
pub(super) mod place {
    pub(in super::super) const FREE: u64 = 0;
    pub(in super::super) const RUNNING: u64 = 1;
    pub(in super::super) const ENDED: u64 = 2;
    pub(in super::super) const REPLACED: u64 = 3;
    /// Only user space says so.
    pub(in super::super) const HELD: u64 = 4;
}

const BEGAN_BEFORE: u64 = 1;
const IN_CGROUP: u64 = 2;

/// `struct machine`
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "what the programs count for themselves")]
pub(super) enum Control {
    OwnPid,
    IsReady,
    BucketBits,
    Cgroups,
    Serials,
    Highest,
    Ended,
    Overflowed,
    LostProcesses,
    LostCalls,
    LostBlocks,
}

impl Control {
    pub(super) const WORDS: usize = Control::LostBlocks as usize + 1;
}

/// `struct bucket`: keys, then sizes.
pub(super) const BUCKET_SLOTS: usize = 8;
pub(super) const BUCKET_WORDS: usize = 2 * BUCKET_SLOTS;
pub(super) const SLOT_FREE: u64 = 0;

/// The place that a live block's key names.
pub(super) fn place_of(key: u64) -> usize {
    (key >> 44) as usize
}

/// `struct process`
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "what the programs know for themselves")]
pub(super) enum Word {
    Place,
    Serial,
    Mm,
    PidAndParent,
    UidAndFlags,
    Began,
    Ended,
    Cgroup,
    WaitStatus,
    Name,
    NamesEnd,
    Allocated,
    AllocatedBytes,
    Freed,
    FreedBytes,
    Live,
    LiveBytes,
    PeakBytes,
    Unseen,
    UnseenBytes,
    UnknownFrees,
    LostBlocks,
    LostBytes,
    LostCalls,
    NeverReturned,
    Execs,
    Before,
    BeforeBytes,
    Left,
    LeftBytes,
}

/// Words of a `struct process`.
pub(super) const PROCESS_WORDS: usize = Word::LeftBytes as usize + 1;

/// The process at a place.
pub(super) fn process(words: &[AtomicU64]) -> Process {
    let word = |word: Word| words[word as usize].load(Relaxed);
    let tally = |count: Word, bytes: Word| Tally { count: word(count), bytes: word(bytes) };
    let halves = |of: Word| [word(of) as u32, (word(of) >> 32) as u32];
    let [pid, parent] = halves(Word::PidAndParent).map(|pid| Pid(pid.cast_signed()));
    let [uid, flags] = halves(Word::UidAndFlags);
    let has = |flag: u64| u64::from(flags) & flag != 0;
    let name = [word(Word::Name), word(Word::NamesEnd)].map(u64::to_ne_bytes);
    let name = name.as_flattened();
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    let ended = word(Word::Ended);
    Process {
        serial: word(Word::Serial),
        pid,
        parent,
        uid,
        name: String::from_utf8_lossy(&name[..end]).into_owned(),
        began: Duration::from_nanos(word(Word::Began)),
        ended: (ended != 0).then(|| (Duration::from_nanos(ended), exit_status(word(Word::WaitStatus)))),
        cgroup: word(Word::Cgroup),
        in_cgroup: has(IN_CGROUP),
        seen: if has(BEGAN_BEFORE) { Seen::SinceReady } else { Seen::All },
        allocated: tally(Word::Allocated, Word::AllocatedBytes),
        freed: tally(Word::Freed, Word::FreedBytes),
        live: tally(Word::Live, Word::LiveBytes),
        peak_bytes: word(Word::PeakBytes),
        unseen_frees: tally(Word::Unseen, Word::UnseenBytes),
        unknown_frees: word(Word::UnknownFrees),
        not_kept: tally(Word::LostBlocks, Word::LostBytes),
        not_followed: word(Word::LostCalls),
        never_returned: word(Word::NeverReturned),
        before_exec: BeforeExec {
            execs: word(Word::Execs),
            allocated: tally(Word::Before, Word::BeforeBytes),
            left: tally(Word::Left, Word::LeftBytes),
        },
    }
}

/// As `wait(2)` has it.
fn exit_status(code: u64) -> ExitStatus {
    let signal = (code & 0x7f) as i32;
    if signal == 0 { ExitStatus::Exited((code >> 8 & 0xff) as i32) } else { ExitStatus::Killed(Signal(signal)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_from_its_words() {
        let words: Vec<AtomicU64> = (0..PROCESS_WORDS as u64).map(AtomicU64::new).collect();
        words[Word::PidAndParent as usize].store(9 << 32 | 8, Relaxed);
        words[Word::UidAndFlags as usize].store(IN_CGROUP << 32 | 1000, Relaxed);
        words[Word::Name as usize].store(u64::from_ne_bytes(*b"memleax-"), Relaxed);
        words[Word::NamesEnd as usize].store(u64::from_ne_bytes(*b"test\0\0\0\0"), Relaxed);
        words[Word::WaitStatus as usize].store(3 << 8, Relaxed);
        let read = process(&words);
        assert_eq!((read.pid, read.parent, read.uid, &*read.name), (Pid(8), Pid(9), 1000, "memleax-test"));
        assert_eq!((read.in_cgroup, read.seen), (true, Seen::All));
        assert_eq!(read.ended.map(|(_, status)| status), Some(ExitStatus::Exited(3)));
        assert_eq!(read.before_exec.left, Tally { count: Word::Left as u64, bytes: Word::LeftBytes as u64 });
        assert_eq!(exit_status(0x8b), ExitStatus::Killed(Signal(11)));
    }
}
