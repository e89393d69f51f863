//! The session stores of one layer, in the layer's own pass: whom it serves and whom it refuses, their users and policies. They
//! open no connections of their own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use futures::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::Secret as KubernetesSecret;
use kube::{Resource as _, ResourceExt as _};

use super::context::Context;
use super::data_layer::Judged;
use super::index::Place;
use super::kept_users::{is_of, kept};
pub use super::one_use::Scene;
use super::one_use::{Binding, Use};
use super::rotation::Phase;
use super::tenants::{self, Applicants};
use super::watches::WatchedStore;
use super::{publish, session_store};
use crate::act::secrets::digest;
use crate::api::data_layer::DataLayer;
use crate::api::data_layer_status::DataLayerStatus;
use crate::api::names;
use crate::dataplane::{Library, session_library};
use crate::failure::Request;
use crate::model::desired::DesiredUser;
use crate::model::observed::{Observed, ObservedServer};
use crate::model::session_policy::SessionPolicy;
use crate::redis::users::{session_store_on_data, session_store_on_sentinel};
use crate::report::session_store::{StoreFacts, status};
use crate::telemetry::Chain;
use crate::validate::session_store::ValidatedStore;
use crate::validate::tenancy::{Admissions, Admitted, Host, Refusal, admit};

/// How long a binding that was read is believed where Secrets are not watched: shorter than the pause of a layer at rest, so that
/// each pass finds one that was edited.
const BELIEVED: Duration = Duration::from_secs(2);
/// Bindings that are read again in one pass at most where Secrets are not watched.
const MOST_READS: usize = 25;
/// Reads and writes of one pass that are under way together.
const TOGETHER: usize = 8;

/// The stores of one layer.
pub struct Uses {
    served: Vec<Use>,
    /// Stores that the layer does not serve, and why.
    refused: Vec<(Arc<WatchedStore>, Refusal)>,
    /// Stores of which too little is known now: their users stay as they are.
    kept: Vec<Place>,
    /// Whether all policies are known.
    knows_policies: bool,
}

/// All stores that the layer serves or refuses now, with their bindings. `status`: of the layer; `None`: it cannot be read.
pub(super) async fn gather(
    context: &Context,
    judged: &Judged,
    status: Option<&DataLayerStatus>,
) -> Result<Uses, Request> {
    let (host, metadata) = (Host::of(&judged.object, &judged.layer), &judged.object.metadata);
    let identity = &judged.layer.identity;
    let stored = tenants::stored(context, metadata, status).await?;
    let list = stored.clone().unwrap_or_default();
    let applicants = Applicants::of(context, &(identity.namespace.clone(), identity.name.clone()), &list);
    let (labels, unreadable) = (|namespace: &str| context.labels_of(namespace), applicants.unreadable_uids());
    let admissions = admit(&host, stored.as_deref(), applicants.objects(), &unreadable, &labels, publish::now());
    let (admissions, waiting) = if stored.as_ref() == Some(&admissions.tenants) {
        (admissions, Vec::new())
    } else if let Err(error) = tenants::store(context, metadata, &admissions.tenants).await {
        tracing::info!(layer = identity.name, error = %Chain(&error), "newcomers wait for the list of tenants");
        admissions.as_stored(stored.as_deref())
    } else {
        (admissions, Vec::new())
    };
    let place = |store: &ValidatedStore| (store.namespace.clone(), store.name.clone());
    let mut kept: Vec<Place> = waiting.iter().map(|admitted| place(&admitted.store)).collect();
    kept.extend(applicants.unreadable.iter().map(|it| (it.namespace().unwrap_or_default(), it.name_any())));
    tell_unreadable(context, &judged.object, &applicants.unreadable).await;
    let knows_policies = kept.is_empty();
    let Admissions { admitted, mut refused, .. } = admissions;
    let by_uid: BTreeMap<String, Arc<WatchedStore>> =
        applicants.readable.into_iter().filter_map(|store| Some((store.uid()?, store))).collect();
    let served = with_bindings(context, admitted, &by_uid).await;
    kept.extend(served.iter().filter(|it| matches!(it.binding, Binding::Unreadable(_))).map(|it| place(it.store())));
    let refused = by_uid.into_iter().filter_map(|(uid, store)| Some((store, refused.remove(&uid)?))).collect();
    Ok(Uses { served, refused, kept, knows_policies })
}

async fn with_bindings(
    context: &Context,
    admitted: Vec<Admitted>,
    by_uid: &BTreeMap<String, Arc<WatchedStore>>,
) -> Vec<Use> {
    let mut allowance = MOST_READS;
    let mut uses = Vec::new();
    for admitted in admitted {
        let Some(object) = by_uid.get(&admitted.store.uid).cloned() else { continue };
        let name = names::session_binding(&admitted.store.name);
        let known = context.secrets.known(&admitted.store.namespace, &name, BELIEVED);
        // What was never read must be: without it, which credentials are valid is unknown.
        let spared = known.filter(|(_, holds)| !holds && allowance == 0).map(|(secret, _)| secret);
        allowance = allowance.saturating_sub(usize::from(spared.is_none()));
        uses.push(
            async move {
                let binding = match spared {
                    Some(secret) => Ok(secret),
                    None => context.secrets.read(&context.client, &admitted.store.namespace, &name, BELIEVED).await,
                };
                let binding = match binding {
                    Ok(secret) => {
                        Binding::Known(secret.filter(|secret| is_owned_by(secret, &admitted.store.uid)).map(Box::new))
                    }
                    Err(error) => Binding::Unreadable(Chain(&error).to_string()),
                };
                Use { admitted, object, binding }
            }
            .boxed(),
        );
    }
    stream::iter(uses).buffered(TOGETHER).collect().await
}

pub(super) fn is_owned_by(secret: &KubernetesSecret, uid: &str) -> bool {
    secret.owner_references().iter().any(|owner| owner.uid == uid)
}

/// Tells in an event of the layer what a store that cannot be read holds up; once for each version of such stores.
async fn tell_unreadable(context: &Context, layer: &DataLayer, unreadable: &[Arc<WatchedStore>]) {
    if unreadable.is_empty() {
        return;
    }
    let version: Vec<String> = unreadable.iter().filter_map(|store| store.resource_version()).collect();
    let key = kube::core::ObjectMeta {
        uid: layer.uid(),
        resource_version: Some(version.join(" ")),
        ..kube::core::ObjectMeta::default()
    };
    if context.told_of_stores.is_news(&key) {
        let stores: Vec<String> = unreadable
            .iter()
            .take(5)
            .map(|store| format!("{}/{}", store.namespace().unwrap_or_default(), store.name_any()))
            .collect();
        let note = format!(
            "{} of its stores cannot be read ({}): their users stay as they are, and no store of the layer gets a changed \
             policy until they are corrected",
            unreadable.len(),
            stores.join(", ")
        );
        publish::warn(context, &layer.object_ref(&()), "StoreUnreadable", "Read", &note).await;
    }
}

/// Tells every store that names the layer that it cannot be worked with.
pub(super) async fn tell(context: &Context, layer: &DataLayer, trouble: &str) {
    let place = (layer.namespace().unwrap_or_default(), layer.name_any());
    for store in Applicants::of(context, &place, &[]).objects() {
        if store.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let old = store.status.clone().unwrap_or_default();
        let facts = StoreFacts {
            generation: store.metadata.generation.unwrap_or_default(),
            layer: place.clone(),
            layer_trouble: Some(trouble.to_owned()),
            functions: old.functions.clone().unwrap_or_default(),
            binding: old.binding.clone().map(|binding| binding.name),
            user: old.user.clone(),
            ..StoreFacts::default()
        };
        if let Err(error) = publish::publish_store(context, store, &status(&facts, &old, publish::now())).await {
            tracing::warn!(store = store.name_any(), error = %Chain(&error), "cannot tell a store of its layer");
        }
    }
}

impl Uses {
    /// Users of the data nodes, and of the Sentinels. `system`: the layer's system Secret.
    pub fn users(
        &self,
        context: &Context,
        system: Option<&KubernetesSecret>,
    ) -> (BTreeMap<String, DesiredUser>, BTreeMap<String, DesiredUser>) {
        let is_kept = |user: &str| self.is_kept(user);
        let mut data = kept(system, names::DATA_USERS_FILE, is_kept);
        let mut sentinels = kept(system, names::SENTINEL_USERS_FILE, is_kept);
        for it in &self.served {
            if matches!(it.binding, Binding::Unreadable(_)) {
                continue;
            }
            for rotation in Phase::of(it.binding()).valid(it.store().rotation) {
                let (name, digest) = (it.user(rotation), digest(&it.password(context, rotation)));
                data.insert(name.clone(), session_store_on_data(&digest, &it.store().policy.prefix));
                sentinels.insert(name, session_store_on_sentinel(&digest));
            }
        }
        (data, sentinels)
    }

    fn is_kept(&self, user: &str) -> bool {
        self.kept.iter().any(|(namespace, name)| is_of(user, namespace, name))
    }

    /// The session library of the layer; `None`: it has no stores, or the policy of one of them is unknown.
    pub fn library(&self) -> Option<Library> {
        let policies: Vec<SessionPolicy> = self.served.iter().map(|it| it.store().policy.clone()).collect();
        (!policies.is_empty() && self.knows_policies).then(|| session_library(&policies))
    }

    /// Users of stores of which too little is known are not to be removed.
    pub fn spare(&self, observed: &mut Observed) {
        if self.kept.is_empty() {
            return;
        }
        for node in observed.nodes.values_mut() {
            match &mut node.server {
                ObservedServer::Data(server) => server.users_foreign.retain(|user| !self.is_kept(user)),
                ObservedServer::Sentinel(server) => server.users_foreign.retain(|user| !self.is_kept(user)),
                ObservedServer::Unknown | ObservedServer::Loading => {}
            }
        }
    }

    /// After the steps: bindings, proofs, and what is told. One that fails stops no other, nor the layer. Answers whether
    /// something is still under way.
    pub async fn settle(&self, context: &Context, scene: Scene<'_>) -> bool {
        let mut refusals = Vec::new();
        // The store's own pass tells of a dedicated layer's name that is taken.
        for (store, refusal) in self.refused.iter().filter(|(_, refusal)| refusal.reason != "NameTaken") {
            if let Ok(object) = &store.0 {
                refusals.push(async move { (object, session_store::refuse(context, object, refusal).await) }.boxed());
            }
        }
        let refused: Vec<_> = stream::iter(refusals).buffered(TOGETHER).collect().await;
        for (object, result) in refused {
            if let Err(error) = result {
                tracing::warn!(store = object.name_any(), error = %Chain(&error), "cannot tell a store of its refusal");
            }
        }
        let mut work = Vec::new();
        for it in &self.served {
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
