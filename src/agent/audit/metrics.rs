//! What an audit found, as metrics. The number of series is bounded, however many uses a layer has.

use prometheus::{Counter, Gauge, GaugeVec, Opts, Registry};

use super::super::numbers::float;
use crate::model::audit::{AuditReport, PrefixAudit};

/// Prefixes with series of their own: those with a budget, and those with most bytes.
const MOST_PREFIXES: usize = 100;
/// Label of all others together. No prefix looks so.
const OTHERS: &str = "(others)";

/// Registers what an audit found, and how many keys this agent has given an expiry or removed since it began.
pub(crate) fn register(
    registry: &Registry,
    report: Option<&AuditReport>,
    repaired: u64,
    shrunk: u64,
) -> Result<(), prometheus::Error> {
    for (name, help, value) in [
        ("redoubt_audit_repaired_keys_total", "Keys that the agent gave an expiry", repaired),
        (
            "redoubt_audit_shrunk_keys_total",
            "Keys that the agent removed because their cache was above its memoryBudget",
            shrunk,
        ),
    ] {
        let counter = Counter::new(name, help)?;
        counter.inc_by(float(value));
        registry.register(Box::new(counter))?;
    }
    let Some(report) = report else { return Ok(()) };
    let milliseconds = |time: u64| float(time) / 1_000.0;
    let largest = report.largest.first().map_or(0, |largest| largest.bytes);
    for (name, help, value) in [
        (
            "redoubt_audit_last_pass_timestamp_seconds",
            "When all keys were gone through last",
            milliseconds(report.finished),
        ),
        (
            "redoubt_audit_duration_seconds",
            "How long that took, pauses included",
            milliseconds(report.took_milliseconds),
        ),
        ("redoubt_audit_busy_seconds", "How long the server was busy with it", milliseconds(report.busy_milliseconds)),
        ("redoubt_audit_keys", "Keys", float(report.keys)),
        ("redoubt_audit_keys_without_expiry", "Keys without an expiry", float(report.without_expiry)),
        ("redoubt_audit_keys_outside_prefixes", "Keys under no declared prefix", float(report.outside)),
        ("redoubt_audit_bytes", "Bytes of all keys, estimated", float(report.bytes)),
        (
            "redoubt_audit_bytes_error",
            "Most that the estimate is off, with a probability of 95 %",
            float(report.bytes_error),
        ),
        ("redoubt_audit_largest_key_bytes", "Bytes of the largest key that was measured", float(largest)),
    ] {
        let gauge = Gauge::new(name, help)?;
        gauge.set(value);
        registry.register(Box::new(gauge))?;
    }
    by_prefix(registry, report)
}

/// One number of what was found under a prefix; `None`: there is no such number.
type Field = fn(&PrefixAudit) -> Option<u64>;

fn by_prefix(registry: &Registry, report: &AuditReport) -> Result<(), prometheus::Error> {
    let mut sorted: Vec<(&str, PrefixAudit)> =
        report.prefixes.iter().map(|(prefix, audit)| (prefix.as_str(), *audit)).collect();
    // One with a budget comes first: an alert compares the two.
    sorted.sort_by(|one, other| {
        let rank = |it: &PrefixAudit| (it.budget_bytes.is_some(), it.bytes);
        rank(&other.1).cmp(&rank(&one.1)).then_with(|| one.0.cmp(other.0))
    });
    let rest = sorted.split_off(sorted.len().min(MOST_PREFIXES));
    if !rest.is_empty() {
        // Errors add up to less than this sum.
        let together = rest.iter().fold(PrefixAudit::default(), |sum, (_, one)| PrefixAudit {
            keys: sum.keys + one.keys,
            without_expiry: sum.without_expiry + one.without_expiry,
            bytes: sum.bytes.saturating_add(one.bytes),
            bytes_error: sum.bytes_error.saturating_add(one.bytes_error),
            budget_bytes: None,
        });
        sorted.push((OTHERS, together));
    }
    let fields: [(&str, &str, Field); 5] = [
        ("redoubt_audit_prefix_keys", "Keys, by prefix", |audit| Some(audit.keys)),
        ("redoubt_audit_prefix_keys_without_expiry", "Keys without an expiry, by prefix", |audit| {
            Some(audit.without_expiry)
        }),
        ("redoubt_audit_prefix_bytes", "Bytes, by prefix, estimated", |audit| Some(audit.bytes)),
        (
            "redoubt_audit_prefix_bytes_error",
            "Most that the estimate of a prefix is off, with a probability of 95 %",
            |audit| Some(audit.bytes_error),
        ),
        ("redoubt_audit_prefix_budget_bytes", "memoryBudget of a cache, by prefix", |audit| audit.budget_bytes),
    ];
    for (name, help, of) in fields {
        let gauge = GaugeVec::new(Opts::new(name, help), &["prefix"])?;
        for (prefix, audit) in &sorted {
            if let Some(number) = of(audit) {
                gauge.with_label_values(&[prefix]).set(float(number));
            }
        }
        registry.register(Box::new(gauge))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_series_is_bounded_and_their_sums_are_whole() {
        let audit = |number: u64| PrefixAudit {
            keys: 1,
            without_expiry: 1,
            bytes: number,
            bytes_error: 0,
            budget_bytes: (number == 0).then_some(7),
        };
        let prefixes = (0..10_000).map(|number| (format!("web{number}:"), audit(number))).collect();
        let report = AuditReport { keys: 10_000, prefixes, ..AuditReport::default() };
        let registry = Registry::new();
        register(&registry, Some(&report), 3, 4).unwrap();
        let families = registry.gather();
        let series: usize = families.iter().map(|family| family.get_metric().len()).sum();
        assert!(series <= 5 * (MOST_PREFIXES + 1) + 11, "{series}");
        let budgets = families.iter().find(|family| family.name() == "redoubt_audit_prefix_budget_bytes").unwrap();
        assert_eq!(budgets.get_metric().len(), 1, "that of the smallest of all is told");
        let keys = families.iter().find(|family| family.name() == "redoubt_audit_prefix_keys").unwrap();
        let sum: f64 = keys.get_metric().iter().map(|metric| metric.get_gauge().get_value()).sum();
        assert!((sum - 10_000.0).abs() < 0.5, "{sum}");
    }
}
