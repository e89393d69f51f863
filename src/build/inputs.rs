//! Everything that the objects of a layer depend on.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Address, NodeId};
use crate::validate::ValidatedLayer;

/// Everything that the objects depend on.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// The specification as it was accepted.
    pub layer: &'a ValidatedLayer,
    /// Announced addresses that are known so far: of declared nodes, and of those that are still to be removed.
    pub addresses: &'a BTreeMap<NodeId, Address>,
    /// Whether the layer was Ready once.
    pub initialised: bool,
    /// The defaults that were resolved for the layer, as JSON.
    pub resolved_defaults: &'a str,
    /// The data node whose pod the primary's Service selects now; `None`: none yet. Another is a step of the plan.
    pub primary: Option<NodeId>,
    /// The sources of all function libraries, packed: servers that keep nothing start with them.
    pub functions: &'a [u8],
    /// Of these the libraries that applications call, by name.
    pub called: &'a BTreeSet<String>,
    /// The caches that the layer serves: prefix and channel of each.
    pub caches: &'a BTreeMap<String, String>,
    /// The prefixes of the layer's uses, as JSON: what the agents' audit goes by.
    pub prefixes: &'a str,
    /// Passwords and the files of the users.
    pub credentials: Credentials<'a>,
}

/// Credentials of one layer. No `Debug` output shows them.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// Password of the operator.
    pub operator: &'a str,
    /// Password of the agents.
    pub agent: &'a str,
    /// Password of the replicas.
    pub replication: &'a str,
    /// Password of the Sentinels.
    pub sentinel: &'a str,
    /// Password of the application user.
    pub application: &'a str,
    /// Password of the administrator.
    pub administrator: &'a str,
    /// ACL file of the data nodes (digests only).
    pub data_users: &'a str,
    /// ACL file of the Sentinels (digests only).
    pub sentinel_users: &'a str,
}

impl std::fmt::Debug for Credentials<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Credentials(***)")
    }
}
