//! Objects: which types there are, and what costs what where sizes are not known.

use super::{Moment, Profile, Site};
use crate::event::Tally;

impl Profile {
    /// The profile of the objects of a type.
    #[must_use]
    pub fn of_type(&self, name: &str) -> Option<&Profile> {
        self.objects.iter().find(|objects| objects.of.as_deref() == Some(name))
    }

    /// This, and those of its types.
    pub fn with_objects(&self) -> impl Iterator<Item = &Profile> {
        std::iter::once(self).chain(&self.objects)
    }

    /// True if none of its blocks has a size: then only their number tells anything.
    #[must_use]
    pub fn has_no_sizes(&self) -> bool {
        self.of.is_some() && self.sites.iter().all(|site| site.allocated.bytes == 0)
    }

    /// The same with a byte for each object, for formats that know costs only as bytes.
    #[must_use]
    pub fn with_a_byte_each(&self) -> Profile {
        let mut profile = self.clone();
        profile.sites.iter_mut().for_each(count_as_bytes);
        let moments = profile.timeline.iter_mut().chain(&mut profile.peak);
        moments.chain(profile.snapshots.iter_mut().map(|snapshot| &mut snapshot.moment)).for_each(|moment| {
            let Moment { allocated, live, .. } = moment;
            [allocated, live].into_iter().for_each(count);
        });
        profile.snapshots.iter_mut().flat_map(|snapshot| &mut snapshot.live).for_each(|(_, tally)| count(tally));
        profile.blocks.iter_mut().for_each(|block| block.size = 1);
        profile
    }
}

fn count_as_bytes(site: &mut Site) {
    let Site { allocated, freed, live, expired, freed_expired, at_peak, temporary, growth, .. } = site;
    [allocated, freed, live, expired, freed_expired, at_peak].into_iter().for_each(count);
    temporary.iter_mut().for_each(count);
    growth.iter_mut().for_each(|(_, tally)| count(tally));
}

fn count(tally: &mut Tally) {
    tally.bytes = tally.count;
}
