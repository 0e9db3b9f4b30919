//! Times as the user writes them.

use std::time::Duration;

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// `10` (seconds), `500ms`, `6m`, `1h30m`: above zero, and at most what a [`Timestamp`](crate::event::Timestamp) holds.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let milliseconds = match text.parse::<u64>() {
        Ok(seconds) => seconds.checked_mul(1_000),
        Err(_) => with_units(text)?,
    };
    match milliseconds.map(Duration::from_millis) {
        Some(Duration::ZERO) => Err("it must be above zero".into()),
        Some(duration) if u64::try_from(duration.as_nanos()).is_ok() => Ok(duration),
        _ => Err("it is too long".into()),
    }
}

/// `None` on overflow.
fn with_units(text: &str) -> Result<Option<u64>, String> {
    const EXPECTED: &str = "give seconds, or numbers with the units ms, s, m, h or d, as in 6m or 1h30m";
    let mut sum = Some(0_u64);
    let mut rest = text;
    while !rest.is_empty() {
        let (digits, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        let (unit, tail) = tail.split_at(tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len()));
        let &(_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(EXPECTED)?;
        if digits.is_empty() {
            return Err(EXPECTED.into());
        }
        sum = digits.parse().ok().and_then(|n: u64| n.checked_mul(factor)).zip(sum).and_then(|(a, b)| a.checked_add(b));
        rest = tail;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn times_are_sums_of_units() {
        for (text, milliseconds) in
            [("10", 10_000), ("500ms", 500), ("6m", 360_000), ("1h30m", 5_400_000), ("2d1s1ms", 172_801_001)]
        {
            assert_eq!(parse(text).map(|duration| duration.as_millis()), Ok(milliseconds), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "0", "0s", "-1", "1.5", "m", "6M", "6 m", "1h30", "½m", "99999999999999999999", "300000d"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
