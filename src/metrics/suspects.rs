//! The call stacks that have a series of their own, and by which labels.

use std::collections::BTreeMap;

use crate::event::Tally;
use crate::profile::{Call, Profile, Site, SiteId};
use crate::symbol::NamedStack;

/// Characters of a label's value at the most.
const FUNCTION: usize = 120;
const MODULE: usize = 60;

/// A call stack that holds memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Suspect {
    /// As `memleax ctl` knows it.
    pub(super) id: SiteId,
    /// The innermost function that is neither the allocator's nor its library's.
    pub(super) function: String,
    /// The file that this is in.
    pub(super) module: String,
    /// All blocks that it ever allocated.
    pub(super) allocated: Tally,
    /// Those that are live.
    pub(super) live: Tally,
    /// Those of the live that are older than `-e`.
    pub(super) expired: Tally,
}

/// The `count` call stacks that hold the most bytes in blocks that have expired; of equal ones those with the most that is live. In this
/// order.
pub(super) fn worst(profile: &Profile, count: usize) -> Vec<Suspect> {
    let mut by_id: BTreeMap<SiteId, Suspect> = BTreeMap::new();
    for site in profile.sites.iter().filter(|site| site.live.count > 0) {
        let suspect = Suspect::new(site, &profile.run.executable);
        by_id.entry(suspect.id).and_modify(|other| other.add(&suspect)).or_insert(suspect);
    }
    let mut suspects: Vec<Suspect> = by_id.into_values().collect();
    let weight = |of: &Suspect| (of.expired.bytes, of.expired.count, of.live.bytes, of.live.count);
    suspects.sort_by_key(|suspect| (std::cmp::Reverse(weight(suspect)), suspect.id));
    suspects.truncate(count);
    suspects
}

/// The live blocks of a call stack that have expired.
pub(super) fn expired(site: &Site) -> Tally {
    let expired = site.expired.without(site.freed_expired);
    // Those that went away with a program that was replaced count as expired for good.
    Tally { count: expired.count.min(site.live.count), bytes: expired.bytes.min(site.live.bytes) }
}

impl Suspect {
    fn new(site: &Site, executable: &str) -> Suspect {
        let call = telling_call(&site.stack, executable);
        let module = call.map_or("", |call| call.module_name());
        let function = match call {
            Some(Call { function: Some(function), .. }) if !function.name.is_empty() => function.name.clone(),
            Some(call) if !module.is_empty() => format!("{module}+0x{:x}", call.frame.offset),
            Some(call) => call.name(),
            None => String::new(),
        };
        Suspect {
            id: site.id(),
            function: label(&function, FUNCTION),
            module: label(module, MODULE),
            allocated: site.allocated,
            live: site.live,
            expired: expired(site),
        }
    }

    fn add(&mut self, other: &Suspect) {
        self.allocated = self.allocated.plus(other.allocated);
        self.live = self.live.plus(other.live);
        self.expired = self.expired.plus(other.expired);
    }
}

/// The innermost call that says who wanted memory: beyond the allocator, what it is wrapped in, and the library that it is in, unless
/// that is the program itself.
fn telling_call<'a>(stack: &'a NamedStack, executable: &str) -> Option<Call<'a>> {
    let library = stack.frames.first().map(|frame| frame.module.as_str()).filter(|&module| module != executable);
    let is_telling = |call: &Call<'_>| {
        let is_of_library = library == Some(&*call.frame.module);
        let is_operator = call.function.is_some_and(|function| function.name.starts_with("operator new"));
        !is_of_library && !is_operator
    };
    let beyond = || stack.frames.iter().skip(1).flat_map(|frame| frame.calls());
    beyond().find(is_telling).or_else(|| beyond().next()).or_else(|| stack.calls().next())
}

/// A label's value: of bounded length, and without what would tear a line or a terminal.
fn label(text: &str, longest: usize) -> String {
    let mut value: String = text.chars().take(longest).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(longest).is_some() {
        value.pop();
        value.push('…');
    }
    value
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::Ending;
    use crate::profile::sample;
    use crate::symbol::{Function, NamedFrame};

    fn frame(module: &str, name: &str) -> Arc<NamedFrame> {
        let function =
            Function { name: name.into(), raw: name.into(), offset: None, file: None, line: None, inlined: false };
        Arc::new(NamedFrame { address: 1, module: module.into(), offset: 1, functions: vec![function] })
    }

    fn telling(frames: &[(&str, &str)]) -> String {
        let frames = frames.iter().map(|(module, name)| frame(module, name)).collect();
        let stack = NamedStack { frames, ending: Ending::Complete, by_frame_pointer: false };
        telling_call(&stack, "/srv/server").map(|call| call.name()).unwrap_or_default()
    }

    #[test]
    fn who_wanted_the_memory_is_named() {
        let (libc, program, cpp) = ("/lib/libc.so.6", "/srv/server", "/lib/libstdc++.so.6");
        assert_eq!(telling(&[(libc, "malloc"), (program, "serve"), (program, "main")]), "serve");
        assert_eq!(telling(&[(libc, "malloc"), (libc, "strdup"), (program, "serve")]), "serve");
        assert_eq!(telling(&[(libc, "malloc"), (cpp, "operator new(unsigned long)"), (program, "serve")]), "serve");
        assert_eq!(telling(&[(program, "malloc"), (program, "serve")]), "serve", "a static program");
        assert_eq!(telling(&[(libc, "malloc"), (libc, "start_thread")]), "start_thread", "better than nothing");
        assert_eq!(telling(&[(libc, "malloc")]), "malloc");
        assert_eq!(telling(&[]), "");
    }

    #[test]
    fn the_worst_are_first_and_few() {
        let mut profile = sample::profile();
        let all = worst(&profile, 10);
        assert_eq!(all.iter().map(|of| (of.expired.count, of.live.count)).collect::<Vec<_>>(), [(6, 8), (1, 1)]);
        assert_eq!((all[0].function.as_str(), all[0].module.as_str()), ("Pool::take(int)", "server"));
        assert_eq!(all[1].function, "0x7fff12345678", "code in no file");
        assert_eq!(worst(&profile, 1), all[..1]);
        let again = profile.sites[0].clone();
        profile.sites.push(again);
        assert_eq!(worst(&profile, 1)[0].live.count, 16, "one series for equal call stacks");
        profile.sites[0].live = Tally { count: 1, bytes: 128 };
        assert_eq!(expired(&profile.sites[0]), Tally { count: 1, bytes: 128 }, "what an exec took away is not live");
    }

    #[test]
    fn labels_are_cut_and_kept_on_their_line() {
        assert_eq!(label("a\nb\u{1b}[31m", 20), "a b [31m");
        assert_eq!(label("λλλ", 3), "λλλ");
        assert_eq!(label("λλλλ", 3), "λλ…");
    }
}
