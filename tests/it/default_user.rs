//! Redis' own user: nobody can be it, and what it needs to be for a file to be read back whole.

use std::collections::BTreeMap;
use std::time::Duration;

use redoubt::act::redis::set_user;
use redoubt::redis::users::{self, PasswordDigests, acl_file, data_users, sentinel_users};
use redoubt::redis::{Class, Connection};
use sha2::{Digest as _, Sha256};

use crate::support::engine_process::{Engine, Process, engines};
use crate::support::eventually;

const PASSWORD: &str = "password of all";

fn digests() -> PasswordDigests {
    let digest = hex::encode(Sha256::digest(PASSWORD));
    PasswordDigests {
        operator: digest.clone(),
        agent: digest.clone(),
        replication: digest.clone(),
        sentinel: digest.clone(),
        application: Some(digest),
        administrator: None,
    }
}

async fn node(engine: &Engine) -> Process {
    Process::start(engine, false, |_| {
        let users = acl_file(&data_users(&digests()));
        users.lines().chain(["appendonly yes", "appendfsync always"]).map(str::to_owned).collect()
    })
    .await
}

async fn open(node: &Process, user: &str) -> Connection {
    Connection::open(&node.endpoint(user, PASSWORD)).await.unwrap()
}

#[tokio::test]
async fn no_connection_has_the_default_user() {
    for engine in engines() {
        let node = node(&engine).await;
        for password in ["", PASSWORD] {
            let refused = Connection::open(&node.endpoint(users::DEFAULT, password)).await.unwrap_err();
            assert_eq!(refused.class(), Class::Denied, "{}", engine.name);
        }
        // RESET makes a connection the default user's, which is then nobody.
        let application = open(&node, users::APPLICATION).await;
        application.query::<String>(&redis::cmd("RESET")).await.unwrap();
        let refused = application.query::<Option<String>>(redis::cmd("GET").arg("key")).await.unwrap_err();
        assert!(refused.server_text().unwrap().contains("NOAUTH"), "{}: {refused}", engine.name);
    }
}

#[tokio::test]
async fn what_transactions_scripts_and_functions_wrote_is_there_after_a_restart() {
    for engine in engines() {
        let mut node = node(&engine).await;
        {
            let application = open(&node, users::APPLICATION).await;
            let commands: Vec<redis::Cmd> = ["MULTI", "SET one 1", "SET two 2", "EXEC"]
                .iter()
                .map(|line| {
                    let mut words = line.split(' ');
                    let mut command = redis::cmd(words.next().unwrap());
                    words.for_each(|word| _ = command.arg(word));
                    command
                })
                .collect();
            assert!(application.query_all(&commands).await.unwrap().iter().all(Result::is_ok));
            let script = "redis.call('SET', KEYS[1], 3) redis.call('PEXPIRE', KEYS[1], 600000)";
            application.query::<()>(redis::cmd("EVAL").arg(script).arg(1).arg("three")).await.unwrap();
        }
        node.kill();
        node.run();
        node.wait_until_it_answers().await;
        let mut kept: Vec<Option<u8>> = Vec::new();
        eventually("the file is read", Duration::from_secs(10), async || {
            let application = open(&node, users::APPLICATION).await;
            let answer = application.query(redis::cmd("MGET").arg(&["one", "two", "three"])).await;
            answer.map(|found| kept = found).is_ok()
        })
        .await;
        assert_eq!(kept, [Some(1), Some(2), Some(3)], "{}", engine.name);
    }
}

#[tokio::test]
async fn a_default_user_that_was_switched_on_is_switched_off_with_its_connections() {
    for engine in engines() {
        let node = node(&engine).await;
        let operator = open(&node, users::OPERATOR).await;
        let on = ["on", "nopass"].map(str::to_owned);
        redoubt::redis::server::acl_set_user(&operator, users::DEFAULT, &on).await.unwrap();
        let intruder = Connection::open(&node.endpoint(users::DEFAULT, "")).await.unwrap();
        set_user(&operator, users::DEFAULT, &data_users(&digests())[users::DEFAULT]).await.unwrap();
        assert!(intruder.query::<String>(&redis::cmd("PING")).await.is_err(), "{}", engine.name);
        assert!(Connection::open(&node.endpoint(users::DEFAULT, "")).await.is_err());
    }
}

#[tokio::test]
async fn who_logged_in_with_a_password_that_is_none_any_more_is_cut() {
    for engine in engines() {
        let node = node(&engine).await;
        let operator = open(&node, users::OPERATOR).await;
        let held = open(&node, users::APPLICATION).await;
        let (same, mut another) = (data_users(&digests()), digests());
        set_user(&operator, users::APPLICATION, &same[users::APPLICATION]).await.unwrap();
        assert!(held.query::<String>(&redis::cmd("PING")).await.is_ok(), "{}: nothing changed", engine.name);
        another.application = Some("a".repeat(64));
        set_user(&operator, users::APPLICATION, &data_users(&another)[users::APPLICATION]).await.unwrap();
        assert!(held.query::<String>(&redis::cmd("PING")).await.is_err(), "{}", engine.name);
    }
}

#[test]
fn an_acl_file_always_switches_the_default_user_off() {
    assert_eq!(acl_file(&BTreeMap::new()), "user default reset off\n");
    let of_default = |text: &str| text.lines().find(|line| line.starts_with("user default ")).unwrap().to_owned();
    assert_eq!(of_default(&acl_file(&data_users(&digests()))), "user default reset off allkeys allchannels +@all");
    assert_eq!(of_default(&acl_file(&sentinel_users(&digests()))), "user default reset off");
}
