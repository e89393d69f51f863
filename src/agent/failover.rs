//! A failover that the agent asks for because its engine is dead: ordered at the best Sentinel, and seen through.
//!
//! What follows the order (the Sentinels told, the other replicas re-pointed) is also done by the agent of the Sentinel that
//! acts, [`super::promotion`]. This agent sees it through as well: it waits for the promotion in any case, and whichever is
//! quicker ends the time in which the new primary has no replica and may refuse writers (`min-replicas-to-write`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::timeout;

use super::freshest;
use super::promotion::{open, point};
use super::state::State;
use crate::model::lineage::Lineage;
use crate::model::node_config::NodeConfig;
use crate::model::observed::SentinelMaster;
use crate::model::{Address, ReplicationId};
use crate::redis::first_primary::first_primary;
use crate::redis::{Connection, info_window, sentinel, server};

/// A promotion comes within 0.3 s of the order or, where the Sentinel gave up, not at all. After this the boot rule is
/// asked again.
const PROMOTED_WITHIN: Duration = Duration::from_secs(2);

/// Orders a failover and waits for it. `replicas`: those that followed our dead engine, with the records that their agents told. The new
/// primary, which the other replicas follow already; `None`: no replica was promoted, or not in time.
pub(crate) async fn fail_over(
    state: &State,
    config: &NodeConfig,
    replicas: &BTreeMap<Address, Lineage>,
) -> Option<Address> {
    let told = replicas;
    let replicas: &Vec<Address> = &told.keys().cloned().collect();
    let (informed, have_same_history) =
        tokio::join!(freshest::known_to(state, config, replicas), have_same_history(state, told));
    if !have_same_history {
        return None;
    }
    order(state, config, &informed).await?;
    let servers = replicas.iter().map(|address| (state.data_endpoint(address), None)).collect();
    let promoted = &replicas[timeout(PROMOTED_WITHIN, first_primary(servers, open)).await.ok()?];
    tracing::info!(primary = %promoted, "promoted");
    point(state, replicas, promoted).await;
    Some(promoted.clone())
}

/// Whether each replica that answers has the history that its agent told. Where one has another its agent has not looked since: the server
/// may follow a stranger by now, and a Sentinel promotes it all the same.
async fn have_same_history(state: &State, told: &BTreeMap<Address, Lineage>) -> bool {
    let asked = join_all(told.iter().map(async |(address, record)| -> crate::redis::Result<bool> {
        let info = server::replication(&open(&state.data_endpoint(address)).await?).await?;
        let is_it = |id: &ReplicationId| *id == record.replication_id;
        let is_same = is_it(&info.replication_id()) || info.previous_replication_id().as_ref().is_some_and(is_it);
        if !is_same {
            tracing::warn!(replica = %address, "it has another history than its agent told: no failover is asked for yet");
        }
        Ok(is_same)
    }));
    // Who does not answer cannot be promoted.
    asked.await.into_iter().all(|is_same| is_same.unwrap_or(true))
}

/// A Sentinel, and what it believes when it is asked.
struct SentinelAnswer {
    address: Address,
    connection: Connection,
    /// Whom it names to clients. While it fails over this is `master.address` until the promotion and the promoted one after.
    named: Address,
    master: SentinelMaster,
    /// How long after an order it will have heard of its success.
    delay: Duration,
}

/// Asks one Sentinel after the other until one begins: first those that would elect who has most (`informed`), and of them the
/// one that will hear of its success soonest, since all Sentinel-aware clients wait for that. `None`: none would, and none
/// is under way.
async fn order(state: &State, config: &NodeConfig, informed: &BTreeSet<Address>) -> Option<()> {
    let asked = join_all(config.sentinels.values().map(|address| ask(state, config, address))).await;
    let asked: Vec<SentinelAnswer> = asked.into_iter().flatten().collect();
    let own = config.own_address();
    // Between two orders the Sentinels need up to two seconds to hear of the first one's epoch: a second order elsewhere
    // would get the same.
    if asked.iter().any(|asked| Some(&asked.named) == own && fails_over_from(&asked.master, own)) {
        return Some(());
    }
    for index in fit(&asked, own, informed) {
        let SentinelAnswer { address, connection, delay, .. } = &asked[index];
        match sentinel::failover(connection, &config.master_name).await {
            Ok(()) => {
                tracing::info!(sentinel = %address, ?delay, "asked for a failover");
                return Some(());
            }
            Err(error) => {
                let reason = error.server_text().unwrap_or_else(|| error.to_string());
                tracing::info!(sentinel = %address, reason, "would not fail over");
            }
        }
    }
    None
}

async fn ask(state: &State, config: &NodeConfig, address: &Address) -> Option<SentinelAnswer> {
    let connection = open(&state.sentinel_endpoint(address)).await.ok()?;
    let (named, _) = sentinel::primary_address(&connection, &config.master_name).await.ok()??;
    let master = sentinel::master(&connection, &config.master_name).await.ok()??;
    let views = sentinel::replica_views(&connection, &config.master_name).await.ok()?;
    Some(SentinelAnswer {
        address: address.clone(),
        connection,
        named,
        master,
        delay: info_window::expected_delay(&views),
    })
}

/// Which Sentinels may be told to fail over from this node, the quickest first: those that name it by the newest
/// knowledge that any has. One that has yet to hear of the last failover would give its own the very epoch of that one, and
/// of two promotions with one epoch each is believed by those that heard of it first, without end.
fn fit(asked: &[SentinelAnswer], own: Option<&Address>, informed: &BTreeSet<Address>) -> Vec<usize> {
    let newest = asked.iter().map(|asked| asked.master.config_epoch).max().unwrap_or_default();
    let mut fit: Vec<usize> = (0..asked.len()).filter(|index| may_elect(&asked[*index].master, newest, own)).collect();
    fit.sort_by_key(|index| {
        let SentinelAnswer { address, delay, .. } = &asked[*index];
        (!informed.contains(address), *delay, address)
    });
    fit
}

fn may_elect(master: &SentinelMaster, newest_epoch: u64, own: Option<&Address>) -> bool {
    master.config_epoch == newest_epoch && Some(&master.address) == own && !master.is_failing_over()
}

/// Whether a failover is under way that began with this node as primary.
fn fails_over_from(master: &SentinelMaster, own: Option<&Address>) -> bool {
    Some(&master.address) == own && master.is_failing_over()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn believes(address: &str, config_epoch: u64, flags: &[&str]) -> SentinelMaster {
        SentinelMaster {
            address: Address(address.to_owned()),
            config_epoch,
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            quorum: 2,
            detection: Duration::from_secs(5),
            failover_timeout: Duration::from_secs(15),
            parallel_syncs: 3,
            other_sentinels: std::collections::BTreeMap::new(),
            steady_milliseconds: None,
            replicas: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn a_sentinel_that_has_not_heard_of_the_last_failover_is_not_told_to_make_the_next() {
        let own = Address("10.0.0.1".to_owned());
        let may = |master: &SentinelMaster| may_elect(master, 7, Some(&own));
        assert!(may(&believes("10.0.0.1", 7, &["master"])));
        assert!(!may(&believes("10.0.0.1", 6, &["master"])), "it would give its failover epoch 7 again");
        assert!(!may(&believes("10.0.0.2", 7, &["master"])), "it would fail over another primary");
        assert!(!may(&believes("10.0.0.1", 7, &["master", "failover_in_progress"])));
    }
}
