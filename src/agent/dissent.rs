//! A Sentinel that names another primary than the majority and will hear of nothing that changes its mind.
//!
//! Sentinels believe the newest epoch, and a new epoch with the address that they have is no news. One that still
//! reconfigures the replicas of a failover from A to B has A as its primary's address: when it hears of the next one, from B
//! back to A, it takes the new epoch and goes on, and ends by naming B under the epoch of A. From then on nobody's knowledge
//! is newer than its own. (Read in Sentinel's source, `sentinelProcessHelloMessage`; seen when primaries were killed one
//! after the other, Redis 7.0.) Such a Sentinel can neither elect nor be counted on, so it is shown the primary anew.

use std::time::Duration;

use tokio::time::Instant;

use super::peers;
use super::state::State;
use crate::model::observed::SentinelMaster;
use crate::model::{Address, Role};
use crate::redis::{Connection, server};

/// Between two looks at the others.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the others must have named the same other primary: Sentinels tell each other every two seconds, so two of these
/// may be missed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time for a data node's answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);

/// Whom the others name, and since when that was another than ours.
#[derive(Default)]
pub struct Dissent {
    looked: Option<Instant>,
    since: Option<(Address, Instant)>,
}

impl Dissent {
    /// Looks if it is time to; the primary that the own Sentinel should name, if it was wrong for long enough.
    pub async fn look(&mut self, state: &State, own: &SentinelMaster) -> Option<Address> {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return None;
        }
        self.looked = Some(Instant::now());
        let Some(right) = right_one(state, own).await else {
            self.since = None;
            return None;
        };
        match &self.since {
            Some((named, since)) if *named == right => (since.elapsed() >= PATIENCE).then_some(right),
            _ => {
                self.since = Some((right, Instant::now()));
                None
            }
        }
    }
}

/// The primary that a majority names by knowledge as new as ours, that says so itself, while ours says that it is none or
/// says nothing. A Sentinel in a failover is left alone: it will hear, or end, by itself.
async fn right_one(state: &State, own: &SentinelMaster) -> Option<Address> {
    if own.flags.contains("failover_in_progress") {
        return None;
    }
    let config = state.config();
    let (named, epoch) = peers::majority(&peers::ask_sentinels(state, &config).await)?;
    if named == own.address || epoch < own.config_epoch {
        return None;
    }
    let (theirs, ours) = tokio::join!(role(state, &named), role(state, &own.address));
    (theirs == Some(Role::Primary) && ours != Some(Role::Primary)).then_some(named)
}

async fn role(state: &State, address: &Address) -> Option<Role> {
    let connection = Connection::open_with(&state.data_endpoint(address), ANSWER_WITHIN, ANSWER_WITHIN).await.ok()?;
    server::replication(&connection).await.ok()?.role()
}
