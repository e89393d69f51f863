//! What is: the layer's Kubernetes objects and what its servers answer, as `model::observed`.
//!
//! Reads only. A server that does not answer is a value, never an error. Must never see `act`, `validate` or `build`.

pub(crate) mod agents;
pub(crate) mod events;
pub(crate) mod kubernetes;
pub(crate) mod refusals;
pub mod servers;
