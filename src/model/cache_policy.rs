//! What a cache namespace promises, as the functions on the server carry it out: numbers that are already judged, and between which
//! bounds they are.

use serde::{Deserialize, Serialize};

pub use super::limit_policy::LONGEST_MILLISECONDS;

/// The largest share of a TTL, in percent, that chance may take off.
pub(crate) const MOST_JITTER_PERCENT: u8 = 90;
/// The shortest time, in milliseconds, for which one caller may compute a value.
pub(crate) const SHORTEST_LEASE_MS: u64 = 10;
/// The longest time, in milliseconds, for which one caller may compute a value.
pub(crate) const LONGEST_LEASE_MS: u64 = 600_000;
/// The largest factor of early refreshes, in percent.
pub(crate) const MOST_EARLY_PERCENT: u16 = 1_000;
/// The largest value of an entry in bytes: a server passes one through Lua in some 4 ms, and serves no other caller meanwhile.
pub(crate) const LARGEST_ENTRY_BYTES: u32 = 2 << 20;
/// What the name of a channel begins with unless the namespace names another; the namespace's prefix follows.
pub const CHANNEL: &str = "cache:invalidate:";

/// The policy of one `CacheNamespace`, compiled into the caches' library of its layer.
///
/// Rules: every time in it is at most [`LONGEST_MILLISECONDS`]; the channel ends with the prefix and has no character of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CachePolicy {
    /// The namespace, `NAMESPACE/NAME`: for people and counters.
    pub owner: String,
    /// `metadata.generation` of the namespace that this was made from.
    pub generation: i64,
    /// What each key of the namespace begins with; ends with `:`, holds no brace, quote or space, and begins no other's.
    pub prefix: String,
    /// How long an entry is fresh unless its writer says otherwise. Milliseconds, above 0, at most `max_ttl_ms`.
    pub ttl_ms: u64,
    /// How long any entry is fresh at most. Milliseconds.
    pub max_ttl_ms: u64,
    /// The share of a TTL that chance takes off at most: 0 to [`MOST_JITTER_PERCENT`].
    pub jitter_percent: u8,
    /// How long an entry is served after its TTL while a caller computes it, or the source is down. Milliseconds; 0: not at all.
    pub stale_ms: u64,
    /// How long it is remembered that there is no value. Milliseconds, at most `max_ttl_ms`; 0: such sets are refused.
    pub negative_ms: u64,
    /// For how long one caller computes before another may. [`SHORTEST_LEASE_MS`] to [`LONGEST_LEASE_MS`].
    pub lease_ms: u64,
    /// How early values that were slow to compute are refreshed before their TTL ends, the β of XFetch in percent: 0 to
    /// [`MOST_EARLY_PERCENT`]; 0: never.
    pub early_percent: u16,
    /// Bytes of a value at most: 1 to [`LARGEST_ENTRY_BYTES`].
    pub max_entry_bytes: u32,
    /// Where invalidations are published.
    pub channel: String,
}

impl CachePolicy {
    /// The same policy for keys that begin with another prefix, which admission has judged. The channel ends with it too.
    #[must_use]
    pub fn with_prefix(self, prefix: String) -> Self {
        let begins = self.channel.strip_suffix(self.prefix.as_str()).unwrap_or(CHANNEL);
        Self { channel: format!("{begins}{prefix}"), prefix, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_channel_moves_with_the_prefix() {
        let policy = CachePolicy {
            owner: "shop/web".to_owned(),
            generation: 1,
            prefix: "web:".to_owned(),
            ttl_ms: 60_000,
            max_ttl_ms: 86_400_000,
            jitter_percent: 10,
            stale_ms: 0,
            negative_ms: 5_000,
            lease_ms: 5_000,
            early_percent: 100,
            max_entry_bytes: 1 << 20,
            channel: "news:web:".to_owned(),
        };
        let moved = policy.clone().with_prefix("shop/web:".to_owned());
        assert_eq!((moved.prefix.as_str(), moved.channel.as_str()), ("shop/web:", "news:shop/web:"));
        assert_eq!(moved.with_prefix("web:".to_owned()), policy);
    }
}
