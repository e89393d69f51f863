//! Who is primary, by the Sentinels' majority and by its own word, and who is in sync: what the planner acts on is what the
//! report tells of.

use std::collections::BTreeMap;

use super::cluster::{ClusterView, Shard};
use super::desired::Desired;
use super::observed::{DataServer, Observed, ObservedServer, Replication, SentinelMaster, SentinelServer};
use super::topology::Topology;
use super::{Address, NodeId, NodeKind};

/// The primary of each shard that has one beyond doubt. A layer that is no Cluster is one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Primaries(BTreeMap<Shard, NodeId>);

impl Primaries {
    /// The primary of a data node's shard, or the one that a Sentinel watches.
    pub fn of(&self, node: NodeId) -> Option<NodeId> {
        self.0.get(&Shard::of(node).unwrap_or(Shard(0))).copied()
    }

    /// Whether the node is the primary of its shard.
    pub fn is(&self, node: NodeId) -> bool {
        self.of(node) == Some(node)
    }

    /// The primary of a layer that is no Cluster, or of the first shard.
    pub fn first(&self) -> Option<NodeId> {
        self.0.get(&Shard(0)).copied()
    }

    /// All of them in the order of their shards.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.0.values().copied()
    }
}

impl FromIterator<NodeId> for Primaries {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> Self {
        Self(nodes.into_iter().filter_map(|node| Some((Shard::of(node)?, node))).collect())
    }
}

/// The declared shards, in order.
pub(crate) fn shards(desired: &Desired) -> Vec<Shard> {
    let mut shards: Vec<Shard> = of_kind(desired, NodeKind::Data).filter_map(Shard::of).collect();
    shards.dedup();
    shards
}

/// The primaries: of a Cluster the nodes that own slots and say that they are primaries. A shard that never had an owner begins with its
/// first node.
pub(crate) fn primaries(desired: &Desired, observed: &Observed) -> Primaries {
    if !desired.in_cluster {
        return primary(desired, observed).into_iter().collect();
    }
    let topology = topology(desired, observed);
    let begins = |shard: &Shard| {
        let first = of_kind(desired, NodeKind::Data).find(|node| Shard::of(*node) == Some(*shard));
        first.filter(|_| !observed.initialised)
    };
    let owners = topology.shards.iter().filter_map(|(shard, it)| it.owner.or_else(|| begins(shard)));
    owners.filter(|node| says_it_is_primary(observed, *node)).collect()
}

fn says_it_is_primary(observed: &Observed, node: NodeId) -> bool {
    data(observed, node).is_some_and(|server| matches!(server.replication, Replication::Primary { .. }))
}

/// Who owns which slots of a Cluster, by what its servers said in this pass. Nodes that are still to be removed belong to it.
pub(crate) fn topology(desired: &Desired, observed: &Observed) -> Topology {
    let known = observed
        .nodes
        .iter()
        .filter(|(node, seen)| desired.nodes.contains_key(node) || (seen.workload.is_some() || seen.pod.is_some()));
    let declared: BTreeMap<NodeId, Address> = known
        .filter(|(node, _)| node.kind == NodeKind::Data)
        .filter_map(|(node, seen)| Some((*node, seen.address.clone()?)))
        .collect();
    let views: BTreeMap<NodeId, ClusterView> =
        declared.keys().filter_map(|node| Some((*node, data(observed, *node)?.cluster.clone()?))).collect();
    Topology::of(&declared, &views)
}

/// The live data server of a node.
pub(crate) fn data(observed: &Observed, node: NodeId) -> Option<&DataServer> {
    match &observed.nodes.get(&node)?.server {
        ObservedServer::Data(server) => Some(server),
        _ => None,
    }
}

pub(crate) fn sentinel(observed: &Observed, node: NodeId) -> Option<&SentinelServer> {
    match &observed.nodes.get(&node)?.server {
        ObservedServer::Sentinel(server) => Some(server),
        _ => None,
    }
}

/// Declared nodes of a kind, in order.
pub(crate) fn of_kind(desired: &Desired, kind: NodeKind) -> impl Iterator<Item = NodeId> {
    desired.nodes.keys().copied().filter(move |node| node.kind == kind)
}

/// The address that a node announces.
pub(crate) fn address(observed: &Observed, node: NodeId) -> Option<&Address> {
    observed.nodes.get(&node)?.address.as_ref()
}

/// What the declared Sentinels that answer believe of the primary.
pub(crate) fn masters<'a>(desired: &Desired, observed: &'a Observed) -> impl Iterator<Item = &'a SentinelMaster> {
    of_kind(desired, NodeKind::Sentinel).filter_map(|node| sentinel(observed, node)?.master.as_ref())
}

/// The highest `config-epoch` that the Sentinels know: the precondition of what depends on who is primary.
pub(crate) fn config_epoch(desired: &Desired, observed: &Observed) -> Option<u64> {
    masters(desired, observed).map(|master| master.config_epoch).max()
}

/// Whether any Sentinel is electing.
pub(crate) fn is_failing_over(desired: &Desired, observed: &Observed) -> bool {
    masters(desired, observed).any(SentinelMaster::is_failing_over)
}

/// The node that says it is primary and that a majority of the declared Sentinels names. Without Sentinels: the only node.
fn primary(desired: &Desired, observed: &Observed) -> Option<NodeId> {
    let says_so = |node: &NodeId| says_it_is_primary(observed, *node);
    let sentinels = of_kind(desired, NodeKind::Sentinel).count();
    // One that is no longer declared may still be it: it has to be moved before it is removed.
    observed.nodes.keys().copied().filter(|node| node.kind == NodeKind::Data).filter(says_so).find(|node| {
        if !desired.has_sentinels() {
            return desired.nodes.contains_key(node);
        }
        let address = address(observed, *node);
        masters(desired, observed).filter(|master| Some(&master.address) == address).count() > sentinels / 2
    })
}

/// How much of what the primary sent a replica may not have acknowledged yet, in bytes, and still count as in sync. It acknowledges
/// once a second, so some is always under way. It is what Redis itself calls too much: the soft limit of its
/// `client-output-buffer-limit` for replicas.
const LAGGING_BYTES: u64 = 64 << 20;

/// Whether a replica that is linked is far behind: were it elected, that much would be lost.
pub(crate) fn is_lagging(observed: &Observed, node: NodeId, primary: NodeId) -> bool {
    let Some(leader) = data(observed, primary) else { return false };
    let Replication::Primary { replicas } = &leader.replication else { return false };
    let acknowledged = address(observed, node).and_then(|address| replicas.get(address));
    acknowledged.is_some_and(|offset| offset.0 > 0 && leader.offset.0.saturating_sub(offset.0) > LAGGING_BYTES)
}

/// Whether a replica has all that the primary acknowledged a moment ago, by both their words. Not before it has acknowledged
/// anything itself: until then, up to a second after a full sync, a primary lists it as online and counts it for
/// `min-replicas-to-write`, and keeps back what it is to be sent (`repl_start_cmd_stream_on_ack` in its source).
pub(crate) fn is_in_sync(observed: &Observed, node: NodeId, primary: NodeId) -> bool {
    let (Some(own), Some(leader)) = (data(observed, node), data(observed, primary)) else { return false };
    let Replication::Replica { primary: follows, link_up, syncing, priority, link_down_seconds: _ } = &own.replication
    else {
        return false;
    };
    let Replication::Primary { replicas } = &leader.replication else { return false };
    let acknowledged = address(observed, node).and_then(|address| replicas.get(address));
    let is_sent_writes = acknowledged.is_some_and(|offset| offset.0 > 0);
    Some(follows) == address(observed, primary)
        && *link_up
        && !syncing
        && *priority > 0
        && is_sent_writes
        && !is_lagging(observed, node, primary)
}
