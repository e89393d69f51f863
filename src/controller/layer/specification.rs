//! The specification that was accepted last: what a layer goes on with while its present one is wrong or cannot be read.
//! Its Services go on following its primary, and what is deleted comes back.
//!
//! It is kept as an annotation of the layer's system Secret, so that an operator that was restarted meanwhile knows it too.
//! A specification holds no secret.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use crate::api::data_layer::{DataLayer, DataLayerSpec};
use crate::api::names;

/// The specification as it is kept.
pub(super) fn text(spec: &DataLayerSpec) -> String {
    serde_json::to_string(spec).expect("the types of the API are always JSON")
}

/// The layer with the specification that its system Secret keeps. `None`: it keeps none that can be read. A decision of a
/// person, which the annotations hold, belongs to the present specification and is left out.
pub(super) fn earlier(metadata: &ObjectMeta, system: Option<&Secret>) -> Option<DataLayer> {
    let system = system?;
    let is_ours = system.owner_references().iter().any(|owner| Some(&owner.uid) == metadata.uid.as_ref());
    let text = system.annotations().get(names::ANNOTATION_ACCEPTED_SPECIFICATION).filter(|_| is_ours)?;
    let spec: DataLayerSpec = serde_json::from_str(text).ok()?;
    let mut metadata = metadata.clone();
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(names::ANNOTATION_ACCEPT_LOSS);
    }
    Some(DataLayer { metadata, spec, status: None })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secret(owner: &str, spec: &str) -> Secret {
        let owner = json!([{"apiVersion": "redoubt.dev/v1alpha1", "kind": "DataLayer", "name": "web", "uid": owner}]);
        let annotations = json!({names::ANNOTATION_ACCEPTED_SPECIFICATION: spec});
        serde_json::from_value(json!({"metadata": {"ownerReferences": owner, "annotations": annotations}})).unwrap()
    }

    #[test]
    fn what_was_accepted_is_gone_on_with_and_no_other() {
        let spec: DataLayerSpec = serde_json::from_value(json!({"mode": "Sentinel", "replicas": 3})).unwrap();
        let metadata = ObjectMeta {
            uid: Some("uid-1".to_owned()),
            annotations: Some([(names::ANNOTATION_ACCEPT_LOSS.to_owned(), "seven".to_owned())].into()),
            ..ObjectMeta::default()
        };
        let found = earlier(&metadata, Some(&secret("uid-1", &text(&spec)))).unwrap();
        assert_eq!((found.spec, found.metadata.annotations), (spec.clone(), Some([].into())));
        assert_eq!(earlier(&metadata, Some(&secret("uid-0", &text(&spec)))), None, "a predecessor's");
        assert_eq!(earlier(&metadata, Some(&secret("uid-1", "{}"))), None);
        assert_eq!(earlier(&metadata, None), None);
    }
}
