//! The volumes' claims of a node: made by Kubernetes from its StatefulSet, and outliving it with the data.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::Api;
use kube::{Client, ResourceExt as _};

use super::Error;
use crate::api::names;
use crate::failure::request;
use crate::model::{LayerIdentity, NodeId};

/// The StatefulSet as built, but with the claims of the one that is there: Kubernetes refuses any change of them, and with it
/// every other change.
pub(super) fn kept(workload: &StatefulSet, live: Option<&StatefulSet>) -> StatefulSet {
    let mut workload = workload.clone();
    if let (Some(wanted), Some(live)) = (&mut workload.spec, live.and_then(|live| live.spec.as_ref())) {
        wanted.volume_claim_templates.clone_from(&live.volume_claim_templates);
    }
    workload
}

/// Refuses a StatefulSet whose pod would take a claim that another process made: Kubernetes gives a pod whatever claim has the
/// name. A claim of an earlier layer of this name is ours: its data is what a layer that is made again goes on with.
pub(super) async fn are_ours(client: &Client, workload: &StatefulSet) -> Result<(), Error> {
    let namespace = workload.namespace().unwrap_or_default();
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    for name in names_of(workload) {
        let object = format!("PersistentVolumeClaim {namespace}/{name}");
        if let Some(found) = request("read", &object, api.get_opt(&name)).await?
            && !is_of(&found, workload)
        {
            return Err(Error::NameTaken { object, whose: "was not made for this layer" });
        }
    }
    Ok(())
}

/// Whether the claim of a node's volume is being deleted: Kubernetes waits for the end of its pod only.
pub(super) async fn is_being_deleted(client: &Client, layer: &LayerIdentity, node: NodeId) -> Result<bool, Error> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &layer.namespace);
    let name = names::volume_claim(&layer.name, node);
    let object = format!("PersistentVolumeClaim {}/{name}", layer.namespace);
    let found = request("read", &object, api.get_opt(&name)).await?;
    Ok(found.is_some_and(|claim| claim.metadata.deletion_timestamp.is_some()))
}

/// Names of the claims that Kubernetes makes for the only pod (StatefulSet documentation, "Stable Storage").
fn names_of(workload: &StatefulSet) -> impl Iterator<Item = String> {
    let templates = workload.spec.iter().flat_map(|spec| spec.volume_claim_templates.iter().flatten());
    templates.map(|claim| format!("{}-{}-0", claim.name_any(), workload.name_any()))
}

fn is_of(claim: &PersistentVolumeClaim, workload: &StatefulSet) -> bool {
    [names::LABEL_LAYER, names::LABEL_NODE].iter().all(|label| {
        let wanted = workload.labels().get(*label);
        wanted.is_some() && claim.labels().get(*label) == wanted
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn workload(claims: &serde_json::Value, image: &str) -> StatefulSet {
        let pod = json!({"metadata": {}, "spec": {"containers": [{"name": "redis", "image": image}]}});
        let spec = json!({"selector": {}, "serviceName": "a", "template": pod, "volumeClaimTemplates": claims});
        let labels = json!({names::LABEL_LAYER: "web", names::LABEL_NODE: "redis-1"});
        serde_json::from_value(json!({"metadata": {"name": "web-redis-1", "labels": labels}, "spec": spec})).unwrap()
    }

    #[test]
    fn claims_that_are_there_are_kept_and_all_else_is_as_built() {
        let claim = |size: &str| json!([{"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": size}}}}]);
        let (built, live) = (workload(&claim("2Gi"), "new"), workload(&claim("1Gi"), "old"));
        assert_eq!(kept(&built, Some(&live)), workload(&claim("1Gi"), "new"));
        assert_eq!(kept(&built, None), built);
    }

    #[test]
    fn a_claim_is_ours_by_the_labels_that_kubernetes_copies_from_the_template() {
        let built = workload(&json!([{"metadata": {"name": "data"}}]), "new");
        assert_eq!(names_of(&built).collect::<Vec<_>>(), ["data-web-redis-1-0"]);
        let claim = |labels: serde_json::Value| -> PersistentVolumeClaim {
            serde_json::from_value(json!({"metadata": {"labels": labels}})).unwrap()
        };
        assert!(is_of(&claim(json!({names::LABEL_LAYER: "web", names::LABEL_NODE: "redis-1", "more": "x"})), &built));
        for foreign in [
            json!({}),
            json!({names::LABEL_LAYER: "web"}),
            json!({names::LABEL_LAYER: "web", names::LABEL_NODE: "redis-2"}),
        ] {
            assert!(!is_of(&claim(foreign), &built));
        }
    }
}
