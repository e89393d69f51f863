//! How many reads found their key, over the last minutes: from the counters that each poll brings, at no further cost.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::redis::info::Info;

/// The time that the ratio speaks of.
const WINDOW: Duration = Duration::from_mins(5);
/// Between two samples: the window's edge is that blurred.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// Counters seen within the window, oldest first.
#[derive(Debug, Default)]
pub(crate) struct HitHistory {
    samples: VecDeque<Sample>,
    newest: Option<Sample>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    hits: u64,
    misses: u64,
    /// Those of them that were the agent's own.
    own: (u64, u64),
}

impl HitHistory {
    /// Notes the counters of one `INFO`. `own`: reads of the agent's own so far that found their key, and that did not.
    pub(crate) fn record(&mut self, at: Instant, info: &Info, own: (u64, u64)) {
        let (Some(hits), Some(misses)) = (info.number("keyspace_hits"), info.number("keyspace_misses")) else { return };
        let sample = Sample { at, hits, misses, own };
        // Counters that fell were set to zero: what was before says nothing any more.
        if self.newest.is_some_and(|newest| hits < newest.hits || misses < newest.misses) {
            self.samples.clear();
        }
        self.newest = Some(sample);
        if self.samples.back().is_none_or(|last| at.duration_since(last.at) >= SAMPLE_EVERY) {
            self.samples.push_back(sample);
        }
        // One sample at or beyond the window's edge stays: the ratio spans the whole window.
        while self.samples.get(1).is_some_and(|second| at.duration_since(second.at) >= WINDOW) {
            self.samples.pop_front();
        }
    }

    /// Hits by reads, 0 to 1; `None`: there were no reads.
    pub(crate) fn ratio(&self) -> Option<f64> {
        let (oldest, newest) = (self.samples.front()?, self.newest?);
        let of_others = |newest: u64, oldest: u64, own: u64| newest.saturating_sub(oldest).saturating_sub(own);
        let hits = of_others(newest.hits, oldest.hits, newest.own.0.saturating_sub(oldest.own.0));
        let misses = of_others(newest.misses, oldest.misses, newest.own.1.saturating_sub(oldest.own.1));
        let float = |count: u64| u32::try_from(count).map_or(f64::from(u32::MAX), f64::from);
        let reads = float(hits) + float(misses);
        (reads > 0.0).then(|| float(hits) / reads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(hits: u64, misses: u64) -> Info {
        Info::parse(&format!("keyspace_hits:{hits}\nkeyspace_misses:{misses}\n"))
    }

    #[test]
    fn the_ratio_speaks_of_the_last_minutes_and_not_of_all_time() {
        let began = Instant::now();
        let mut history = HitHistory::default();
        assert_eq!(history.ratio(), None);
        history.record(began, &info(1_000, 0), (0, 0));
        assert_eq!(history.ratio(), None);
        history.record(began + Duration::from_secs(1), &info(1_001, 3), (0, 0));
        assert_eq!(history.ratio(), Some(0.25));
        for seconds in 2..1_000 {
            history.record(began + Duration::from_secs(seconds), &info(1_001, 3), (0, 0));
        }
        assert_eq!(history.ratio(), None);
        assert!(history.samples.len() < 70);
        history.record(began + Duration::from_secs(1_000), &info(1_004, 4), (0, 0));
        assert_eq!(history.ratio(), Some(0.75));
    }

    #[test]
    fn reads_of_the_agents_own_are_left_out() {
        let began = Instant::now();
        let mut history = HitHistory::default();
        history.record(began, &info(10, 10), (10, 10));
        history.record(began + Duration::from_secs(6), &info(1_011, 113), (1_010, 110));
        assert_eq!(history.ratio(), Some(0.25));
    }

    #[test]
    fn counters_that_were_reset_begin_again() {
        let began = Instant::now();
        let mut history = HitHistory::default();
        history.record(began, &info(100, 100), (0, 0));
        history.record(began + Duration::from_secs(6), &info(0, 0), (0, 0));
        history.record(began + Duration::from_secs(7), &info(1, 1), (0, 0));
        assert_eq!(history.ratio(), Some(0.5));
    }
}
