//! What every report says in the same words: what was not seen, and why a backtrace ends.

use crate::event::{Ending, Loss};
use crate::profile::Profile;
use crate::trend::{Doubt, Verdict};

/// What a reader of a profile has to know to take its numbers for what they are, as sentences: losses first.
pub(super) fn shortcomings(profile: &Profile) -> Vec<String> {
    let losses = profile.losses.iter().map(|(&what, &count)| loss(what, count));
    let broken = profile.run.ending.is_none().then(|| "The recording breaks off: what came after is not known.".into());
    let unknown = (profile.unknown_frees > 0).then(|| unknown_frees(profile.unknown_frees));
    losses.chain(broken).chain(profile.remarks.iter().cloned()).chain(unknown).collect()
}

/// What was lost `count` times, and what follows from it, as a sentence.
pub(super) fn loss(loss: Loss, count: u64) -> String {
    let calls = |what: &str| format!("{count} {what}{}", plural(count));
    match loss {
        Loss::ReturnUnobservable => {
            format!("{} not seen: no breakpoint could be set at the return address.", calls("allocation"))
        }
        Loss::NeverReturned => format!(
            "{} never returned (longjmp, exception, end of the thread): what they allocated is not counted.",
            calls("allocator call")
        ),
        Loss::NoStack => format!("{} without a backtrace: the stack could not be read.", calls("allocation")),
        Loss::NotFollowed => {
            let why = "for lack of room, or made by a signal handler amid another call: what they did is not counted.";
            format!("{} not followed, {why}", calls("allocator call"))
        }
        Loss::BlockNotKept => {
            format!("{} not kept, for lack of room; if they leaked, it is not seen.", calls("allocation"))
        }
        Loss::StackNotKept => format!("{} without a backtrace, for lack of room.", calls("allocation")),
        Loss::MappingNotKept => format!(
            "{} of mmap, mremap and munmap not followed, for lack of room: what is said of mappings may be wrong.",
            calls("call")
        ),
        Loss::SnapshotNotTaken => {
            format!("{} of a function of --snapshot-at took no snapshot: there were too many.", calls("call"))
        }
        Loss::EventNotRecorded => {
            let why = "as they came faster than they could be written: in the recording, blocks may seem live that were freed.";
            format!("{} not recorded, {why}", calls("event"))
        }
        Loss::CallNotCounted => {
            let why = "where they were made was not known yet, so growth per call may be too high.";
            format!("{} of a function of --reference not counted: {why}", calls("call"))
        }
    }
}

/// That so many frees could not be attributed, as a sentence.
pub(super) fn unknown_frees(count: u64) -> String {
    let text = "of memory not known to be live ignored: from before monitoring began, or the allocator's own.";
    format!("{count} free{} {text}", plural(count))
}

/// The same of objects.
pub(super) fn unknown_objects(count: u64) -> String {
    let text = "of objects not known to be live ignored: from before monitoring began, or freed twice.";
    format!("{count} free{} {text}", plural(count))
}

/// Why a backtrace that is not complete ends, as a clause whose subject it is.
pub(super) fn ending(ending: Ending) -> Option<&'static str> {
    match ending {
        Ending::Complete => None,
        Ending::DepthLimit => Some("cut off here by the depth limit (`-l`)"),
        Ending::NoUnwindInfo => Some("ends here: no unwind information for this address"),
        Ending::UnknownCode => Some("ends here: this code is in no file"),
        Ending::HiddenByProbe => {
            Some("ends here: a uprobe of another tool, on the return of this function, hides from where it was called")
        }
        Ending::UnreadableStack => Some("ends here: the stack could not be read"),
        Ending::Inconsistent => Some("ends here: the unwind information contradicts the stack"),
    }
}

/// That frames of a backtrace are a guess, as a clause whose subject it is.
pub(super) const BY_FRAME_POINTER: &str =
    "found in part by frame pointers, for want of unwind information: may be wrong";

/// What the course of a call stack says.
pub(super) fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Leak => "leak",
        Verdict::LevelsOff => "levels off",
        Verdict::Unclear(_) => "unclear",
    }
}

/// Why it cannot be told, as a sentence.
pub(super) fn doubt(doubt: Doubt) -> &'static str {
    match doubt {
        Doubt::FewMoments => "Too few moments with work between them: it needs six in each half of the work.",
        Doubt::Seldom => "It grew too seldom to tell whether it goes on: watch it longer.",
        Doubt::Slowing => "It grows ever more slowly, as what fills up does: watch it longer.",
        Doubt::Uneven => "It grew, but not evenly: watch it longer.",
        Doubt::NotWithCalls => "It grows with time, but not with the calls that were counted.",
    }
}

pub(super) fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}
