//! What the agents of a layer are told of its uses, for the audit of the keys.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use super::super::context::Context;
use super::of_layer::Uses;
use super::served::ServedUse;
use crate::api::data_layer_status::Tenant;
use crate::model::audit::{AuditMode, AuditReport, DeclaredPrefix, DeclaredPrefixes, PREFIXES_FORMAT};

/// From the time at which a use left to the end of a pass that finds its prefix empty, milliseconds: its user is removed meanwhile from
/// servers that did not answer at first.
const RESTS_FOR: i64 = 30_000;

impl Uses {
    /// The prefixes of all uses that have a place in the layer or had one, as JSON. One of which too little is known now keeps its
    /// prefix, and gets no expiry and no budget.
    pub(in crate::controller) fn prefixes(&self, mode: AuditMode) -> String {
        let unknown = |prefix: &str| DeclaredPrefix { prefix: prefix.to_owned(), ..DeclaredPrefix::default() };
        let of_place = |place: &Tenant| DeclaredPrefix { left: place.left.is_some(), ..unknown(&place.prefix) };
        let mut prefixes: BTreeMap<&str, DeclaredPrefix> =
            self.places.iter().map(|place| (place.prefix.as_str(), of_place(place))).collect();
        for accepted in self.served.iter().map(ServedUse::accepted).filter(|accepted| accepted.kind.has_user()) {
            let (prefix, lifetime_milliseconds) = (accepted.policy.prefix(), accepted.policy.lifetime_milliseconds());
            let declared = DeclaredPrefix { lifetime_milliseconds, budget: accepted.budget, ..unknown(prefix) };
            prefixes.insert(prefix, declared);
        }
        let declared = DeclaredPrefixes { format: PREFIXES_FORMAT, mode, prefixes: prefixes.into_values().collect() };
        serde_json::to_string(&declared).unwrap_or_default()
    }

    /// Notes which prefixes of uses that left are empty, for the next pass. `audit`: of the prefixes that are declared now, so it began
    /// after the last of them left.
    pub(in crate::controller) fn note_emptied(&self, context: &Context, layer_uid: &str, audit: Option<&AuditReport>) {
        let is_empty = |place: &Tenant, left: Timestamp, audit: &AuditReport| {
            let rests_since = i64::try_from(audit.finished).unwrap_or_default() - left.as_millisecond();
            rests_since >= RESTS_FOR && !audit.prefixes.contains_key(&place.prefix)
        };
        let emptied = audit.into_iter().flat_map(|audit| {
            let left = self.places.iter().filter_map(|place| Some((place, place.left.as_ref()?.0)));
            left.filter(|(place, left)| is_empty(place, *left, audit)).map(|(place, left)| (place.prefix.clone(), left))
        });
        context.uses.emptied.insert(layer_uid, emptied.collect());
    }
}
