//! Whether the machine's clock was set back.
//!
//! A Sentinel measures by that clock how long a server is silent, and when it asks one again. Set back by an hour, it asks none for an
//! hour and takes none for down. One that is started has no times of before.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// The least step that counts. A Sentinel is in TILT mode for 30 s after one of 2 s, and a step of a few costs no more than that.
const STEP: Duration = Duration::from_secs(5);

/// What the clock was at the last poll.
#[derive(Debug, Default)]
pub(super) struct WallClock {
    last: Option<(Instant, SystemTime)>,
}

impl WallClock {
    /// Whether the clock was set back since the last poll.
    pub(super) fn is_set_back(&mut self) -> bool {
        self.note(Instant::now(), SystemTime::now())
    }

    fn note(&mut self, now: Instant, clock: SystemTime) -> bool {
        let Some((at, before)) = self.last.replace((now, clock)) else { return false };
        let expected = before.checked_add(now.duration_since(at));
        expected.and_then(|expected| expected.duration_since(clock).ok()).is_some_and(|back| back >= STEP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_back_is_seen_once_and_neither_one_forward_nor_a_late_poll_is_one() {
        let (start, clock) = (Instant::now(), SystemTime::UNIX_EPOCH + Duration::from_hours(9));
        let mut watched = WallClock::default();
        let mut at = |passed: u64, shown: u64| {
            watched.note(start + Duration::from_secs(passed), clock + Duration::from_secs(shown))
        };
        assert_eq!([at(0, 0), at(1, 1), at(9, 9), at(10, 3_610), at(11, 3_611)], [false; 5]);
        assert_eq!([at(12, 12), at(13, 13), at(14, 10)], [true, false, false], "an hour back, and less than a step");
    }
}
