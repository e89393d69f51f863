//! Claims about function libraries: who may call them, what a bad change does, and that they come back wherever they are lost.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use redis::Cmd;
use redis::aio::MultiplexedConnection;
use redoubt::api::function_library::FunctionLibrary;
use redoubt::model::NodeId;
use redoubt::redis::{Connection, Secret, server};
use serde_json::json;

use crate::layer::Layer;
use crate::place;
use crate::polling::eventually;
use crate::store::{Store, run};
use crate::test_namespace::{SOON, TestNamespace};

/// A ConfigMap is believed for 30 s.
const MAP_WITHIN: Duration = Duration::from_secs(50);

/// Two functions: one that answers, and one that sets its key.
fn source(answer: &str) -> String {
    format!(
        "#!lua name=tools\n\
         redis.register_function{{function_name='tools_answer', callback=function() return '{answer}' end, flags={{'no-writes'}}}}\n\
         redis.register_function('tools_set', function(keys, args) return redis.call('SET', keys[1], args[1]) end)\n"
    )
}

fn answer() -> Cmd {
    redis::cmd("FCALL_RO").arg("tools_answer").arg(0).clone()
}

fn set(key: &str) -> Cmd {
    redis::cmd("FCALL").arg("tools_set").arg(1).arg(key).arg("v").clone()
}

async fn denied(connection: &mut MultiplexedConnection, command: Cmd) -> bool {
    run::<redis::Value>(connection, command).await.is_err_and(|error| error.code() == Some("NOPERM"))
}

/// What the primary answers the layer's own application.
async fn answers(layer: &Layer) -> Option<String> {
    let primary = layer.primary().await?;
    let connection = Connection::open(&layer.endpoints().await.remove(&primary)?).await.ok()?;
    connection.query(&answer()).await.ok()
}

async fn becomes(layer: &Layer, expected: Option<&str>, within: Duration) {
    eventually(&format!("the function answers {expected:?}"), within, async || {
        answers(layer).await.as_deref() == expected && layer.primary().await.is_some()
    })
    .await;
}

/// Empties the primary of all functions, as a person could who may do everything.
async fn flush_functions(layer: &Layer) {
    let primary = layer.primary().await.unwrap();
    let endpoint = layer.as_operator(primary).await;
    let operator = Connection::open(&endpoint).await.unwrap();
    let rules = ["on", "nopass", "+@all", "~*"].map(str::to_owned);
    eventually("all functions are flushed", SOON, async || {
        server::acl_set_user(&operator, "intruder", &rules).await.unwrap();
        let intruder = redoubt::redis::Endpoint {
            username: "intruder".to_owned(),
            password: Secret::new("any"),
            ..endpoint.clone()
        };
        let Ok(intruder) = Connection::open(&intruder).await else { return false };
        intruder.query::<()>(redis::cmd("FUNCTION").arg("FLUSH").arg("SYNC")).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_is_called_in_its_namespace_survives_what_loses_it_and_goes_with_its_object() {
    let namespace = TestNamespace::create_with("nl-functions", place::operator_of_all().await).await;
    let other = namespace.another("nl-functions-other").await;
    let layer = namespace.layer("shared", json!({"access": {"namespaces": {"from": "All"}}})).await;
    let place = json!({"name": "shared", "namespace": namespace.name});
    let here = Store::create(&namespace, "web", json!({"idleTimeout": "30m", "layer": place})).await;
    let there = Store::create(&other, "web", json!({"idleTimeout": "30m", "layer": place})).await;
    here.ready().await;
    there.ready().await;
    let tools: Store<FunctionLibrary> =
        Store::make(&namespace, "tools", json!({"layer": place, "source": {"inline": source("first")}})).await;
    tools.ready().await;
    let status = tools.status().await.unwrap();
    assert!(status.binding.is_none() && status.user.is_none() && status.admission.is_none());
    assert!(status.engine.is_some_and(|engine| !engine.is_empty()));
    let functions = status.functions.unwrap();
    assert!(functions.library.starts_with("fnl_tools_") && functions.digest.len() == 16, "{functions:?}");
    assert_eq!(
        json!(status.function_names),
        json!([{"name": "tools_answer", "readsOnly": true}, {"name": "tools_set", "readsOnly": false}])
    );
    assert_eq!(answers(&layer).await.as_deref(), Some("first"), "the layer's application calls any function");

    // The users of the namespace, with their own rights on keys; nobody of another.
    let (mut ours, mut theirs) = (here.connected().await, there.connected().await);
    eventually("a store's user may call it", SOON, async || run::<String>(&mut ours, answer()).await.is_ok()).await;
    run::<()>(&mut ours, set("web:a")).await.unwrap();
    assert!(run::<redis::Value>(&mut ours, set("other:a")).await.is_err(), "a function has its caller's rights");
    here.ready().await;
    assert!(denied(&mut theirs, answer()).await && denied(&mut theirs, set(&format!("{}/web:a", other.name))).await);

    // A change that does not load: told in the engine's words, and the old version answers.
    let broken = source("second").replace("return '", "return return '");
    tools.change(json!({"source": {"inline": broken}})).await;
    tools.refused("LoadRefused", ":2:").await;
    tools.refused("LoadRefused", "stays, with tools_answer, tools_set").await;
    assert_eq!(answers(&layer).await.as_deref(), Some("first"));
    layer.ready().await;
    tools.change(json!({"source": {"inline": source("second")}})).await;
    tools.ready().await;
    assert_eq!(answers(&layer).await.as_deref(), Some("second"));
    assert_ne!(tools.status().await.unwrap().functions.unwrap().digest, functions.digest);

    flush_functions(&layer).await;
    becomes(&layer, Some("second"), SOON).await;
    let old = layer.serving().await;
    layer.kill_engine(layer.primary().await.unwrap()).await;
    layer.has_a_new_primary(old).await;
    becomes(&layer, Some("second"), SOON).await;
    layer.ready().await;
    tools.ready().await;

    tools.api().delete("tools", &DeleteParams::default()).await.unwrap();
    becomes(&layer, None, SOON).await;
    let mut ours = here.connected().await;
    eventually("the right goes too", SOON, async || denied(&mut ours, answer()).await).await;
    here.ready().await;
    other.delete().await;
    namespace.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_in_a_config_map_is_followed_and_loaded_again_on_a_primary_that_begins_empty() {
    let namespace = TestNamespace::create("nl-functions-map").await;
    let layer = namespace.layer("cache", json!({"mode": "Standalone", "purpose": "Cache"})).await;
    let spec = json!({"layer": {"name": "cache"}, "source": {"configMap": {"name": "lua"}}});
    let tools: Store<FunctionLibrary> = Store::make(&namespace, "tools", spec).await;
    tools.refused("SourceMissing", "there is no ConfigMap nl-functions-map/lua").await;
    layer.ready().await;
    let maps: Api<ConfigMap> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let map = json!({"metadata": {"name": "lua"}, "data": {"library.lua": source("first")}});
    maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
    becomes(&layer, Some("first"), MAP_WITHIN).await;
    tools.ready().await;

    // Another one of the same function waits until the name is free; the owner is not disturbed, also not by an empty restart.
    let taking = json!({"layer": {"name": "cache"}, "source": {"inline": source("taken")}});
    let other: Store<FunctionLibrary> = Store::make(&namespace, "another", taking).await;
    other.refused("LoadRefused", "already exists").await;
    other.refused("LoadRefused", "no version of it is loaded").await;
    let old = layer.serving().await;
    layer.kill_engine(NodeId::data(0)).await;
    layer.has_a_new_primary(old).await;
    becomes(&layer, Some("first"), SOON).await;
    other.refused("LoadRefused", "already exists").await;
    tools.ready().await;

    let patch = Patch::Merge(json!({"data": {"library.lua": source("second")}}));
    maps.patch("lua", &PatchParams::default(), &patch).await.unwrap();
    becomes(&layer, Some("second"), MAP_WITHIN).await;
    tools.ready().await;
    tools.api().delete("tools", &DeleteParams::default()).await.unwrap();
    becomes(&layer, Some("taken"), SOON).await;
    other.ready().await;
    layer.ready().await;
    namespace.delete().await;
}

/// A primary does nothing else for the half second that a library gets which does not end while it loads, and one tenant may have 64.
#[tokio::test(flavor = "multi_thread")]
async fn libraries_that_hold_the_primary_up_are_tried_far_apart_and_those_of_other_tenants_wait_a_little() {
    const LOOPING: u64 = 12;
    let namespace = TestNamespace::create_with("nl-functions-pauses", place::operator_of_all().await).await;
    let other = namespace.another("nl-functions-pauses-other").await;
    let layer = namespace
        .layer("shared", json!({"mode": "Standalone", "purpose": "Cache", "access": {"namespaces": {"from": "All"}}}))
        .await;
    layer.ready().await;
    let place = json!({"name": "shared", "namespace": namespace.name});
    let spec = |text: &str| json!({"layer": place, "source": {"inline": text}});
    let (began, mut looping) = (Instant::now(), Vec::new());
    for number in 0..LOOPING {
        let text =
            format!("#!lua name=l\nredis.register_function('looping_{number}', function() end)\nwhile true do end\n");
        looping.push(Store::<FunctionLibrary>::make(&other, &format!("l{number}"), spec(&text)).await);
    }
    let primary = layer.primary().await.unwrap();
    let connection = Connection::open(&layer.as_operator(primary).await).await.unwrap();
    let refused = async || {
        let text: String = connection.query(redis::cmd("INFO").arg("commandstats")).await.unwrap();
        // There is none before the first load.
        let line = text.lines().find_map(|line| line.strip_prefix("cmdstat_function|load:")).unwrap_or_default();
        line.split(',').find_map(|part| part.strip_prefix("failed_calls=")?.parse::<u64>().ok()).unwrap_or_default()
    };
    eventually("one is tried", SOON, async || refused().await > 0).await;
    let waiting = async || {
        let mut count = 0;
        for library in &looping {
            let told = library.condition("FunctionsLoaded").await;
            count += u64::from(told.is_some_and(|(_, reason, message)| {
                reason == "LoadWaits" && message.contains("of this namespace") && !message.contains(&other.name)
            }));
        }
        count
    };
    eventually("each was tried or says that it waits", SOON, async || waiting().await + refused().await >= LOOPING)
        .await;
    // One of another tenant waits for the pause of the layer only, and not for all that are before it.
    let tools: Store<FunctionLibrary> = Store::make(&namespace, "tools", spec(&source("first"))).await;
    eventually("the library of another tenant is loaded", SOON, async || answers(&layer).await.is_some()).await;
    tools.ready().await;
    // Pauses of 10 s, 20 s, 40 s and so on.
    let (tries, passed) = (refused().await, began.elapsed().as_secs());
    let mut most = 1;
    while 10 * ((1 << most) - 1) <= passed {
        most += 1;
    }
    println!("{tries} tries in {passed} s");
    assert!(tries <= most, "{tries} tries in {passed} s");
    layer.ready().await;
    other.delete().await;
    namespace.delete().await;
}
