//! What an invalidation reaches, and what it leaves, on every engine.

use redis::cmd;
use redoubt::dataplane::{cache_library, load};
use redoubt::model::cache_policy::CachePolicy;

use crate::caches_functions::{KEY, SOON, expires_within, value_of};
use crate::support::cache_calls::{HOUR, cache_call, ends_in, get, lease, policy, read, server_with};
use crate::support::engine_process::engines;
use crate::support::eventually;
use crate::support::function_calls::{call, number};

#[tokio::test]
async fn a_set_that_an_invalidation_overtook_is_refused() {
    let tag_key = "web:{0}@t:shoes";
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[policy("web")], &[]).await;
        let invalidate = async || number(&connection, "cache_invalidate", &[KEY], &[]).await;
        let invalidate_tag = async |tag| cache_call(&connection, "invalidate_tag", "web:{0}", &[tag]).await;
        let evict = async |key: &str| connection.query::<i64>(cmd("DEL").arg(key)).await.unwrap();

        let token = lease(&connection, KEY).await;
        assert_eq!(invalidate().await, 0);
        assert_eq!(cache_call(&connection, "set", KEY, &[&token, "old"]).await, 0, "{}: by key", engine.name);
        assert_eq!(get(&connection, KEY).await.verdict, 0, "the lease was ended: another caller computes at once");
        invalidate().await;

        // Also by a tag that no entry had yet, and where its generation was evicted since.
        for evicts in [false, true] {
            let token = lease(&connection, KEY).await;
            assert_eq!(invalidate_tag("shoes").await, 1);
            assert_eq!(evict(tag_key).await * i64::from(evicts), i64::from(evicts));
            if !evicts {
                invalidate_tag("shoes").await;
            }
            let found = cache_call(&connection, "set", KEY, &[&token, "old", "", "shoes"]).await;
            assert_eq!(found, 0, "{}: by tag, evicted: {evicts}", engine.name);
            assert_eq!(read(&connection, "get_ro", KEY).await.verdict, 0);
        }

        // Without an invalidation an evicted generation hinders no set, and what was computed since is taken.
        let token = lease(&connection, KEY).await;
        assert_eq!(cache_call(&connection, "set", KEY, &[&token, "new", "", "shoes"]).await, 1, "{}", engine.name);
        assert_eq!(get(&connection, KEY).await.served(), (1, Some("new")));
        let (one, other) = (lease(&connection, "web:{0}b").await, lease(&connection, "web:{0}c").await);
        assert_eq!(evict(tag_key).await, 1);
        assert_eq!(read(&connection, "get_ro", KEY).await.verdict, 0, "it is not known whether it is valid");
        assert_eq!(cache_call(&connection, "set", "web:{0}c", &[&other, "c", "", "shoes"]).await, 1);
        assert_eq!(cache_call(&connection, "set", "web:{0}b", &[&one, "b", "", "shoes"]).await, 1);

        // A generation of a server whose clock was ahead hinders no set, and is one of this clock from then on.
        let (seconds, micros): (u64, u64) = connection.query(&cmd("TIME")).await.unwrap();
        let ahead = (seconds + 3_600) * 1_000_000 + micros;
        connection.query::<()>(cmd("SET").arg(tag_key).arg(ahead).arg("PX").arg(HOUR)).await.unwrap();
        assert_eq!(get(&connection, KEY).await.verdict, 0, "it is not the one that was stored with the entry");
        let token = lease(&connection, "web:{0}h").await;
        assert_eq!(cache_call(&connection, "set", "web:{0}h", &[&token, "h", "", "shoes"]).await, 1, "{}", engine.name);
        assert_eq!(get(&connection, "web:{0}h").await.served(), (1, Some("h")));
        assert!(connection.query::<u64>(cmd("GET").arg(tag_key)).await.unwrap() < ahead);

        // A set without a lease is what its writer knows.
        let token = lease(&connection, "web:{0}d").await;
        assert_eq!(cache_call(&connection, "set", "web:{0}d", &["", "written"]).await, 1);
        assert_eq!(cache_call(&connection, "set", "web:{0}d", &[&token, "computed"]).await, 0);
        assert_eq!(get(&connection, "web:{0}d").await.served(), (1, Some("written")));

        // A lease of another run: its primary may have invalidated what this one does not know of.
        let (token, untagged) = (lease(&connection, "web:{0}e").await, lease(&connection, "web:{0}g").await);
        load(&connection, &cache_library(&[CachePolicy { generation: 2, ..policy("web") }])).await.unwrap();
        assert_eq!(cache_call(&connection, "set", "web:{0}e", &[&token, "e", "", "shoes"]).await, 0);
        // By prefix everything may have been, whatever its tags.
        assert_eq!(cache_call(&connection, "set", "web:{0}g", &[&untagged, "g"]).await, 0, "{}", engine.name);
        assert_eq!(get(&connection, "web:{0}g").await.verdict, 0, "another caller computes at once");
        let token = lease(&connection, "web:{0}f").await;
        assert_eq!(cache_call(&connection, "set", "web:{0}f", &[&token, "f", "", "shoes"]).await, 1);
        expires_within(&connection, 48 * HOUR).await;
    }
}

/// As a library does under a prefix that the functions use too: the entry is gone, and a computation that is under way is stored.
#[tokio::test]
async fn a_plain_del_of_an_entry_leaves_its_lease() {
    for engine in engines() {
        let (_process, connection) =
            server_with(&engine, &[CachePolicy { ttl_ms: 20, stale_ms: HOUR, ..policy("web") }], &[]).await;
        cache_call(&connection, "set", KEY, &["", "old", "", "shoes"]).await;
        let mut token = String::new();
        eventually("the end of the TTL", SOON, async || {
            token = get(&connection, KEY).await.token;
            !token.is_empty()
        })
        .await;
        assert_eq!(connection.query::<i64>(cmd("DEL").arg(KEY)).await.unwrap(), 1);
        assert_eq!(get(&connection, KEY).await.served(), (-1, None), "{}: another caller computes", engine.name);
        assert_eq!(cache_call(&connection, "set", KEY, &[&token, "new", "", "shoes"]).await, 1);
        assert_eq!(value_of(&connection, KEY).await.as_deref(), Some("new"));
        expires_within(&connection, 2 * 25 * HOUR).await;
    }
}

#[tokio::test]
async fn a_tag_reaches_all_of_its_group_and_no_other() {
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[policy("web"), policy("api")], &[]).await;
        let tags: Vec<String> = (0..64).map(|tag| format!("tag {tag} é")).collect();
        let longest = "t".repeat(128);
        let mut all: Vec<&str> = vec!["", "value", ""];
        all.extend(tags.iter().map(String::as_str));
        for key in ["web:{0}all", "web:{1}all", "api:{0}all"] {
            assert_eq!(cache_call(&connection, "set", key, &all).await, 1);
        }
        cache_call(&connection, "set", "web:{0}one", &["", "value", "", &tags[7]]).await;
        cache_call(&connection, "set", "web:{0}other", &["", "value", "", "other", &longest]).await;
        for key in ["web:{0}all", "web:{0}one", "web:{0}other"] {
            assert_eq!(get(&connection, key).await.served(), (1, Some("value")), "{} {key}", engine.name);
        }
        assert_eq!(cache_call(&connection, "invalidate_tag", "web:{0}", &[&tags[7], "unknown"]).await, 2);
        for (key, verdict) in
            [("web:{0}all", 0), ("web:{0}one", 0), ("web:{0}other", 1), ("web:{1}all", 1), ("api:{0}all", 1)]
        {
            assert_eq!(read(&connection, "get_ro", key).await.verdict, verdict, "{} {key}", engine.name);
            assert_eq!(read(&connection, "check", key).await.verdict, verdict, "{} {key}", engine.name);
        }
        assert_eq!(cache_call(&connection, "invalidate_tag", "web:{0}", &[&longest]).await, 1);
        assert_eq!(get(&connection, "web:{0}other").await.verdict, 0);
        // Each set lets the generation live for longer than the entry can.
        let left = ends_in(&connection, &format!("web:{{0}}@t:{longest}")).await;
        assert!(left > 47 * 3_600_000, "{left}");
        expires_within(&connection, 48 * HOUR).await;
    }
}

#[tokio::test]
async fn an_older_version_is_never_stored_over_a_later_one_also_after_an_invalidation() {
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[policy("web")], &[]).await;
        let set = async |version: &str, value: &str| {
            cache_call(&connection, "set_if_version", KEY, &[version, value, "", "shoes"]).await
        };
        assert_eq!(set("5", "five").await, 1);
        for (version, stored) in [("4", 0), ("5", 0), ("000000000000006", 1), ("5", 0)] {
            assert_eq!(set(version, version).await, stored, "{} {version}", engine.name);
        }
        assert_eq!(get(&connection, KEY).await.served(), (1, Some("000000000000006")));
        let before = ends_in(&connection, KEY).await;
        assert_eq!(number(&connection, "cache_invalidate", &[KEY], &[]).await, 1);
        assert_eq!(number(&connection, "cache_invalidate", &[KEY], &[]).await, 0, "there is no entry any more");
        assert!((1..=before).contains(&ends_in(&connection, KEY).await), "for the rest of its TTL");
        assert_eq!(value_of(&connection, KEY).await.as_deref(), Some(""));
        assert_eq!(set("6", "again").await, 0, "{}", engine.name);
        let token = lease(&connection, KEY).await;
        assert_eq!(set("7", "seven").await, 1);
        assert_eq!(cache_call(&connection, "set", KEY, &[&token, "older"]).await, 0, "it ended the lease");
        // One without a version keeps it.
        assert_eq!(cache_call(&connection, "set", KEY, &["", "plain", "", "shoes"]).await, 1);
        assert_eq!(set("7", "again").await, 0);
        cache_call(&connection, "invalidate_tag", "web:{0}", &["shoes"]).await;
        assert_eq!(get(&connection, KEY).await.verdict, 0);
        assert_eq!(set("7", "again").await, 0, "{}: after its tag was invalidated", engine.name);
        assert_eq!(set("999999999999999", "last").await, 1);
        expires_within(&connection, 48 * HOUR).await;
    }
}

/// Versions are left of entries alone, and only of those that end.
#[tokio::test]
async fn what_the_agents_remove_is_gone_but_for_the_versions_of_entries() {
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[policy("web")], &[]).await;
        let versioned = ["web:{0}a", "web:{0}b"];
        for key in versioned {
            cache_call(&connection, "set_if_version", key, &["7", "value", "", "shoes"]).await;
        }
        cache_call(&connection, "set", "web:{0}plain", &["", "value"]).await;
        // Of an entry of version 7 without tags.
        let header = [&[1][..], &[0; 9], &7_f64.to_le_bytes(), &[0]].concat();
        let mut others = vec!["web:{0}plain".to_owned()];
        for (key, words) in [
            ("web:{0}string", &[&b"SET"[..], b"x"][..]),
            ("web:{0}list", &[b"RPUSH", b"x"]),
            ("web:{0}short", &[b"HSET", b"h", b"x"]),
            ("web:{0}hash", &[b"HSET", b"name", b"x"]),
            // As the entry of a version, and of no end.
            ("web:{0}endless", &[b"HSET", b"h", &header]),
            ("web:{0}@t:shoes2", &[b"SET", b"1"]),
            ("web::1:django", &[b"SET", b"x"]),
            ("web:django", &[b"HSET", b"h", &header]),
        ] {
            let mut command = cmd(std::str::from_utf8(words[0]).unwrap());
            command.arg(key).arg(&words[1..]);
            connection.query::<()>(&command).await.unwrap();
            others.push(key.to_owned());
        }
        connection.query::<()>(cmd("PEXPIRE").arg("web:django").arg(HOUR)).await.unwrap();
        let errors = async || {
            let text: String = connection.query(cmd("INFO").arg("errorstats")).await.unwrap();
            text.lines().filter(|line| line.contains("WRONGTYPE")).map(str::to_owned).collect::<Vec<_>>()
        };
        let before = errors().await;
        let keys: Vec<&str> = others.iter().map(String::as_str).chain(versioned).chain(["web:{0}gone"]).collect();
        let there = i64::try_from(keys.len() - 1).unwrap();
        assert_eq!(number(&connection, "caches_remove", &keys, &[]).await, there, "{}", engine.name);
        assert_eq!(errors().await, before, "{}: errors that an alert would tell of", engine.name);
        assert_eq!(connection.query::<i64>(cmd("EXISTS").arg(&others)).await.unwrap(), 0, "{}", engine.name);
        assert_eq!(
            number(&connection, "caches_remove", &keys, &[]).await,
            0,
            "{}: nothing is counted twice",
            engine.name
        );
        for key in versioned {
            assert_eq!(value_of(&connection, key).await.as_deref(), Some(""));
            assert_eq!(get(&connection, key).await.verdict, 0);
            for (version, stored) in [("6", 0), ("7", 0), ("8", 1)] {
                assert_eq!(
                    cache_call(&connection, "set_if_version", key, &[version, "x"]).await,
                    stored,
                    "{}",
                    engine.name
                );
            }
        }
        let refused = call(&connection, "caches_remove", &["web:{0}a"; 129], &[]).await.unwrap_err();
        assert!(refused.server_text().unwrap().starts_with("BADARG"), "{refused:?}");
    }
}
