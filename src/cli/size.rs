//! Sizes as the user writes them.

/// `4096` (bytes), `64K`, `32M`, `2G`: powers of 1024; above zero.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit {
        "" => 1,
        "K" | "k" | "KiB" => 1 << 10,
        "M" | "m" | "MiB" => 1 << 20,
        "G" | "g" | "GiB" => 1 << 30,
        _ => return Err("give bytes, or a number with K, M or G (powers of 1024)".into()),
    };
    let size = digits.parse::<u64>().map_err(|error| error.to_string())?;
    match size.checked_mul(factor) {
        Some(0) => Err("it must be above zero".into()),
        Some(size) => Ok(size),
        None => Err("it is too large".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn units_are_powers_of_1024() {
        assert_eq!(parse("4096"), Ok(4096));
        assert_eq!(parse("64K"), Ok(65_536));
        assert_eq!(parse("2GiB"), Ok(2 << 30));
        for text in ["", "0", "0M", "-1", "1.5M", "1T", "M", "99999999999G"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
