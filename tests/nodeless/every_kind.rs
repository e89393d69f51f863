//! Claims about all kinds of use alike: what each is told, and what of its objects is put back. A kind that is added has to say here what
//! its smallest specification is, and which Secrets it has.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use redoubt::api::data_layer::DataLayer;
use redoubt::api::names;
use redoubt::api::use_status::UseStatus;
use redoubt::model::UseKind;
use redoubt::report::draft::PROVEN;
use redoubt::validate::uses::eviction::{self, Verdict};
use serde_json::{Value, json};

use crate::commands::{kubectl, refuse};
use crate::faults::Faults;
use crate::layer::Layer;
use crate::place;
use crate::polling::{eventually, eventually_or};
use crate::test_namespace::{SOON, TestNamespace};
use crate::witness::{Witness, slowness, widened};

/// How long a use may keep from its author that it is not served any more.
const TOLD_WITHIN: Duration = Duration::from_secs(2);
/// A Secret that was deleted or edited is as it was within this.
const BACK_WITHIN: Duration = Duration::from_secs(5);
/// How long the answers to the operator's writes take where they are late: longer than a test takes to see what was written.
const ANSWERED_AFTER: Duration = Duration::from_secs(2);

/// The least that a use of a kind declares, its layer left out.
pub fn smallest(kind: UseKind) -> Value {
    match kind {
        UseKind::SessionStore => json!({"idleTimeout": "30m"}),
        UseKind::RateLimitPolicy => json!({"limits": [{"name": "each", "quota": 10, "window": "1h"}]}),
        UseKind::CacheNamespace => json!({"ttl": "5m"}),
        UseKind::FunctionLibrary => json!({"source": {"inline": source("kinds_answer")}}),
    }
}

/// A library of one function.
fn source(function: &str) -> String {
    format!("#!lua name=tools\nredis.register_function('{function}', function() return 1 end)\n")
}

/// A prefix that no use of another kind or name has.
fn prefix(kind: UseKind, name: &str) -> Value {
    json!(format!("{}.{name}:", kind.words().user))
}

/// The Secrets that a use has, if it declares all that it can have.
fn secrets_of(kind: UseKind, name: &str) -> Vec<String> {
    let binding = names::binding(kind, name);
    match kind {
        UseKind::SessionStore | UseKind::CacheNamespace => vec![binding],
        UseKind::RateLimitPolicy => vec![binding, format!("{name}-limit-export")],
        UseKind::FunctionLibrary => Vec::new(),
    }
}

/// A use of any kind.
struct Use {
    kind: UseKind,
    name: String,
    api: Api<DynamicObject>,
}

impl Use {
    /// Makes one with the smallest specification and `further` on a layer. Its prefix is its own and its kind's.
    async fn create(namespace: &TestNamespace, kind: UseKind, name: &str, layer: &Layer, further: Value) -> Self {
        let mut spec = smallest(kind);
        spec["layer"] = json!({"name": layer.identity.name, "namespace": layer.identity.namespace});
        if kind.has_user() {
            spec["keyPrefix"] = prefix(kind, name);
        }
        for (field, value) in further.as_object().unwrap() {
            spec[field] = value.clone();
        }
        let it = Self { kind, name: name.to_owned(), api: api(namespace, kind) };
        let body = json!({
            "apiVersion": "redoubt.dev/v1alpha1", "kind": kind.words().kind,
            "metadata": {"name": name}, "spec": spec,
        });
        it.api.create(&PostParams::default(), &serde_json::from_value(body).unwrap()).await.unwrap();
        it
    }

    async fn status(&self) -> UseStatus {
        let object = self.api.get(&self.name).await.unwrap();
        serde_json::from_value(object.data["status"].clone()).unwrap_or_default()
    }

    /// Status, reason and message of a condition.
    async fn condition(&self, kind: &str) -> Option<(String, String, String)> {
        let found = self.status().await.conditions.into_iter().find(|condition| condition.type_ == kind)?;
        Some((found.status, found.reason, found.message))
    }

    async fn ready(&self) {
        let took = eventually_or("the use is Ready", SOON, async || {
            self.condition("Ready").await.is_some_and(|(status, reason, _)| status == "True" && reason == PROVEN)
        })
        .await;
        assert!(took.is_some(), "{:?} {}: {:#?}", self.kind, self.name, self.status().await);
    }

    /// How long it took until the use said that it is not accepted, for this reason.
    async fn says(&self, reason: &str) -> Duration {
        let what = format!("{:?} {} says {reason}", self.kind, self.name);
        eventually(&what, SOON, async || {
            self.condition("Accepted").await.is_some_and(|(status, found, _)| status == "False" && found == reason)
        })
        .await
    }
}

/// The objects of a kind.
pub fn api(namespace: &TestNamespace, kind: UseKind) -> Api<DynamicObject> {
    let words = kind.words();
    let resource =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("redoubt.dev", "v1alpha1", words.kind), words.plural);
    Api::namespaced_with(namespace.client.clone(), &namespace.name, &resource)
}

/// One of each kind.
async fn of_each_kind(
    namespace: &TestNamespace,
    name: &str,
    layer: &Layer,
    further: impl Fn(UseKind) -> Value,
) -> Vec<Use> {
    join_all(UseKind::ALL.map(|kind| Use::create(namespace, kind, name, layer, further(kind)))).await
}

async fn all_are_ready(uses: &[Use]) {
    join_all(uses.iter().map(Use::ready)).await;
}

/// Each of them says in time that it is not served, for the reason of its kind.
async fn all_say(witness: &[Witness], uses: &[&Use], what: &str, reason: impl Fn(UseKind) -> &'static str) {
    let began = Instant::now();
    let took = join_all(uses.iter().map(|it| it.says(reason(it.kind)))).await;
    let told: Vec<(UseKind, Duration)> = uses.iter().map(|it| it.kind).zip(took).collect();
    let within = widened(TOLD_WITHIN, slowness(witness, &(began..Instant::now())));
    println!("{what}: {told:.2?}, of {within:.2?}");
    assert!(told.iter().all(|(_, took)| *took <= within), "{what}: {told:.2?}, of {within:.2?}");
}

async fn leave(namespace: &TestNamespace, is_given: bool) {
    let namespaces: Api<Namespace> = Api::all(namespace.client.clone());
    let value = if is_given { json!("yes") } else { json!(null) };
    let patch = Patch::Merge(json!({"metadata": {"labels": {"uses": value}}}));
    namespaces.patch(&namespace.name, &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test]
async fn a_use_of_any_kind_says_at_once_that_it_is_refused_or_revoked() {
    let namespace = TestNamespace::create_with("kinds-data", place::operator_of_all().await).await;
    let guest = namespace.another("kinds-guest").await;
    let witness = [Witness::of_api_server(namespace.client.clone(), &namespace.name).await];
    let by_label = json!({"namespaces": {"from": "Selector", "selector": {"matchLabels": {"uses": "yes"}}}});
    let suitable = json!({"evictionPolicy": "volatile-ttl"});
    // Of the purpose that admits every eviction policy.
    let further = json!({"mode": "Standalone", "purpose": "Cache", "access": by_label, "memory": suitable});
    let layer = namespace.layer("shared", further).await;
    layer.ready().await;
    let guests = of_each_kind(&guest, "guest", &layer, |_| json!({})).await;
    let all: Vec<&Use> = guests.iter().collect();
    all_say(&witness, &all, "made without leave", |_| "NotAllowed").await;
    leave(&guest, true).await;
    all_are_ready(&guests).await;

    // The place of another: its prefix, or the name of its function.
    let place = |kind: UseKind| {
        let function = json!({"source": {"inline": source("kinds_own")}});
        if kind.has_user() { json!({"keyPrefix": prefix(kind, "owner")}) } else { function }
    };
    let owners = of_each_kind(&namespace, "owner", &layer, place).await;
    all_are_ready(&owners).await;
    let rivals = of_each_kind(&namespace, "rival", &layer, place).await;
    let taken = |kind| match kind {
        UseKind::SessionStore | UseKind::RateLimitPolicy => "PrefixOverlaps",
        // The channel is named after the prefix.
        UseKind::CacheNamespace => "ChannelOverlaps",
        UseKind::FunctionLibrary => "LoadRefused",
    };
    all_say(&witness, &rivals.iter().collect::<Vec<_>>(), "made at another's place", taken).await;
    all_are_ready(&owners).await;

    leave(&guest, false).await;
    all_say(&witness, &all, "the label of its namespace was removed", |_| "NotAllowed").await;
    leave(&guest, true).await;
    all_are_ready(&guests).await;
    layer.change(json!({"access": {"namespaces": {"from": "Same", "selector": null}}})).await;
    all_say(&witness, &all, "the layer lets no other namespace in", |_| "NotAllowed").await;
    layer.change(json!({"access": by_label})).await;
    all_are_ready(&guests).await;

    layer.change(json!({"memory": {"evictionPolicy": "allkeys-lru"}})).await;
    let is_evicted = |kind: UseKind| eviction::judge(kind, "allkeys-lru").verdict == Verdict::Refused;
    let evicted: Vec<&Use> = guests.iter().chain(&owners).filter(|it| is_evicted(it.kind)).collect();
    assert_eq!(evicted.len(), 4, "sessions and limits");
    all_say(&witness, &evicted, "the layer's eviction policy changed", |_| "Evicts").await;
    layer.change(json!({"memory": suitable})).await;
    all_are_ready(&guests).await;

    let layers: Api<DataLayer> = layer.api();
    layers.delete(&layer.identity.name, &DeleteParams::default()).await.unwrap();
    let all: Vec<&Use> = guests.iter().chain(&owners).collect();
    all_say(&witness, &all, "the layer was deleted", |_| "LayerNotFound").await;
    for namespace in [guest, namespace] {
        namespace.delete().await;
    }
}

/// A use with everything that it can have.
async fn with_all_secrets(namespace: &TestNamespace, layer: &Layer) -> Vec<Use> {
    let further = |kind| match kind {
        UseKind::RateLimitPolicy => json!({"export": {"program": "EnvoyRateLimit"}}),
        UseKind::SessionStore | UseKind::CacheNamespace | UseKind::FunctionLibrary => json!({}),
    };
    let uses = of_each_kind(namespace, "web", layer, further).await;
    all_are_ready(&uses).await;
    uses
}

/// What a Secret says; `None`: there is none.
async fn fields(secrets: &Api<Secret>, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
    let data = secrets.get_opt(name).await.unwrap()?.data.unwrap_or_default();
    Some(data.into_iter().map(|(field, value)| (field, value.0)).collect())
}

/// The field of a Secret that a test edits: its credentials.
fn credentials(name: &str) -> &'static str {
    if name.ends_with("-limit-export") { "REDIS_AUTH" } else { "password" }
}

#[tokio::test]
async fn a_secret_of_any_kind_that_was_deleted_or_edited_is_back_in_time() {
    let namespace = TestNamespace::create("kinds-secrets").await;
    let layer = namespace.layer("shared", json!({"mode": "Standalone"})).await;
    let uses = with_all_secrets(&namespace, &layer).await;
    layer.ready().await;
    let secrets: Api<Secret> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let everything = secrets.list(&kube::api::ListParams::default()).await.unwrap();
    let owned = everything.items.iter().filter(|secret| {
        let owners = secret.metadata.owner_references.iter().flatten();
        owners.into_iter().any(|owner| UseKind::of(&owner.kind).is_some())
    });
    let names: Vec<String> = uses.iter().flat_map(|it| secrets_of(it.kind, &it.name)).collect();
    assert_eq!(owned.count(), names.len(), "each Secret of a use is looked at");
    let is_back = async |name: &str, what: &str, whole: &BTreeMap<String, Vec<u8>>| {
        let took = eventually(&format!("{name} is back, which was {what}"), BACK_WITHIN, async || {
            fields(&secrets, name).await.as_ref() == Some(whole)
        })
        .await;
        println!("{name}, {what}: back after {took:.2?}");
    };
    for name in &names {
        let whole = fields(&secrets, name).await.unwrap();
        secrets.delete(name, &DeleteParams::default()).await.unwrap();
        is_back(name, "deleted", &whole).await;
        for (what, edit) in [
            ("edited", json!({"stringData": {credentials(name): "edited"}})),
            ("robbed of a field", json!({"data": {credentials(name): null}})),
            ("emptied", json!({"data": null})),
        ] {
            secrets.patch(name, &PatchParams::default(), &Patch::Merge(&edit)).await.unwrap();
            is_back(name, what, &whole).await;
        }
    }
    all_are_ready(&uses).await;
    namespace.delete().await;
}

/// What the watch shows as the answer to the operator's own write arrives may be a change that came after it. It was taken for one before.
#[tokio::test]
async fn a_secret_of_any_kind_that_is_edited_before_the_operator_hears_of_its_write_is_back() {
    let namespace = TestNamespace::create("kinds-answers").await;
    let layer = namespace.layer("shared", json!({"mode": "Standalone"})).await;
    let uses = with_all_secrets(&namespace, &layer).await;
    layer.ready().await;
    let faults = Faults::default();
    place::start_operator_with(&namespace.name, faults.clone());
    let secrets: Api<Secret> = Api::namespaced(namespace.client.clone(), &namespace.name);
    for name in uses.iter().flat_map(|it| secrets_of(it.kind, &it.name)) {
        let whole = fields(&secrets, &name).await.unwrap();
        let is_whole = async || fields(&secrets, &name).await.as_ref() == Some(&whole);
        let edit = async |value: &str| {
            let edit = Patch::Merge(json!({"stringData": {credentials(&name): value}}));
            secrets.patch(&name, &PatchParams::default(), &edit).await.unwrap();
        };
        faults.delay_answers(&format!("/secrets/{name}"), ANSWERED_AFTER);
        edit("edited").await;
        eventually(&format!("{name} is back"), SOON, is_whole).await;
        edit("edited again").await;
        let took = eventually(&format!("{name} is back, which was edited meanwhile"), SOON, is_whole).await;
        println!("{name}: back {took:.2?} after it was edited again");
    }
    all_are_ready(&uses).await;
    namespace.delete().await;
}

/// As long as the API server does not take it as it should be, it is not called written.
#[tokio::test]
async fn a_secret_of_any_kind_that_cannot_be_put_back_is_not_called_written() {
    let namespace = TestNamespace::create("kinds-unwritten").await;
    let layer = namespace.layer("shared", json!({"mode": "Standalone"})).await;
    let uses = with_all_secrets(&namespace, &layer).await;
    let secrets: Api<Secret> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let rule =
        json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["secrets"]});
    // What the test edits is in the way of what the operator writes.
    let is_edited = "object.data[?'password'].orValue(object.data[?'REDIS_AUTH'].orValue('')) == 'ZWRpdGVk'";
    refuse(&namespace.name, &rule, is_edited);
    for it in &uses {
        let written = async || it.condition("BindingWritten").await.unwrap();
        for name in secrets_of(it.kind, &it.name) {
            let whole = fields(&secrets, &name).await.unwrap();
            let is_untold = async || {
                let (status, reason, message) = written().await;
                status == "False" && reason == "NotWritten" && message.contains("a policy of the test")
            };
            let edit = Patch::Merge(json!({"stringData": {credentials(&name): "edited"}}));
            eventually(&format!("{name}, edited, is not called written"), SOON, async || {
                // Until the policy is in force it is put back.
                secrets.patch(&name, &PatchParams::default(), &edit).await.unwrap();
                is_untold().await
            })
            .await;
            secrets.delete(&name, &DeleteParams::default()).await.unwrap();
            eventually(&format!("{name}, deleted, is not called written"), BACK_WITHIN, async || is_untold().await)
                .await;
            assert_eq!(fields(&secrets, &name).await, None);
            kubectl(&["delete", "validatingadmissionpolicybinding", &namespace.name]);
            eventually("it is written, and called so", SOON, async || {
                fields(&secrets, &name).await.as_ref() == Some(&whole) && written().await.0 == "True"
            })
            .await;
            refuse(&namespace.name, &rule, is_edited);
        }
    }
    namespace.delete().await;
}
