//! What the fields of a use say, judged by themselves: what all kinds share is here, the rest in the file of the kind. How uses get
//! on with their layer and with each other: [`tenancy`].

mod answer;
mod cache_namespace;
pub mod eviction;
mod function_library;
mod host;
mod judge;
mod neighbours;
mod places;
mod rate_limit_policy;
mod session_store;
pub mod tenancy;

use std::collections::BTreeMap;
use std::time::Duration;

use kube::ResourceExt as _;

use self::judge::{FieldValidator, KindFields, plain};
use super::Fault;
use crate::api::names::{LONGEST_USE_NAME, dedicated_layer};
use crate::api::rate_limit_policy::ExportProgram;
use crate::api::uses::{DeclaredUse, UseSpec};
use crate::model::audit::MemoryBudget;
use crate::model::{Policy, UseKind};

/// A week: what CEL bounds the grace with.
const LONGEST_GRACE: Duration = Duration::from_hours(168);
/// How long old credentials stay valid at most where nothing is said.
const ROTATION_GRACE: Duration = Duration::from_hours(1);

/// A use whose every field is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedUse {
    /// Kind of the custom resource.
    pub kind: UseKind,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// What the functions carry out.
    pub policy: Policy,
    /// Replicas that the use wants confirmations of; a layer with fewer cannot serve it.
    pub wait_replicas: u16,
    /// Name of its binding Secret.
    pub binding_name: String,
    /// Fields of the binding Secret that other kinds do not have.
    pub binding: BTreeMap<&'static str, String>,
    /// The rate limit service for which a further Secret is kept.
    pub export: Option<ExportProgram>,
    /// The memory that its keys may take; `None`: as much as the layer has.
    pub budget: Option<MemoryBudget>,
    /// Whether its user may run scripts.
    pub scripts: bool,
    /// Whether the server may track keys for its user.
    pub tracking: bool,
    /// `spec.access.rotation`, or 0: a higher number makes new credentials.
    pub rotation: u32,
    /// How long the ones before stay valid at most.
    pub rotation_grace: Duration,
}

/// Namespace and name of the layer that a use wants.
pub fn layer_of(declared: &DeclaredUse) -> (String, String) {
    let own = declared.namespace().unwrap_or_default();
    match declared.spec.layer().and_then(|layer| Some((layer, layer.name.cloned()?))) {
        Some((layer, name)) => (layer.namespace.cloned().unwrap_or(own), name),
        None => (own, dedicated_layer(declared.kind(), &declared.name_any())),
    }
}

pub(crate) fn is_dedicated(declared: &DeclaredUse) -> bool {
    declared.spec.layer().is_none_or(|layer| layer.name.is_none())
}

/// Judges a use by itself. `replicas`: of its layer.
///
/// The rules of admission are not evaluated here, as they are for a layer: all uses of a layer are judged in each of its passes, and what
/// is bounded here has to become a number all the same. That both say the same is a claim for each kind (`custom_resources`,
/// `rate_limit_policies`, `cache_namespaces`, `function_libraries`).
pub fn validate(declared: &DeclaredUse, replicas: u16) -> Result<ValidatedUse, Vec<Fault>> {
    let mut judge = FieldValidator { declared, faults: Vec::new() };
    let (name, namespace) = (declared.name_any(), declared.namespace().unwrap_or_default());
    if name.len() > LONGEST_USE_NAME || !is_name(&name) {
        judge.fault(
            "metadata.name",
            "must begin with a letter, hold only a-z, 0-9 and '-', and have at most 31 characters",
        );
    }
    let prefix = declared.spec.key_prefix().cloned().unwrap_or_else(|| format!("{name}:"));
    if !is_prefix(&prefix) {
        judge.fault(
            "spec.keyPrefix",
            "must begin with a letter or digit, hold only letters, digits, '-', '_', '.' and ':', have at most 64 characters, and end with ':'",
        );
    }
    let access = declared.spec.access().cloned().unwrap_or_default();
    let grace = access.rotation_grace.map_or(ROTATION_GRACE, plain);
    let grace = judge.bounded("spec.access.rotationGrace", grace, Duration::ZERO, LONGEST_GRACE);
    if !is_object_name(&declared.binding_name()) {
        judge.fault("spec.binding.secretName", "is not the name of a Secret: lower-case letters, digits, - and .");
    }
    if declared.spec.layer().is_some_and(|layer| layer.name.is_some() == layer.dedicated.is_some()) {
        judge.fault("spec.layer", "needs either name or dedicated, not both");
    }
    if declared.spec.layer().is_some_and(|layer| layer.namespace.is_some() && layer.name.is_none()) {
        judge.fault("spec.layer.namespace", "needs layer.name");
    }
    let fields = match &declared.spec {
        UseSpec::SessionStore(spec) => Some(session_store::validate(&mut judge, spec, prefix, replicas)),
        UseSpec::RateLimitPolicy(spec) => rate_limit_policy::validate(&mut judge, spec, prefix),
        UseSpec::CacheNamespace(spec) => Some(cache_namespace::validate(&mut judge, spec, prefix)),
        UseSpec::FunctionLibrary(spec) => function_library::validate(&mut judge, spec),
    };
    let Some(KindFields { policy, wait_replicas, binding, export, budget }) =
        fields.filter(|_| judge.faults.is_empty())
    else {
        return Err(judge.faults);
    };
    Ok(ValidatedUse {
        kind: declared.kind(),
        uid: declared.uid().unwrap_or_default(),
        namespace,
        name,
        policy,
        wait_replicas,
        binding_name: declared.binding_name(),
        binding,
        export,
        budget,
        scripts: access.scripts.unwrap_or_default(),
        tracking: declared.spec.tracking(),
        rotation: access.rotation.and_then(|rotation| rotation.try_into().ok()).unwrap_or_default(),
        rotation_grace: Duration::from_millis(grace),
    })
}

fn is_name(name: &str) -> bool {
    name.starts_with(|letter: char| letter.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-')
}

/// Labels of a domain, separated by dots.
fn is_object_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let is_end = |letter: Option<char>| letter.is_some_and(|it| it.is_ascii_lowercase() || it.is_ascii_digit());
        is_end(label.chars().next())
            && is_end(label.chars().next_back())
            && label.chars().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

fn is_prefix(prefix: &str) -> bool {
    prefix.len() <= 64
        && prefix.len() > 1
        && prefix.ends_with(':')
        && prefix.starts_with(|letter: char| letter.is_ascii_alphanumeric())
        && prefix.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.:".contains(letter))
}
