//! The uses of one layer, in the layer's own pass: which it serves and which it refuses, their users and policies. They open no
//! connections of their own.

mod counts;
mod dedicated;
mod export;
mod functions;
pub mod index;
mod invalidation;
mod kept_users;
pub mod memory;
mod prefixes;
pub mod reconcile;
pub(super) mod relay;
mod rotation;
mod served;
mod tenants;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use futures::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::Secret as KubernetesSecret;
use kube::{Resource as _, ResourceExt as _};

use self::index::UsePlace;
use self::kept_users::{is_of, kept, text_of};
use self::rotation::Phase;
pub use self::served::Scene;
use self::served::{Binding, Served, is_owned_by};
use self::tenants::Applicants;
use super::context::Context;
use super::data_layer::Judged;
use super::publish;
use super::watches::WatchedUse;
use crate::act::secrets::digest;
use crate::api::data_layer::DataLayer;
use crate::api::data_layer_status::DataLayerStatus;
use crate::api::names;
use crate::dataplane::{Library, library_of};
use crate::failure::Request;
use crate::model::desired::DesiredUser;
use crate::model::function_library::{Functions, is_users_library};
use crate::model::node_config::FUNCTIONS_FILE;
use crate::model::observed::{Observed, ObservedServer};
use crate::model::{Policy, UseKind};
use crate::redis::users::{use_on_data, use_on_sentinel};
use crate::report::uses::{UseFacts, status};
use crate::telemetry::Chain;
use crate::validate::uses::ValidatedUse;
use crate::validate::uses::tenancy::{Admissions, Admitted, Host, Refusal, admit};

/// How long a binding that was read is believed where Secrets are not watched: shorter than the pause of a layer at rest, so that
/// each pass finds one that was edited.
const BELIEVED: Duration = Duration::from_secs(2);
/// Bindings that are read again in one pass at most where Secrets are not watched.
const MOST_READS: usize = 25;
/// Bytes of sources in a Secret, which holds 1 MiB together with the users.
const MOST_SOURCES: usize = 400_000;
/// Reads and writes of one pass that are under way together.
const TOGETHER: usize = 8;

/// The uses of one layer.
pub struct Uses {
    served: Vec<Served>,
    /// Uses that the layer does not serve, and why.
    refused: Vec<(Arc<WatchedUse>, Refusal)>,
    /// Uses of which too little is known now: their users stay as they are.
    kept: Vec<UsePlace>,
    /// Kinds of which a policy is unknown: their library stays as it is.
    unknown: BTreeSet<UseKind>,
    /// The prefixes of all that have a place.
    reserved: Vec<String>,
}

/// All uses that the layer serves or refuses now, with their bindings. `status`: of the layer; `None`: it cannot be read.
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
    let place = |it: &ValidatedUse| (it.kind, (it.namespace.clone(), it.name.clone()));
    let mut kept: Vec<UsePlace> = waiting.iter().map(|admitted| place(&admitted.accepted)).collect();
    let unreadable = applicants.unreadable.iter();
    kept.extend(unreadable.map(|it| (it.kind(), (it.namespace().unwrap_or_default(), it.name_any()))));
    tell_unreadable(context, &judged.object, &applicants.unreadable).await;
    // A library of a user's holds nothing but what is its own.
    let unknown = kept.iter().map(|(kind, _)| *kind).filter(|kind| kind.has_user()).collect();
    let Admissions { admitted, mut refused, tenants } = admissions;
    let reserved = tenants.into_iter().filter(|tenant| tenant.left.is_none()).map(|tenant| tenant.prefix).collect();
    let by_uid: BTreeMap<String, Arc<WatchedUse>> =
        applicants.readable.into_iter().filter_map(|watched| Some((watched.uid()?, watched))).collect();
    let mut served = with_bindings(context, admitted, &by_uid).await;
    let libraries = served.iter().map(|it| it.object.as_ref()).chain(applicants.unreadable.iter().map(Arc::as_ref));
    let callable = functions::callable(libraries);
    functions::share(context, &callable, &mut served);
    kept.extend(served.iter().filter(|it| matches!(it.binding, Binding::Unreadable(_))).map(|it| place(it.accepted())));
    let refused = by_uid.into_iter().filter_map(|(uid, watched)| Some((watched, refused.remove(&uid)?))).collect();
    Ok(Uses { served, refused, kept, unknown, reserved })
}

async fn with_bindings(
    context: &Context,
    admitted: Vec<Admitted>,
    by_uid: &BTreeMap<String, Arc<WatchedUse>>,
) -> Vec<Served> {
    let mut allowance = MOST_READS;
    let mut uses = Vec::new();
    for admitted in admitted {
        let Some(object) = by_uid.get(&admitted.accepted.uid).cloned() else { continue };
        if !admitted.accepted.kind.has_user() {
            uses.push(with_library(context, admitted, object).boxed());
            continue;
        }
        let name = names::binding(admitted.accepted.kind, &admitted.accepted.name);
        let known = context.secrets.known(&admitted.accepted.namespace, &name, BELIEVED);
        // What was never read must be: without it, which credentials are valid is unknown.
        let spared = known.filter(|(_, holds)| !holds && allowance == 0).map(|(secret, _)| secret);
        allowance = allowance.saturating_sub(usize::from(spared.is_none()));
        uses.push(
            async move {
                let binding = match spared {
                    Some(secret) => Ok(secret),
                    None => context.secrets.read(&context.client, &admitted.accepted.namespace, &name, BELIEVED).await,
                };
                let binding = match binding {
                    Ok(secret) => Binding::Known(
                        secret.filter(|secret| is_owned_by(secret, &admitted.accepted.uid)).map(Box::new),
                    ),
                    Err(error) => Binding::Unreadable(Chain(&error).to_string()),
                };
                Served { admitted, object, binding, library: None, callable: Functions::new() }
            }
            .boxed(),
        );
    }
    stream::iter(uses).buffered(TOGETHER).collect().await
}

/// A use without keys: in place of a binding it has a library.
async fn with_library(context: &Context, admitted: Admitted, object: Arc<WatchedUse>) -> Served {
    let library = functions::library_of(context, &admitted.accepted).await;
    Served { admitted, object, binding: Binding::Known(None), library, callable: Functions::new() }
}

/// Tells in an event of the layer what a use that cannot be read holds up; once for each version of such uses.
async fn tell_unreadable(context: &Context, layer: &DataLayer, unreadable: &[Arc<WatchedUse>]) {
    if unreadable.is_empty() {
        return;
    }
    let version: Vec<String> = unreadable.iter().filter_map(|watched| watched.resource_version()).collect();
    let key = kube::core::ObjectMeta {
        uid: layer.uid(),
        resource_version: Some(version.join(" ")),
        ..kube::core::ObjectMeta::default()
    };
    if context.told_of_uses.is_news(&key) {
        let name = |it: &Arc<WatchedUse>| {
            let kind = it.kind().words().kind;
            format!("{kind} {}/{}", it.namespace().unwrap_or_default(), it.name_any())
        };
        let uses: Vec<String> = unreadable.iter().take(5).map(name).collect();
        let note = format!(
            "{} of its uses cannot be read ({}): their users and functions stay as they are, and no use of the same kind that has \
             a policy gets a changed one until they are corrected",
            unreadable.len(),
            uses.join(", ")
        );
        publish::warn(context, &layer.object_ref(&()), "UseUnreadable", "Read", &note).await;
    }
}

/// Tells every use that names the layer that it cannot be worked with.
pub(super) async fn tell(context: &Context, layer: &DataLayer, trouble: &str) {
    let place = (layer.namespace().unwrap_or_default(), layer.name_any());
    for declared in Applicants::of(context, &place, &[]).objects() {
        if declared.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let old = declared.status.clone().unwrap_or_default();
        let facts = UseFacts {
            kind: declared.kind(),
            generation: declared.metadata.generation.unwrap_or_default(),
            layer: place.clone(),
            layer_trouble: Some(trouble.to_owned()),
            functions: old.functions.clone().unwrap_or_default(),
            binding: old.binding.clone().map(|binding| binding.name),
            export: old.export.clone().map(|export| export.name),
            user: old.user.clone(),
            invalidation: old.invalidation.clone(),
            ..UseFacts::default()
        };
        if let Err(error) = publish::publish_use(context, declared, &status(&facts, &old, publish::now())).await {
            tracing::warn!(name = declared.name_any(), error = %Chain(&error), "cannot tell a use of its layer");
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
            if !it.accepted().kind.has_user() || matches!(it.binding, Binding::Unreadable(_)) {
                continue;
            }
            for rotation in Phase::of(it.binding()).valid(it.accepted().rotation) {
                let (name, digest) = (it.user(rotation), digest(&it.password(context, rotation)));
                data.insert(name.clone(), use_on_data(it.grant(), &digest));
                sentinels.insert(name, use_on_sentinel(&digest));
            }
        }
        (data, sentinels)
    }

    /// The caches that the layer serves: prefix and channel of each.
    pub fn caches(&self) -> BTreeMap<String, String> {
        let policies = self.served.iter().map(|it| &it.accepted().policy);
        let caches = policies.filter_map(|policy| Some((policy.prefix().to_owned(), policy.channel()?.to_owned())));
        caches.collect()
    }

    fn is_kept(&self, user: &str) -> bool {
        self.kept.iter().any(|(kind, (namespace, name))| is_of(user, *kind, namespace, name))
    }

    /// The libraries of the layer's uses, by name: of each kind that is served, unless the policy of one use of it is unknown; and users'.
    pub fn libraries(&self) -> BTreeMap<String, Library> {
        let mut policies: BTreeMap<UseKind, Vec<Policy>> = BTreeMap::new();
        for it in self.served.iter().filter(|it| !self.unknown.contains(&it.accepted().kind)) {
            policies.entry(it.accepted().kind).or_default().push(it.accepted().policy.clone());
        }
        let libraries = policies.into_iter().filter_map(|(kind, policies)| library_of(kind, &policies));
        let of_users = self.served.iter().filter_map(|it| it.library.as_ref()?.as_ref().ok().cloned());
        libraries.chain(of_users).map(|library| (library.name.clone(), library)).collect()
    }

    /// What a server that keeps nothing starts with: the sources of the operator's libraries as JSON. While a policy is unknown, what
    /// the system Secret has. Nothing where a Secret could not hold them. Users' libraries are left out: a server that does not take
    /// one would not start.
    pub fn sources(&self, libraries: &[Library], system: Option<&KubernetesSecret>) -> String {
        let stored = || text_of(system?, FUNCTIONS_FILE).map(str::to_owned);
        let kept = if self.unknown.is_empty() { None } else { stored() };
        let ours = libraries.iter().filter(|library| !is_users_library(&library.name));
        let sources: Vec<&str> = ours.map(|library| library.source.as_str()).collect();
        let text = kept.unwrap_or_else(|| serde_json::json!(sources).to_string());
        if text.len() > MOST_SOURCES { "[]".to_owned() } else { text }
    }

    /// Users of uses of which too little is known are not to be removed.
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
        // The use's own pass tells of a dedicated layer's name that is taken.
        for (watched, refusal) in self.refused.iter().filter(|(_, refusal)| refusal.reason != "NameTaken") {
            if let Ok(object) = &watched.0 {
                refusals.push(async move { (object, reconcile::refuse(context, object, refusal).await) }.boxed());
            }
        }
        let refused: Vec<_> = stream::iter(refusals).buffered(TOGETHER).collect().await;
        for (object, result) in refused {
            if let Err(error) = result {
                tracing::warn!(name = object.name_any(), error = %Chain(&error), "cannot tell a use of its refusal");
            }
        }
        if self.served.iter().any(|it| it.accepted().kind.words().counters.is_some()) {
            counts::ask(context, scene).await;
        }
        let mut work = Vec::new();
        for it in &self.served {
            work.push(
                async move {
                    let settled = match it.library {
                        Some(_) => it.settle_library(context, scene).await,
                        None => it.settle(context, scene).await,
                    };
                    (it, settled)
                }
                .boxed(),
            );
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
