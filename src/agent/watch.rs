//! What an agent follows of its running engine: health, role, record, priority, hit ratio.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::activity::activity_of;
use super::announcement::Announcement;
use super::append_files::{Growth, Sizes};
use super::boot::{Again, Asking, Start};
use super::config::Environment;
use super::counters::Harvest;
use super::disk::Disk;
use super::endless::Endless;
use super::engine::Reached;
use super::health::Health;
use super::hit_ratio::HitHistory;
use super::joining::Joining;
use super::misled::Misled;
use super::rivals::Rivals;
use super::standing::Standing;
use super::state::State;
use super::writers::Writers;
use super::{ancestry, aside, chosen, handover, lineage_file, peers, redis_conf, stray};
use crate::model::lineage::{Activity, LINEAGE_FORMAT, Lineage, LineageAnswer, next_term};
use crate::model::node_config::{NodeConfig, REDIS_PORT};
use crate::model::{Address, Mode, ReplicationId, Role};
use crate::redis::info::{AppendOnly, Info};
use crate::redis::{Connection, server};

/// The record is written at least this often, so that its offset is at most so old (as old as `appendfsync everysec`).
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// How long the last record may take, and one that is being written before it: the pod's grace period is mostly the engine's.
const LAST_WRITE_WITHIN: Duration = Duration::from_secs(3);
/// Between two tries to hand over: one that fails may have kept writers waiting for some seconds.
const HAND_OVER_EVERY: Duration = Duration::from_secs(10);
/// How long what the Sentinels told holds for a replica at rest.
const TOLD_FOR: Duration = Duration::from_secs(1);

/// What is followed of a running engine.
#[expect(clippy::struct_excessive_bools, reason = "facts that are independent of each other")]
pub struct Watch {
    connection: Option<Connection>,
    answered: bool,
    served: bool,
    term: u64,
    /// The line of data whose term `term` is, where that was copied from its primary.
    term_of: Option<ReplicationId>,
    epoch: u64,
    /// The person's decision that was carried out or overtaken ([`Lineage::accepted`]).
    accepted: Option<u16>,
    /// When the chosen node was asked last.
    asked_chosen: Option<Instant>,
    /// A person chose this node's data, and the Sentinels may not know yet.
    is_chosen: bool,
    /// Why the engine has to end, to be started by what the rule says then.
    starts_over: Option<&'static str>,
    rivals: Rivals,
    misled: Misled,
    last_role: Option<Role>,
    /// The replication id that it had at the last look, if it was primary then.
    primary_as: Option<ReplicationId>,
    /// Whether it was primary, or had a link to its primary, since its start: before, its data is what the record says.
    linked: bool,
    joining: Joining,
    /// While the rule is asked again ([`Watch::decide_again`]).
    asking: Option<Asking>,
    announcement: Announcement,
    demoted: bool,
    writers: Writers,
    standing: Standing,
    /// Whether it follows what is no node of the layer.
    is_astray: bool,
    /// The record of the data that the server began with. `None`: there was none, or its files had lost some of it.
    began_with: Option<Lineage>,
    /// How long the append-only files were some seconds ago.
    growth: Arc<Mutex<Growth>>,
    endless: Endless,
    disk: Disk,
    handed_over: Option<Instant>,
    /// Whether a script that cannot be killed keeps the server from all else.
    is_to_end: bool,
    majority: Option<(Address, u64)>,
    /// When the Sentinels told that.
    told: Option<Instant>,
    /// While a primary: the highest epoch that was known when it became one.
    baseline: Option<u64>,
    written: Option<(Instant, Lineage)>,
    /// Whether the data is in the append-only file.
    append_only: bool,
    was_in_sync: bool,
    hits: HitHistory,
    harvest: Harvest,
}

impl Watch {
    /// Of an engine that is being started.
    pub fn new(environment: &Environment, state: &State, start: &Start, append_only: bool) -> Self {
        let uid = state.config().layer.uid.clone();
        let own = state.lineage();
        let term = own.as_ref().map_or(0, |own| own.term);
        let (recorded, present) = (lineage_file::sizes(environment), Sizes::measure(environment));
        let (term, last_role) = match start.primary {
            None => (next_term(term.max(start.highest_term)), Some(Role::Primary)),
            Some(_) => (term, Some(Role::Replica)),
        };
        Self {
            connection: None,
            answered: false,
            served: false,
            term,
            term_of: None,
            // Another layer's epochs are of other Sentinels.
            epoch: own
                .as_ref()
                .filter(|own| own.layer_uid == uid)
                .map_or(0, |own| own.epoch)
                .max(start.chosen_under.unwrap_or(0)),
            accepted: own.as_ref().and_then(|own| own.accepted),
            asked_chosen: None,
            is_chosen: start.chosen_under.is_some(),
            starts_over: None,
            rivals: Rivals::default(),
            misled: Misled::default(),
            last_role,
            primary_as: None,
            linked: false,
            joining: Joining::default(),
            asking: None,
            announcement: Announcement::default(),
            // Clients of the predecessor that come back while this one loads must not stay.
            demoted: start.primary.is_some() && start.was_primary,
            writers: Writers::default(),
            standing: Standing::open(environment, own.as_ref()),
            is_astray: false,
            began_with: own.clone().filter(|_| recorded.shortened(&present).is_none()),
            growth: Arc::new(Mutex::new(Growth::new(&recorded, &present))),
            endless: Endless::default(),
            disk: Disk::default(),
            handed_over: None,
            is_to_end: false,
            majority: None,
            told: None,
            baseline: None,
            written: None,
            append_only,
            was_in_sync: false,
            hits: HitHistory::default(),
            harvest: Harvest::default(),
        }
    }

    /// Looks once: health, role, record. Whether the server said all that is recorded of it.
    pub async fn look(&mut self, environment: &Environment, state: &State) -> bool {
        let asked = self.ask(environment, state).await;
        let is_told = asked.is_ok();
        match asked {
            Ok((info, connection)) => {
                self.answered = true;
                self.endless.rests();
                let stopping = state.health() == Health::Stopping;
                if !stopping {
                    state.set_health(Health::of_answer(&info));
                }
                self.hits.record(Instant::now(), &info, state.own_reads());
                state.set_hit_ratio(self.hits.ratio());
                if !info.is_loading() {
                    self.served = true;
                    self.harvest.look(state.counters(), &connection);
                    self.joining.look(&info, Instant::now());
                    if let Some(stranger) = stray::stranger_followed(state, &info).await {
                        tracing::error!(%stranger, "this server follows what is no node of the layer: it is ended");
                        (self.is_astray, self.is_to_end) = (true, true);
                        return false;
                    }
                    self.record(state, &info).await;
                    self.keep_ancestry(environment, state, &info).await;
                    self.standing.look(environment, state, &info, state.lineage().as_ref()).await;
                    if info.keys().0 > 0 {
                        state.note_keys(environment);
                    }
                    if !stopping {
                        self.step_down(state, &connection, &info).await;
                        let was_primary = std::mem::take(&mut self.demoted);
                        self.writers.look(&connection, &info, was_primary).await;
                        if was_primary {
                            end_pause(&connection).await;
                        }
                        self.look_at_rivals(state, &info).await;
                        let again = self.decide_again(state, &info).await;
                        self.keep_priority(&connection, &info, &again).await;
                        accept_nomination(&connection, &again).await;
                        self.leave_hung_disk(environment, state, &info).await;
                        self.announcement.keep(environment, state, &connection, &info).await;
                        state.set_activity(activity_of(&info, &self.joining));
                    }
                }
                self.connection = Some(connection);
            }
            Err(error) => {
                if state.health() != Health::Stopping {
                    state.set_health(Health::of_error(error.class(), &state.health()));
                }
                self.is_to_end = self.endless.look(&error, self.connection.as_ref(), self.append_only).await;
                if !error.class().is_alive() {
                    self.connection = None;
                }
            }
        }
        is_told
    }

    /// Reads what the server's functions counted: it is about to be ended.
    pub async fn read_counters(&self, state: &State) {
        if let Some(connection) = &self.connection {
            state.counters().look_within(connection).await;
        }
    }

    /// Asks over the connection that is open, and over a new one where that turns out to be cut: a Sentinel cuts all connections of
    /// the servers that it promotes or demotes, and what they have become is what has to be known then.
    async fn ask(&self, environment: &Environment, state: &State) -> Result<(Info, Connection), crate::redis::Error> {
        if let Some(open) = &self.connection {
            match server::info(open).await {
                Err(error) if error.is_cut() => {}
                asked => return Ok((asked?, open.clone())),
            }
        }
        let connection = Connection::open(&state.own_endpoint(environment)).await?;
        Ok((server::info(&connection).await?, connection))
    }

    /// A primary that the Sentinels have replaced follows its successor at once: what it takes from here on is lost. The
    /// Sentinels order it too, but only after eight seconds, and later where a pause holds up their connection. Not before
    /// the successor says itself that it is primary (Sentinels that come back from an old file may name a replica of ours),
    /// and only in an epoch above all that were known when this node became primary: until they hear of a promotion, the
    /// Sentinels name the predecessor, which may still serve. The order goes over the connection of the look that it follows
    /// from: a Sentinel cuts all connections of a server that it promotes, so it cannot reach one promoted since.
    async fn step_down(&self, state: &State, connection: &Connection, info: &Info) {
        let config = state.config();
        let Some((named, epoch)) = &self.majority else { return };
        if info.role() != Some(Role::Primary)
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
    async fn look_at_rivals(&mut self, state: &State, info: &Info) {
        if info.role() != Some(Role::Primary) {
            self.rivals = Rivals::default();
            let named = self.majority.as_ref().map(|(named, _)| named);
            if self.misled.look(&state.config(), info, named).await {
                self.starts_over = Some("no Sentinel points this replica to the primary");
            }
        // Else the Sentinels are being told of what a person chose.
        } else if !self.is_chosen {
            self.starts_over = self.rivals.look(state).await.or(self.starts_over);
        }
    }

    /// The boot rule once more, for a replica that finds nobody to follow: before it took part in what a primary writes, because the
    /// rule may say another thing by now; later, only if the Sentinels name this very node.
    async fn decide_again(&mut self, state: &State, info: &Info) -> Again {
        let followed = info.primary_link().filter(|link| !link.up && !link.syncing).map(|link| link.primary);
        let config = state.config();
        let is_own = |named: &Address| config.own_address() == Some(named);
        let is_told = self.majority.as_ref().is_some_and(|(named, _)| !is_own(named));
        // Who takes part and follows whom the Sentinels name is theirs to promote; a person may choose it all the same.
        let is_chosen = config.accept_loss == Some(config.node.ordinal);
        let Some(followed) = followed.filter(|_| !self.joining.is_done() || !is_told || is_chosen) else {
            self.asking = None;
            if !self.rivals.needs_person() {
                if !self.is_chosen {
                    state.set_accepting(false);
                }
                state.set_needs_person(None);
            }
            return Again::default();
        };
        let again = self.asking.get_or_insert_default().again(state).await;
        if state.is_accepting() {
            self.starts_over = Some("a person chose its data");
        } else if again.follows.as_ref().is_some_and(|primary| *primary != followed) {
            self.starts_over = Some("another node is primary, and no Sentinel points this one to it");
        }
        again
    }

    /// Whether the engine is to be ended, and why: a person chose another node's data and that node waits for this one, or this node
    /// is to start by what the rule says now.
    pub async fn starts_over(&mut self, state: &State) -> Option<&'static str> {
        let config = state.config();
        let chosen = config.accept_loss.filter(|chosen| *chosen != config.node.ordinal);
        if let Some(chosen) = chosen
            && self.asked_chosen.is_none_or(|at| at.elapsed() >= TOLD_FOR)
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

    /// Tells the Sentinels that a person chose this node for as long as one names another, and keeps the decision from counting again.
    async fn keep_chosen(&mut self, state: &State, config: &NodeConfig, role: Role, views: Option<&[peers::View]>) {
        // A decision that a primary waits for is not carried out by its being one.
        let is_own = config.accept_loss == Some(config.node.ordinal);
        if role == Role::Primary && is_own && !self.rivals.needs_person() {
            self.accepted = config.accept_loss;
        }
        let Some(views) = views.filter(|_| self.is_chosen) else { return };
        if role == Role::Primary && chosen::is_unknown_to(views, config.own_address(), self.epoch) {
            self.epoch = chosen::raised(views, config.own_address(), self.epoch);
            chosen::announce(state, config, self.epoch).await;
        } else {
            self.is_chosen = false;
            state.set_accepting(false);
        }
    }

    /// A replica that takes part may be elected; one that does not may not, unless it has the best of what is left: else a layer whose
    /// primary came back empty would have nobody to elect.
    async fn keep_priority(&self, connection: &Connection, info: &Info, again: &Again) {
        let Some(link) = info.primary_link() else { return };
        if link.priority != 0 || link.syncing {
            return;
        }
        if (link.up && self.joining.is_done()) || again.electable {
            tracing::info!(linked = link.up, "the node may be elected");
            let whole = redis_conf::PRIORITY_WHOLE.to_string();
            if let Err(error) = server::config_set(connection, "replica-priority", &whole).await {
                tracing::warn!(%error, "the node stays unelectable");
            }
        }
    }

    async fn record(&mut self, state: &State, info: &Info) {
        let config = state.config();
        let Some(role) = info.role() else { return };
        let is_promoted = self.is_promoted(role, info);
        self.primary_as = (role == Role::Primary).then(|| info.replication_id());
        self.demoted |= role == Role::Replica && self.last_role == Some(Role::Primary);
        self.last_role = Some(role);
        let link = info.primary_link();
        let in_sync = link.as_ref().is_none_or(|link| link.up && !link.syncing);
        self.linked |= link.as_ref().is_none_or(|link| link.up || link.syncing);
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
            // A primary that was replaced and came back between two looks never held its predecessor's term.
            let (views, highest_term) =
                tokio::join!(peers::ask_sentinels(state, &config), peers::highest_term(&config));
            (self.term, self.term_of) = (next_term(self.term.max(highest_term)), None);
            Some(views)
        } else if self.is_at_rest(role, in_sync, primary.as_ref()) {
            None
        } else {
            Some(peers::ask_sentinels(state, &config).await)
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
        self.keep_chosen(state, &config, role, views.as_deref()).await;
        self.note_append_only(info, in_sync);
        let before = state.lineage();
        let synced = in_sync || (before.is_some_and(|before| before.synced) && link.is_some_and(|link| !link.syncing));
        state.set_lineage(Some(Lineage {
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
            append_only: Some(self.append_only),
            accepted: self.accepted,
        }));
        self.was_in_sync = in_sync;
    }

    /// Whether it is a replica in sync with whom the Sentinels named a moment ago: until that changes it is told nothing new.
    fn is_at_rest(&self, role: Role, in_sync: bool, primary: Option<&Address>) -> bool {
        role == Role::Replica
            && in_sync
            && self.was_in_sync
            && self.majority.as_ref().map(|(named, _)| named) == primary
            && self.told.is_some_and(|at| at.elapsed() < TOLD_FOR)
    }

    /// An append-only file that is written anew still holds all data in what was there before, but not after a full sync: a replica
    /// begins a new one with what it was sent, and until that is whole the old one has what the replica had before.
    fn note_append_only(&mut self, info: &Info, in_sync: bool) {
        self.append_only = match info.append_only() {
            AppendOnly::Off => false,
            AppendOnly::Whole => true,
            AppendOnly::Rewriting => {
                self.append_only && (info.role() == Some(Role::Primary) || (in_sync && self.was_in_sync))
            }
        };
    }

    /// Whether it became primary since the last look: it was a replica then, or a primary with another replication id. A server
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
    /// between from it, and two lines would have the same. A line has one term: whoever starts or is promoted begins another.
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
    pub fn write_if_due(&mut self, environment: &Environment, state: &State) {
        if let Some(outcome) = self.disk.ended() {
            state.set_trouble(outcome.err().as_ref());
        }
        let Some(lineage) = state.lineage().filter(|_| self.answered && self.disk.is_idle()) else { return };
        let is_due = self.written.as_ref().is_none_or(|(at, written)| {
            let moved = (written.role, written.synced, written.epoch, written.term, written.link_up, written.accepted)
                != (lineage.role, lineage.synced, lineage.epoch, lineage.term, lineage.link_up, lineage.accepted);
            (moved && state.trouble().is_none()) || (at.elapsed() >= WRITE_EVERY && *written != lineage)
        });
        if is_due {
            self.written = Some((Instant::now(), lineage.clone()));
            let (environment, growth) = (environment.clone(), Arc::clone(&self.growth));
            let has_loaded = self.served;
            self.disk.begin(move || {
                let sizes = has_loaded.then(|| Sizes::measure(&environment));
                lineage_file::write_with(&environment, &lineage, settled(&growth, sizes))
            });
        }
    }

    /// Writes the record of a server that ended by our order, for as long as [`LAST_WRITE_WITHIN`].
    pub async fn write_last(&mut self, environment: &Environment, state: &State, clean: bool) {
        let Some(mut lineage) = state.lineage().filter(|_| self.answered) else { return };
        lineage.clean_stop = clean;
        if self.disk.settle(LAST_WRITE_WITHIN).await {
            let (environment, growth) = (environment.clone(), Arc::clone(&self.growth));
            let has_loaded = self.served;
            self.disk.begin(move || {
                let sizes = Sizes::measure(&environment);
                // An engine that ended by our order has flushed its file.
                let sizes = if clean { sizes } else { settled(&growth, Some(sizes).filter(|_| has_loaded)) };
                lineage_file::write_with(&environment, &lineage, sizes)
            });
            if self.disk.settle(LAST_WRITE_WITHIN).await {
                return;
            }
        }
        tracing::error!("the volume hangs: the last record is not written");
    }

    /// A primary whose volume hangs hands over while its server still answers: soon it would not, and what it confirms is in no file.
    async fn leave_hung_disk(&mut self, environment: &Environment, state: &State, info: &Info) {
        let Some(hangs) = self.disk.hangs() else { return };
        state.set_health(Health::DiskHangs);
        let is_due = self.handed_over.is_none_or(|at| at.elapsed() >= HAND_OVER_EVERY);
        if info.role() != Some(Role::Primary) || state.config().mode != Mode::Sentinel || !is_due {
            return;
        }
        tracing::error!(?hangs, "the volume hangs: the primary hands over");
        self.handed_over = Some(Instant::now());
        if let Err(error) = handover::try_once(environment, state).await {
            tracing::warn!(error = %crate::telemetry::Chain(&error), "not handed over, to be tried again");
        }
    }

    /// Takes over the chain of histories from the primary, or goes on with it as one.
    async fn keep_ancestry(&self, environment: &Environment, state: &State, info: &Info) {
        let known = state.ancestry();
        if known.of == info.replication_id() {
            return;
        }
        let chain = match info.primary_link() {
            None => Some(ancestry::continued(&known, info, self.began_with.as_ref())),
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
            ancestry::write(environment, &chain);
            state.set_ancestry(chain);
        }
    }

    /// After the end of a server that followed what is no node of the layer: the node has the files of before again.
    pub fn take_back(&mut self, environment: &Environment, state: &State) {
        if !std::mem::take(&mut self.is_astray) {
            return;
        }
        let Some(record) = self.standing.record() else { return };
        match aside::restore_standing(environment, record) {
            Ok(true) => tracing::warn!(keys = record.keys, "the node has its own files back"),
            Ok(false) => {}
            Err(error) => {
                state.set_unusable(Some(&format!("Stray: the node's own files are in /data/aside/.standing: {error}")));
            }
        }
    }

    /// Whether the server is to be ended: it will do nothing any more.
    pub fn is_to_end(&self) -> bool {
        self.is_to_end
    }

    /// How far the engine came.
    pub fn reached(&self) -> Reached {
        match (self.answered, self.served) {
            (_, true) => Reached::Serving,
            (true, false) => Reached::Loading,
            (false, false) => Reached::Nothing,
        }
    }
}

/// The sizes of the append-only files that count as kept on the disk, once these are noted.
fn settled(growth: &Mutex<Growth>, sizes: Option<Sizes>) -> Sizes {
    let mut growth = growth.lock().unwrap_or_else(PoisonError::into_inner);
    match sizes {
        Some(sizes) => growth.note(Instant::now(), sizes),
        None => growth.settled(),
    }
}

/// A mover that was killed leaves the old primary's writers paused. Once it is a replica there is nothing to pause for: its writers are
/// told so instead of being kept waiting.
async fn end_pause(connection: &Connection) {
    if let Err(error) = server::unpause(connection).await {
        tracing::warn!(%error, "writers of the old primary may stay paused for a while");
    }
}

/// Sentinels elect among the replicas of the node that they name, never that node: one that they name and that runs as a replica is
/// promoted by nobody. So it is when all nodes start anew before most Sentinels heard of the last failover: they name its loser, whom
/// its winner follows to be elected; then they hear of it, name the winner, and each of the two follows the other, for ever. Where
/// they name nobody the rule decides as at a start, unless somebody has begun to start as primary.
async fn accept_nomination(connection: &Connection, again: &Again) {
    if !again.promotes_itself {
        return;
    }
    tracing::info!("nobody has newer data, and nobody else is or may become primary: this replica does");
    if let Err(error) = server::replica_of_no_one(connection).await {
        tracing::warn!(%error, "this node stays a replica, though the Sentinels name it");
    }
}
