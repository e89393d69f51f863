//! What the session functions refuse, and what they still do on servers that refuse writes.

use redis::cmd;
use redoubt::redis::{Class, Connection, server};

use crate::support::engine_process::{Process, engines};
use crate::support::layer::SOON;
use crate::support::session_calls::{call, contents, list, number, policy, read, refusal, server_with};

const KEY: &str = "web:{t}s:a";

/// A refused call, and the code that says why.
type Refused<'a> = (&'a str, Vec<&'a str>, Vec<&'a str>, &'a str);

#[tokio::test]
async fn bad_input_is_refused_by_name_and_changes_nothing() {
    let (long, big) = ("k".repeat(2_000), "v".repeat(65_537));
    let long_key = format!("web:{{t}}s:{long}");
    let many: Vec<String> = (0..513).flat_map(|number| [number.to_string(), "x".to_owned()]).collect();
    let mut too_many: Vec<&str> = vec!["bob"];
    too_many.extend(many.iter().map(String::as_str));
    let new = "web:{t}s:new";
    let cases: Vec<Refused> = vec![
        ("session_create", vec!["web:t:s:a"], vec!["bob"], "BADARG"),
        ("session_create", vec!["web:{}s:a"], vec!["bob"], "BADARG"),
        ("session_create", vec!["web:{t}s:"], vec!["bob"], "BADARG"),
        ("session_create", vec!["web:{t}x:a"], vec!["bob"], "BADARG"),
        ("session_create", vec!["web:{t'}s:a"], vec!["bob"], "BADARG"),
        ("session_create", vec!["web:{t\n}s:a"], vec!["bob"], "BADARG"),
        ("session_create", vec!["web:{{t}}s:a"], vec!["bob"], "BADARG"),
        ("session_create", vec!["web:{t}s:a\n"], vec!["bob"], "BADARG"),
        ("session_create", vec!["web:{t}s:a}{b"], vec!["bob"], "BADARG"),
        ("session_create", vec!["web:{t}s:\"a\""], vec!["bob"], "BADARG"),
        ("session_create", vec!["web:{t}s:a\0"], vec!["bob"], "BADARG"),
        ("session_create", vec![&long_key], vec!["bob"], "BADARG"),
        ("session_create", vec!["nix:{t}s:a"], vec!["bob"], "NOPOLICY"),
        ("session_create", vec!["web{t}s:a"], vec!["bob"], "NOPOLICY"),
        ("session_create", vec!["x\nweb:{t}s:a"], vec!["bob"], "NOPOLICY"),
        ("session_create", vec![], vec!["bob"], "BADARG"),
        ("session_create", vec![new, KEY], vec!["bob"], "BADARG"),
        ("session_create", vec![new], vec![], "BADARG"),
        ("session_create", vec![new], vec!["bob", "field"], "BADARG"),
        ("session_create", vec![new], vec![&long, "field", "value"], "BADARG"),
        ("session_create", vec![new], vec!["bob", "field", &big], "BADARG"),
        ("session_create", vec![new], vec!["bob", "@c", "0"], "BADARG"),
        ("session_create", vec![new], vec!["bob", "a", "1", "a", "2"], "BADARG"),
        ("session_create", vec![new], too_many, "BADARG"),
        ("session_create", vec!["web:{t}s:string"], vec!["bob"], "WRONGTYPE"),
        ("session_create", vec![new], vec!["string"], "WRONGTYPE"),
        ("session_get", vec!["web:{t}s:string"], vec![], "WRONGTYPE"),
        ("session_get", vec![KEY], vec!["@u"], "BADARG"),
        ("session_get", vec![KEY], vec!["a", "a"], "BADARG"),
        ("session_get_ro", vec!["web:{t}s:string"], vec!["a"], "WRONGTYPE"),
        ("session_touch", vec![KEY], vec!["x"], "BADARG"),
        ("session_set", vec![KEY], vec![], "BADARG"),
        ("session_set", vec![KEY], vec!["", "nan"], "BADARG"),
        ("session_set", vec![KEY], vec!["", "-1"], "BADARG"),
        ("session_set", vec![KEY], vec!["", "99999999999999999999"], "BADARG"),
        ("session_set", vec![KEY], vec!["", "2", "a", "b", "c"], "BADARG"),
        ("session_set", vec![KEY], vec!["one", "1", "a", "b"], "BADARG"),
        ("session_set", vec![KEY], vec!["", "1", "a", "b", "a"], "BADARG"),
        ("session_set", vec![KEY], vec!["", "0", "@v"], "BADARG"),
        ("session_set", vec![KEY], vec!["", "1", "a", &big], "BADARG"),
        ("session_set", vec!["web:{t}s:string"], vec!["", "1", "a", "b"], "WRONGTYPE"),
        ("session_revoke", vec!["web:{t}s:string"], vec![], "WRONGTYPE"),
        ("session_revoke_all", vec!["web:{t}u:string"], vec![], "WRONGTYPE"),
        ("session_revoke_all", vec![KEY], vec![], "BADARG"),
        ("session_list", vec!["web:{t}u:string"], vec![], "WRONGTYPE"),
        ("session_list", vec!["web:{t}u:"], vec![], "BADARG"),
        ("session_rotate", vec![KEY], vec!["0"], "BADARG"),
        ("session_rotate", vec![KEY, "web:{other}s:a"], vec!["0"], "BADARG"),
        ("session_rotate", vec![KEY, "api:{t}s:a"], vec!["0"], "BADARG"),
        ("session_rotate", vec![KEY, KEY], vec!["0"], "EXISTS"),
        ("session_rotate", vec![KEY, new], vec!["-1"], "BADARG"),
        ("session_rotate", vec![KEY, new], vec!["3600001"], "BADARG"),
        ("session_rotate", vec![KEY, new], vec!["1e3"], "BADARG"),
        ("session_rotate", vec![KEY, "web:{t}s:string"], vec!["0"], "WRONGTYPE"),
        ("session_rotate", vec!["web:{t}s:broken", new], vec!["0"], "WRONGTYPE"),
        ("session_get", vec!["web:{t}s:broken"], vec![], "WRONGTYPE"),
        ("session_set", vec!["web:{t}s:broken"], vec!["", "1", "a", "b"], "WRONGTYPE"),
    ];
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[policy("web"), policy("api")], &[]).await;
        number(&connection, "session_create", &[KEY], &["bob", "cart", "3"]).await;
        number(&connection, "session_create", &["web:{t}s:broken"], &["broken"]).await;
        connection.query::<()>(cmd("DEL").arg("web:{t}u:broken")).await.unwrap();
        for key in ["web:{t}s:string", "web:{t}u:string", "web:{t}u:broken"] {
            connection.query::<()>(cmd("SET").arg(key).arg("text")).await.unwrap();
        }
        let before = contents(&connection).await;
        for (function, keys, arguments, code) in &cases {
            let found = refusal(&connection, function, keys, arguments).await;
            assert_eq!(&found, code, "{}: {function} {keys:?} {:.60?}", engine.name, arguments.first());
            assert!(contents(&connection).await == before, "{}: {function} {keys:?} wrote", engine.name);
        }
    }
}

#[tokio::test]
async fn a_session_holds_only_so_much_however_it_is_filled() {
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[policy("web")], &[]).await;
        let half = "v".repeat(32_000);
        number(&connection, "session_create", &[KEY], &["", "a", &half]).await;
        number(&connection, "session_set", &[KEY], &["", "1", "b", &half]).await;
        assert_eq!(refusal(&connection, "session_set", &[KEY], &["", "1", "c", &half]).await, "BADARG");
        // What is replaced or deleted does not count.
        number(&connection, "session_set", &[KEY], &["", "1", "a", &half]).await;
        number(&connection, "session_set", &[KEY], &["", "1", "c", &half, "b"]).await;
        assert_eq!(read(&connection, "session_get", KEY).await.unwrap().fields.len(), 2);
    }
}

#[tokio::test]
async fn any_bytes_may_name_a_user() {
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[policy("web")], &[]).await;
        for (id, user) in ["o'neil \"\n", "{x}", "}s:b", "u:{t}", "-inf", "é\0"].into_iter().enumerate() {
            let (key, index) = (format!("web:{{t}}s:{id}"), format!("web:{{t}}u:{user}"));
            number(&connection, "session_create", &[&key], &[user]).await;
            assert_eq!(read(&connection, "session_get", &key).await.unwrap().user, user);
            assert_eq!(list(&connection, &index).await.len(), 1, "{user:?}");
            assert_eq!(number(&connection, "session_revoke_all", &[&index], &[]).await, 1);
        }
        assert_eq!(contents(&connection).await, []);
    }
}

/// Reads and ends that must work, saves that must not.
async fn serves_without_growing(connection: &Connection, refused: Class) {
    for function in ["session_get_ro", "session_exists"] {
        call(connection, function, &[KEY], &[]).await.unwrap();
    }
    assert_eq!(list(connection, "web:{t}u:bob").await.len(), 2);
    for (function, keys, arguments) in [
        ("session_create", vec!["web:{t}s:new"], vec!["bob"]),
        ("session_set", vec![KEY], vec!["", "1", "a", "b"]),
        ("session_rotate", vec![KEY, "web:{t}s:new"], vec!["0"]),
    ] {
        let error = call(connection, function, &keys, &arguments).await.unwrap_err();
        assert_eq!(error.class(), refused, "{function}");
    }
}

#[tokio::test]
async fn sessions_are_read_on_servers_that_refuse_writes() {
    for engine in engines() {
        let (first, primary) = server_with(&engine, &[policy("web")], &["maxmemory-policy noeviction"]).await;
        for key in [KEY, "web:{t}s:b"] {
            number(&primary, "session_create", &[key], &["bob"]).await;
        }
        server::config_set(&primary, "maxmemory", "1").await.unwrap();
        serves_without_growing(&primary, Class::OutOfMemory).await;
        let before = read(&primary, "session_get_ro", KEY).await.unwrap().expires;
        // Reads renew when memory is full: a session in use must not die of it.
        assert!(number(&primary, "session_touch", &[KEY], &[]).await >= before);
        assert!(read(&primary, "session_get", KEY).await.is_some());
        assert_eq!(number(&primary, "session_revoke", &["web:{t}s:b"], &[]).await, 1);
        server::config_set(&primary, "maxmemory", "0").await.unwrap();
        number(&primary, "session_create", &["web:{t}s:b"], &["bob"]).await;

        server::config_set(&primary, "min-replicas-to-write", "1").await.unwrap();
        serves_without_growing(&primary, Class::TooFewReplicas).await;
        server::config_set(&primary, "min-replicas-to-write", "0").await.unwrap();

        let second = Process::server(&engine, &[]).await;
        let replica = second.connect().await;
        second.follow(&replica, &first).await;
        assert_eq!(server::wait(&primary, 1, SOON).await.unwrap(), 1);
        serves_without_growing(&replica, Class::ReadOnly).await;
    }
}

#[tokio::test]
async fn a_user_of_one_store_reaches_no_key_of_another() {
    // The commands that the functions run for their caller, and no other.
    const RULE: &str = "user web on >right ~web:* +ping +fcall +fcall_ro +time +hlen +hset +hget +hmget +hgetall +hdel \
                        +pexpireat +pexpiretime +unlink +rename +zadd +zrem +zcard +zcount +zrange +zremrangebyrank +memory|usage";
    for engine in engines() {
        let stores = [policy("web"), policy("other"), policy("web2")];
        let (process, admin) = server_with(&engine, &stores, &[RULE]).await;
        let web = Connection::open(&process.endpoint("web", "right")).await.unwrap();
        for prefix in ["other:", "web2:", "web"] {
            let (key, index) = (format!("{prefix}{{t}}s:a"), format!("{prefix}{{t}}u:bob"));
            if prefix != "web" {
                number(&admin, "session_create", &[&key], &["bob", "secret", "1"]).await;
            }
            for function in ["create", "get", "get_ro", "touch", "exists", "revoke"] {
                let arguments: &[&str] = if function == "create" { &["bob"] } else { &[] };
                assert_eq!(refusal(&web, &format!("session_{function}"), &[&key], arguments).await, "NOPERM");
            }
            assert_eq!(refusal(&web, "session_set", &[&key], &["", "1", "a", "b"]).await, "NOPERM");
            assert_eq!(refusal(&web, "session_list", &[&index], &[]).await, "NOPERM");
            assert_eq!(refusal(&web, "session_revoke_all", &[&index], &[]).await, "NOPERM");
            assert_eq!(refusal(&web, "session_rotate", &["web:{t}s:a", &key], &["0"]).await, "NOPERM");
        }
        let foreign = contents(&admin).await;
        // Crafted users and rotated ids end up below the own prefix and tag.
        for user in ["other:{t}u:bob", "}other:{t}s:a", "x\nother:{t}s:a"] {
            number(&web, "session_create", &[KEY], &[user, "a", "b"]).await;
            assert_eq!(number(&web, "session_set", &[KEY], &["", "1", "a", "c", "b"]).await, 2);
            assert!(read(&web, "session_get", KEY).await.is_some());
            assert_eq!(
                number(&web, "session_revoke_all", &[&format!("web:{{t}}u:{user}")], &["other:{t}s:a"]).await,
                1
            );
        }
        web.query::<()>(cmd("HSET").arg(KEY).arg("@n").arg("x}other:{t}s:a")).await.unwrap();
        assert_eq!(read(&web, "session_get", KEY).await, None);
        web.query::<()>(cmd("UNLINK").arg(KEY)).await.unwrap();
        web.query::<()>(cmd("ZADD").arg("web:{t}u:bob").arg(9e15).arg("../other:{t}s:a")).await.unwrap();
        assert_eq!(list(&web, "web:{t}u:bob").await, []);
        assert_eq!(number(&web, "session_revoke_all", &["web:{t}u:bob"], &[]).await, 0);
        number(&web, "session_create", &[KEY], &["bob"]).await;
        number(&web, "session_rotate", &[KEY, "web:{t}s:b"], &["10"]).await;
        assert_eq!(number(&web, "session_revoke", &["web:{t}s:b"], &[]).await, 1);
        web.query::<()>(cmd("UNLINK").arg(KEY)).await.unwrap();
        assert!(contents(&admin).await == foreign, "{}", engine.name);
    }
}
