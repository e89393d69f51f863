//! The session stores of one layer, in the layer's own pass: users, policies, bindings, proofs and status. They open no
//! connections of their own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream;
use futures::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::Secret as KubernetesSecret;
use kube::ResourceExt as _;
use kube::api::Api;

use super::context::Context;
use super::publish;
use super::rotation::{LEAST_OVERLAP_MILLISECONDS, Phase};
use super::use_memory::{PROOF_HOLDS, locked};
use super::watches::WatchedStore;
use crate::act::kube::key_of;
use crate::act::secrets::{ANNOTATION_ROOT_KEY, digest};
use crate::act::{Applied, Ending};
use crate::api::data_layer::DataLayer;
use crate::api::names;
use crate::api::session_store::SessionStore;
use crate::api::session_store_status::FunctionsStatus;
use crate::build::revision;
use crate::build::session_store::{Shown, binding};
use crate::dataplane::{Library, session_library};
use crate::failure::{Request, request};
use crate::model::desired::{Desired, DesiredUser};
use crate::model::observed::{Observed, ObservedServer};
use crate::model::session_policy::SessionPolicy;
use crate::model::{NodeId, NodeKind};
use crate::redis::store_access::{connections_of, violations};
use crate::redis::users::{session_store_on_data, session_store_on_sentinel, store_user_name};
use crate::redis::{Connection, Secret};
use crate::report::session_store::{StoreFacts, status};
use crate::validate::ValidatedLayer;
use crate::validate::session_store::{ValidatedStore, admit};

/// How long a binding Secret that was read is believed. Somebody who deletes or edits one waits this long for it to be
/// mended; the operator may not watch Secrets, because to watch is to read them all.
const BELIEVED: Duration = Duration::from_secs(30);
/// Secrets that are read again in one pass at most: 500 stores are gone through in a minute.
const MOST_READS: usize = 25;
/// Reads and writes of one pass that are under way together.
const TOGETHER: usize = 8;
/// One store that the layer serves.
struct Use {
    store: ValidatedStore,
    object: Arc<WatchedStore>,
    /// The binding as it is, if it is the store's.
    binding: Option<KubernetesSecret>,
}

/// The stores of one layer.
pub struct Uses {
    uses: Vec<Use>,
    /// Whether a store somewhere cannot be read: then nobody's user and policy is taken away.
    pub frozen: bool,
}

/// All stores that the layer serves now, with their bindings.
pub async fn gather(context: &Context, layer: &DataLayer) -> Result<Uses, Request> {
    let watched = context.session_stores.state();
    let frozen = watched.iter().any(|store| store.0.is_err());
    let labels = |namespace: &str| context.labels_of(namespace);
    let admitted = admit(layer, watched.iter().filter_map(|store| store.0.as_ref().ok()), &labels).admitted;
    let by_uid: BTreeMap<String, Arc<WatchedStore>> =
        watched.into_iter().filter_map(|store| Some((store.uid()?, store))).collect();
    let mut allowance = MOST_READS;
    let mut uses = Vec::new();
    for store in admitted {
        let Some(object) = by_uid.get(&store.uid).cloned() else { continue };
        let known = locked(&context.uses.bindings).get(&store.uid).cloned();
        let is_fresh = known.as_ref().is_some_and(|(read, _)| read.elapsed() < BELIEVED);
        // What was never read must be: without it nobody knows which credentials are valid.
        let reads = known.is_none() || (!is_fresh && allowance > 0);
        allowance = allowance.saturating_sub(usize::from(reads));
        let known = known.and_then(|(_, binding)| binding);
        uses.push(with_binding(context, store, object, known, reads).boxed());
    }
    let uses: Vec<Result<Use, Request>> = stream::iter(uses).buffered(TOGETHER).collect().await;
    Ok(Uses { uses: uses.into_iter().collect::<Result<_, _>>()?, frozen })
}

async fn with_binding(
    context: &Context,
    store: ValidatedStore,
    object: Arc<WatchedStore>,
    known: Option<KubernetesSecret>,
    reads: bool,
) -> Result<Use, Request> {
    let binding = match known {
        known if !reads => known,
        // What was read before goes on to count while it cannot be read again.
        Some(known) => read_binding(context, &store).await.unwrap_or(Some(known)),
        None => read_binding(context, &store).await?,
    };
    Ok(Use { store, object, binding })
}

async fn read_binding(context: &Context, store: &ValidatedStore) -> Result<Option<KubernetesSecret>, Request> {
    let name = names::session_binding(&store.name);
    let api: Api<KubernetesSecret> = Api::namespaced(context.client.clone(), &store.namespace);
    let found = request("read", &format!("Secret {}/{name}", store.namespace), api.get_opt(&name)).await?;
    let ours = found.filter(|secret| secret.owner_references().iter().any(|owner| owner.uid == store.uid));
    locked(&context.uses.bindings).insert(store.uid.clone(), (Instant::now(), ours.clone()));
    Ok(ours)
}

impl Uses {
    /// No stores.
    pub fn none() -> Self {
        Self { uses: Vec::new(), frozen: false }
    }

    /// Users of the data nodes, and of the Sentinels.
    pub fn users(&self, context: &Context) -> (BTreeMap<String, DesiredUser>, BTreeMap<String, DesiredUser>) {
        let (mut data, mut sentinels) = (BTreeMap::new(), BTreeMap::new());
        for it in &self.uses {
            for rotation in Phase::of(it.binding.as_ref()).valid(it.store.rotation) {
                let (name, digest) = (it.user(rotation), digest(&it.password(context, rotation)));
                data.insert(name.clone(), session_store_on_data(&digest, &it.store.policy.prefix));
                sentinels.insert(name, session_store_on_sentinel(&digest));
            }
        }
        (data, sentinels)
    }

    /// The session library of the layer; `None`: it has no stores, or one of them cannot be read.
    pub fn library(&self) -> Option<Library> {
        let policies: Vec<SessionPolicy> = self.uses.iter().map(|it| it.store.policy.clone()).collect();
        (!policies.is_empty() && !self.frozen).then(|| session_library(&policies))
    }

    /// While a store cannot be read, users of stores are nobody's to remove.
    pub fn spare(&self, observed: &mut Observed) {
        if !self.frozen {
            return;
        }
        for node in observed.nodes.values_mut() {
            match &mut node.server {
                ObservedServer::Data(server) => server.users_foreign.retain(|user| !user.starts_with("ss.")),
                ObservedServer::Sentinel(server) => server.users_foreign.retain(|user| !user.starts_with("ss.")),
                ObservedServer::Unknown | ObservedServer::Loading => {}
            }
        }
    }

    /// Tells every store that its layer cannot be worked with.
    pub async fn tell(&self, context: &Context, layer: &DataLayer, trouble: &str) {
        for it in &self.uses {
            let facts = StoreFacts {
                layer_trouble: Some(trouble.to_owned()),
                binding: it.binding.as_ref().map(kube::ResourceExt::name_any),
                ..it.facts(layer)
            };
            if let Err(error) = it.publish(context, &facts).await {
                it.warn(&error);
            }
        }
    }

    /// After the steps: bindings, proofs, and what is told. One that fails stops no other, nor the layer. Answers whether
    /// something is still under way.
    pub async fn settle(&self, context: &Context, scene: Scene<'_>) -> bool {
        let mut work = Vec::new();
        for it in &self.uses {
            work.push(async move { (it, it.settle(context, scene).await) }.boxed());
        }
        let settled: Vec<_> = stream::iter(work).buffered(TOGETHER).collect().await;
        let mut is_busy = false;
        for (it, result) in settled {
            match result {
                Ok(busy) => is_busy |= busy,
                Err(error) => it.warn(&error),
            }
        }
        is_busy
    }
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
    /// The primary beyond doubt.
    pub primary: Option<NodeId>,
    /// The session library that is wanted.
    pub library: Option<&'pass Library>,
    /// Whether anything may be changed.
    pub paused: bool,
}

impl Use {
    fn user(&self, rotation: u32) -> String {
        store_user_name(&self.store.namespace, &self.store.name, rotation)
    }

    fn password(&self, context: &Context, rotation: u32) -> Secret {
        context.vault.store_password(&self.store.uid, rotation, self.binding.as_ref())
    }

    fn facts(&self, layer: &DataLayer) -> StoreFacts {
        let policy = serde_json::to_string(&self.store.policy).unwrap_or_default();
        StoreFacts {
            generation: self.store.policy.generation,
            layer: (layer.namespace().unwrap_or_default(), layer.name_any()),
            functions: FunctionsStatus {
                library: crate::dataplane::sessions::LIBRARY.to_owned(),
                digest: revision::digest(&policy),
                generation: self.store.policy.generation,
            },
            ..StoreFacts::default()
        }
    }

    fn warn(&self, error: &Request) {
        let store = &self.store.policy.store;
        tracing::warn!(store, error = %crate::telemetry::Chain(error), "this store is looked at again in the next pass");
    }

    fn store(&self) -> Option<&SessionStore> {
        self.object.0.as_ref().ok()
    }

    async fn publish(&self, context: &Context, facts: &StoreFacts) -> Result<(), Request> {
        let Some(object) = self.store() else { return Ok(()) };
        let old = object.status.clone().unwrap_or_default();
        publish::publish_store(context, object, &status(facts, &old, publish::now())).await
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
        let user = self.user(Phase::of(self.binding.as_ref()).shown.unwrap_or(self.store.rotation));
        let rules = &scene.desired.users.get(&user)?.rules;
        server
            .users_in_place
            .contains(&user)
            .then(|| (revision::digest(&format!("{} {user} {}", server.run_id, rules.join(" "))), node, user))
    }

    fn is_proven(&self, context: &Context, scene: Scene<'_>) -> bool {
        let Some((question, _, _)) = self.question(scene) else { return true };
        locked(&context.uses.proofs)
            .get(&self.store.uid)
            .is_some_and(|(asked, at, _)| *asked == question && at.elapsed() < PROOF_HOLDS)
    }

    /// What `ACL DRYRUN` says; for a while the last answer for the same process and rules.
    async fn violations(&self, context: &Context, scene: Scene<'_>) -> Option<Vec<String>> {
        let (question, node, user) = self.question(scene)?;
        if !self.is_proven(context, scene)
            && let Some(connection) = scene.connections.get(&node)
        {
            match violations(connection, &user, &self.store.policy.prefix).await {
                Ok(found) => {
                    let proof = (question.clone(), Instant::now(), found);
                    locked(&context.uses.proofs).insert(self.store.uid.clone(), proof);
                }
                Err(error) => tracing::debug!(user, error = %crate::telemetry::Chain(&error), "no proof"),
            }
        }
        let proofs = locked(&context.uses.proofs);
        proofs.get(&self.store.uid).filter(|(asked, _, _)| *asked == question).map(|(_, _, found)| found.clone())
    }

    /// Whether the primary answers for a library that holds this policy: the wanted one, or an older one of which that was
    /// proven before. Otherwise each change of one store would be news of all.
    fn is_loaded(&self, context: &Context, scene: Scene<'_>, policy: &str) -> bool {
        let server = scene.primary.and_then(|node| match &scene.observed.nodes.get(&node)?.server {
            ObservedServer::Data(server) => Some(server),
            _ => None,
        });
        let name = crate::dataplane::sessions::LIBRARY;
        let Some(answered) = server.and_then(|server| server.libraries.get(name)).filter(|it| !it.is_empty()) else {
            return false;
        };
        let mut proven = locked(&context.uses.proven);
        if scene.library.is_some_and(|library| library.digest == *answered) {
            proven.insert(self.store.uid.clone(), (policy.to_owned(), answered.clone()));
            return true;
        }
        proven.get(&self.store.uid).is_some_and(|(of, digest)| of == policy && digest == answered)
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

    async fn settle(&self, context: &Context, scene: Scene<'_>) -> Result<bool, Request> {
        let mut facts = self.facts(scene.object);
        let phase = Phase::of(self.binding.as_ref());
        let wanted = self.store.rotation;
        let is_in_place = scene.primary.is_some() && self.whereabouts(scene, wanted).0.is_empty() && {
            let answered = scene.primary.and_then(|node| scene.observed.nodes.get(&node));
            answered.is_some_and(|seen| matches!(seen.server, ObservedServer::Data(_)))
        };
        let is_unused = match phase.previous {
            Some(previous)
                if scene.observed.at.saturating_sub(phase.rotated_at)
                    >= self.store.rotation_grace_milliseconds.min(LEAST_OVERLAP_MILLISECONDS) =>
            {
                self.is_unused(scene, previous).await
            }
            _ => false,
        };
        let next = phase.next(&self.store, scene.observed.at, is_in_place, is_unused);
        let (shown_missing, silent) = self.whereabouts(scene, phase.shown.unwrap_or(wanted));
        facts.user_missing = shown_missing;
        facts.silent = silent;
        if !scene.paused
            && let Some(rotation) = next.shown
        {
            self.write(context, scene, rotation, next, &mut facts).await;
        } else {
            facts.binding = self.binding.as_ref().map(kube::ResourceExt::name_any);
        }
        facts.has_primary = scene.primary.is_some();
        facts.functions_loaded = facts.has_primary && self.is_loaded(context, scene, &facts.functions.digest);
        facts.violations = self.violations(context, scene).await;
        facts.user = next.shown.map(|rotation| self.user(rotation));
        facts.change_refused = locked(&context.uses.refusals).get(&self.store.uid).cloned();
        facts.previous_user = next.previous.map(|rotation| self.user(rotation));
        self.publish(context, &facts).await?;
        // The end of a grace is nothing to look for twice a second, nor is a write that failed.
        let is_rotating = next.shown != Some(wanted) && next.previous.is_none();
        Ok(facts.binding_trouble.is_none() && (next != phase || is_rotating))
    }

    async fn write(&self, context: &Context, scene: Scene<'_>, rotation: u32, phase: Phase, facts: &mut StoreFacts) {
        let (user, password) = (self.user(rotation), self.password(context, rotation));
        let shown = Shown {
            user: &user,
            password: password.reveal(),
            rotation,
            previous: phase.previous,
            rotated_at: phase.rotated_at,
        };
        let mut secret = binding(&self.store, scene.layer, shown);
        if let Some(key) = context.vault.root_key_of_store(&self.store.uid, rotation, &password) {
            secret.annotations_mut().insert(ANNOTATION_ROOT_KEY.to_owned(), key);
        }
        match context.writer.apply(&secret, self.binding.as_ref()).await {
            Ok(Applied::Unchanged) => facts.binding = Some(secret.name_any()),
            Ok(Applied::Written(written)) => {
                facts.binding = Some(secret.name_any());
                locked(&context.uses.bindings).insert(self.store.uid.clone(), (Instant::now(), Some(*written)));
            }
            Ok(Applied::Deleting) => facts.binding_trouble = Some("its predecessor is still being deleted".to_owned()),
            Err(error) => {
                context.uses.forget_binding(&self.store.uid);
                context.writer.fingerprints().forget(&key_of(&secret));
                let ending = Ending::of(&error);
                facts.name_taken = matches!(ending, Ending::NameTaken(_));
                facts.binding_trouble = Some(ending.detail().to_owned());
            }
        }
    }
}
