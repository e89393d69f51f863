//! What a session store promises, as the functions on the server carry it out: numbers and words that are already judged.

use serde::{Deserialize, Serialize};

/// The policy of one session store, compiled into the session library of its layer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionPolicy {
    /// The store, `NAMESPACE/NAME`: for people and counters.
    pub store: String,
    /// `metadata.generation` of the store that this was made from.
    pub generation: i64,
    /// What each key of the store begins with; ends with `:`, holds no brace, quote or space, and begins no other store's.
    pub prefix: String,
    /// A session that is not read for this long ends. Milliseconds, above 0.
    pub idle_timeout_milliseconds: u64,
    /// A session ends this long after its creation, however often it is read. Milliseconds, at least the idle timeout.
    pub absolute_lifetime_milliseconds: u64,
    /// Reads renew a session at most this often. Milliseconds, at most the idle timeout; 0 is each read.
    pub touch_interval_milliseconds: u64,
    /// Live sessions that one user may have; `None`: any number.
    pub max_per_user: Option<u32>,
    /// What a login above [`Self::max_per_user`] does.
    pub on_exceed: OnExceed,
}

/// What a login above the cap of sessions per user does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OnExceed {
    /// The user's oldest sessions end.
    EvictOldest,
    /// The login is refused.
    Reject,
}
