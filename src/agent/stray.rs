//! A server that follows, or is named as, what is no node of the layer.
//!
//! Sentinels believe each message of a newer epoch in the name of one of them. A primary that no document ever declared, and at whose
//! address no agent of this layer answers, is none: its data must not become the layer's. The node that follows it ends its engine, takes
//! its own files back and asks the boot rule, for which such a Sentinel names no primary. The Sentinel is told of the serving declared primary
//! under an epoch above the one that it was given.

use super::peers;
use super::rivals::serving_primary;
use super::sentinel_conf::my_id;
use super::state::State;
use super::strangers::is_stranger;
use crate::model::node_config::{NodeConfig, REDIS_PORT, SENTINEL_PORT};
use crate::model::observed::SentinelMaster;
use crate::model::{Address, NodeKind};
use crate::redis::Connection;
use crate::redis::hello::{self, Hello};

/// Epochs above this cannot be counted on: the next one might not be a number any more.
const HIGHEST_EPOCH: u64 = 1 << 53;

/// Tells the own Sentinel of the declared primary where it names a stranger. Whether it did.
///
/// # Errors
/// The Sentinel does not take the message.
pub(super) async fn correct(
    state: &State,
    own: &SentinelMaster,
    connection: &Connection,
) -> crate::redis::Result<bool> {
    if !is_stranger(state, &own.address).await {
        return Ok(false);
    }
    let config = state.config();
    let (views, answers) = tokio::join!(peers::ask_sentinels(state, &config), peers::ask_agents(&config));
    let right = serving_primary(&config, &answers);
    let epoch = peers::newest_epoch(&views).max(own.config_epoch);
    let (Some(primary), Some((run_id, sender))) = (&right, another(&config)) else {
        tracing::error!(named = %own.address, "the Sentinel names what is no node of the layer, and no primary serves");
        return Ok(false);
    };
    if epoch >= HIGHEST_EPOCH {
        tracing::error!(named = %own.address, epoch, "the Sentinel names what is no node, under an epoch that none follows");
        return Ok(false);
    }
    tracing::error!(named = %own.address, epoch, right = %primary, "the Sentinel names what is no node of the layer");
    let message = Hello {
        sender,
        sender_port: SENTINEL_PORT,
        run_id: &run_id,
        master_name: &config.master_name,
        primary,
        port: REDIS_PORT,
        epoch: epoch + 1,
    };
    hello::publish(connection, &message).await?;
    Ok(true)
}

/// Another Sentinel, in whose name the own one believes what it is told.
fn another(config: &NodeConfig) -> Option<(String, &Address)> {
    let is_own = |ordinal: u16| config.node.kind == NodeKind::Sentinel && config.node.ordinal == ordinal;
    let other = config.sentinels.iter().find(|(ordinal, _)| !is_own(**ordinal));
    other.map(|(ordinal, address)| (my_id(&config.layer.uid, *ordinal), address))
}
