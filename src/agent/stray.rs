//! A server that follows, or is named as, what is no node of the layer.
//!
//! Sentinels believe whoever tells them of a newer epoch in the name of one of them. A primary that no document ever declared, and at whose
//! address no agent of this layer answers, is none: its data must not become the layer's. The node that follows it ends its engine, takes
//! its own files back and asks the boot rule, for which such a Sentinel names nobody. The Sentinel is told of the serving declared primary
//! under an epoch above the one that it was given.

use std::time::Duration;

use super::peers;
use super::rivals::serving_primary;
use super::sentinel_conf::my_id;
use super::state::State;
use crate::model::node_config::{NodeConfig, REDIS_PORT, SENTINEL_PORT};
use crate::model::observed::SentinelMaster;
use crate::model::{Address, NodeKind};
use crate::redis::hello::{self, Hello};
use crate::redis::info::Info;
use crate::redis::{Connection, server};

/// Time for a server's answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// Epochs above this cannot be counted on: the next one might not be a number any more.
const HIGHEST_EPOCH: u64 = 1 << 53;

/// Whether the address belongs to no node of the layer. One that a document declared before may be a node's old one, which connections
/// still lead to; one that the document does not declare yet may be a new node's, whose agent answers.
pub async fn is_stranger(state: &State, address: &Address) -> bool {
    !state.was_declared(address) && peers::layer_at(address).await.as_deref() != Some(state.config().layer.uid.as_str())
}

/// Whom a replica follows that it must not: only while there is a link, because without one nothing is replaced.
pub async fn stranger_followed(state: &State, info: &Info) -> Option<Address> {
    let link = info.primary_link().filter(|link| link.up || link.syncing)?;
    is_stranger(state, &link.primary).await.then_some(link.primary)
}

/// Whether the server at a declared node's address follows what is no node: what it has is not the layer's, and its agent is about to see
/// that. A server that does not answer follows nobody.
pub async fn leads_to_stranger(state: &State, address: &Address) -> bool {
    let asked = async {
        let endpoint = state.data_endpoint(address);
        let connection = Connection::open_with(&endpoint, ANSWER_WITHIN, ANSWER_WITHIN).await?;
        server::replication(&connection).await
    };
    match asked.await.map(|info| info.primary_link()) {
        Ok(Some(link)) => is_stranger(state, &link.primary).await,
        Ok(None) | Err(_) => false,
    }
}

/// Tells the own Sentinel of the declared primary where it names a stranger. Whether it did.
///
/// # Errors
/// The Sentinel does not take the message.
pub async fn correct(state: &State, own: &SentinelMaster, connection: &Connection) -> crate::redis::Result<bool> {
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
    hello::tell(connection, &message).await?;
    Ok(true)
}

/// Another Sentinel, in whose name the own one believes what it is told.
fn another(config: &NodeConfig) -> Option<(String, &Address)> {
    let is_own = |ordinal: u16| config.node.kind == NodeKind::Sentinel && config.node.ordinal == ordinal;
    let other = config.sentinels.iter().find(|(ordinal, _)| !is_own(**ordinal));
    other.map(|(ordinal, address)| (my_id(&config.layer.uid, *ordinal), address))
}
