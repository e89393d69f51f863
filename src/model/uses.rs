//! The kinds of use that a layer serves, as data: one row of words for each. What differs between kinds otherwise is an exhaustive
//! `match`, which the compiler asks for when a kind is added. Few files may name a kind (`tests/it/kinds_of_use.rs`); all others ask
//! the table for a fact.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cache_policy::CachePolicy;
use super::columns::{Columns, ReadColumns};
use super::function_library::{self, LibraryPolicy, LibrarySource};
use super::limit_policy::LimitPolicy;
use super::{Purpose, SessionPolicy};

/// A kind of use. (The default is only what `kube` needs to name an object in a cache of one kind.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UseKind {
    /// Login sessions.
    #[default]
    SessionStore,
    /// Limits of how often something may be done.
    RateLimitPolicy,
    /// Copies of data that has its home elsewhere.
    CacheNamespace,
    /// Lua functions of a user's own.
    FunctionLibrary,
}

/// What a kind is called, and what its objects are named after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    /// `kind` of the custom resource.
    pub kind: &'static str,
    /// Its plural, as in the path of the API.
    pub plural: &'static str,
    /// What messages call an object of the kind.
    pub noun: &'static str,
    /// What messages call the data of the kind.
    pub data: &'static str,
    /// What the names of its users begin with, if it has any; a dot follows. Also the short name of the resource.
    pub user: &'static str,
    /// The dedicated layer is named `NAME-` and this.
    pub layer_suffix: &'static str,
    /// The binding Secret is named `NAME-` and this.
    pub binding_suffix: &'static str,
    /// Standard component label; also a part of what each password is derived from, so it never changes.
    pub component: &'static str,
    /// Name of the function library; of a kind each use of which has a library of its own, what their names begin with.
    pub library: &'static str,
    /// Purpose of a dedicated layer.
    pub purpose: Purpose,
    /// What the function library counts, and tells by its function `<library>_counters`; `None`: nothing.
    pub counters: Option<Columns>,
}

impl UseKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::SessionStore, Self::RateLimitPolicy, Self::CacheNamespace, Self::FunctionLibrary];

    /// The words of the kind.
    pub const fn words(self) -> &'static Words {
        match self {
            Self::SessionStore => &Words {
                kind: "SessionStore",
                plural: "sessionstores",
                noun: "store",
                data: "sessions",
                user: "ss",
                layer_suffix: "sessions",
                binding_suffix: "session-binding",
                component: "session-store",
                library: "redoubt_sessions",
                purpose: Purpose::Sessions,
                counters: Some(Columns {
                    part: None,
                    names: &[
                        ("created", "Sessions that began"),
                        ("read", "Sessions that were read"),
                        ("renewed", "Sessions whose idle timeout began again"),
                        ("revoked", "Sessions that were ended"),
                        ("rejected", "Sessions refused because their user has as many as it may"),
                        ("evicted", "Sessions ended because their user has a newer one"),
                        ("missed", "Reads of sessions that ended or never were"),
                    ],
                    reads: None,
                }),
            },
            Self::RateLimitPolicy => &Words {
                kind: "RateLimitPolicy",
                plural: "ratelimitpolicies",
                noun: "policy",
                data: "what is counted",
                user: "rlp",
                layer_suffix: "limits",
                binding_suffix: "limit-binding",
                component: "rate-limit-policy",
                library: "redoubt_limits",
                purpose: Purpose::RateLimits,
                counters: Some(Columns {
                    part: Some("limit"),
                    names: &[
                        ("allowed", "Calls that the limit admitted"),
                        ("denied", "Calls that the limit denied"),
                        ("shadowed", "Calls that the limit would have denied if it were no shadow"),
                    ],
                    reads: None,
                }),
            },
            // Not "namespace": messages speak of those of Kubernetes too.
            Self::CacheNamespace => &Words {
                kind: "CacheNamespace",
                plural: "cachenamespaces",
                noun: "cache",
                data: "entries",
                user: "cns",
                layer_suffix: "cache",
                binding_suffix: "cache-binding",
                component: "cache-namespace",
                library: "redoubt_caches",
                purpose: Purpose::Cache,
                counters: Some(Columns {
                    part: None,
                    names: &[
                        ("hits", "Reads of a fresh value"),
                        ("stale", "Reads of a stale value"),
                        ("negative", "Reads of what is known to have no value"),
                        ("misses", "Reads of an absent entry"),
                        ("waits", "Reads of an absent entry while another caller computed it"),
                        ("failed", "Reads of an absent entry while the source was down"),
                        ("early", "Leases before the end of an entry"),
                        ("sets", "Entries that were stored"),
                        ("refused", "Sets that an invalidation or another set overtook"),
                        ("failures", "Calls that marked the source as down"),
                        ("invalidations", "Messages of invalidation"),
                    ],
                    reads: Some(ReadColumns {
                        found: &["hits", "stale", "negative"],
                        absent: &["misses", "waits", "failed"],
                    }),
                }),
            },
            Self::FunctionLibrary => &Words {
                kind: "FunctionLibrary",
                plural: "functionlibraries",
                noun: "library",
                data: "functions",
                user: "fnl",
                layer_suffix: "functions",
                binding_suffix: "function-binding",
                component: "function-library",
                library: function_library::LIBRARY_PREFIX,
                purpose: Purpose::Mixed,
                counters: None,
            },
        }
    }

    /// Whether a use of the kind has keys, and so a prefix, a user and a binding Secret.
    pub const fn has_user(self) -> bool {
        match self {
            Self::SessionStore | Self::RateLimitPolicy | Self::CacheNamespace => true,
            Self::FunctionLibrary => false,
        }
    }

    /// Whether each use of the kind has a function library of its own, and not the kind one for all.
    pub(crate) const fn has_library_per_use(self) -> bool {
        match self {
            Self::SessionStore | Self::RateLimitPolicy | Self::CacheNamespace => false,
            Self::FunctionLibrary => true,
        }
    }

    /// The order in which keys should go when memory is full, the lowest first: caches, sessions, limits. (Functions are no keys.)
    pub(crate) const fn eviction_order(self) -> u8 {
        match self {
            Self::CacheNamespace => 0,
            Self::SessionStore => 1,
            Self::RateLimitPolicy => 2,
            Self::FunctionLibrary => 3,
        }
    }

    /// The kind of this name; `None`: it is no use.
    pub fn of(kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.words().kind == kind)
    }

    /// The kind of the user of this name; `None`: it is no use's.
    pub(crate) fn of_user(user: &str) -> Option<Self> {
        let (prefix, _) = user.split_once('.')?;
        Self::ALL.into_iter().find(|known| known.words().user == prefix)
    }
}

/// What a use that is served should know of its layer. Nothing waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// Reason of the condition: one word.
    pub reason: &'static str,
    /// What is the case and what would change it, for the condition.
    pub message: String,
}

/// What the functions on the servers carry out for one use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Policy {
    /// Of a session store.
    Sessions(SessionPolicy),
    /// Of a rate limit policy.
    Limits(LimitPolicy),
    /// Of a cache namespace.
    Caches(CachePolicy),
    /// Of a function library: the functions themselves.
    Functions(LibraryPolicy),
}

impl Policy {
    pub(crate) const fn kind(&self) -> UseKind {
        match self {
            Self::Sessions(_) => UseKind::SessionStore,
            Self::Limits(_) => UseKind::RateLimitPolicy,
            Self::Caches(_) => UseKind::CacheNamespace,
            Self::Functions(_) => UseKind::FunctionLibrary,
        }
    }

    /// The use, `NAMESPACE/NAME`.
    pub fn owner(&self) -> &str {
        match self {
            Self::Sessions(policy) => &policy.store,
            Self::Limits(policy) => &policy.declared().policy,
            Self::Caches(policy) => &policy.owner,
            Self::Functions(policy) => &policy.owner,
        }
    }

    /// `metadata.generation` of the use that this was made from.
    pub fn generation(&self) -> i64 {
        match self {
            Self::Sessions(policy) => policy.generation,
            Self::Limits(policy) => policy.declared().generation,
            Self::Caches(policy) => policy.generation,
            Self::Functions(policy) => policy.generation,
        }
    }

    /// What each key of the use begins with; empty: it has no keys.
    pub fn prefix(&self) -> &str {
        match self {
            Self::Sessions(policy) => &policy.prefix,
            Self::Limits(policy) => &policy.declared().prefix,
            Self::Caches(policy) => &policy.prefix,
            Self::Functions(_) => "",
        }
    }

    /// A channel of the use's own whose name does not begin with its prefix.
    pub fn channel(&self) -> Option<&str> {
        match self {
            Self::Caches(policy) => Some(&policy.channel),
            Self::Sessions(_) | Self::Limits(_) | Self::Functions(_) => None,
        }
    }

    /// The lifetime that a key of the use gets which was written without one, milliseconds: the longest of a session or of what a limit
    /// counts, and that of an entry for which none is chosen. `None`: it has no keys.
    pub(crate) fn lifetime_milliseconds(&self) -> Option<u64> {
        match self {
            Self::Sessions(policy) => Some(policy.absolute_lifetime_milliseconds),
            Self::Caches(policy) => Some(policy.ttl_ms),
            Self::Limits(policy) => policy.longest_milliseconds(),
            Self::Functions(_) => None,
        }
    }

    /// How long the keys of the use live while none of them is used again: of two uses on a layer with `volatile-ttl`, the one whose keys live
    /// shorter loses them first. `None`: it has no keys.
    pub(crate) fn idle_lifetime(&self) -> Option<Duration> {
        let milliseconds = match self {
            Self::Sessions(policy) => policy.idle_timeout_milliseconds,
            Self::Limits(policy) => {
                policy.declared().limits.iter().map(|limit| limit.window_milliseconds).max().unwrap_or_default()
            }
            Self::Caches(policy) => policy.max_ttl_ms.saturating_add(policy.stale_ms),
            Self::Functions(_) => return None,
        };
        Some(Duration::from_millis(milliseconds))
    }

    /// Where the use's own library comes from; `None`: it has none.
    pub(crate) const fn library_source(&self) -> Option<&LibrarySource> {
        match self {
            Self::Functions(policy) => Some(&policy.source),
            Self::Sessions(_) | Self::Limits(_) | Self::Caches(_) => None,
        }
    }

    /// The limits of the use; `None`: it limits nothing.
    pub(crate) const fn limits(&self) -> Option<&LimitPolicy> {
        match self {
            Self::Limits(policy) => Some(policy),
            Self::Sessions(_) | Self::Caches(_) | Self::Functions(_) => None,
        }
    }

    /// The same policy under another prefix.
    #[must_use]
    pub(crate) fn with_prefix(self, prefix: String) -> Self {
        match self {
            Self::Sessions(policy) => Self::Sessions(SessionPolicy { prefix, ..policy }),
            Self::Limits(policy) => Self::Limits(policy.with_prefix(prefix)),
            Self::Caches(policy) => Self::Caches(policy.with_prefix(prefix)),
            Self::Functions(policy) => Self::Functions(policy),
        }
    }

    /// The policy as JSON, of which the digest in status is made: that of its own kind, without a tag.
    pub(crate) fn json(&self) -> String {
        match self {
            Self::Sessions(policy) => serde_json::to_string(policy),
            Self::Limits(policy) => serde_json::to_string(policy),
            Self::Caches(policy) => serde_json::to_string(policy),
            Self::Functions(policy) => serde_json::to_string(policy),
        }
        .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::OnExceed;
    use crate::model::limit_policy::{Algorithm, Limit, LimitMode, LimitPolicyDraft};

    #[test]
    fn no_two_kinds_share_a_word_that_names_an_object() {
        for (index, one) in UseKind::ALL.iter().enumerate() {
            let one_words = one.words();
            assert_eq!(UseKind::of(one_words.kind), Some(*one));
            assert_eq!(UseKind::of_user(&format!("{}.shop.web", one_words.user)), Some(*one));
            for other in &UseKind::ALL[index + 1..] {
                let other = other.words();
                let names = |words: &Words| {
                    [
                        words.kind,
                        words.plural,
                        words.user,
                        words.layer_suffix,
                        words.binding_suffix,
                        words.component,
                        words.library,
                    ]
                };
                assert!(names(one_words).iter().zip(names(other)).all(|(one, other)| *one != other), "{one_words:?}");
            }
        }
        assert_eq!(
            (UseKind::of_user("app"), UseKind::of_user("redoubt-agent"), UseKind::of("DataLayer")),
            (None, None, None)
        );
    }

    #[test]
    fn a_key_without_an_expiry_gets_the_lifetime_that_its_use_declares() {
        let limit = |name: &str, window_milliseconds| Limit {
            name: name.to_owned(),
            algorithm: Algorithm::FixedWindow,
            quota: 10,
            window_milliseconds,
            mode: LimitMode::Enforce,
        };
        let draft = LimitPolicyDraft {
            policy: "shop/api".to_owned(),
            generation: 1,
            prefix: "api:".to_owned(),
            mode: LimitMode::Enforce,
            count_denied: false,
            shards: 1,
            limits: vec![limit("minute", 60_000), limit("hour", 3_600_000), limit("second", 1_000)],
        };
        let sessions = SessionPolicy {
            store: "shop/login".to_owned(),
            generation: 1,
            prefix: "login:".to_owned(),
            idle_timeout_milliseconds: 60_000,
            absolute_lifetime_milliseconds: 86_400_000,
            touch_interval_milliseconds: 1_000,
            max_per_user: None,
            on_exceed: OnExceed::Reject,
        };
        let caches = CachePolicy {
            owner: "shop/web".to_owned(),
            generation: 1,
            prefix: "web:".to_owned(),
            ttl_ms: 600_000,
            max_ttl_ms: 3_600_000,
            jitter_percent: 10,
            stale_ms: 86_400_000,
            negative_ms: 5_000,
            lease_ms: 2_000,
            early_percent: 100,
            max_entry_bytes: 1 << 20,
            channel: "cache:invalidate:web:".to_owned(),
        };
        let source = LibrarySource::Inline(String::new());
        let functions = LibraryPolicy { owner: "shop/own".to_owned(), generation: 1, source };
        for (policy, lifetime) in [
            (Policy::Sessions(sessions), Some(86_400_000)),
            (Policy::Limits(LimitPolicy::parse(draft).unwrap()), Some(3_600_000)),
            (Policy::Caches(caches), Some(600_000)),
            (Policy::Functions(functions), None),
        ] {
            assert_eq!(policy.lifetime_milliseconds(), lifetime, "{policy:?}");
        }
    }
}
