//! Writes to the Kubernetes API: apply, patch, delete. Each write says for which very object it was decided.

use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Error;
use super::fingerprint::{Fingerprints, Key};
use crate::api::names::{ANNOTATION_NODE_CONFIG, MANAGER_OBJECTS, OUR_PREFIXES};
use crate::failure::request;
use crate::metrics::Metrics;

/// A kind of object that lives in a namespace and has typed fields.
pub(crate) trait Object:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned
{
}

impl<K> Object for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned
{
}

/// What became of an object that should be applied.
#[derive(Clone, Debug)]
pub enum Applied<K> {
    /// It was already as wanted; nothing was written.
    Unchanged,
    /// It was applied; this is the API server's answer.
    Written(Box<K>),
    /// The one that is there is being deleted: its successor is applied once it is gone.
    Deleting,
}

/// Applies objects under our field managers, and leaves alone what another owner has.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    fingerprints: std::sync::Arc<Fingerprints>,
    metrics: Metrics,
}

impl Writer {
    /// A writer that remembers nothing yet.
    pub fn new(client: Client, metrics: Metrics) -> Self {
        Self { client, fingerprints: std::sync::Arc::default(), metrics }
    }

    /// The client, for reads by name.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What was applied since our start.
    pub(crate) fn fingerprints(&self) -> &Fingerprints {
        &self.fingerprints
    }

    /// Applies `desired` unless `live` is what it was after the last apply of the same.
    ///
    /// `live` is the object as the watch knows it; `None` may also mean that it exists without our labels, so it is read
    /// by name before anything is written. An object without the wanted controller reference is never applied over.
    pub(crate) async fn apply<K: Object>(&self, desired: &K, live: Option<&K>) -> Result<Applied<K>, Error> {
        self.apply_to(desired, live, false).await
    }

    /// The same, and only to the version that `live` is: for what more than one replica of the operator writes, and for what
    /// would be wrong if it had been written since.
    pub(crate) async fn apply_as_seen<K: Object>(&self, desired: &K, live: Option<&K>) -> Result<Applied<K>, Error> {
        self.apply_to(desired, live, true).await
    }

    async fn apply_to<K: Object>(&self, desired: &K, live: Option<&K>, as_seen: bool) -> Result<Applied<K>, Error> {
        let key = key_of(desired);
        if let Some(live) = live.filter(|live| !live.owner_references().is_empty()) {
            check_owner(&key, desired, live)?;
            if self.fingerprints.is_as_applied(&key, desired, live) {
                return Ok(Applied::Unchanged);
            }
        }
        let api: Api<K> = Api::namespaced(self.client.clone(), &key.namespace);
        // Who wrote an object is not kept in memory, and is asked of one without an owner.
        let found = match live.filter(|live| !live.owner_references().is_empty()) {
            Some(live) => Some(live.clone()),
            None => request("read", &key.to_string(), api.get_opt(&key.name)).await?,
        };
        let mut wanted =
            serde_json::to_value(desired).map_err(|source| Error::Serialise { object: key.to_string(), source })?;
        if let Some(found) = found {
            check_owner(&key, desired, &found)?;
            if found.meta().deletion_timestamp.is_some() {
                return Ok(Applied::Deleting);
            }
            // With the UID the API server refuses to apply to a successor that is not ours.
            wanted["metadata"]["uid"] = json!(found.uid());
            if as_seen {
                wanted["metadata"]["resourceVersion"] = json!(found.resource_version());
            }
        }
        let parameters = PatchParams::apply(MANAGER_OBJECTS).force();
        let written =
            request("apply", &key.to_string(), api.patch(&key.name, &parameters, &Patch::Apply(&wanted))).await?;
        self.metrics.write(&key.kind);
        tracing::info!(object = %key, "applied");
        self.fingerprints.remember(key, desired, &written);
        Ok(Applied::Written(Box::new(written)))
    }

    /// Whether this is what was applied last, whatever became of it.
    pub(crate) fn is_last_applied<K: Object>(&self, desired: &K) -> bool {
        self.fingerprints.is_last_applied(&key_of(desired), desired)
    }

    /// Patches `spec` of the very version that `live` is, by the rules of a merge patch.
    pub(crate) async fn merge_spec<K: Object>(
        &self,
        desired: &K,
        live: &K,
        spec: serde_json::Value,
    ) -> Result<(), Error> {
        let key = key_of(desired);
        check_owner(&key, desired, live)?;
        let api: Api<K> = Api::namespaced(self.client.clone(), &key.namespace);
        let metadata = json!({"uid": live.uid(), "resourceVersion": live.resource_version()});
        let patch = Patch::Merge(json!({"metadata": metadata, "spec": spec}));
        let parameters = PatchParams { field_manager: Some(MANAGER_OBJECTS.to_owned()), ..PatchParams::default() };
        let written = request("patch", &key.to_string(), api.patch(&key.name, &parameters, &patch)).await?;
        self.metrics.write(&key.kind);
        tracing::info!(object = %key, "corrected");
        self.fingerprints.remember(key, desired, &written);
        Ok(())
    }

    /// Sets annotations or labels of the very object with this UID, as field manager `manager`.
    pub(crate) async fn annotate<K: Object>(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        metadata: serde_json::Value,
        manager: &str,
    ) -> Result<(), Error> {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let mut patch = json!({"metadata": metadata});
        // A merge patch with another UID is a conflict, not a change.
        patch["metadata"]["uid"] = json!(uid);
        let parameters = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
        let object = format!("{} {namespace}/{name}", K::kind(&()));
        request("patch", &object, api.patch(name, &parameters, &Patch::Merge(&patch))).await?;
        self.metrics.write(&K::kind(&()));
        tracing::info!(object, "patched");
        Ok(())
    }

    /// Deletes the very object with this UID; without one, whatever has the name. An absent object is a success.
    pub(crate) async fn delete<K: Object>(&self, namespace: &str, name: &str, uid: Option<&str>) -> Result<(), Error> {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let parameters = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: uid.map(|uid| Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            ..DeleteParams::default()
        };
        let object = format!("{} {namespace}/{name}", K::kind(&()));
        match request("delete", &object, api.delete(name, &parameters)).await {
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => {
                self.metrics.write(&K::kind(&()));
                tracing::info!(object, "deleted");
                Ok(())
            }
        }
    }
}

/// Kind, namespace and name of an object.
pub(crate) fn key_of<K: Object>(object: &K) -> Key {
    Key { kind: K::kind(&()).into_owned(), namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
}

/// The UID of the controller that an object names as its own.
fn controller<K: Resource>(object: &K) -> Option<&str> {
    let owners = object.meta().owner_references.as_ref()?;
    owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

/// Names never seize anything: only an object that is controlled by the wanted controller is ours, or one that lost its owner.
fn check_owner<K: Object>(key: &Key, desired: &K, live: &K) -> Result<(), Error> {
    let taken = |whose| Err(Error::NameTaken { object: key.to_string(), whose });
    if controller(desired).is_some() && controller(live) == controller(desired) {
        Ok(())
    } else if live.meta().deletion_timestamp.is_some() && controller(live).is_some() {
        // A predecessor's that is on its way out: it is waited for.
        Ok(())
    } else if !live.owner_references().is_empty() {
        taken("has another owner")
    } else if !was_applied_by_us(desired, live) {
        taken("has no owner, and was not made for this layer")
    } else if holds_nothing(&key.kind) || runs_for_same_layer(desired, live) {
        // It was deleted with `--cascade=orphan`, or restored from a backup.
        Ok(())
    } else {
        taken("is of an earlier layer of this name, which was deleted without it; delete it: the volumes stay")
    }
}

/// Whether an object was applied by our field manager and has all labels of ours that it should have.
fn was_applied_by_us<K: Object>(desired: &K, live: &K) -> bool {
    let applied = live
        .managed_fields()
        .iter()
        .any(|entry| entry.manager.as_deref() == Some(MANAGER_OBJECTS) && entry.operation.as_deref() == Some("Apply"));
    let is_ours = |label: &&String| OUR_PREFIXES.iter().any(|prefix| label.starts_with(prefix));
    let mut ours = desired.labels().iter().filter(|(label, _)| is_ours(label)).peekable();
    applied && ours.peek().is_some() && ours.all(|(label, value)| live.labels().get(label) == Some(value))
}

/// Whether applying such an object replaces all that it says, and ends nothing that runs.
fn holds_nothing(kind: &str) -> bool {
    ["Service", "Secret", "PodDisruptionBudget"].contains(&kind)
}

/// Whether the pods of a StatefulSet are this very layer's, by the document of its template. Those of an earlier layer have other
/// passwords, and their Sentinels another name for the primary.
fn runs_for_same_layer<K: Object>(desired: &K, live: &K) -> bool {
    let layer = |object: &K| {
        let object = serde_json::to_value(object).ok()?;
        let document = object.pointer("/spec/template/metadata/annotations")?.get(ANNOTATION_NODE_CONFIG)?.as_str()?;
        Some(serde_json::from_str::<Value>(document).ok()?["layer"]["uid"].as_str()?.to_owned())
    };
    layer(desired).is_some_and(|wanted| layer(live) == Some(wanted))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use k8s_openapi::api::apps::v1::StatefulSet;
    use k8s_openapi::api::core::v1::Service;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

    use super::*;

    fn service(owner: Option<&str>) -> Service {
        let reference =
            |uid: &str| OwnerReference { uid: uid.to_owned(), controller: Some(true), ..OwnerReference::default() };
        let metadata = ObjectMeta {
            name: Some("web-redis".to_owned()),
            namespace: Some("shop".to_owned()),
            owner_references: owner.map(|uid| vec![reference(uid)]),
            ..ObjectMeta::default()
        };
        Service { metadata, ..Service::default() }
    }

    #[test]
    fn an_object_of_our_name_that_is_not_ours_is_never_applied_over() {
        let ours = service(Some("uid-1"));
        let check = |live: &Service| check_owner(&key_of(&ours), &ours, live);
        assert!(check(&ours).is_ok());
        for foreign in [service(None), service(Some("uid-2"))] {
            let error = check(&foreign).unwrap_err();
            assert!(matches!(error, Error::NameTaken { object, .. } if object == "Service shop/web-redis"));
        }
    }

    fn left_over<K: Object>(kind: &str, further: &serde_json::Value) -> K {
        let mut object = json!({"metadata": {
            "name": "web-redis-0", "namespace": "shop", "labels": {"redoubt.dev/layer": "web", "redoubt.dev/node": "redis-0"},
            "managedFields": [{"manager": "redoubt", "operation": "Apply"}, {"manager": "kubectl", "operation": "Update"}],
        }});
        object.as_object_mut().unwrap().extend(further.as_object().cloned().unwrap_or_default());
        object["kind"] = json!(kind);
        serde_json::from_value(object).unwrap()
    }

    fn owned<K: Object>(object: &K) -> K {
        let mut object = object.clone();
        object.meta_mut().owner_references = service(Some("uid-1")).metadata.owner_references;
        object
    }

    #[test]
    fn an_object_that_lost_its_owner_is_ours_if_we_applied_it_for_this_layer() {
        let lost: Service = left_over("Service", &json!({}));
        let wanted = owned(&lost);
        let whose = |live: &Service| match check_owner(&key_of(&wanted), &wanted, live) {
            Ok(()) => "ours",
            Err(Error::NameTaken { whose, .. }) => whose,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(whose(&lost), "ours");
        let mut relabelled = lost.clone();
        relabelled.labels_mut().insert("redoubt.dev/layer".to_owned(), "other".to_owned());
        let mut theirs = lost.clone();
        theirs.managed_fields_mut().remove(0);
        for foreign in [relabelled, theirs] {
            assert_eq!(whose(&foreign), "has no owner, and was not made for this layer");
        }
        let mut owned_by_others = lost;
        owned_by_others.metadata.owner_references = service(Some("uid-2")).metadata.owner_references;
        assert_eq!(whose(&owned_by_others), "has another owner");
    }

    #[test]
    fn a_stateful_set_that_lost_its_owner_is_ours_if_its_pods_are_of_this_very_layer() {
        let workload = |uid: &str| -> StatefulSet {
            let document = json!({"layer": {"uid": uid}}).to_string();
            let template = json!({"metadata": {"annotations": {"redoubt.dev/node-config": document}}, "spec": null});
            left_over("StatefulSet", &json!({"spec": {"selector": {}, "serviceName": "a", "template": template}}))
        };
        let wanted = owned(&workload("uid-1"));
        let check = |live: &StatefulSet| check_owner(&key_of(&wanted), &wanted, live);
        assert!(check(&workload("uid-1")).is_ok());
        let error = check(&workload("uid-0")).unwrap_err().to_string();
        assert!(error.contains("is of an earlier layer of this name"), "{error}");
    }

    /// Where a successor has the name, the API server refuses what names another UID.
    #[tokio::test]
    async fn a_patch_and_a_deletion_name_the_very_object() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let requests = Arc::clone(&asked);
        let server = axum::Router::new().fallback(move |body: String| {
            requests.lock().unwrap().push(serde_json::from_str::<serde_json::Value>(&body).unwrap());
            std::future::ready(json!({"metadata": {}}).to_string())
        });
        let writer = Writer::new(Client::new(server, "shop"), Metrics::new().unwrap());
        let annotations = json!({"annotations": {"redoubt.dev/example": "1"}});
        writer.annotate::<Service>("shop", "web-redis", "uid-1", annotations, "tests").await.unwrap();
        writer.delete::<Service>("shop", "web-redis", Some("uid-1")).await.unwrap();
        let asked = asked.lock().unwrap();
        assert_eq!(asked[0]["metadata"]["uid"], "uid-1");
        assert_eq!(asked[1]["preconditions"]["uid"], "uid-1");
    }
}
