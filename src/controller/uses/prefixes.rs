//! What the agents of a layer are told of its uses, for the audit of the keys.

use std::collections::BTreeMap;

use super::of_layer::Uses;
use super::served::ServedUse;
use crate::model::audit::{AuditMode, DeclaredPrefix, DeclaredPrefixes, PREFIXES_FORMAT};

impl Uses {
    /// The prefixes of all uses that have a place in the layer, as JSON. One of which too little is known now keeps its prefix, and gets
    /// no expiry and no budget.
    pub(in crate::controller) fn prefixes(&self, mode: AuditMode) -> String {
        let unknown = |prefix: &str| DeclaredPrefix { prefix: prefix.to_owned(), ..DeclaredPrefix::default() };
        let mut prefixes: BTreeMap<&str, DeclaredPrefix> =
            self.reserved.iter().map(|prefix| (prefix.as_str(), unknown(prefix))).collect();
        for accepted in self.served.iter().map(ServedUse::accepted).filter(|accepted| accepted.kind.has_user()) {
            let (prefix, lifetime_milliseconds) = (accepted.policy.prefix(), accepted.policy.lifetime_milliseconds());
            let declared = DeclaredPrefix { lifetime_milliseconds, budget: accepted.budget, ..unknown(prefix) };
            prefixes.insert(prefix, declared);
        }
        let declared = DeclaredPrefixes { format: PREFIXES_FORMAT, mode, prefixes: prefixes.into_values().collect() };
        serde_json::to_string(&declared).unwrap_or_default()
    }
}
