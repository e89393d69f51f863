//! How a server becomes, and stays, a member of its layer's Cluster. Agents do that without the operator, each for its own server.
//!
//! A server meets every declared node that it does not know, or that does not know it, and not just one: a server that all have forgotten is
//! not taken back by the word of one. The UID of the layer keeps two layers apart, because the bus has no password.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::cluster::{
    ClusterNodeId, ClusterView, ConfigEpoch, Member, MemberFlag, Shard, ShardOwner, ViewAnswer,
};
use crate::model::{Address, NodeId};

/// What the decision depends on.
#[derive(Clone, Debug)]
pub struct JoinFacts<'a> {
    /// The node.
    pub own: NodeId,
    /// Every data node of the layer with its announced address, this one included.
    pub declared: &'a BTreeMap<NodeId, Address>,
    /// What its server believes.
    pub view: &'a ClusterView,
    /// Whether its server holds keys.
    pub has_keys: bool,
    /// What the servers of other declared nodes believe, that serve and whose agents are of this layer.
    pub peers: &'a BTreeMap<NodeId, ViewAnswer>,
    /// Whether the layer was Ready once.
    pub initialised: bool,
}

/// One command to the own server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum JoinStep {
    /// Give it an epoch that no other server of the layer has: two that begin with one epoch would have to settle that first.
    SetEpoch(ConfigEpoch),
    /// Meet the node at this address.
    Meet(Address),
    /// Copy this server.
    Replicate(ClusterNodeId),
}

impl std::fmt::Display for JoinStep {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SetEpoch(epoch) => write!(formatter, "begin with the epoch {}", epoch.0),
            Self::Meet(address) => write!(formatter, "meet {address}"),
            Self::Replicate(primary) => write!(formatter, "copy {primary}"),
        }
    }
}

/// What the agent tells its server now, in order; empty: nothing.
pub fn steps(facts: &JoinFacts<'_>) -> Vec<JoinStep> {
    let mut steps = Vec::new();
    let is_fresh = facts.view.members.len() == 1 && facts.view.current_epoch == ConfigEpoch(0);
    if is_fresh && !facts.initialised {
        steps.push(JoinStep::SetEpoch(ConfigEpoch(u64::from(facts.own.ordinal) + 1)));
    }
    steps.extend(
        facts
            .peers
            .iter()
            .filter(|(node, peer)| is_apart(facts, **node, peer))
            .filter_map(|(node, _)| Some(JoinStep::Meet(facts.declared.get(node)?.clone()))),
    );
    steps.extend(primary(facts).map(JoinStep::Replicate));
    steps
}

/// Whether one of two servers does not know the other where it is.
fn is_apart(facts: &JoinFacts<'_>, node: NodeId, peer: &ViewAnswer) -> bool {
    let known = facts.view.members.get(&peer.id).and_then(|member| member.address.as_ref());
    known != facts.declared.get(&node) || peer.members.get(&facts.own.ordinal) != Some(&facts.view.own)
}

/// The server that this one has to copy and does not. `None`: it copies it, it is to own slots itself, or that is not certain.
fn primary(facts: &JoinFacts<'_>) -> Option<ClusterNodeId> {
    let own = facts.view.members.get(&facts.view.own)?;
    let shard = Shard::of(facts.own)?;
    if !own.slots.is_empty() || facts.has_keys {
        return None;
    }
    let wanted = match owner(facts, shard) {
        Some(owner) => Some(owner),
        None if is_unassigned(facts, shard) => first(facts, shard),
        None => None,
    }?;
    let id = if wanted == facts.own { &facts.view.own } else { &facts.peers.get(&wanted)?.id };
    // A server that it does not know yet cannot be copied.
    let is_met = |member: &Member| member.flags.iter().all(|flag| *flag == MemberFlag::NoFailover);
    let is_known = facts.view.members.get(id).is_some_and(|member| member.address.is_some() && is_met(member));
    (wanted != facts.own && is_known && own.primary.as_ref() != Some(id)).then(|| id.clone())
}

/// The node that owns the shard's slots, for owners of more than half of the shards.
fn owner(facts: &JoinFacts<'_>, shard: Shard) -> Option<NodeId> {
    let shards: BTreeSet<Shard> = facts.declared.keys().filter_map(|node| Shard::of(*node)).collect();
    let own = facts.view.answer(facts.declared);
    let views = facts.peers.iter().map(|(node, view)| (*node, view)).chain([(facts.own, &own)]);
    let mut votes: BTreeMap<u16, usize> = BTreeMap::new();
    for (voter, view) in views {
        let owns = |owner: &ShardOwner| owner.ordinal == voter.ordinal;
        let is_elector = Shard::of(voter).and_then(|shard| view.owners.get(&shard.0)).is_some_and(owns);
        if let Some(named) = view.owners.get(&shard.0).filter(|_| is_elector) {
            *votes.entry(named.ordinal).or_default() += 1;
        }
    }
    votes.into_iter().find(|(_, count)| *count > shards.len() / 2).map(|(ordinal, _)| NodeId::data(ordinal))
}

/// Whether no server ever owned slots of the shard, as far as all declared nodes tell.
fn is_unassigned(facts: &JoinFacts<'_>, shard: Shard) -> bool {
    let all_answer = facts.declared.keys().all(|node| *node == facts.own || facts.peers.contains_key(node));
    let names_none = |view: &ViewAnswer| !view.owners.contains_key(&shard.0);
    all_answer
        && !facts.initialised
        && names_none(&facts.view.answer(facts.declared))
        && facts.peers.values().all(names_none)
}

/// The node with which a new shard begins.
fn first(facts: &JoinFacts<'_>, shard: Shard) -> Option<NodeId> {
    facts.declared.keys().copied().find(|node| Shard::of(*node) == Some(shard))
}
