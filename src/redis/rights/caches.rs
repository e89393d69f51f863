//! The rights of a cache's user.

use super::rules::{KEYS_OF_ITS_OWN, Rights};

/// What the functions need is among the commands of every use; stock cache libraries work under the prefix with the others. The
/// functions that tell of all caches are the operator's.
pub(super) const RIGHTS: Rights = Rights {
    commands: KEYS_OF_ITS_OWN,
    functions: &[
        ("redoubt_cache_get", false),
        ("redoubt_cache_get_ro", true),
        ("redoubt_cache_check", false),
        ("redoubt_cache_set", false),
        ("redoubt_cache_set_if_version", false),
        ("redoubt_cache_negative", false),
        ("redoubt_cache_fail", false),
        ("redoubt_cache_invalidate", false),
        ("redoubt_cache_invalidate_tag", false),
        ("redoubt_cache_invalidate_prefix", false),
        ("redoubt_cache_stats", true),
        ("redoubt_caches_position", true),
        ("redoubt_caches_digest", true),
    ],
    expectations: &[
        "+FCALL redoubt_caches_digest 0",
        "+FCALL_RO redoubt_caches_digest 0",
        "+FCALL_RO redoubt_caches_position 0",
        "+FCALL redoubt_cache_get 1 @{a}b",
        "+FCALL redoubt_cache_get_ro 1 @{a}b",
        "+FCALL_RO redoubt_cache_get_ro 1 @{a}b",
        "+FCALL redoubt_cache_check 1 @{a}b",
        "+FCALL redoubt_cache_set 1 @{a}b t v",
        "+FCALL redoubt_cache_set_if_version 1 @{a}b 1 v",
        "+FCALL redoubt_cache_negative 1 @{a}b t",
        "+FCALL redoubt_cache_fail 1 @{a}b t",
        "+FCALL redoubt_cache_invalidate 2 @{a}b @{a}c",
        "+FCALL redoubt_cache_invalidate_tag 1 @{a} t",
        "+FCALL redoubt_cache_invalidate_prefix 1 @{@jobs} @",
        "+FCALL_RO redoubt_cache_stats 1 @{a}",
        "-FCALL_RO redoubt_cache_stats 1 !{a}",
        "-FCALL redoubt_cache_get 1 !{a}b",
        "-FCALL redoubt_cache_set 1 !{a}b t v",
        "-FCALL redoubt_cache_invalidate 2 @{a}b !{a}b",
        "-FCALL redoubt_cache_invalidate_prefix 1 !{@jobs} !",
        "-FCALL_RO redoubt_cache_get_ro 1 !{a}b",
        "-FCALL redoubt_caches_remove 1 @{a}b",
        "-FCALL redoubt_caches_counters 0",
        "-FCALL REDOUBT_CACHES_COUNTERS 0",
        "-FCALL_RO redoubt_caches_counters 0",
        "-FCALL redoubt_caches_policy 0 @",
        "-FLUSHDB",
    ],
};
