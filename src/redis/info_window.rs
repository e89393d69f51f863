//! When a Sentinel that fails over learns that its replica was promoted, and how to make that soon.
//!
//! It learns it from an `INFO` of its own, which it sends to a replica when its last one is older than a period: 10 s, or a
//! fixed 1 s while it fails over. The promotion itself comes two to three ticks (50 to 100 ms each) after `SENTINEL
//! FAILOVER`. So an `INFO` that is older than a second is refreshed before the promotion, and the next one comes a second
//! later: for that long the Sentinels still name the old primary. If the last `INFO` is a little younger than a second, the
//! next one goes out in the very tick that promotes. (Read in Sentinel's source: `sentinelSendPeriodicCommands`,
//! `sentinelFailoverStateMachine`.)

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::connection::Connection;
use super::error::Result;
use super::sentinel::{self, ReplicaView};
use crate::model::Address;

/// The period of a Sentinel that fails over: fixed in its source.
const WHILE_FAILING_OVER: Duration = Duration::from_secs(1);
/// Period between a Sentinel's `INFO` to the same server that our Sentinels are given: some 0.1 ms of server time, a few
/// times a second. With the default of 10 s a Sentinel sees new replicas, priorities and roles up to 10 s late, and nearly
/// every unplanned failover waits out the whole second that is described above; with less than the age at which a failover
/// is ordered best, none does.
pub const PERIOD: Duration = Duration::from_millis(800);
/// How much less it is for each further Sentinel: so they never ask in step for long, and when an engine dies the `INFO` of
/// one of them is likely to be of a good age.
const OUT_OF_STEP: Duration = Duration::from_millis(45);
/// The period while a planned move waits: no `INFO` of its own accord.
const HELD: Duration = Duration::from_secs(2);
/// The period that makes a Sentinel ask in each of its ticks.
pub const EACH_TICK: Duration = Duration::from_millis(1);
/// Age of the `INFO` from which on a failover may be ordered. Measured as the longest gap of a Sentinel-aware writer, median
/// and worst of 12 moves on loopback, by the age at which writers were paused: 650 ms 0.41 and 0.44 s, 700 ms 0.34 and
/// 0.37 s, 760 ms 0.29 and 0.32 s, 800 ms 0.30 and 0.48 s. Later is quicker until the `INFO` slips in before the promotion.
const OPENS: Duration = Duration::from_millis(765);
/// Age up to which it may: older ones are often refreshed before the promotion.
const CLOSES: Duration = Duration::from_millis(830);
/// Ages further apart than this are not of one tick.
const SAME_TICK: Duration = Duration::from_millis(15);
/// Bound of all the waiting here: an alignment takes a second, and a machine that stalls gets a second try. After that the
/// move goes on all the same; it only takes longer for clients to hear of it.
const PATIENCE: Duration = Duration::from_secs(3);

/// Waits until the Sentinel's `INFO` of all candidates (it elects whom it likes) are of the age at which the next one comes
/// right after the promotion. True: they are. The Sentinel's period is another one afterwards; set it back when the failover
/// is ordered.
pub async fn wait_until_open(actor: &Connection, master_name: &str, candidates: &[&Address]) -> Result<bool> {
    let began = Instant::now();
    let ages = async || -> Result<Ages> {
        let views = sentinel::replica_views(actor, master_name).await?;
        Ok(Ages::of(&views, candidates))
    };
    while began.elapsed() < PATIENCE {
        sentinel::set_info_period(actor, EACH_TICK).await?;
        if !ages().await?.are_fresh() {
            sleep(Duration::from_millis(5)).await;
            continue;
        }
        sentinel::set_info_period(actor, HELD).await?;
        loop {
            let now = ages().await?;
            if now.youngest >= OPENS && now.oldest <= CLOSES {
                return Ok(true);
            }
            // The machine slept, or a Sentinel's tick came in between: align them anew.
            if now.oldest > CLOSES || now.oldest.saturating_sub(now.youngest) > 2 * SAME_TICK {
                break;
            }
            sleep(OPENS.saturating_sub(now.youngest).max(Duration::from_millis(1))).await;
        }
    }
    Ok(false)
}

/// The usual period of the Sentinel with this ordinal.
pub fn period_of(ordinal: u16) -> Duration {
    PERIOD.saturating_sub(OUT_OF_STEP * u32::from(ordinal % 5))
}

/// Ages of the candidates' `INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ages {
    youngest: Duration,
    oldest: Duration,
}

impl Ages {
    fn of(views: &[ReplicaView], candidates: &[&Address]) -> Self {
        let ages = || views.iter().filter(|view| candidates.contains(&&view.address)).map(|view| view.info_age);
        // A candidate that the Sentinel does not know is nobody that it could elect.
        Self { youngest: ages().min().unwrap_or_default(), oldest: ages().max().unwrap_or_default() }
    }

    fn are_fresh(self) -> bool {
        self.oldest.saturating_sub(self.youngest) <= SAME_TICK && self.oldest <= Duration::from_millis(150)
    }
}

/// How long after `SENTINEL FAILOVER`, ordered now, this Sentinel will have heard of the promotion, roughly.
pub fn expected_delay(views: &[ReplicaView]) -> Duration {
    /// The promotion: two to three ticks.
    const PROMOTION: Duration = Duration::from_millis(200);
    let delay = |view: &ReplicaView| {
        if view.info_age <= CLOSES {
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

    fn view(age: u64) -> ReplicaView {
        ReplicaView { address: Address(format!("10.0.0.{age}")), electable: true, info_age: Duration::from_millis(age) }
    }

    #[test]
    fn an_info_of_nearly_a_second_is_the_best_and_an_older_one_the_worst() {
        let delay = |age| expected_delay(&[view(age)]);
        assert!(delay(780) < delay(300) && delay(300) < delay(900));
        // Whoever is elected: the worst counts.
        assert_eq!(expected_delay(&[view(780), view(950)]), delay(950));
        assert_eq!(expected_delay(&[]), Duration::MAX);
    }
}
