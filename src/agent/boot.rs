//! From facts to a started engine: gathers them until the boot rule says how to start.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::peers::{self, View};
use super::state::State;
use crate::model::Address;
use crate::model::boot::{BootDecision, BootFacts, Peer, SentinelAnswer, decide};
use crate::model::lineage::LineageAnswer;
use crate::model::node_config::NodeConfig;
use crate::redis::{Connection, sentinel};

/// Between two rounds of questions.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Between two requests for a failover: the Sentinels refuse a second one for a while anyway.
const REQUEST_EVERY: Duration = Duration::from_secs(1);

/// How to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Whom to follow; `None`: as primary.
    pub primary: Option<Address>,
    /// Whether the Sentinels may promote the node before its first sync.
    pub electable: bool,
    /// The highest term that any answering node knows of.
    pub highest_term: u64,
}

/// Asks until the rule says how to start. Ends only then: the caller races it with the order to stop.
pub async fn wait_for_decision(state: &State) -> Start {
    let began = Instant::now();
    let mut last_answers: BTreeMap<u16, Instant> = BTreeMap::new();
    let mut last_decision = None;
    let mut last_request: Option<Instant> = None;
    loop {
        let config = state.config();
        let (answers, views) = tokio::join!(peers::ask_agents(&config), peers::ask_sentinels(state, &config));
        for (ordinal, _) in answers.iter().filter(|(_, answer)| answer.is_some()) {
            last_answers.insert(*ordinal, Instant::now());
        }
        let facts = facts_of(state, &config, &answers, &views, |ordinal| {
            last_answers.get(&ordinal).unwrap_or(&began).elapsed()
        });
        let decision = decide(&facts);
        if last_decision.as_ref() != Some(&decision) {
            tracing::info!(?decision, sentinels = ?views, "boot rule");
            last_decision = Some(decision.clone());
        }
        let highest_term = answers.values().flatten().filter_map(|answer| answer.lineage.as_ref()?.term.into()).max();
        let highest_term = highest_term.unwrap_or(0);
        match decision {
            BootDecision::StartPrimary(_) => return Start { primary: None, electable: true, highest_term },
            BootDecision::Follow { primary, electable } => {
                if let Some(address) = config.data_nodes.get(&primary) {
                    return Start { primary: Some(address.clone()), electable, highest_term };
                }
            }
            BootDecision::AskForFailover if last_request.is_none_or(|asked| asked.elapsed() >= REQUEST_EVERY) => {
                last_request = Some(Instant::now());
                ask_for_failover(state, &config).await;
            }
            BootDecision::AskForFailover | BootDecision::Wait(_) => {}
        }
        sleep(ASK_EVERY).await;
    }
}

fn facts_of(
    state: &State,
    config: &NodeConfig,
    answers: &BTreeMap<u16, Option<LineageAnswer>>,
    views: &[View],
    silent_for: impl Fn(u16) -> Duration,
) -> BootFacts {
    let ordinal_of = |address: &Address| {
        config.data_nodes.iter().find(|(_, declared)| *declared == address).map(|(ordinal, _)| *ordinal)
    };
    let peer = |(ordinal, answer): (&u16, &Option<LineageAnswer>)| {
        let peer = match answer {
            Some(LineageAnswer { activity, lineage, .. }) => {
                Peer::Answers { activity: *activity, lineage: lineage.clone() }
            }
            None => Peer::Silent { milliseconds: silent_for(*ordinal).as_millis().try_into().unwrap_or(u64::MAX) },
        };
        (*ordinal, peer)
    };
    BootFacts {
        mode: config.mode,
        layer_uid: config.layer.uid.clone(),
        own_ordinal: config.node.ordinal,
        own: state.lineage(),
        initialised: config.initialised,
        keeps_data: config.keeps_data,
        accept_loss: config.accept_loss,
        peers: answers.iter().map(peer).collect(),
        sentinels: views
            .iter()
            .map(|view| match view {
                View::Names(address, _) => {
                    ordinal_of(address).map_or(SentinelAnswer::NamesNobody, SentinelAnswer::Names)
                }
                View::NamesNobody => SentinelAnswer::NamesNobody,
                View::Silent => SentinelAnswer::Silent,
            })
            .collect(),
    }
}

/// Asks one Sentinel after the other until one begins.
async fn ask_for_failover(state: &State, config: &NodeConfig) {
    for address in config.sentinels.values() {
        let endpoint = state.sentinel_endpoint(address);
        let asked = async { sentinel::failover(&Connection::open(&endpoint).await?, &config.master_name).await };
        match asked.await {
            Ok(()) => {
                tracing::info!(sentinel = %address, "asked for a failover");
                return;
            }
            Err(error) => {
                let reason = error.server_text().unwrap_or_else(|| error.to_string());
                tracing::info!(sentinel = %address, reason, "would not fail over");
                // Somebody else has begun.
                if reason.starts_with("INPROG") {
                    return;
                }
            }
        }
    }
}
