//! Which servers turned clients away a short while ago, by their counters. Memory only.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For how long it is told after the last client that was turned away: clients try again at least as often.
const REPORTED_FOR: Duration = Duration::from_secs(30);

/// `rejected_connections` of the servers as last seen, by `run_id`, and when it grew.
#[derive(Debug, Default)]
pub(crate) struct Rejections(Mutex<BTreeMap<String, RejectionCount>>);

#[derive(Debug)]
struct RejectionCount {
    count: u64,
    grew: Option<Instant>,
    looked: Instant,
}

impl Rejections {
    /// Notes the counter of a server; whether it grew a short while ago.
    pub(crate) fn note(&self, run_id: &str, count: u64) -> bool {
        let now = Instant::now();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = known.entry(run_id.to_owned()).or_insert(RejectionCount { count, grew: None, looked: now });
        if count > seen.count {
            seen.grew = Some(now);
        }
        (seen.count, seen.looked) = (count, now);
        seen.grew.is_some_and(|grew| grew.elapsed() < REPORTED_FOR)
    }

    /// Forgets servers that were not looked at for this long.
    pub(crate) fn forget_unused(&self, since: Duration) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, seen| seen.looked.elapsed() < since);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_grows_is_reported_and_one_that_was_always_so_is_not() {
        let rejections = Rejections::default();
        assert!(!rejections.note("a", 7), "it is not known when that was");
        assert!(!rejections.note("a", 7));
        assert!(rejections.note("a", 8));
        assert!(rejections.note("a", 8));
        assert!(!rejections.note("b", 8));
        rejections.forget_unused(Duration::ZERO);
        assert!(!rejections.note("a", 9));
    }
}
