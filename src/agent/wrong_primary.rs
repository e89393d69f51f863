//! A replica of the wrong primary, which no Sentinel re-points.
//!
//! Sentinels point the replicas that they know. After the loss of their volumes these are the ones that follow the primary which the
//! Sentinels were shown. A replica of another node gets no order: its link stays down, or that node became a replica and it follows in a
//! chain, where its acknowledgements reach no primary and it cannot be elected.

use std::time::Duration;

use tokio::time::Instant;

use super::peers;
use crate::model::lineage::{Activity, LineageAnswer};
use crate::model::node_config::NodeConfig;
use crate::model::{Address, Role};
use crate::redis::info::Info;

/// How long Sentinels may take to re-point a replica that they know (8 s, `SENTINEL_PUBLISH_PERIOD` times 4), with as much again.
const REPOINTED_WITHIN: Duration = Duration::from_secs(15);

/// Since when the node follows another one than most Sentinels name.
#[derive(Debug, Default)]
pub(super) struct WrongPrimary {
    since: Option<Instant>,
}

impl WrongPrimary {
    /// Looks at a replica that answers. `named`: whom most Sentinels name. True: it has followed another node for long, that node serves
    /// as no primary, and the named one does.
    pub(super) async fn follows_wrong_primary(
        &mut self,
        config: &NodeConfig,
        info: &Info,
        named: Option<&Address>,
    ) -> bool {
        let followed = info.primary_link().filter(|link| !link.syncing).map(|link| link.primary);
        let (Some(followed), Some(named)) = (followed, named) else {
            self.since = None;
            return false;
        };
        if followed == *named || config.own_address() == Some(named) {
            self.since = None;
            return false;
        }
        if self.since.get_or_insert_with(Instant::now).elapsed() < REPOINTED_WITHIN {
            return false;
        }
        let ask = async |address: &Address| {
            let (ordinal, address) = config.data_nodes.iter().find(|(_, declared)| *declared == address)?;
            peers::ask_agent(config, *ordinal, address).await
        };
        let (theirs, of_named) = tokio::join!(ask(&followed), ask(named));
        !theirs.as_ref().is_some_and(serves_as_primary) && of_named.as_ref().is_some_and(serves_as_primary)
    }
}

fn serves_as_primary(answer: &LineageAnswer) -> bool {
    answer.activity == Activity::Serving && answer.lineage.as_ref().is_some_and(|own| own.role == Role::Primary)
}
