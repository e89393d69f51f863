//! Redoubt: the Kubernetes operator for the Redis data layer.
//!
//! # The map
//!
//! ```text
//! observe ──► validate ──► plan ──► build ──► act ──► report
//!  (IO)        pure         pure     pure      (IO)    pure + one status patch
//! ```
//!
//! | module | what it knows | what it must never see |
//! |---|---|---|
//! | [`model`] | Redis and the layer in plain Rust; the boot rule | Kubernetes, clients, clocks, randomness |
//! | [`api`] | the custom resources, names, conditions | clients, Redis, the planner |
//! | [`validate`] | custom resource → validated layer, every fault at once | clients |
//! | [`plan`] | desired + observed → next safe batch, each omission explained | everything but `model` |
//! | [`build`] | validated layer → Kubernetes objects and node configuration | clients |
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
//! A test (`tests/it/imports.rs`) reads the `use crate::` lines and holds them against this table.
//!
//! # Invariants: what is deliberately absent
//!
//! - No state of ours outside Redis and the API server: the loop is the state machine, status is a report.
//! - No sleep and no hidden retry inside a reconcile: what is not ready becomes [`plan::Waiting`].
//! - No effect on stale facts: every [`plan::Step`] names the process, pod or object that it was decided for.
//! - No client waits for a Lease: every replica of the operator points the Services, and only its leader does all else.
//! - No failover by the operator: Sentinels elect; we only move a healthy primary, and without loss.
//! - No server is started while its agent is in doubt whose data is newest ([`model::boot`]).
//! - No secret in a specification, status, event, log line, argument, environment variable or metric.

pub mod act;
pub mod agent;
pub mod answers;
pub mod api;
pub mod build;
pub mod check;
pub mod cli;
pub mod controller;
pub mod dataplane;
pub mod demo;
pub mod failure;
pub mod lease;
pub mod metrics;
pub mod model;
pub mod observe;
pub mod plan;
pub mod redis;
pub mod report;
pub mod telemetry;
pub mod validate;
