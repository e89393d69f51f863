//! From a custom resource to a layer that everything after may trust.
//!
//! Knows the rules that one object (and what it refers to) can break, and collects every fault, not the first. Must never
//! see a client, Redis or the planner.

use std::collections::BTreeMap;

use crate::model::{LayerIdentity, Mode, Purpose};

/// A layer whose every field is decided: defaults filled in, quantities in bytes, nothing optional that must be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedLayer {
    /// Identity.
    pub identity: LayerIdentity,
    /// `metadata.generation`.
    pub generation: i64,
    /// Mode; `Cluster` never gets here for now.
    pub mode: Mode,
    /// Purpose.
    pub purpose: Purpose,
    /// `spec.paused`.
    pub paused: bool,
    /// `update.approval: Manual`, and the generation that a person approved.
    pub approval: Approval,
    /// Images, resolved once for the layer.
    pub images: Images,
    /// Data nodes: 1 + replicas.
    pub data_nodes: u16,
    /// Sentinels; 0 in Standalone mode.
    pub sentinels: u16,
    /// `quorum`.
    pub quorum: u16,
    /// `down-after-milliseconds`.
    pub detection_milliseconds: u64,
    /// Seconds between SIGTERM and SIGKILL of a data pod, derived from detection and failover timeout.
    pub grace_period_seconds: u64,
    /// Memory limit of the engine's container, bytes, and its terms.
    pub memory: crate::model::memory::MemoryPlan,
    /// CPU request of the engine's container, millicores; no limit is set (throttling shows as latency).
    pub cpu_millicores: u64,
    /// Persistence.
    pub persistence: Persistence,
    /// Every directive for `redis.conf`, canonical (see `model::settings`), from purpose, durability and `spec.config`.
    pub settings: BTreeMap<String, String>,
    /// Whether the layer has an application user and binding Secret.
    pub application_access: bool,
    /// The pool budget: `maxclients` minus our own connections.
    pub max_connections: u32,
    /// Scheduling as the user gave it.
    pub scheduling: crate::api::data_layer::Scheduling,
    /// Extra labels and annotations of pods.
    pub pod_metadata: crate::api::data_layer::PodMetadata,
    /// `redoubt.dev/accept-loss`.
    pub accept_loss: Option<u16>,
}

/// How restarts are approved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    /// At once.
    Automatic,
    /// Only the generation that the annotation names.
    Manual {
        /// `redoubt.dev/approved-generation`.
        approved_generation: Option<i64>,
    },
}

/// Images of a layer's pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// Image of the engine.
    pub engine: String,
    /// Image that the agent is copied from.
    pub agent: String,
    /// `imagePullPolicy` of the engine, if given.
    pub pull_policy: Option<String>,
    /// `imagePullSecrets`.
    pub pull_secrets: Vec<String>,
}

/// What survives a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// AOF.
    pub append_only: bool,
    /// RDB snapshots.
    pub snapshots: bool,
    /// The volume; `None`: an `emptyDir` (only when neither AOF nor RDB is on).
    pub volume: Option<Volume>,
}

/// A data node's volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Bytes.
    pub size: u64,
    /// Class; `None`: the cluster's default.
    pub storage_class: Option<String>,
    /// Whether the claim outlives the layer.
    pub retain: bool,
}
