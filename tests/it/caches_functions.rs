//! What each function of the caches does, on every engine.

use std::collections::BTreeSet;
use std::time::Duration;

use redis::{Cmd, Value, cmd};
use redoubt::dataplane::{cache_library, load};
use redoubt::model::cache_policy::{CachePolicy, LONGEST_MILLISECONDS};
use redoubt::redis::Connection;

use crate::support::cache_calls::{
    Answer, HOUR, MINUTE, cache_call, counter, ends_in, get, get_call, lease, policy, read, server_with,
};
use crate::support::engine_process::engines;
use crate::support::eventually;
use crate::support::function_calls::{call, contents, function_call, number};

pub const KEY: &str = "web:{0}product 42\n\"}é";
pub const SOON: Duration = Duration::from_secs(10);

/// Every key has a TTL, of at most this.
pub async fn expires_within(connection: &Connection, milliseconds: u64) {
    for (key, _) in contents(connection).await {
        let left = ends_in(connection, &key).await;
        assert!(left > 0 && left.unsigned_abs() <= milliseconds, "{key} has a TTL of {left} ms");
    }
}

/// The value without the function, as clients of `redoubt_cache_check` read it.
pub async fn value_of(connection: &Connection, key: &str) -> Option<String> {
    connection.query(cmd("HGET").arg(key).arg("v")).await.unwrap()
}

#[tokio::test]
async fn what_is_absent_is_computed_by_one_caller_and_served_to_all() {
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[policy("web")], &[]).await;
        let first = get(&connection, KEY).await;
        assert_eq!((first.served(), first.milliseconds), ((0, None), 60_000), "{}", engine.name);
        for function in ["get", "check"] {
            let other = read(&connection, function, KEY).await;
            assert_eq!((other.served(), other.token.as_str()), ((-1, None), ""), "{}", engine.name);
            assert!((1..=60_000).contains(&other.milliseconds), "{other:?}");
        }
        let reader = read(&connection, "get_ro", KEY).await;
        assert_eq!(reader, Answer::default(), "it neither takes a lease nor tells of one");

        let value = "any bytes: \n\u{0}é";
        assert_eq!(cache_call(&connection, "set", KEY, &[&first.token, value]).await, 1);
        let keys: Vec<String> = connection.query(cmd("KEYS").arg("*")).await.unwrap();
        assert_eq!(keys, [KEY], "the lease has ended");
        for function in ["get", "get_ro"] {
            assert_eq!(read(&connection, function, KEY).await.served(), (1, Some(value)), "{}", engine.name);
        }
        assert_eq!(read(&connection, "check", KEY).await.served(), (1, None));
        assert_eq!(value_of(&connection, KEY).await.as_deref(), Some(value));
        assert_eq!(
            cache_call(&connection, "set", KEY, &[&first.token, "late"]).await,
            0,
            "a token is good for one set"
        );
        assert_eq!(get(&connection, KEY).await.served(), (1, Some(value)));
        expires_within(&connection, HOUR).await;
    }
}

#[tokio::test]
async fn a_fresh_answer_has_two_parts_and_any_other_four() {
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[policy("web")], &[]).await;
        let reply = call(&connection, "cache_get", &[KEY], &[]).await.unwrap();
        let Value::Array(parts) = &reply else { panic!("{reply:?}") };
        let [Value::Int(0), Value::Nil, Value::BulkString(token), Value::Int(60_000)] = &parts[..] else {
            panic!("{parts:?}")
        };
        let token = String::from_utf8(token.clone()).unwrap();
        assert!(token.split('-').count() == 2 && token.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit()));
        cache_call(&connection, "set", KEY, &[&token, ""]).await;
        let reply = call(&connection, "cache_get", &[KEY], &[]).await.unwrap();
        assert_eq!(reply, Value::Array(vec![Value::Int(1), Value::BulkString(vec![])]), "an empty value is one");
        cache_call(&connection, "negative", KEY, &[""]).await;
        let reply = call(&connection, "cache_get", &[KEY], &[]).await.unwrap();
        assert_eq!(reply, Value::Array(vec![Value::Int(4), Value::Nil]), "{}", engine.name);
    }
}

#[tokio::test]
async fn a_lease_that_ends_goes_to_another_caller_and_its_set_is_refused() {
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[CachePolicy { lease_ms: 30, ..policy("web") }], &[]).await;
        let lost = lease(&connection, KEY).await;
        let mut next = Answer::default();
        eventually("another lease", SOON, async || {
            next = get(&connection, KEY).await;
            next.verdict == 0
        })
        .await;
        assert_ne!(next.token, lost);
        assert_eq!(cache_call(&connection, "set", KEY, &[&lost, "late"]).await, 0, "{}", engine.name);
        assert_eq!(cache_call(&connection, "fail", KEY, &[&lost]).await, 0);
        // It may have ended too, on a busy machine.
        let stored = cache_call(&connection, "set", KEY, &[&next.token, "value"]).await;
        assert!(stored == 1 || get(&connection, KEY).await.verdict <= 0);
        assert_eq!(counter(&connection, "web:", "refused").await, 2 - stored);
    }
}

#[tokio::test]
async fn what_is_stale_is_served_while_one_caller_refreshes_it_until_its_hard_end() {
    for engine in engines() {
        let short = CachePolicy { ttl_ms: 20, stale_ms: HOUR, ..policy("web") };
        let brief = CachePolicy { ttl_ms: 20, stale_ms: 200, ..policy("api") };
        let (_process, connection) = server_with(&engine, &[short, brief], &[]).await;
        cache_call(&connection, "set", KEY, &["", "old"]).await;
        assert!(ends_in(&connection, KEY).await <= 3_600_020);
        let mut first = Answer::default();
        eventually("the end of the TTL", SOON, async || {
            first = get(&connection, KEY).await;
            first.verdict != 1
        })
        .await;
        assert_eq!((first.served(), first.milliseconds), ((3, Some("old")), 60_000), "{}", engine.name);
        let other = get(&connection, KEY).await;
        assert_eq!((other.served(), other.token.as_str()), ((2, Some("old")), ""));
        assert!((1..=60_000).contains(&other.milliseconds));
        let reader = read(&connection, "get_ro", KEY).await;
        assert_eq!((reader.served(), reader.milliseconds), ((2, Some("old")), 0));
        assert_eq!(read(&connection, "check", KEY).await.served(), (2, None));
        assert_eq!(cache_call(&connection, "set", KEY, &[&first.token, "new", "3600000"]).await, 1);
        assert_eq!(get(&connection, KEY).await.served(), (1, Some("new")));

        cache_call(&connection, "set", "api:{0}a", &["", "old"]).await;
        eventually("the hard end", SOON, async || get(&connection, "api:{0}a").await.verdict <= 0).await;
        assert_eq!(get(&connection, "api:{0}a").await.served(), (-1, None));
        assert_eq!(value_of(&connection, "api:{0}a").await, None, "{}", engine.name);
        expires_within(&connection, HOUR + 24 * HOUR).await;
    }
}

#[tokio::test]
async fn a_source_that_is_down_is_asked_by_one_caller_after_each_pause() {
    for engine in engines() {
        let stale = CachePolicy { ttl_ms: 20, stale_ms: HOUR, ..policy("web") };
        let (_process, connection) = server_with(&engine, &[stale, policy("api")], &[]).await;
        cache_call(&connection, "set", KEY, &["", "old"]).await;
        eventually("the end of the TTL", SOON, async || read(&connection, "get_ro", KEY).await.verdict == 2).await;
        for (key, value, pause) in [(KEY, Some("old"), 2), ("api:{0}a", None, -2)] {
            let token = lease(&connection, key).await;
            assert_eq!(cache_call(&connection, "fail", key, &[&token, "600001"]).await, 1);
            let told = get(&connection, key).await;
            assert_eq!((told.served(), told.token.as_str()), ((pause, value), ""), "{} {key}", engine.name);
            assert!((590_000..=600_000).contains(&told.milliseconds), "{told:?}");
            for token in [token.as_str(), "!", "1-1"] {
                assert_eq!(cache_call(&connection, "set", key, &[token, "x"]).await, 0, "{token} is not the lease's");
                assert_eq!(cache_call(&connection, "fail", key, &[token]).await, 0);
            }
            assert_eq!(number(&connection, "cache_invalidate", &["web:{0}other"], &[]).await, 0);
            let ended = format!("{}@l:{}", &key[..7], &key[7..]);
            assert_eq!(connection.query::<i64>(cmd("DEL").arg(&ended)).await.unwrap(), 1, "{ended}");

            let token = lease(&connection, key).await;
            assert_eq!(cache_call(&connection, "fail", key, &[&token, "20"]).await, 1);
            eventually("the end of the pause", SOON, async || !get(&connection, key).await.token.is_empty()).await;
            // What is written by who knows it ends the pause too.
            connection.query::<()>(cmd("DEL").arg(&ended)).await.unwrap();
            let token = lease(&connection, key).await;
            assert_eq!(cache_call(&connection, "fail", key, &[&token]).await, 1);
            assert_eq!(cache_call(&connection, "set", key, &["", "new", "3600000"]).await, 1);
            assert_eq!(get(&connection, key).await.served(), (1, Some("new")));
        }
        assert_eq!(counter(&connection, "web:", "failures").await, 3);
        assert!(counter(&connection, "api:", "failed").await >= 1);
        expires_within(&connection, 25 * HOUR).await;
    }
}

#[tokio::test]
async fn it_is_remembered_for_a_while_that_there_is_no_value() {
    for engine in engines() {
        let (_process, connection) =
            server_with(&engine, &[CachePolicy { stale_ms: HOUR, ..policy("web") }], &[]).await;
        let token = lease(&connection, KEY).await;
        assert_eq!(cache_call(&connection, "negative", KEY, &[&token, "shoes"]).await, 1);
        assert!(ends_in(&connection, KEY).await <= 60_000, "it is never stale");
        for function in ["get", "get_ro", "check"] {
            assert_eq!(read(&connection, function, KEY).await.served(), (4, None), "{} {function}", engine.name);
        }
        assert_eq!(cache_call(&connection, "negative", KEY, &[&token]).await, 0);
        cache_call(&connection, "invalidate_tag", "web:{0}", &["shoes"]).await;
        let token = lease(&connection, KEY).await;
        number(&connection, "cache_invalidate", &[KEY], &[]).await;
        assert_eq!(cache_call(&connection, "negative", KEY, &[&token]).await, 0, "it may be there by now");
        assert_eq!(cache_call(&connection, "set", KEY, &["", "there"]).await, 1);
        assert_eq!(get(&connection, KEY).await.served(), (1, Some("there")));
    }
}

/// As a page that needs thirty entries does: each of the calls of one write has its own answer, and its own lease.
#[tokio::test]
async fn thirty_entries_are_read_and_stored_in_one_write_each() {
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[policy("web")], &[]).await;
        let keys: Vec<String> = (0..30).map(|entry| format!("web:{{{entry}}}a")).collect();
        let send = async |commands: Vec<Cmd>| -> Vec<Value> {
            connection.query_all(&commands).await.unwrap().into_iter().map(Result::unwrap).collect()
        };
        let gets = || keys.iter().map(|key| get_call(key)).collect();
        let leases: Vec<Answer> = send(gets()).await.into_iter().map(Answer::read).collect();
        assert!(leases.iter().all(|answer| answer.verdict == 0), "{}: {leases:?}", engine.name);
        let tokens: BTreeSet<&str> = leases.iter().map(|answer| answer.token.as_str()).collect();
        assert_eq!(tokens.len(), 30);
        let sets =
            keys.iter().zip(&leases).map(|(key, lease)| function_call("cache_set", &[key], &[&lease.token, key]));
        assert_eq!(send(sets.collect()).await, vec![Value::Int(1); 30], "{}", engine.name);
        for (key, answer) in keys.iter().zip(send(gets()).await) {
            assert_eq!(Answer::read(answer).served(), (1, Some(key.as_str())), "{}", engine.name);
        }
    }
}

#[tokio::test]
async fn chance_only_shortens_a_ttl_and_none_is_above_the_longest() {
    for engine in engines() {
        let chance = CachePolicy { jitter_percent: 50, stale_ms: MINUTE, ..policy("web") };
        let longest = CachePolicy {
            ttl_ms: LONGEST_MILLISECONDS,
            max_ttl_ms: LONGEST_MILLISECONDS,
            stale_ms: LONGEST_MILLISECONDS,
            ..policy("api")
        };
        let (_process, connection) = server_with(&engine, &[chance, longest], &[]).await;
        for (given, most) in [("", 3_600_000), ("7200000", 7_200_000), ("999999999999999", 86_400_000)] {
            let mut seen = Vec::new();
            for name in 0..200 {
                let key = format!("web:{{0}}{name}");
                cache_call(&connection, "set", &key, &["", "value", given]).await;
                let fresh = ends_in(&connection, &key).await - 60_000;
                assert!(fresh > most / 2 - 10_000 && fresh <= most, "{}: {fresh} of {most}", engine.name);
                seen.push(fresh);
            }
            let (first, last) = (seen.iter().min().unwrap(), seen.iter().max().unwrap());
            assert!(last - first > most / 4, "from {first} to {last} is no spread");
        }
        cache_call(&connection, "set", "api:{0}a", &["", "value", "", "tag"]).await;
        let left = ends_in(&connection, "api:{0}a").await;
        assert!(left.unsigned_abs() > 2 * LONGEST_MILLISECONDS - MINUTE, "{left}");
        assert_eq!(get(&connection, "api:{0}a").await.served(), (1, Some("value")), "{}", engine.name);
    }
}

/// A computation that takes half of the TTL would be refreshed all the time by its own measure.
#[tokio::test]
async fn a_slow_value_is_refreshed_before_its_end_and_only_by_one_caller() {
    for engine in engines() {
        let eager = CachePolicy { ttl_ms: 2_000, early_percent: 1_000, ..policy("web") };
        let (_process, connection) = server_with(&engine, &[eager, policy("api")], &[]).await;
        let token = lease(&connection, KEY).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
        cache_call(&connection, "set", KEY, &[&token, "slow"]).await;
        let mut early = Answer::default();
        eventually("an early refresh", SOON, async || {
            early = get(&connection, KEY).await;
            early.verdict != 1
        })
        .await;
        assert_eq!(early.served(), (3, Some("slow")), "{}", engine.name);
        assert_eq!(counter(&connection, "web:", "early").await, 1);
        for _ in 0..100 {
            let other = get(&connection, KEY).await;
            assert!(other.token.is_empty(), "{other:?}");
        }
        assert_eq!(cache_call(&connection, "set", KEY, &[&early.token, "new"]).await, 1);
    }
}

#[tokio::test]
async fn counters_say_what_readers_were_told_and_writers_did() {
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[policy("web"), policy("api")], &[]).await;
        let token = lease(&connection, KEY).await;
        get(&connection, KEY).await;
        cache_call(&connection, "fail", KEY, &[&token]).await;
        get(&connection, KEY).await;
        cache_call(&connection, "set", KEY, &[&token, "x"]).await;
        cache_call(&connection, "set", KEY, &["", "x"]).await;
        get(&connection, KEY).await;
        read(&connection, "check", KEY).await;
        cache_call(&connection, "negative", KEY, &[""]).await;
        read(&connection, "get_ro", KEY).await;
        number(&connection, "cache_invalidate", &[KEY, "web:{0}b"], &[]).await;
        cache_call(&connection, "invalidate_tag", "web:{0}", &["a"]).await;
        let rows: Vec<(String, Vec<i64>)> = {
            let reply = call(&connection, "caches_counters", &[], &[]).await.unwrap();
            let Value::Array(rows) = reply else { panic!("{reply:?}") };
            // The first is the number of the load.
            rows.into_iter()
                .skip(1)
                .map(|row| {
                    let Value::Array(mut row) = row else { panic!("{row:?}") };
                    let name = redis::from_redis_value(row.remove(0)).unwrap();
                    (name, redis::from_redis_value(Value::Array(row)).unwrap())
                })
                .collect()
        };
        assert_eq!(rows, [("shop/web".to_owned(), vec![2, 0, 1, 1, 1, 1, 0, 2, 1, 1, 3])], "{}", engine.name);
        let expected = [("hits", 2), ("negative", 1), ("misses", 1), ("waits", 1), ("failed", 1), ("sets", 2)];
        for (name, count) in expected.into_iter().chain([("refused", 1), ("failures", 1), ("invalidations", 3)]) {
            assert_eq!(counter(&connection, "web:", name).await, count, "{} {name}", engine.name);
        }
        assert_eq!(counter(&connection, "api:", "hits").await, 0);
    }
}

#[tokio::test]
async fn every_namespace_is_found_by_its_prefix_and_tells_its_generation() {
    for engine in engines() {
        let policies: Vec<CachePolicy> =
            (0..2_000).map(|number| CachePolicy { generation: number, ..policy(&format!("p{number}")) }).collect();
        let (_process, connection) = server_with(&engine, &policies, &[]).await;
        for number in [0, 63, 64, 1_234, 1_999] {
            let told = call(&connection, "caches_policy", &[], &[&format!("p{number}:")]).await.unwrap();
            assert_eq!(told, Value::BulkString(number.to_string().into_bytes()), "{}", engine.name);
        }
        for absent in ["p2000:", "p1", "p1:\t1 60 shop/p1", "", "x\np1:"] {
            assert_eq!(call(&connection, "caches_policy", &[], &[absent]).await.unwrap(), Value::Nil, "{absent:?}");
        }
        assert_eq!(get(&connection, "p1999:{a}b").await.verdict, 0);
        // On a layer of another namespace the namespace comes before the prefix: 63 + 1 + 64 characters.
        let prefix = format!("{}/{}:", "n".repeat(63), "p".repeat(63));
        load(&connection, &cache_library(&[policy("web").with_prefix(prefix.clone())])).await.unwrap();
        assert_eq!(get(&connection, &format!("{prefix}{{a}}b")).await.verdict, 0, "{}", engine.name);
    }
}
