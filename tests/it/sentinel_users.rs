//! The users' rules, proven on real Sentinels: they find each other and fail over with them, and an application may only ask.

use std::time::Duration;

use futures::StreamExt as _;
use redis::cmd;
use redoubt::model::Address;
use redoubt::model::observed::{ObservedServer, SentinelServer};
use redoubt::redis::probe::probe_sentinel;
use redoubt::redis::user_forms::UserForms;
use redoubt::redis::users::{self, acl_file, sentinel_users};
use redoubt::redis::{Class, Connection, sentinel};

use crate::redis_users::{connect, data_node, digests, password};
use crate::support::engine_process::{Engine, PORT, Process, engines};
use crate::support::eventually;

const MASTER: &str = "web-1234";
const SOON: Duration = Duration::from_secs(30);

/// A Sentinel as an agent would configure it.
async fn sentinel_node(engine: &Engine, primary: &Process) -> Process {
    let monitored = primary.address.clone();
    Process::start(engine, true, |address| {
        let mut lines = vec![
            format!("sentinel monitor {MASTER} {monitored} {PORT} 2"),
            format!("sentinel down-after-milliseconds {MASTER} 1000"),
            format!("sentinel failover-timeout {MASTER} 10000"),
            format!("sentinel auth-user {MASTER} {}", users::SENTINEL),
            format!("sentinel auth-pass {MASTER} {}", password(users::SENTINEL)),
            format!("sentinel sentinel-user {}", users::SENTINEL),
            format!("sentinel sentinel-pass {}", password(users::SENTINEL)),
            format!("sentinel announce-ip {address}"),
            format!("sentinel announce-port {PORT}"),
        ];
        lines.extend(acl_file(&sentinel_users(&digests())).lines().map(str::to_owned));
        lines
    })
    .await
}

async fn look_at_sentinel(connection: &Connection, forms: &UserForms) -> SentinelServer {
    let probed = probe_sentinel(connection, MASTER, &sentinel_users(&digests()), forms).await;
    assert!(probed.faults.is_empty(), "{:?}", probed.faults);
    match probed.server {
        ObservedServer::Sentinel(server) => *server,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn sentinels_with_these_users_find_each_other_fail_over_and_say_so() {
    for engine in engines() {
        let mut first = data_node(&engine).await;
        let second = data_node(&engine).await;
        second.follow(&connect(&second, users::AGENT).await, &first).await;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(sentinel_node(&engine, &first).await);
        }
        let forms = UserForms::default();
        let operators = [connect(&sentinels[0], users::OPERATOR).await, connect(&sentinels[1], users::OPERATOR).await];
        eventually("the Sentinels know all", SOON, async || {
            let master = look_at_sentinel(&operators[0], &forms).await.master.unwrap();
            master.other_sentinels.len() == 2 && master.replicas.len() == 1
        })
        .await;
        eventually("the second Sentinel knows all", SOON, async || {
            let master = look_at_sentinel(&operators[1], &forms).await.master.unwrap();
            master.other_sentinels.len() == 2 && master.replicas.len() == 1
        })
        .await;
        let seen = look_at_sentinel(&operators[0], &forms).await;
        assert_eq!(
            seen.users_in_place.iter().collect::<Vec<_>>(),
            [users::APPLICATION, users::DEFAULT, users::AGENT, users::OPERATOR, users::SENTINEL],
            "{}",
            engine.name
        );
        assert!(!seen.tilt);
        let master = seen.master.unwrap();
        assert_eq!(
            (master.quorum, master.detection, master.failover_timeout),
            (2, Duration::from_secs(1), Duration::from_secs(10))
        );
        assert!(sentinel::master(&operators[0], "no-such-name").await.unwrap().is_none());

        let mut events = Box::pin(
            sentinel::primary_moves(&sentinels[0].endpoint(users::OPERATOR, &password(users::OPERATOR))).await.unwrap(),
        );
        first.kill();
        let moved = tokio::time::timeout(SOON, events.next()).await.unwrap().unwrap();
        assert_eq!((moved.master_name.as_str(), &moved.address), (MASTER, &Address(second.address.clone())));

        may_only_ask(&sentinels[0], &second).await;
        assert_eq!(stock_client_finds(&sentinels).await, second.address);
        let application = connect(&second, users::APPLICATION).await;
        application.query::<()>(cmd("SET").arg("key").arg(1)).await.unwrap();
        // The agent of a Sentinel that lost its file.
        let agent = connect(&sentinels[2], users::AGENT).await;
        sentinel::set(&agent, MASTER, "quorum", "3").await.unwrap();
        eventually("all Sentinels agree", SOON, async || {
            let seen = sentinel::primary_address(&agent, MASTER).await.unwrap();
            seen.is_some_and(|(address, epoch)| address.0 == second.address && epoch > 0)
        })
        .await;
    }
}

/// The application on a Sentinel: where the primary is, and nothing else.
async fn may_only_ask(sentinel: &Process, primary: &Process) {
    let application = connect(sentinel, users::APPLICATION).await;
    let question = cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(MASTER).clone();
    let address: (String, u16) = application.query(&question).await.unwrap();
    assert_eq!(address, (primary.address.clone(), PORT));
    for words in ["SENTINEL MASTERS", "SENTINEL REPLICAS web-1234", "PING", "CLIENT SETNAME web", "HELLO 3", "ROLE"] {
        let mut command = redis::Cmd::new();
        command.arg(words.split(' ').collect::<Vec<_>>());
        application.query::<redis::Value>(&command).await.unwrap();
    }
    for words in [
        "SENTINEL FAILOVER web-1234",
        "SENTINEL SET web-1234 quorum 1",
        "SENTINEL REMOVE web-1234",
        "SENTINEL RESET *",
        "SENTINEL MONITOR x 127.0.0.1 1 1",
        "SENTINEL CONFIG GET *",
        "ACL LIST",
        "SHUTDOWN",
        "CLIENT KILL TYPE normal",
        "SENTINEL FLUSHCONFIG",
        "CLIENT PAUSE 1",
        "PUBLISH __sentinel__:hello x",
    ] {
        let mut command = redis::Cmd::new();
        command.arg(words.split(' ').collect::<Vec<_>>());
        let error = application.query::<redis::Value>(&command).await.unwrap_err();
        assert_eq!(error.class(), Class::Denied, "{words}: {error:?}");
    }
}

/// Whom a stock client of an application takes for the primary.
async fn stock_client_finds(sentinels: &[Process]) -> String {
    use redis::sentinel::{Sentinel, SentinelNodeConnectionInfo};
    let login = redis::RedisConnectionInfo::default()
        .set_username(users::APPLICATION)
        .set_password(password(users::APPLICATION));
    let seeds: Vec<redis::ConnectionInfo> = sentinels
        .iter()
        .map(|sentinel| {
            let address = redis::ConnectionAddr::Tcp(sentinel.address.clone(), PORT);
            redis::IntoConnectionInfo::into_connection_info(address).unwrap().set_redis_settings(login.clone())
        })
        .collect();
    let mut client = Sentinel::build(seeds).unwrap();
    let node = SentinelNodeConnectionInfo::default().set_redis_connection_info(login);
    let found = client.async_master_for(MASTER, Some(&node)).await.unwrap();
    match found.get_connection_info().addr() {
        redis::ConnectionAddr::Tcp(address, _) => address.clone(),
        other => panic!("{other}"),
    }
}
