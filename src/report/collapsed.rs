//! Collapsed stacks: what flame graph programs read (`flamegraph.pl`, inferno, speedscope).
//!
//! A line a call stack, `root;…;leaf bytes`; inlined functions are frames like others. The format knows no escapes: a `;` or a
//! line break in a name would end the frame, so they are written as `:` and `�`. Lines are sorted, so two files can be compared.

use std::collections::BTreeMap;
use std::io::Write;

use super::format::WriteError;
use super::markup::in_one_line;
use super::wording::plural;
use crate::profile::{Call, Change, Profile, View};

/// Writes the bytes of each call stack. Those without positive bytes are left out, and counted in what is returned.
///
/// # Errors
/// If `view` cannot be had, or `output` fails.
pub(super) fn write(profile: &Profile, view: &View, output: &mut dyn Write) -> Result<Vec<String>, WriteError> {
    let weighed = profile.weigh(view)?;
    let mut lines: BTreeMap<String, Change> = BTreeMap::new();
    for cost in &weighed.costs {
        let frames: Vec<String> = cost.site.stack.calls().rev().map(|call| frame(&call)).collect();
        let line = lines.entry(frames.join(";")).or_default();
        *line = line.plus(cost.change);
    }
    for (line, change) in lines.iter().filter(|(_, change)| change.bytes > 0) {
        writeln!(output, "{line} {}", change.bytes)?;
    }
    Ok(left_out(lines.into_values()).into_iter().collect())
}

fn frame(call: &Call<'_>) -> String {
    in_one_line(&call.name()).replace(';', ":")
}

/// What a format that holds positive bytes only says of `changes`; `None` if it holds all of them.
pub(super) fn left_out(changes: impl Iterator<Item = Change>) -> Option<String> {
    let (stacks, total) = changes
        .filter(|change| change.bytes <= 0)
        .fold((0_u64, Change::default()), |(stacks, total), change| (stacks + 1, total.plus(change)));
    let plural = plural(stacks);
    let text = format!("{stacks} call stack{plural} without positive bytes left out ({} bytes together).", total.bytes);
    (stacks > 0).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::sample;

    fn written(view: &View) -> (String, Vec<String>) {
        let mut output = Vec::new();
        let left_out = write(&sample::profile(), view, &mut output).expect("a view that can be had");
        (String::from_utf8(output).expect("text"), left_out)
    }

    #[test]
    fn the_root_is_first_and_names_cannot_be_taken_for_syntax() {
        let (text, left_out) = written(&View::Peak);
        assert_eq!(
            text,
            "main;/srv/plug in.so+0x4242;evil:\u{fffd}<b>\"&\u{fffd}[31m λ;malloc 4000\n\
             main;serve(std::vector<int> const&);Pool::take(int);malloc 768\n"
        );
        assert_eq!(left_out, ["1 call stack without positive bytes left out (0 bytes together)."]);
    }

    #[test]
    fn what_shrank_is_left_out_and_said() {
        let (text, left_out) = written(&View::Growth { from: Some(1), to: None });
        assert_eq!(text, "main;serve(std::vector<int> const&);Pool::take(int);malloc 256\n");
        assert_eq!(left_out, ["1 call stack without positive bytes left out (-4000 bytes together)."]);
    }

    #[test]
    fn call_stacks_that_differ_in_addresses_only_are_one() {
        let mut profile = sample::profile();
        profile.sites.push(profile.sites[0].clone());
        let mut output = Vec::new();
        write(&profile, &View::Leaks, &mut output).expect("the leaks");
        assert!(output.ends_with(b"Pool::take(int);malloc 2048\n"));
    }
}
