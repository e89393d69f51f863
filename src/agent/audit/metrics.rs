//! What an audit found, as metrics. The number of series is bounded, however many uses a layer has.

use prometheus::{Counter, Gauge, GaugeVec, Opts, Registry};

use super::super::numbers::float;
use crate::model::audit::{AuditReport, PrefixAudit};

/// Prefixes with series of their own: those with most bytes.
const MOST_PREFIXES: usize = 100;
/// Label of all others together. No prefix looks so.
const OTHERS: &str = "(others)";

/// Registers what an audit found, and how many keys this agent has given an expiry since it began.
pub fn register(registry: &Registry, report: Option<&AuditReport>, repaired: u64) -> Result<(), prometheus::Error> {
    let counter = Counter::new("redoubt_audit_repaired_keys_total", "Keys that the agent gave an expiry")?;
    counter.inc_by(float(repaired));
    registry.register(Box::new(counter))?;
    let Some(report) = report else { return Ok(()) };
    let milliseconds = |time: u64| float(time) / 1_000.0;
    for (name, help, value) in [
        ("last_pass_timestamp_seconds", "When all keys were gone through last", milliseconds(report.finished)),
        ("duration_seconds", "How long that took, pauses included", milliseconds(report.took_milliseconds)),
        ("busy_seconds", "How long the server was busy with it", milliseconds(report.busy_milliseconds)),
        ("keys", "Keys", float(report.keys)),
        ("keys_without_expiry", "Keys without an expiry", float(report.without_expiry)),
        ("keys_outside_prefixes", "Keys under no declared prefix", float(report.outside)),
        ("bytes", "Bytes of all keys, estimated", float(report.bytes)),
        ("bytes_error", "Most that the estimate is off, with a probability of 95 %", float(report.bytes_error)),
        (
            "largest_key_bytes",
            "Bytes of the largest key that was measured",
            float(report.largest.first().map_or(0, |largest| largest.bytes)),
        ),
    ] {
        let gauge = Gauge::new(format!("redoubt_audit_{name}"), help)?;
        gauge.set(value);
        registry.register(Box::new(gauge))?;
    }
    by_prefix(registry, report)
}

/// One number of what was found under a prefix.
type Field = fn(&PrefixAudit) -> u64;

fn by_prefix(registry: &Registry, report: &AuditReport) -> Result<(), prometheus::Error> {
    let mut sorted: Vec<(&str, PrefixAudit)> =
        report.prefixes.iter().map(|(prefix, audit)| (prefix.as_str(), *audit)).collect();
    sorted.sort_by(|one, other| other.1.bytes.cmp(&one.1.bytes).then_with(|| one.0.cmp(other.0)));
    let rest = sorted.split_off(sorted.len().min(MOST_PREFIXES));
    if !rest.is_empty() {
        // Errors add up to less than this sum.
        let together = rest.iter().fold(PrefixAudit::default(), |sum, (_, one)| PrefixAudit {
            keys: sum.keys + one.keys,
            without_expiry: sum.without_expiry + one.without_expiry,
            bytes: sum.bytes.saturating_add(one.bytes),
            bytes_error: sum.bytes_error.saturating_add(one.bytes_error),
        });
        sorted.push((OTHERS, together));
    }
    let fields: [(&str, &str, Field); 4] = [
        ("keys", "Keys, by prefix", |audit| audit.keys),
        ("keys_without_expiry", "Keys without an expiry, by prefix", |audit| audit.without_expiry),
        ("bytes", "Bytes, by prefix, estimated", |audit| audit.bytes),
        ("bytes_error", "Most that the estimate is off, with a probability of 95 %", |audit| audit.bytes_error),
    ];
    for (name, help, of) in fields {
        let gauge = GaugeVec::new(Opts::new(format!("redoubt_audit_prefix_{name}"), help), &["prefix"])?;
        for (prefix, audit) in &sorted {
            gauge.with_label_values(&[prefix]).set(float(of(audit)));
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
        let audit = |number: u64| PrefixAudit { keys: 1, without_expiry: 1, bytes: number, bytes_error: 0 };
        let prefixes = (0..10_000).map(|number| (format!("web{number}:"), audit(number))).collect();
        let report = AuditReport { keys: 10_000, prefixes, ..AuditReport::default() };
        let registry = Registry::new();
        register(&registry, Some(&report), 3).unwrap();
        let families = registry.gather();
        let series: usize = families.iter().map(|family| family.get_metric().len()).sum();
        assert!(series <= 4 * (MOST_PREFIXES + 1) + 10, "{series}");
        let keys = families.iter().find(|family| family.name() == "redoubt_audit_prefix_keys").unwrap();
        let sum: f64 = keys.get_metric().iter().map(|metric| metric.get_gauge().get_value()).sum();
        assert!((sum - 10_000.0).abs() < 0.5, "{sum}");
    }
}
