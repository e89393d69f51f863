//! `spec.config`: the user's own directives, each judged by its class and its value.

use std::collections::BTreeMap;

use super::Fault;
use crate::api::data_layer::DataLayerSpec;
use crate::model::directives::{DirectiveClass, canonical, class, nearest};
use crate::model::settings::{OUTPUT_LIMITS, with_output_limits};

/// The directives in the form in which servers report them. A refused one, and a value that no server would take, is a
/// fault: in `redis.conf` it would stop the next start.
/// `ours` are those that Redoubt decided on.
pub(super) fn user_directives(
    spec: &DataLayerSpec,
    ours: &BTreeMap<String, String>,
    faults: &mut Vec<Fault>,
) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    for (name, value) in spec.config.iter().flatten() {
        let judged = match ours.get(OUTPUT_LIMITS) {
            Some(ours) if name == OUTPUT_LIMITS => with_output_limits(ours, &value.0),
            _ => judged(name, &value.0),
        };
        match judged {
            Ok(value) => drop(settings.insert(name.clone(), value)),
            Err(problem) => faults.push(Fault { field: "spec.config", problem: format!("{name}: {problem}") }),
        }
    }
    settings
}

fn judged(name: &str, value: &str) -> Result<String, String> {
    match class(name) {
        DirectiveClass::Live | DirectiveClass::StartOnly | DirectiveClass::Unknown => {
            canonical(name, value).map_err(|error| error.to_string())
        }
        DirectiveClass::Ours(what_for) => Err(format!("Redoubt sets it itself, for {what_for}")),
        DirectiveClass::Field(field) => Err(format!("use the field {field}")),
        DirectiveClass::Renamed(new_name) => Err(format!("an old name: use {new_name}")),
    }
}

/// What is said of each directive that is in none of our tables. It may be one of a newer engine, or misspelt: then the engine does not
/// start with it.
pub(super) fn unknown(spec: &DataLayerSpec) -> Vec<String> {
    let names = spec.config.iter().flatten().map(|(name, _)| name.as_str());
    let unknown = names.filter(|name| class(name) == DirectiveClass::Unknown);
    let told = |name: &str| match nearest(name) {
        Some(like) => format!("{name} (did you mean {like}?)"),
        None => name.to_owned(),
    };
    unknown.map(told).collect()
}
