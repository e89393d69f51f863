//! Telling a Sentinel at once of the others that are declared.
//!
//! Sentinels find each other through the servers that they watch, each of which they tell of themselves every two seconds:
//! so long a new Sentinel, or one that was made to forget, knows fewer voters than there are, and without end if all that it
//! watches is dead. Its agent knows the others from the node's document, and their identities, which are fixed
//! ([`sentinel_conf::my_id`]), so it says to the own Sentinel what each of the others would say: their own hello.

use super::sentinel_conf::my_id;
use crate::model::node_config::{NodeConfig, REDIS_PORT, SENTINEL_PORT};
use crate::model::observed::SentinelMaster;
use crate::model::{Address, NodeKind};
use crate::redis::Connection;
use crate::redis::hello::{self, Hello};

/// Introduces who is declared and not known; how many those are. What the Sentinel knows is not changed: what a Sentinel says of
/// itself counts.
pub(super) async fn introduce(
    connection: &Connection,
    config: &NodeConfig,
    own: &SentinelMaster,
) -> crate::redis::Result<usize> {
    let strangers = strangers(config, own);
    for (run_id, sender) in &strangers {
        let hello = Hello {
            sender,
            sender_port: SENTINEL_PORT,
            run_id,
            master_name: &config.master_name,
            // What the own Sentinel knows already: an introduction is no news of the primary.
            primary: &own.address,
            port: REDIS_PORT,
            epoch: own.config_epoch,
        };
        hello::publish(connection, &hello).await?;
        tracing::info!(sentinel = %sender, "introduced");
    }
    Ok(strangers.len())
}

/// The declared Sentinels that ours does not know, by identity.
fn strangers<'a>(config: &'a NodeConfig, own: &SentinelMaster) -> Vec<(String, &'a Address)> {
    let is_own = |ordinal: u16| config.node.kind == NodeKind::Sentinel && config.node.ordinal == ordinal;
    let others = config.sentinels.iter().filter(|(ordinal, _)| !is_own(**ordinal));
    let known = others.map(|(ordinal, address)| (my_id(&config.layer.uid, *ordinal), address));
    known.filter(|(id, _)| !own.other_sentinels.contains_key(id)).collect()
}
