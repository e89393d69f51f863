//! The session library: the functions of `lua/session_functions.lua` with the policies of a layer's stores compiled in.
//!
//! Knows how a policy is written in Lua. Must not know where policies come from; what the functions take and answer is said
//! at each of them in the Lua source.

use std::fmt::Write as _;

use crate::model::{OnExceed, SessionPolicy, UseKind};

use super::library::Library;

/// Name of the library.
pub const LIBRARY: &str = UseKind::SessionStore.words().library;
/// The source without policies, in two files: what a session is, and the functions.
pub const TEMPLATE: &str = concat!(include_str!("lua/sessions.lua"), include_str!("lua/session_functions.lua"));
/// Where the policies go in [`TEMPLATE`].
const POLICIES_PLACE: &str = "@POLICIES@\n";
/// A hundred years. Lua's numbers are exact up to 2^53, and a server takes no expiry beyond 2^63 ms.
const LONGEST_MILLISECONDS: u64 = 100 * 366 * 24 * 3600 * 1000;

/// The library of a layer whose stores have these policies. The order of the policies makes no difference.
pub fn session_library(policies: &[SessionPolicy]) -> Library {
    let mut sorted: Vec<&SessionPolicy> = policies.iter().collect();
    sorted.sort_by(|one, other| one.prefix.cmp(&other.prefix).then_with(|| one.cmp(other)));
    let mut table = String::with_capacity(96 * sorted.len());
    for policy in sorted {
        write_policy(&mut table, policy);
    }
    Library::from_template(LIBRARY, &TEMPLATE.replacen(POLICIES_PLACE, &table, 1))
}

/// One entry of the table: the prefix, and the policy as words, which the library takes apart at their first use. Tables
/// would take the server twice as long to load.
fn write_policy(table: &mut String, policy: &SessionPolicy) {
    let SessionPolicy {
        store,
        generation,
        prefix,
        idle_timeout_milliseconds,
        absolute_lifetime_milliseconds,
        touch_interval_milliseconds,
        max_per_user,
        on_exceed,
    } = policy;
    let [idle, absolute, touch] =
        [idle_timeout_milliseconds, absolute_lifetime_milliseconds, touch_interval_milliseconds]
            .map(|milliseconds| (*milliseconds).min(LONGEST_MILLISECONDS));
    let cap = max_per_user.map(|cap| cap.to_string()).unwrap_or_default();
    let on_exceed = match on_exceed {
        OnExceed::EvictOldest => "EvictOldest",
        OnExceed::Reject => "Reject",
    };
    table.push('[');
    write_string(table, prefix);
    table.push_str("]=");
    write_string(table, &format!("{generation} {idle} {absolute} {touch} {cap} {on_exceed} {store}"));
    table.push_str(",\n");
}

/// A Lua string literal. Every byte that could mean something to Lua, or to the templates, is a decimal escape.
fn write_string(source: &mut String, text: &str) {
    source.push('\'');
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b" :/-_.".contains(&byte) {
            source.push(char::from(byte));
        } else {
            let _ = write!(source, "\\{byte:03}"); // writing to a string cannot fail
        }
    }
    source.push('\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(prefix: &str, store: &str) -> SessionPolicy {
        SessionPolicy {
            store: store.to_owned(),
            generation: 3,
            prefix: prefix.to_owned(),
            idle_timeout_milliseconds: 1_800_000,
            absolute_lifetime_milliseconds: u64::MAX,
            touch_interval_milliseconds: 60_000,
            max_per_user: Some(5),
            on_exceed: OnExceed::Reject,
        }
    }

    #[test]
    fn a_string_cannot_leave_its_quotes() {
        let mut literal = String::new();
        write_string(&mut literal, "web:']=1}\n\\os.exit()--[[@DIGEST@é\0");
        assert_eq!(
            literal,
            "'web:\\039\\093\\0611\\125\\010\\092os.exit\\040\\041--\\091\\091\\064DIGEST\\064\\195\\169\\000'"
        );
    }

    #[test]
    fn policies_are_compiled_in_by_prefix_and_their_order_makes_no_difference() {
        let (one, other) = (policy("web:", "shop/web"), policy("api:", "shop/api"));
        let library = session_library(&[one.clone(), other.clone()]);
        assert_eq!(library, session_library(&[other.clone(), one]));
        assert!(library.source.contains(
            "\n['api:']='3 1800000 3162240000000 60000 5 Reject shop/api',\n['web:']='3 1800000 3162240000000 60000 5 Reject \
             shop/web',\n}"
        ));
        assert_ne!(library.digest, session_library(&[other]).digest);
    }

    #[test]
    fn the_library_names_itself_and_answers_its_digest() {
        let library = session_library(&[]);
        assert!(library.source.starts_with(&format!("#!lua name={LIBRARY}\n")));
        assert!(library.source.contains(&format!("'{LIBRARY}_digest'")));
        assert!(library.source.contains(&format!("local DIGEST = '{}'", library.digest)));
        assert!(!library.source.contains("@POLICIES@"));
    }
}
