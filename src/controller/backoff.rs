//! How long a layer is left alone after a failed pass: for each layer by itself, growing, spread, and forgotten at the first
//! success. (kube's error policy is not told how many attempts failed, so the count is ours.)

use std::time::Duration;

use crate::failure::Class;
use crate::per_object::PerObject;

/// First pause after a transient error.
const FIRST: Duration = Duration::from_millis(500);
/// Longest pause after transient errors: an outage that ends is noticed within half a minute.
const LONGEST: Duration = Duration::from_secs(30);
/// Pause after a conflict: the watch has by then brought what another process wrote.
const CONFLICT: Duration = Duration::from_millis(200);
/// Pause while an object is wrong or a right is missing. A change of the object wakes us at once; this is for what the
/// watch does not show (a quota, a right that was granted).
const SLOW: Duration = Duration::from_secs(30);

/// Failed passes of each layer since its last success, by UID.
#[derive(Debug, Default)]
pub(crate) struct Backoff(PerObject<u32>);

impl Backoff {
    /// A pass succeeded: the count restarts.
    pub(crate) fn succeeded(&self, uid: &str) {
        self.0.remove(uid);
    }

    /// A pass failed: how long to wait before the next. `spread` is a random number in 0.0 ..= 1.0.
    pub(crate) fn failed(&self, uid: &str, class: Class, spread: f64) -> Duration {
        let mut counts = self.0.lock();
        let count = counts.entry(uid.to_owned()).or_default();
        *count = count.saturating_add(1);
        pause(class, *count, spread)
    }

    /// Forgets layers that are gone.
    pub(crate) fn retain(&self, lives: impl Fn(&str) -> bool) {
        self.0.retain(lives);
    }
}

/// The pause after the `failures`-th failure in a row, made shorter by up to half so that layers do not march in step.
fn pause(class: Class, failures: u32, spread: f64) -> Duration {
    let whole = match class {
        Class::Conflict if failures < 5 => CONFLICT,
        Class::Transient | Class::Conflict => {
            let doublings = failures.saturating_sub(1).min(16);
            FIRST.saturating_mul(1 << doublings).min(LONGEST)
        }
        Class::Invalid | Class::Forbidden | Class::Bug => SLOW,
    };
    whole.mul_f64(1.0 - spread.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_restart_after_a_success() {
        let backoff = Backoff::default();
        let pauses: Vec<_> = (0..9).map(|_| backoff.failed("a", Class::Transient, 0.0).as_millis()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
        backoff.succeeded("a");
        assert_eq!(backoff.failed("a", Class::Transient, 0.0), FIRST);
    }

    #[test]
    fn one_layers_failures_do_not_slow_another() {
        let backoff = Backoff::default();
        for _ in 0..9 {
            backoff.failed("a", Class::Transient, 0.0);
        }
        assert_eq!(backoff.failed("b", Class::Transient, 0.0), FIRST);
    }

    #[test]
    fn the_spread_only_shortens_and_by_half_at_most() {
        assert_eq!(pause(Class::Transient, 1, 1.0), FIRST / 2);
        assert_eq!(pause(Class::Transient, 1, 7.0), FIRST / 2);
    }

    #[test]
    fn a_conflict_is_looked_at_again_soon_but_not_without_end() {
        assert_eq!(pause(Class::Conflict, 1, 0.0), CONFLICT);
        assert!(pause(Class::Conflict, 8, 0.0) > Duration::from_secs(10));
    }
}
