//! The tables of directives, held against real servers: what they say is live, refused and canonical is what servers do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use redoubt::agent::{Environment, redis_conf};
use redoubt::model::directives::{canonical, is_start_only, known_names};
use redoubt::model::memory::MemoryPlan;
use redoubt::model::node_config::{NODE_CONFIG_FORMAT, NodeConfig};
use redoubt::model::settings::{SettingInputs, settings};
use redoubt::model::{Address, LayerIdentity, Mode, NodeId, Purpose, purpose};
use redoubt::redis::{Connection, Secret, server};

use crate::support::engine_process::{Process, engines};
use crate::support::eventually;

/// Values of every form, well spelled and badly; each directive is tried with those that its form takes.
const VALUES: &[&str] = &[
    "default",
    "nosave",
    "yes",
    "NO",
    "0",
    "1",
    "2",
    "-1",
    "-5",
    "7",
    "60",
    "64",
    "99",
    "100",
    "500",
    "1000",
    "10000",
    "2147483647",
    "16384",
    "20kb",
    "3MB",
    "64mb",
    "1gb",
    "2g",
    "100000000",
    "everysec",
    "Always",
    "debug",
    "verbose",
    "notice",
    "warning",
    "noeviction",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
    "ignore",
    "panic",
    "panic-on-replicas",
    "disabled",
    "on-empty-db",
    "swapdb",
    "clients",
    "",
    "A",
    "KEA",
    "AKEm",
    "Kxe",
    "Ex",
    "g$lshzxetdKE",
    "nK",
    "AnE",
    "mEKdtexzhsl$g",
    "50 99 99.9",
    "12.500000 0.1",
    "3600 1",
    "3600 1 300 100",
    "normal 1gb 10mb 5",
    "replica 512mb 128mb 60 pubsub 64mb 16mb 90",
    "slave 0 0 0",
];

/// Directives of later engines, which Redis 7.0 does not have.
const NOT_IN_7_0: &[&str] = &["hide-user-data-from-log", "set-max-listpack-entries", "set-max-listpack-value"];

/// Directives that Valkey 8.1 takes in its file for old times' sake and no longer has.
const NOT_IN_VALKEY: &[&str] = &["dynamic-hz", "io-threads-do-reads"];

async fn live_value(connection: &Connection, name: &str) -> Option<String> {
    server::config_get(connection, &[name]).await.unwrap().remove(name)
}

/// What this build cannot do at all (Debian's has no allocator that can be defragmented).
fn is_about_the_build(error: &str) -> bool {
    error.contains("Active defragmentation cannot be enabled")
}

#[tokio::test]
async fn every_live_directive_is_taken_and_reported_in_its_canonical_form() {
    for engine in engines() {
        let process = Process::server(&engine, &[]).await;
        let connection = process.connect().await;
        let mut tried = 0;
        for name in known_names().filter(|name| !is_start_only(name)) {
            if live_value(&connection, name).await.is_none() {
                continue;
            }
            for value in VALUES {
                let Ok(spelled) = canonical(name, value) else { continue };
                // As the planner writes it, then as the user wrote it (which leaves buffer limits that it does not name).
                for written in [spelled.as_str(), value] {
                    match server::config_set(&connection, name, written).await {
                        Ok(()) => {
                            assert_eq!(live_value(&connection, name).await, Some(spelled.clone()), "{name} {written}");
                        }
                        Err(error) => assert!(is_about_the_build(&format!("{error:?}")), "{name} {written}: {error:?}"),
                    }
                }
                tried += 1;
            }
        }
        assert!(tried > 500, "{}: {tried} values", engine.name);
    }
}

#[tokio::test]
async fn every_start_only_directive_is_refused_by_a_running_server() {
    for engine in engines() {
        let process = Process::server(&engine, &[]).await;
        let connection = process.connect().await;
        for name in known_names().filter(|name| is_start_only(name)) {
            let Some(live) = live_value(&connection, name).await else { continue };
            let refused = server::config_set(&connection, name, &live).await;
            assert!(refused.is_err(), "{}: {name} was taken", engine.name);
        }
    }
}

#[tokio::test]
async fn every_start_only_directive_is_taken_at_a_start_in_its_canonical_form() {
    for engine in engines() {
        let present = {
            let process = Process::server(&engine, &[]).await;
            let connection = process.connect().await;
            let mut present = BTreeSet::new();
            for name in known_names().filter(|name| is_start_only(name)) {
                if live_value(&connection, name).await.is_some() {
                    present.insert(name);
                }
            }
            present
        };
        for value in ["yes", "no", "2"] {
            let chosen: Vec<&str> = present.iter().copied().filter(|name| canonical(name, value).is_ok()).collect();
            let lines: Vec<String> = chosen.iter().map(|name| format!("{name} {value}")).collect();
            let process = Process::server(&engine, &lines.iter().map(String::as_str).collect::<Vec<_>>()).await;
            let connection = process.connect().await;
            assert!(!chosen.is_empty());
            for name in chosen {
                assert_eq!(live_value(&connection, name).await, Some(canonical(name, value).unwrap()), "{name}");
            }
        }
    }
}

#[tokio::test]
async fn the_tables_name_no_directive_that_no_server_has() {
    for engine in engines() {
        let process = Process::server(&engine, &[]).await;
        let connection = process.connect().await;
        let mut missing = Vec::new();
        for name in known_names() {
            if live_value(&connection, name).await.is_none() {
                missing.push(name);
            }
        }
        let is_explained = missing.iter().all(|name| NOT_IN_7_0.contains(name) || NOT_IN_VALKEY.contains(name));
        assert!(is_explained, "{}: {missing:?}", engine.name);
    }
}

#[tokio::test]
async fn the_settings_of_every_purpose_are_canonical_and_taken_by_a_running_server() {
    for engine in engines() {
        let process = Process::server(&engine, &[]).await;
        let connection = process.connect().await;
        for purpose in [Purpose::Sessions, Purpose::RateLimits, Purpose::Cache, Purpose::AgentContext, Purpose::Mixed] {
            let defaults = purpose::defaults(purpose);
            let settings = settings(&SettingInputs {
                defaults,
                memory: MemoryPlan::divide(&defaults.demand(256 << 20)).unwrap(),
                eviction_policy: defaults.eviction_policy,
                append_only: defaults.append_only,
                snapshots: defaults.append_only,
                min_replicas_to_write: defaults.min_replicas_to_write,
                max_replica_lag: 3,
            });
            for (name, value) in &settings {
                assert_eq!(canonical(name, value).as_ref(), Ok(value), "{name}");
                assert!(!is_start_only(name), "{name} would roll the nodes");
            }
            assert_eq!(server::config_set_all(&connection, &settings).await.unwrap(), []);
            let names: Vec<&str> = settings.keys().map(String::as_str).collect();
            assert_eq!(server::config_get(&connection, &names).await.unwrap(), settings, "{purpose:?}");
        }
    }
}

/// What the agent would write of these directives into `redis.conf`.
fn rendered(settings: &BTreeMap<String, String>) -> Vec<String> {
    let node = NodeId::data(0);
    let config = NodeConfig {
        format: NODE_CONFIG_FORMAT,
        layer: LayerIdentity { uid: "uid".to_owned(), namespace: "shop".to_owned(), name: "web".to_owned() },
        node,
        mode: Mode::Standalone,
        initialised: false,
        keeps_data: false,
        accept_loss: None,
        drop_aside: BTreeSet::new(),
        caches: BTreeMap::new(),
        functions: BTreeSet::new(),
        data_nodes: BTreeMap::from([(0, Address("127.0.0.1".to_owned()))]),
        sentinels: BTreeMap::new(),
        master_name: "web".to_owned(),
        quorum: 0,
        detection_milliseconds: 5_000,
        failover_timeout_milliseconds: 15_000,
        grace_period_seconds: 35,
        cluster: None,
        settings: settings.clone(),
    };
    let nowhere = PathBuf::from("/nowhere");
    let environment = Environment {
        data: nowhere.clone(),
        config: nowhere.clone(),
        secrets: nowhere.clone(),
        run: nowhere,
        bind: None,
    };
    let text = redis_conf::render(&environment, &config, &config.data_nodes[&0], &Secret::new("x"), None, true, false);
    let is_setting = |line: &&str| line.split(' ').next().is_some_and(|name| settings.contains_key(name));
    text.lines().filter(is_setting).map(str::to_owned).collect()
}

#[tokio::test]
async fn what_the_agent_writes_starts_a_server_that_reports_it() {
    // What depends on the machine: an allocator that defragments, and a limit of open files.
    let of_the_machine = ["activedefrag", "maxclients"];
    for engine in engines() {
        let present: BTreeMap<String, String> = {
            let connection = Process::server(&engine, &[]).await;
            let names: Vec<&str> = known_names().filter(|name| !of_the_machine.contains(name)).collect();
            server::config_get(&connection.connect().await, &names).await.unwrap()
        };
        for round in 0..12 {
            let pick = |name: &String| {
                let mut values: Vec<String> = VALUES.iter().filter_map(|value| canonical(name, value).ok()).collect();
                values.dedup();
                // More threads than processors prove nothing more.
                values.retain(|value| name != "io-threads" || value.len() == 1);
                // From both ends: the first values are numbers, the last ones several words.
                let index = round / 2 % values.len();
                values.get(if round % 2 == 0 { index } else { values.len() - 1 - index }).cloned()
            };
            let settings: BTreeMap<String, String> =
                present.keys().filter_map(|name| Some((name.clone(), pick(name)?))).collect();
            let lines = rendered(&settings);
            assert_eq!(lines.len(), settings.len());
            let process = Process::server(&engine, &lines.iter().map(String::as_str).collect::<Vec<_>>()).await;
            let connection = connected(&process).await;
            let names: Vec<&str> = settings.keys().map(String::as_str).collect();
            assert_eq!(server::config_get(&connection, &names).await.unwrap(), settings, "{}", engine.name);
        }
    }
}

/// A connection to a server whose `tcp-backlog` may have room for one: what the kernel drops meanwhile it is sent again a second later.
async fn connected(process: &Process) -> Connection {
    let mut connection = None;
    eventually("the server takes a connection", Duration::from_secs(30), async || {
        connection = Connection::open(&process.endpoint("default", "")).await.ok();
        connection.is_some()
    })
    .await;
    connection.unwrap()
}

/// Debian's Redis is built with an allocator that cannot defragment, and such a server does not start with it in its file.
#[tokio::test]
async fn a_directive_that_a_build_may_refuse_is_in_no_file_and_a_refusal_is_answered() {
    let settings = BTreeMap::from([("activedefrag".to_owned(), "yes".to_owned())]);
    assert_eq!(rendered(&settings), Vec::<String>::new());
    let mut refused = 0;
    for engine in engines() {
        let process = Process::server(&engine, &[]).await;
        refused += server::config_set_all(&process.connect().await, &settings).await.unwrap().len();
    }
    assert!(refused > 0, "none of these builds refuses it: nothing was shown");
}
