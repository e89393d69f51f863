//! How a watch that fails is tried again.

use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::runtime::utils::{Backoff, ResetTimerBackoff};
use kube::runtime::watcher;

use crate::telemetry::Chain;

/// The first pause: an API server that restarts is back within a second or two.
const FIRST: Duration = Duration::from_millis(200);
/// The longest. kube's own goes up to 30 s, and for as long the Services would not follow their primary. Every watch of an operator
/// asks at most 12 times a minute.
const LONGEST: Duration = Duration::from_secs(5);
/// Without an error for this long, the next pause is the first again.
const FORGOTTEN: Duration = Duration::from_mins(1);

/// Pauses that double, each shortened by up to a half at random: watches that fail together are not tried together.
pub(super) struct WatchBackoff(Duration);

pub(super) fn pauses() -> ResetTimerBackoff<WatchBackoff> {
    ResetTimerBackoff::new(WatchBackoff(FIRST), FORGOTTEN)
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0;
        self.0 = (2 * pause).min(LONGEST);
        Some(pause.mul_f64(1.0 - rand::random::<f64>() / 2.0))
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {
        self.0 = FIRST;
    }
}

/// The changes of a watch without its errors, which are logged. kube's controller only passes them on, and does so by splitting one
/// stream in two: an error that one half does not take is not polled again before something else wakes the controller, and watches of
/// which the first lists all fail were tried again one at a time (38 s instead of 1).
pub(super) fn without_errors<K, S>(stream: S) -> impl Stream<Item = Result<K, watcher::Error>> + Send
where
    K: Send,
    S: Stream<Item = Result<K, watcher::Error>> + Send,
{
    stream.filter_map(async move |change| match change {
        Ok(object) => Some(Ok(object)),
        Err(error) => {
            tracing::warn!(kind = std::any::type_name::<K>(), error = %Chain(&error), "a watch failed and is tried again");
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again_after_a_reset() {
        let mut pauses = WatchBackoff(FIRST);
        for longest in [200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
            let pause = pauses.next().unwrap();
            assert!(
                pause <= Duration::from_millis(longest) && 2 * pause >= Duration::from_millis(longest),
                "{pause:?}"
            );
        }
        pauses.reset();
        assert!(pauses.next().unwrap() <= FIRST);
    }
}
