//! From facts to a started engine: gathers them until the boot rule says how to start.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::config::Environment;
use super::failover::fail_over;
use super::peers::{self, View};
use super::state::State;
use super::unloadable::holds_all;
use crate::model::boot::{BootDecision, BootFacts, Peer, SentinelAnswer, decide};
use crate::model::lineage::{Activity, Lineage, LineageAnswer};
use crate::model::node_config::NodeConfig;
use crate::model::{Address, Role};

/// Between two rounds of questions.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Between two requests for a failover. A refused one costs nothing: Sentinels that just started have not seen the replicas
/// yet (`NOGOODSLAVE`) and will within a tick or two.
const REQUEST_EVERY: Duration = Duration::from_millis(250);

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

/// Questions to the layer, and since when who has been silent.
pub struct Asking {
    began: Instant,
    last_answers: BTreeMap<u16, Instant>,
    sentinels_answered: Instant,
}

/// One round of them: what the rule says, and what it was told.
struct Round {
    decision: BootDecision,
    answers: BTreeMap<u16, Option<LineageAnswer>>,
    views: Vec<View>,
}

impl Default for Asking {
    /// Nobody was asked yet.
    fn default() -> Self {
        let now = Instant::now();
        Self { began: now, last_answers: BTreeMap::new(), sentinels_answered: now }
    }
}

impl Asking {
    async fn round(&mut self, state: &State, config: &NodeConfig) -> Round {
        let (answers, views) = tokio::join!(peers::ask_agents(config), peers::ask_sentinels(state, config));
        for (ordinal, _) in answers.iter().filter(|(_, answer)| answer.is_some()) {
            self.last_answers.insert(*ordinal, Instant::now());
        }
        if views.iter().filter(|view| **view != View::Silent).count() > views.len() / 2 {
            self.sentinels_answered = Instant::now();
        }
        let facts = BootFacts {
            sentinels_silent_milliseconds: milliseconds(self.sentinels_answered.elapsed()),
            ..facts_of(state, config, &answers, &views, |ordinal| {
                self.last_answers.get(&ordinal).unwrap_or(&self.began).elapsed()
            })
        };
        Round { decision: decide(&facts), answers, views }
    }

    /// What the rule says of this node now, of which the engine runs: it was started on what was known then.
    pub async fn decision(&mut self, state: &State) -> BootDecision {
        let config = state.config();
        self.round(state, &config).await.decision
    }
}

/// Asks until the rule says how to start. Ends only then: the caller races it with the order to stop.
pub async fn wait_for_decision(environment: &Environment, state: &State) -> Start {
    let mut asking = Asking::default();
    let mut last_decision = None;
    let mut last_request: Option<Instant> = None;
    loop {
        state.refresh_config(environment);
        let config = state.config();
        let Round { decision, answers, views } = asking.round(state, &config).await;
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
                if let Some(promoted) = fail_over(state, &config, &replicas(&config, &answers)).await {
                    return Start { primary: Some(promoted), electable: false, highest_term };
                }
            }
            BootDecision::AskForFailover | BootDecision::Wait(_) => {}
        }
        sleep(ASK_EVERY).await;
    }
}

/// The peers that follow the dead engine and may be promoted in its place.
fn replicas(config: &NodeConfig, answers: &BTreeMap<u16, Option<LineageAnswer>>) -> Vec<Address> {
    let follows = |answer: &LineageAnswer| {
        let is_whole = |lineage: &Lineage| lineage.role == Role::Replica && lineage.synced;
        answer.activity == Activity::Serving && answer.lineage.as_ref().is_some_and(is_whole)
    };
    let serving = answers.iter().filter(|(_, answer)| answer.as_ref().is_some_and(follows));
    serving.filter_map(|(ordinal, _)| config.data_nodes.get(ordinal).cloned()).collect()
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
            Some(LineageAnswer { activity, lineage, loaded, unusable, .. }) => {
                let own = state.lineage();
                // What cannot be loaded holds back nobody who has as much.
                let is_lost = |theirs: &&Lineage| {
                    unusable.is_some()
                        && !loaded
                        && own.as_ref().is_some_and(|own| holds_all(own, theirs, &config.layer.uid))
                };
                Peer::Answers {
                    activity: *activity,
                    lineage: lineage.as_ref().filter(|theirs| !is_lost(theirs)).cloned(),
                }
            }
            None => Peer::Silent { milliseconds: milliseconds(silent_for(*ordinal)) },
        };
        (*ordinal, peer)
    };
    BootFacts {
        mode: config.mode,
        layer_uid: config.layer.uid.clone(),
        own_ordinal: config.node.ordinal,
        own: state.lineage(),
        initialised: state.is_initialised() || answers.values().flatten().any(|answer| answer.initialised),
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
        sentinels_silent_milliseconds: 0,
    }
}

fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
