//! What the caches' functions refuse, and what they still do on servers that refuse writes.

use redis::cmd;
use redoubt::model::cache_policy::CachePolicy;
use redoubt::redis::{Class, Connection, server};

use crate::support::cache_calls::{HOUR, MINUTE, cache_call, counter, ends_in, get, lease, policy, read, server_with};
use crate::support::engine_process::{Process, engines};
use crate::support::function_calls::{call, contents, number, refusal};
use crate::support::layer::SOON;

const KEY: &str = "web:{0}a";

/// A refused call, and the code that says why.
type Refused<'a> = (&'a str, Vec<&'a str>, Vec<&'a str>, &'a str);

/// What is refused whatever the numbers of the namespace.
fn always_refused() -> Vec<Refused<'static>> {
    vec![
        ("cache_set", vec![KEY], vec![], "BADARG"),
        ("cache_set", vec![KEY], vec![""], "BADARG"),
        ("cache_set", vec![KEY], vec!["", "value", "", "one", ""], "BADARG"),
        ("cache_set", vec![KEY], vec!["", "value", "", "a\nb"], "BADARG"),
        ("cache_set", vec![KEY], vec!["", "value", "", "a\u{0}"], "BADARG"),
        ("cache_set", vec![KEY], vec!["", "value", "", "a\u{7f}"], "BADARG"),
        ("cache_set", vec!["web:{text}a"], vec!["", "value"], "WRONGTYPE"),
        ("cache_set", vec!["web:{short}a"], vec!["", "value"], "WRONGTYPE"),
        ("cache_set_if_version", vec![KEY], vec!["1"], "BADARG"),
        ("cache_set_if_version", vec![KEY], vec!["1", "value", "0"], "BADARG"),
        ("cache_set_if_version", vec![KEY], vec!["1", "value", "", ""], "BADARG"),
        ("cache_set_if_version", vec!["web:{text}a"], vec!["1", "value"], "WRONGTYPE"),
        ("cache_negative", vec![KEY], vec![], "BADARG"),
        ("cache_negative", vec![KEY], vec!["", "a\n"], "BADARG"),
        ("cache_negative", vec!["api:{0}a"], vec![""], "BADARG"),
        ("cache_negative", vec!["web:{text}a"], vec![""], "WRONGTYPE"),
        ("cache_fail", vec![KEY], vec![], "BADARG"),
        ("cache_fail", vec![KEY], vec!["1-1", "0"], "BADARG"),
        ("cache_fail", vec![KEY], vec!["1-1", "1", "1"], "BADARG"),
        ("cache_get", vec![KEY], vec!["x"], "BADARG"),
        ("cache_get", vec!["web:{text}a"], vec![], "WRONGTYPE"),
        ("cache_get", vec!["web:{short}a"], vec![], "WRONGTYPE"),
        ("cache_get", vec!["web:{list}lease"], vec![], "WRONGTYPE"),
        ("cache_get_ro", vec!["web:{text}a"], vec![], "WRONGTYPE"),
        ("cache_check", vec!["web:{tags}a"], vec![], "WRONGTYPE"),
        ("cache_invalidate", vec![], vec![], "BADARG"),
        ("cache_invalidate", vec![KEY], vec!["x"], "BADARG"),
        ("cache_invalidate", vec![KEY, "web:{text}a"], vec![], "WRONGTYPE"),
        ("cache_invalidate", vec![KEY, "web:{0}@t:x"], vec![], "BADARG"),
        ("cache_invalidate", vec![KEY, "api:{0}a"], vec![], "BADARG"),
        ("cache_invalidate", vec![KEY, "nix:{0}a"], vec![], "NOPOLICY"),
        ("cache_invalidate_tag", vec!["web:{0}"], vec![], "BADARG"),
        ("cache_invalidate_tag", vec!["web:{0}"], vec!["one", "a\t"], "BADARG"),
        ("cache_invalidate_tag", vec![KEY], vec!["one"], "BADARG"),
        ("cache_invalidate_tag", vec!["web:{}"], vec!["one"], "BADARG"),
        ("cache_invalidate_tag", vec!["nix:{0}"], vec!["one"], "NOPOLICY"),
        ("cache_invalidate_prefix", vec!["web:{@jobs}"], vec![], "BADARG"),
        ("cache_invalidate_prefix", vec!["web:{@jobs}"], vec!["web:", "web:"], "BADARG"),
        ("cache_invalidate_prefix", vec!["web:{@jobs}"], vec!["api:"], "BADARG"),
        ("cache_invalidate_prefix", vec!["web:{@jobs}"], vec!["web"], "BADARG"),
        ("cache_invalidate_prefix", vec!["web:{0}"], vec!["web:"], "BADARG"),
        ("cache_invalidate_prefix", vec!["web:{@jobs}a"], vec!["web:"], "BADARG"),
        ("cache_invalidate_prefix", vec!["api:{@jobs}"], vec!["api:"], "WRONGTYPE"),
        ("cache_invalidate_prefix", vec!["nix:{@jobs}"], vec!["nix:"], "NOPOLICY"),
        ("caches_remove", vec![], vec![], "BADARG"),
        ("caches_remove", vec![KEY], vec!["x"], "BADARG"),
        ("cache_stats", vec![], vec![], "BADARG"),
        ("cache_stats", vec!["nix:{0}"], vec![], "NOPOLICY"),
        ("cache_stats", vec!["web:{0}"], vec!["x"], "BADARG"),
        ("caches_position", vec![], vec!["web:", "api:"], "BADARG"),
        ("caches_position", vec![], vec!["nix:"], "NOPOLICY"),
        ("caches_policy", vec![], vec![], "BADARG"),
    ]
}

/// What each function refuses of the key that it is called with.
fn of_keys<'a>(too_long: &'a str, long_prefix: &'a str) -> Vec<Refused<'a>> {
    let mut cases: Vec<Refused> = Vec::new();
    for (function, arguments) in [
        ("cache_get", vec![]),
        ("cache_get_ro", vec![]),
        ("cache_check", vec![]),
        ("cache_set", vec!["", "value"]),
        ("cache_set_if_version", vec!["1", "value"]),
        ("cache_negative", vec![""]),
        ("cache_fail", vec!["1-1"]),
    ] {
        for keys in [
            vec![],
            vec![KEY, "web:{0}b"],
            vec!["web:a"],
            vec![""],
            vec!["web:{0}"],
            vec!["web:{}a"],
            vec!["web:{}}a"],
            vec!["web:{0"],
            vec!["web:}0{a"],
            vec!["web:{0}@l:a"],
            vec!["web:{0}@"],
            vec![too_long],
        ] {
            cases.push((function, keys, arguments.clone(), "BADARG"));
        }
        for key in ["nix:{0}a", "web{0}a", "web:x:{0}a", "{0}a", "x\nweb:{0}a", long_prefix] {
            cases.push((function, vec![key], arguments.clone(), "NOPOLICY"));
        }
    }
    cases
}

#[tokio::test]
async fn bad_input_is_refused_by_name_and_changes_nothing() {
    let of_length = |length: usize| format!("web:{{0}}{}", "n".repeat(length - 7));
    let (longest, too_long) = (of_length(1_024), of_length(1_025));
    let (long_prefix, long_tag) = (format!("{}:{{0}}a", "p".repeat(128)), "t".repeat(129));
    let (large, largest) = ("v".repeat(1_001), "v".repeat(1_000));
    let many: Vec<String> = (0..257).map(|name| format!("web:{{0}}{name}")).collect();
    let tags: Vec<String> = (0..65).map(|tag| tag.to_string()).collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let too_many = [&["", "value", ""], &tags[..]].concat();
    let mut cases = always_refused();
    cases.extend(of_keys(&too_long, &long_prefix));
    cases.extend([
        ("cache_set", vec![KEY], vec!["", &large], "TOOBIG"),
        ("cache_set", vec![KEY], too_many, "BADARG"),
        ("cache_set", vec![KEY], vec!["", "value", "", &long_tag], "BADARG"),
        ("cache_set_if_version", vec![KEY], vec!["1", &large], "TOOBIG"),
        ("cache_negative", vec![KEY], [&[""], &tags[..]].concat(), "BADARG"),
        ("cache_invalidate", many.iter().map(String::as_str).collect(), vec![], "BADARG"),
        ("cache_invalidate_tag", vec!["web:{0}"], tags, "BADARG"),
        ("cache_invalidate_prefix", vec!["web:{@jobs}"], vec![&too_long], "BADARG"),
    ]);
    for ttl in ["0", "-1", "1.5", "1e3", "0x10", "nan", "inf", " 1", "1\n", "1000000000000000"] {
        cases.push(("cache_set", vec![KEY], vec!["", "value", ttl], "BADARG"));
        cases.push(("cache_set_if_version", vec![KEY], vec![ttl, "value"], "BADARG"));
        cases.push(("cache_fail", vec![KEY], vec!["1-1", ttl], "BADARG"));
    }
    for engine in engines() {
        let policies =
            [CachePolicy { max_entry_bytes: 1_000, ..policy("web") }, CachePolicy { negative_ms: 0, ..policy("api") }];
        let (_process, connection) = server_with(&engine, &policies, &[]).await;
        for words in [
            "SET web:{text}a text",
            "HSET web:{short}a h short v value",
            "RPUSH web:{list}@l:lease 1",
            "SET api:{@jobs} text",
        ] {
            let mut command = redis::Cmd::new();
            command.arg(words.split(' ').collect::<Vec<_>>());
            connection.query::<()>(&command).await.unwrap();
        }
        // A header that says of more tags than it has.
        let mut header = vec![0_u8; 19];
        (header[0], header[18]) = (1, 3);
        connection
            .query::<()>(cmd("HSET").arg("web:{tags}a").arg("h").arg(header).arg("v").arg("value"))
            .await
            .unwrap();
        cache_call(&connection, "set", KEY, &["", "value", "", "one"]).await;
        lease(&connection, "web:{0}leased").await;
        let before = contents(&connection).await;
        for (function, keys, arguments, code) in &cases {
            let found = refusal(&connection, function, keys, arguments).await;
            assert_eq!(&found, code, "{}: {function} {keys:.60?} {arguments:.60?}", engine.name);
            assert!(contents(&connection).await == before, "{}: {function} {keys:.60?} wrote", engine.name);
        }
        for (counted, count) in [("sets", 1), ("misses", 1), ("hits", 0), ("refused", 0), ("invalidations", 0)] {
            assert_eq!(counter(&connection, "web:", counted).await, count, "what was refused does not count");
        }
        // What is not the lease's is no error, also where it is that of another entry.
        let of_other = lease(&connection, "web:{0}other").await;
        for token in ["x", "1-1", "!", "nan", "0x10-1", &large, &of_other] {
            assert_eq!(cache_call(&connection, "set", "web:{0}leased", &[token, "value"]).await, 0, "{token:.10}");
            assert_eq!(cache_call(&connection, "fail", "web:{0}leased", &[token]).await, 0);
        }
        assert_eq!(cache_call(&connection, "set", "web:{0}other", &[&of_other, "value"]).await, 1, "its own takes it");
        assert_eq!(cache_call(&connection, "set", &longest, &["", &largest, "000000000000001"]).await, 1);
        assert_eq!(cache_call(&connection, "set", KEY, &["", "value", "999999999999999"]).await, 1);
        assert!(ends_in(&connection, KEY).await <= 24 * 3_600_000, "no TTL is above maxTtl");
    }
}

/// A plain command of a client may leave anything: no call of a function makes a key that never ends of it.
#[tokio::test]
async fn what_plain_commands_left_without_an_end_gets_one_or_goes_with_the_next_call() {
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[policy("web")], &[]).await;
        let persist = async |key: &str| assert!(connection.query::<bool>(cmd("PERSIST").arg(key)).await.unwrap());
        cache_call(&connection, "set", KEY, &["", "value", "", "one"]).await;
        persist(KEY).await;
        persist("web:{0}@t:one").await;
        assert_eq!(read(&connection, "get_ro", KEY).await.verdict, 0, "{}", engine.name);
        let token = lease(&connection, KEY).await;
        assert!(!connection.query::<bool>(cmd("EXISTS").arg(KEY)).await.unwrap(), "it was removed");
        persist("web:{0}@l:a").await;
        assert_eq!(get(&connection, KEY).await.milliseconds, 60_000);
        assert_eq!(cache_call(&connection, "set", KEY, &[&token, "value", "", "one"]).await, 1);
        cache_call(&connection, "set_if_version", "web:{0}v", &["1", "value"]).await;
        persist("web:{0}v").await;
        assert_eq!(number(&connection, "cache_invalidate", &["web:{0}v"], &[]).await, 1);
        // A field that is missing makes no entry.
        cache_call(&connection, "set", "web:{0}b", &["", "value"]).await;
        connection.query::<()>(cmd("HDEL").arg("web:{0}b").arg("v")).await.unwrap();
        assert_eq!(get(&connection, "web:{0}b").await.served(), (0, None));
        for (key, _) in contents(&connection).await {
            assert!(ends_in(&connection, &key).await > 0, "{}: {key}", engine.name);
        }
    }
}

async fn reads_without_writing(connection: &Connection, refused: Class) {
    assert_eq!(read(connection, "get_ro", KEY).await.served(), (1, Some("value")));
    for function in ["caches_counters", "caches_digest"] {
        call(connection, function, &[], &[]).await.unwrap();
    }
    call(connection, "caches_position", &[], &["web:"]).await.unwrap();
    for (function, arguments) in
        [("cache_set", vec!["", "x"]), ("cache_set_if_version", vec!["1", "x"]), ("cache_negative", vec![""])]
    {
        let error = call(connection, function, &[KEY], &arguments).await.unwrap_err();
        assert_eq!(error.class(), refused, "{function}: {error:?}");
    }
}

#[tokio::test]
async fn caches_are_read_on_servers_that_refuse_writes() {
    for engine in engines() {
        let (first, primary) = server_with(&engine, &[policy("web")], &["maxmemory-policy noeviction"]).await;
        cache_call(&primary, "set", KEY, &["", "value", "", "one"]).await;
        let full = async |is| server::config_set(&primary, "maxmemory", if is { "1" } else { "0" }).await.unwrap();
        full(true).await;
        reads_without_writing(&primary, Class::OutOfMemory).await;
        // Reads, leases and invalidations work while memory is full.
        assert_eq!(get(&primary, KEY).await.served(), (1, Some("value")));
        let token = lease(&primary, "web:{0}b").await;
        assert_eq!(cache_call(&primary, "fail", "web:{0}b", &[&token]).await, 1);
        assert_eq!(cache_call(&primary, "invalidate_tag", "web:{0}", &["one"]).await, 1);
        assert_eq!(read(&primary, "check", KEY).await.verdict, 0, "{}", engine.name);
        assert_eq!(number(&primary, "cache_invalidate", &[KEY, "web:{0}b"], &[]).await, 1);
        call(&primary, "cache_invalidate_prefix", &["web:{@jobs}"], &["web:"]).await.unwrap();
        full(false).await;
        cache_call(&primary, "set", KEY, &["", "value", "", "one"]).await;

        server::config_set(&primary, "min-replicas-to-write", "1").await.unwrap();
        reads_without_writing(&primary, Class::TooFewReplicas).await;
        server::config_set(&primary, "min-replicas-to-write", "0").await.unwrap();

        let second = Process::server(&engine, &[]).await;
        let replica = second.connect().await;
        second.follow(&replica, &first).await;
        assert_eq!(server::wait(&primary, 1, SOON).await.unwrap(), 1);
        reads_without_writing(&replica, Class::ReadOnly).await;
        let error = call(&replica, "cache_get", &[KEY], &[]).await.unwrap_err();
        assert_eq!(error.class(), Class::ReadOnly, "{error:?}");
        // What is stale or absent there is the primary's to give a lease for.
        cache_call(&primary, "invalidate_tag", "web:{0}", &["one"]).await;
        assert_eq!(server::wait(&primary, 1, SOON).await.unwrap(), 1);
        assert_eq!(read(&replica, "get_ro", KEY).await.verdict, 0, "{}", engine.name);
    }
}

/// What a cache layer is for: memory that is full costs entries, not errors.
#[tokio::test]
async fn memory_that_is_full_costs_entries_and_no_call_fails() {
    for engine in engines() {
        let (_process, connection) = server_with(
            &engine,
            &[CachePolicy { ttl_ms: HOUR, stale_ms: MINUTE, ..policy("web") }],
            &["maxmemory-policy allkeys-lfu"],
        )
        .await;
        let used: String = connection.query(cmd("INFO").arg("memory")).await.unwrap();
        let used: u64 = used.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok()).unwrap();
        server::config_set(&connection, "maxmemory", &(used + 1_000_000).to_string()).await.unwrap();
        let value = "v".repeat(1_000);
        for entry in 0..3_000 {
            let key = format!("web:{{0}}{entry}");
            let token = lease(&connection, &key).await;
            // The lease or the tag may have been evicted since.
            let stored = cache_call(&connection, "set", &key, &[&token, &value, "", "all"]).await;
            assert!(stored == 0 || stored == 1);
        }
        let keys: i64 = connection.query(&cmd("DBSIZE")).await.unwrap();
        assert!(keys < 2_000, "{}: {keys} of 3,000 are there: memory was not full", engine.name);
        assert!(counter(&connection, "web:", "sets").await > 2_500, "{}", engine.name);
    }
}
