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

/// Period between a Sentinel's `INFO` to the same server that our Sentinels are given: some 0.1 ms of server time, three
/// times a second. With the default of 10 s a Sentinel sees new replicas, priorities and roles up to 10 s late, and nearly
/// every unplanned failover would wait out the whole second that is described above.
pub const PERIOD: Duration = Duration::from_secs(1);
/// The period that makes a Sentinel ask in each of its ticks.
pub const EACH_TICK: Duration = Duration::from_millis(1);
/// Age of the `INFO` from which on a failover may be ordered.
const OPENS: Duration = Duration::from_millis(760);
/// Age up to which it may: older ones are often refreshed before the promotion.
const CLOSES: Duration = Duration::from_millis(830);
/// Ages further apart than this are not of one tick.
const SAME_TICK: Duration = Duration::from_millis(15);
/// Bound of all the waiting here: an alignment takes a second, and a machine that stalls gets a second try. After that the
/// move goes on all the same; it only takes longer for clients to hear of it.
const PATIENCE: Duration = Duration::from_secs(3);

/// Waits until the Sentinel's `INFO` of all candidates (it elects whom it likes) are of the age at which the next one comes
/// right after the promotion. True: they are.
pub async fn wait_until_open(actor: &Connection, master_name: &str, candidates: &[&Address]) -> Result<bool> {
    let began = Instant::now();
    let opens = std::env::var("OPENS").ok().and_then(|t| t.parse().ok()).map_or(OPENS, Duration::from_millis);
    let closes = opens + Duration::from_millis(70);
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
        sentinel::set_info_period(actor, PERIOD).await?;
        loop {
            let now = ages().await?;
            if now.youngest >= opens && now.oldest <= closes {
                return Ok(true);
            }
            // The machine slept, or a Sentinel's tick came in between: align them anew.
            if now.oldest > closes || now.oldest.saturating_sub(now.youngest) > 2 * SAME_TICK {
                break;
            }
            sleep(opens.saturating_sub(now.youngest).max(Duration::from_millis(1))).await;
        }
    }
    sentinel::set_info_period(actor, PERIOD).await?;
    Ok(false)
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
        if view.info_age <= CLOSES { PERIOD.saturating_sub(view.info_age).max(PROMOTION) } else { PERIOD + PROMOTION }
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
