//! Numbers for people: bytes in binary units, times in the unit that fits. Exact ones are for machines.

use std::time::Duration;

use crate::event::Tally;
use crate::profile::Change;

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// `512 bytes`, `1.5 MiB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    if bytes < 1024 {
        return if bytes == 1 { "1 byte".into() } else { format!("{bytes} bytes") };
    }
    // What would be rounded to 1024.0 takes the next unit.
    let unit = (0..UNITS.len()).find(|&unit| tenths(bytes, unit) < 10_240).unwrap_or(UNITS.len() - 1);
    let tenths = tenths(bytes, unit);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// Tenths of a unit, rounded.
fn tenths(bytes: u64, unit: usize) -> u128 {
    let size = 1_u128 << (10 * (unit + 1));
    (u128::from(bytes) * 10 + size / 2) / size
}

/// The same with its sign.
#[must_use]
pub fn signed_bytes(change: i64) -> String {
    let sign = if change < 0 { "-" } else { "+" };
    format!("{sign}{}", bytes(change.unsigned_abs()))
}

/// `1,234,567`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The same with a minus where there is one.
#[must_use]
pub fn grouped_signed(number: i64) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}", grouped(number.unsigned_abs()))
}

/// `8 blocks, 1.0 KiB`.
#[must_use]
pub fn tally(tally: Tally) -> String {
    format!("{}, {}", blocks(tally.count), bytes(tally.bytes))
}

/// `8 objects`, with their bytes if they have any.
#[must_use]
pub fn objects(tally: Tally) -> String {
    let count = format!("{} object{}", grouped(tally.count), if tally.count == 1 { "" } else { "s" });
    if tally.bytes == 0 { count } else { format!("{count}, {}", bytes(tally.bytes)) }
}

/// `+8 objects`, with their bytes if they have any.
#[must_use]
pub fn object_change(change: Change) -> String {
    let sign = if change.count < 0 { "-" } else { "+" };
    let count = change.count.unsigned_abs();
    let count = format!("{sign}{} object{}", grouped(count), if count == 1 { "" } else { "s" });
    if change.bytes == 0 { count } else { format!("{count}, {}", signed_bytes(change.bytes)) }
}

/// `+8 blocks, +1.0 KiB`.
#[must_use]
pub fn change(change: Change) -> String {
    let sign = if change.count < 0 { "-" } else { "+" };
    format!("{sign}{}, {}", blocks(change.count.unsigned_abs()), signed_bytes(change.bytes))
}

fn blocks(count: u64) -> String {
    format!("{} block{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// `3 ns`, `1.5 ms`, `42.0 s`, `3 min 5 s`, `2 h 5 min`, `3 d 4 h`.
#[must_use]
pub fn time(time: Duration) -> String {
    let nanoseconds = time.as_nanos();
    let with_tenth = |unit: u128, name: &str| {
        let tenths = (nanoseconds * 10 + unit / 2) / unit;
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    };
    let seconds = time.as_secs();
    match nanoseconds {
        0 => "0 s".into(),
        1..1_000 => format!("{nanoseconds} ns"),
        1_000..999_950 => with_tenth(1_000, "µs"),
        999_950..999_950_000 => with_tenth(1_000_000, "ms"),
        _ if seconds < 60 => with_tenth(1_000_000_000, "s"),
        _ if seconds < 3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ if seconds < 86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// `2023-11-14 22:13:20 UTC`, of nanoseconds since 1970.
#[must_use]
pub fn date(nanoseconds: u64) -> String {
    let seconds = nanoseconds / 1_000_000_000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 1 March of the year 0, in eras of 400 years: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, in_next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year_of_era + in_next_year;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_the_unit_that_leaves_at_most_four_digits() {
        for (number, text) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1_023, "1023 bytes"),
            (1_024, "1.0 KiB"),
            (1_572_864, "1.5 MiB"),
            (1_048_575, "1.0 MiB"),
            (1_023 * 1_024, "1023.0 KiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(number), text, "{number}");
        }
        assert_eq!([signed_bytes(-2_048), signed_bytes(5)], ["-2.0 KiB", "+5 bytes"]);
        assert_eq!(signed_bytes(i64::MIN), "-8.0 EiB");
    }

    #[test]
    fn numbers_are_grouped_by_three() {
        assert_eq!([1, 999, 1_000, 1_234_567].map(grouped), ["1", "999", "1,000", "1,234,567"]);
        assert_eq!(grouped_signed(-1_000), "-1,000");
    }

    #[test]
    fn times_take_the_unit_that_fits() {
        let shown = |nanoseconds| time(Duration::from_nanos(nanoseconds));
        assert_eq!([0, 3, 1_500, 999_960].map(shown), ["0 s", "3 ns", "1.5 µs", "1.0 ms"]);
        assert_eq!([1_500_000, 999_960_000, 42_000_000_000].map(shown), ["1.5 ms", "1.0 s", "42.0 s"]);
        let seconds = |seconds| time(Duration::from_secs(seconds));
        assert_eq!([185, 7_500, 273_600].map(seconds), ["3 min 5 s", "2 h 5 min", "3 d 4 h"]);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let of = |seconds: u64| date(seconds * 1_000_000_000);
        assert_eq!(of(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(of(1_700_000_000), "2023-11-14 22:13:20 UTC");
        assert_eq!(of(951_782_399), "2000-02-28 23:59:59 UTC");
        assert_eq!(of(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(of(4_107_542_400), "2100-03-01 00:00:00 UTC");
    }
}
