//! The session library: the functions of `lua/session_functions.lua` with the policies of a layer's stores compiled in.
//!
//! Knows how a policy is written in its row. Must not know where policies come from; what the functions take and answer is said
//! at each of them in the Lua source.

use crate::model::{OnExceed, SessionPolicy, UseKind};

use super::library::Library;
use super::template::{Row, Template};

pub(crate) const LIBRARY: &str = UseKind::SessionStore.words().library;
/// The library without policies.
pub const TEMPLATE: Template = Template {
    name: LIBRARY,
    things: include_str!("lua/sessions.lua"),
    functions: include_str!("lua/session_functions.lua"),
};
/// A hundred years. Lua's numbers are exact up to 2^53, and a server takes no expiry beyond 2^63 ms.
const LONGEST_MILLISECONDS: u64 = 100 * 366 * 24 * 3600 * 1000;

/// The library of a layer whose stores have these policies. The order of the policies makes no difference.
pub fn session_library(policies: &[SessionPolicy]) -> Library {
    TEMPLATE.library(policies.iter().map(row))
}

/// A policy as words, which the library takes apart at their first use.
fn row(policy: &SessionPolicy) -> Row {
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
    Row::new(prefix, &format!("{generation} {idle} {absolute} {touch} {cap} {on_exceed} {store}"))
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
    fn policies_are_compiled_in_by_prefix_and_their_order_makes_no_difference() {
        let (one, other) = (policy("web:", "shop/web"), policy("api:", "shop/api"));
        let library = session_library(&[one.clone(), other.clone()]);
        assert_eq!(library, session_library(&[other.clone(), one]));
        assert!(library.source.contains(
            "'\\napi:\\t3 1800000 3162240000000 60000 5 Reject shop/api\\nweb:\\t3 1800000 3162240000000 60000 5 Reject \
             shop/web\\n',\n"
        ));
        assert_ne!(library.digest, session_library(&[other]).digest);
    }

    #[test]
    fn the_library_names_itself_and_answers_its_digest() {
        let library = session_library(&[]);
        assert!(library.source.starts_with(&format!("#!lua name={LIBRARY}\n")));
        assert!(library.source.contains(&format!("'{LIBRARY}_digest'")));
        assert!(library.source.contains(&format!("local DIGEST = '{}'", library.digest)));
        assert!(!library.source.contains("@PAGES@"));
    }

    #[test]
    fn the_functions_count_what_the_model_names_in_its_order() {
        let columns = UseKind::SessionStore.words().counters.unwrap();
        let names: Vec<String> =
            columns.names.iter().zip(2..).map(|((name, _), place)| format!("{name} = {place}")).collect();
        assert!(TEMPLATE.things.contains(&format!("local COLUMNS = {{{}}}\n", names.join(", "))), "{names:?}");
    }
}
