//! The API server refuses what the rules refuse: offline evaluation knows neither its cost budget nor its patterns.

use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use redoubt::api::data_layer::DataLayer;
use serde_json::{Value, json};

use crate::bad_caches::{bad_cache_changes, bad_caches};
use crate::bad_layers::{bad_changes, bad_layers};
use crate::bad_libraries::{bad_libraries, bad_library_changes};
use crate::bad_policies::{bad_policies, bad_policy_changes};
use crate::bad_stores::bad_stores;
use crate::place;

async fn layers() -> Api<DynamicObject> {
    let resource = ApiResource::erase::<DataLayer>(&());
    Api::namespaced_with(crate::client().await, "default", &resource)
}

fn object(name: &str, spec: &Value) -> DynamicObject {
    let kind = GroupVersionKind::gvk("redoubt.dev", "v1alpha1", "DataLayer");
    let object = json!({
        "apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"name": name}, "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

fn dry_run() -> PostParams {
    PostParams { dry_run: true, ..PostParams::default() }
}

async fn try_create(name: &str, spec: &Value) -> Result<(), String> {
    let created = layers().await.create(&dry_run(), &object(name, spec)).await;
    created.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn bad_layers_are_refused_with_the_reason() {
    let _definition_is_ours = place::operator_in("default").await;
    for (name, spec, reason) in bad_layers() {
        let refused = try_create(&name, &spec).await.expect_err(&format!("accepted: {spec}"));
        assert!(refused.contains(reason), "{spec}: {refused}");
    }
}

#[tokio::test]
async fn the_smallest_layer_is_accepted() {
    let _definition_is_ours = place::operator_in("default").await;
    assert_eq!(try_create("web", &json!({"mode": "Sentinel"})).await, Ok(()));
}

#[tokio::test]
async fn bad_changes_are_refused_with_the_reason() {
    let _definition_is_ours = place::operator_in("default").await;
    let layers = layers().await;
    for (number, (mut old, mut new, reason)) in bad_changes().into_iter().enumerate() {
        // Paused: no operator makes pods of it.
        (old["paused"], new["paused"]) = (json!(true), json!(true));
        let name = format!("change-{number}");
        let mut stored = layers.create(&PostParams::default(), &object(&name, &old)).await.unwrap();
        stored.data["spec"] = new.clone();
        let changed = layers.replace(&name, &dry_run(), &stored).await;
        layers.delete(&name, &DeleteParams::default()).await.unwrap();
        let refused = changed.expect_err(&format!("accepted: {old} to {new}")).to_string();
        assert!(refused.contains(reason), "{old} to {new}: {refused}");
    }
}

#[tokio::test]
async fn bad_session_stores_are_refused_with_the_reason_and_the_smallest_is_accepted() {
    let _definition_is_ours = place::operator_in("default").await;
    let resource = ApiResource::erase::<redoubt::api::session_store::SessionStore>(&());
    let stores: Api<DynamicObject> = Api::namespaced_with(crate::client().await, "default", &resource);
    let object = |name: &str, spec: &Value| -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "redoubt.dev/v1alpha1", "kind": "SessionStore", "metadata": {"name": name}, "spec": spec,
        }))
        .unwrap()
    };
    for (name, spec, reason) in bad_stores() {
        let refused = stores.create(&dry_run(), &object(&name, &spec)).await;
        let refused = refused.expect_err(&format!("accepted: {spec}")).to_string();
        assert!(refused.contains(reason), "{spec}: {refused}");
    }
    // What does not parse cannot be evaluated offline as an object.
    for duration in ["1d", "30", "PT30M", "30 minutes", ""] {
        let refused = stores.create(&dry_run(), &object("web", &json!({"idleTimeout": duration}))).await;
        let refused = refused.expect_err(&format!("accepted: {duration}")).to_string();
        let wanted =
            format!("idleTimeout: \"{duration}\" is not a duration: write h, m or s behind each number, such as 30m");
        assert!(refused.contains(&wanted), "{duration}: {refused}");
    }
    stores.create(&dry_run(), &object("web", &json!({"idleTimeout": "30m"}))).await.unwrap();
    // `layer.namespace` cannot be named in CEL, and cannot be changed all the same. No such layer: no pods.
    let old = json!({"idleTimeout": "30m", "layer": {"name": "nowhere", "namespace": "default"}});
    stores.create(&PostParams::default(), &object("change", &old)).await.unwrap();
    for field in ["namespace", "name"] {
        let mut new = old.clone();
        new["layer"][field] = json!("other");
        let mut kept = stores.get("change").await.unwrap();
        kept.data["spec"] = new;
        let changed = stores.replace("change", &dry_run(), &kept).await;
        let Err(kube::Error::Api(refused)) = changed else { panic!("{field}: {changed:?}") };
        let told = refused.message.matches("layer.name and layer.namespace cannot be changed").count();
        assert_eq!(told, 1, "{field}: {}", refused.message);
    }
    stores.delete("change", &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
async fn bad_rate_limit_policies_are_refused_with_the_reason_and_the_smallest_is_accepted() {
    let _definition_is_ours = place::operator_in("default").await;
    let resource = ApiResource::erase::<redoubt::api::rate_limit_policy::RateLimitPolicy>(&());
    let policies: Api<DynamicObject> = Api::namespaced_with(crate::client().await, "default", &resource);
    let object = |spec: &Value| -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "redoubt.dev/v1alpha1", "kind": "RateLimitPolicy", "metadata": {"name": "api"}, "spec": spec,
        }))
        .unwrap()
    };
    for (spec, reason) in bad_policies() {
        let refused = policies.create(&dry_run(), &object(&spec)).await;
        let refused = refused.expect_err(&format!("accepted: {spec}")).to_string();
        assert!(refused.contains(reason), "{spec}: {refused}");
    }
    let smallest = json!({"limits": [{"name": "a", "quota": 10, "window": "1m"}]});
    policies.create(&dry_run(), &object(&smallest)).await.unwrap();
    for (number, (old, new, reason)) in bad_policy_changes().into_iter().enumerate() {
        let mut old = object(&old);
        old.metadata.name = Some(format!("change-{number}"));
        let mut stored = policies.create(&PostParams::default(), &old).await.unwrap();
        stored.data["spec"] = new.clone();
        let changed = policies.replace(&format!("change-{number}"), &dry_run(), &stored).await;
        policies.delete(&format!("change-{number}"), &DeleteParams::default()).await.unwrap();
        let refused = changed.expect_err(&format!("accepted: {new}")).to_string();
        assert!(refused.contains(reason), "{new}: {refused}");
    }
}

#[tokio::test]
async fn bad_caches_are_refused_with_the_reason_and_the_smallest_is_accepted() {
    let _definition_is_ours = place::operator_in("default").await;
    let resource = ApiResource::erase::<redoubt::api::cache_namespace::CacheNamespace>(&());
    let caches: Api<DynamicObject> = Api::namespaced_with(crate::client().await, "default", &resource);
    let object = |spec: &Value| -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "redoubt.dev/v1alpha1", "kind": "CacheNamespace", "metadata": {"name": "web"}, "spec": spec,
        }))
        .unwrap()
    };
    for (spec, reason) in bad_caches() {
        let refused = caches.create(&dry_run(), &object(&spec)).await;
        let refused = refused.expect_err(&format!("accepted: {spec}")).to_string();
        assert!(refused.contains(reason), "{spec}: {refused}");
    }
    let own_channel = json!({"ttl": "5m", "invalidation": {"channel": "news:web:", "tracking": true}});
    for good in [json!({"ttl": "5m"}), json!({"ttl": "5m", "maxEntryBytes": 4096}), own_channel] {
        caches.create(&dry_run(), &object(&good)).await.unwrap_or_else(|error| panic!("{good}: {error}"));
    }
    for (old, new, reason) in bad_cache_changes() {
        // The name stays: the channel ends with it.
        let mut stored = caches.create(&PostParams::default(), &object(&old)).await.unwrap();
        stored.data["spec"] = new.clone();
        let changed = caches.replace("web", &dry_run(), &stored).await;
        caches.delete("web", &DeleteParams::default()).await.unwrap();
        let refused = changed.expect_err(&format!("accepted: {new}")).to_string();
        assert!(refused.contains(reason), "{new}: {refused}");
    }
}

#[tokio::test]
async fn bad_function_libraries_are_refused_with_the_reason_and_the_smallest_is_accepted() {
    let _definition_is_ours = place::operator_in("default").await;
    let resource = ApiResource::erase::<redoubt::api::function_library::FunctionLibrary>(&());
    let libraries: Api<DynamicObject> = Api::namespaced_with(crate::client().await, "default", &resource);
    let object = |name: &str, spec: &Value| -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "redoubt.dev/v1alpha1", "kind": "FunctionLibrary", "metadata": {"name": name}, "spec": spec,
        }))
        .unwrap()
    };
    for (name, spec, reason) in bad_libraries() {
        let refused = libraries.create(&dry_run(), &object(&name, &spec)).await;
        let refused = refused.expect_err(&format!("accepted: {spec}")).to_string();
        assert!(refused.contains(reason), "{spec}: {refused}");
    }
    let smallest = json!({"layer": {"name": "nowhere"}, "source": {"configMap": {"name": "tools"}}});
    libraries.create(&dry_run(), &object("tools", &smallest)).await.unwrap();
    for (number, (old, new, reason)) in bad_library_changes().into_iter().enumerate() {
        let name = format!("change-{number}");
        let mut stored = libraries.create(&PostParams::default(), &object(&name, &old)).await.unwrap();
        stored.data["spec"] = new.clone();
        let changed = libraries.replace(&name, &dry_run(), &stored).await;
        libraries.delete(&name, &DeleteParams::default()).await.unwrap();
        let refused = changed.expect_err(&format!("accepted: {new}")).to_string();
        assert!(refused.contains(reason), "{new}: {refused}");
    }
}

/// `layer: null` in a merge patch, of a use whose layer has what no layer gives up. It was taken, and the layer's own rule refused what came
/// of it.
#[tokio::test]
async fn no_use_can_drop_a_dedicated_layer_that_says_what_cannot_be_taken_back() {
    let _definition_is_ours = place::operator_in("default").await;
    let kinds = [
        ApiResource::erase::<redoubt::api::session_store::SessionStore>(&()),
        ApiResource::erase::<redoubt::api::rate_limit_policy::RateLimitPolicy>(&()),
        ApiResource::erase::<redoubt::api::cache_namespace::CacheNamespace>(&()),
    ];
    let of_kinds = [
        json!({"idleTimeout": "30m"}),
        json!({"limits": [{"name": "a", "quota": 10, "window": "1m"}]}),
        json!({"ttl": "5m"}),
    ];
    for (resource, plain) in kinds.into_iter().zip(of_kinds) {
        let uses: Api<DynamicObject> = Api::namespaced_with(crate::client().await, "default", &resource);
        for (dedicated, is_kept) in [
            (json!({"mode": "Sentinel", "persistence": {"volume": {"size": "1Gi"}}}), true),
            (json!({"mode": "Sentinel", "engine": {"image": "redis:8.0"}}), true),
            (json!({"mode": "Standalone"}), true),
            (json!({"mode": "Sentinel", "replicas": 3}), false),
        ] {
            let mut spec = plain.clone();
            spec["layer"] = json!({"dedicated": dedicated});
            // No operator makes pods of it.
            spec["layer"]["dedicated"]["paused"] = json!(true);
            let object: DynamicObject = serde_json::from_value(json!({
                "apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": "dropped"}, "spec": spec,
            }))
            .unwrap();
            uses.create(&PostParams::default(), &object).await.unwrap();
            for patch in [json!({"layer": null}), json!({"layer": {"dedicated": null}})] {
                let dry_run = PatchParams { dry_run: true, ..PatchParams::default() };
                let patched = uses.patch("dropped", &dry_run, &Patch::Merge(json!({"spec": patch}))).await;
                let refused = patched.map(drop).map_err(|error| error.to_string());
                let is_right = match &refused {
                    Err(words) if patch["layer"].is_null() => {
                        is_kept && words.contains("layer.dedicated cannot be removed")
                    }
                    // An empty `layer` is no choice, whatever was there.
                    Err(words) => words.contains("either name or dedicated"),
                    Ok(()) => patch["layer"].is_null() && !is_kept,
                };
                assert!(is_right, "{} {dedicated} with {patch}: {refused:?}", resource.kind);
            }
            uses.delete("dropped", &DeleteParams::default()).await.unwrap();
        }
    }
}
