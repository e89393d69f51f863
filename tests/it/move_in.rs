//! `examples/move/copy.py` between two engines: what was there before is in the layer, with the rights of the user that is told to
//! people.

use redis::cmd;
use redoubt::model::UseKind;
use redoubt::model::function_library::Functions;
use redoubt::redis::Connection;
use redoubt::redis::rights::Grant;
use redoubt::redis::users::{self, PasswordDigests, acl_file, data_users};
use sha2::{Digest as _, Sha256};

use crate::support::bound_layer::{installed, python};
use crate::support::engine_process::{PORT, Process, engines};

const PASSWORD: &str = "secret";

fn digest() -> String {
    hex::encode(Sha256::digest(PASSWORD))
}

/// A server with the users of a layer, of a session store, and one that may look at everything.
async fn layer(engine: &crate::support::engine_process::Engine) -> Process {
    let word = digest;
    let digests = PasswordDigests {
        operator: word(),
        agent: word(),
        replication: word(),
        sentinel: word(),
        application: Some(word()),
        administrator: None,
    };
    let mut users = data_users(&digests);
    let functions = Functions::new();
    let grant = Grant::plain(UseKind::SessionStore, "web:", &functions);
    users.insert("store".to_owned(), users::use_on_data(grant, &digest()));
    let mut lines: Vec<String> = acl_file(&users).lines().map(str::to_owned).collect();
    lines.push(format!("user observer reset on >{PASSWORD} ~* &* +@all"));
    Process::start(engine, false, |_| lines).await
}

/// Runs the program; its last line.
async fn copied(source: &Process, target: &Process, user: &str, arguments: &[&str]) -> String {
    let mut command = python(&installed("python").await, "examples/move/copy.py");
    command.args(arguments);
    command.env("SOURCE", format!("redis://{}:{PORT}/0", source.address));
    command.env("TARGET", format!("redis://{user}:{PASSWORD}@{}:{PORT}/0", target.address));
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What a key holds, as text that does not depend on the order within.
async fn held(connection: &Connection, key: &str) -> String {
    let kind: String = connection.query(cmd("TYPE").arg(key)).await.unwrap();
    let words: &[&str] = match kind.as_str() {
        "string" => &["GET"],
        "hash" => &["HGETALL"],
        "list" => &["LRANGE", "0", "-1"],
        "set" => &["SMEMBERS"],
        "zset" => &["ZRANGE", "0", "-1", "WITHSCORES"],
        "stream" => &["XRANGE", "-", "+"],
        other => panic!("{key}: {other}"),
    };
    let mut read = cmd(words[0]);
    read.arg(key).arg(&words[1..]);
    let value: redis::Value = connection.query(&read).await.unwrap();
    let mut text: Vec<String> = match &value {
        redis::Value::Array(items) if kind == "set" => items.iter().map(|item| format!("{item:?}")).collect(),
        redis::Value::Array(items) if kind == "hash" => items.chunks(2).map(|pair| format!("{pair:?}")).collect(),
        other => vec![format!("{other:?}")],
    };
    text.sort();
    let left: i64 = connection.query(cmd("TTL").arg(key)).await.unwrap();
    format!("{kind} {} {}", text.concat(), if left < 0 { left } else { (left + 5) / 10 })
}

async fn write(connection: &Connection, line: &str) {
    let mut words = line.split(' ');
    let mut command = cmd(words.next().unwrap());
    words.for_each(|word| {
        command.arg(word);
    });
    let _: redis::Value = connection.query(&command).await.unwrap();
}

#[tokio::test]
async fn everything_is_copied_as_it_is_and_a_second_copy_takes_up_what_changed() {
    for engine in engines() {
        let (source, target) = (Process::server(&engine, &[]).await, layer(&engine).await);
        let old = source.connect().await;
        for line in [
            "SET plain value",
            "SET ends value EX 1000",
            "HSET hash a 1 b 2",
            "HSET glob*[x] a 1",
            "RPUSH list a b a",
            "SADD set a b c",
            "ZADD sorted 1.5 a 2 b -1 c",
            "XADD stream 5-1 field value",
            "EXPIRE stream 1000",
        ] {
            write(&old, line).await;
        }
        let binary: &[u8] = &[0, 255, b'\r', b'\n'];
        let () = old.query(cmd("SET").arg(binary).arg(binary)).await.unwrap();
        let mut many = cmd("HSET");
        many.arg("many");
        (0..3000).for_each(|number| {
            many.arg(number).arg("x".repeat(100));
        });
        let _: i64 = old.query(&many).await.unwrap();
        let said = copied(&source, &target, "app", &[]).await;
        assert_eq!(said, "3 hash, 1 list, 1 set, 1 stream, 3 string, 1 zset", "{}", engine.name);
        let new = Connection::open(&target.endpoint("observer", PASSWORD)).await.unwrap();
        let keys = ["plain", "ends", "hash", "glob*[x]", "list", "set", "sorted", "stream", "many"];
        for key in keys {
            assert_eq!(held(&new, key).await, held(&old, key).await, "{}: {key}", engine.name);
        }
        let copy: Vec<u8> = new.query(cmd("GET").arg(binary)).await.unwrap();
        assert_eq!(copy, binary);
        // Until the writers stop, keys change and go.
        for line in ["SREM set a", "DEL plain", "PERSIST ends", "SET later value"] {
            write(&old, line).await;
        }
        copied(&source, &target, "app", &["--delete-missing"]).await;
        for key in ["set", "ends", "later"] {
            assert_eq!(held(&new, key).await, held(&old, key).await, "{}: {key}", engine.name);
        }
        let sizes: (i64, i64) = (old.query(&cmd("DBSIZE")).await.unwrap(), new.query(&cmd("DBSIZE")).await.unwrap());
        assert_eq!(sizes.0, sizes.1, "{}", engine.name);
    }
}

#[tokio::test]
async fn sessions_of_a_library_are_copied_under_the_prefix_of_a_store_with_its_own_user() {
    for engine in engines() {
        let (source, target) = (Process::server(&engine, &[]).await, layer(&engine).await);
        let old = source.connect().await;
        for line in ["SET sess:a value EX 1000", "HSET sess:b field value", "SET other:c value"] {
            write(&old, line).await;
        }
        let said = copied(&source, &target, "store", &["--from-prefix", "sess:", "--to-prefix", "web:"]).await;
        assert_eq!(said, "1 hash, 1 string", "{}", engine.name);
        let new = Connection::open(&target.endpoint("observer", PASSWORD)).await.unwrap();
        assert_eq!(held(&new, "web:a").await, held(&old, "sess:a").await);
        let size: i64 = new.query(&cmd("DBSIZE")).await.unwrap();
        assert_eq!(size, 2, "{}", engine.name);
    }
}

/// What docs/tasks/backup.md does: the file is taken while keys are written, and read by a server of its own.
#[tokio::test]
async fn the_snapshot_of_a_server_that_is_written_to_is_whole_and_is_loaded_into_a_layer() {
    for engine in engines() {
        let (source, target) = (Process::server(&engine, &[]).await, layer(&engine).await);
        let old = source.connect().await;
        for number in 0..500 {
            write(&old, &format!("SET kept:{number} {number} EX 1000")).await;
        }
        write(&old, "SAVE").await;
        write(&old, "SET later value").await;
        write(&old, "BGSAVE").await;
        let copy = std::fs::read(source.folder.join("dump.rdb")).unwrap();
        let mut loaded = Process::server(&engine, &[]).await;
        loaded.kill();
        std::fs::write(loaded.folder.join("dump.rdb"), copy).unwrap();
        loaded.run();
        loaded.wait_until_it_answers().await;
        let told = copied(&loaded, &target, "app", &[]).await;
        assert!(["500 string", "501 string", "502 string"].contains(&told.as_str()), "{}: {told}", engine.name);
        let new = Connection::open(&target.endpoint("observer", PASSWORD)).await.unwrap();
        for number in (0..500).step_by(7) {
            let key = format!("kept:{number}");
            assert_eq!(held(&new, &key).await, held(&old, &key).await, "{}: {key}", engine.name);
        }
    }
}
