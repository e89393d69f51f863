//! What of a layer decides whom it serves, and why it would not serve a use.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt as _;
use kube::core::{Selector, SelectorExt as _};

use super::super::ValidatedLayer;
use super::answer::{AdmittedUse, Refusal};
use super::eviction::{self, Verdict};
use super::neighbours::Neighbours;
use super::{ValidatedUse, is_dedicated, validate};
use crate::api::data_layer::{DataLayer, NamespaceChoice};
use crate::api::uses::DeclaredUse;
use crate::model::{Mode, UseKind};

/// The directive that says which keys a full server drops.
const EVICTION_POLICY: &str = "maxmemory-policy";

/// What of a layer decides whom it serves. It is made of a layer that was accepted, so a specification that is refused takes
/// nothing away from a tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct HostLayer {
    pub(super) namespace: String,
    pub(super) name: String,
    /// UID of the store whose own the layer is.
    owner: Option<String>,
    /// Namespaces that may name the layer.
    from: NamespaceChoice,
    selector: Option<LabelSelector>,
    pub(super) eviction_policy: String,
    replicas: u16,
    in_cluster: bool,
    /// Whether it has a user for all keys.
    has_application: bool,
}

impl HostLayer {
    /// What its servers do when memory is full.
    pub fn eviction_policy(&self) -> &str {
        &self.eviction_policy
    }

    /// Of a layer; `object` has the specification that `layer` was made from.
    pub fn of(object: &DataLayer, layer: &ValidatedLayer) -> Self {
        let allowed = object.spec.access.as_ref().and_then(|access| access.namespaces.clone()).unwrap_or_default();
        let owner = object.owner_references().iter().find(|owner| owner.controller == Some(true));
        Self {
            namespace: layer.identity.namespace.clone(),
            name: layer.identity.name.clone(),
            owner: owner.map(|owner| owner.uid.clone()),
            from: allowed.from.unwrap_or(NamespaceChoice::Same),
            selector: allowed.selector,
            eviction_policy: layer.settings.get(EVICTION_POLICY).cloned().unwrap_or_default(),
            replicas: layer.data_nodes.saturating_sub(1),
            in_cluster: layer.mode == Mode::Cluster,
            has_application: layer.application_access,
        }
    }

    pub(super) fn neighbours<'a>(&'a self, admitted: &'a [AdmittedUse]) -> Neighbours<'a> {
        Neighbours {
            layer: &self.name,
            eviction_policy: &self.eviction_policy,
            has_application: self.has_application,
            admitted,
        }
    }
}

/// Labels of a namespace, if it is known.
pub type Labels<'a> = &'a dyn Fn(&str) -> Option<BTreeMap<String, String>>;

pub(super) fn judge(store: &DeclaredUse, host: &HostLayer) -> Result<ValidatedUse, Refusal> {
    if host.in_cluster {
        let message = format!(
            "DataLayer {} is of mode Cluster, which serves no uses in this version; name a layer of mode Sentinel, or leave layer out for one of your own",
            host.name
        );
        return Err(Refusal { reason: "ModeCluster", message });
    }
    keeps(store.kind(), host)?;
    let replicas = host.replicas;
    let validated = validate(store, replicas).map_err(|faults| Refusal {
        reason: "Invalid",
        message: faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    })?;
    if validated.wait_replicas > replicas {
        let message = format!(
            "revokeReplicas is {}, but the layer has {replicas} replicas: no revocation would ever be confirmed",
            validated.wait_replicas
        );
        return Err(Refusal { reason: "TooFewReplicas", message });
    }
    Ok(validated)
}

/// Why a use may not have a layer of its own. One that was served before, or whose layer is there, keeps it. `forbids`: whether the
/// operator makes no further ones.
pub fn dedicated_refusal(declared: &DeclaredUse, is_there: bool, forbids: bool) -> Option<Refusal> {
    let was_served = declared.status.as_ref().is_some_and(|status| status.admission.is_some() || status.user.is_some());
    (forbids && is_dedicated(declared) && !is_there && !was_served).then(|| Refusal {
        reason: "DedicatedForbidden",
        message: format!(
            "the operator makes no layers of a {}'s own (--forbid-dedicated): name a DataLayer in spec.layer.name, whose spec.access.namespaces lets namespace {} in",
            declared.kind().words().noun,
            declared.namespace().unwrap_or_default()
        ),
    })
}

pub(super) fn may_name(store: &DeclaredUse, host: &HostLayer, labels: Labels<'_>) -> Result<(), Refusal> {
    let namespace = store.namespace().unwrap_or_default();
    if is_dedicated(store) {
        return if host.owner.is_some() && host.owner == store.uid() {
            Ok(())
        } else {
            Err(name_taken(store.kind(), host))
        };
    }
    if namespace == host.namespace {
        return Ok(());
    }
    let matches = match host.from {
        NamespaceChoice::Same => false,
        NamespaceChoice::All => true,
        NamespaceChoice::Selector => host.selector.clone().is_some_and(|selector| {
            let selector: Option<Selector> = selector.try_into().ok();
            // A namespace that is not known has no permission.
            selector.zip(labels(&namespace)).is_some_and(|(selector, labels)| selector.matches(&labels))
        }),
    };
    if matches {
        Ok(())
    } else {
        let message = format!(
            "namespace {namespace} may not use DataLayer {}/{}: its owner can allow it in spec.access.namespaces",
            host.namespace, host.name
        );
        Err(Refusal { reason: "NotAllowed", message })
    }
}

/// The answer to a store whose dedicated layer's name belongs to another.
fn name_taken(kind: UseKind, host: &HostLayer) -> Refusal {
    let (namespace, name) = (&host.namespace, &host.name);
    let noun = kind.words().noun;
    let message = format!(
        "DataLayer {namespace}/{name} exists and does not belong to this {noun}: remove it or rename the {noun}"
    );
    Refusal { reason: "NameTaken", message }
}

/// Whether the layer keeps the data of such a use.
fn keeps(kind: UseKind, host: &HostLayer) -> Result<(), Refusal> {
    let policy = host.eviction_policy.as_str();
    let judged = eviction::judge(kind, policy);
    match judged.verdict {
        Verdict::Fine | Verdict::Warned => return Ok(()),
        Verdict::Refused => {}
    }
    let measured = judged.ground;
    let message = format!(
        "DataLayer {} has eviction policy {policy}, which drops {} when memory is full ({measured}); name a layer with {}, or leave \
         layer out for one of your own",
        host.name,
        kind.words().data,
        eviction::suitable(kind)
    );
    Err(Refusal { reason: "Evicts", message })
}
