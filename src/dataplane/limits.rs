//! The limits' library: the functions of `lua/limit_functions.lua` with the rate limit policies of a layer compiled in.
//!
//! Knows how a policy is written in its row. Must not know where policies come from; what the functions take and answer is said
//! at each of them in the Lua source.

use std::fmt::Write as _;

use crate::model::UseKind;
use crate::model::limit_policy::{LimitMode, LimitPolicy};

use super::library::Library;
use super::template::{Row, Template};

pub(crate) const LIBRARY: &str = UseKind::RateLimitPolicy.words().library;
/// The library without policies.
pub const TEMPLATE: Template = Template {
    name: LIBRARY,
    things: include_str!("lua/limits.lua"),
    functions: include_str!("lua/limit_functions.lua"),
};

/// The library of a layer that has these policies. The order of the policies makes no difference.
pub fn limit_library(policies: &[LimitPolicy]) -> Library {
    TEMPLATE.library(policies.iter().map(row))
}

/// `GENERATION MODE COUNTDENIED NAMESPACE/NAME|NAME ALGORITHM QUOTA WINDOW_MS BURST MODE|…`, with the numbers of one shard.
fn row(policy: &LimitPolicy) -> Row {
    let declared = policy.declared();
    let (mode, denied) = (letter(declared.mode), u8::from(declared.count_denied));
    let mut text = format!("{} {mode} {denied} {}", declared.generation, declared.policy);
    for limit in policy.of_one_key() {
        let burst = limit.algorithm.burst().unwrap_or(limit.quota);
        let (algorithm, mode) = (limit.algorithm.letter(), letter(limit.mode));
        // Writing to a string cannot fail.
        let _ =
            write!(text, "|{} {algorithm} {} {} {burst} {mode}", limit.name, limit.quota, limit.window_milliseconds);
    }
    Row::new(&declared.prefix, &text)
}

fn letter(mode: LimitMode) -> char {
    match mode {
        LimitMode::Enforce => 'E',
        LimitMode::Shadow => 'S',
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::limit_policy::{Algorithm, Limit, LimitPolicyDraft};

    #[test]
    fn a_policy_is_compiled_in_with_the_numbers_of_one_shard() {
        let limit = |name: &str, algorithm, mode| Limit {
            name: name.to_owned(),
            algorithm,
            quota: 100,
            window_milliseconds: 60_000,
            mode,
        };
        let draft = LimitPolicyDraft {
            policy: "shop/api".to_owned(),
            generation: 3,
            prefix: "api:".to_owned(),
            mode: LimitMode::Enforce,
            count_denied: true,
            shards: 8,
            limits: vec![
                limit("login", Algorithm::Gcra { burst: 20 }, LimitMode::Enforce),
                limit("day", Algorithm::SlidingLog { max_entries: 1_000 }, LimitMode::Shadow),
            ],
        };
        let library = limit_library(&[LimitPolicy::parse(draft).unwrap()]);
        let row = "\napi:\t3 E 1 shop/api|login g 12 60000 2 E|day l 12 60000 12 S\n";
        assert!(library.source.contains(&row.escape_default().to_string()), "{}", &library.source[..1_500]);
        assert!(library.source.starts_with(&format!("#!lua name={LIBRARY}\n")));
        assert!(library.source.contains(&format!("'{LIBRARY}_digest'")));
    }
}
