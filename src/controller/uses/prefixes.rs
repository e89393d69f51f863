//! What the agents of a layer are told of its uses, for the audit of the keys.

use std::collections::BTreeMap;

use super::of_layer::Uses;
use crate::model::audit::{AuditMode, DeclaredPrefix, DeclaredPrefixes, PREFIXES_FORMAT};

impl Uses {
    /// The prefixes of all uses that have a place in the layer, as JSON. One of which too little is known now keeps its prefix, and gets
    /// no expiry.
    pub(in crate::controller) fn prefixes(&self, mode: AuditMode) -> String {
        let mut lifetimes: BTreeMap<&str, Option<u64>> =
            self.reserved.iter().map(|prefix| (prefix.as_str(), None)).collect();
        for it in self.served.iter().filter(|it| it.accepted().kind.has_user()) {
            let policy = &it.accepted().policy;
            lifetimes.insert(policy.prefix(), policy.lifetime_milliseconds());
        }
        let prefixes = lifetimes
            .into_iter()
            .map(|(prefix, lifetime_milliseconds)| DeclaredPrefix { prefix: prefix.to_owned(), lifetime_milliseconds });
        let declared = DeclaredPrefixes { format: PREFIXES_FORMAT, mode, prefixes: prefixes.collect() };
        serde_json::to_string(&declared).unwrap_or_default()
    }
}
