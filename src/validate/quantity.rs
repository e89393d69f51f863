//! Kubernetes quantities as whole bytes (or whole thousandths).

/// Reads `256Mi`, `1.5Gi`, `1000000`, `500M`. `None`: not such a quantity, negative, or not a whole number of `unit`ths.
pub(crate) fn parse(text: &str, unit: u64) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '.').len();
    let (number, suffix) = text.split_at(digits);
    let (multiplier, divisor): (u128, u128) = match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1_000),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => power_of_ten(exponent.strip_prefix(['e', 'E'])?)?,
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

/// `3` and `-3` as multiplier and divisor.
fn power_of_ten(exponent: &str) -> Option<(u128, u128)> {
    let exponent: i32 = exponent.parse().ok()?;
    let power = 10_u128.checked_pow(exponent.unsigned_abs()).filter(|_| exponent.unsigned_abs() <= 18)?;
    Some(if exponent < 0 { (1, power) } else { (power, 1) })
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
        assert_eq!(
            (parse("1e3", 1), parse("1500E-3", 1_000), parse("1Pi", 1)),
            (Some(1_000), Some(1_500), Some(1 << 50))
        );
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
