//! Whom the owners of the shards name as primary of this node's, each with one vote: what the boot rule is told in place of Sentinels.

use futures::future::join_all;

use crate::agent::peers::{self, View};
use crate::agent::state::State;
use crate::model::cluster::{Shard, ShardOwner, ViewAnswer};
use crate::model::lineage::{Activity, LineageAnswer};
use crate::model::node_config::{ClusterConfig, NodeConfig};
use crate::model::{Address, NodeId};

/// Asks those that decide which node is primary: the Sentinels, or the owners of the other shards.
pub(crate) async fn ask(state: &State, config: &NodeConfig) -> Vec<View> {
    match &config.cluster {
        Some(cluster) => ask_owners(config, cluster).await,
        None => peers::ask_sentinels(state, config).await,
    }
}

/// Asks a second time where most owners did not answer: to go by what is left may cost a restart of the primary in place of a failover.
async fn ask_owners(config: &NodeConfig, cluster: &ClusterConfig) -> Vec<View> {
    let first = votes(config, cluster, &answers(config, cluster).await);
    if !config.initialised || peers::majority(&first).is_some() {
        return first;
    }
    votes(config, cluster, &answers(config, cluster).await)
}

/// What the agents of all other shards answer.
async fn answers(config: &NodeConfig, cluster: &ClusterConfig) -> Vec<LineageAnswer> {
    let own = Shard::of(config.node);
    let others = cluster.nodes.iter().filter(|(ordinal, _)| Shard::of(NodeId::data(**ordinal)) != own);
    let asked = others.map(|(ordinal, address)| peers::ask_agent(config, *ordinal, address));
    join_all(asked).await.into_iter().flatten().collect()
}

/// One vote for each shard of the layer. The own shard has none to give: its primary is in question. An owner whose engine is off, as after
/// all pods were deleted, votes by what it knew last, unless another one knows of a later decision.
fn votes(config: &NodeConfig, cluster: &ClusterConfig, answers: &[LineageAnswer]) -> Vec<View> {
    let own = Shard::of(config.node);
    let ordinals = cluster.nodes.keys().map(|ordinal| NodeId::data(*ordinal));
    let mut shards: Vec<Shard> = ordinals.filter_map(Shard::of).collect();
    shards.dedup();
    let votes: Vec<(View, bool)> = shards.into_iter().map(|shard| vote(own, shard, cluster, answers)).collect();
    let latest = votes.iter().filter_map(|(vote, _)| epoch(vote)).max();
    let counted = |(vote, serves): (View, bool)| {
        let is_outdated = !serves && epoch(&vote) < latest;
        if is_outdated && vote != View::Silent { View::NamesNone } else { vote }
    };
    votes.into_iter().map(counted).collect()
}

fn epoch(vote: &View) -> Option<u64> {
    match vote {
        View::Names(_, epoch) => Some(*epoch),
        View::NamesNone | View::Silent => None,
    }
}

/// The vote of a shard, and whether its owner serves.
fn vote(own: Option<Shard>, shard: Shard, cluster: &ClusterConfig, answers: &[LineageAnswer]) -> (View, bool) {
    if Some(shard) == own {
        return (View::Silent, false);
    }
    let of_shard: Vec<&LineageAnswer> =
        answers.iter().filter(|answer| Shard::of(NodeId::data(answer.ordinal)) == Some(shard)).collect();
    let owners = of_shard.iter().filter_map(|answer| Some((answer, owned(answer)?)));
    let owner = owners.max_by_key(|(_, (_, owner))| owner.epoch);
    match owner {
        Some((answer, (view, _))) => (named(view, own, cluster), answer.activity == Activity::Serving),
        None if of_shard.is_empty() => (View::Silent, false),
        None => (View::NamesNone, false),
    }
}

/// The claim of a node that owns the slots of its shard by its own word.
fn owned(answer: &LineageAnswer) -> Option<(&ViewAnswer, ShardOwner)> {
    let view = answer.view.as_ref()?;
    let owner = *view.owners.get(&Shard::of(NodeId::data(answer.ordinal))?.0)?;
    (owner.ordinal == answer.ordinal).then_some((view, owner))
}

/// Whom a view names as the owner of a shard.
pub(super) fn named(view: &ViewAnswer, shard: Option<Shard>, cluster: &ClusterConfig) -> View {
    let owner = shard.and_then(|shard| view.owners.get(&shard.0));
    let address = owner.and_then(|owner| cluster.nodes.get(&owner.ordinal));
    match (owner, address) {
        (Some(owner), Some(address)) => View::Names(Address(address.0.clone()), owner.epoch.0),
        _ => View::NamesNone,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::agent::late_election::tests::config;
    use crate::model::cluster::{ClusterNodeId, ConfigEpoch};
    use crate::model::lineage::Ancestry;

    fn cluster() -> ClusterConfig {
        let nodes = [0, 1, 10, 11, 20, 21];
        ClusterConfig { nodes: nodes.map(|ordinal| (ordinal, Address(format!("10.0.0.{ordinal}")))).into() }
    }

    /// The answer of the first node of a shard, which owns it, and takes a node of the first shard for the owner of that.
    fn answer(shard: u16, activity: Activity, named: u16, epoch: u64) -> LineageAnswer {
        let owner = |ordinal, epoch| ShardOwner { ordinal, epoch: ConfigEpoch(epoch) };
        let view = ViewAnswer {
            id: ClusterNodeId::parse(&"a".repeat(40)).unwrap(),
            members: BTreeMap::new(),
            owners: [(0, owner(named, epoch)), (shard, owner(10 * shard, 3))].into(),
        };
        LineageAnswer {
            layer_uid: "layer".to_owned(),
            ordinal: 10 * shard,
            activity,
            initialised: true,
            accepting: false,
            needs_person: None,
            lineage: None,
            loaded: false,
            ancestry: Ancestry::default(),
            aside: Vec::new(),
            unusable: None,
            audit: None,
            view: Some(view),
            notices: Vec::new(),
        }
    }

    fn told(answers: &[LineageAnswer]) -> Vec<View> {
        let config = NodeConfig { node: NodeId::data(0), cluster: Some(cluster()), ..config(true) };
        votes(&config, &cluster(), answers)
    }

    fn names(ordinal: u16, epoch: u64) -> View {
        View::Names(Address(format!("10.0.0.{ordinal}")), epoch)
    }

    #[test]
    fn owners_vote_and_one_whose_engine_is_off_does_so_by_what_it_knew_last() {
        use Activity::{Deciding, Serving};
        let both = told(&[answer(1, Serving, 0, 5), answer(2, Serving, 0, 5)]);
        assert_eq!(both, [View::Silent, names(0, 5), names(0, 5)]);
        let one_is_off = told(&[answer(1, Serving, 0, 5), answer(2, Deciding, 0, 5)]);
        assert_eq!(one_is_off, both, "else two shards would wait for each other");
        assert_eq!(told(&[answer(1, Deciding, 0, 5), answer(2, Deciding, 0, 5)]), both);
        let outdated = told(&[answer(1, Serving, 1, 6), answer(2, Deciding, 0, 5)]);
        assert_eq!(outdated, [View::Silent, names(1, 6), View::NamesNone]);
        assert_eq!(told(&[answer(1, Serving, 0, 5)]), [View::Silent, names(0, 5), View::Silent]);
    }
}
