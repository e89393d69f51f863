//! The eviction matrix, measured: what a flood of cache entries leaves of the sessions and limits on the same server.

use redis::{Cmd, cmd};
use redoubt::dataplane::{cache_library, limit_library, load};
use redoubt::model::UseKind;
use redoubt::model::cache_policy::CachePolicy;
use redoubt::model::limit_policy::Algorithm;
use redoubt::redis::{Connection, server};
use redoubt::validate::uses::eviction::{Verdict, judge};

use crate::docs_reference::POLICIES;
use crate::support::engine_process::{Engine, engines};
use crate::support::function_calls::function_call;
use crate::support::{cache_calls, limit_calls, session_calls};

const SESSIONS: usize = 1_000;
const LIMITS: usize = 500;
/// Entries of 1 KiB: some 30 MB, in room for 4.
const FLOOD: usize = 25_000;
const ROOM: u64 = 4 << 20;

/// What is left, and how many sets of the flood failed.
#[derive(Debug)]
struct Left {
    sessions: usize,
    limits: usize,
    failed: usize,
}

/// Sends commands in batches; how many of the answers were errors.
async fn send(connection: &Connection, commands: impl Iterator<Item = Cmd>) -> usize {
    let commands: Vec<Cmd> = commands.collect();
    let mut failed = 0;
    for batch in commands.chunks(500) {
        failed += connection.query_all(batch).await.unwrap().iter().filter(|reply| reply.is_err()).count();
    }
    failed
}

async fn existing(connection: &Connection, keys: impl Iterator<Item = String>) -> usize {
    let keys: Vec<String> = keys.collect();
    let mut count = 0;
    for batch in keys.chunks(500) {
        count += connection.query::<usize>(cmd("EXISTS").arg(batch)).await.unwrap();
    }
    count
}

/// 1,000 sessions of an hour and 500 subjects that owe most of a day, then the flood of a cache whose entries end within ten minutes.
async fn flood(engine: &Engine, policy: &str) -> Left {
    let (_process, connection) = session_calls::server_with(engine, &[session_calls::policy("login")], &[]).await;
    let limit = limit_calls::single("api", Algorithm::Gcra { burst: 100 }, 100, 24 * cache_calls::HOUR);
    load(&connection, &limit_library(&[limit])).await.unwrap();
    let short = 10 * cache_calls::MINUTE;
    let cache = CachePolicy { ttl_ms: short, max_ttl_ms: short, ..cache_calls::policy("web") };
    load(&connection, &cache_library(&[cache])).await.unwrap();
    let session = |number: usize| format!("login:{{t{number}}}s:{number}");
    let subject = |number: usize| format!("api:{{{number}}}");
    let made = (0..SESSIONS).map(|number| {
        let key = session(number);
        function_call("session_create", &[&key], &["ada", "role", "admin"])
    });
    let _ = send(&connection, made).await;
    let used = (0..LIMITS).map(|number| function_call("limit", &[&subject(number)], &["80"]));
    assert_eq!(send(&connection, used).await, 0);
    let keys: Vec<String> = connection.query(cmd("KEYS").arg("login:*s:*")).await.unwrap();
    assert_eq!(keys.len(), SESSIONS, "{}", engine.name);

    let info = server::info(&connection).await.unwrap();
    let used = info.number("used_memory").unwrap();
    server::config_set(&connection, "maxmemory-policy", policy).await.unwrap();
    server::config_set(&connection, "maxmemory", &(used + ROOM).to_string()).await.unwrap();
    let value = "x".repeat(1_024);
    let entries = (0..FLOOD).map(|number| function_call("cache_set", &[&format!("web:{{{number}}}a")], &["", &value]));
    let failed = send(&connection, entries).await;
    Left {
        sessions: existing(&connection, (0..SESSIONS).map(session)).await,
        limits: existing(&connection, (0..LIMITS).map(|number| format!("{}g:only", subject(number)))).await,
        failed,
    }
}

#[tokio::test]
async fn a_flood_of_entries_leaves_sessions_and_limits_where_the_matrix_says_so() {
    for engine in engines() {
        for policy in POLICIES {
            let left = flood(&engine, policy).await;
            println!("{} {policy}: {left:?}", engine.name);
            for (kind, all, left) in
                [(UseKind::SessionStore, SESSIONS, left.sessions), (UseKind::RateLimitPolicy, LIMITS, left.limits)]
            {
                // The server looks at a few keys at a time, so that hardly ever one goes that is not nearest to its end.
                let is_kept = left * 1_000 >= all * 995;
                let may_stay = judge(kind, policy).verdict != Verdict::Refused;
                assert_eq!(is_kept, may_stay, "{} {policy} {kind:?}: {left} of {all}", engine.name);
                assert!(policy != "noeviction" || left == all, "{} {kind:?}: {left} of {all}", engine.name);
                // What the page says of the others is a handful. The server's samples are random: up to 26 of 500 were seen.
                assert!(may_stay || left * 10 < all, "{} {policy} {kind:?}: {left} of {all}", engine.name);
            }
            let warned = judge(UseKind::CacheNamespace, policy).verdict == Verdict::Warned;
            assert_eq!(left.failed > 0, warned, "{} {policy}: {} sets failed", engine.name, left.failed);
        }
    }
}
