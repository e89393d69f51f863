//! Users' function libraries: what is admitted, what engines make of them, who may call them, and what is told.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use redis::cmd;
use redoubt::act::{self, StepOutcome};
use redoubt::api::function_library::FunctionLibrary;
use redoubt::api::use_status::UseStatus;
use redoubt::api::uses::DeclaredUse;
use redoubt::dataplane::{Library, built_in_libraries, load, user_library};
use redoubt::model::desired::DesiredLibrary;
use redoubt::model::function_library::{Functions, LibrarySource};
use redoubt::model::observed::{DataServer, ObservedServer};
use redoubt::model::{NodeId, Policy, UseKind};
use redoubt::plan::lint::lint;
use redoubt::plan::{Step, WaitReason, plan};
use redoubt::redis::probe::{DataProbe, probe_data};
use redoubt::redis::rights::Grant;
use redoubt::redis::use_access::violations;
use redoubt::redis::user_forms::UserForms;
use redoubt::redis::{Class, Connection, functions, server, users};
use redoubt::report::uses::{LibraryTrouble, UseFacts, refused, status};
use redoubt::validate::uses::tenancy::{Emptied, admit};
use redoubt::validate::uses::{layer_of, validate};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::planner::{converged, desired};
use crate::redis_users::{connect, data_node, password};
use crate::session_stores::{by_selector, host, layer};
use crate::support::bad_libraries::{bad_libraries, bad_library_changes};
use crate::support::engine_process::{Process, engines};

/// A library with one function that reads only, and one that writes under the key of its caller.
fn source(answer: &str) -> String {
    format!(
        "#!lua name=tools\nlocal function answer() return '{answer}' end\n\
         redis.register_function{{function_name='tools_answer', callback=answer, flags={{'no-writes'}}}}\n\
         redis.register_function('tools_set', function(keys, args) return redis.call('SET', keys[1], args[1]) end)\n"
    )
}

fn library(name: &str, source: &str) -> Library {
    user_library("shop", name, source).unwrap()
}

fn tools(answer: &str) -> Library {
    library("tools", &source(answer))
}

fn object(name: &str, namespace: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "redoubt.dev/v1alpha1", "kind": "FunctionLibrary", "spec": spec,
        "metadata": {"name": name, "namespace": namespace, "uid": format!("{namespace}-{name}"), "generation": 2},
    })
}

fn parse(name: &str, spec: &Value) -> Result<FunctionLibrary, String> {
    serde_json::from_value(object(name, "shop", spec)).map_err(|error| error.to_string())
}

#[test]
fn good_libraries_are_accepted_and_have_neither_prefix_nor_user() {
    let text = source("1");
    let map = LibrarySource::ConfigMap { name: "lua".to_owned(), key: "library.lua".to_owned() };
    for (choice, expected) in
        [(json!({"inline": text}), LibrarySource::Inline(text.clone())), (json!({"configMap": {"name": "lua"}}), map)]
    {
        let parsed = parse("tools", &json!({"layer": {"name": "shared"}, "source": choice})).unwrap();
        parsed.validate_cel().unwrap_or_else(|errors| panic!("{errors:?}"));
        let declared: DeclaredUse = parsed.into();
        assert_eq!(layer_of(&declared), ("shop".to_owned(), "shared".to_owned()));
        let accepted = validate(&declared, 2).unwrap();
        assert_eq!(
            (accepted.policy.prefix(), accepted.policy.owner(), accepted.policy.generation()),
            ("", "shop/tools", 2)
        );
        let Policy::Functions(policy) = accepted.policy else { panic!("{accepted:?}") };
        assert_eq!(policy.source, expected);
    }
}

#[test]
fn bad_libraries_are_refused_with_the_reason_by_admission_and_by_validation() {
    for (name, spec, reason) in bad_libraries() {
        // What does not parse is refused by the schema.
        let Ok(parsed) = parse(&name, &spec) else { continue };
        let Err(errors) = parsed.validate_cel() else { continue };
        assert!(format!("{errors:?}").contains(reason), "{spec}: {errors:?}");
        let is_text = spec["source"]["inline"].is_string() && spec["layer"]["name"].is_string() && name == "tools";
        // What the Lua of a stored object says is judged with every pass: the version that is loaded stays.
        assert!(validate(&parsed.into(), 2).is_err() || is_text, "accepted by validation: {spec}");
    }
    for (old, new, reason) in bad_library_changes() {
        let refused = parse("tools", &new).unwrap().validate_cel_update(&parse("tools", &old).unwrap());
        assert!(format!("{refused:?}").contains(reason), "{old} to {new}: {refused:?}");
    }
}

/// Whatever a layer evicts, and however many tenants it has: a library needs no place. It needs leave like any other use.
#[test]
fn a_layer_admits_libraries_without_a_place_up_to_its_limit() {
    let spec = json!({"layer": {"name": "shared", "namespace": "data"}, "source": {"configMap": {"name": "lua"}}});
    let made = |number: u32, namespace: &str| {
        let mut object = object(&format!("l{number}"), namespace, &spec);
        object["metadata"]["creationTimestamp"] = json!(format!("2026-01-01T00:{:02}:00Z", number % 60));
        DeclaredUse::read(UseKind::FunctionLibrary, &object).unwrap()
    };
    let evicting = json!({"mode": "Sentinel", "purpose": "Cache", "memory": {"evictionPolicy": "allkeys-lru"},
        "access": {"namespaces": by_selector()}});
    let labels = |namespace: &str| {
        (namespace != "elsewhere").then(|| BTreeMap::from([("sessions".to_owned(), "yes".to_owned())]))
    };
    let mut uses: Vec<DeclaredUse> = (0..66).map(|number| made(number, "shop")).collect();
    uses.push(made(0, "elsewhere"));
    // The youngest of the last minute was loaded before: it keeps its place.
    uses[59].status =
        serde_json::from_value(json!({"functions": {"library": "fnl_x", "digest": "d", "generation": 1}})).unwrap();
    let admissions = admit(
        &host(&layer(&evicting)),
        Some(&[]),
        uses.iter(),
        &BTreeSet::new(),
        &Emptied::new(),
        &labels,
        Timestamp::UNIX_EPOCH,
    );
    assert_eq!((admissions.admitted.len(), admissions.tenants.len()), (64, 0));
    assert!(admissions.admitted.iter().any(|admitted| admitted.accepted.name == "l59"));
    let mut reasons: Vec<&str> = admissions.refused.values().map(|refusal| refusal.reason).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["LayerFull", "LayerFull", "NotAllowed"]);
    // Where the list of tenants could not be stored they are served all the same: they are not on it.
    assert_eq!(admissions.as_stored(Some(&[])).0.admitted.len(), 64);
}

/// The steps on the primary of a layer that has these libraries, with its plan's waits.
fn steps(
    wanted: &[(&str, &str)],
    kept: &[&str],
    live: &[(&str, &str)],
    gathering: bool,
) -> (Vec<Step>, Vec<WaitReason>) {
    let mut desired = desired("old");
    let of = |(name, digest): &(&str, &str)| ((*name).to_owned(), DesiredLibrary { digest: (*digest).to_owned() });
    desired.libraries = wanted.iter().map(of).collect();
    desired.kept_libraries = kept.iter().map(|name| (*name).to_owned()).collect();
    desired.gathering = gathering;
    let mut seen = converged(NodeId::data(0));
    for node in seen.nodes.values_mut() {
        if let ObservedServer::Data(server) = &mut node.server {
            server.libraries = live.iter().map(|(name, digest)| ((*name).to_owned(), (*digest).to_owned())).collect();
        }
    }
    let plan = plan(&desired, &seen);
    assert_eq!(lint(&desired, &plan), [""; 0]);
    assert!(plan.steps.iter().all(|step| step.node() == NodeId::data(0)));
    (plan.steps, plan.waiting)
}

#[test]
fn libraries_of_users_are_loaded_last_and_those_that_are_not_wanted_are_deleted_before() {
    let (run_id, node) = ("run-redis-0".to_owned(), NodeId::data(0));
    let load = |library: &str| Step::LoadLibrary {
        node,
        run_id: run_id.clone(),
        library: library.to_owned(),
        digest: "new".to_owned(),
    };
    let delete = |library: &str| Step::DeleteLibrary { node, run_id: run_id.clone(), library: library.to_owned() };
    let wanted = [("fnl_a", "new"), ("redoubt", "new")];
    let live = [("fnl_a", "old"), ("fnl_gone", "d"), ("fnl_kept", ""), ("redoubt", "old"), ("redoubt_unknown", "d")];
    let (found, waiting) = steps(&wanted, &["fnl_kept"], &live, false);
    assert_eq!(found, [load("redoubt"), delete("fnl_gone"), load("fnl_a")]);
    assert_eq!(waiting, []);
    let (found, waiting) = steps(&wanted, &["fnl_kept"], &live, true);
    assert_eq!((found, waiting), (vec![delete("fnl_gone")], vec![WaitReason::Gathering]));
    // The layer itself waits for no user's library.
    assert_eq!(steps(&[("fnl_a", "new")], &[], &[], true), (vec![], vec![]));
    assert_eq!(steps(&[], &["fnl_a"], &[("fnl_a", "old")], false), (vec![], vec![]));
}

async fn look(connection: &Connection, libraries: &[&Library]) -> DataServer {
    let libraries = libraries.iter().map(|library| library.name.clone()).collect();
    let probe = DataProbe { libraries, ..DataProbe::default() };
    match probe_data(connection, &probe, &UserForms::default()).await.server {
        ObservedServer::Data(server) => *server,
        other => panic!("{other:?}"),
    }
}

async fn answers(connection: &Connection) -> String {
    connection.query(cmd("FCALL_RO").arg("tools_answer").arg(0)).await.unwrap()
}

#[tokio::test]
async fn a_library_is_loaded_seen_by_its_digest_with_its_functions_and_deleted() {
    for engine in engines() {
        let node = data_node(&engine).await;
        let (operator, application) = (connect(&node, users::OPERATOR).await, connect(&node, users::APPLICATION).await);
        let first = tools("first");
        load(&operator, &first).await.unwrap();
        assert_eq!(answers(&application).await, "first", "{}", engine.name);
        let seen = look(&operator, &[&first]).await;
        assert_eq!(seen.libraries[&first.name], first.digest);
        let functions = Functions::from([("tools_answer".to_owned(), true), ("tools_set".to_owned(), false)]);
        assert_eq!(seen.functions, BTreeMap::from([(first.name.clone(), functions)]));
        load(&operator, &tools("second")).await.unwrap();
        assert_eq!(answers(&application).await, "second");
        assert_ne!(look(&operator, &[&first]).await.libraries[&first.name], first.digest);
        functions::delete(&operator, &first.name).await.unwrap();
        assert!(look(&operator, &[&first]).await.libraries.is_empty());
    }
}

/// `FUNCTION LOAD REPLACE` is the check without harm: whatever is wrong, the version that is loaded goes on answering.
#[tokio::test]
async fn a_source_that_does_not_load_is_refused_in_the_engines_words_and_the_old_version_stays() {
    for engine in engines() {
        let node = data_node(&engine).await;
        let (operator, application) = (connect(&node, users::OPERATOR).await, connect(&node, users::APPLICATION).await);
        let old = tools("old");
        load(&operator, &old).await.unwrap();
        let other = library("other", "#!lua name=o\nredis.register_function('taken', function() return 1 end)\n");
        load(&operator, &other).await.unwrap();
        let with = |line: &str| library("tools", &format!("{}{line}\n", source("new")));
        for (bad, words) in [
            (with("this is no Lua"), ":5:"),
            (with("error('the author is not content')"), "global variable"),
            (with("redis.register_function('taken', function() return 2 end)"), "already exists"),
            (with("redis.register_function('tools_answer', function() return 2 end)"), "already exists"),
            (with("redis.register_function('two words', function() return 2 end)"), "only contain letters"),
            (with("redis.call('SET', 'a', 'b')"), ""),
            (with("while true do end"), "timeout"),
        ] {
            let error = load(&operator, &bad).await.unwrap_err();
            let told = error.refusal().unwrap_or_else(|| panic!("{}: {error:?}", engine.name));
            assert!(told.to_lowercase().contains(words), "{}: {told}", engine.name);
            assert_eq!(answers(&application).await, "old", "{}: {told}", engine.name);
            let seen = look(&operator, &[&old, &other]).await.libraries;
            assert_eq!((&seen[&old.name], &seen[&other.name]), (&old.digest, &other.digest), "{}: {told}", engine.name);
            let outcome = act::redis::load_library(&operator, &bad).await.unwrap();
            assert_eq!(outcome, StepOutcome::Refused(told));
        }
        // The line is the one of the user's source: the shebang is the first.
        let third = library("tools", "#!lua name=tools\nlocal a = 1\nlocal b = = 2\n-- register_function\n");
        let told = load(&operator, &third).await.unwrap_err().refusal().unwrap();
        assert!(told.contains(":3:"), "{}: {told}", engine.name);
        // The server is not to blame, nor is the source: it may pass.
        server::config_set(&operator, "maxmemory", "1").await.unwrap();
        let full = load(&operator, &tools("new")).await.unwrap_err();
        assert_eq!((full.class(), full.refusal()), (Class::OutOfMemory, None));
        server::config_set(&operator, "maxmemory", "0").await.unwrap();
        assert_eq!(answers(&application).await, "old");
    }
}

#[tokio::test]
async fn a_name_of_ours_that_is_put_together_while_the_library_loads_is_found_and_goes() {
    for engine in engines() {
        let node = data_node(&engine).await;
        let operator = connect(&node, users::OPERATOR).await;
        for library in built_in_libraries() {
            load(&operator, &library).await.unwrap();
        }
        let sly = "#!lua name=s\nredis.register_function('Redou' .. 'bt_session_get', function() return 1 end)\n";
        let sly = library("sly", sly);
        let told = load(&operator, &sly).await.unwrap_err().refusal().unwrap();
        assert!(told.contains("Redoubt_session_get"), "{told}");
        let seen = look(&operator, &[]).await;
        assert!(!seen.libraries.contains_key(&sly.name) && seen.functions.is_empty(), "{}", engine.name);
        // The version that was there before stays.
        let good = library("sly", "#!lua name=s\nredis.register_function('sly_answer', function() return 1 end)\n");
        load(&operator, &good).await.unwrap();
        assert!(load(&operator, &sly).await.unwrap_err().refusal().is_some());
        assert_eq!(look(&operator, &[&good]).await.libraries[&good.name], good.digest, "{}", engine.name);
        functions::delete(&operator, &good.name).await.unwrap();
        // One of ours that is loaded cannot be taken at all.
        let taken = "#!lua name=s\nredis.register_function('redou' .. 'bt_digest', function() return 1 end)\n";
        assert!(load(&operator, &library("sly", taken)).await.unwrap_err().refusal().is_some());
        let ours = &built_in_libraries()[0];
        assert_eq!(look(&operator, &[ours]).await.libraries[&ours.name], ours.digest);
    }
}

/// An answer that lists too much is not read, so no library of the server could be seen any more, or be deleted.
#[tokio::test]
async fn a_library_that_takes_too_much_of_a_server_goes_and_the_version_before_stays() {
    const MANY: &str = "for i = 1, 20000 do redis.register_function('many' .. i, function() return 1 end) end";
    const LONG: &str = "local s = ('x'):rep(16384)
redis.register_function{function_name = 'long', callback = function() return 1 end, description = s .. s}";
    const LARGE: &str = "local s = ('x'):rep(33554432)
redis.register_function{function_name = 'large', callback = function() return 1 end, description = s}";
    const HOARD: &str = "local kept = {}
for i = 1, 40 do kept[i] = ('x'):rep(1048576) .. i end
redis.register_function('hoard', function() return #kept end)";
    for engine in engines() {
        let good = library("big", "#!lua name=s\nredis.register_function('big_answer', function() return 1 end)\n");
        for (body, said) in [(MANY, "20000 functions"), (LONG, "descriptions"), (LARGE, "MiB"), (HOARD, "MiB")] {
            let node = data_node(&engine).await;
            let operator = connect(&node, users::OPERATOR).await;
            load(&operator, &good).await.unwrap();
            let bad = library("big", &format!("#!lua name=s\n{body}\n"));
            let told = load(&operator, &bad).await.unwrap_err().refusal().unwrap();
            assert!(told.contains(said), "{}: {told}", engine.name);
            assert_eq!(look(&operator, &[&good]).await.libraries[&good.name], good.digest, "{}: {said}", engine.name);
        }
        let node = data_node(&engine).await;
        let operator = connect(&node, users::OPERATOR).await;
        let register = |number| format!("redis.register_function('f{number}', function() return 1 end)\n");
        let most: String = (1..=100).map(register).collect();
        load(&operator, &library("big", &format!("#!lua name=s\n{most}"))).await.unwrap();
        let more = library("big", &format!("#!lua name=s\n{most}{}", register(101)));
        assert!(load(&operator, &more).await.unwrap_err().refusal().is_some(), "{}", engine.name);
    }
}

#[tokio::test]
async fn a_library_runs_with_its_callers_rights_and_only_users_of_its_namespace_may_call_it() {
    for engine in engines() {
        let node = data_node(&engine).await;
        let operator = connect(&node, users::OPERATOR).await;
        load(&operator, &tools("here")).await.unwrap();
        let named = Functions::from([("tools_answer".to_owned(), true), ("tools_set".to_owned(), false)]);
        let nothing = Functions::new();
        for (namespace, functions) in [("shop", &named), ("other", &nothing)] {
            let grant = Grant::plain(UseKind::SessionStore, "web:", functions);
            let name = users::use_user_name(UseKind::SessionStore, namespace, "web", 0);
            let digest = hex::encode(Sha256::digest(password(&name)));
            server::acl_set_user(&operator, &name, &users::use_on_data(grant, &digest).rules).await.unwrap();
            // Without the session library its own functions are allowed all the same.
            let found = violations(&operator, &name, grant).await.unwrap();
            assert_eq!(found, [""; 0], "{}: {name}", engine.name);
        }
        let user = |node: &Process, namespace: &str| {
            let name = users::use_user_name(UseKind::SessionStore, namespace, "web", 0);
            let endpoint = node.endpoint(&name, &password(&name));
            async move { Connection::open(&endpoint).await.unwrap() }
        };
        let set = |key: &str| cmd("FCALL").arg("tools_set").arg(1).arg(key).arg("v").clone();
        let own = user(&node, "shop").await;
        assert_eq!(answers(&own).await, "here");
        own.query::<()>(&set("web:a")).await.unwrap();
        assert_eq!(own.query::<()>(&set("api:a")).await.unwrap_err().class(), Class::Denied);
        let stranger = user(&node, "other").await;
        for command in [
            set("web:a"),
            cmd("FCALL").arg("tools_answer").arg(0).clone(),
            cmd("FCALL_RO").arg("tools_answer").arg(0).clone(),
        ] {
            assert_eq!(stranger.query::<()>(&command).await.unwrap_err().class(), Class::Denied, "{}", engine.name);
        }
    }
}

fn condition(status: &UseStatus, kind: &str) -> Option<(String, String, String)> {
    let found = status.conditions.iter().find(|it| it.type_ == kind)?;
    Some((found.status.clone(), found.reason.clone(), found.message.clone()))
}

#[test]
fn what_is_told_of_a_library_names_what_is_loaded_and_why_a_change_is_not() {
    let published = |facts: &UseFacts, old: &UseStatus| status(facts, old, Timestamp::UNIX_EPOCH);
    let mut facts =
        UseFacts { kind: UseKind::FunctionLibrary, generation: 1, has_primary: true, ..UseFacts::default() };
    facts.functions.digest = "first".to_owned();
    let new = published(&facts, &UseStatus::default());
    assert_eq!(condition(&new, "Ready").unwrap().1, "NotLoaded");
    assert_eq!(
        (condition(&new, "UserInPlace"), condition(&new, "BindingWritten"), condition(&new, "AccessProven")),
        (None, None, None)
    );
    facts.functions_loaded = true;
    facts.function_names = Some(Functions::from([("a".to_owned(), true), ("b".to_owned(), false)]));
    facts.engine = Some("valkey 9".to_owned());
    let ready = published(&facts, &new);
    assert_eq!(condition(&ready, "Ready").unwrap().0, "True");
    assert_eq!(
        json!(ready.function_names),
        json!([{"name": "a", "readsOnly": true}, {"name": "b", "readsOnly": false}])
    );
    assert_eq!(published(&facts, &ready), ready, "nothing is written while nothing changes");

    // A change that the engine refuses: its words, and what stays.
    (facts.generation, facts.functions_loaded, facts.functions.digest) = (2, false, "second".to_owned());
    facts.library_trouble = Some(LibraryTrouble { reason: "LoadRefused", message: "ERR no".to_owned() });
    facts.earlier_policy = Some("first".to_owned());
    let refusal = published(&facts, &ready);
    for kind in ["Accepted", "FunctionsLoaded"] {
        let (holds, reason, message) = condition(&refusal, kind).unwrap();
        assert_eq!((holds.as_str(), reason.as_str()), ("False", "LoadRefused"));
        assert!(message.contains("ERR no") && message.contains("stays, with a, b"), "{message}");
    }
    assert_eq!(condition(&refusal, "Ready").unwrap().1, "Serving", "the version that was loaded before serves");
    assert_eq!(condition(&refusal, "Degraded").unwrap().0, "False");
    assert_eq!(condition(&refusal, "Stalled").unwrap().1, "LoadRefused");
    assert_eq!(refusal.functions.as_ref().unwrap().digest, "first");
    assert_eq!(refusal.function_names, ready.function_names);

    // One that waits for its turn is as good as it was.
    let waits = LibraryTrouble { reason: "LoadWaits", message: "not tried yet".to_owned() };
    let waiting = published(&UseFacts { library_trouble: Some(waits), ..facts.clone() }, &ready);
    assert_eq!(condition(&waiting, "Accepted").unwrap().0, "True");
    let (holds, reason, message) = condition(&waiting, "FunctionsLoaded").unwrap();
    assert_eq!((holds.as_str(), reason.as_str()), ("False", "LoadWaits"));
    assert!(message.contains("not tried yet; the version that was loaded before stays"), "{message}");

    // A flush, or a primary that began empty: the users keep their rights until it is loaded again.
    let lost =
        UseFacts { library_trouble: None, function_names: None, engine: None, earlier_policy: None, ..facts.clone() };
    assert_eq!(published(&lost, &ready).function_names, ready.function_names);
    let gone = refused(UseKind::FunctionLibrary, 3, "NotAllowed", "no leave", None, &ready, Timestamp::UNIX_EPOCH);
    assert!(gone.function_names.is_empty() && gone.functions.is_none());
    assert!(condition(&gone, "Degraded").unwrap().2.contains("its functions are removed"));
}
