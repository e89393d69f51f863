//! What is followed of a running server in mode Cluster: what it believes, and that it stays a member.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use super::join::{self, JoinFacts, JoinStep};
use super::{electors, files};
use crate::agent::config::Environment;
use crate::agent::peers::{self, View};
use crate::agent::state::State;
use crate::model::cluster::{ClusterView, Shard, ViewAnswer};
use crate::model::lineage::Activity;
use crate::model::node_config::{ClusterConfig, NodeConfig};
use crate::model::{Address, NodeId};
use crate::redis::info::Info;
use crate::redis::{Connection, cluster, cluster_nodes, server};

/// Between two looks at the membership.
const JOIN_EVERY: Duration = Duration::from_secs(1);

/// What is followed.
#[derive(Debug, Default)]
pub(crate) struct ClusterWatch {
    view: Option<ClusterView>,
    joined: Option<Instant>,
    /// How many looks there were: at each another peer is asked whether it knows this server.
    looks: usize,
    copied: Option<String>,
    may_be_elected: bool,
    /// The time of detection that the server was told last, milliseconds.
    detection: Option<u64>,
}

impl ClusterWatch {
    /// Looks at the view of a server that answers, and keeps it a member.
    pub(crate) async fn note(
        &mut self,
        environment: &Environment,
        state: &State,
        connection: &Connection,
        info: &Info,
    ) {
        let config = state.config();
        let Some(cluster) = &config.cluster else { return };
        match cluster_nodes::view(connection).await {
            Ok(view) => {
                state.set_view(Some(view.answer(&cluster.declared())));
                self.view = Some(view);
            }
            Err(error) => return tracing::warn!(%error, "what the server believes of the Cluster is that of before"),
        }
        files::keep_copy(environment, &mut self.copied);
        if self.joined.is_none_or(|at| at.elapsed() >= JOIN_EVERY) {
            self.joined = Some(Instant::now());
            self.keep_detection(&config, connection).await;
            self.join(state, &config, cluster, connection, info).await;
        }
    }

    /// Whether the layer is a Cluster, and the server has said what it believes.
    pub(crate) const fn is_member(&self) -> bool {
        self.view.is_some()
    }

    /// Whom the server takes for the owner of its shard's slots, as the one vote that counts while it runs.
    pub(crate) fn views(&self, config: &NodeConfig) -> Vec<View> {
        let (Some(view), Some(cluster)) = (&self.view, &config.cluster) else { return vec![View::Silent] };
        vec![electors::named(&view.answer(&cluster.declared()), Shard::of(config.node), cluster)]
    }

    /// Lets the engines elect a replica that takes part; before that it might be empty.
    pub(crate) async fn allow_election(&mut self, connection: &Connection) {
        if self.may_be_elected {
            return;
        }
        match server::config_set(connection, "cluster-replica-no-failover", "no").await {
            Ok(()) => self.may_be_elected = true,
            Err(error) => tracing::warn!(%error, "the node stays unelectable"),
        }
    }

    /// Tells the server another time of detection: its file has the one that it was started with.
    async fn keep_detection(&mut self, config: &NodeConfig, connection: &Connection) {
        let wanted = Some(config.detection_milliseconds);
        if self.detection == wanted {
            return;
        }
        let value = config.detection_milliseconds.to_string();
        match server::config_set(connection, "cluster-node-timeout", &value).await {
            Ok(()) => self.detection = wanted,
            Err(error) => tracing::warn!(%error, "the time of detection is that of before"),
        }
    }

    async fn join(
        &mut self,
        state: &State,
        config: &NodeConfig,
        cluster: &ClusterConfig,
        connection: &Connection,
        info: &Info,
    ) {
        let Some(view) = &self.view else { return };
        let declared = cluster.declared();
        let own = view.answer(&declared);
        let peers = self.looks_at(config, &declared, &own);
        self.looks = self.looks.wrapping_add(1);
        let asked = peers.into_iter().map(async |(node, address)| {
            let answer = peers::ask_agent(config, node.ordinal, address).await?;
            Some((node, answer.view.filter(|_| answer.activity == Activity::Serving)?))
        });
        let peers: BTreeMap<NodeId, ViewAnswer> = join_all(asked).await.into_iter().flatten().collect();
        let facts = JoinFacts {
            own: config.node,
            declared: &declared,
            view,
            has_keys: info.keys().0 > 0,
            peers: &peers,
            initialised: state.is_initialised(),
        };
        for step in join::steps(&facts) {
            let done = match &step {
                JoinStep::SetEpoch(epoch) => cluster::set_config_epoch(connection, *epoch).await,
                JoinStep::Meet(address) => cluster::meet(connection, address).await,
                JoinStep::Replicate(primary) => cluster::replicate(connection, primary).await,
            };
            match done {
                Ok(()) => tracing::info!(%step, "to be a member of the Cluster"),
                Err(error) => tracing::warn!(%step, %error, "tried again"),
            }
        }
    }

    /// Who is asked: all while the server does not know each declared node or has no place in its shard, and else one in turn.
    fn looks_at<'a>(
        &self,
        config: &NodeConfig,
        declared: &'a BTreeMap<NodeId, Address>,
        own: &ViewAnswer,
    ) -> Vec<(NodeId, &'a Address)> {
        let others: Vec<(NodeId, &Address)> =
            declared.iter().filter(|(node, _)| **node != config.node).map(|(node, address)| (*node, address)).collect();
        let is_settled = own.members.len() == declared.len() && self.has_place(config, own);
        if !is_settled || others.is_empty() {
            return others;
        }
        vec![others[self.looks % others.len()]]
    }

    /// Whether the server owns its shard's slots, or copies the one that does.
    fn has_place(&self, config: &NodeConfig, own: &ViewAnswer) -> bool {
        let owner = Shard::of(config.node).and_then(|shard| own.owners.get(&shard.0));
        let Some(owner) = owner else { return false };
        let follows = self.view.as_ref().and_then(|view| view.members.get(&view.own)?.primary.clone());
        owner.ordinal == config.node.ordinal || follows.as_ref() == own.members.get(&owner.ordinal)
    }
}
