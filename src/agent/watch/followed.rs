//! What is followed of a running engine, as data: who follows what is in the files next to this one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::agent::announcement::Announcement;
use crate::agent::append_files::{Growth, Sizes};
use crate::agent::aside;
use crate::agent::boot::{EngineStart, LayerPoll};
use crate::agent::busy_script::BusyScript;
use crate::agent::client_memory::ClientMemory;
use crate::agent::cluster::watch::ClusterWatch;
use crate::agent::config::Environment;
use crate::agent::counters::CounterPoll;
use crate::agent::credentials::{Given, Lockout};
use crate::agent::data_file::DataFile;
use crate::agent::disk::Disk;
use crate::agent::error_stats::ErrorStats;
use crate::agent::file_links::FileLinks;
use crate::agent::file_offset::FileOffset;
use crate::agent::functions::file::FunctionPoll;
use crate::agent::hit_ratio::HitHistory;
use crate::agent::lineage_file;
use crate::agent::new_connections::NewConnections;
use crate::agent::own_room::OwnRoom;
use crate::agent::replica_state::ReplicaState;
use crate::agent::rivals::Rivals;
use crate::agent::sampler::Sampler;
use crate::agent::script_cache::ScriptCache;
use crate::agent::state::State;
use crate::agent::unresponsive::UnresponsiveServer;
use crate::agent::volume_tasks::VolumeTasks;
use crate::agent::writers::Writers;
use crate::agent::wrong_primary::WrongPrimary;
use crate::model::lineage::{Lineage, next_term};
use crate::model::{Address, ReplicationId, Role};
use crate::redis::Connection;

/// How long the work on the links may take that is under way as the engine ends.
pub(super) const LINKS_END_WITHIN: Duration = Duration::from_secs(3);
/// How long an answer of the Sentinels holds for a replica at rest.
pub(super) const SENTINEL_ANSWER_HOLDS: Duration = Duration::from_secs(1);

/// What is followed of a running engine.
#[expect(clippy::struct_excessive_bools, reason = "facts that are independent of each other")]
pub(crate) struct Watch {
    pub(super) connection: Option<Connection>,
    pub(super) answered: bool,
    pub(super) served: bool,
    pub(super) term: u64,
    /// The line of data whose term `term` is, where that was copied from its primary.
    pub(super) term_of: Option<ReplicationId>,
    pub(super) epoch: u64,
    /// The person's decision that was carried out or overtaken ([`Lineage::accepted`]).
    pub(super) accepted: Option<u16>,
    /// When the chosen node was asked last.
    pub(super) asked_chosen: Option<Instant>,
    /// A person chose this node's data, and the Sentinels may not know yet.
    pub(super) is_chosen: bool,
    /// A person chose this node's data, and it was promoted as it ran: the rule did not start it, so no copy was kept then.
    pub(super) is_chosen_as_replica: bool,
    /// Why the engine has to end, to be started by what the rule says then.
    pub(super) starts_over: Option<&'static str>,
    /// What mode `Cluster` follows besides.
    pub(super) cluster: ClusterWatch,
    pub(super) rivals: Rivals,
    pub(super) wrong_primary: WrongPrimary,
    pub(super) last_role: Option<Role>,
    /// The replication id that it had at the last poll, if it was primary then.
    pub(super) primary_as: Option<ReplicationId>,
    /// Whether it was primary, or had a link to its primary, since its start: before, its data is what the record says.
    pub(super) linked: bool,
    pub(super) replica_state: ReplicaState,
    /// Since when it is a replica without a link.
    pub(super) alone_since: Option<Instant>,
    /// While the rule is asked again ([`Watch::decide_again`]).
    pub(super) poll: Option<LayerPoll>,
    pub(super) announcement: Announcement,
    pub(super) demoted: bool,
    pub(super) writers: Writers,
    pub(super) client_memory: ClientMemory,
    pub(super) own_room: OwnRoom,
    pub(super) new_connections: NewConnections,
    pub(super) scripts: ScriptCache,
    pub(super) error_stats: ErrorStats,
    pub(super) file_links: FileLinks,
    /// Whether it follows what is no node of the layer.
    pub(super) is_astray: bool,
    /// The record of the data that the server began with. `None`: there was none, or its files had lost some of it.
    pub(super) began_with: Option<Lineage>,
    /// How long the append-only files were some seconds ago.
    pub(super) growth: Arc<Mutex<Growth>>,
    pub(super) busy_script: BusyScript,
    pub(super) unresponsive: UnresponsiveServer,
    pub(super) lockout: Lockout,
    pub(super) replication: Given,
    pub(super) disk: Disk,
    pub(super) volume_tasks: VolumeTasks,
    pub(super) handed_over: Option<Instant>,
    /// Whether a script that cannot be killed keeps the server from all else, or it answers nothing.
    pub(super) is_to_end: bool,
    pub(super) majority: Option<(Address, u64)>,
    /// When the Sentinels told that.
    pub(super) told: Option<Instant>,
    /// While a primary: the highest epoch that was known when it became one.
    pub(super) baseline: Option<u64>,
    /// The record that was written last, when, and whether it says how long the files were.
    pub(super) written: Option<(Instant, Lineage, bool)>,
    /// Which file has the data.
    pub(super) data_file: DataFile,
    pub(super) file_offset: FileOffset,
    pub(super) sampler: Sampler,
    pub(super) was_in_sync: bool,
    pub(super) hits: HitHistory,
    pub(super) counter_poll: CounterPoll,
    pub(super) function_poll: FunctionPoll,
}

impl Watch {
    /// Of an engine that is being started.
    pub(crate) fn new(environment: &Environment, state: &State, start: &EngineStart, append_only: bool) -> Self {
        let config = state.config();
        let uid = config.layer.uid.clone();
        let wants_append_only = config.keeps_data && config.wants_append_only();
        let own = state.lineage();
        let term = own.as_ref().map_or(0, |own| own.term);
        let file_links = FileLinks::open(environment, own.as_ref());
        state.set_aside(aside::list(environment));
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
            is_chosen_as_replica: false,
            starts_over: None,
            cluster: ClusterWatch::default(),
            rivals: Rivals::default(),
            wrong_primary: WrongPrimary::default(),
            last_role,
            primary_as: None,
            linked: false,
            replica_state: ReplicaState::default(),
            alone_since: None,
            poll: None,
            announcement: Announcement::default(),
            // Clients of the predecessor that come back while this one loads must not stay.
            demoted: start.primary.is_some() && start.was_primary,
            writers: Writers::default(),
            client_memory: ClientMemory::default(),
            own_room: OwnRoom::default(),
            new_connections: NewConnections::default(),
            scripts: ScriptCache::default(),
            error_stats: ErrorStats::default(),
            file_links,
            is_astray: false,
            began_with: own.clone().filter(|_| lineage_file::truncated(environment).is_none()),
            growth: Arc::new(Mutex::new(Growth::new(&recorded, &present))),
            busy_script: BusyScript::default(),
            unresponsive: UnresponsiveServer::default(),
            lockout: Lockout::default(),
            replication: Given::default(),
            disk: Disk::default(),
            volume_tasks: VolumeTasks::default(),
            handed_over: None,
            is_to_end: false,
            majority: None,
            told: None,
            baseline: None,
            written: None,
            data_file: DataFile::new(append_only, wants_append_only),
            file_offset: FileOffset::new(lineage_file::sample(environment)),
            sampler: Sampler::new(),
            was_in_sync: false,
            hits: HitHistory::default(),
            counter_poll: CounterPoll::default(),
            function_poll: FunctionPoll::default(),
        }
    }
}
