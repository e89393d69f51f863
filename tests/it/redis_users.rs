//! The users' rules, proven on real servers: what each may do and not do, and that replication and Sentinel work with them.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use redis::cmd;
use redoubt::dataplane::sessions::session_library;
use redoubt::dataplane::{built_in_libraries, load};
use redoubt::model::Address;
use redoubt::model::observed::{DataServer, ObservedServer, SentinelServer};
use redoubt::model::session_policy::{OnExceed, SessionPolicy};
use redoubt::redis::probe::{DataProbe, Probed, probe_data, probe_sentinel};
use redoubt::redis::store_access::{connections_of, violations};
use redoubt::redis::user_forms::UserForms;
use redoubt::redis::users::{self, PasswordDigests, acl_file, data_users, sentinel_users, session_store_on_data};
use redoubt::redis::{Class, Connection, sentinel, server};
use sha2::{Digest as _, Sha256};

use crate::support::engine_process::{Engine, PORT, Process, engines};
use crate::support::eventually;

const MASTER: &str = "web-1234";
const SOON: Duration = Duration::from_secs(30);

fn password(user: &str) -> String {
    format!("password-of-{user}")
}

fn digests() -> PasswordDigests {
    let digest =
        |user: &str| Sha256::digest(password(user)).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    PasswordDigests {
        operator: digest(users::OPERATOR),
        agent: digest(users::AGENT),
        replication: digest(users::REPLICATION),
        sentinel: digest(users::SENTINEL),
        application: Some(digest(users::APPLICATION)),
    }
}

/// A data node as an agent would configure it.
async fn data_node(engine: &Engine) -> Process {
    Process::start(engine, false, |_| {
        let mut lines: Vec<String> = acl_file(&data_users(&digests())).lines().map(str::to_owned).collect();
        lines.push(format!("masteruser {}", users::REPLICATION));
        lines.push(format!("masterauth {}", password(users::REPLICATION)));
        lines
    })
    .await
}

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

async fn connect(process: &Process, user: &str) -> Connection {
    Connection::open(&process.endpoint(user, &password(user))).await.unwrap()
}

fn data(probed: Probed) -> DataServer {
    assert!(probed.faults.is_empty(), "{:?}", probed.faults);
    match probed.server {
        ObservedServer::Data(server) => *server,
        other => panic!("{other:?}"),
    }
}

async fn look_at_sentinel(connection: &Connection, forms: &UserForms) -> SentinelServer {
    let probed = probe_sentinel(connection, MASTER, &sentinel_users(&digests()), forms).await;
    assert!(probed.faults.is_empty(), "{:?}", probed.faults);
    match probed.server {
        ObservedServer::Sentinel(server) => *server,
        other => panic!("{other:?}"),
    }
}

/// What a user may (`+`) and may not (`-`) do on a data node.
const ON_DATA: [(&str, &[&str]); 5] = [
    (
        users::OPERATOR,
        &[
            "+INFO everything",
            "+PING",
            "+ROLE",
            "+CONFIG GET maxmemory",
            "+CONFIG SET maxmemory 0",
            "+ACL LIST",
            "+ACL SETUSER x",
            "+ACL DELUSER x",
            "+FUNCTION LOAD x",
            "+FUNCTION LIST",
            "+FCALL_RO redoubt_digest 0",
            "+REPLICAOF 10.0.0.1 6379",
            "+CLIENT KILL USER x",
            "+CLIENT PAUSE 1 WRITE",
            "-GET key",
            "-SET key value",
            "-FLUSHALL",
            "-KEYS *",
            "-SHUTDOWN",
            "-DEBUG SLEEP 0",
            "-FCALL f 0",
            "-MODULE LOAD x",
            "-MONITOR",
        ],
    ),
    (
        users::AGENT,
        &[
            "+INFO",
            "+PING",
            "+ROLE",
            "+CONFIG SET maxmemory 0",
            "+REPLICAOF NO ONE",
            "+SHUTDOWN",
            "+CLIENT UNPAUSE",
            "+CLIENT KILL TYPE normal",
            "-ACL LIST",
            "-ACL SETUSER x",
            "-GET key",
            "-SET key value",
            "-FLUSHALL",
            "-FUNCTION LOAD x",
            "-DEBUG SLEEP 0",
        ],
    ),
    (
        users::REPLICATION,
        &[
            "+PSYNC ? -1",
            "+REPLCONF ack 1",
            "+PING",
            "-GET key",
            "-SET key value",
            "-INFO",
            "-CONFIG GET x",
            "-ACL LIST",
        ],
    ),
    (
        users::SENTINEL,
        &[
            "+MULTI",
            "+EXEC",
            "+SLAVEOF NO ONE",
            "+CONFIG REWRITE",
            "+CLIENT KILL TYPE normal",
            "+PUBLISH c m",
            "+SUBSCRIBE c",
            "+INFO",
            "+PING",
            "+ROLE",
            "-CONFIG SET maxmemory 0",
            "-GET key",
            "-SET key value",
            "-SHUTDOWN",
        ],
    ),
    (
        users::APPLICATION,
        &[
            "+GET key",
            "+SET key value",
            "+FCALL f 0",
            "+EVAL x 0",
            "+PUBLISH c m",
            "+SUBSCRIBE c",
            "+INFO",
            "+ROLE",
            "+MULTI",
            "+SCAN 0",
            "+WAIT 1 0",
            "+CLIENT SETNAME x",
            "+FUNCTION LIST",
            "+XADD s * f v",
            "-FLUSHALL",
            "-FLUSHDB",
            "-KEYS *",
            "-CONFIG GET x",
            "-CONFIG SET maxmemory 0",
            "-ACL LIST",
            "-ACL SETUSER x",
            "-SHUTDOWN",
            "-DEBUG SLEEP 0",
            "-REPLICAOF NO ONE",
            "-FUNCTION LOAD x",
            "-FUNCTION FLUSH",
            "-FUNCTION DELETE redoubt",
            "-CLIENT KILL TYPE normal",
            "-CLIENT PAUSE 1",
            "-CLIENT NO-EVICT on",
            "-MONITOR",
            "-SAVE",
            "-BGSAVE",
            "-SWAPDB 0 1",
            "-PSYNC ? -1",
            "-MODULE LIST",
            "-CLUSTER RESET",
            "-SLOWLOG RESET",
            "-LATENCY RESET",
        ],
    ),
];

#[tokio::test]
async fn each_user_may_do_what_it_needs_and_no_more() {
    for engine in engines() {
        let node = data_node(&engine).await;
        let operator = connect(&node, users::OPERATOR).await;
        for (user, expectations) in ON_DATA {
            for expectation in expectations {
                let (wanted, words) = expectation.split_at(1);
                let mut question = cmd("ACL");
                question.arg("DRYRUN").arg(user).arg(words.split(' ').collect::<Vec<_>>());
                let answer: String = operator.query(&question).await.unwrap();
                assert_eq!(answer == "OK", wanted == "+", "{}: {user}: {words}: {answer}", engine.name);
            }
        }
    }
}

#[tokio::test]
async fn users_are_recognised_as_the_server_writes_them_and_every_change_is_seen() {
    for engine in engines() {
        let node = data_node(&engine).await;
        let operator = connect(&node, users::OPERATOR).await;
        let forms = UserForms::default();
        let probe = DataProbe { users: data_users(&digests()), ..DataProbe::default() };
        let all: Vec<&String> = probe.users.keys().collect();

        let server = data(probe_data(&operator, &probe, &forms).await);
        assert_eq!(server.users_in_place.iter().collect::<Vec<_>>(), all, "{}", engine.name);
        assert!(server.users_foreign.is_empty(), "{:?}", server.users_foreign);
        assert_eq!(server::acl_list(&operator).await.unwrap().len(), all.len(), "the scratch user stayed");

        for change in ["+get", "-ping", "off", "nopass", "allkeys", "allchannels", ">another", "(~x +get)"] {
            server::acl_set_user(&operator, users::AGENT, &[change.to_owned()]).await.unwrap();
            let server = data(probe_data(&operator, &probe, &forms).await);
            assert!(!server.users_in_place.contains(users::AGENT), "{}: {change} was not seen", engine.name);
            assert_eq!(server.users_in_place.len(), all.len() - 1);
            server::acl_set_user(&operator, users::AGENT, &probe.users[users::AGENT].rules).await.unwrap();
            let server = data(probe_data(&operator, &probe, &forms).await);
            assert_eq!(server.users_in_place.iter().collect::<Vec<_>>(), all, "{}: mended after {change}", engine.name);
        }

        server::acl_set_user(&operator, "stranger", &["on".to_owned()]).await.unwrap();
        let server = data(probe_data(&operator, &probe, &forms).await);
        assert_eq!(server.users_foreign.iter().collect::<Vec<_>>(), ["stranger"]);
        assert!(server::acl_delete_user(&operator, "stranger").await.unwrap());
        assert!(!server::acl_delete_user(&operator, "stranger").await.unwrap());
    }
}

/// Redis 7.0 writes a user's rules in the order of a hash table, which another process has in another order.
#[tokio::test]
async fn a_user_whose_remembered_form_is_out_of_date_is_recognised_all_the_same() {
    for engine in engines() {
        let forms = UserForms::default();
        let name = "ss.shop.web".to_owned();
        let desired = BTreeMap::from([(name.clone(), session_store_on_data(&"a".repeat(64), "web:"))]);
        for _ in 0..3 {
            let node = data_node(&engine).await;
            let operator = connect(&node, users::OPERATOR).await;
            server::acl_set_user(&operator, &name, &desired[&name].rules).await.unwrap();
            let lines = server::acl_list(&operator).await.unwrap();
            // As if all were one process.
            let (report, faults) = forms.compare(&operator, "one process", &lines, &desired).await;
            assert!(faults.is_empty(), "{faults:?}");
            assert!(report.in_place.contains(&name), "{}", engine.name);
        }
    }
}

#[tokio::test]
async fn a_rule_that_the_engine_does_not_know_is_a_fault_and_no_secret_is_in_it() {
    for engine in engines() {
        let node = data_node(&engine).await;
        let operator = connect(&node, users::OPERATOR).await;
        let mut probe = DataProbe { users: data_users(&digests()), ..DataProbe::default() };
        probe.users.get_mut(users::AGENT).unwrap().rules.push("+no-such-command".to_owned());
        let probed = probe_data(&operator, &probe, &UserForms::default()).await;
        let [fault] = probed.faults.as_slice() else { panic!("{:?}", probed.faults) };
        assert!(format!("{fault:?}").contains("no-such-command"), "{fault:?}");
        assert!(!format!("{fault:?}").contains(&digests().agent));
    }
}

#[tokio::test]
async fn rotation_keeps_two_passwords_and_drops_the_old_ones_connections() {
    for engine in engines() {
        let node = data_node(&engine).await;
        let operator = connect(&node, users::OPERATOR).await;
        let application = connect(&node, users::APPLICATION).await;
        server::acl_set_user(&operator, users::APPLICATION, &[">new".to_owned()]).await.unwrap();
        let renewed = Connection::open(&node.endpoint(users::APPLICATION, "new")).await.unwrap();
        renewed.query::<()>(cmd("SET").arg("key").arg(1)).await.unwrap();
        application.query::<()>(cmd("SET").arg("key").arg(2)).await.unwrap();
        assert_eq!(server::cut_user(&operator, users::APPLICATION).await.unwrap(), 2);
        assert_eq!(application.query::<()>(cmd("GET").arg("key")).await.unwrap_err().class(), Class::Unreachable);
        server::liveness(&operator).await.unwrap();
    }
}

#[tokio::test]
async fn replication_loading_and_pausing_work_with_these_users() {
    for engine in engines() {
        let (first, second) = (data_node(&engine).await, data_node(&engine).await);
        let (primary, replica) = (connect(&first, users::OPERATOR).await, connect(&second, users::AGENT).await);
        second.follow(&replica, &first).await;
        for library in built_in_libraries() {
            load(&primary, &library).await.unwrap();
        }
        let application = connect(&first, users::APPLICATION).await;
        application.query::<()>(cmd("SET").arg("key").arg(1)).await.unwrap();
        let agent = connect(&first, users::AGENT).await;
        server::pause_writes(&agent, 60_000).await.unwrap();
        let impatient = application.with_response_timeout(Duration::from_millis(200));
        assert_eq!(impatient.query::<()>(cmd("SET").arg("key").arg(2)).await.unwrap_err().class(), Class::Unreachable);
        server::unpause(&agent).await.unwrap();
        application.query::<()>(cmd("SET").arg("key").arg(3)).await.unwrap();
        assert!(server::cut_clients(&agent).await.unwrap() >= 2);
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
        let ckquorum = redis::cmd("SENTINEL").arg("CKQUORUM").arg(MASTER).clone();
        eventually("a quorum", SOON, async || operators[0].query::<String>(&ckquorum).await.is_ok()).await;
        let seen = look_at_sentinel(&operators[0], &forms).await;
        assert_eq!(
            seen.users_in_place.iter().collect::<Vec<_>>(),
            [users::APPLICATION, users::DEFAULT, users::AGENT, users::OPERATOR, users::SENTINEL],
            "{}",
            engine.name
        );
        assert_eq!((seen.my_id.len(), seen.tilt, seen.foreign_masters.len()), (40, false, 0));
        let master = seen.master.unwrap();
        assert_eq!(
            (master.quorum, master.detection_milliseconds, master.failover_timeout_milliseconds),
            (2, 1_000, 10_000)
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

/// A data node with two stores of one layer, and the session functions.
async fn tenants(engine: &Engine) -> Process {
    let node = data_node(engine).await;
    let operator = connect(&node, users::OPERATOR).await;
    for store in ["web", "api"] {
        let name = users::store_user_name("shop", store, 0);
        let digest = Sha256::digest(password(&name)).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        let rules = users::session_store_on_data(&digest, &format!("{store}:")).rules;
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
        let user = users::store_user_name("shop", "web", 0);
        let found = violations(&operator, &user, "web:").await.unwrap();
        assert!(found.is_empty(), "{}: {found:?}", engine.name);
        server::acl_set_user(&operator, &user, &["+scan".to_owned(), "~*".to_owned(), "-hgetall".to_owned()])
            .await
            .unwrap();
        let found = violations(&operator, &user, "web:").await.unwrap();
        for breach in ["may SCAN 0", "may GET -nobodys:a", "may not HGETALL web:a"] {
            assert!(found.iter().any(|violation| violation == breach), "{}: {found:?}", engine.name);
        }
    }
}

#[tokio::test]
async fn functions_run_with_the_rights_of_a_stores_user_and_tenants_cannot_touch_each_other() {
    for engine in engines() {
        let node = tenants(&engine).await;
        let user = users::store_user_name("shop", "web", 0);
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
        let (web, api) = (users::store_user_name("shop", "web", 0), users::store_user_name("shop", "api", 0));
        let held = connect(&node, &web).await;
        assert_eq!(connections_of(&operator, &web).await.unwrap(), 1);
        assert_eq!(connections_of(&operator, &api).await.unwrap(), 0);
        assert!(server::acl_delete_user(&operator, &web).await.unwrap());
        assert_eq!(held.query::<()>(&cmd("PING")).await.unwrap_err().class(), Class::Unreachable);
        assert_eq!(connections_of(&operator, &web).await.unwrap(), 0);
    }
}
