//! The rights of a rate limit policy's user.

use super::rules::{KEYS_OF_ITS_OWN, Rights};

/// What the functions need is among the commands of every use; stock limiter libraries work under the prefix with the others. The
/// functions that tell of all policies are the operator's.
pub(super) const RIGHTS: Rights = Rights {
    commands: KEYS_OF_ITS_OWN,
    functions: &[
        ("redoubt_limit", false),
        ("redoubt_limit_peek", true),
        ("redoubt_limit_refund", false),
        ("redoubt_limit_reset", false),
        ("redoubt_limits_digest", true),
    ],
    expectations: &[
        "+FCALL redoubt_limits_digest 0",
        "+FCALL_RO redoubt_limits_digest 0",
        "+FCALL redoubt_limit 1 @{a}",
        "+FCALL redoubt_limit_peek 1 @{a}",
        "+FCALL_RO redoubt_limit_peek 1 @{a}",
        "+FCALL redoubt_limit_refund 1 @{a} 1",
        "+FCALL redoubt_limit_reset 1 @{a}",
        "-FCALL redoubt_limit 1 !{a}",
        "-FCALL_RO redoubt_limit_peek 1 !{a}",
        "-FCALL redoubt_limit_reset 1 !{a}",
        "-FCALL redoubt_limits_counters 0",
        "-FCALL REDOUBT_LIMITS_COUNTERS 0",
        "-FCALL_RO redoubt_limits_counters 0",
        "-FCALL redoubt_limits_policy 0 @",
    ],
};
