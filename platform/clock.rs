//! The time of day.

use std::mem::MaybeUninit;
use std::time::{SystemTime, UNIX_EPOCH};

/// `2026-11-20 17:40:05`, as the machine's time zone has it.
#[must_use]
pub fn local_time(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = libc::time_t::try_from(seconds).unwrap_or(libc::time_t::MAX);
    let mut parts = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both point to what the function asks for; all-zero is a valid `tm`, which it only writes.
    let parts = unsafe {
        libc::localtime_r(&raw const seconds, parts.as_mut_ptr());
        parts.assume_init()
    };
    let (year, month) = (i64::from(parts.tm_year) + 1900, parts.tm_mon + 1);
    let (day, hour, minute, second) = (parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_day_later_it_is_the_same_hour() {
        let noon = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let (one, other) = (local_time(noon), local_time(noon + Duration::from_secs(86_400)));
        assert_eq!((one.len(), &one[..8], &other[..8]), (19, "2001-09-", "2001-09-"), "{one}");
        assert_eq!(one[10..], other[10..]);
    }
}
