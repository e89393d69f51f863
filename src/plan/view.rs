//! What the rules ask of an observation. Unknown is never taken for yes.

use std::collections::BTreeMap;

use super::{Waiting, has_sentinels};
use crate::model::desired::{Desired, DesiredNode};
use crate::model::observed::{
    DataServer, Observed, ObservedNode, ObservedPod, ObservedServer, Replication, SentinelServer,
};
use crate::model::{Address, NodeId, NodeKind};

/// One observation beside what is desired.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What is desired.
    pub desired: &'a Desired,
    /// What was seen.
    pub observed: &'a Observed,
    /// The primary beyond doubt: it says so, and most of the declared Sentinels name its address.
    pub primary: Option<NodeId>,
}

impl<'a> View<'a> {
    /// Looks for the primary.
    pub fn of(desired: &'a Desired, observed: &'a Observed) -> Self {
        let mut view = Self { desired, observed, primary: None };
        view.primary = view.find_primary();
        view
    }

    /// Declared nodes of one kind, in order.
    pub fn nodes(self, kind: NodeKind) -> impl Iterator<Item = NodeId> + 'a {
        self.desired.nodes.keys().copied().filter(move |node| node.kind == kind)
    }

    /// What was seen of a node.
    pub fn seen(self, node: NodeId) -> Option<&'a ObservedNode> {
        self.observed.nodes.get(&node)
    }

    /// The announced address of a node.
    pub fn address(self, node: NodeId) -> Option<&'a Address> {
        self.seen(node)?.address.as_ref()
    }

    /// The pod of a node.
    pub fn pod(self, node: NodeId) -> Option<&'a ObservedPod> {
        self.seen(node)?.pod.as_ref()
    }

    /// A data node's server that answered.
    pub fn data(self, node: NodeId) -> Option<&'a DataServer> {
        match &self.seen(node)?.server {
            ObservedServer::Data(server) => Some(server),
            _ => None,
        }
    }

    /// A Sentinel that answered.
    pub fn sentinel(self, node: NodeId) -> Option<&'a SentinelServer> {
        match &self.seen(node)?.server {
            ObservedServer::Sentinel(server) => Some(server),
            _ => None,
        }
    }

    fn says_primary(self, node: NodeId) -> bool {
        self.data(node).is_some_and(|server| matches!(server.replication, Replication::Primary { .. }))
    }

    fn find_primary(self) -> Option<NodeId> {
        if !has_sentinels(self.desired.mode) {
            return self.nodes(NodeKind::Data).find(|node| self.says_primary(*node));
        }
        let mut votes: BTreeMap<&Address, usize> = BTreeMap::new();
        for master in self.nodes(NodeKind::Sentinel).filter_map(|node| self.sentinel(node)?.master.as_ref()) {
            *votes.entry(&master.address).or_default() += 1;
        }
        let declared = self.nodes(NodeKind::Sentinel).count();
        let (named, _) = votes.into_iter().find(|(_, votes)| votes * 2 > declared)?;
        let node =
            self.observed.nodes.iter().find(|(_, seen)| seen.address.as_ref() == Some(named)).map(|(node, _)| *node);
        node.filter(|node| self.says_primary(*node))
    }

    /// Whether a replica follows the primary, has all of its data, and the primary counts on it.
    pub fn is_in_sync(self, node: NodeId) -> bool {
        let Some(primary) = self.primary else { return false };
        let (Some(own), Some(of_primary)) = (self.address(node), self.address(primary)) else { return false };
        let follows = self.data(node).is_some_and(|server| {
            matches!(&server.replication, Replication::Replica { primary, link_up: true, syncing: false, .. } if primary == of_primary)
        });
        let is_counted = self.data(primary).is_some_and(
            |server| matches!(&server.replication, Replication::Primary { replicas } if replicas.contains_key(own)),
        );
        follows && is_counted
    }

    /// Whether a Sentinel watches the primary and knows every other Sentinel.
    pub fn sees_all(self, node: NodeId) -> bool {
        let others = self.nodes(NodeKind::Sentinel).count().saturating_sub(1);
        let Some(master) = self.sentinel(node).and_then(|server| server.master.as_ref()) else { return false };
        let named = self.primary.and_then(|primary| self.address(primary));
        master.other_sentinels.len() >= others && named == Some(&master.address)
    }

    /// Whether a node does its part now.
    pub fn is_whole(self, node: NodeId) -> bool {
        let has_pod = self.pod(node).is_some_and(|pod| !pod.deleting);
        has_pod
            && match node.kind {
                NodeKind::Data => self.primary == Some(node) || self.is_in_sync(node),
                NodeKind::Sentinel => self.sees_all(node),
            }
    }

    /// Whether a Sentinel is amid a failover, or trusts its own clock no more.
    pub fn failover_is_under_way(self) -> bool {
        self.nodes(NodeKind::Sentinel).filter_map(|node| self.sentinel(node)).any(|server| {
            server.tilt || server.master.as_ref().is_some_and(|master| master.flags.contains("failover_in_progress"))
        })
    }

    /// Whether the pod runs what is desired.
    pub fn is_of_revision(self, node: NodeId, wanted: &DesiredNode) -> bool {
        self.pod(node).is_some_and(|pod| pod.restart_revision == wanted.restart_revision)
    }

    /// Everything that is not yet as it should be, and not by our doing.
    pub fn waiting(self, waiting: &mut Vec<Waiting>) {
        if self.failover_is_under_way() {
            waiting.push(Waiting::Failover);
        }
        if self.primary.is_none() {
            waiting.push(Waiting::Primary);
        }
        for node in self.desired.nodes.keys().copied() {
            waiting.extend(self.waiting_for(node));
        }
    }

    fn waiting_for(self, node: NodeId) -> Option<Waiting> {
        if self.address(node).is_none() {
            return Some(Waiting::Address { node });
        }
        let Some(pod) = self.pod(node) else { return Some(Waiting::Pod { node, trouble: None }) };
        if pod.deleting {
            return Some(Waiting::Pod { node, trouble: None });
        }
        match self.seen(node).map(|seen| &seen.server) {
            None | Some(ObservedServer::Unknown) if pod.trouble.is_some() => {
                Some(Waiting::Pod { node, trouble: pod.trouble.clone() })
            }
            None | Some(ObservedServer::Unknown) => Some(Waiting::Server { node }),
            Some(ObservedServer::Loading) => Some(Waiting::Loading { node }),
            Some(ObservedServer::Data(_)) if self.primary.is_some() && !self.is_whole(node) => {
                Some(Waiting::Sync { node })
            }
            Some(ObservedServer::Sentinel(_)) if !self.sees_all(node) => Some(Waiting::SentinelView { node }),
            Some(ObservedServer::Data(_) | ObservedServer::Sentinel(_)) => None,
        }
    }
}
