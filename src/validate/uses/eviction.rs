//! The eviction matrix: which `maxmemory-policy` of a layer each kind of use can live with, and what was measured.

use crate::model::UseKind;

/// Why a use of this kind cannot live with an eviction policy; `None`: it can.
///
/// Measured for sessions (`docs/uses/sessions.md`): 20,000 sessions, 2,000 limits and a flood of 100,000 cache entries in 24 MiB.
pub fn objection(kind: UseKind, policy: &str) -> Option<&'static str> {
    match kind {
        UseKind::SessionStore => sessions(policy),
        UseKind::RateLimitPolicy => limits(policy),
        // Functions are no keys: no server evicts them.
        UseKind::FunctionLibrary => None,
    }
}

/// The policies that a use of this kind can live with, for a message.
pub const fn suitable(kind: UseKind) -> &'static str {
    match kind {
        UseKind::SessionStore => "noeviction or volatile-ttl",
        UseKind::RateLimitPolicy => "volatile-ttl or noeviction",
        UseKind::FunctionLibrary => "any policy",
    }
}

/// Sessions are neither to be evicted for other keys nor among each other.
fn sessions(policy: &str) -> Option<&'static str> {
    match policy {
        "noeviction" | "volatile-ttl" => None,
        "allkeys-lru" => Some("measured, a cache flood left 34 of 20,000 sessions"),
        "volatile-lru" => Some("every session has a TTL: measured, a cache flood left 18 of 20,000 sessions"),
        "volatile-lfu" => Some("every session has a TTL: measured, a cache flood left 2,377 of 20,000 sessions"),
        _ if policy.starts_with("allkeys-") => {
            Some("any key may go: under allkeys-lru a cache flood left 34 of 20,000 sessions")
        }
        _ => Some("every session has a TTL: under volatile-lru a cache flood left 18 of 20,000 sessions"),
    }
}

/// The TTL of a limit's state is what it still owes, so `volatile-ttl` forgets who matters least. Measured in 24 MiB with 2,000
/// subjects that had used all of an hourly limit, and 250,000 that call once.
fn limits(policy: &str) -> Option<&'static str> {
    match policy {
        "noeviction" | "volatile-ttl" => None,
        _ if policy.starts_with("allkeys-") => {
            Some("measured under allkeys-lru, 250,000 new subjects left 319 of 2,000 that had used up their limit")
        }
        _ => Some("every state has a TTL: it forgets subjects that have used up their limit like any other"),
    }
}
