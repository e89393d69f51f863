//! The eviction matrix: how each kind of use gets on with each `maxmemory-policy` of a layer, and what was measured. The generated
//! page `docs/reference/eviction.md` is this table.

use crate::model::UseKind;

/// How a kind of use gets on with an eviction policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Fine,
    /// It is served, and its status says what to expect.
    Warned,
    /// It is not served.
    Refused,
}

/// A cell of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Whether the use is served.
    pub verdict: Verdict,
    /// What it rests on: part of a sentence.
    pub ground: &'static str,
}

/// The cell of a kind and a policy.
pub fn judge(kind: UseKind, policy: &str) -> Judgement {
    let (verdict, ground) = match kind {
        UseKind::SessionStore => sessions(policy),
        UseKind::RateLimitPolicy => limits(policy),
        UseKind::CacheNamespace => caches(policy),
        UseKind::FunctionLibrary => (Verdict::Fine, "functions are no keys: no server evicts them"),
    };
    Judgement { verdict, ground }
}

/// The policies that a use of this kind can live with, for a message.
pub(crate) const fn suitable(kind: UseKind) -> &'static str {
    match kind {
        UseKind::SessionStore => "noeviction or volatile-ttl",
        UseKind::RateLimitPolicy => "volatile-ttl or noeviction",
        UseKind::CacheNamespace | UseKind::FunctionLibrary => "any policy",
    }
}

/// Sessions are neither to be evicted for other keys nor among each other. Measured with 20,000 sessions, 2,000 limits and a flood of
/// 100,000 cache entries in 24 MiB; where 1,000 sessions or 500 subjects are named, by `tests/it/caches_eviction.rs`.
fn sessions(policy: &str) -> (Verdict, &'static str) {
    match policy {
        "noeviction" => (Verdict::Fine, "measured, a cache flood left all of 20,000 sessions"),
        "volatile-ttl" => {
            (Verdict::Fine, "measured, a flood of cache entries that end sooner left 19,999 of 20,000 sessions")
        }
        "allkeys-lru" => (Verdict::Refused, "measured, a cache flood left 34 of 20,000 sessions"),
        "volatile-lru" => {
            (Verdict::Refused, "every session has a TTL: measured, a cache flood left 18 of 20,000 sessions")
        }
        "volatile-lfu" => {
            (Verdict::Refused, "every session has a TTL: measured, a cache flood left 2,377 of 20,000 sessions")
        }
        "allkeys-lfu" => (Verdict::Refused, "any key may go: measured, a cache flood left none of 1,000 sessions"),
        "allkeys-random" => (Verdict::Refused, "any key may go: measured, a cache flood left 2 of 1,000 sessions"),
        "volatile-random" => {
            (Verdict::Refused, "every session has a TTL: measured, a cache flood left 4 of 1,000 sessions")
        }
        _ => (Verdict::Refused, "it is not known to keep sessions"),
    }
}

/// The TTL of a limit's state is what it still owes, so `volatile-ttl` forgets who matters least. Measured in 24 MiB with 2,000
/// subjects that had used all of an hourly limit, and 250,000 that call once.
fn limits(policy: &str) -> (Verdict, &'static str) {
    match policy {
        "volatile-ttl" => (
            Verdict::Fine,
            "measured on every engine, 250,000 new subjects left all of 2,000 that had used up their limit, and no call failed",
        ),
        "noeviction" => (
            Verdict::Warned,
            "measured on Redis 7.0, 74,664 of 250,000 calls of new subjects failed once memory was full, and no limit can be changed then; \
             volatile-ttl lets none fail",
        ),
        "allkeys-lru" => (
            Verdict::Refused,
            "measured on Redis 7.0, 250,000 new subjects left 319 of 2,000 that had used up their limit",
        ),
        "allkeys-lfu" => (
            Verdict::Refused,
            "any key may go: measured, a cache flood left none of 500 subjects that had used up most of their limit",
        ),
        "allkeys-random" => (
            Verdict::Refused,
            "any key may go: measured, a cache flood left 1 of 500 subjects that had used up most of their limit",
        ),
        "volatile-random" => (
            Verdict::Refused,
            "every state has a TTL: measured, a cache flood left 2 of 500 subjects that had used up most of their limit",
        ),
        "volatile-lru" | "volatile-lfu" => (
            Verdict::Refused,
            "every state has a TTL: measured, a cache flood left none of 500 subjects that had used up most of their limit",
        ),
        _ => (Verdict::Refused, "it is not known to keep the state of subjects that have used up their limit"),
    }
}

/// An entry that goes is a miss. Every entry has a TTL, so each policy that drops keys with a TTL makes room. Measured with 25,000 sets of
/// 1 KiB in room for 4 MiB by `tests/it/caches_eviction.rs`.
fn caches(policy: &str) -> (Verdict, &'static str) {
    match policy {
        "noeviction" => (
            Verdict::Warned,
            "a cache that fills up refuses writes: tried, with full memory reads, leases and invalidations answer, and each set answers OOM",
        ),
        "volatile-ttl" => (
            Verdict::Fine,
            "measured, none of 25,000 sets failed: the entry nearest to its end goes, so it suits a layer of other uses too",
        ),
        "volatile-random" | "allkeys-random" => (
            Verdict::Fine,
            "measured, none of 25,000 sets failed: any entry goes, one that is read often as readily as one that is not",
        ),
        "allkeys-lfu" => (
            Verdict::Fine,
            "the default of purpose Cache: measured, none of 25,000 sets failed, and what is read least often goes",
        ),
        "allkeys-lru" => (Verdict::Fine, "measured, none of 25,000 sets failed: what was not read for longest goes"),
        "volatile-lru" | "volatile-lfu" => (
            Verdict::Fine,
            "measured, none of 25,000 sets failed: entries go, each of which has a TTL; keys of stock libraries without one stay",
        ),
        _ => (Verdict::Fine, "entries go, each of which has a TTL; keys of stock libraries without one stay"),
    }
}
