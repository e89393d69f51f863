//! What one observation pass found. A thing that could not be asked is a value of its own, never an error.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::cluster::ClusterView;
use super::function_library::Functions;
use super::lineage::Aside;
use super::{Address, NodeId, Offset, PodRole};

/// Everything that one pass saw of a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Milliseconds since the Unix epoch at the pass's start: the planner's only clock.
    pub at: u64,
    /// Nodes for which any object exists, by identity.
    pub nodes: BTreeMap<NodeId, ObservedNode>,
    /// The data node whose pod the primary's Service selects now.
    pub primary_service: Option<NodeId>,
    /// `resourceVersion` of that Service; `None`: there is none.
    pub primary_service_version: Option<String>,
    /// Whether a planned move of the primary is under way.
    pub handover: bool,
    /// Whether the layer is known to have been initialised (found as declared once), by any word.
    pub initialised: bool,
    /// Whether its objects say so. A status may be lost or be read too late.
    pub recorded: bool,
}

/// What Kubernetes and the server showed of one node in this pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedNode {
    /// Announced address: `clusterIP` of the node's Service, if that exists.
    pub address: Option<Address>,
    /// `None`: there is no StatefulSet.
    pub workload: Option<ObservedWorkload>,
    /// `None`: there is no pod.
    pub pod: Option<ObservedPod>,
    /// UID of its pod, if that lacks labels by which it is found: Services, its StatefulSet and the watch go by them.
    pub unlabelled_pod: Option<String>,
    /// Name of the volume claim of a data node, if that is being deleted: it goes with the pod, and the data with it.
    pub ending_claim: Option<String>,
    /// Since when it is away; `None`: its pod is ready, or it was not looked at.
    pub away: Option<UnavailableNode>,
    /// What the server answered in this pass; `Unknown` without an answer.
    pub server: ObservedServer,
    /// Whether its agent says that the engine of its pod does not load the node's files, and no other node has them.
    pub loads_nothing: bool,
    /// What its agent says that it keeps aside on the volume; `None`: the agent does not answer.
    pub aside: Option<Vec<Aside>>,
}

/// A node without a ready pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnavailableNode {
    /// For how long, as far as this process knows, seconds.
    pub seconds: u64,
    /// Whether it began with a step of our own: a restart.
    pub planned: bool,
    /// Why Kubernetes makes no pod, or does not start it, in its own words (the newest event), if it says so.
    pub words: Option<String>,
}

/// A node's StatefulSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedWorkload {
    /// `metadata.uid`: the precondition of its removal.
    pub uid: String,
    /// Digest recorded when it was applied; empty when the live object was edited since (then it is applied again).
    pub workload_digest: String,
    /// Digest of what only a new pod can take, as its template has it.
    pub restart_revision: String,
    /// Restarts that a person asked for, as its template has them: annotation → value.
    pub restarts: BTreeMap<String, String>,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
}

/// A node's pod, as the watch shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedPod {
    /// `metadata.uid`: the precondition of a restart, a patch and a label.
    pub uid: String,
    /// Restart revision that it was created from.
    pub restart_revision: String,
    /// Restarts that were asked for before it was created: annotation → value.
    pub restarts: BTreeMap<String, String>,
    /// Digest of the node-config document that it carries.
    pub config_digest: String,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// Condition `Ready`.
    pub ready: bool,
    /// Why it does not run, in Kubernetes' words (`ImagePullBackOff: …`, `Unschedulable: …`), if it does not.
    pub trouble: Option<String>,
    /// `spec.nodeName`.
    pub kubernetes_node: Option<String>,
    /// Zone label of that node, where known.
    pub zone: Option<String>,
    /// Label `redoubt.dev/reads`: whether the replicas' Service selects it.
    pub reads: bool,
    /// Label `redoubt.dev/role`; `None`: it has none, or one that is none of ours.
    pub role: Option<PodRole>,
}

/// What a server answered in this pass; an older answer never counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ObservedServer {
    /// Not asked yet, or no answer in time.
    #[default]
    Unknown,
    /// It answers, but is loading its dataset.
    Loading,
    /// It answers as a data server.
    Data(Box<DataServer>),
    /// It answers as a Sentinel.
    Sentinel(Box<SentinelServer>),
}

/// What the server of a data node answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataServer {
    /// `run_id`: changes with each start; the precondition of every command to it.
    pub run_id: String,
    /// Role and what belongs to it.
    pub replication: Replication,
    /// `master_repl_offset` (primary) or `slave_repl_offset` (replica).
    pub offset: Offset,
    /// `CONFIG GET` of the desired directives, canonical; a directive that the server does not know is absent.
    pub settings: BTreeMap<String, String>,
    /// Users whose rules match what is desired.
    pub users_in_place: BTreeSet<String>,
    /// Users that exist and are not declared; the default user where it is on.
    pub users_foreign: BTreeSet<String>,
    /// Function libraries: name → the digest that they answer (empty: the library is there but does not answer one).
    pub libraries: BTreeMap<String, String>,
    /// Users' libraries among them: name → their functions, without the one that answers the digest.
    pub functions: BTreeMap<String, Functions>,
    /// `used_memory`: bytes that the server has allocated.
    pub used_memory: u64,
    /// `maxmemory`, bytes; 0 is unbounded.
    pub maxmemory: u64,
    /// `rejected_connections`: clients that were turned away since the process began.
    pub rejected_connections: u64,
    /// Whether it has no connection left for a new client, or turned one away a short while ago.
    pub refuses_clients: bool,
    /// Last persistence error (`MISCONF` cause), if any: `rdb`, `aof`.
    pub persistence_trouble: Option<String>,
    /// What it believes of its Cluster; `None`: it is in none, or did not say.
    pub cluster: Option<ClusterView>,
    /// `INFO server`: `redis_version`, or `valkey_version` with its name, for status.
    pub version: String,
}

/// Role of a live data server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replication {
    /// Takes writes; replicas that are online, by announced address, with their acknowledged offsets.
    Primary {
        /// Announced address → acknowledged offset, replicas in state `online` only.
        replicas: BTreeMap<Address, Offset>,
    },
    /// Copies another server.
    Replica {
        /// Whom it was told to follow.
        primary: Address,
        /// `master_link_status:up`.
        link_up: bool,
        /// `master_sync_in_progress`.
        syncing: bool,
        /// `slave_priority`: 0 is never promoted.
        priority: u32,
        /// Seconds since the link was lost (`master_link_down_since_seconds`); where this process never had one, seconds
        /// since it began. `None`: the link is up, or the server does not say.
        link_down_seconds: Option<u64>,
    },
}

/// A live Sentinel and what it believes of the layer's primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentinelServer {
    /// `run_id`: changes with each start; the precondition of every command to it.
    pub run_id: String,
    /// What it monitors under the layer's master name; `None`: nothing yet.
    pub master: Option<SentinelMaster>,
    /// Users whose rules match what is desired.
    pub users_in_place: BTreeSet<String>,
    /// Users that exist and are not declared, as of a data server.
    pub users_foreign: BTreeSet<String>,
    /// In TILT mode (its clock jumped): trust nothing it says.
    pub tilt: bool,
}

/// What one Sentinel answers to `SENTINEL MASTER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentinelMaster {
    /// Address of the server that it takes for the primary.
    pub address: Address,
    /// `config-epoch`: number of the failover that made the primary.
    pub config_epoch: u64,
    /// `flags` as words.
    pub flags: BTreeSet<String>,
    /// `quorum`: Sentinels that must agree that the primary is down.
    pub quorum: u16,
    /// `down-after-milliseconds`.
    pub detection: Duration,
    /// `failover-timeout`, as this Sentinel has it.
    pub failover_timeout: Duration,
    /// `parallel-syncs`: replicas that are repointed at the same time in a failover.
    pub parallel_syncs: u16,
    /// Other Sentinels that it knows: `runid` → address.
    pub other_sentinels: BTreeMap<String, Address>,
    /// Milliseconds since this Sentinel last began to know its primary again (`role-reported-time`): its own start, a
    /// `+switch-master`, a `SENTINEL RESET` and a change of the role that the primary reports each set it to zero. `None`:
    /// it does not say. The only memory of a reset that there is: we keep none.
    pub steady_milliseconds: Option<u64>,
    /// Replicas that it knows: address → its flags.
    pub replicas: BTreeMap<Address, BTreeSet<String>>,
}

impl SentinelMaster {
    /// Whether this Sentinel has a failover under way.
    pub(crate) fn is_failing_over(&self) -> bool {
        self.flags.contains("failover_in_progress")
    }

    /// Whether the primary is down for this Sentinel.
    pub(crate) fn is_down(&self) -> bool {
        self.flags.contains("s_down")
    }

    /// Whether the primary is down for a quorum of Sentinels, this one among them.
    pub(crate) fn is_down_for_quorum(&self) -> bool {
        self.flags.contains("o_down")
    }

    /// The flag under which no node is disturbed and no primary is moved: the primary is down for this Sentinel, or a failover is under
    /// way. `None`: there is none.
    pub(crate) fn trouble(&self) -> Option<&'static str> {
        ["s_down", "o_down", "failover_in_progress"].into_iter().find(|flag| self.flags.contains(*flag))
    }
}
