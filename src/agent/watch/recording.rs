//! The record of a running server: what is written of it, and when.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::followed::{LINKS_END_WITHIN, SENTINEL_ANSWER_HOLDS, Watch};
use crate::agent::append_files::{Growth, Sizes};
use crate::agent::config::Environment;
use crate::agent::state::State;
use crate::agent::{ancestry, aside, chain, lineage_file, peers};
use crate::model::lineage::{LINEAGE_FORMAT, Lineage, next_term};
use crate::model::node_config::NodeConfig;
use crate::model::{Address, Role};
use crate::redis::info::Info;

/// The record is written at least this often, so that its offset is at most so old (as old as `appendfsync everysec`).
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// How long the last record may take, and one that is being written before it: the pod's grace period is mostly the engine's.
const LAST_WRITE_WITHIN: Duration = Duration::from_secs(3);

impl Watch {
    pub(super) async fn record(&mut self, state: &State, info: &Info) {
        let config = state.config();
        let Some(role) = info.role() else { return };
        let is_promoted = self.is_promoted(role, info);
        self.primary_as = (role == Role::Primary).then(|| info.replication_id());
        self.demoted |= role == Role::Replica && self.last_role == Some(Role::Primary);
        self.last_role = Some(role);
        let link = info.primary_link();
        let in_sync = link.as_ref().is_none_or(|link| link.up && !link.syncing);
        // The link may have been up between two polls: then the server has the history of its primary.
        let has_another_id = self.file_links.loaded_as().is_some_and(|loaded| *loaded != info.replication_id());
        self.linked |= has_another_id || link.as_ref().is_none_or(|link| link.up || link.syncing);
        if self.accepted != config.accept_loss {
            self.accepted = None;
        }
        if !self.linked && state.lineage().is_some() {
            // The server restored neither replication id nor offset from its files; the record still knows them.
            return;
        }
        let primary = link.as_ref().map(|link| link.primary.clone()).or_else(|| config.own_address().cloned());
        let views = if is_promoted {
            self.baseline = None;
            // A primary that was replaced and came back between two polls never held its predecessor's term.
            let (views, highest_term) = tokio::join!(self.who_is_named(state, &config), peers::highest_term(&config));
            (self.term, self.term_of) = (next_term(self.term.max(highest_term)), None);
            Some(views)
        } else if self.is_at_rest(role, in_sync, primary.as_ref()) {
            None
        } else {
            Some(self.who_is_named(state, &config).await)
        };
        if let Some(views) = &views {
            (self.majority, self.told) = (peers::majority(views), Some(Instant::now()));
        }
        if let Some((named, epoch)) = &self.majority
            && in_sync
            && Some(named) == primary.as_ref()
        {
            // Never lower: Sentinels that lost what they knew would make all that comes older than all that was.
            self.epoch = self.epoch.max(*epoch);
        }
        self.baseline = (role == Role::Primary).then(|| {
            let known = views.as_deref().map_or(0, peers::newest_epoch).max(self.epoch);
            self.baseline.unwrap_or(known)
        });
        if role == Role::Replica && in_sync {
            self.copy_term(&config, primary.as_ref(), info).await;
        }
        let is_decided = config.accept_loss == Some(config.node.ordinal) && self.accepted.is_none();
        self.is_chosen_as_replica |= is_promoted && is_decided;
        self.keep_chosen(state, &config, role, views.as_deref()).await;
        let before = state.lineage();
        let goes_on = || before.as_ref().is_none_or(|before| info.continues(&before.replication_id));
        let stays = role == Role::Primary || (in_sync && self.was_in_sync && goes_on());
        self.data_file.note(info, stays, config.keeps_data);
        let is_whole = self.data_file.is_append_only();
        let sample = {
            let growth = self.growth.lock().unwrap_or_else(PoisonError::into_inner);
            self.sampler.note(Instant::now(), info, is_whole, growth.latest())
        };
        self.file_offset.note(info, sample.clone());
        let synced = in_sync || (before.is_some_and(|before| before.synced) && link.is_some_and(|link| !link.syncing));
        let record = Lineage {
            format: LINEAGE_FORMAT,
            layer_uid: config.layer.uid.clone(),
            epoch: self.epoch,
            term: self.term,
            role,
            replication_id: info.replication_id(),
            previous_replication_id: info.previous_replication_id(),
            previous_offset: info.previous_offset(),
            offset: info.offset(),
            synced,
            link_up: in_sync,
            keys: info.keys().0,
            clean_stop: false,
            append_only: Some(is_whole),
            accepted: self.accepted,
            held: None,
        };
        self.sampler.follow(&record, sample.as_ref());
        state.set_lineage(Some(record));
        self.was_in_sync = in_sync;
    }

    /// Whom the Sentinels name, or in mode `Cluster` the own server.
    async fn who_is_named(&self, state: &State, config: &NodeConfig) -> Vec<peers::View> {
        match config.cluster {
            Some(_) => self.cluster.views(config),
            None => peers::ask_sentinels(state, config).await,
        }
    }

    /// Whether it is a replica in sync with whom the Sentinels named a moment ago: until that changes it is told nothing new.
    fn is_at_rest(&self, role: Role, in_sync: bool, primary: Option<&Address>) -> bool {
        role == Role::Replica
            && in_sync
            && self.was_in_sync
            && self.majority.as_ref().map(|(named, _)| named) == primary
            && self.told.is_some_and(|at| at.elapsed() < SENTINEL_ANSWER_HOLDS)
    }

    /// Whether it became primary since the last poll: it was a replica then, or a primary with another replication id. A server
    /// takes a new one for each promotion and keeps the one before as the second; where it only has no replica for long, it
    /// has no second one ([Redis](https://redis.io/docs/latest/operate/oss_and_stack/management/replication/),
    /// "Replication ID explained").
    fn is_promoted(&self, role: Role, info: &Info) -> bool {
        let has_another_id = self.primary_as.as_ref().is_some_and(|before| *before != info.replication_id());
        role == Role::Primary
            && (self.last_role == Some(Role::Replica) || (has_another_id && info.previous_replication_id().is_some()))
    }

    /// A synced replica holds its primary's line of data, so it holds its term: the one of that line. An agent that has not looked
    /// since its server was promoted still tells the term of the line before; who took that for its own would hide the term in
    /// between from it, and two lines would have the same. A line has one term: a node that starts as primary or is promoted begins another.
    async fn copy_term(&mut self, config: &NodeConfig, primary: Option<&Address>, info: &Info) {
        let knows_decision = config.accept_loss.is_none() || config.accept_loss == self.accepted;
        if self.term_of == Some(info.replication_id()) && knows_decision {
            return;
        }
        let Some((ordinal, address)) = config.data_nodes.iter().find(|(_, address)| Some(*address) == primary) else {
            return;
        };
        let answer = peers::ask_agent(config, *ordinal, address).await;
        let is_of_this_line =
            |theirs: &Lineage| theirs.role == Role::Primary && theirs.replication_id == info.replication_id();
        if let Some(theirs) = answer.and_then(|answer| answer.lineage).filter(is_of_this_line) {
            self.accepted = theirs.accepted.filter(|accepted| config.accept_loss == Some(*accepted));
            (self.term, self.term_of) = (theirs.term, Some(theirs.replication_id));
        }
    }

    /// Writes the record if it moved or is a second old. A disk that takes no record is said, and is no reason to stop a
    /// server that serves: what is on the disk is older, so this node yields to others at its next start.
    pub(crate) fn write_if_due(&mut self, environment: &Environment, state: &State) {
        if let Some(outcome) = self.disk.ended() {
            state.set_trouble(outcome.err().as_ref());
        }
        let may_be_written = self.answered && self.disk.is_idle() && self.file_links.are_noted();
        let Some(lineage) = state.lineage().filter(|_| may_be_written) else { return };
        let (lineage, sample) = self.file_offset.on_volume(lineage);
        let is_due = self.written.as_ref().is_none_or(|(at, written, is_sampled)| {
            let moved = (written.role, written.synced, written.epoch, written.term, written.link_up, written.accepted)
                != (lineage.role, lineage.synced, lineage.epoch, lineage.term, lineage.link_up, lineage.accepted)
                || *is_sampled != sample.is_some();
            let is_old = *written != lineage || self.sampler.is_to_measure();
            (moved && state.trouble().is_none()) || (at.elapsed() >= WRITE_EVERY && is_old)
        });
        if is_due {
            self.written = Some((Instant::now(), lineage.clone(), sample.is_some()));
            let (environment, growth) = (environment.clone(), Arc::clone(&self.growth));
            let has_loaded = self.served;
            self.disk.begin(move || {
                let sizes = has_loaded.then(|| Sizes::measure(&environment));
                lineage_file::write_with(&environment, &lineage, durable_sizes(&growth, sizes), sample)
            });
        }
    }

    /// Writes the record of a server that ended by our order, for as long as [`LAST_WRITE_WITHIN`].
    pub(crate) async fn write_last(&mut self, environment: &Environment, state: &State, clean: bool) {
        self.file_links.finish_work(state, LINKS_END_WITHIN).await;
        let Some(mut lineage) = state.lineage().filter(|_| self.answered) else { return };
        lineage.clean_stop = clean;
        let (mut lineage, sample) = self.file_offset.on_volume(lineage);
        if self.disk.wait_until_free(LAST_WRITE_WITHIN).await {
            let (environment, growth) = (environment.clone(), Arc::clone(&self.growth));
            let (has_loaded, held, chain_of) =
                (self.served, self.file_links.held().cloned(), self.volume_tasks.take_chain());
            // An engine without an append-only file writes a snapshot as it ends, where its settings have one.
            let may_be_saved = clean && self.data_file.is_left();
            self.disk.begin(move || {
                if let Some(chain_of) = chain_of {
                    ancestry::write(&environment, &chain_of);
                }
                // What a demotion replaced a moment ago was not judged: at the next start the links say of what they are.
                if let Some(Err(error)) = held.map(|held| aside::note_links(&environment, &held)) {
                    tracing::warn!(error = %chain(&error), "the record of the links is that of before");
                }
                if may_be_saved && lineage_file::snapshot_is_newest(&environment) {
                    lineage.append_only = Some(false);
                }
                let sizes = Sizes::measure(&environment);
                // An engine that ended by our order has flushed its file.
                let sizes = if clean { sizes } else { durable_sizes(&growth, Some(sizes).filter(|_| has_loaded)) };
                lineage_file::write_with(&environment, &lineage, sizes, sample)
            });
            if self.disk.wait_until_free(LAST_WRITE_WITHIN).await {
                return;
            }
        }
        tracing::error!("the volume hangs: the last record is not written");
    }

    /// Takes over the chain of histories from the primary, or goes on with it as one.
    pub(super) async fn keep_ancestry(&mut self, state: &State, info: &Info) {
        let known = state.ancestry();
        if known.of == info.replication_id() {
            return;
        }
        let chain = match info.primary_link() {
            None => Some({
                let ended = info.previous_replication_id().and_then(|id| self.sampler.ended(&id));
                ancestry::continued(&known, info, self.began_with.as_ref(), self.file_links.loaded_as(), ended)
            }),
            Some(link) if link.up && !link.syncing => {
                let config = state.config();
                let primary = config.data_nodes.iter().find(|(_, address)| **address == link.primary);
                let answer = match primary {
                    Some((ordinal, address)) => peers::ask_agent(&config, *ordinal, address).await,
                    None => None,
                };
                answer.map(|answer| answer.ancestry).filter(|chain| chain.of == info.replication_id())
            }
            Some(_) => None,
        };
        if let Some(chain) = chain {
            self.volume_tasks.write_chain(chain.clone());
            state.set_ancestry(chain);
        }
    }
}

/// The sizes of the append-only files that count as kept on the disk, once these are noted.
fn durable_sizes(growth: &Mutex<Growth>, sizes: Option<Sizes>) -> Sizes {
    let mut growth = growth.lock().unwrap_or_else(PoisonError::into_inner);
    match sizes {
        Some(sizes) => growth.note(Instant::now(), sizes),
        None => growth.durable_sizes(),
    }
}
