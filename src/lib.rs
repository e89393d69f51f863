//! Redoubt: the Kubernetes operator for the Redis data layer.
//!
//! # The map
//!
//! ```text
//! observe ──► validate ──► build ──► observe ──► plan ──► act ──► prove ──► report
//! objects     layer: pure  objects,  servers     pure     (IO)    rights    status of the layer
//! (IO)        its uses:    users     (IO)                         (IO)      and of its uses
//!             pure + IO    pure                                             pure + one patch each
//! ```
//!
//! `controller::layer::steps` makes these steps; each takes the types that the ones before it give. Build comes before plan, because the
//! planner compares the digests of what is built with those of what runs. To judge the uses, their bindings and sources are read first;
//! the list of the layer's tenants is stored right after it, so that no newcomer has a user before its place is written down. Rights are
//! proven after the steps: a failover makes all proofs due in the very pass that has to point the Services.
//!
//! | module | what it knows | what it must never see |
//! |---|---|---|
//! | [`model`] | Redis and the layer in plain Rust; the boot rule | Kubernetes, clients, clocks, randomness |
//! | [`api`] | the custom resources, names, conditions | clients, Redis, the planner |
//! | [`validate`] | custom resource → validated layer or use, every fault at once | clients |
//! | [`build`] | validated layer → Kubernetes objects and node configuration | clients |
//! | [`plan`] | desired + observed → next safe batch, each omission explained | everything but `model` |
//! | [`redis`] | connections, typed commands, reply parsers, the switchover | Kubernetes, `api`, `plan` |
//! | [`dataplane`] | the Lua libraries, their digests and callers | Kubernetes |
//! | [`observe`] | watches and Redis replies → `model::observed` | `act`, `validate`, `build` |
//! | [`act`] | carries out one step under its precondition; decides nothing | `observe`, `validate` |
//! | [`report`] | plan and outcomes → conditions, events, metric labels | clients |
//! | [`controller`] | the only place where the steps meet | – |
//! | [`agent`] | process 1 of every pod: boots, watches and hands over its server | Kubernetes, `controller` |
//! | [`answers`] | what an agent answers over HTTP | Kubernetes, all but `model` |
//! | [`demo`] | a session store's binding: the application of `make demo` | Kubernetes |
//!
//! A test (`tests/it/imports.rs`) reads the `use crate::` lines and holds them against this table; another
//! (`tests/it/import_circles.rs`) finds modules that import each other.
//!
//! # The terms
//!
//! | term | meaning |
//! |---|---|
//! | layer | one `DataLayer`: a deployment of Redis or Valkey with its pods, Services, volumes, users and settings |
//! | use | a custom resource with what an application needs of a layer. Its kinds are [`model::UseKind`] |
//! | tenant | a use that has a place, and with it a prefix, on a layer |
//! | binding | the Secret with everything that a client of a use needs |
//! | rotation | a new user and password for a use. The old ones stay valid for a while |
//! | shard | in mode `Cluster`: a primary with its slots, and its replicas. `redis-21` is node 1 of shard 2 |
//! | node | one server of a layer. A data node (`redis-0`) or a Sentinel (`sentinel-0`) |
//! | engine | the server program in a node's pod: `redis-server` or `valkey-server` |
//! | agent | process 1 of each node's pod |
//! | pass | one run of the operator over one layer, from observe to report |
//! | step | one effect of a plan with the facts that it was decided for |
//! | desired, observed | what the planner compares: [`model::desired::Desired`], [`model::observed::Observed`] |
//! | revision | the digest of what a pod has to restart for |
//! | initialised | the layer was Ready once: a node that finds no data does not take it for new |
//! | record | the file in which an agent notes epoch, term, replication ID and offset of its node's data. [`model::lineage::Lineage`] |
//! | epoch | the number of a failover or switchover, given by the Sentinels. The higher one is the later one |
//! | term | the number of a decision that the agents made and the Sentinels did not, within one epoch |
//! | boot rule | the function that decides from all records whether a data node may start its engine, and as what. [`model::boot`] |
//! | in sync | a replica that is connected to the primary and acknowledges its writes with little delay |
//! | failover | the Sentinels elect a replica because the primary is lost |
//! | switchover | the primary is moved on purpose, to a replica that is in sync. An agent's own, before its server stops, is a handover |
//! | roll | pods are restarted for a change, one node at a time. Replicas first, the primary last |
//! | accepted | a specification that passed validation. A layer runs by the last one |
//!
//! # Invariants: what is deliberately absent
//!
//! - No state of ours outside Redis and the API server: the loop is the state machine, status is a report.
//! - No sleep and no hidden retry inside a reconcile: what is not ready becomes [`plan::WaitReason`]. The move of a primary, which takes
//!   seconds, is a task of its own.
//! - No effect on stale facts: every [`plan::Step`] names the process, pod or object that it was decided for.
//! - No client waits for a Lease: every replica of the operator points the Services, and only its leader does all else.
//! - No failover by the operator: Sentinels elect; we only move a healthy primary, and without loss. In a Cluster the agent of a dead engine
//!   has its successor take over, with the consent of most owners of slots.
//! - No server is started while its agent is in doubt whose data is newest ([`model::boot`]).
//! - No secret in a specification, status, event, log line, argument, environment variable or metric.
#![warn(unreachable_pub)]

pub mod act;
pub mod agent;
pub mod answers;
pub mod api;
pub mod build;
pub(crate) mod check;
pub mod cli;
pub mod controller;
pub mod dataplane;
pub(crate) mod demo;
pub(crate) mod failure;
pub mod lease;
pub mod metrics;
pub mod model;
pub mod observe;
pub(crate) mod per_object;
pub mod plan;
pub mod redis;
pub mod report;
pub mod telemetry;
pub mod validate;
