//! Objects of each type, in the form that the whole has for memory.

use serde::Serialize;

use super::{Block, Costs, Frames, MomentOf, Site, Snapshot, Totals};
use crate::profile::{Profile, View, Weighed};

/// What each type costs in `view`, where it can be had.
pub(super) fn weigh<'a>(profile: &'a Profile, view: &View) -> Vec<(&'a Profile, Option<Weighed<'a>>)> {
    profile.objects.iter().map(|objects| (objects, objects.weigh(view).ok())).collect()
}

#[derive(Serialize)]
pub(super) struct ObjectsOf<'a> {
    name: &'a str,
    totals: Totals,
    peak: Option<MomentOf>,
    view: Option<Costs<'a>>,
    sites: Vec<Site<'a>>,
    timeline: Vec<MomentOf>,
    snapshots: Vec<Snapshot<'a>>,
    blocks: Vec<Block>,
    unknown_frees: u64,
    remarks: &'a [String],
}

impl<'a> ObjectsOf<'a> {
    pub(super) fn of((objects, weighed): &'a (&'a Profile, Option<Weighed<'a>>), frames: &mut Frames) -> ObjectsOf<'a> {
        ObjectsOf {
            name: objects.of.as_deref().unwrap_or_default(),
            totals: Totals::of(objects),
            peak: objects.peak.map(Into::into),
            view: weighed.as_ref().map(Costs::of),
            sites: Site::all(objects, frames),
            timeline: objects.timeline.iter().copied().map(Into::into).collect(),
            snapshots: objects.snapshots.iter().map(Snapshot::of).collect(),
            blocks: objects.blocks.iter().map(Block::of).collect(),
            unknown_frees: objects.unknown_frees,
            remarks: &objects.remarks,
        }
    }
}
