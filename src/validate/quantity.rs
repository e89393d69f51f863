//! Kubernetes quantities as whole bytes (or whole thousandths).

/// Reads `256Mi`, `1.1Gi`, `1000000`, `500M` in `unit`ths, rounded up as Kubernetes does. `None`: not such a quantity, negative, or too
/// large.
pub(crate) fn parse(text: &str, unit: u64) -> Option<u64> {
    let text = text.strip_prefix('+').unwrap_or(text);
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
    if fraction.len() > MOST_DIGITS || whole.len() + fraction.len() == 0 || fraction.contains('.') {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let value = format!("{whole}{fraction}").parse::<u128>().ok()?.checked_mul(multiplier)?.checked_mul(unit.into())?;
    let divisor = divisor * scale;
    u64::try_from(value.div_ceil(divisor)).ok()
}

/// Digits behind the point. A quantity of the API has 32 characters at most.
const MOST_DIGITS: usize = 20;

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
        for bad in ["", "-1", "1Mb", "1e3x", "1.2.3", ".", "+", "++1"] {
            assert_eq!(parse(bad, 1), None, "{bad}");
        }
    }

    /// Whatever is a quantity for the rules of admission is one here.
    #[test]
    fn what_is_not_whole_is_rounded_up_as_kubernetes_does() {
        assert_eq!(parse("1.1Gi", 1), Some(1_181_116_007));
        assert_eq!(parse("123456789123m", 1), Some(123_456_790));
        assert_eq!((parse("+96Mi", 1), parse("100m", 1), parse("1.5m", 1_000)), (Some(96 << 20), Some(1), Some(2)));
        assert_eq!(
            (parse("0.123456789012Gi", 1), parse("1.", 1), parse(".5Ki", 1)),
            (Some(132_560_718), Some(1), Some(512))
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_fail(text in ".{0,40}") {
            let _ = parse(&text, 1_000);
        }
    }
}
