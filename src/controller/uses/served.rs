//! One use that a layer serves, in the layer's pass.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret as KubernetesSecret;
use kube::ResourceExt as _;

use super::super::context::Context;
use super::super::observation::LayerPass;
use super::super::watches::WatchedUse;
use crate::api::data_layer::DataLayer;
use crate::api::use_status::{Admission, FunctionsStatus, LimitStatus};
use crate::api::uses::DeclaredUse;
use crate::build::revision;
use crate::dataplane::Library;
use crate::model::Policy;
use crate::model::function_library::Functions;
use crate::model::observed::ObservedServer;
use crate::redis::Secret;
use crate::redis::rights::Grant;
use crate::redis::users::use_user_name;
use crate::report::uses::{LibraryTrouble, UseFacts};
use crate::validate::uses::ValidatedUse;
use crate::validate::uses::tenancy::AdmittedUse;

pub(super) struct ServedUse {
    pub(super) admitted: AdmittedUse,
    pub(super) object: Arc<WatchedUse>,
    pub(super) binding: Binding,
    /// Of a function library: what is to be loaded, or why nothing is. `None`: it is of another kind.
    pub(super) library: Option<Result<Library, LibraryTrouble>>,
    /// Functions of users' libraries that its user may call.
    pub(super) callable: Functions,
}

/// The binding Secret of a use as it is.
pub(super) enum Binding {
    /// It was read. `None`: there is none, or it is not the use's.
    Read(Option<Box<KubernetesSecret>>),
    /// It could not be read, and this says why. Which credentials are valid is unknown.
    Unreadable(String),
}

impl ServedUse {
    pub(super) fn user(&self, rotation: u32) -> String {
        use_user_name(self.accepted().kind, &self.accepted().namespace, &self.accepted().name, rotation)
    }

    pub(super) fn password(&self, context: &Context, rotation: u32) -> Secret {
        context.passwords.use_password(self.accepted().kind, &self.accepted().uid, rotation, self.binding())
    }

    pub(super) fn facts(&self, layer: &DataLayer) -> UseFacts {
        let policy = self.accepted().policy.json();
        let (namespace, name) = (layer.namespace().unwrap_or_default(), layer.name_any());
        let prefix = self.accepted().policy.prefix().to_owned();
        UseFacts {
            kind: self.accepted().kind,
            admission: self.accepted().kind.has_user().then(|| Admission {
                namespace: namespace.clone(),
                name: name.clone(),
                prefix,
                since: self.admitted.since.clone(),
            }),
            generation: self.accepted().policy.generation(),
            layer: (namespace, name),
            functions: FunctionsStatus {
                library: self.accepted().kind.words().library.to_owned(),
                digest: revision::digest(&policy),
                generation: self.accepted().policy.generation(),
            },
            advice: self.admitted.advice.clone(),
            limits: limits(&self.accepted().policy),
            prefix: self.accepted().policy.prefix().to_owned(),
            budget: self.accepted().budget,
            ..UseFacts::default()
        }
    }

    pub(super) fn accepted(&self) -> &ValidatedUse {
        &self.admitted.accepted
    }

    pub(super) fn grant(&self) -> Grant<'_> {
        let accepted = self.accepted();
        let policy = &accepted.policy;
        Grant {
            kind: accepted.kind,
            prefix: policy.prefix(),
            channel: policy.channel(),
            tracking: accepted.tracking,
            scripts: accepted.scripts,
            functions: &self.callable,
        }
    }

    pub(super) fn binding(&self) -> Option<&KubernetesSecret> {
        match &self.binding {
            Binding::Read(secret) => secret.as_deref(),
            Binding::Unreadable(_) => None,
        }
    }

    pub(super) fn object(&self) -> Option<&DeclaredUse> {
        self.object.0.as_ref().ok()
    }

    /// Where the user of a rotation is.
    pub(super) fn user_placement(&self, pass: LayerPass<'_>, rotation: u32) -> UserPlacement {
        let user = self.user(rotation);
        let mut placement = UserPlacement::default();
        for node in pass.desired.nodes.keys() {
            let in_place = match pass.seen.observed.nodes.get(node).map(|seen| &seen.server) {
                Some(ObservedServer::Data(server)) => &server.users_in_place,
                Some(ObservedServer::Sentinel(server)) => &server.users_in_place,
                Some(ObservedServer::Unknown | ObservedServer::Loading) | None => {
                    let pod = pass.seen.observed.nodes.get(node).and_then(|seen| seen.pod.as_ref());
                    if pod.is_some_and(|pod| pod.ready) {
                        placement.unreached.push(node.to_string());
                    }
                    placement.unreachable.push(node.to_string());
                    continue;
                }
            };
            if !in_place.contains(&user) {
                placement.missing.push(node.to_string());
            }
        }
        placement
    }
}

/// Where a user is not.
#[derive(Debug, Default)]
pub(super) struct UserPlacement {
    /// Nodes that answer and lack it.
    pub(super) missing: Vec<String>,
    /// Nodes that do not answer.
    pub(super) unreachable: Vec<String>,
    /// Those among them whose pods are ready all the same.
    pub(super) unreached: Vec<String>,
}

/// What the limits of a rate limit policy come to.
fn limits(policy: &Policy) -> Vec<LimitStatus> {
    let Some(policy) = policy.limits() else { return Vec::new() };
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let limits = policy.of_one_key().zip(policy.worst_cases()).zip(policy.worst_cases_started());
    limits
        .map(|((limit, worst_case), started)| LimitStatus {
            interval_microseconds: number(limit.interval_microseconds()),
            worst_case: number(worst_case),
            worst_case_started: started.map(number),
            name: limit.name,
        })
        .collect()
}
