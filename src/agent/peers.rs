//! Asking the rest of the layer: the other agents' records, and whom the Sentinels name.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use hyper::body::Bytes;
use tokio::time::timeout;

use super::state::State;
use crate::answers;
use crate::model::Address;
use crate::model::lineage::{LARGEST_NUMBER, Lineage, LineageAnswer};
use crate::model::node_config::NodeConfig;
use crate::redis::{Connection, sentinel};

/// Time for a peer's whole answer. It serves it from memory; a node that takes longer is as good as silent this time.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// Part of it for the answer on a kept connection: what is left is enough for a new one.
const KEPT_ANSWERS_WITHIN: Duration = Duration::from_millis(100);
/// Time for the functions that a peer has. Until then the primary does not start.
const FUNCTIONS_WITHIN: Duration = Duration::from_secs(1);
/// How often a silent peer is asked for its term: a promotion waits for it.
const TERM_TRIES: usize = 3;

/// What one Sentinel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// The primary's address, and the epoch of that knowledge.
    Names(Address, u64),
    /// It monitors nothing under our name.
    NamesNone,
    /// No answer.
    Silent,
}

impl std::fmt::Display for View {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Names(address, epoch) => write!(formatter, "names {address} (epoch {epoch})"),
            Self::NamesNone => formatter.write_str("names none"),
            Self::Silent => formatter.write_str("is silent"),
        }
    }
}

/// Asks one agent for its record. `None`: no answer, one of another layer, or one with numbers that no layer reaches.
pub async fn ask_agent(config: &NodeConfig, ordinal: u16, address: &Address) -> Option<LineageAnswer> {
    let answer = timeout(ANSWER_WITHIN, answers::fetch(&address.0)).await.ok()??;
    let absurd = answer.lineage.as_ref().and_then(Lineage::absurd_number);
    if let Some(field) = absurd {
        tracing::warn!(peer = %address, field, "the peer's record is not believed: a number in it is larger than any layer's");
    }
    (absurd.is_none() && answer.layer_uid == config.layer.uid && answer.ordinal == ordinal).then_some(answer)
}

/// The UID of the layer whose agent answers at an address. `None`: none does.
pub(crate) async fn layer_at(address: &Address) -> Option<String> {
    Some(timeout(ANSWER_WITHIN, answers::fetch(&address.0)).await.ok()??.layer_uid)
}

/// Asks all other data nodes, side by side.
pub(crate) async fn ask_agents(config: &NodeConfig) -> BTreeMap<u16, Option<LineageAnswer>> {
    let others = config.data_nodes.iter().filter(|(_, address)| Some(*address) != config.own_address());
    let answers = others.map(async |(ordinal, address)| (*ordinal, ask_agent(config, *ordinal, address).await));
    join_all(answers).await.into_iter().collect()
}

/// The functions that the servers of other data nodes had last.
pub(crate) async fn ask_functions(config: &NodeConfig) -> Vec<Bytes> {
    let others = config.data_nodes.values().filter(|address| Some(*address) != config.own_address());
    let dumps = others.map(async |address| {
        timeout(FUNCTIONS_WITHIN, answers::functions(&address.0, &config.layer.uid)).await.ok().flatten()
    });
    join_all(dumps).await.into_iter().flatten().collect()
}

/// The highest term that any other data node's record tells; 0: none answers.
pub(crate) async fn highest_term(config: &NodeConfig) -> u64 {
    let mut highest = 0;
    for _ in 0..TERM_TRIES {
        let answers = ask_agents(config).await;
        let terms = answers.values().flatten().filter_map(|answer| Some(answer.lineage.as_ref()?.term));
        highest = terms.max().unwrap_or(0).max(highest);
        if answers.values().all(Option::is_some) {
            break;
        }
    }
    highest
}

/// Asks one Sentinel, on the connection of the last question if it is still answered on that.
async fn ask_sentinel(state: &State, config: &NodeConfig, address: &Address) -> View {
    let ask = async {
        if let Some(kept) = state.kept_connection(address)
            && let Ok(Ok(answer)) =
                timeout(KEPT_ANSWERS_WITHIN, sentinel::primary_address(&kept, &config.master_name)).await
        {
            return Ok(answer);
        }
        // Its other end may be gone without a word: that says nothing of who has the address now.
        state.keep_connection(address, None);
        let endpoint = state.sentinel_endpoint(address);
        let opened = Connection::open_with(&endpoint, ANSWER_WITHIN, ANSWER_WITHIN).await;
        state.note_refusal(&endpoint, opened.as_ref().err());
        let connection = opened?;
        let answer = sentinel::primary_address(&connection, &config.master_name).await?;
        state.keep_connection(address, Some(connection));
        Ok::<_, crate::redis::Error>(answer)
    };
    match timeout(ANSWER_WITHIN, ask).await {
        Ok(Ok(Some((address, epoch)))) if epoch <= LARGEST_NUMBER => View::Names(address, epoch),
        Ok(Ok(None)) => View::NamesNone,
        Ok(Ok(Some(_)) | Err(_)) | Err(_) => View::Silent,
    }
}

/// Asks all Sentinels, side by side.
pub(crate) async fn ask_sentinels(state: &State, config: &NodeConfig) -> Vec<View> {
    join_all(config.sentinels.values().map(|address| ask_sentinel(state, config, address))).await
}

/// The highest epoch of any of these records that this layer wrote; 0: there is none.
pub(crate) fn highest_epoch<'a>(layer_uid: &str, answers: impl Iterator<Item = &'a LineageAnswer>) -> u64 {
    let records = answers.filter_map(|answer| answer.lineage.as_ref());
    records.filter(|record| record.layer_uid == layer_uid).map(|record| record.epoch).max().unwrap_or(0)
}

/// The newest epoch that any of them tells; 0: none does.
pub(crate) fn newest_epoch(views: &[View]) -> u64 {
    let epochs = views.iter().filter_map(|view| match view {
        View::Names(_, epoch) => Some(*epoch),
        View::NamesNone | View::Silent => None,
    });
    epochs.max().unwrap_or(0)
}

/// Whom a majority of the declared Sentinels names, with the highest epoch of those votes.
pub(crate) fn majority(views: &[View]) -> Option<(Address, u64)> {
    let mut votes: BTreeMap<&Address, (usize, u64)> = BTreeMap::new();
    for view in views {
        if let View::Names(address, epoch) = view {
            let (count, highest) = votes.entry(address).or_default();
            *count += 1;
            *highest = (*highest).max(*epoch);
        }
    }
    let winner = votes.into_iter().find(|(_, (count, _))| *count > views.len() / 2);
    winner.map(|(address, (_, epoch))| (address.clone(), epoch))
}
