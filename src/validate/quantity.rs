//! Kubernetes quantities as whole bytes (or whole thousandths).

/// Reads `256Mi`, `1.5Gi`, `1000000`, `500M`. `None`: not such a quantity, negative, or not a whole number of `unit`ths.
pub fn parse(text: &str, unit: u64) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '.').len();
    let (number, suffix) = text.split_at(digits);
    let (multiplier, divisor): (u128, u128) = match suffix {
        "" => (1, 1),
        "m" => (1, 1_000),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 9 || whole.len() + fraction.len() == 0 || fraction.contains('.') {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let value = format!("{whole}{fraction}").parse::<u128>().ok()?.checked_mul(multiplier)?.checked_mul(unit.into())?;
    let divisor = divisor * scale;
    (value % divisor == 0).then(|| u64::try_from(value / divisor).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::parse;

    #[test]
    fn quantities_are_exact() {
        assert_eq!(parse("256Mi", 1), Some(256 << 20));
        assert_eq!(parse("1.5Gi", 1), Some(3 << 29));
        assert_eq!(parse("100m", 1_000), Some(100));
        assert_eq!(parse("2", 1_000), Some(2_000));
        for bad in ["", "-1", "1Mb", "1e3x", "1.2.3", ".", "100m"] {
            assert_eq!(parse(bad, 1), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_fail(text in ".{0,40}") {
            let _ = parse(&text, 1_000);
        }
    }
}
