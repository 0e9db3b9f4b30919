//! What the reader of a profile has to know besides its numbers.

use super::wording;
use crate::profile::Profile;

/// What was watched and how it ended, what was not seen, and what else there is to say; a sentence each.
pub(super) fn notes(profile: &Profile) -> Vec<String> {
    let run = &profile.run;
    let begun = if run.launched {
        "watched from its start, so each of its blocks is known"
    } else {
        "watched from the moment of attaching: blocks from before are not known"
    };
    let looks = if run.by_event {
        "The peak and temporary blocks are exact."
    } else {
        "The peak is the highest of looks at the process, a second apart or more."
    };
    let mut notes = vec![
        format!("memleax {}: process {} ({}), {begun}.", run.version, run.pid, run.command.join(" ")),
        format!("Backend: {}. {looks}", run.backend.trim_end_matches('.')),
    ];
    notes.extend(run.ending.clone());
    notes.extend(wording::shortcomings(profile));
    notes
}
