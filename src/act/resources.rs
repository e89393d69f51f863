//! What the steps of one pass need to be carried out.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Service;

use crate::dataplane::Library;
use crate::model::desired::Desired;
use crate::model::{Address, LayerIdentity, NodeId};
use crate::redis::{Connection, Endpoint};

/// Everything that the steps of one pass may need.
#[derive(Clone, Copy)]
pub struct StepResources<'pass> {
    /// Names and UID of the layer: they are in each object that a step writes.
    pub layer: &'pass LayerIdentity,
    /// Users, settings and digests that the steps set.
    pub desired: &'pass Desired,
    /// The primary's Service as built.
    pub primary_service: &'pass Service,
    /// Services of the nodes as built.
    pub services: &'pass BTreeMap<NodeId, Service>,
    /// StatefulSets of the nodes as built.
    pub workloads: &'pass BTreeMap<NodeId, &'pass StatefulSet>,
    /// Node-config documents as built.
    pub documents: &'pass BTreeMap<NodeId, &'pass str>,
    /// Services as they are, by name.
    pub live_services: &'pass BTreeMap<String, Arc<Service>>,
    /// StatefulSets as they are.
    pub live_workloads: &'pass BTreeMap<NodeId, Arc<StatefulSet>>,
    /// Function libraries with their sources.
    pub libraries: &'pass [Library],
    /// Open connections.
    pub connections: &'pass BTreeMap<NodeId, Connection>,
    /// Where the servers are, and as whom to log in.
    pub endpoints: &'pass BTreeMap<NodeId, &'pass Endpoint>,
    /// Announced addresses.
    pub addresses: &'pass BTreeMap<NodeId, Address>,
}
