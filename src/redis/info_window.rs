//! How often a Sentinel sends `INFO` to its servers, and what follows from that for a failover.
//!
//! It learns that its replica was promoted from an `INFO` of its own, which it sends to a replica when its last one is older
//! than a period: the usual one, or a fixed 1 s while it fails over. The promotion itself comes two to three ticks (50 to
//! 100 ms each) after the order. So an `INFO` that is older than a second is refreshed before the promotion, and the next one
//! comes a second later. The agent next to that Sentinel does not wait for it (`agent::promotion`); where there is none, the
//! Sentinel whose `INFO` has the right age is the best to ask. And it elects no replica whose last `INFO` is older than three
//! periods, or five of `PING` once it holds the primary for dead: a period that is too short makes every replica unfit.
//! (Read in Sentinel's source: `sentinelSendPeriodicCommands`, `sentinelSelectSlave`.)

use std::time::Duration;

use super::sentinel::ReplicaView;

/// The period of a Sentinel that fails over, and of one whose primary is down: fixed in its source.
pub(crate) const WHILE_FAILING_OVER: Duration = Duration::from_secs(1);
/// Period between a Sentinel's `INFO` to the same server that our Sentinels are given: some 0.1 ms of server time, a few
/// times a second. With the default of 10 s a Sentinel sees new replicas, priorities and roles up to 10 s late.
pub(crate) const PERIOD: Duration = Duration::from_millis(800);
/// How much less it is for each further Sentinel: so they never ask in step for long, and when an engine dies the `INFO` of
/// one of them is likely to be of a good age.
const OUT_OF_STEP: Duration = Duration::from_millis(45);
/// The period that makes a Sentinel ask in each of its ticks, for as long as a caller waits for it to see what has just changed.
/// Set [`PERIOD`] again before it is told to fail over: with this one it finds every replica unfit a few ticks later.
pub(crate) const EACH_TICK: Duration = Duration::from_millis(50);
/// Age of an `INFO` above which a Sentinel elects no replica by it: three periods.
pub(crate) const LONGEST_VALID: Duration = Duration::from_millis(2_400);
/// Age of an `INFO` that is likely to be refreshed before the promotion.
const REFRESHED: Duration = Duration::from_millis(830);

/// The usual period of the Sentinel with this ordinal.
pub(crate) fn period_of(ordinal: u16) -> Duration {
    PERIOD.saturating_sub(OUT_OF_STEP * u32::from(ordinal % 5))
}

/// How long after `SENTINEL FAILOVER`, ordered now, this Sentinel will have heard of the promotion by itself, roughly.
pub(crate) fn expected_delay(views: &[ReplicaView]) -> Duration {
    /// The promotion: two to three ticks.
    const PROMOTION: Duration = Duration::from_millis(200);
    let delay = |view: &ReplicaView| {
        if view.info_age <= REFRESHED {
            WHILE_FAILING_OVER.saturating_sub(view.info_age).max(PROMOTION)
        } else {
            WHILE_FAILING_OVER + PROMOTION
        }
    };
    views.iter().filter(|view| view.electable).map(delay).max().unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Address, Offset};

    fn view(age: u64) -> ReplicaView {
        let address = Address(format!("10.0.0.{age}"));
        ReplicaView {
            address,
            electable: true,
            is_cut_off: false,
            info_age: Duration::from_millis(age),
            offset: Offset(0),
        }
    }

    #[test]
    fn an_info_of_nearly_a_second_is_the_best_and_an_older_one_the_worst() {
        let delay = |age| expected_delay(&[view(age)]);
        assert_eq!(LONGEST_VALID, 3 * PERIOD);
        assert!(delay(780) < delay(300) && delay(300) < delay(900));
        // Any of them may be elected: the worst counts.
        assert_eq!(expected_delay(&[view(780), view(950)]), delay(950));
        assert_eq!(expected_delay(&[]), Duration::MAX);
    }
}
