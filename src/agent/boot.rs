//! From facts to a started engine: gathers them until the boot rule says how to start.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::chosen;
use super::cluster::electors;
use super::cluster::takeover::take_over;
use super::config::Environment;
use super::failover::fail_over;
use super::peers::{self, View};
use super::state::State;
use super::strangers;
use crate::model::boot::{
    BootDecision, BootFacts, Comparison, LONGEST_WAIT, Peer, PrimaryReason, Rivalry, SentinelAnswer, WaitReason,
    bars_promotion, compare, decide, holds_all, in_force, needs_a_person, promotes_itself, rivalry, undecided,
};
use crate::model::lineage::{Activity, Lineage, LineageAnswer};
use crate::model::node_config::NodeConfig;
use crate::model::{Address, Role};

/// Between two rounds of questions.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Between two requests for a failover. A refused one costs nothing: Sentinels that just started have not seen the replicas
/// yet (`NOGOODSLAVE`) and will within a tick or two.
const REQUEST_EVERY: Duration = Duration::from_millis(250);

/// Rounds this far apart are not one after the other: the longest question takes a second.
const PAUSE: Duration = Duration::from_secs(5);

/// How long a replica is alone before it follows another than it was told to: Sentinels point those that they know to the primary.
const ALONE_FOR: Duration = Duration::from_secs(15);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EngineStart {
    /// Whom to follow; `None`: as primary.
    pub primary: Option<Address>,
    /// Whether the Sentinels may promote the node before its first sync.
    pub electable: bool,
    /// The highest term that any answering node knows of.
    pub highest_term: u64,
    /// A person chose this node's data: the epoch under which the Sentinels were told of it, above all that is known.
    pub(crate) chosen_under: Option<u64>,
    /// A person chose another node's data: what this one has is about to be overwritten.
    pub yields: bool,
    /// It was a primary when its record was written last.
    pub(crate) was_primary: bool,
}

/// Questions to the layer, and since when who has been silent.
pub(crate) struct LayerPoll {
    began: Instant,
    /// End of the last round.
    asked: Instant,
    /// From when on a peer is silent that has never answered: later than the beginning where this agent stood still.
    first_asked: Instant,
    last_answers: BTreeMap<u16, Instant>,
    sentinels_answered: Instant,
    /// Since when the rule has asked for a failover.
    refused_since: Option<Instant>,
    /// Since when another primary has served.
    rival_since: Option<Instant>,
    /// Since when the Sentinels have named a node that answers and is no primary.
    unnamed_since: Option<Instant>,
}

/// One round of them: what the rule says, and what it was told.
struct PollRound {
    decision: BootDecision,
    /// Whether a replica that runs becomes primary by it.
    promotes_itself: bool,
    answers: BTreeMap<u16, Option<LineageAnswer>>,
    views: Vec<View>,
}

impl Default for LayerPoll {
    /// No peer was asked yet.
    fn default() -> Self {
        let now = Instant::now();
        Self {
            began: now,
            asked: now,
            first_asked: now,
            last_answers: BTreeMap::new(),
            sentinels_answered: now,
            refused_since: None,
            rival_since: None,
            unnamed_since: None,
        }
    }
}

impl LayerPoll {
    /// What passed since the last round is no silence where this agent did not ask: its process stood still, or did other work.
    fn leave_out_pause(&mut self) {
        let pause = self.asked.elapsed();
        if pause < PAUSE {
            return;
        }
        tracing::info!(?pause, "this agent did not ask for a while: that time is no silence of the others");
        let heard = self.last_answers.values_mut();
        for at in heard.chain([&mut self.first_asked, &mut self.sentinels_answered]) {
            *at += pause;
        }
    }

    /// Since its last answer, or since it was asked first.
    fn silence_of(&self, ordinal: u16) -> Duration {
        self.last_answers.get(&ordinal).unwrap_or(&self.first_asked).elapsed()
    }

    /// Asks every peer and every Sentinel once, all at the same time.
    async fn gather(
        &mut self,
        state: &State,
        config: &NodeConfig,
    ) -> (BootFacts, BTreeMap<u16, Option<LineageAnswer>>, Vec<View>) {
        self.leave_out_pause();
        let (answers, views) = tokio::join!(peers::ask_agents(config), electors::ask(state, config));
        for (ordinal, _) in answers.iter().filter(|(_, answer)| answer.is_some()) {
            self.last_answers.insert(*ordinal, Instant::now());
        }
        if views.iter().filter(|view| **view != View::Silent).count() > views.len() / 2 {
            self.sentinels_answered = Instant::now();
        }
        let facts = BootFacts {
            sentinels_silent: self.sentinels_answered.elapsed(),
            refused: self.refused_since.map_or(Duration::ZERO, |since| since.elapsed()),
            waited: self.began.elapsed(),
            ..facts_of(state, config, &answers, &views, |ordinal| self.silence_of(ordinal))
        };
        self.asked = Instant::now();
        (facts, answers, views)
    }

    /// `runs`: the engine runs, as a replica.
    async fn round(&mut self, state: &State, config: &NodeConfig, runs: bool) -> PollRound {
        let (facts, answers, views) = self.gather(state, config).await;
        let undecided = undecided(&facts);
        self.refused_since = match undecided {
            BootDecision::AskForFailover => self.refused_since.or_else(|| Some(Instant::now())),
            _ => None,
        };
        let is_chosen = facts.accept_loss == Some(facts.own_ordinal);
        let barred = if runs { bars_promotion(&facts, &undecided) } else { None };
        let needs_person = needs_a_person(&facts, &undecided) || (barred.is_some() && facts.waited >= LONGEST_WAIT);
        // Kept until it is carried out: what the others do for it may change the rule's answer.
        state.set_accepting(is_chosen && (needs_person || barred.is_some() || state.is_accepting()));
        let word = barred.map_or_else(|| undecided.word(), WaitReason::word);
        state.set_needs_person(needs_person.then(|| word.to_owned()));
        let decision = decide(&facts);
        PollRound { promotes_itself: promotes_itself(&facts, &decision), decision, answers, views }
    }

    /// What this node, of which the engine runs as primary, does about another one that serves; and whether a person's decision for
    /// this node is in force.
    pub(crate) async fn rivalry(&mut self, state: &State) -> (Rivalry, bool) {
        let config = state.config();
        let (mut facts, ..) = self.gather(state, &config).await;
        self.rival_since = facts.has_rival().then(|| self.rival_since.unwrap_or_else(Instant::now));
        self.unnamed_since = facts.names_no_primary().then(|| self.unnamed_since.unwrap_or_else(Instant::now));
        facts.waited = self.rival_since.map_or(Duration::ZERO, |since| since.elapsed());
        facts.unnamed = self.unnamed_since.map_or(Duration::ZERO, |since| since.elapsed());
        (rivalry(&facts), facts.accept_loss == Some(facts.own_ordinal))
    }

    /// What the rule says of this node now, of which the engine runs as a replica that has no primary to follow: it was started on what
    /// was known then.
    pub(crate) async fn again(&mut self, state: &State) -> RunningDecision {
        let config = state.config();
        let PollRound { decision, promotes_itself, answers, .. } = self.round(state, &config, true).await;
        let is_long = self.began.elapsed() >= ALONE_FOR;
        let serves = |primary: &u16| {
            answers.get(primary).and_then(Option::as_ref).is_some_and(|answer| {
                answer.activity == Activity::Serving
                    && answer.lineage.as_ref().is_some_and(|theirs| theirs.role == Role::Primary)
            })
        };
        let follows = match &decision {
            BootDecision::Follow { primary, .. } if is_long && serves(primary) => {
                config.data_nodes.get(primary).cloned()
            }
            _ => None,
        };
        RunningDecision {
            promotes_itself,
            electable: matches!(decision, BootDecision::Follow { electable: true, .. }),
            follows,
        }
    }
}

/// What the rule says to a replica that runs and has no primary to follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RunningDecision {
    /// It becomes primary.
    pub promotes_itself: bool,
    /// The Sentinels may promote it, as the best of what is left.
    pub electable: bool,
    /// The primary that serves, and that it should follow, after it was alone for long.
    pub follows: Option<Address>,
}

/// Asks until the rule says how to start. Ends only then: the caller races it with the order to stop.
pub(crate) async fn wait_for_decision(environment: &Environment, state: &State) -> EngineStart {
    let mut poll = LayerPoll::default();
    let mut last_decision = None;
    let mut last_request: Option<Instant> = None;
    let mut yields = false;
    // A node that is silent by now may be back: what a person chose has to be above it all the same.
    let (mut seen_epoch, mut highest_term) = (0, 0);
    loop {
        state.refresh_config(environment);
        chosen::forget_overtaken(environment, state);
        let config = state.config();
        let PollRound { decision, answers, views, .. } = poll.round(state, &config, false).await;
        if last_decision.as_ref() != Some(&decision) {
            let told: Vec<String> = views.iter().map(ToString::to_string).collect();
            tracing::info!(decision = %decision, sentinels = told.join(", "), "the boot rule says how this node starts");
            last_decision = Some(decision.clone());
        }
        seen_epoch = seen_epoch.max(peers::highest_epoch(&config.layer.uid, answers.values().flatten()));
        let told_term = answers.values().flatten().filter_map(|answer| answer.lineage.as_ref()?.term.into()).max();
        highest_term = told_term.unwrap_or(0).max(highest_term);
        let was_primary = state.lineage().is_some_and(|own| own.role == Role::Primary);
        let start = |primary, electable| EngineStart {
            primary,
            electable,
            highest_term,
            chosen_under: None,
            yields,
            was_primary,
        };
        match decision {
            BootDecision::StartPrimary(PrimaryReason::LossAccepted) => {
                let epoch = chosen::epoch(&config, state.lineage().as_ref(), seen_epoch, &views);
                chosen::announce(state, &config, epoch).await;
                return EngineStart { chosen_under: Some(epoch), ..start(None, true) };
            }
            BootDecision::StartPrimary(_) => return start(None, true),
            BootDecision::Follow { primary, electable } => {
                if let Some(address) = config.data_nodes.get(&primary) {
                    // Its agent told what it saw at its last poll, or stands still. Who has nothing loses nothing.
                    let may_lose = state.lineage().is_some();
                    if !(may_lose && strangers::leads_to_stranger(state, address).await) {
                        return start(Some(address.clone()), electable);
                    }
                    tracing::warn!(primary = %address, "it follows what is no node of the layer: it is not followed");
                }
            }
            BootDecision::AskForFailover if last_request.is_none_or(|asked| asked.elapsed() >= REQUEST_EVERY) => {
                last_request = Some(Instant::now());
                let replicas = replicas(&config, &answers);
                let promoted = match &config.cluster {
                    Some(cluster) => take_over(state, &config, cluster, &replicas).await,
                    None => fail_over(state, &config, &replicas).await,
                };
                if let Some(promoted) = promoted {
                    return start(Some(promoted), false);
                }
            }
            BootDecision::Wait(WaitReason::AnotherIsChosen) => yields = true,
            BootDecision::AskForFailover | BootDecision::Wait(_) => {}
        }
        sleep(ASK_EVERY).await;
    }
}

/// The peers that follow the dead engine and may be promoted in its place, with their records.
fn replicas(config: &NodeConfig, answers: &BTreeMap<u16, Option<LineageAnswer>>) -> BTreeMap<Address, Lineage> {
    let serving = answers.iter().filter_map(|(ordinal, answer)| {
        let answer = answer.as_ref().filter(|answer| answer.activity == Activity::Serving)?;
        let is_whole = |lineage: &&Lineage| lineage.role == Role::Replica && lineage.synced;
        let lineage = answer.lineage.as_ref().filter(is_whole)?;
        Some((config.data_nodes.get(ordinal)?.clone(), lineage.clone()))
    });
    serving.collect()
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
    let rest = |of: u16| {
        let others = answers.iter().filter(move |(ordinal, _)| **ordinal != of);
        others.map(|(_, answer)| answer.as_ref().and_then(|answer| answer.lineage.as_ref()))
    };
    let peer = |(ordinal, answer): (&u16, &Option<LineageAnswer>)| {
        let peer = match answer {
            Some(LineageAnswer { activity, lineage, loaded, unusable, .. }) => {
                let own = state.lineage();
                // What cannot be loaded holds back no node that has as much.
                let is_lost = |theirs: &&Lineage| {
                    unusable.is_some()
                        && !loaded
                        && own.as_ref().is_some_and(|own| holds_all(own, theirs, &config.layer.uid, rest(*ordinal)))
                };
                // After a stranger was followed, a history that has nothing in common with the own one is the stranger's.
                let is_strangers = |theirs: &Lineage| {
                    let is_other = |own: &Lineage| compare(own, theirs, &config.layer.uid) == Comparison::Unrelated;
                    theirs.role == Role::Replica && state.is_taken_back() && own.as_ref().is_some_and(is_other)
                };
                let lineage = lineage.as_ref().filter(|theirs| !is_lost(theirs)).cloned().map(|theirs| {
                    let synced = theirs.synced && !is_strangers(&theirs);
                    Lineage { synced, ..theirs }
                });
                Peer::Answers { activity: *activity, lineage }
            }
            None => Peer::Silent { time: silent_for(*ordinal) },
        };
        (*ordinal, peer)
    };
    let (own_ordinal, own) = (config.node.ordinal, state.lineage());
    let accept_loss = if config.accept_loss == Some(own_ordinal) {
        let records = answers.values().flatten().filter_map(|answer| answer.lineage.as_ref());
        in_force(config.accept_loss, &config.layer.uid, records.chain(own.as_ref()))
    } else {
        config.accept_loss
    };
    let accepts = |chosen: &u16| answers.get(chosen).and_then(Option::as_ref).is_some_and(|answer| answer.accepting);
    let accepting = if state.is_accepting() { Some(own_ordinal) } else { accept_loss.filter(accepts) };
    BootFacts {
        mode: config.mode,
        layer_uid: config.layer.uid.clone(),
        own_ordinal,
        own,
        initialised: state.is_initialised() || answers.values().flatten().any(|answer| answer.initialised),
        keeps_data: config.keeps_data,
        accept_loss,
        accepting,
        peers: answers.iter().map(peer).collect(),
        detection: Duration::from_millis(config.detection_milliseconds),
        sentinels: views
            .iter()
            .map(|view| match view {
                View::Names(address, _) => ordinal_of(address).map_or(SentinelAnswer::NamesNone, SentinelAnswer::Names),
                View::NamesNone => SentinelAnswer::NamesNone,
                View::Silent => SentinelAnswer::Silent,
            })
            .collect(),
        sentinels_silent: Duration::ZERO,
        refused: Duration::ZERO,
        unnamed: Duration::ZERO,
        waited: Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_time_in_which_the_agent_stood_still_is_no_silence_of_its_peers() {
        let second = Duration::from_secs(1);
        let mut poll = LayerPoll::default();
        poll.last_answers.insert(1, Instant::now());
        for _ in 0..20 {
            tokio::time::advance(second).await;
            poll.leave_out_pause();
            poll.asked = Instant::now();
        }
        assert_eq!((poll.silence_of(1), poll.silence_of(2)), (20 * second, 20 * second));
        tokio::time::advance(300 * second).await;
        poll.leave_out_pause();
        assert_eq!((poll.silence_of(1), poll.silence_of(2)), (20 * second, 20 * second));
        assert_eq!(poll.sentinels_answered.elapsed(), 20 * second);
        poll.last_answers.insert(1, Instant::now());
        assert_eq!(poll.silence_of(1), Duration::ZERO);
    }
}
