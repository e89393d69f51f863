//! Numbers as Prometheus knows them.

/// Prometheus knows only floats: beyond 2^53 the last digits are lost.
#[expect(clippy::cast_precision_loss, reason = "the format has no other numbers")]
pub(super) fn float(value: u64) -> f64 {
    value as f64
}
