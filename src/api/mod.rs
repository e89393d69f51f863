//! The custom resources, their conditions, and every name that Redoubt gives to a Kubernetes object.
//!
//! Knows types only. Must never see a client, Redis or the planner.

pub mod names;
