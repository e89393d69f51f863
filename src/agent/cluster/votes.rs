//! Whether the owners of most shards consent to a successor of this node: the condition of an election, without the times that engines wait
//! before one.
//!
//! An engine that has voted lately refuses to vote again for twice the time of detection, and the candidate then begins no election for four
//! times that: 21 s without the shard (Redis 7.0 to 8.6). So nothing is elected here: each owner is asked whom it takes for the owner of this
//! shard, and one that was replaced without this node's knowledge is found out.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::timeout;

use super::electors;
use crate::agent::peers::{self, View};
use crate::agent::state::State;
use crate::model::cluster::{ClusterView, Shard};
use crate::model::lineage::{Activity, LineageAnswer};
use crate::model::node_config::{ClusterConfig, NodeConfig};
use crate::model::{Address, NodeId};
use crate::redis::{Connection, cluster_nodes};

/// Time for a server's answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);

/// Why there is no consent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoConsent {
    /// An owner takes another for the owner of this shard.
    Replaced {
        /// The other.
        by: Address,
    },
    /// Too few shards have an owner that says anything.
    TooFew {
        /// How many shards consent.
        consent: usize,
        /// How many there are.
        of: usize,
    },
}

impl std::fmt::Display for NoConsent {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Replaced { by } => write!(formatter, "another is the owner: {by}"),
            Self::TooFew { consent, of } => write!(formatter, "the owners of {consent} of {of} shards consent"),
        }
    }
}

/// Asks for consent that `owner` is the one to be succeeded. This agent has a vote for its own shard: its engine is
/// that owner, and is off or about to end, or the boot rule named this node.
pub(super) async fn collect(
    state: &State,
    config: &NodeConfig,
    cluster: &ClusterConfig,
    owner: &Address,
) -> Result<(), NoConsent> {
    let own = Shard::of(config.node);
    let mut shards: Vec<Shard> = cluster.nodes.keys().filter_map(|ordinal| Shard::of(NodeId::data(*ordinal))).collect();
    shards.dedup();
    let others = shards.iter().filter(|shard| Some(**shard) != own);
    let votes = join_all(others.map(|shard| vote(state, config, cluster, *shard, owner))).await;
    let mut consent = 1;
    for vote in votes {
        consent += usize::from(vote?);
    }
    let is_enough = consent > shards.len() / 2;
    is_enough.then_some(()).ok_or(NoConsent::TooFew { consent, of: shards.len() })
}

/// Whether a shard consents. `false`: none of its agents knows its owner, or that says nothing.
async fn vote(
    state: &State,
    config: &NodeConfig,
    cluster: &ClusterConfig,
    shard: Shard,
    owner: &Address,
) -> Result<bool, NoConsent> {
    let nodes = cluster.nodes.iter().filter(|(ordinal, _)| Shard::of(NodeId::data(**ordinal)) == Some(shard));
    let asked =
        nodes.map(async |(ordinal, address)| Some((address, peers::ask_agent(config, *ordinal, address).await?)));
    let answers: Vec<(&Address, LineageAnswer)> = join_all(asked).await.into_iter().flatten().collect();
    let claim = |answer: &LineageAnswer| {
        let owner = answer.view.as_ref()?.owners.get(&shard.0)?;
        (owner.ordinal == answer.ordinal).then_some(owner.epoch)
    };
    let Some((address, answer)) = answers.iter().filter(|(_, it)| claim(it).is_some()).max_by_key(|(_, it)| claim(it))
    else {
        return Ok(false);
    };
    if matches!(answer.activity, Activity::Deciding) {
        // Its engine is off, so it elects none meanwhile.
        return Ok(true);
    }
    let Some(view) = view_of(state, address).await else { return Ok(false) };
    match electors::named(&view.answer(&cluster.declared()), Shard::of(config.node), cluster) {
        // Under a later claim than is recorded here as well: the owner may have ended before its agent looked.
        View::Names(named, _) if named == *owner => Ok(true),
        View::Names(named, _) => Err(NoConsent::Replaced { by: named }),
        View::NamesNone | View::Silent => Ok(false),
    }
}

/// What the engine at an address believes at this moment.
async fn view_of(state: &State, address: &Address) -> Option<ClusterView> {
    let asking = async {
        let endpoint = state.data_endpoint(address);
        cluster_nodes::view(&Connection::open_with(&endpoint, ANSWER_WITHIN, ANSWER_WITHIN).await?).await
    };
    timeout(ANSWER_WITHIN, asking).await.ok()?.ok()
}
