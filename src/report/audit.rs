//! What the audit of a layer's keys found, in steps that let a status rest.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::data_layer_status::{AuditStatus, ChecklistItem, LargestKey};
use crate::api::use_status::{BudgetState, BudgetStatus, UseAudit};
use crate::model::audit::{AuditReport, LargeKey, MemoryBudget};

/// A number of keys that is off by no more than this stays, however few there are.
const FEW: i64 = 10;
/// Of the largest keys.
const MOST_LARGEST_REPORTED: usize = 5;
/// How far the time of the last pass may be behind while nothing else changes.
const TIME_STAYS: SignedDuration = SignedDuration::from_hours(24);

/// What is told of a layer: `old` where there is no report, or where it is about right.
pub(crate) fn of_layer(report: Option<&AuditReport>, old: Option<&AuditStatus>) -> Option<AuditStatus> {
    let Some(report) = report else { return old.cloned() };
    let before = |of: fn(&AuditStatus) -> i64| old.map(of);
    let finished = i64::try_from(report.finished).ok().and_then(|at| Timestamp::from_millisecond(at).ok())?;
    let told = AuditStatus {
        finished: Time(finished),
        keys: stepped(before(|it| it.keys), report.keys, FEW),
        without_expiry: stepped(before(|it| it.without_expiry), report.without_expiry, 0),
        outside: stepped(before(|it| it.outside), report.outside, 0),
        bytes: stepped(before(|it| it.bytes), report.bytes, 0),
        bytes_error: stepped(before(|it| it.bytes_error), report.bytes_error, half(before(|it| it.bytes_error))),
        examples: report.examples.clone(),
        outside_examples: report.outside_examples.clone(),
        largest: largest(report, old.filter(|old| finished.duration_since(old.finished.0) < TIME_STAYS)),
    };
    let rests = old.filter(|old| {
        let is_recent = finished.duration_since(old.finished.0) < TIME_STAYS;
        is_recent && told == AuditStatus { finished: Time(finished), ..(*old).clone() }
    });
    Some(rests.cloned().unwrap_or(told))
}

/// The largest keys: those of `old` while the first of them is about as large, because entries of caches come and go.
fn largest(report: &AuditReport, old: Option<&AuditStatus>) -> Vec<LargestKey> {
    let told = |large: &LargeKey| LargestKey {
        key: large.key.clone(),
        prefix: large.prefix.clone(),
        bytes: stepped(None, large.bytes, 0),
    };
    let bytes = report.largest.first().map_or(0, |large| large.bytes);
    let stays = |old: &&AuditStatus| {
        old.largest.first().is_some_and(|first| stepped(Some(first.bytes), bytes, 0) == first.bytes)
    };
    let fresh = || report.largest.iter().take(MOST_LARGEST_REPORTED).map(told).collect();
    old.filter(stays).map_or_else(fresh, |old| old.largest.clone())
}

/// What is told of a use with this prefix.
pub(crate) fn of_use(report: Option<&AuditReport>, prefix: &str, old: Option<&UseAudit>) -> Option<UseAudit> {
    let Some(report) = report else { return old.cloned() };
    let found = report.prefixes.get(prefix).copied().unwrap_or_default();
    let before = |of: fn(&UseAudit) -> i64| old.map(of);
    Some(UseAudit {
        keys: stepped(before(|it| it.keys), found.keys, FEW),
        without_expiry: stepped(before(|it| it.without_expiry), found.without_expiry, 0),
        bytes: stepped(before(|it| it.bytes), found.bytes, 0),
        bytes_error: stepped(before(|it| it.bytes_error), found.bytes_error, half(before(|it| it.bytes_error))),
    })
}

/// How the keys under this prefix compare with their budget, if they have one.
pub(crate) fn of_budget(
    budget: Option<MemoryBudget>,
    report: Option<&AuditReport>,
    prefix: &str,
    old: Option<&BudgetStatus>,
) -> Option<BudgetStatus> {
    let budget = budget?;
    let bytes = i64::try_from(budget.bytes).unwrap_or(i64::MAX);
    let before = old.filter(|old| old.bytes == bytes).map(|old| old.state);
    let state = match report {
        None => before.unwrap_or(BudgetState::Unknown),
        Some(report) => {
            let found = report.prefixes.get(prefix).copied().unwrap_or_default();
            let stays = before == Some(BudgetState::Above) && found.bytes > budget.bytes;
            if stays || budget.is_exceeded_by(found) { BudgetState::Above } else { BudgetState::Within }
        }
    };
    Some(BudgetStatus { bytes, state })
}

/// "every key expires", with what shows it.
pub(crate) fn item(audit: Option<&AuditStatus>) -> ChecklistItem {
    let (ok, evidence) = match audit {
        None => (false, "no pass over all keys was made yet".to_owned()),
        Some(audit) if audit.without_expiry == 0 => {
            (true, format!("none of about {} keys is without an expiry{}", audit.keys, outside(audit)))
        }
        Some(audit) => (
            false,
            format!(
                "about {} of {} keys have no expiry, among them (SHA-256) {}{}",
                audit.without_expiry,
                audit.keys.max(audit.without_expiry),
                audit.examples.join(", "),
                outside(audit)
            ),
        ),
    };
    ChecklistItem { item: "every key expires".to_owned(), ok, evidence }
}

fn outside(audit: &AuditStatus) -> String {
    match audit.outside {
        0 => String::new(),
        keys => format!("; about {keys} are under the prefix of no use"),
    }
}

/// A number as it is told. The old one stays while the new one is within a tenth of it, or within `few`; otherwise two digits of the new
/// one. 0 is told only of 0.
fn stepped(old: Option<i64>, new: u64, few: i64) -> i64 {
    let new = i64::try_from(new).unwrap_or(i64::MAX);
    let stays = |old: &i64| *old > 0 && new > 0 && new.abs_diff(*old) <= (*old / 10).max(few).unsigned_abs();
    old.filter(stays).unwrap_or_else(|| two_digits(new))
}

/// An error is a guess itself: it may be off by half.
fn half(old: Option<i64>) -> i64 {
    old.unwrap_or_default() / 2
}

fn two_digits(number: i64) -> i64 {
    let mut unit = 1_i64;
    while number / unit >= 100 {
        unit = unit.saturating_mul(10);
    }
    // Rounded down: never more than there is.
    number / unit * unit
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::audit::PrefixAudit;

    fn report(keys: u64, without_expiry: u64, finished: u64) -> AuditReport {
        let examples = (0..without_expiry.min(5)).map(|number| format!("{number:016x}")).collect();
        AuditReport { finished, keys, without_expiry, examples, ..AuditReport::default() }
    }

    #[test]
    fn a_status_rests_while_keys_come_and_go_and_moves_when_one_has_no_expiry() {
        const HOUR: u64 = 3_600_000;
        let first = of_layer(Some(&report(12_345, 0, HOUR)), None).unwrap();
        assert_eq!((first.keys, first.without_expiry), (12_000, 0));
        assert!(item(Some(&first)).ok);
        let second = of_layer(Some(&report(12_900, 0, 2 * HOUR)), Some(&first)).unwrap();
        assert_eq!(second, first, "nothing moved but the time");
        let late = of_layer(Some(&report(12_900, 0, 30 * HOUR)), Some(&first)).unwrap();
        assert!(late.finished > first.finished && late.keys == first.keys, "the time moves once a day");
        let fault = of_layer(Some(&report(12_900, 1, 3 * HOUR)), Some(&first)).unwrap();
        assert_eq!((fault.without_expiry, fault.examples.len()), (1, 1));
        let said = item(Some(&fault));
        assert!(!said.ok && said.evidence.contains("0000000000000000"), "{said:?}");
        assert_eq!(of_layer(None, Some(&fault)), Some(fault), "what is not asked again stays");
        assert!(!item(None).ok);
    }

    #[test]
    fn the_largest_keys_are_reported_by_their_hashes_and_rest_while_the_first_is_about_as_large() {
        const HOUR: u64 = 3_600_000;
        let with = |finished: u64, sizes: &[u64]| {
            let large =
                |bytes: &u64| LargeKey { key: format!("{bytes:016x}"), prefix: "web:".to_owned(), bytes: *bytes };
            AuditReport { largest: sizes.iter().map(large).collect(), ..report(12_345, 0, finished) }
        };
        let first = of_layer(Some(&with(HOUR, &[10_456, 9_000, 800, 70, 6, 5])), None).unwrap();
        let told: Vec<i64> = first.largest.iter().map(|it| it.bytes).collect();
        assert_eq!(told, [10_000, 9_000, 800, 70, 6]);
        assert_eq!((first.largest[0].key.as_str(), first.largest[0].prefix.as_str()), ("00000000000028d8", "web:"));
        let other_entries = with(2 * HOUR, &[10_900, 20, 10]);
        assert_eq!(of_layer(Some(&other_entries), Some(&first)).unwrap(), first, "a cache's entries come and go");
        let larger = of_layer(Some(&with(2 * HOUR, &[50_000, 10_456])), Some(&first)).unwrap();
        assert_eq!(larger.largest.iter().map(|it| it.bytes).collect::<Vec<_>>(), [50_000, 10_000]);
        let smaller = of_layer(Some(&with(2 * HOUR, &[800])), Some(&first)).unwrap();
        assert_eq!(smaller.largest.len(), 1, "the large ones are gone");
        assert_eq!(of_layer(Some(&with(2 * HOUR, &[])), Some(&first)).unwrap().largest, []);
        let next_day = of_layer(Some(&with(30 * HOUR, &[10_900, 20])), Some(&first)).unwrap();
        assert_eq!(next_day.largest[1].bytes, 20, "once a day they are told as they are");
    }

    #[test]
    fn a_cache_is_reported_above_its_budget_when_that_is_sure_and_until_it_is_not_above_it() {
        let report = |bytes, bytes_error| {
            let found = PrefixAudit { keys: 9, bytes, bytes_error, ..PrefixAudit::default() };
            AuditReport { prefixes: BTreeMap::from([("web:".to_owned(), found)]), ..AuditReport::default() }
        };
        let budget = Some(MemoryBudget { bytes: 1_000, shrinks: false });
        let told = |report: Option<AuditReport>, old: Option<&BudgetStatus>| {
            of_budget(budget, report.as_ref(), "web:", old).unwrap()
        };
        assert_eq!(told(None, None).state, BudgetState::Unknown);
        let within = told(Some(report(1_100, 100)), None);
        assert_eq!((within.bytes, within.state), (1_000, BudgetState::Within));
        let above = told(Some(report(1_101, 100)), Some(&within));
        assert_eq!(above.state, BudgetState::Above);
        assert_eq!(told(Some(report(1_001, 100)), Some(&above)), above, "it rests");
        assert_eq!(told(None, Some(&above)), above);
        assert_eq!(told(Some(report(1_000, 100)), Some(&above)).state, BudgetState::Within);
        assert_eq!(told(Some(AuditReport::default()), Some(&above)).state, BudgetState::Within, "it has no keys");
        // What was said of another budget says nothing of this one.
        let other = BudgetStatus { bytes: 5, ..above };
        assert_eq!(told(None, Some(&other)).state, BudgetState::Unknown);
        assert_eq!(of_budget(None, Some(&report(9_999, 0)), "web:", Some(&other)), None);
    }

    proptest! {
        #[test]
        fn a_step_is_about_right_and_the_same_number_never_moves_it(old in 0_i64..1_000_000, new in 0_u64..1_000_000) {
            let told = stepped(Some(old), new, 0);
            let new = i64::try_from(new).unwrap();
            prop_assert!(told.abs_diff(new) * 9 <= new.unsigned_abs().max(told.unsigned_abs()), "{} for {}", told, new);
            prop_assert_eq!(told == 0, new == 0);
            prop_assert_eq!(stepped(Some(told), new.unsigned_abs(), 0), told);
        }
    }
}
