//! The user of a session store, proven on real servers: its rights suffice for the functions, end at its prefix, and a breach of
//! them is seen.

use std::time::Duration;

use redis::cmd;
use redoubt::dataplane::load;
use redoubt::dataplane::sessions::session_library;
use redoubt::model::function_library::Functions;
use redoubt::model::memory::MemoryPlan;
use redoubt::model::session_policy::{OnExceed, SessionPolicy};
use redoubt::model::settings::{SettingInputs, settings};
use redoubt::model::{Purpose, UseKind, purpose};
use redoubt::redis::rights::Grant;
use redoubt::redis::use_access::{connections_of, violations};
use redoubt::redis::{Class, server, users};
use sha2::{Digest as _, Sha256};

use crate::redis_users::{connect, data_node, password};
use crate::support::engine_process::{Engine, Process, engines};
use crate::support::eventually;

static NO_FUNCTIONS: Functions = Functions::new();

const fn grant(prefix: &str) -> Grant<'_> {
    Grant::plain(UseKind::SessionStore, prefix, &NO_FUNCTIONS)
}

/// A data node with two stores of one layer, and the session functions.
async fn tenants(engine: &Engine) -> Process {
    let node = data_node(engine).await;
    let operator = connect(&node, users::OPERATOR).await;
    for store in ["web", "api"] {
        let name = users::use_user_name(UseKind::SessionStore, "shop", store, 0);
        let digest = hex::encode(Sha256::digest(password(&name)));
        let rules = users::use_on_data(grant(&format!("{store}:")), &digest).rules;
        server::acl_set_user(&operator, &name, &rules).await.unwrap();
    }
    let policies = ["web", "api"].map(|store| SessionPolicy {
        store: format!("shop/{store}"),
        generation: 1,
        prefix: format!("{store}:"),
        idle_timeout_milliseconds: 60_000,
        absolute_lifetime_milliseconds: 600_000,
        touch_interval_milliseconds: 0,
        max_per_user: Some(2),
        on_exceed: OnExceed::EvictOldest,
    });
    load(&operator, &session_library(&policies)).await.unwrap();
    node
}

#[tokio::test]
async fn a_stores_user_may_what_is_promised_and_no_more_and_a_breach_is_seen() {
    for engine in engines() {
        let node = tenants(&engine).await;
        let operator = connect(&node, users::OPERATOR).await;
        let user = users::use_user_name(UseKind::SessionStore, "shop", "web", 0);
        let found = violations(&operator, &user, grant("web:")).await.unwrap();
        assert!(found.is_empty(), "{}: {found:?}", engine.name);
        server::acl_set_user(&operator, &user, &["+scan".to_owned(), "~*".to_owned(), "-hgetall".to_owned()])
            .await
            .unwrap();
        let found = violations(&operator, &user, grant("web:")).await.unwrap();
        for breach in ["may SCAN 0", "may GET -nobodys:a", "may not HGETALL web:a"] {
            assert!(found.iter().any(|violation| violation == breach), "{}: {found:?}", engine.name);
        }
    }
}

#[tokio::test]
async fn functions_run_with_the_rights_of_a_stores_user_and_tenants_cannot_touch_each_other() {
    for engine in engines() {
        let node = tenants(&engine).await;
        let user = users::use_user_name(UseKind::SessionStore, "shop", "web", 0);
        let connection = connect(&node, &user).await;
        let call = async |words: &str| -> Result<redis::Value, redoubt::redis::Error> {
            let mut command = redis::Cmd::new();
            command.arg(words.split(' ').collect::<Vec<_>>());
            connection.query(&command).await
        };
        for words in [
            "FCALL redoubt_session_create 1 web:{t}s:1 ada name Ada",
            "FCALL redoubt_session_get 1 web:{t}s:1",
            "FCALL_RO redoubt_session_get_ro 1 web:{t}s:1",
            "FCALL redoubt_session_create 1 web:{t}s:2 ada",
            "FCALL redoubt_session_create 1 web:{t}s:3 ada",
            "FCALL redoubt_session_list 1 web:{t}u:ada",
            "FCALL redoubt_session_revoke 1 web:{t}s:3",
            "FCALL redoubt_session_revoke_all 1 web:{t}u:ada",
            "SET web:plain v EX 60",
        ] {
            call(words).await.unwrap_or_else(|error| panic!("{}: {words}: {error:?}", engine.name));
        }
        for words in [
            "FCALL redoubt_session_create 1 api:{t}s:1 ada",
            "FCALL redoubt_session_get 1 api:{t}s:1",
            "FCALL redoubt_session_revoke_all 1 api:{t}u:ada",
            "GET api:plain",
            "SET api:plain v",
            "SCAN 0",
            "KEYS *",
            "SUBSCRIBE api:news",
        ] {
            let error = call(words).await.expect_err(words);
            assert_eq!(error.class(), Class::Denied, "{}: {words}: {error:?}", engine.name);
        }
    }
}

#[tokio::test]
async fn whose_connection_is_whose_is_seen_and_a_user_that_goes_takes_its_connections_along() {
    for engine in engines() {
        let node = tenants(&engine).await;
        let operator = connect(&node, users::OPERATOR).await;
        let (web, api) = (
            users::use_user_name(UseKind::SessionStore, "shop", "web", 0),
            users::use_user_name(UseKind::SessionStore, "shop", "api", 0),
        );
        let held = connect(&node, &web).await;
        assert_eq!(connections_of(&operator, &web).await.unwrap(), 1);
        assert_eq!(connections_of(&operator, &api).await.unwrap(), 0);
        assert!(server::acl_delete_user(&operator, &web).await.unwrap());
        assert_eq!(held.query::<()>(&cmd("PING")).await.unwrap_err().class(), Class::Unreachable);
        assert_eq!(connections_of(&operator, &web).await.unwrap(), 0);
    }
}

/// What a layer of 256 MiB sets its servers to.
fn of_a_layer(directive: &str) -> Option<String> {
    let defaults = purpose::defaults(Purpose::Sessions);
    let memory = MemoryPlan::divide(&defaults.demand(256 << 20)).expect("256 MiB are enough");
    let eviction_policy = defaults.eviction_policy;
    let inputs = SettingInputs {
        defaults,
        memory,
        eviction_policy,
        append_only: true,
        snapshots: false,
        min_replicas_to_write: 1,
        max_replica_lag: 3,
    };
    settings(&inputs).remove(directive)
}

#[tokio::test]
async fn refused_commands_take_no_memory_that_stays() {
    const MOST: u64 = 20 << 20;
    for engine in engines() {
        let node = tenants(&engine).await;
        let operator = connect(&node, users::OPERATOR).await;
        let memory = async || server::info(&operator).await.unwrap().number("used_memory").unwrap();
        if let Some(value) = of_a_layer("acllog-max-len") {
            server::config_set(&operator, "acllog-max-len", &value).await.unwrap();
        }
        let before = memory().await;
        let user = users::use_user_name(UseKind::SessionStore, "shop", "web", 0);
        let connection = connect(&node, &user).await;
        let key = "k".repeat(3 << 20);
        for _ in 0..45 {
            let refused = connection.query::<()>(cmd("GET").arg(&key)).await.unwrap_err();
            assert_eq!(refused.class(), Class::Denied, "{}", engine.name);
        }
        drop(connection);
        eventually("the memory is free again", Duration::from_secs(10), async || memory().await < before + MOST).await;
    }
}
