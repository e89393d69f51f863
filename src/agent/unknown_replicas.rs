//! A Sentinel whose primary died before it told of its replicas.
//!
//! Sentinels hear of replicas from their primary alone. One that was shown a primary which died at once, or which came back without
//! its volume, knows no replica that it could elect, and hears of none. Its configuration file may name replicas, so it restarts
//! with a file that names those that run.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::peers;
use crate::model::lineage::Activity;
use crate::model::node_config::NodeConfig;
use crate::model::observed::SentinelMaster;
use crate::model::{Address, Role};

/// How long the Sentinel may take to discover a replica, or the agent of a dead engine to have another node elected.
const DISCOVERED_WITHIN: Duration = Duration::from_secs(5);

/// Since when the primary is down while replicas run that the Sentinel does not know.
#[derive(Default)]
pub(super) struct UnknownReplicas {
    since: Option<Instant>,
}

impl UnknownReplicas {
    pub(super) async fn update(&mut self, config: &NodeConfig, own: &SentinelMaster) {
        let is_down = own.is_down() && !own.is_failing_over();
        let is_lacking = is_down && running(config).await.iter().any(|address| !own.replicas.contains_key(address));
        self.since = if is_lacking { self.since.or_else(|| Some(Instant::now())) } else { None };
    }

    /// Whether it was so at the last poll.
    pub(super) const fn is_suspected(&self) -> bool {
        self.since.is_some()
    }

    /// Whether it has been so for long.
    pub(super) fn is_lasting(&self) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= DISCOVERED_WITHIN)
    }
}

/// Data nodes whose engines run as replicas.
pub(super) async fn running(config: &NodeConfig) -> BTreeSet<Address> {
    let answers = peers::ask_agents(config).await;
    let run = answers.values().flatten().filter(|answer| {
        matches!(answer.activity, Activity::Loading | Activity::Serving)
            && answer.lineage.as_ref().is_some_and(|record| record.role == Role::Replica)
    });
    run.filter_map(|answer| config.data_nodes.get(&answer.ordinal).cloned()).collect()
}
