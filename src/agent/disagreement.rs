//! A Sentinel that names another primary than it should and will hear of nothing that changes its mind.
//!
//! Sentinels believe the newest epoch, and a new epoch with the address that they have is no news. One that still
//! reconfigures the replicas of a failover from A to B has A as its primary's address: when it hears of the next one, from B
//! back to A, it takes the new epoch and goes on, and ends by naming B under the epoch of A. From then on no Sentinel's knowledge
//! is newer than its own. Nor is there for one that was shown a primary that died at once: Sentinels find each other through the
//! servers that they watch, and it watches no other. (Read in Sentinel's source, `sentinelProcessHelloMessage`; seen when primaries were killed one
//! after the other, Redis 7.0.) Such a Sentinel can neither elect nor be counted on, so it is shown the primary again.

use std::time::Duration;

use tokio::time::Instant;

use super::peers::{self, View};
use super::state::State;
use crate::model::observed::SentinelMaster;
use crate::model::{Address, Role};
use crate::redis::{Connection, server};

/// Between two polls of the others.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// How long the others must have named the same other primary: Sentinels tell each other every two seconds, so two of these
/// may be missed.
const NAMED_FOR: Duration = Duration::from_secs(5);
/// Time for a data node's answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);

/// Whom the others name, and since when that was another than ours.
#[derive(Default)]
pub(crate) struct Disagreement {
    polled: Option<Instant>,
    since: Option<(Address, Instant)>,
}

impl Disagreement {
    /// Whether the others named another primary at the last poll.
    pub(crate) const fn is_suspected(&self) -> bool {
        self.since.is_some()
    }

    /// Looks if it is time to; the primary that the own Sentinel should name, if it was wrong for long enough.
    pub(crate) async fn primary_to_restore(&mut self, state: &State, own: &SentinelMaster) -> Option<Address> {
        if self.polled.is_some_and(|at| at.elapsed() < POLL_EVERY) {
            return None;
        }
        self.polled = Some(Instant::now());
        let Some((right, is_split)) = right_one(state, own).await else {
            self.since = None;
            return None;
        };
        match &self.since {
            Some((named, since)) if *named == right => {
                (since.elapsed() >= named_long_enough(state, is_split)).then_some(right)
            }
            _ => {
                self.since = Some((right, Instant::now()));
                None
            }
        }
    }
}

/// The primary that a majority names by knowledge as new as ours, or that any Sentinel names by newer knowledge, which is what a
/// Sentinel itself believes, or by knowledge as new where no majority names a node. Its server says that it is primary, while ours says
/// that it is none or says nothing. A Sentinel in a failover is left alone: it will hear, or end, by itself. True: no majority names it, and
/// none that names it knows something newer.
async fn right_one(state: &State, own: &SentinelMaster) -> Option<(Address, bool)> {
    if own.is_failing_over() {
        return None;
    }
    let config = state.config();
    let (named, is_split) = better_known(&peers::ask_sentinels(state, &config).await, own);
    if named.is_empty() || role(state, &own.address).await == Some(Role::Primary) {
        return None;
    }
    for address in named {
        if role(state, &address).await == Some(Role::Primary) {
            return Some((address, is_split));
        }
    }
    None
}

/// Whom these views name instead of the own Sentinel's primary: one, or each that is known as well where no majority names a node. True:
/// the latter.
fn better_known(views: &[View], own: &SentinelMaster) -> (Vec<Address>, bool) {
    let of_most = peers::majority(views).filter(|(_, epoch)| *epoch >= own.config_epoch);
    let newest = views.iter().filter_map(|view| match view {
        View::Names(address, epoch) if *epoch > own.config_epoch => Some((epoch, address)),
        _ => None,
    });
    // Two that disagree hear nothing of each other, and a third one that could tell them is away.
    let is_split = peers::majority(views).is_none();
    let as_new = views.iter().filter_map(|view| match view {
        View::Names(address, epoch) if is_split && *epoch == own.config_epoch => Some(address),
        _ => None,
    });
    let best = of_most.map(|(address, _)| address).or_else(|| newest.max().map(|(_, address)| address.clone()));
    let is_equal = best.is_none();
    let named: Vec<Address> = best.map_or_else(|| as_new.cloned().collect(), |best| vec![best]);
    (named.into_iter().filter(|address| *address != own.address).collect(), is_equal)
}

/// Against a Sentinel that knows as much, not before this one would take its primary for down by itself.
fn named_long_enough(state: &State, is_split: bool) -> Duration {
    let detection = Duration::from_millis(state.config().detection_milliseconds);
    if is_split { NAMED_FOR.max(detection) } else { NAMED_FOR }
}

async fn role(state: &State, address: &Address) -> Option<Role> {
    let connection = Connection::open_with(&state.data_endpoint(address), ANSWER_WITHIN, ANSWER_WITHIN).await.ok()?;
    server::replication(&connection).await.ok()?.role()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn the_majority_counts_or_the_one_with_a_newer_epoch() {
        let address = |last: u8| Address(format!("10.0.0.{last}"));
        let own = SentinelMaster {
            address: address(1),
            config_epoch: 7,
            flags: BTreeSet::new(),
            quorum: 2,
            detection: Duration::from_secs(5),
            failover_timeout: Duration::from_secs(15),
            parallel_syncs: 3,
            other_sentinels: BTreeMap::new(),
            steady_milliseconds: None,
            replicas: BTreeMap::new(),
        };
        let names = |last: u8, epoch: u64| View::Names(address(last), epoch);
        let better = |views: &[View]| better_known(views, &own).0.first().cloned();
        assert_eq!(better(&[names(1, 7), names(2, 7), names(2, 7)]), Some(address(2)), "the majority");
        assert_eq!(better(&[names(1, 7), names(2, 6), names(2, 6)]), None, "who are left behind");
        assert_eq!(better(&[names(1, 7), names(2, 7), View::Silent]), Some(address(2)), "as new, and no majority");
        assert!(better_known(&[names(1, 7), names(2, 7), View::Silent], &own).1, "that takes as long as detection");
        assert!(!better_known(&[names(1, 7), names(2, 8), View::Silent], &own).1);
        assert_eq!(better(&[names(1, 7), names(1, 7), names(2, 7)]), None, "the majority names ours");
        assert_eq!(better(&[names(1, 7), names(2, 8), View::NamesNone]), Some(address(2)), "newer than ours");
        assert_eq!(better(&[names(1, 7), names(2, 8), names(3, 9)]), Some(address(3)), "the newest");
        assert_eq!(better(&[names(1, 8), names(1, 8), View::Silent]), None, "whom we name");
    }
}
