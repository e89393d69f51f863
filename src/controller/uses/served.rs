//! One use that a layer serves, in the layer's pass: its binding, its proofs and its status.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::Secret as KubernetesSecret;
use kube::ResourceExt as _;

use super::super::context::Context;
use super::super::publish;
use super::super::watches::WatchedUse;
use super::counts;
use super::memory::{PROOF_HOLDS, locked};
use super::rotation::{LEAST_OVERLAP_MILLISECONDS, Phase};
use crate::act::kube::key_of;
use crate::act::secrets::ANNOTATION_ROOT_KEY;
use crate::act::{Applied, Ending};
use crate::api::data_layer::DataLayer;
use crate::api::names;
use crate::api::use_status::{Admission, FunctionsStatus, LimitStatus};
use crate::api::uses::DeclaredUse;
use crate::build::revision;
use crate::build::uses::{Shown, binding, export};
use crate::dataplane::Library;
use crate::failure::Request;
use crate::model::audit::AuditReport;
use crate::model::desired::Desired;
use crate::model::function_library::Functions;
use crate::model::observed::{Observed, ObservedServer};
use crate::model::{NodeId, NodeKind, Policy};
use crate::redis::rights::Grant;
use crate::redis::use_access::{connections_of, violations};
use crate::redis::users::use_user_name;
use crate::redis::{Connection, Endpoint, Secret};
use crate::report::uses::{LibraryTrouble, UseFacts, status};
use crate::validate::ValidatedLayer;
use crate::validate::uses::ValidatedUse;
use crate::validate::uses::tenancy::Admitted;

/// One use that the layer serves.
pub(super) struct Served {
    pub(super) admitted: Admitted,
    pub(super) object: Arc<WatchedUse>,
    pub(super) binding: Binding,
    /// Of a function library: what is to be loaded, or why nothing is. `None`: it is of another kind.
    pub(super) library: Option<Result<Library, LibraryTrouble>>,
    /// Functions of users' libraries that its user may call.
    pub(super) callable: Functions,
}

/// The binding Secret of a use as it is.
pub(super) enum Binding {
    /// It is known. `None`: there is none, or it is not the use's.
    Known(Option<Box<KubernetesSecret>>),
    /// It could not be read, and this says why. Which credentials are valid is unknown.
    Unreadable(String),
}

/// What a pass of the layer knows.
#[derive(Clone, Copy)]
pub struct Scene<'pass> {
    /// The layer.
    pub object: &'pass DataLayer,
    /// The same, judged.
    pub layer: &'pass ValidatedLayer,
    /// What is wanted.
    pub desired: &'pass Desired,
    /// What was seen before the steps.
    pub observed: &'pass Observed,
    /// Open connections.
    pub connections: &'pass BTreeMap<NodeId, Connection>,
    /// Where the servers and their agents are.
    pub endpoints: &'pass BTreeMap<NodeId, Endpoint>,
    /// The primary beyond doubt.
    pub primary: Option<NodeId>,
    /// The libraries of uses that are wanted, by name. A kind of which a policy is unknown has none.
    pub libraries: &'pass BTreeMap<String, Library>,
    /// What the last whole pass over the keys found; `None`: nothing is known that goes by the prefixes that are declared now.
    pub audit: Option<&'pass Arc<AuditReport>>,
    /// Whether anything may be changed.
    pub paused: bool,
}

impl Served {
    pub(super) fn user(&self, rotation: u32) -> String {
        use_user_name(self.accepted().kind, &self.accepted().namespace, &self.accepted().name, rotation)
    }

    pub(super) fn password(&self, context: &Context, rotation: u32) -> Secret {
        context.vault.use_password(self.accepted().kind, &self.accepted().uid, rotation, self.binding())
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
            ..UseFacts::default()
        }
    }

    pub(super) fn warn(&self, error: &Request) {
        let (kind, name) = (self.accepted().kind.words().kind, self.accepted().policy.owner());
        tracing::warn!(kind, name, error = %crate::telemetry::Chain(error), "this use is looked at again in the next pass");
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
            Binding::Known(secret) => secret.as_deref(),
            Binding::Unreadable(_) => None,
        }
    }

    pub(super) fn object(&self) -> Option<&DeclaredUse> {
        self.object.0.as_ref().ok()
    }

    pub(super) async fn publish(&self, context: &Context, facts: &UseFacts) -> Result<(), Request> {
        let Some(object) = self.object() else { return Ok(()) };
        let old = object.status.clone().unwrap_or_default();
        publish::publish_use(context, object, &status(facts, &old, publish::now())).await
    }

    /// Nodes that answer and lack a user, and nodes that do not answer.
    fn whereabouts(&self, scene: Scene<'_>, rotation: u32) -> (Vec<String>, Vec<String>) {
        let user = self.user(rotation);
        let (mut missing, mut silent) = (Vec::new(), Vec::new());
        for node in scene.desired.nodes.keys() {
            let in_place = match scene.observed.nodes.get(node).map(|seen| &seen.server) {
                Some(ObservedServer::Data(server)) => &server.users_in_place,
                Some(ObservedServer::Sentinel(server)) => &server.users_in_place,
                Some(ObservedServer::Unknown | ObservedServer::Loading) | None => {
                    silent.push(node.to_string());
                    continue;
                }
            };
            if !in_place.contains(&user) {
                missing.push(node.to_string());
            }
        }
        (missing, silent)
    }

    /// Who was asked what: process, user and rules.
    fn question(&self, scene: Scene<'_>) -> Option<(String, NodeId, String)> {
        let node = scene.primary?;
        let ObservedServer::Data(server) = &scene.observed.nodes.get(&node)?.server else { return None };
        let user = self.user(Phase::of(self.binding()).shown.unwrap_or(self.accepted().rotation));
        let rules = &scene.desired.users.get(&user)?.rules;
        server
            .users_in_place
            .contains(&user)
            .then(|| (revision::digest(&format!("{} {user} {}", server.run_id, rules.join(" "))), node, user))
    }

    fn is_proven(&self, context: &Context, scene: Scene<'_>) -> bool {
        let Some((question, _, _)) = self.question(scene) else { return true };
        locked(&context.uses.proofs)
            .get(&self.accepted().uid)
            .is_some_and(|(asked, at, _)| *asked == question && at.elapsed() < PROOF_HOLDS)
    }

    /// What `ACL DRYRUN` says; for a while the last answer for the same process and rules.
    async fn violations(&self, context: &Context, scene: Scene<'_>) -> Option<Vec<String>> {
        let (question, node, user) = self.question(scene)?;
        if !self.is_proven(context, scene)
            && let Some(connection) = scene.connections.get(&node)
        {
            match violations(connection, &user, self.grant()).await {
                Ok(found) => {
                    let proof = (question.clone(), Instant::now(), found);
                    locked(&context.uses.proofs).insert(self.accepted().uid.clone(), proof);
                }
                Err(error) => tracing::debug!(user, error = %crate::telemetry::Chain(&error), "no proof"),
            }
        }
        let proofs = locked(&context.uses.proofs);
        proofs.get(&self.accepted().uid).filter(|(asked, _, _)| *asked == question).map(|(_, _, found)| found.clone())
    }

    /// Whether the primary answers for a library that holds this policy: the wanted one, or an older one of which that was
    /// proven before. Otherwise each change of one use would be news of all.
    fn is_loaded(&self, context: &Context, scene: Scene<'_>, policy: &str) -> bool {
        let server = scene.primary.and_then(|node| match &scene.observed.nodes.get(&node)?.server {
            ObservedServer::Data(server) => Some(server),
            _ => None,
        });
        let name = self.accepted().kind.words().library;
        let library = scene.libraries.get(name);
        // Another use of the kind cannot be read, so which library is wanted is unknown: what was told last still holds.
        let told = self.object().and_then(|object| object.status.as_ref()?.functions.as_ref());
        let is_told = library.is_none() && told.is_some_and(|functions| functions.digest == policy);
        let Some(answered) = server.and_then(|server| server.libraries.get(name)).filter(|it| !it.is_empty()) else {
            return false;
        };
        let mut proven = locked(&context.uses.proven);
        if library.is_some_and(|library| library.digest == *answered) {
            proven.insert(self.accepted().uid.clone(), (policy.to_owned(), answered.clone()));
            return true;
        }
        is_told || proven.get(&self.accepted().uid).is_some_and(|(of, digest)| of == policy && digest == answered)
    }

    /// Whether every data node says that nobody is connected as this user. Asked only at the end of a rotation.
    async fn is_unused(&self, scene: Scene<'_>, rotation: u32) -> bool {
        let user = self.user(rotation);
        for node in scene.desired.nodes.keys().filter(|node| node.kind == NodeKind::Data) {
            let Some(connection) = scene.connections.get(node) else { return false };
            if !connections_of(connection, &user).await.is_ok_and(|count| count == 0) {
                return false;
            }
        }
        true
    }

    pub(super) async fn settle(&self, context: &Context, scene: Scene<'_>) -> Result<bool, Request> {
        let mut facts = self.facts(scene.object);
        facts.audit = scene.audit.cloned();
        let phase = Phase::of(self.binding());
        let wanted = self.accepted().rotation;
        let is_in_place = scene.primary.is_some() && self.whereabouts(scene, wanted).0.is_empty() && {
            let answered = scene.primary.and_then(|node| scene.observed.nodes.get(&node));
            answered.is_some_and(|seen| matches!(seen.server, ObservedServer::Data(_)))
        };
        let is_unused = match phase.previous {
            Some(previous)
                if scene.observed.at.saturating_sub(phase.rotated_at)
                    >= self.accepted().rotation_grace_milliseconds.min(LEAST_OVERLAP_MILLISECONDS) =>
            {
                self.is_unused(scene, previous).await
            }
            _ => false,
        };
        let next = phase.next(self.accepted(), scene.observed.at, is_in_place, is_unused);
        let (shown_missing, silent) = self.whereabouts(scene, phase.shown.unwrap_or(wanted));
        facts.user_missing = shown_missing;
        facts.silent = silent;
        facts.export = self.told_export();
        if let Binding::Unreadable(why) = &self.binding {
            facts.binding_trouble = Some(why.clone());
        } else if !scene.paused
            && let Some(rotation) = next.shown
        {
            self.write(context, scene, rotation, next, &mut facts).await;
        } else {
            facts.binding = self.binding().map(kube::ResourceExt::name_any);
        }
        facts.has_primary = scene.primary.is_some();
        facts.functions_loaded = facts.has_primary && self.is_loaded(context, scene, &facts.functions.digest);
        facts.violations = self.violations(context, scene).await;
        let accepted = self.accepted();
        facts.counters = counts::of(context, &scene.layer.identity.uid, accepted.kind, accepted.policy.owner());
        facts.invalidation = self.invalidation(scene, facts.functions_loaded).await;
        facts.user = next.shown.map(|rotation| self.user(rotation));
        facts.change_refused = locked(&context.uses.refusals).get(&self.accepted().uid).cloned();
        facts.previous_user = next.previous.map(|rotation| self.user(rotation));
        self.publish(context, &facts).await?;
        // The end of a grace is nothing to look for twice a second, nor is a write that failed.
        let is_rotating = next.shown != Some(wanted) && next.previous.is_none();
        Ok(facts.binding_trouble.is_none() && (next != phase || is_rotating))
    }

    async fn write(&self, context: &Context, scene: Scene<'_>, rotation: u32, phase: Phase, facts: &mut UseFacts) {
        let (user, password) = (self.user(rotation), self.password(context, rotation));
        let shown = Shown {
            user: &user,
            password: password.reveal(),
            rotation,
            previous: phase.previous,
            rotated_at: phase.rotated_at,
        };
        let mut secret = binding(self.accepted(), scene.layer, shown);
        if let Some(key) =
            context.vault.root_key_of_use(self.accepted().kind, &self.accepted().uid, rotation, &password)
        {
            secret.annotations_mut().insert(ANNOTATION_ROOT_KEY.to_owned(), key);
        }
        match context.writer.apply(&secret, self.binding()).await {
            Ok(Applied::Unchanged) => facts.binding = Some(secret.name_any()),
            Ok(Applied::Written(written)) => {
                facts.binding = Some(secret.name_any());
                context.secrets.wrote(*written);
            }
            Ok(Applied::Deleting) => facts.binding_trouble = Some("its predecessor is still being deleted".to_owned()),
            Err(error) => {
                context.secrets.forget(&key_of(&secret).namespace, &secret.name_any());
                context.writer.fingerprints().forget(&key_of(&secret));
                let ending = Ending::of(&error);
                facts.name_taken = matches!(ending, Ending::NameTaken(_));
                facts.binding_trouble = Some(ending.detail().to_owned());
            }
        }
        if facts.binding_trouble.is_none()
            && let Err(why) = self.keep_export(context, export(self.accepted(), scene.layer, shown), facts).await
        {
            facts.binding_trouble = Some(format!("Secret {}: {why}", names::export(&self.accepted().name)));
        }
    }
}

/// Whether a Secret belongs to the object with this UID.
pub(super) fn is_owned_by(secret: &KubernetesSecret, uid: &str) -> bool {
    secret.owner_references().iter().any(|owner| owner.uid == uid)
}

/// What the limits of a rate limit policy come to.
fn limits(policy: &Policy) -> Vec<LimitStatus> {
    let Policy::Limits(policy) = policy else { return Vec::new() };
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let limits = policy.of_one_key().zip(policy.worst_cases());
    limits
        .map(|(limit, worst_case)| LimitStatus {
            interval_microseconds: number(limit.interval_microseconds()),
            worst_case: number(worst_case),
            name: limit.name,
        })
        .collect()
}
