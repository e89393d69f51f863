//! The successor of an engine that is dead: told by the agent whose engine it was, so no old primary takes writes meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::timeout;

use super::votes;
use crate::agent::peers;
use crate::agent::state::State;
use crate::model::cluster::Shard;
use crate::model::lineage::{Activity, Lineage};
use crate::model::node_config::{ClusterConfig, NodeConfig};
use crate::model::{Address, Offset};
use crate::redis::first_primary::first_primary;
use crate::redis::{Connection, Endpoint, cluster, cluster_nodes, server};

/// Time for a server's answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// A server that is told to take over is primary some milliseconds later.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

async fn open(endpoint: &Endpoint) -> crate::redis::Result<Connection> {
    Connection::open_with(endpoint, ANSWER_WITHIN, ANSWER_WITHIN).await
}

/// Has one of the replicas take over: the one with most of the dead primary's stream. `replicas`: those that followed our dead engine and
/// have all of a first sync, with the records that their agents told. `None`: none does, and the boot rule is asked again.
pub(crate) async fn take_over(
    state: &State,
    config: &NodeConfig,
    cluster: &ClusterConfig,
    replicas: &BTreeMap<Address, Lineage>,
) -> Option<Address> {
    let own = config.own_address()?;
    let best = best(state, replicas).await?;
    if let Err(why) = votes::collect(state, config, cluster, own).await {
        tracing::warn!(%why, "no replica is told to take over");
        return None;
    }
    let endpoint = state.data_endpoint(&best);
    if let Err(error) = order(&endpoint).await {
        tracing::warn!(replica = %best, %error, "it may not have heard that it is to take over");
    }
    timeout(SEEN_WITHIN, first_primary(vec![(endpoint, None)], open)).await.ok()?;
    tracing::info!(primary = %best, "took over");
    Some(best)
}

async fn order(endpoint: &Endpoint) -> crate::redis::Result<()> {
    cluster::take_over(&open(endpoint).await?).await
}

/// The replica that has most. One that has another history than its agent told is none: its agent has not looked since.
async fn best(state: &State, replicas: &BTreeMap<Address, Lineage>) -> Option<Address> {
    let asked = join_all(replicas.iter().map(async |(address, record)| {
        let info = server::replication(&open(&state.data_endpoint(address)).await.ok()?).await.ok()?;
        let is_same = info.replication_id() == record.replication_id
            || info.previous_replication_id().as_ref() == Some(&record.replication_id);
        // Of two with as much, the one with the lower address: every agent that asks finds the same.
        is_same.then(|| (info.offset(), std::cmp::Reverse(address.clone())))
    }));
    let found: Option<(Offset, std::cmp::Reverse<Address>)> = asked.await.into_iter().flatten().max();
    found.map(|(_, std::cmp::Reverse(address))| address)
}

/// Has the own server, which follows no primary and has the best of what is left, take over from the one that owns its shard's slots. Only
/// where that one's agent says that its engine is off: one that is silent may serve on another side of a partition, and is the engines' to
/// replace.
pub(crate) async fn take_over_here(
    state: &State,
    config: &NodeConfig,
    cluster: &ClusterConfig,
    connection: &Connection,
) {
    let view = match cluster_nodes::view(connection).await {
        Ok(view) => view.answer(&cluster.declared()),
        Err(error) => return tracing::warn!(%error, "it is not known from whom to take over"),
    };
    let owner = Shard::of(config.node).and_then(|shard| view.owners.get(&shard.0));
    let Some((owner, address)) = owner.and_then(|owner| Some((owner, cluster.nodes.get(&owner.ordinal)?))) else {
        return;
    };
    let answer = peers::ask_agent(config, owner.ordinal, address).await;
    if answer.is_none_or(|answer| answer.activity != Activity::Deciding) {
        return;
    }
    if let Err(why) = votes::collect(state, config, cluster, address).await {
        return tracing::warn!(%why, "this replica does not take over");
    }
    tracing::warn!(from = %address, "no node has newer data, and no other is or may become primary: this replica takes over");
    if let Err(error) = cluster::take_over(connection).await {
        tracing::warn!(%error, "this node stays a replica");
    }
}
