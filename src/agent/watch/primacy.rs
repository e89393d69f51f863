//! Who is primary: what a running server does about the Sentinels' word, a rival, and a person's decision.

use std::time::Duration;

use tokio::time::Instant;

use super::followed::{SENTINEL_ANSWER_HOLDS, Watch};
use crate::agent::boot::RunningDecision;
use crate::agent::rivals::Rivals;
use crate::agent::state::State;
use crate::agent::{chosen, peers, redis_conf};
use crate::model::lineage::{Activity, Lineage, LineageAnswer};
use crate::model::node_config::{NodeConfig, REDIS_PORT};
use crate::model::{Address, Role};
use crate::redis::info::Info;
use crate::redis::{Connection, server};

/// Longer than detection by default, an election and the order to a replica take together (8 s of it, `SENTINEL_PUBLISH_PERIOD` times 4).
const ELECTED_WITHIN: Duration = Duration::from_secs(20);

impl Watch {
    /// A primary that the Sentinels have replaced follows its successor at once: what it takes from here on is lost. The
    /// Sentinels order it too, but only after eight seconds, and later where a pause holds up their connection. Not before
    /// the successor says itself that it is primary (Sentinels that come back from an old file may name a replica of ours),
    /// and only in an epoch above all that were known when this node became primary: until they hear of a promotion, the
    /// Sentinels name the predecessor, which may still serve. The order goes over the connection of the poll that it follows
    /// from: a Sentinel cuts all connections of a server that it promotes, so it cannot reach one promoted since.
    pub(super) async fn step_down(&self, state: &State, connection: &Connection, info: &Info) {
        let config = state.config();
        let Some((named, epoch)) = &self.majority else { return };
        if info.role() != Some(Role::Primary)
            || config.cluster.is_some()
            || config.own_address() == Some(named)
            || self.baseline.is_none_or(|baseline| *epoch <= baseline)
        {
            return;
        }
        let Some((ordinal, _)) = config.data_nodes.iter().find(|(_, address)| *address == named) else { return };
        let answer = peers::ask_agent(&config, *ordinal, named).await;
        let is_primary = |own: &Lineage| own.role == Role::Primary;
        if answer.is_some_and(|theirs| {
            theirs.activity == Activity::Serving && theirs.lineage.as_ref().is_some_and(is_primary)
        }) {
            tracing::warn!(successor = %named, epoch, "the Sentinels have replaced this primary: it steps down");
            if let Err(error) = server::replica_of(connection, &named.0, REDIS_PORT).await {
                tracing::warn!(%error, "left to the Sentinels");
            }
        }
    }

    /// A primary whose rival the Sentinels do not demote, or a replica that they do not point to the primary.
    pub(super) async fn check_rivals(&mut self, state: &State, info: &Info) {
        if info.role() != Some(Role::Primary) {
            self.rivals = Rivals::default();
            let named = self.majority.as_ref().map(|(named, _)| named);
            if self.wrong_primary.follows_wrong_primary(&state.config(), info, named).await {
                self.starts_over = Some("no Sentinel points this replica to the primary");
            }
        // Else the Sentinels are being told of what a person chose.
        } else if !self.is_chosen {
            self.starts_over = self.rivals.reason_to_step_down(state).await.or(self.starts_over);
        }
    }

    /// The boot rule once more, for a replica that finds no primary to follow: before it took part in what a primary writes, because the
    /// rule may say another thing by now; later, if the Sentinels name this very node, or did not end it within [`ELECTED_WITHIN`].
    pub(super) async fn decide_again(&mut self, state: &State, info: &Info) -> RunningDecision {
        let followed = info.primary_link().filter(|link| !link.up && !link.syncing).map(|link| link.primary);
        let config = state.config();
        let is_own = |named: &Address| config.own_address() == Some(named);
        let is_told = self.majority.as_ref().is_some_and(|(named, _)| !is_own(named));
        let alone_since = followed.as_ref().map(|_| *self.alone_since.get_or_insert_with(Instant::now));
        self.alone_since = alone_since;
        let is_late = alone_since.is_some_and(|since| since.elapsed() >= ELECTED_WITHIN);
        // Who takes part and follows whom the Sentinels name is theirs to promote; a person may choose it all the same.
        let is_chosen = config.accept_loss == Some(config.node.ordinal);
        let Some(followed) =
            followed.filter(|_| !self.replica_state.is_acknowledging() || !is_told || is_late || is_chosen)
        else {
            self.poll = None;
            if !self.rivals.needs_person() {
                if !self.is_chosen {
                    state.set_accepting(false);
                }
                state.set_needs_person(None);
            }
            return RunningDecision::default();
        };
        let again = self.poll.get_or_insert_default().again(state).await;
        if state.is_accepting() {
            self.starts_over = Some("a person chose its data");
        } else if again.follows.as_ref().is_some_and(|primary| *primary != followed) {
            self.starts_over = Some("another node is primary, and no Sentinel points this one to it");
        } else if again.follows.is_some() && is_late {
            state.notice(format!("it gets no link to its primary {followed}, which serves: its server's log says why"));
        }
        again
    }

    /// Whether the engine is to be ended, and why: a person chose another node's data and that node waits for this one, or this node
    /// is to start by what the rule says now.
    pub(crate) async fn starts_over(&mut self, state: &State) -> Option<&'static str> {
        let config = state.config();
        let chosen = config.accept_loss.filter(|chosen| *chosen != config.node.ordinal);
        if let Some(chosen) = chosen
            && self.asked_chosen.is_none_or(|at| at.elapsed() >= SENTINEL_ANSWER_HOLDS)
        {
            self.asked_chosen = Some(Instant::now());
            let address = config.data_nodes.get(&chosen)?;
            let answer = peers::ask_agent(&config, chosen, address).await;
            if answer.as_ref().is_some_and(|answer| answer.accepting) {
                return Some("a person chose another node's data");
            }
            self.note_overtaken(&config, chosen, answer.as_ref());
        }
        self.starts_over
    }

    /// A decision for a node that follows this primary is overtaken: what it was made for is over.
    fn note_overtaken(&mut self, config: &NodeConfig, chosen: u16, answer: Option<&LineageAnswer>) {
        let follows = |answer: &LineageAnswer| {
            let is_linked = |theirs: &Lineage| theirs.role == Role::Replica && theirs.synced && theirs.link_up;
            answer.activity == Activity::Serving && answer.lineage.as_ref().is_some_and(is_linked)
        };
        if self.primary_as.is_some() && config.accept_loss == Some(chosen) && answer.is_some_and(follows) {
            self.accepted = Some(chosen);
        }
    }

    /// Tells the Sentinels that this node is the primary for as long as one names another, where a person chose it or where they name a
    /// node that they cannot replace. Keeps the person's decision from counting again.
    pub(super) async fn keep_chosen(
        &mut self,
        state: &State,
        config: &NodeConfig,
        role: Role,
        views: Option<&[peers::View]>,
    ) {
        // A decision that a primary waits for is not carried out by its being one.
        let is_own = config.accept_loss == Some(config.node.ordinal);
        // Nor is one of which the Sentinels have not heard.
        let names_other = self.majority.as_ref().is_some_and(|(named, _)| config.own_address() != Some(named));
        if role == Role::Primary && is_own && !self.rivals.needs_person() && (self.is_chosen || !names_other) {
            self.accepted = config.accept_loss;
        }
        let Some(views) = views.filter(|_| self.is_chosen || self.rivals.tells_sentinels()) else { return };
        if role == Role::Primary && chosen::is_unknown_to(views, config.own_address(), self.epoch) {
            self.epoch = chosen::raised(views, config.own_address(), self.epoch);
            chosen::announce(state, config, self.epoch).await;
        } else if self.is_chosen {
            self.is_chosen = false;
            state.set_accepting(false);
        }
    }

    /// A replica that takes part may be elected; one that does not may not, unless it has the best of what is left: else a layer whose
    /// primary came back empty would have no replica to elect.
    pub(super) async fn keep_priority(&mut self, connection: &Connection, info: &Info, again: &RunningDecision) {
        let Some(link) = info.primary_link() else { return };
        let takes_part = (link.up && self.replica_state.is_acknowledging()) || again.electable;
        if takes_part && !link.syncing && self.cluster.is_member() {
            self.cluster.allow_election(connection).await;
        }
        if link.priority != 0 || link.syncing {
            return;
        }
        if takes_part {
            tracing::info!(linked = link.up, "the node may be elected");
            let whole = redis_conf::PRIORITY_WHOLE.to_string();
            if let Err(error) = server::config_set(connection, "replica-priority", &whole).await {
                tracing::warn!(%error, "the node stays unelectable");
            }
        }
    }
}
