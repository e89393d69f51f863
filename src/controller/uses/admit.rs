//! Which uses a layer serves and which it refuses: all that name it are judged together, with what their objects say, against the
//! layer as it was accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::{Resource as _, ResourceExt as _};

use super::super::context::Context;
use super::super::publish;
use super::super::watches::WatchedUse;
use super::binding::RelatedObjects;
use super::functions;
use super::index::UsePlace;
use super::of_layer::Uses;
use super::served::{Binding, ServedUse};
use super::tenants::{self, Applicants};
use crate::api::data_layer::DataLayer;
use crate::failure::Request;
use crate::model::function_library::Functions;
use crate::telemetry::Chain;
use crate::validate::ValidatedLayer;
use crate::validate::uses::ValidatedUse;
use crate::validate::uses::tenancy::{Admissions, HostLayer, admit};

impl Uses {
    /// All uses that the layer serves or refuses now, with their bindings and libraries. `accepted`: the object with the specification
    /// that `layer` was made from. `object`: as the watch shows it; `None`: it cannot be read.
    pub(in crate::controller) async fn admit(
        context: &Context,
        accepted: &DataLayer,
        layer: &ValidatedLayer,
        object: Option<&DataLayer>,
    ) -> Result<Self, Request> {
        // Tenants are judged by what was accepted: a specification that is refused takes nothing from them.
        let (host, metadata) = (HostLayer::of(accepted, layer), &accepted.metadata);
        let status = object.map(|object| object.status.clone().unwrap_or_default());
        let stored = tenants::stored(context, metadata, status.as_ref()).await?;
        let list = stored.clone().unwrap_or_default();
        let place = (layer.identity.namespace.clone(), layer.identity.name.clone());
        let applicants = Applicants::of(context, &place, &list);
        let mut related = RelatedObjects::read(context, &applicants.readable).await;
        let (labels, unreadable) = (|namespace: &str| context.labels_of(namespace), applicants.unreadable_uids());
        let emptied = context.uses.emptied.get(&metadata.uid.clone().unwrap_or_default()).unwrap_or_default();
        let admissions =
            admit(&host, stored.as_deref(), applicants.objects(), &unreadable, &emptied, &labels, publish::now());
        let (admissions, waiting) = if stored.as_ref() == Some(&admissions.tenants) {
            (admissions, Vec::new())
        } else if let Err(error) = tenants::store(context, metadata, &admissions.tenants).await {
            tracing::info!(layer = layer.identity.name, error = %Chain(&error), "newcomers wait for the list of tenants");
            admissions.as_stored(stored.as_deref())
        } else {
            (admissions, Vec::new())
        };
        report_unreadable(context, accepted, &applicants.unreadable).await;
        let place = |it: &ValidatedUse| (it.kind, (it.namespace.clone(), it.name.clone()));
        let mut kept: Vec<UsePlace> = waiting.iter().map(|admitted| place(&admitted.accepted)).collect();
        let mut unknown: BTreeSet<_> = kept.iter().map(|(kind, _)| *kind).collect();
        let mut remembered = Vec::new();
        for it in &applicants.unreadable {
            kept.push((it.kind(), (it.namespace().unwrap_or_default(), it.name_any())));
            match context.uses.policies.get(&it.uid().unwrap_or_default()) {
                Some(policy) => remembered.push(policy),
                None => _ = unknown.insert(it.kind()),
            }
        }
        // A library of a user's holds nothing but what is its own.
        unknown.retain(|kind| kind.has_user());
        let Admissions { admitted, mut refused, tenants } = admissions;
        let by_uid: BTreeMap<String, Arc<WatchedUse>> =
            applicants.readable.into_iter().filter_map(|watched| Some((watched.uid()?, watched))).collect();
        let mut served = Vec::new();
        for admitted in admitted {
            let uid = &admitted.accepted.uid;
            let (Some(object), Some(binding)) = (by_uid.get(uid).cloned(), related.bindings.remove(uid)) else {
                continue;
            };
            let library = related.libraries.remove(uid);
            context.uses.policies.insert(uid, admitted.accepted.policy.clone());
            served.push(ServedUse { admitted, object, binding, library, callable: Functions::new() });
        }
        let libraries = served.iter().map(|it| it.object.as_ref()).chain(applicants.unreadable.iter().map(Arc::as_ref));
        let callable = functions::callable(libraries);
        functions::share(context, &callable, &mut served);
        let unknown_bindings = served.iter().filter(|it| matches!(it.binding, Binding::Unreadable(_)));
        kept.extend(unknown_bindings.map(|it| place(it.accepted())));
        let refused = by_uid.into_iter().filter_map(|(uid, watched)| Some((watched, refused.remove(&uid)?))).collect();
        Ok(Self { served, refused, kept, remembered, unknown, places: tenants })
    }
}

/// Tells in an event of the layer what a use that cannot be read holds up; once for each version of such uses.
async fn report_unreadable(context: &Context, layer: &DataLayer, unreadable: &[Arc<WatchedUse>]) {
    if unreadable.is_empty() {
        return;
    }
    let version: Vec<String> = unreadable.iter().filter_map(|watched| watched.resource_version()).collect();
    let key = kube::core::ObjectMeta {
        uid: layer.uid(),
        resource_version: Some(version.join(" ")),
        ..kube::core::ObjectMeta::default()
    };
    if context.unreadable_uses.is_news(&key) {
        let name = |it: &Arc<WatchedUse>| {
            let kind = it.kind().words().kind;
            format!("{kind} {}/{}", it.namespace().unwrap_or_default(), it.name_any())
        };
        let uses: Vec<String> = unreadable.iter().take(5).map(name).collect();
        let note = format!(
            "{} of its uses cannot be read ({}): their users and functions stay as they are. An operator that was started since has \
             not seen their policies: until they are corrected, it changes none of the same kind",
            unreadable.len(),
            uses.join(", ")
        );
        publish::warn(context, &layer.object_ref(&()), "UseUnreadable", "Read", &note).await;
    }
}
