//! From a validated layer and its built objects to what the planner, the probes and the report want to know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::act::secrets::{Passwords, digest};
use crate::api::data_layer::{ApprovalPolicy, DataLayer};
use crate::api::data_layer_status::MemoryStatus;
use crate::api::names;
use crate::build::{BuiltNode, declared};
use crate::dataplane::Library;
use crate::model::audit::AuditMode;
use crate::model::desired::{Desired, DesiredLibrary, DesiredNode, DesiredUser, SentinelSettings};
use crate::model::engine::EngineVersion;
use crate::model::node_config::{REDIS_PORT, SENTINEL_PORT};
use crate::model::{Mode, NodeId, NodeKind, directives};
use crate::observe::kubernetes::Children;
use crate::observe::servers::{Question, ServerProbe};
use crate::redis::Endpoint;
use crate::redis::probe::DataProbe;
use crate::redis::users::{
    OPERATOR, PasswordDigests, data_users, let_agents_repair, sentinel_users, serve_caches, serve_cluster,
};
use crate::report::LayerSummary;
use crate::validate::ValidatedLayer;

/// Characters of an approval that are repeated in a message.
const LONGEST_APPROVAL: usize = 40;

/// Digests of a layer's passwords.
pub(super) fn digests(passwords: &Passwords, layer: &ValidatedLayer) -> PasswordDigests {
    PasswordDigests {
        operator: digest(&passwords.operator),
        agent: digest(&passwords.agent),
        replication: digest(&passwords.replication),
        sentinel: digest(&passwords.sentinel),
        application: layer.application_access.then(|| digest(&passwords.application)),
        administrator: layer.administrator.map(|access| (access, digest(&passwords.administrator))),
    }
}

/// The users of a layer's servers: the system's, and those of its uses.
pub(super) struct Users {
    pub(super) data: BTreeMap<String, DesiredUser>,
    pub(super) sentinels: BTreeMap<String, DesiredUser>,
}

impl Users {
    /// Puts both together. `audit`: what the agents do about keys without an expiry. `caches`: those that the layer serves, by prefix
    /// with the channel of each.
    pub(super) fn of(
        digests: &PasswordDigests,
        mode: Mode,
        audit: AuditMode,
        caches: &BTreeMap<String, String>,
        uses: (BTreeMap<String, DesiredUser>, BTreeMap<String, DesiredUser>),
    ) -> Self {
        let (mut data, mut sentinels) = (data_users(digests), sentinel_users(digests));
        match audit {
            AuditMode::Report => {}
            AuditMode::Repair => let_agents_repair(&mut data),
        }
        serve_caches(&mut data, caches);
        if mode == Mode::Cluster {
            serve_cluster(&mut data);
        }
        data.extend(uses.0);
        sentinels.extend(uses.1);
        Self { data, sentinels }
    }
}

/// What the planner compares with. `nodes`: those that were built.
pub(super) fn desired(
    object: &DataLayer,
    layer: &ValidatedLayer,
    nodes: &BTreeMap<NodeId, BuiltNode>,
    users: Users,
    libraries: &[Library],
) -> Desired {
    // Before all addresses are known nothing is built that has a revision; the planner asks for addresses first.
    let unknown = || DesiredNode {
        workload_digest: String::new(),
        restart_revision: String::new(),
        config_digest: String::new(),
    };
    let nodes = declared(layer)
        .into_iter()
        .map(|node| (node, nodes.get(&node).map_or_else(unknown, |built| built.revisions.clone())));
    Desired {
        layer: layer.identity.clone(),
        generation: object.metadata.generation.unwrap_or_default(),
        in_cluster: layer.mode == Mode::Cluster,
        paused: object.spec.paused.unwrap_or(false),
        engine: EngineVersion::of_image(&layer.engine_image),
        reads_files: layer.keeps_data || layer.data_nodes > 1,
        disruption_needs_approval: needs_approval(object),
        nodes: nodes.collect(),
        // A directive that we do not know is in `redis.conf` only: how a server spells its value is nothing to compare with.
        settings: layer.settings.clone().into_iter().filter(|(name, _)| directives::is_known(name)).collect(),
        start_only: layer.settings.keys().filter(|name| directives::is_start_only(name)).cloned().collect(),
        users: users.data,
        sentinel_users: users.sentinels,
        libraries: libraries
            .iter()
            .map(|library| (library.name.clone(), DesiredLibrary { digest: library.digest.clone() }))
            .collect(),
        kept_libraries: BTreeSet::new(),
        gathering: false,
        sentinel_settings: SentinelSettings {
            quorum: layer.quorum,
            detection: layer.detection,
            failover_timeout: layer.failover_timeout,
            parallel_syncs: layer.data_nodes,
        },
        master_name: layer.identity.master_name(),
        promotion: None,
    }
}

/// What a replica that only routes compares with: the roles. For nodes, settings, users and functions it builds nothing.
pub(super) fn roles_only(object: &DataLayer, layer: &ValidatedLayer) -> Desired {
    let no_users = Users { data: BTreeMap::new(), sentinels: BTreeMap::new() };
    let all = desired(object, layer, &BTreeMap::new(), no_users, &[]);
    Desired { settings: BTreeMap::new(), start_only: BTreeSet::new(), ..all }
}

/// Whether a person has yet to approve restarts for this generation.
fn needs_approval(object: &DataLayer) -> bool {
    let policy = object.spec.update.as_ref().and_then(|update| update.approval);
    let annotations = object.metadata.annotations.as_ref();
    let approved = annotations.and_then(|all| all.get(names::ANNOTATION_APPROVED_GENERATION)?.parse::<i64>().ok());
    policy == Some(ApprovalPolicy::Manual) && approved != object.metadata.generation
}

/// What the approval of an object says, where it is no number and so approves nothing.
pub(super) fn odd_approval(object: &DataLayer) -> Option<String> {
    let value = object.metadata.annotations.as_ref()?.get(names::ANNOTATION_APPROVED_GENERATION)?;
    value.parse::<i64>().is_err().then(|| value.chars().take(LONGEST_APPROVAL).collect())
}

/// What the report says besides the proofs.
pub(super) fn subject(layer: &ValidatedLayer) -> LayerSummary {
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    LayerSummary {
        memory: MemoryStatus {
            limit: bytes(layer.memory.limit),
            maxmemory: bytes(layer.memory.maxmemory),
            copy_on_write: bytes(layer.memory.copy_on_write),
            connections: bytes(layer.memory.connections),
            client_buffers: bytes(layer.memory.client_buffers),
            largest_command: bytes(layer.memory.largest_command),
            replica_buffers: bytes(layer.memory.replica_buffers),
            fragmentation: bytes(layer.memory.fragmentation),
            used: None,
        },
        keeps_data: layer.keeps_data,
        purpose: layer.purpose,
        application_access: layer.application_access,
        administrator_access: layer.administrator.is_some(),
        image: layer.engine_image.clone(),
        unknown_directives: layer.unknown_directives.clone(),
        odd_approval: None,
        promote: None,
        leaves_out_functions: false,
        max_connections: layer.max_connections,
        application_breaches: Vec::new(),
        audit: None,
    }
}

/// What is asked of each pod that has an address. Undeclared nodes are asked too: one of them may be the primary.
pub(super) fn questions(desired: &Desired, children: &Children, passwords: &Passwords) -> BTreeMap<NodeId, Question> {
    let probe = Arc::new(DataProbe {
        settings: desired.settings.keys().cloned().collect(),
        users: desired.users.clone(),
        libraries: desired.libraries.keys().cloned().collect(),
        in_cluster: desired.in_cluster,
    });
    let users = Arc::new(desired.sentinel_users.clone());
    let question = |node: NodeId| {
        let (port, probe) = match node.kind {
            NodeKind::Data => (REDIS_PORT, ServerProbe::Data(Arc::clone(&probe))),
            NodeKind::Sentinel => (
                SENTINEL_PORT,
                ServerProbe::Sentinel { master_name: desired.master_name.clone(), users: Arc::clone(&users) },
            ),
        };
        let endpoint = Endpoint {
            address: children.pod_address(node)?,
            port,
            username: OPERATOR.to_owned(),
            password: passwords.operator.clone(),
            other_password: None,
        };
        let pod_uid = children.pods.get(&node)?.metadata.uid.clone()?;
        Some((node, Question { node, pod_uid, endpoint, probe }))
    };
    children.pods.keys().copied().filter_map(question).collect()
}
