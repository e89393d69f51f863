//! Which addresses belong to no node of the layer, and which servers follow one.

use std::time::Duration;

use super::peers;
use super::state::State;
use crate::model::Address;
use crate::redis::info::Info;
use crate::redis::{Connection, server};

/// Time for a server's answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);

/// Whether the address belongs to no node of the layer. One that a document declared before may be a node's old one, which connections
/// still lead to; one that the document does not declare yet may be a new node's, whose agent answers.
pub(super) async fn is_stranger(state: &State, address: &Address) -> bool {
    !state.was_declared(address) && peers::layer_at(address).await.as_deref() != Some(state.config().layer.uid.as_str())
}

/// Whom a replica follows that it must not: only while there is a link, because without one nothing is replaced.
pub(super) async fn stranger_followed(state: &State, info: &Info) -> Option<Address> {
    let link = info.primary_link().filter(|link| link.up || link.syncing)?;
    is_stranger(state, &link.primary).await.then_some(link.primary)
}

/// Whether the server at a declared node's address follows what is no node: what it has is not the layer's, and its agent is about to see
/// that. A server that does not answer follows no primary.
pub(super) async fn leads_to_stranger(state: &State, address: &Address) -> bool {
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
