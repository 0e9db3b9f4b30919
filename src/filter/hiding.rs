//! Hides the frames of [`noise`], and joins the sites that differ in nothing else.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::noise::{self, NoiseSet};
use crate::profile::{Call, Profile};
use crate::symbol::{NamedFrame, NamedStack};

/// Hides frames; remembers what it made of each, as stacks share most of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Hider {
    sets: Vec<NoiseSet>,
    /// By the frame's place in memory. The frame is kept, so that no other can take the place.
    seen: FxHashMap<*const NamedFrame, (Arc<NamedFrame>, Option<Arc<NamedFrame>>)>,
}

impl Hider {
    pub(super) fn new(sets: &[NoiseSet]) -> Hider {
        Hider { sets: sets.to_vec(), seen: FxHashMap::default() }
    }

    /// The stack without noise, and how many functions were hidden. The allocator's frame stays; a stack of which nothing else would,
    /// stays as it is.
    pub(super) fn hide(&mut self, stack: &NamedStack) -> (NamedStack, u64) {
        let start = if self.sets.contains(&NoiseSet::Start) { noise::start_frames(stack) } else { 0 };
        let inside = &stack.frames[..stack.frames.len() - start];
        let mut frames: Vec<Arc<NamedFrame>> = inside.iter().take(1).map(Arc::clone).collect();
        frames.extend(inside.iter().skip(1).filter_map(|frame| self.without_noise(frame)));
        if frames.len() <= 1 {
            return (stack.clone(), 0);
        }
        let shorter = NamedStack { frames, ..stack.clone() };
        let hidden = stack.calls().count() - shorter.calls().count();
        (shorter, hidden as u64)
    }

    fn without_noise(&mut self, frame: &Arc<NamedFrame>) -> Option<Arc<NamedFrame>> {
        let seen = self.seen.entry(Arc::as_ptr(frame)).or_insert_with(|| {
            let is_kept = |function| !noise::is_noise(&Call { frame, function: Some(function) }, &self.sets);
            let functions: Vec<_> = frame.functions.iter().filter(|function| is_kept(function)).cloned().collect();
            let left = if functions.len() == frame.functions.len() {
                Some(Arc::clone(frame))
            } else if functions.is_empty() {
                None
            } else {
                Some(Arc::new(NamedFrame { functions, ..NamedFrame::clone(frame) }))
            };
            (Arc::clone(frame), left)
        });
        seen.1.clone()
    }
}

/// Hides noise in all stacks, joins the sites whose stacks became equal, and says so.
pub(super) fn hide_noise(profile: &mut Profile, sets: &[NoiseSet]) {
    let mut hider = Hider::new(sets);
    let (mut frames, mut stacks) = (0, 0_u64);
    for site in &mut profile.sites {
        let (stack, hidden) = hider.hide(&site.stack);
        site.stack = stack;
        frames += hidden;
        stacks += u64::from(hidden > 0);
    }
    if frames == 0 {
        return;
    }
    profile.join_equal_sites();
    let names: Vec<_> = sets.iter().map(|set| set.name()).collect();
    let [frame, stack] = [(frames, "frame"), (stacks, "call stack")]
        .map(|(count, what)| format!("{count} {what}{}", if count == 1 { "" } else { "s" }));
    let sets = names.join(", ");
    profile.remarks.push(format!("{frame} of runtimes ({sets}) hidden in {stack}; --all-frames shows them."));
}
