//! The names of bindings, and uses that an operator is told to refuse.

use redoubt::api::session_store::SessionStore;
use redoubt::api::uses::DeclaredUse;
use redoubt::model::UseKind;
use redoubt::validate::admit;
use redoubt::validate::uses::tenancy::dedicated_refusal;
use redoubt::validate::uses::validate as validate_use;
use serde_json::{Value, json};

#[test]
fn an_operator_that_makes_no_dedicated_layers_refuses_new_ones_and_leaves_those_that_serve() {
    let (own, named) = (declared(&json!({})), declared(&json!({"layer": {"name": "shared"}})));
    let refused = dedicated_refusal(&own, false, true).unwrap();
    assert_eq!(refused.reason, "DedicatedForbidden");
    assert!(refused.message.contains("spec.layer.name") && refused.message.contains("namespace shop"), "{refused:?}");
    let explicit = declared(&json!({"layer": {"dedicated": {"mode": "Standalone"}}}));
    assert!(dedicated_refusal(&explicit, false, true).is_some());
    assert_eq!(dedicated_refusal(&own, false, false), None);
    assert_eq!(dedicated_refusal(&named, false, true), None);
    assert_eq!(dedicated_refusal(&own, true, true), None, "its layer is there");
    let mut served = own;
    served.status = Some(serde_json::from_value(json!({"user": "ss.shop.web"})).unwrap());
    assert_eq!(dedicated_refusal(&served, false, true), None, "its layer was deleted by hand, and comes back");
}

/// A store `web` in namespace `shop`.
fn declared(more: &Value) -> DeclaredUse {
    let mut spec = json!({"idleTimeout": "30m"});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let metadata = json!({"name": "web", "namespace": "shop", "uid": "uid-1"});
    let object =
        json!({"apiVersion": "redoubt.dev/v1alpha1", "kind": "SessionStore", "metadata": metadata, "spec": spec});
    DeclaredUse::read(UseKind::SessionStore, &object).unwrap()
}

#[test]
fn a_bindings_name_is_chosen_or_follows_from_the_use_and_a_former_one_is_known_by_the_status() {
    let named = |name: &str| declared(&json!({"binding": {"secretName": name}}));
    assert_eq!(declared(&json!({})).binding_name(), "web-session-binding");
    let mut chosen = named("chosen");
    assert_eq!((chosen.binding_name().as_str(), chosen.former_binding_name()), ("chosen", None));
    assert_eq!(validate_use(&chosen, 2).unwrap().binding_name, "chosen");
    chosen.status = Some(serde_json::from_value(json!({"binding": {"name": "web-session-binding"}})).unwrap());
    assert_eq!(chosen.former_binding_name().as_deref(), Some("web-session-binding"));
    for bad in ["Chosen", "", "a b", "-a", "a..b", "a.-b", &"a".repeat(254)] {
        let told = validate_use(&named(bad), 2).unwrap_err();
        assert!(told[0].to_string().starts_with("spec.binding.secretName: "), "{bad:?}: {told:?}");
        let store: SessionStore = serde_json::from_value(json!({
            "apiVersion": "redoubt.dev/v1alpha1", "kind": "SessionStore", "metadata": {"name": "web"},
            "spec": {"idleTimeout": "30m", "binding": {"secretName": bad}},
        }))
        .unwrap();
        assert!(format!("{:?}", admit(&store)).contains("is not the name of a Secret"), "{bad:?}");
    }
    let object = json!({
        "apiVersion": "redoubt.dev/v1alpha1", "kind": "RateLimitPolicy", "metadata": {"name": "api", "namespace": "shop"},
        "spec": {"limits": [{"name": "a", "quota": 10, "window": "1m"}], "binding": {"secretName": "api-limit-export"}},
    });
    let told = validate_use(&DeclaredUse::read(UseKind::RateLimitPolicy, &object).unwrap(), 2).unwrap_err();
    assert!(told[0].to_string().contains("the Secret for a rate limit service"), "{told:?}");
}
