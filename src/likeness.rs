//! Names that are like one that was not found: what the user may have meant.

use std::fmt;

/// How many names that are like a missing one are told.
const NEAR: usize = 3;

/// Names that differ by more characters are not alike.
const FARTHEST: usize = 2;

/// Shorter names are part of too many others to say anything.
const SHORTEST_PART: usize = 4;

/// Those of the names compared that are most alike. Displayed as what is to be added to a message; as nothing if there are none.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Near {
    /// How far each is, and the name; the nearest first.
    names: Vec<(usize, String)>,
}

impl Near {
    /// Keeps `other` if it is among the names most like `wanted`.
    pub fn compare(&mut self, wanted: &str, other: &str) {
        let Some(distance) = distance(wanted, other) else { return };
        let place = self.names.partition_point(|(nearer, _)| *nearer <= distance);
        if place < NEAR && !self.names.iter().any(|(_, known)| known == other) {
            self.names.insert(place, (distance, other.to_owned()));
            self.names.truncate(NEAR);
        }
    }
}

impl fmt::Display for Near {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (_, name)) in self.names.iter().enumerate() {
            write!(f, "{}{name}", if place == 0 { "; like it are " } else { ", " })?;
        }
        Ok(())
    }
}

/// How far apart two names are; nothing for those that are not alike. A name that is part of the other (as in `_Z4markv`) is farther than one
/// that is misspelt.
fn distance(wanted: &str, other: &str) -> Option<usize> {
    let by_length = wanted.len().abs_diff(other.len());
    let misspelt = (by_length <= FARTHEST && wanted.len() > FARTHEST)
        .then(|| strsim::osa_distance(&wanted.to_lowercase(), &other.to_lowercase()))
        .filter(|&distance| distance <= FARTHEST);
    misspelt.or_else(|| (wanted.len() >= SHORTEST_PART && other.contains(wanted)).then_some(FARTHEST + by_length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alike_are_misspelt_names_and_those_with_the_name_in_them() {
        assert_eq!(distance("snapshot_here", "Snapshot_here"), Some(0));
        assert_eq!(distance("snapshot_here", "snapshot_heer"), Some(1));
        assert_eq!(distance("mark_now", "_Z8mark_nowv"), Some(6));
        assert_eq!(distance("mark_now", "free"), None);
        assert_eq!(distance("f", "g"), None);
    }

    #[test]
    fn the_nearest_are_told_once() {
        let mut near = Near::default();
        assert_eq!(near.to_string(), "");
        for name in ["pool_alloc_now", "pool_aloc", "pool_aloc", "other", "pool_alloc2", "pool_allot"] {
            near.compare("pool_alloc", name);
        }
        assert_eq!(near.to_string(), "; like it are pool_aloc, pool_alloc2, pool_allot");
    }
}
