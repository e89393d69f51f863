//! The list of a layer's tenants, as it is stored in the layer's status, and the uses that ask for a place.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Resource as _, ResourceExt as _};
use serde_json::json;

use super::super::context::Context;
use super::super::watches::WatchedUse;
use super::index::{Place, UsePlace};
use crate::api::data_layer::DataLayer;
use crate::api::data_layer_status::{DataLayerStatus, Tenant};
use crate::api::names;
use crate::api::uses::DeclaredUse;
use crate::failure::{Request, request};

/// The list as it is stored; `None`: the layer never had one. `status`: of the layer as the watch shows it; `None`: the object
/// cannot be read.
pub(super) async fn stored(
    context: &Context,
    layer: &ObjectMeta,
    status: Option<&DataLayerStatus>,
) -> Result<Option<Vec<Tenant>>, Request> {
    let uid = layer.uid.clone().unwrap_or_default();
    let ours = context.uses.tenants.lock().get(&uid).cloned();
    match (ours, status) {
        // The list was stored on top of the very version that the watch still shows.
        (Some((seen, tenants)), Some(_)) if seen == layer.resource_version => Ok(Some(tenants)),
        (Some((_, tenants)), None) => Ok(Some(tenants)),
        (_, Some(status)) => Ok(status.tenants.clone()),
        (None, None) => read(context, layer).await,
    }
}

/// The list of a layer whose object cannot be read.
async fn read(context: &Context, layer: &ObjectMeta) -> Result<Option<Vec<Tenant>>, Request> {
    let (namespace, name) = (layer.namespace.clone().unwrap_or_default(), layer.name.clone().unwrap_or_default());
    let kind = ApiResource::erase::<DataLayer>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &namespace, &kind);
    let found = request("read", &format!("DataLayer {namespace}/{name}"), api.get(&name)).await?;
    let list = found.data.get("status").and_then(|status| status.get("tenants"));
    Ok(list.and_then(|list| serde_json::from_value(list.clone()).ok()))
}

/// Stores the list, if the layer is still at the version that the watch shows: a list that was made from an older one could
/// give a tenant's place away.
pub(super) async fn store(context: &Context, layer: &ObjectMeta, tenants: &[Tenant]) -> Result<(), Request> {
    let (namespace, name) = (layer.namespace.clone().unwrap_or_default(), layer.name.clone().unwrap_or_default());
    let api: Api<PartialObjectMeta<DataLayer>> = Api::namespaced(context.client.clone(), &namespace);
    let patch = json!({
        "apiVersion": DataLayer::api_version(&()),
        "kind": DataLayer::kind(&()),
        "metadata": {"name": name, "namespace": namespace, "uid": layer.uid, "resourceVersion": layer.resource_version},
        "status": {"tenants": tenants},
    });
    let parameters = PatchParams::apply(names::MANAGER_TENANTS).force();
    let words = format!("the tenants of DataLayer {namespace}/{name}");
    request("patch", &words, api.patch_status(&name, &parameters, &Patch::Apply(&patch))).await?;
    context.metrics.write("Status");
    let uid = layer.uid.clone().unwrap_or_default();
    context.uses.tenants.lock().insert(uid, (layer.resource_version.clone(), tenants.to_vec()));
    Ok(())
}

/// The uses that name a layer, or have a place in it.
pub(in crate::controller) struct Applicants {
    pub(super) readable: Vec<Arc<WatchedUse>>,
    pub(super) unreadable: Vec<Arc<WatchedUse>>,
}

impl Applicants {
    pub(super) fn of(context: &Context, layer: &Place, tenants: &[Tenant]) -> Self {
        let watched = |place: UsePlace| context.declared_use(&place);
        let named = context.index.uses_of(layer).into_iter().filter_map(watched);
        let readable = named.filter(|watched| watched.0.is_ok()).collect();
        let is_ours = |unreadable: &Arc<WatchedUse>| {
            let uid = unreadable.uid().unwrap_or_default();
            // A library has no place in the list: where its layer is unknown, it is no layer's to delete.
            let is_any = unreadable.layer().is_none() && !unreadable.kind().has_user();
            is_any || unreadable.layer().as_ref() == Some(layer) || tenants.iter().any(|tenant| tenant.uid == uid)
        };
        let unreadable = context.index.unreadable().into_iter().filter_map(watched).filter(|it| it.0.is_err());
        Self { readable, unreadable: unreadable.filter(is_ours).collect() }
    }

    pub(super) fn objects(&self) -> impl Iterator<Item = &DeclaredUse> {
        self.readable.iter().filter_map(|watched| watched.0.as_ref().ok())
    }

    pub(super) fn unreadable_uids(&self) -> BTreeSet<String> {
        self.unreadable.iter().filter_map(|watched| watched.uid()).collect()
    }
}
