//! Forms of values: what is one, and how `CONFIG GET` spells it.

/// What the values of a directive look like.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// `yes` or `no`, in any case.
    YesNo,
    /// A whole number in a range, without a unit.
    Number {
        least: i64,
        most: i64,
    },
    /// Bytes, with or without a unit.
    Bytes {
        least: i64,
    },
    /// One of these words, in any case.
    Word(&'static [&'static str]),
    /// The letters of `notify-keyspace-events`.
    Events,
    /// The classes and limits of `client-output-buffer-limit`.
    BufferLimits,
    /// The percentiles of `latency-tracking-info-percentiles`.
    Percentiles,
    SavePoints,
}

/// A value that the server would not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {expected}")]
pub struct WrongValue {
    /// What was given.
    pub value: String,
    /// What would have been a value.
    pub expected: String,
}

impl Form {
    pub(super) fn canonical(self, value: &str) -> Result<String, WrongValue> {
        let (found, expected) = match self {
            Self::YesNo => (word(value, &["yes", "no"]), "yes or no".to_owned()),
            Self::Number { least, most } => (number(value, least, most), format!("a number from {least} to {most}")),
            Self::Bytes { least } => {
                (bytes(value, least), format!("a number of bytes, at least {least}, or one with a unit: kb, mb, gb"))
            }
            Self::Word(words) => (word(value, words), format!("one of {}", words.join(", "))),
            Self::Events => (events(value), "made of the letters A g $ l s h z x e t d n K E m".to_owned()),
            Self::BufferLimits => (
                buffer_limits(value),
                "made of groups of four: normal, replica or pubsub, hard limit, soft limit, seconds".to_owned(),
            ),
            Self::Percentiles => (percentiles(value), "made of numbers from 0 to 100".to_owned()),
            Self::SavePoints => (save_points(value), "made of pairs: seconds, changes".to_owned()),
        };
        found.ok_or_else(|| WrongValue { value: value.to_owned(), expected })
    }

    pub(super) const fn takes_words(self) -> bool {
        matches!(self, Self::BufferLimits | Self::Percentiles | Self::SavePoints)
    }
}

fn word(value: &str, words: &[&str]) -> Option<String> {
    words.iter().find(|word| word.eq_ignore_ascii_case(value)).map(|word| (*word).to_owned())
}

/// As strict as the server's `string2ll`: no sign but `-`, no leading zero.
fn number(value: &str, least: i64, most: i64) -> Option<String> {
    let number: i64 = value.parse().ok()?;
    (number.to_string() == value && (least..=most).contains(&number)).then(|| value.to_owned())
}

/// As the server's `memtoull`: `k`, `m`, `g` are powers of 1,000, with a `b` powers of 1,024; in any case.
fn byte_count(value: &str) -> Option<i64> {
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = value.split_at(digits);
    let unit = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1_000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(unit)
}

fn bytes(value: &str, least: i64) -> Option<String> {
    byte_count(value).filter(|count| *count >= least).map(|count| count.to_string())
}

/// The server's order. `A` stands for all but key misses, keyspace and keyevent.
fn events(value: &str) -> Option<String> {
    const IN_ALL: &str = "g$lshzxetd";
    if !value.chars().all(|letter| letter == 'A' || letter == 'n' || "KEm".contains(letter) || IN_ALL.contains(letter))
    {
        return None;
    }
    let has_all = value.contains('A') || IN_ALL.chars().all(|letter| value.contains(letter));
    let mut canonical = String::new();
    if has_all {
        canonical.push('A');
    } else {
        canonical.extend(IN_ALL.chars().filter(|letter| value.contains(*letter)));
    }
    // Redis spells `n` only where `A` is not given (`keyspaceEventsFlagsToString`).
    canonical.extend("nKEm".chars().filter(|letter| value.contains(*letter) && (*letter != 'n' || !has_all)));
    Some(canonical)
}

/// The server reports all three classes, the replicas under their old name; those that are not given keep its defaults.
fn buffer_limits(value: &str) -> Option<String> {
    let mut limits = [("normal", [0, 0, 0]), ("slave", [256 << 20, 64 << 20, 60]), ("pubsub", [32 << 20, 8 << 20, 60])];
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    let (groups, []) = words.as_chunks::<4>() else { return None };
    for [class, hard, soft, seconds] in groups {
        let class = if class.eq_ignore_ascii_case("replica") { "slave" } else { class };
        let (_, limit) = limits.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(class))?;
        let seconds = number(seconds, 0, i64::from(i32::MAX))?.parse().ok()?;
        *limit = [byte_count(hard)?, byte_count(soft)?, seconds];
    }
    let spelled = limits.map(|(class, [hard, soft, seconds])| format!("{class} {hard} {soft} {seconds}"));
    (!groups.is_empty()).then(|| spelled.join(" "))
}

/// At most six decimals, because the server rounds to as many.
fn percentiles(value: &str) -> Option<String> {
    let one = |word: &str| {
        let (whole, decimals) = word.split_once('.').unwrap_or((word, "0"));
        let is_plain = |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        let percent: f64 = word.parse().ok()?;
        let is_one = is_plain(whole) && is_plain(decimals) && decimals.len() <= 6 && (0.0..=100.0).contains(&percent);
        is_one.then(|| percent.to_string())
    };
    let spelled: Option<Vec<String>> = value.split_ascii_whitespace().map(one).collect();
    Some(spelled?.join(" "))
}

fn save_points(value: &str) -> Option<String> {
    if value == "\"\"" {
        return Some(String::new());
    }
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    let (pairs, []) = words.as_chunks::<2>() else { return None };
    let is_pair = |[seconds, changes]: &[&str; 2]| {
        number(seconds, 1, i64::from(i32::MAX)).is_some() && number(changes, 0, i64::from(i32::MAX)).is_some()
    };
    pairs.iter().all(is_pair).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{canonical, known_names};

    fn of(name: &str, value: &str) -> Option<String> {
        canonical(name, value).ok()
    }

    #[test]
    fn values_are_spelled_as_the_server_spells_them() {
        for (name, value, spelled) in [
            ("repl-backlog-size", "64mb", "67108864"),
            ("repl-backlog-size", "64M", "64000000"),
            ("activerehashing", "YES", "yes"),
            ("appendfsync", "Always", "always"),
            ("save", "\"\"", ""),
            ("save", "", ""),
            ("save", "3600  1 60 100", "3600 1 60 100"),
            ("notify-keyspace-events", "KEA", "AKE"),
            ("notify-keyspace-events", "Kxe", "xeK"),
            ("latency-tracking-info-percentiles", "50.0 99.90", "50 99.9"),
            (
                "client-output-buffer-limit",
                "replica 1gb 512mb 120",
                "normal 0 0 0 slave 1073741824 536870912 120 pubsub 33554432 8388608 60",
            ),
        ] {
            assert_eq!(of(name, value).as_deref(), Some(spelled), "{name} {value}");
        }
    }

    #[test]
    fn what_would_stop_the_next_start_is_no_value() {
        for (name, value) in [
            ("timeout", "10s"),
            ("timeout", "-1"),
            ("timeout", "007"),
            ("timeout", ""),
            ("hz", "501"),
            ("repl-backlog-size", "64mib"),
            ("repl-backlog-size", "mb"),
            ("repl-backlog-size", "9999999999gb"),
            ("activerehashing", "true"),
            ("appendfsync", "sometimes"),
            ("notify-keyspace-events", "q"),
            ("latency-tracking-info-percentiles", "101"),
            ("latency-tracking-info-percentiles", "nan"),
            ("client-output-buffer-limit", "normal 0 0"),
            ("client-output-buffer-limit", "master 0 0 0"),
            ("client-output-buffer-limit", ""),
            ("save", "3600"),
        ] {
            assert_eq!(of(name, value), None, "{name} {value}");
        }
    }

    proptest! {
        #[test]
        fn a_canonical_value_is_its_own_canonical_form(value in "[-0-9a-zA-Z .%]{0,20}") {
            for name in known_names() {
                if let Some(once) = of(name, &value) {
                    prop_assert_eq!(of(name, &once), Some(once), "{}", name);
                }
            }
        }
    }
}
