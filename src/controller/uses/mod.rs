//! The uses of one layer, in the layer's own pass: which it serves and which it refuses, their users and policies, their bindings, and
//! what is told of them. They open no connections of their own.

mod admit;
mod binding;
mod counts;
pub(super) mod dedicated;
mod export;
mod functions;
pub(crate) mod index;
mod invalidation;
mod kept_users;
mod layer_counts;
mod load_pauses;
pub(crate) mod memory;
mod of_layer;
mod prefixes;
mod proof;
pub(crate) mod reconcile;
pub(super) mod relay;
mod report;
mod rotation;
mod served;
mod tenants;
mod users;

pub(super) use self::binding::UsesOutcome;
pub(super) use self::of_layer::Uses;
pub(super) use self::report::{LayerWords, UseReport, publish, report_layer_not_accepted};
pub(super) use self::rotation::Rotation;
