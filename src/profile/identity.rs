//! What a call stack is called while a run goes on: the same at each question, and in each run of the same files.

use std::fmt;
use std::str::FromStr;

use super::Site;

/// Names a call stack by its frames: modules and places in their files. Two may share one, which is as rare as 32 bits make it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SiteId(pub u32);

impl Site {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> SiteId {
        let mut sum = crc32fast::Hasher::new();
        for frame in &self.stack.frames {
            sum.update(frame.module.as_bytes());
            sum.update(&[0]);
            sum.update(&frame.offset.to_le_bytes());
        }
        SiteId(sum.finalize())
    }
}

impl fmt::Display for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl FromStr for SiteId {
    type Err = String;

    fn from_str(text: &str) -> Result<SiteId, String> {
        let is_id = text.len() == 8 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = u32::from_str_radix(text, 16).ok().filter(|_| is_id);
        number.map(SiteId).ok_or_else(|| "an id is eight hexadecimal digits, as `stats` prints them".into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::profile::sample;

    #[test]
    fn ids_differ_and_are_read_as_they_are_written() {
        let profile = sample::profile();
        let ids: BTreeSet<SiteId> = profile.sites.iter().map(Site::id).collect();
        assert_eq!(ids.len(), profile.sites.len());
        assert!(ids.iter().all(|id| id.to_string().parse() == Ok(*id)));
        assert!("12".parse::<SiteId>().is_err() && "+1234567".parse::<SiteId>().is_err());
    }
}
