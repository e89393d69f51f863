//! What an older version admitted can be edited, whatever this one thinks of it: its labels, the faulty field and every other field. What
//! was admitted is made by taking all rules and bounds out of our definitions for a moment; then they are put back.
//!
//! An edit that is refused may only be refused for itself: because the field cannot be changed.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::{Resource as _, ResourceExt as _};
use redoubt::api::data_layer::DataLayer;
use redoubt::model::UseKind;
use serde_json::{Value, json};

use crate::bad_caches::bad_caches;
use crate::bad_layers::bad_layers;
use crate::bad_libraries::bad_libraries;
use crate::bad_policies::bad_policies;
use crate::bad_stores::bad_stores;
use crate::every_kind::{api, smallest};
use crate::place;
use crate::polling::{eventually, eventually_or};
use crate::test_namespace::{SOON, TestNamespace};

/// Requests at once.
const TOGETHER: usize = 4;

/// What a schema refuses values with. Types and required fields stay: without them nothing can be read.
const BOUNDS: [&str; 11] = [
    "x-kubernetes-validations",
    "pattern",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
];

fn loosen(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            // Of a schema, not of a field that is called so.
            if fields.contains_key("type") || fields.contains_key("x-kubernetes-int-or-string") {
                fields.retain(|word, value| !BOUNDS.contains(&word.as_str()) || value.get("type").is_some());
            }
            fields.values_mut().for_each(loosen);
        }
        Value::Array(items) => items.iter_mut().for_each(loosen),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Opens our definitions. [`crate::definitions::define`] closes them.
async fn loosen_definitions(namespace: &TestNamespace) {
    let definitions: Api<CustomResourceDefinition> = Api::all(namespace.client.clone());
    for definition in redoubt::api::custom_resource_definitions() {
        let name = definition.name_any();
        let mut definition = serde_json::to_value(definition).unwrap();
        loosen(&mut definition);
        let live = definitions.get(&name).await.unwrap();
        definition["metadata"]["resourceVersion"] = json!(live.metadata.resource_version);
        let definition: CustomResourceDefinition = serde_json::from_value(definition).unwrap();
        definitions.replace(&name, &PostParams::default(), &definition).await.unwrap();
    }
}

/// The kinds of object that have a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Layer,
    Use(UseKind),
}

impl Kind {
    fn api(self, namespace: &TestNamespace) -> Api<DynamicObject> {
        match self {
            Self::Layer => {
                let resource = ApiResource::erase::<DataLayer>(&());
                Api::namespaced_with(namespace.client.clone(), &namespace.name, &resource)
            }
            Self::Use(kind) => api(namespace, kind),
        }
    }

    fn word(self) -> String {
        match self {
            Self::Layer => DataLayer::kind(&()).into_owned(),
            Self::Use(kind) => kind.words().kind.to_owned(),
        }
    }

    /// A specification that is admitted, and of which nothing is made.
    fn good(self) -> Value {
        match self {
            Self::Layer => json!({"mode": "Sentinel", "paused": true}),
            Self::Use(kind) => {
                let mut spec = smallest(kind);
                spec["layer"] = json!({"name": "nowhere"});
                spec
            }
        }
    }

    /// Fields with other values than [`Self::good`] has, each of which is admitted in every specification.
    fn others(self) -> Vec<(&'static str, Value)> {
        match self {
            Self::Layer => vec![
                ("maxConnections", json!(77)),
                ("update", json!({"approval": "Manual"})),
                ("audit", json!({"mode": "Repair"})),
            ],
            Self::Use(UseKind::SessionStore) => {
                vec![("maxPerUser", json!(7)), ("binding", json!({"secretName": "chosen"}))]
            }
            Self::Use(UseKind::RateLimitPolicy) => {
                vec![("onStoreError", json!("Deny")), ("binding", json!({"secretName": "chosen"}))]
            }
            Self::Use(UseKind::CacheNamespace) => vec![("jitter", json!(7)), ("earlyRefresh", json!(7))],
            // It has no third field.
            Self::Use(UseKind::FunctionLibrary) => Vec::new(),
        }
    }

    /// Specifications that this version refuses, with the name that is part of what is wrong, if it is.
    fn bad(self) -> Vec<(Option<String>, Value)> {
        let named = |all: Vec<(String, Value, &'static str)>, usual: &str| {
            all.into_iter().map(|(name, spec, _)| (Some(name).filter(|name| name != usual), spec)).collect()
        };
        let unnamed = |all: Vec<(Value, &'static str)>| all.into_iter().map(|(spec, _)| (None, spec)).collect();
        match self {
            Self::Layer => named(bad_layers(), "web"),
            Self::Use(UseKind::SessionStore) => named(bad_stores(), "web"),
            Self::Use(UseKind::RateLimitPolicy) => unnamed(bad_policies()),
            Self::Use(UseKind::CacheNamespace) => unnamed(bad_caches()),
            Self::Use(UseKind::FunctionLibrary) => named(bad_libraries(), "tools"),
        }
    }
}

fn kinds() -> impl Iterator<Item = Kind> {
    std::iter::once(Kind::Layer).chain(UseKind::ALL.map(Kind::Use))
}

/// An object that this version would not admit.
struct Old {
    kind: Kind,
    api: Api<DynamicObject>,
    object: DynamicObject,
}

impl Old {
    /// What is left of an object with this specification once it is stored; an error: not even a definition without rules takes it.
    async fn store(namespace: &TestNamespace, kind: Kind, name: &str, mut spec: Value) -> Result<Self, String> {
        // No operator makes anything of it.
        match kind {
            Kind::Layer => spec["paused"] = json!(true),
            Kind::Use(_) if spec["layer"]["dedicated"].is_object() => {
                spec["layer"]["dedicated"]["paused"] = json!(true);
            }
            Kind::Use(_) if spec.get("layer").is_none() => spec["layer"] = json!({"name": "nowhere"}),
            Kind::Use(_) => {}
        }
        let (api, body) = (kind.api(namespace), body(kind, name, &spec));
        let created = api.create(&PostParams::default(), &body).await.map_err(|error| error.to_string())?;
        Ok(Self { kind, api, object: created })
    }

    fn words(&self) -> String {
        format!("{} {} {}", self.kind.word(), self.object.name_any(), self.object.data["spec"])
    }

    /// What the API server says to another specification.
    async fn edit(&self, change: impl FnOnce(&mut Value)) -> Result<(), String> {
        let mut edited = self.object.clone();
        change(&mut edited.data["spec"]);
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        let replaced = self.api.replace(&self.object.name_any(), &dry_run, &edited).await;
        replaced.map(drop).map_err(|error| error.to_string())
    }

    /// Why one of the edits is refused that every object takes; empty: none is.
    async fn refusals(&self, is_admitted: impl AsyncFn(Kind, &Value) -> bool) -> Vec<String> {
        let mut refused = Vec::new();
        let mut note = |what: &str, answer: Result<(), String>| {
            if let Err(words) = answer {
                refused.push(format!("{what} of {}: {words}", self.words()));
            }
        };
        let label = Patch::Merge(json!({"metadata": {"labels": {"edited": "yes"}}}));
        let dry_run = PatchParams { dry_run: true, ..PatchParams::default() };
        let labelled = self.api.patch(&self.object.name_any(), &dry_run, &label).await;
        note("a label", labelled.map(drop).map_err(|error| error.to_string()));
        let spec = &self.object.data["spec"];
        for (field, value) in self.kind.others() {
            if spec.get(field).is_none() {
                note(field, self.edit(|spec| spec[field] = value).await);
            }
        }
        // The faulty fields are those without which, or with a good value of which, it would be admitted.
        let good = self.kind.good();
        for field in spec.as_object().unwrap().keys() {
            let correct = |spec: &mut Value| match good.get(field) {
                Some(value) => spec[field] = value.clone(),
                None => _ = spec.as_object_mut().unwrap().remove(field),
            };
            let mut corrected = spec.clone();
            correct(&mut corrected);
            if corrected != *spec && is_admitted(self.kind, &corrected).await {
                let answer = self.edit(correct).await;
                let is_fixed =
                    |words: &String| words.contains("cannot be changed") || words.contains("cannot be removed");
                note(
                    &format!("the correction {field}"),
                    answer.or_else(|words| if is_fixed(&words) { Ok(()) } else { Err(words) }),
                );
            }
        }
        refused
    }
}

fn body(kind: Kind, name: &str, spec: &Value) -> DynamicObject {
    let object = json!({
        "apiVersion": "redoubt.dev/v1alpha1", "kind": kind.word(), "metadata": {"name": name}, "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

/// Whether a new object with this specification is admitted.
async fn is_admitted(namespace: &TestNamespace, kind: Kind, spec: &Value) -> Result<(), String> {
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let created = kind.api(namespace).create(&dry_run, &body(kind, "new", spec)).await;
    created.map(drop).map_err(|error| error.to_string())
}

/// Each bad specification as an object, as far as any definition takes it.
async fn store_all(namespace: &TestNamespace) -> Vec<Old> {
    loosen_definitions(namespace).await;
    for kind in kinds() {
        // One whose name is not what is wrong with it.
        let (_, bad) = kind.bad().into_iter().rfind(|(name, _)| name.is_none()).unwrap();
        eventually(&format!("the definition of {kind:?} is open"), SOON, async || {
            let answer = is_admitted(namespace, kind, &bad).await;
            answer.is_ok() || answer.is_err_and(|words| is_of_another_kind(&words))
        })
        .await;
    }
    let (mut all, mut wrong) = (Vec::new(), Vec::new());
    for kind in kinds() {
        let (mut stored, mut not_stored) = (0, 0);
        for (number, (name, spec)) in kind.bad().into_iter().enumerate() {
            match Old::store(namespace, kind, &name.unwrap_or_else(|| format!("bad-{number}")), spec.clone()).await {
                Ok(old) => {
                    stored += 1;
                    all.push(old);
                }
                Err(words) => {
                    wrong.extend((!is_of_another_kind(&words)).then(|| format!("{spec} is not stored: {words}")));
                    not_stored += 1;
                }
            }
        }
        println!("{kind:?}: {stored} objects, {not_stored} that no definition takes");
        wrong.extend((stored <= not_stored).then(|| format!("{kind:?}: {stored} objects")));
    }
    // First of all: the next claim expects them as they are.
    crate::definitions::define(&namespace.client).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for kind in kinds() {
        eventually(&format!("the definition of {kind:?} is closed"), SOON, async || {
            // What is wrong with one may be its name, or that it named no layer.
            for old in all.iter().filter(|old| old.kind == kind) {
                if is_admitted(namespace, kind, &old.object.data["spec"]).await.is_err() {
                    return true;
                }
            }
            false
        })
        .await;
    }
    all
}

/// Whether the refusal is of what no version ever took: no such type, field or name of an object.
fn is_of_another_kind(words: &str) -> bool {
    ["Required value", "Duplicate value", "must be of type", "unknown field", "metadata.name", "already exists"]
        .iter()
        .any(|reason| words.contains(reason))
}

#[tokio::test]
async fn what_an_older_version_admitted_can_be_edited_and_says_what_is_wrong_with_it() {
    let namespace = TestNamespace::create_with("nl-editable", place::operator_of_all().await).await;
    // It would be in the way of the edits, whose objects would be old by then.
    place::stop_operator("");
    let old = store_all(&namespace).await;
    let admitted = async |kind: Kind, spec: &Value| is_admitted(&namespace, kind, spec).await.is_ok();
    let edits = futures::stream::iter(&old).map(|it| it.refusals(&admitted));
    let refused: Vec<String> = edits.buffered(TOGETHER).concat().await;
    assert!(refused.is_empty(), "{} edits are refused\n{}", refused.len(), refused.join("\n"));

    // A status, or where none can be written or the object cannot be read, an event.
    place::replace_operator_of_all();
    let events: Api<Event> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let mut untold: BTreeMap<String, String> = BTreeMap::new();
    let told = eventually_or("each says what is wrong with it", SOON, async || {
        let events = events.list(&ListParams::default()).await.unwrap().items;
        let told: Vec<&str> = events.iter().filter_map(|event| event.involved_object.uid.as_deref()).collect();
        let mut all: BTreeMap<String, DynamicObject> = BTreeMap::new();
        for kind in kinds() {
            let found = kind.api(&namespace).list(&ListParams::default()).await.unwrap();
            all.extend(found.items.into_iter().map(|object| (object.uid().unwrap(), object)));
        }
        let has_status = |it: &Old| {
            let object = &all[&it.object.uid().unwrap()];
            object.data["status"]["observedGeneration"].as_i64() == object.metadata.generation
        };
        let silent = old.iter().filter(|it| !has_status(it) && !told.contains(&it.object.uid().unwrap().as_str()));
        untold = silent.map(|it| (it.object.uid().unwrap(), it.words())).collect();
        untold.is_empty()
    })
    .await;
    assert!(told.is_some(), "{} say nothing: {untold:#?}", untold.len());
    println!("{} objects say what is wrong after {:.1?}", old.len(), told.unwrap_or(Duration::MAX));
    namespace.delete().await;
}
