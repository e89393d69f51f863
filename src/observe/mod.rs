//! What is: the layer's Kubernetes objects and what its servers answer, as `model::observed`.
//!
//! Reads only. A server that does not answer is a value, never an error. Must never see `act`, `validate` or `build`.

pub mod agents;
pub mod events;
pub mod kubernetes;
pub mod refusals;
pub mod servers;
