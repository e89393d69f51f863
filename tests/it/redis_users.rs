//! The users' rules on real data nodes: that they are recognised, and that replication works with them. What each may do:
//! `rights.rs`; on Sentinels: `sentinel_users.rs`; the users of session stores: `store_users.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::cmd;
use redoubt::dataplane::{built_in_libraries, load};
use redoubt::model::UseKind;
use redoubt::model::function_library::Functions;
use redoubt::model::observed::{DataServer, ObservedServer};
use redoubt::redis::probe::{DataProbe, ProbeResult, probe_data};
use redoubt::redis::rights::Grant;
use redoubt::redis::user_forms::UserForms;
use redoubt::redis::users::{self, PasswordDigests, acl_file, data_users, use_on_data};
use redoubt::redis::{Class, Connection, server};
use sha2::{Digest as _, Sha256};

use crate::support::engine_process::{Engine, Process, engines};

/// The password of one of our users.
pub fn password(user: &str) -> String {
    format!("password-of-{user}")
}

/// Digests of all passwords.
pub fn digests() -> PasswordDigests {
    let digest = |user: &str| hex::encode(Sha256::digest(password(user)));
    PasswordDigests {
        operator: digest(users::OPERATOR),
        agent: digest(users::AGENT),
        replication: digest(users::REPLICATION),
        sentinel: digest(users::SENTINEL),
        application: Some(digest(users::APPLICATION)),
        administrator: None,
    }
}

/// A data node as an agent would configure it.
pub async fn data_node(engine: &Engine) -> Process {
    Process::start(engine, false, |_| {
        let mut lines: Vec<String> = acl_file(&data_users(&digests())).lines().map(str::to_owned).collect();
        lines.push(format!("masteruser {}", users::REPLICATION));
        lines.push(format!("masterauth {}", password(users::REPLICATION)));
        lines
    })
    .await
}

/// A connection to a server as one of our users.
pub async fn connect(process: &Process, user: &str) -> Connection {
    Connection::open(&process.endpoint(user, &password(user))).await.unwrap()
}

fn data(probed: ProbeResult) -> DataServer {
    assert!(probed.faults.is_empty(), "{:?}", probed.faults);
    match probed.server {
        ObservedServer::Data(server) => *server,
        other => panic!("{other:?}"),
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
        let desired = BTreeMap::from([(
            name.clone(),
            use_on_data(Grant::plain(UseKind::SessionStore, "web:", &Functions::new()), &"a".repeat(64)),
        )]);
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
        operator.query::<String>(&cmd("PING")).await.unwrap();
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
