//! The rights of a session store's user.

use super::rules::{KEYS_OF_ITS_OWN, Rights};

pub(super) const RIGHTS: Rights = Rights {
    commands: KEYS_OF_ITS_OWN,
    functions: &[
        ("redoubt_session_create", false),
        ("redoubt_session_get", false),
        ("redoubt_session_get_ro", true),
        ("redoubt_session_touch", false),
        ("redoubt_session_exists", true),
        ("redoubt_session_set", false),
        ("redoubt_session_revoke", false),
        ("redoubt_session_revoke_all", false),
        ("redoubt_session_list", true),
        ("redoubt_session_rotate", false),
        ("redoubt_sessions_digest", true),
    ],
    expectations: &[
        "+FCALL redoubt_sessions_digest 0",
        "+FCALL_RO redoubt_sessions_digest 0",
        "+FCALL redoubt_session_create 1 @{t}s:a ada",
        "+FCALL redoubt_session_get 1 @{t}s:a",
        "+FCALL_RO redoubt_session_list 1 @{t}u:ada",
        "-FCALL redoubt_session_get 1 !",
        "-FCALL redoubt_sessions_policies 0",
        "-FCALL redoubt_sessions_counters 0",
        "-FCALL REDOUBT_SESSIONS_COUNTERS 0",
        "-FCALL_RO redoubt_sessions_policies 0",
    ],
};
