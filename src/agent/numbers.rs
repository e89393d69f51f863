//! Numbers as Prometheus knows them.

/// Prometheus knows only floats: beyond 2^53 the last digits are lost.
pub(super) fn float(value: u64) -> f64 {
    value.to_string().parse().unwrap_or_default()
}
