//! Typed commands, probes and function libraries against real servers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use redis::{Value, cmd};
use redoubt::dataplane::{Library, built_in_libraries, load};
use redoubt::model::observed::{DataServer, ObservedServer, Replication};
use redoubt::model::{Address, Offset};
use redoubt::redis::probe::{DataProbe, ProbeResult, probe_data};
use redoubt::redis::server::{RoleReply, ShutdownData};
use redoubt::redis::user_forms::UserForms;
use redoubt::redis::{Class, Connection, server};

use crate::support::engine_process::{PORT, Process, engines};
use crate::support::eventually;

const SOON: Duration = Duration::from_secs(20);

fn data(probed: ProbeResult) -> DataServer {
    match probed.server {
        ObservedServer::Data(server) => *server,
        other => panic!("{other:?}: {:?}", probed.faults),
    }
}

async fn look(connection: &Connection) -> DataServer {
    let libraries = built_in_libraries().into_iter().map(|library| library.name).collect();
    let probe = DataProbe { libraries, ..DataProbe::default() };
    data(probe_data(connection, &probe, &UserForms::default()).await)
}

/// What `PING` says of the process. `Ok(None)`: it serves. `Ok(Some(class))`: it answered with an error, so it is alive. `Err`: silence.
pub async fn answer_to_ping(connection: &Connection) -> redoubt::redis::Result<Option<Class>> {
    match connection.query::<Value>(&cmd("PING")).await {
        Ok(_) => Ok(None),
        Err(error) if error.class().is_alive() => Ok(Some(error.class())),
        Err(error) => Err(error),
    }
}

fn library() -> Library {
    built_in_libraries().remove(0)
}

fn changes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn a_wrong_password_is_denied_and_the_error_does_not_hold_it() {
    for engine in engines() {
        let process = Process::server(&engine, &["user web on >right ~* +@all"]).await;
        let error = Connection::open(&process.endpoint("web", "wrong-secret")).await.unwrap_err();
        assert_eq!(error.class(), Class::Denied, "{}", engine.name);
        assert!(!format!("{error:?}").contains("wrong-secret"));
    }
}

#[tokio::test]
async fn settings_are_set_together_and_a_refused_one_is_named() {
    for engine in engines() {
        let process = Process::server(&engine, &[]).await;
        let connection = process.connect().await;
        let good = changes(&[("maxmemory", "100000000"), ("maxmemory-policy", "noeviction")]);
        assert_eq!(server::config_set_all(&connection, &good).await.unwrap(), []);

        let mixed = changes(&[("maxmemory", "200000000"), ("no-such-directive", "1"), ("timeout", "7")]);
        let refused = server::config_set_all(&connection, &mixed).await.unwrap();
        assert_eq!(refused.iter().map(|refused| refused.name.as_str()).collect::<Vec<_>>(), ["no-such-directive"]);
        let settings = server::config_get(&connection, &["maxmemory", "timeout", "no-such-directive"]).await.unwrap();
        assert_eq!(settings, changes(&[("maxmemory", "200000000"), ("timeout", "7")]));

        let alone = server::config_set_all(&connection, &changes(&[("maxmemory", "a lot")])).await.unwrap();
        assert_eq!(alone.len(), 1);
        assert_eq!(server::config_set_all(&connection, &BTreeMap::new()).await.unwrap(), []);
    }
}

#[tokio::test]
async fn a_server_that_is_busy_or_cannot_persist_is_alive() {
    for engine in engines() {
        let process = Process::server(&engine, &["busy-reply-threshold 50", "enable-protected-configs yes"]).await;
        let connection = process.connect().await;
        assert_eq!(answer_to_ping(&connection).await.unwrap(), None);

        let script = process.connect().await.with_response_timeout(Duration::from_mins(1));
        let running =
            tokio::spawn(
                async move { script.query::<()>(cmd("EVAL").arg("while true do end").arg(0)).await.unwrap_err() },
            );
        eventually("BUSY", SOON, async || {
            answer_to_ping(&connection).await.is_ok_and(|alive| alive == Some(Class::Busy))
        })
        .await;
        assert_eq!(load(&connection, &library()).await.unwrap_err().class(), Class::Busy);
        let probed = probe_data(&connection, &DataProbe::default(), &UserForms::default()).await;
        assert_eq!(probed.server, ObservedServer::Unknown);
        connection.query::<()>(cmd("SCRIPT").arg("KILL")).await.unwrap();
        running.await.unwrap();

        let gone = process.folder.join("gone");
        std::fs::create_dir(&gone).unwrap();
        let snapshots = changes(&[("dir", &gone.display().to_string()), ("save", "3600 1")]);
        assert_eq!(server::config_set_all(&connection, &snapshots).await.unwrap(), []);
        std::fs::remove_dir(&gone).unwrap();
        connection.query::<()>(cmd("BGSAVE").arg("SCHEDULE")).await.unwrap();
        eventually("MISCONF", SOON, async || {
            answer_to_ping(&connection).await.is_ok_and(|alive| alive == Some(Class::CannotPersist))
        })
        .await;
        assert_eq!(look(&connection).await.persistence_trouble.as_deref(), Some("rdb"));
    }
}

#[tokio::test]
async fn a_server_that_reads_its_dataset_is_loading_and_not_unknown() {
    for engine in engines() {
        // Slow enough to be seen: 20 ms a key; and the server looks up from its reading every kilobyte.
        let slow = ["rdbcompression no", "key-load-delay 20000", "loading-process-events-interval-bytes 1024"];
        let mut process = Process::server(&engine, &slow).await;
        let connection = process.connect().await;
        for number in 0..300 {
            connection.query::<()>(cmd("SETRANGE").arg(number).arg(1024).arg("x")).await.unwrap();
        }
        server::shutdown(&connection, ShutdownData::Save, true, SOON).await.unwrap();
        process.wait();
        process.run();
        process.wait_until_it_answers().await;
        let connection = process.connect().await;
        assert_eq!(answer_to_ping(&connection).await.unwrap(), Some(Class::Loading));
        let probed = probe_data(&connection, &DataProbe::default(), &UserForms::default()).await;
        assert_eq!((probed.server, probed.faults.len()), (ObservedServer::Loading, 0));
    }
}

#[tokio::test]
async fn a_shutdown_is_over_when_the_server_is_gone_and_a_refused_one_is_an_error() {
    for engine in engines() {
        let mut process = Process::server(&engine, &["enable-protected-configs yes"]).await;
        let connection = process.connect().await;
        let missing = changes(&[("dir", &process.folder.join("missing").display().to_string())]);
        std::fs::create_dir(process.folder.join("missing")).unwrap();
        assert_eq!(server::config_set_all(&connection, &missing).await.unwrap(), []);
        std::fs::remove_dir(process.folder.join("missing")).unwrap();
        let refused = server::shutdown(&connection, ShutdownData::Save, true, SOON).await.unwrap_err();
        assert_eq!(refused.class(), Class::Other);

        server::shutdown(&connection, ShutdownData::NoSave, true, SOON).await.unwrap();
        process.wait();
        assert_eq!(answer_to_ping(&connection).await.unwrap_err().class(), Class::Unreachable);
    }
}

#[tokio::test]
async fn replicas_are_seen_at_their_announced_addresses_with_their_offsets() {
    for engine in engines() {
        let (first, second) = (Process::server(&engine, &[]).await, Process::server(&engine, &[]).await);
        let (primary, replica) = (first.connect().await, second.connect().await);
        second.follow(&replica, &first).await;
        primary.query::<()>(cmd("SET").arg("key").arg("value").arg("EX").arg(100)).await.unwrap();
        assert_eq!(server::wait(&primary, 1, SOON).await.unwrap(), 1);

        let seen = look(&primary).await;
        let Replication::Primary { replicas } = &seen.replication else { panic!("{seen:?}") };
        assert_eq!(replicas.keys().collect::<Vec<_>>(), [&Address(second.address.clone())]);
        assert!(replicas.values().all(|offset| *offset > Offset(0) && *offset <= seen.offset));
        assert!(seen.version.starts_with("redis ") || seen.version.starts_with("valkey "), "{}", seen.version);

        let followed = look(&replica).await;
        let follows = Replication::Replica {
            primary: Address(first.address.clone()),
            link_up: true,
            syncing: false,
            priority: 100,
            link_down_seconds: None,
        };
        assert_eq!(followed.replication, follows);
        let role = server::role(&replica).await.unwrap();
        assert!(matches!(role, RoleReply::Replica { port: PORT, .. }), "{role:?}");
        assert_eq!(replica.query::<()>(cmd("SET").arg("key").arg(1)).await.unwrap_err().class(), Class::ReadOnly);
        server::replica_of_no_one(&replica).await.unwrap();
        assert!(matches!(server::role(&replica).await.unwrap(), RoleReply::Primary { .. }));
    }
}

#[tokio::test]
async fn a_probe_reads_settings_back_and_leaves_out_unknown_ones() {
    for engine in engines() {
        let process = Process::server(&engine, &["maxmemory 100mb"]).await;
        let settings: BTreeSet<String> = ["maxmemory", "no-such-directive"].map(str::to_owned).into();
        let probe = DataProbe { settings, ..DataProbe::default() };
        let probed = probe_data(&process.connect().await, &probe, &UserForms::default()).await;
        assert!(probed.faults.is_empty());
        let server = data(probed);
        assert_eq!(server.settings, changes(&[("maxmemory", "104857600")]));
        assert_eq!(server.maxmemory, 104_857_600);
        // Without users of ours the default user is on, which is somebody whom nobody declared.
        assert_eq!(server.users_foreign, BTreeSet::from(["default".to_owned()]));
    }
}

#[tokio::test]
async fn a_library_is_loaded_seen_by_digest_and_survives_a_flush_but_not_an_empty_restart() {
    for engine in engines() {
        let mut process = Process::server(&engine, &[]).await;
        let connection = process.connect().await;
        assert_eq!(look(&connection).await.libraries, BTreeMap::new());
        load(&connection, &library()).await.unwrap();
        load(&connection, &library()).await.unwrap();
        let loaded = BTreeMap::from([(library().name, library().digest)]);
        assert_eq!(look(&connection).await.libraries, loaded);
        connection.query::<()>(&cmd("FLUSHALL")).await.unwrap();
        assert_eq!(look(&connection).await.libraries, loaded);

        let foreign = "#!lua name=redoubt\nredis.register_function('other', function() return 1 end)";
        connection.query::<()>(cmd("FUNCTION").arg("LOAD").arg("REPLACE").arg(foreign)).await.unwrap();
        let silent = BTreeMap::from([(library().name, String::new())]);
        assert_eq!(look(&connection).await.libraries, silent);

        process.kill();
        process.run();
        process.wait_until_it_answers().await;
        assert_eq!(look(&process.connect().await).await.libraries, BTreeMap::new());
    }
}

#[tokio::test]
async fn a_library_reaches_the_replicas_and_answers_there() {
    for engine in engines() {
        let (first, second) = (Process::server(&engine, &[]).await, Process::server(&engine, &[]).await);
        let (primary, replica) = (first.connect().await, second.connect().await);
        second.follow(&replica, &first).await;
        load(&primary, &library()).await.unwrap();
        assert_eq!(server::wait(&primary, 1, SOON).await.unwrap(), 1);
        assert_eq!(look(&replica).await.libraries, BTreeMap::from([(library().name, library().digest)]));
        assert_eq!(load(&replica, &library()).await.unwrap_err().class(), Class::ReadOnly);
    }
}

#[tokio::test]
async fn full_memory_and_missing_replicas_refuse_a_load_by_name() {
    for engine in engines() {
        let process = Process::server(&engine, &["maxmemory-policy noeviction"]).await;
        let connection = process.connect().await;
        server::config_set(&connection, "min-replicas-to-write", "1").await.unwrap();
        assert_eq!(load(&connection, &library()).await.unwrap_err().class(), Class::TooFewReplicas);
        server::config_set(&connection, "min-replicas-to-write", "0").await.unwrap();
        server::config_set(&connection, "maxmemory", "1").await.unwrap();
        assert_eq!(load(&connection, &library()).await.unwrap_err().class(), Class::OutOfMemory);
        server::config_set(&connection, "maxmemory", "0").await.unwrap();
        load(&connection, &library()).await.unwrap();
        // A library that is there answers its digest even when the memory is full.
        server::config_set(&connection, "maxmemory", "1").await.unwrap();
        assert_eq!(look(&connection).await.libraries, BTreeMap::from([(library().name, library().digest)]));
    }
}
