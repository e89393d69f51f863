//! Who owns which slots of a Cluster, from what all its servers say, and whether they agree.
//!
//! A claim on slots with a higher epoch counts more (Redis Cluster specification, "Hash slots configuration propagation"). A server that
//! was not asked, or gave no answer, is no server without slots: what the others say of it counts.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster::{ClusterNodeId, ClusterView, ConfigEpoch, Member, MemberFlag, Shard};
use super::slots::{Slot, SlotSet};
use super::{Address, NodeId};

/// Who owns what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Each declared node whose name in the Cluster is known.
    pub ids: BTreeMap<NodeId, ClusterNodeId>,
    /// Each declared shard.
    pub shards: BTreeMap<Shard, ShardTopology>,
    /// Slots that no server owns.
    pub unowned: SlotSet,
    /// Servers that are no declared node's, with the slots that they own. One at the address of a node that does not answer may be that
    /// node's, and is none of them.
    pub strangers: BTreeMap<ClusterNodeId, SlotSet>,
    /// Why the servers do not agree, or not serve; empty: the Cluster is settled.
    pub unsettled: BTreeSet<Unsettled>,
}

/// Who owns the slots of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardTopology {
    /// The node that owns them; of two, the one with the higher epoch. `None`: no node of it owns any.
    pub owner: Option<NodeId>,
    /// The epoch of its claim.
    pub epoch: ConfigEpoch,
    /// What it owns.
    pub slots: SlotSet,
}

/// One thing that keeps a Cluster from being settled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unsettled {
    /// A declared node gave no view.
    Silent {
        /// The node.
        node: NodeId,
    },
    /// A node does not know another, or has it at another address.
    Unmet {
        /// The node that does not know.
        viewer: NodeId,
        /// The other.
        node: NodeId,
    },
    /// A node takes another for lost, or has not met it to the end.
    Doubted {
        /// The node that says so.
        viewer: NodeId,
        /// The other.
        node: NodeId,
    },
    /// A node remembers a server that is no declared node's.
    Stranger {
        /// The node that remembers it.
        viewer: NodeId,
        /// Its name in the Cluster.
        id: ClusterNodeId,
    },
    /// A node has another role, or other slots, than another node says.
    Disputed {
        /// The node that says so.
        viewer: NodeId,
        /// The node of which it says so.
        node: NodeId,
    },
    /// A node copies a server that does not own the slots of its shard.
    Astray {
        /// The node.
        node: NodeId,
    },
    /// Several nodes of a shard own slots.
    Divided {
        /// The shard.
        shard: Shard,
    },
    /// Two owners have one epoch.
    SharedEpoch {
        /// The first.
        node: NodeId,
        /// The second.
        other: NodeId,
    },
    /// A slot is on its way, key by key.
    Open {
        /// The node that says so.
        node: NodeId,
        /// The slot.
        slot: Slot,
    },
    /// No server owns some slots.
    Unowned,
    /// A node says that it does not serve (`cluster_state`).
    NotServing {
        /// The node.
        node: NodeId,
    },
}

impl Topology {
    /// Puts the views together. `declared`: every data node of the layer with its announced address. `views`: what each of them said in
    /// this pass; one that is left out gave no answer.
    pub fn of(declared: &BTreeMap<NodeId, Address>, views: &BTreeMap<NodeId, ClusterView>) -> Self {
        let views: BTreeMap<NodeId, &ClusterView> =
            views.iter().filter(|(node, _)| declared.contains_key(node)).map(|(node, view)| (*node, view)).collect();
        let ids = ids(declared, &views);
        let owned = owned(&views);
        let mut shards: BTreeMap<Shard, ShardTopology> =
            declared.keys().filter_map(|node| Some((Shard::of(*node)?, ShardTopology::default()))).collect();
        let mut unsettled = BTreeSet::new();
        for (node, id) in &ids {
            let (Some(shard), Some((epoch, slots))) = (Shard::of(*node), owned.get(id)) else { continue };
            let Some(topology) = shards.get_mut(&shard).filter(|_| !slots.is_empty()) else { continue };
            if topology.owner.is_some() {
                unsettled.insert(Unsettled::Divided { shard });
            }
            if topology.owner.is_none() || *epoch > topology.epoch {
                *topology = ShardTopology { owner: Some(*node), epoch: *epoch, slots: slots.clone() };
            }
        }
        let strangers = strangers(declared, &views, &ids)
            .into_iter()
            .map(|id| (id.clone(), owned.get(id).map(|(_, slots)| slots.clone()).unwrap_or_default()))
            .collect();
        let all = owned.values().fold(SlotSet::default(), |all, (_, slots)| all.union(slots));
        let unowned = SlotSet::all().difference(&all);
        let mut topology = Self { ids, shards, unowned, strangers, unsettled };
        let found = disagreements(declared, &views, &topology, &owned);
        topology.unsettled.extend(found);
        topology
    }

    /// Whether all servers answer, agree and serve.
    pub fn is_settled(&self) -> bool {
        self.unsettled.is_empty()
    }
}

/// What each server owns by the newest claims, with the epoch of its own.
type Owned<'a> = BTreeMap<&'a ClusterNodeId, (ConfigEpoch, SlotSet)>;

/// The name of each declared node: its own word, or else what the others have at its address, where that is one server.
fn ids(
    declared: &BTreeMap<NodeId, Address>,
    views: &BTreeMap<NodeId, &ClusterView>,
) -> BTreeMap<NodeId, ClusterNodeId> {
    let own: BTreeMap<NodeId, ClusterNodeId> = views.iter().map(|(node, view)| (*node, view.own.clone())).collect();
    let taken: BTreeSet<&ClusterNodeId> = own.values().collect();
    let by_address = |address: &Address| -> Option<ClusterNodeId> {
        let members = views.values().flat_map(|view| &view.members);
        let there: BTreeSet<&ClusterNodeId> = members
            .filter(|(id, member)| member.address.as_ref() == Some(address) && !taken.contains(id))
            .map(|(id, _)| id)
            .collect();
        if there.len() == 1 { there.first().map(|id| (*id).clone()) } else { None }
    };
    let silent = declared.iter().filter(|(node, _)| !own.contains_key(node));
    let found: BTreeMap<NodeId, ClusterNodeId> =
        silent.filter_map(|(node, address)| Some((*node, by_address(address)?))).collect();
    own.into_iter().chain(found).collect()
}

/// The servers that are no declared node's.
fn strangers<'a>(
    declared: &BTreeMap<NodeId, Address>,
    views: &BTreeMap<NodeId, &'a ClusterView>,
    ids: &BTreeMap<NodeId, ClusterNodeId>,
) -> BTreeSet<&'a ClusterNodeId> {
    let named: BTreeSet<&ClusterNodeId> = ids.values().collect();
    let silent: BTreeSet<&Address> =
        declared.iter().filter(|(node, _)| !views.contains_key(node)).map(|(_, address)| address).collect();
    let may_be_silent = |id: &ClusterNodeId| {
        let members = views.values().filter_map(|view| view.members.get(id));
        members.into_iter().any(|member| member.address.as_ref().is_some_and(|address| silent.contains(address)))
    };
    let all: BTreeSet<&ClusterNodeId> = views.values().flat_map(|view| view.members.keys()).collect();
    all.into_iter().filter(|id| !named.contains(id) && !may_be_silent(id)).collect()
}

/// The newest claim of each server: that of its highest epoch, of those its own word. A slot that two claim is the higher epoch's.
fn owned<'a>(views: &BTreeMap<NodeId, &'a ClusterView>) -> Owned<'a> {
    let mut claims: BTreeMap<&ClusterNodeId, (ConfigEpoch, bool, &Member)> = BTreeMap::new();
    for view in views.values() {
        for (id, member) in &view.members {
            let claim = (member.epoch, *id == view.own, member);
            let is_newer = claims.get(id).is_none_or(|known| (known.0, known.1) < (claim.0, claim.1));
            if is_newer {
                claims.insert(id, claim);
            }
        }
    }
    let mut by_epoch: Vec<(ConfigEpoch, &ClusterNodeId, &Member)> = claims
        .into_iter()
        .filter(|(_, (.., member))| member.primary.is_none())
        .map(|(id, (epoch, _, member))| (epoch, id, member))
        .collect();
    by_epoch.sort_unstable_by_key(|(epoch, id, _)| (std::cmp::Reverse(*epoch), *id));
    let mut given = SlotSet::default();
    let mut owned = Owned::new();
    for (epoch, id, member) in by_epoch {
        owned.insert(id, (epoch, member.slots.difference(&given)));
        given = given.union(&member.slots);
    }
    owned
}

/// Everything that keeps the Cluster from being settled but shards with several owners.
fn disagreements(
    declared: &BTreeMap<NodeId, Address>,
    views: &BTreeMap<NodeId, &ClusterView>,
    topology: &Topology,
    owned: &Owned<'_>,
) -> BTreeSet<Unsettled> {
    let mut found: BTreeSet<Unsettled> = declared
        .keys()
        .filter(|node| !views.contains_key(node))
        .map(|node| Unsettled::Silent { node: *node })
        .collect();
    if !topology.unowned.is_empty() {
        found.insert(Unsettled::Unowned);
    }
    found.extend(shared_epochs(topology));
    for (viewer, view) in views {
        let viewer = *viewer;
        let strangers = view.members.keys().filter(|id| topology.strangers.contains_key(id));
        found.extend(strangers.map(|id| Unsettled::Stranger { viewer, id: id.clone() }));
        let open = view.migrating.keys().chain(view.importing.keys());
        found.extend(open.map(|slot| Unsettled::Open { node: viewer, slot: *slot }));
        if !view.serves {
            found.insert(Unsettled::NotServing { node: viewer });
        }
        if is_astray(topology, viewer, view) {
            found.insert(Unsettled::Astray { node: viewer });
        }
        for (node, address) in declared {
            found.extend(doubt(topology, viewer, view, *node, address, views.get(node).copied(), owned));
        }
    }
    found
}

/// What a node says of another that the other, or the newest claims, do not.
fn doubt(
    topology: &Topology,
    viewer: NodeId,
    view: &ClusterView,
    node: NodeId,
    address: &Address,
    own: Option<&ClusterView>,
    owned: &Owned<'_>,
) -> Option<Unsettled> {
    let id = topology.ids.get(&node)?;
    let Some(member) = view.members.get(id).filter(|member| member.address.as_ref() == Some(address)) else {
        return Some(Unsettled::Unmet { viewer, node });
    };
    let is_doubted = member.flags.iter().any(|flag| *flag != MemberFlag::NoFailover);
    if is_doubted {
        return Some(Unsettled::Doubted { viewer, node });
    }
    let role = own.and_then(|own| own.members.get(id)).map(|member| &member.primary);
    let slots = owned.get(id).map(|(_, slots)| slots);
    let says_so = role.is_none_or(|role| *role == member.primary)
        && slots.map_or_else(|| member.slots.is_empty(), |slots| *slots == member.slots);
    (!says_so).then_some(Unsettled::Disputed { viewer, node })
}

/// Whether a node copies another than the owner of its shard's slots, or copies none and owns nothing, although its shard has an owner.
fn is_astray(topology: &Topology, node: NodeId, view: &ClusterView) -> bool {
    let Some(owner) = Shard::of(node).and_then(|shard| topology.shards.get(&shard)?.owner) else { return false };
    let follows = view.members.get(&view.own).and_then(|member| member.primary.as_ref());
    let wanted = (owner != node).then(|| topology.ids.get(&owner)).flatten();
    follows != wanted
}

fn shared_epochs(topology: &Topology) -> BTreeSet<Unsettled> {
    let mut by_epoch: BTreeMap<ConfigEpoch, NodeId> = BTreeMap::new();
    let owners = topology.shards.values().filter_map(|shard| Some((shard.epoch, shard.owner?)));
    owners
        .filter_map(|(epoch, owner)| {
            let node = *by_epoch.entry(epoch).or_insert(owner);
            (node != owner).then_some(Unsettled::SharedEpoch { node, other: owner })
        })
        .collect()
}

#[cfg(test)]
mod tests;
