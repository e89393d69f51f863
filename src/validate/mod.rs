//! From a custom resource to a layer that everything after may trust: every default filled in, quantities in bytes.
//!
//! Collects every fault, not the first. Must never see a client, Redis or the planner.

mod admission;
mod config;
mod fault;
pub(crate) mod quantity;
pub mod uses;
mod volume;

pub use admission::{admit, admit_as_written, admit_edit};
pub use fault::Fault;
use fault::{not_bytes, to_u16_or_zero, too_few_bytes};
pub use volume::{DataVolumes, Volume};

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::ResourceExt as _;

use crate::api::data_layer::{
    AdministratorChoice, AuditChoice, DataLayer, DataLayerSpec, DataPurpose, DeploymentMode, Failover, PodMetadata,
    Scheduling,
};
use crate::api::names::{ANNOTATION_ACCEPT_LOSS, ANNOTATION_DROP_ASIDE, ANNOTATION_RESTARTED_AT, LONGEST_LAYER_NAME};
use crate::api::quantity_rules;
use crate::model::audit::AuditMode;
use crate::model::cluster::NODES_OF_A_SHARD;
use crate::model::directives::canonical;
use crate::model::memory::{Demand, MemoryPlan};
use crate::model::purpose::{self, PurposeDefaults, Shares};
use crate::model::settings::{SettingInputs, settings};
use crate::model::{AdministratorAccess, LayerIdentity, Mode, Purpose};

/// More replicas cost the primary a full stream each, and there are `-N` names for one digit.
const MOST_REPLICAS: u16 = 9;

/// Less is a number without its unit, bytes.
const LEAST_LIMIT: u64 = 16 << 20;

/// A layer whose every field is decided.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedLayer {
    /// Namespace, name and UID of the layer.
    pub identity: LayerIdentity,
    /// `spec.mode`, with its default.
    pub mode: Mode,
    /// What the data is for.
    pub purpose: Purpose,
    /// Image of the engine: the specification's, or else the default that was resolved.
    pub engine_image: String,
    /// Image that the agent is copied from.
    pub agent_image: String,
    /// `imagePullPolicy` of the engine, if given.
    pub pull_policy: Option<String>,
    /// Names of the Secrets for pulling it.
    pub pull_secrets: Vec<String>,
    /// Data nodes, in mode `Cluster` of each shard: 1 + replicas.
    pub data_nodes: u16,
    /// Shards; 1 in every mode but `Cluster`.
    pub shards: u16,
    /// Sentinels; 0 in mode Standalone.
    pub sentinels: u16,
    /// Sentinels that must agree that the primary is down.
    pub quorum: u16,
    /// `down-after-milliseconds`.
    pub detection: Duration,
    /// `failover-timeout`: max(10 s, 3 × detection); at the default a failed attempt blocks the next for minutes.
    pub failover_timeout: Duration,
    /// Seconds between SIGTERM and SIGKILL of a data pod.
    pub grace_period_seconds: u64,
    /// Memory of a data pod.
    pub memory: MemoryPlan,
    /// The shares that it was divided by where the specification says none.
    pub shares: Shares,
    /// CPU request of a data pod, millicores.
    pub cpu_millicores: u64,
    /// Whether anything survives a restart.
    pub keeps_data: bool,
    /// The volume; `None`: nothing is kept, and the data directory goes with the pod.
    pub volume: Option<Volume>,
    /// Size of the volume of a Sentinel that is made now, bytes.
    pub sentinel_volume: u64,
    /// Directives of `redis.conf`.
    pub settings: BTreeMap<String, String>,
    /// What is said of the directives that this version does not know.
    pub unknown_directives: Vec<String>,
    /// Most connections that applications may open together.
    pub max_connections: u32,
    /// Whether the layer has an application user and binding Secret.
    pub application_access: bool,
    /// What the administrator may do; `None`: the layer has none.
    pub administrator: Option<AdministratorAccess>,
    /// What is done about keys without an expiry.
    pub audit: AuditMode,
    /// Where pods may run.
    pub scheduling: Scheduling,
    /// Labels and annotations to add to pods.
    pub pod_metadata: PodMetadata,
    /// `redoubt.dev/accept-loss`.
    pub accept_loss: Option<u16>,
    /// `redoubt.dev/drop-aside`.
    pub drop_aside: BTreeSet<String>,
    /// `redoubt.dev/restarted-at`.
    pub restarted_at: Option<String>,
    /// What follows a Service's name and namespace in its host name.
    pub service_domain: String,
}

/// What is decided outside of the specification, once for each layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedDefaults {
    /// Image of the engine where the specification names none.
    pub engine_image: String,
    /// Image of the agent.
    pub agent_image: String,
    /// The volumes that the data nodes were made with.
    pub volumes: DataVolumes,
    /// How memory is divided where the specification does not say; `None`: not decided yet.
    pub shares: Option<Shares>,
    /// What engine images that a specification names begin with; empty: every image is allowed.
    pub allowed_images: Vec<String>,
    /// What follows a Service's name and namespace in its host name: `svc.cluster.local`, or `svc` where the cluster's domain is
    /// not known.
    pub service_domain: String,
}

/// The validated layer, or every fault of its specification at once.
pub fn validate(layer: &DataLayer, resolved: &ResolvedDefaults) -> Result<ValidatedLayer, Vec<Fault>> {
    let mut faults = admission::broken_rules(layer);
    faults.extend(access_fault(&layer.spec));
    faults.extend(image_fault(&layer.spec, &resolved.allowed_images));
    judge(layer, resolved, faults, SpecificationAge::Now).map_err(deduplicated)
}

/// Leaves out a broken rule of admission about a field of which a fault says more.
fn deduplicated(faults: Vec<Fault>) -> Vec<Fault> {
    const RULE: &str = "spec";
    let fields: Vec<String> =
        faults.iter().filter(|fault| fault.field != RULE).map(|fault| format!("{}: ", fault.field)).collect();
    // A rule that compares fields is one of the specification, and its message begins with the field.
    let says_more = |fault: &Fault| {
        let compared = fault.problem.strip_prefix("spec: ").map(|told| format!("spec.{told}")).unwrap_or_default();
        fields.iter().any(|field| fault.problem.starts_with(field.as_str()) || compared.starts_with(field.as_str()))
    };
    faults.into_iter().filter(|fault| fault.field != RULE || !says_more(fault)).collect()
}

/// Judges a layer with a specification that was accepted before. A rule of admission that is newer than it does not count: a
/// layer that runs is looked after.
pub(crate) fn validate_accepted(layer: &DataLayer, resolved: &ResolvedDefaults) -> Result<ValidatedLayer, Vec<Fault>> {
    judge(layer, resolved, Vec::new(), SpecificationAge::Before)
}

/// Since when a specification is there: what was accepted before a rule was written is not held against it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SpecificationAge {
    /// It is judged for the first time.
    Now,
    /// It was accepted.
    Before,
}

fn judge(
    layer: &DataLayer,
    resolved: &ResolvedDefaults,
    mut faults: Vec<Fault>,
    since: SpecificationAge,
) -> Result<ValidatedLayer, Vec<Fault>> {
    let spec = &layer.spec;
    let identity = identity_of(layer, &mut faults);
    let mode = mode_of(spec);
    let shards = shards_of(spec, mode, &mut faults);
    let defaults = purpose::defaults(purpose_of(spec)).with(purpose_of(spec), resolved.shares);
    let replicas = replicas_of(spec, &mut faults);
    let failover = spec.failover.clone().unwrap_or_default();
    let sentinels = if mode == Mode::Sentinel { to_u16_or_zero(failover.sentinels.unwrap_or(3)) } else { 0 };
    let detection = failover
        .detection
        .map_or(5_000, |detection| Duration::from(detection).as_millis().try_into().unwrap_or(60_000));
    let detection = Duration::from_millis(detection);
    let failover_timeout = (3 * detection).max(Duration::from_secs(10));
    let persistence = spec.persistence.clone().unwrap_or_default();
    let append_only = persistence.append_only.unwrap_or(defaults.append_only);
    let snapshots = persistence.snapshots.unwrap_or(append_only);
    let keeps_data = append_only || snapshots;
    let memory = memory_of(spec, defaults, keeps_data, replicas > 0, &mut faults);
    let volume = volume::decide(spec, resolved.volumes, keeps_data, memory, &mut faults).inspect(|volume| {
        faults
            .extend(volume.too_small(resolved.volumes, keeps_data, memory).filter(|_| since == SpecificationAge::Now));
    });
    let durability = spec.durability.clone().unwrap_or_default();
    // At one replica each of its restarts would stop all writes.
    let min_replicas = if replicas > 1 { defaults.min_replicas_to_write } else { 0 };
    let mut settings = settings(&SettingInputs {
        defaults,
        memory,
        eviction_policy: eviction_policy(spec).as_deref().unwrap_or(defaults.eviction_policy),
        append_only,
        snapshots,
        min_replicas_to_write: durability.min_replicas_to_write.map_or(min_replicas, to_u16_or_zero),
        max_replica_lag: durability.max_replica_lag.map_or(3, to_u16_or_zero),
    });
    let further = config::user_directives(spec, &settings, &mut faults);
    settings.extend(further);
    let cpu = spec.cpu.as_ref().map_or(Some(100), |cpu| quantity::parse(&cpu.0, 1_000));
    if let (None, Some(given)) = (cpu, &spec.cpu) {
        let problem = format!(
            "{:?} is not a quantity of processors from 1m to 1000: write 500m for half a processor, or 2",
            given.0
        );
        faults.push(Fault { field: "spec.cpu", problem });
    }
    let sentinel_volume = sentinel_volume(&failover, &mut faults);
    let accept_loss = accepted_loss(layer, shards, replicas, &mut faults);
    if !faults.is_empty() {
        return Err(faults);
    }
    let engine = spec.engine.clone().unwrap_or_default();
    Ok(ValidatedLayer {
        identity,
        mode,
        purpose: purpose_of(spec),
        engine_image: engine.image.unwrap_or_else(|| resolved.engine_image.clone()),
        agent_image: resolved.agent_image.clone(),
        pull_policy: engine.pull_policy.map(|policy| policy.name().to_owned()),
        pull_secrets: engine.pull_secrets.unwrap_or_default().into_iter().map(|secret| secret.name).collect(),
        data_nodes: 1 + replicas,
        shards,
        sentinels,
        quorum: failover.quorum.map_or(sentinels / 2 + 1, to_u16_or_zero),
        detection,
        failover_timeout,
        // One planned move that is given up at its latest, then Redis' own shutdown-timeout of 10 s, then some.
        grace_period_seconds: failover_timeout.as_secs() + 20,
        memory,
        shares: defaults.shares(purpose_of(spec)),
        cpu_millicores: cpu.unwrap_or_default(),
        keeps_data,
        volume,
        sentinel_volume,
        settings,
        unknown_directives: config::unknown(spec),
        max_connections: memory.max_connections,
        application_access: spec.access.as_ref().and_then(|access| access.application).unwrap_or(true),
        administrator: administrator_of(spec),
        audit: audit_mode(spec),
        scheduling: spec.scheduling.clone().unwrap_or_default(),
        pod_metadata: spec.pod_metadata.clone().unwrap_or_default(),
        accept_loss,
        drop_aside: dropped_aside(layer),
        restarted_at: layer.annotations().get(ANNOTATION_RESTARTED_AT).cloned(),
        service_domain: resolved.service_domain.clone(),
    })
}

fn administrator_of(spec: &DataLayerSpec) -> Option<AdministratorAccess> {
    Some(match spec.access.as_ref()?.administrator? {
        AdministratorChoice::Diagnostics => AdministratorAccess::Diagnostics,
        AdministratorChoice::Full => AdministratorAccess::Full,
    })
}

fn audit_mode(spec: &DataLayerSpec) -> AuditMode {
    match spec.audit.as_ref().and_then(|audit| audit.mode) {
        None | Some(AuditChoice::Report) => AuditMode::Report,
        Some(AuditChoice::Repair) => AuditMode::Repair,
    }
}

fn identity_of(layer: &DataLayer, faults: &mut Vec<Fault>) -> LayerIdentity {
    let name = layer.name_any();
    if name.len() > LONGEST_LAYER_NAME {
        let problem = format!("at most {LONGEST_LAYER_NAME} characters: pods and Services are named after it");
        faults.push(Fault { field: "metadata.name", problem });
    }
    let (Some(uid), Some(namespace)) = (layer.uid(), layer.namespace()) else {
        faults.push(Fault { field: "metadata", problem: "not an object of the API server".to_owned() });
        return LayerIdentity { uid: String::new(), namespace: String::new(), name };
    };
    LayerIdentity { uid, namespace, name }
}

/// What is wrong with an image that the operator does not allow. What it begins with ends where a part of its name does:
/// `registry.example.com/a` is not the beginning of `registry.example.com/abc`.
fn image_fault(spec: &DataLayerSpec, allowed: &[String]) -> Option<Fault> {
    let image = spec.engine.as_ref()?.image.as_ref()?;
    let begins_with = |prefix: &String| {
        let rest = image.strip_prefix(prefix.as_str());
        rest.is_some_and(|rest| {
            // A port of the registry is no tag.
            let is_tag = rest.starts_with([':', '@']) && !rest.contains('/');
            rest.is_empty() || prefix.ends_with(['/', ':', '@']) || rest.starts_with('/') || is_tag
        })
    };
    let problem = format!(
        "{image:?} is not allowed: the operator's --allowed-images are {}; choose one of them, or ask who runs the operator",
        allowed.join(", ")
    );
    (!allowed.is_empty() && !allowed.iter().any(begins_with)).then_some(Fault { field: "spec.engine.image", problem })
}

/// What is wrong with the labels that choose namespaces.
fn access_fault(spec: &DataLayerSpec) -> Option<Fault> {
    let selector = spec.access.as_ref()?.namespaces.as_ref()?.selector.as_ref()?;
    let expressions = selector.match_expressions.iter().flatten();
    let known = ["In", "NotIn", "Exists", "DoesNotExist"];
    let odd: Vec<&str> =
        expressions.map(|it| it.operator.as_str()).filter(|operator| !known.contains(operator)).collect();
    let problem = format!("{} is not an operator of a selector: write {}", odd.join(", "), known.join(", "));
    (!odd.is_empty()).then_some(Fault { field: "spec.access.namespaces.selector", problem })
}

const fn mode_of(spec: &DataLayerSpec) -> Mode {
    match spec.mode {
        DeploymentMode::Standalone => Mode::Standalone,
        DeploymentMode::Sentinel => Mode::Sentinel,
        DeploymentMode::Cluster => Mode::Cluster,
    }
}

fn purpose_of(spec: &DataLayerSpec) -> Purpose {
    match spec.purpose {
        Some(DataPurpose::Sessions) => Purpose::Sessions,
        Some(DataPurpose::RateLimits) => Purpose::RateLimits,
        Some(DataPurpose::Cache) => Purpose::Cache,
        Some(DataPurpose::AgentContext) => Purpose::AgentContext,
        Some(DataPurpose::Mixed) | None => Purpose::Mixed,
    }
}

/// How many shards; the bound is in the schema too.
fn shards_of(spec: &DataLayerSpec, mode: Mode, faults: &mut Vec<Fault>) -> u16 {
    const DEFAULT: u16 = 3;
    const MOST: u16 = 500;
    if mode != Mode::Cluster {
        return 1;
    }
    let Some(shards) = spec.shards else { return DEFAULT };
    u16::try_from(shards).ok().filter(|shards| (1..=MOST).contains(shards)).unwrap_or_else(|| {
        faults.push(Fault { field: "spec.shards", problem: format!("{shards} is not from 1 to {MOST}") });
        DEFAULT
    })
}

/// The bound is in the schema too: an object may have been stored before it was.
fn replicas_of(spec: &DataLayerSpec, faults: &mut Vec<Fault>) -> u16 {
    let default = spec.mode.default_replicas().into();
    let Some(replicas) = spec.replicas else { return default };
    u16::try_from(replicas).ok().filter(|replicas| *replicas <= MOST_REPLICAS).unwrap_or_else(|| {
        let problem = format!("{replicas} is not from 0 to {MOST_REPLICAS}");
        faults.push(Fault { field: "spec.replicas", problem });
        default
    })
}

fn eviction_policy(spec: &DataLayerSpec) -> Option<String> {
    Some(spec.memory.as_ref()?.eviction_policy?.directive().to_owned())
}

fn memory_of(
    spec: &DataLayerSpec,
    defaults: PurposeDefaults,
    saves: bool,
    replicates: bool,
    faults: &mut Vec<Fault>,
) -> MemoryPlan {
    let memory = spec.memory.clone().unwrap_or_default();
    let limit = memory.limit.as_ref().map_or(Ok(256 << 20), |limit| match quantity::parse(&limit.0, 1) {
        Some(bytes) if bytes < LEAST_LIMIT => Err(too_few_bytes(&limit.0, quantity_rules::ENOUGH_MEMORY)),
        bytes => bytes.ok_or_else(|| not_bytes(&limit.0)),
    });
    // A value that no server would take is told where the directives are judged.
    let directive = |name: &str| canonical(name, &spec.config.as_ref()?.get(name)?.0).ok()?.parse::<u64>().ok();
    let divided = limit.and_then(|limit| {
        let percent = memory.maxmemory_percent.and_then(|percent| percent.try_into().ok());
        let demand = Demand {
            percent: percent.unwrap_or(defaults.maxmemory_percent),
            connections: spec.max_connections.and_then(|count| count.try_into().ok()),
            saves,
            replicates,
            backlog: directive("repl-backlog-size"),
            largest_value: directive("proto-max-bulk-len"),
            ..defaults.demand(limit)
        };
        MemoryPlan::divide(&demand)
            .map_err(|error| format!("for purpose {}, {error}", spec.purpose.unwrap_or(DataPurpose::Mixed).word()))
    });
    divided.unwrap_or_else(|problem| {
        faults.push(Fault { field: "spec.memory.limit", problem });
        MemoryPlan::default()
    })
}

/// A Sentinel's volume holds one small file; common storage makes no volume below 1Gi.
fn sentinel_volume(failover: &Failover, faults: &mut Vec<Fault>) -> u64 {
    const DEFAULT: u64 = 1 << 30;
    let Some(size) = failover.sentinel_volume.as_ref().and_then(|volume| volume.size.as_ref()) else { return DEFAULT };
    quantity::parse(&size.0, 1).filter(|bytes| *bytes > 0).unwrap_or_else(|| {
        faults.push(Fault { field: "spec.failover.sentinelVolume.size", problem: not_bytes(&size.0) });
        DEFAULT
    })
}

/// An ordinal that no data node has (any more) is no decision: `replicas` may have fallen below what a person once said.
fn accepted_loss(layer: &DataLayer, shards: u16, replicas: u16, faults: &mut Vec<Fault>) -> Option<u16> {
    let text = layer.annotations().get(ANNOTATION_ACCEPT_LOSS)?;
    let ordinal = text.parse::<u16>().ok();
    if ordinal.is_none() {
        let last = NODES_OF_A_SHARD * (shards - 1) + replicas;
        let problem = format!("{ANNOTATION_ACCEPT_LOSS} must be the ordinal of a data node, 0 to {last}");
        faults.push(Fault { field: "metadata.annotations", problem });
    }
    ordinal.filter(|ordinal| ordinal / NODES_OF_A_SHARD < shards && ordinal % NODES_OF_A_SHARD <= replicas)
}

/// Names that no node keeps do nothing, so none is a fault.
fn dropped_aside(layer: &DataLayer) -> BTreeSet<String> {
    let text = layer.annotations().get(ANNOTATION_DROP_ASIDE).map(String::as_str).unwrap_or_default();
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
