//! The caches' library: the functions of `lua/cache_functions.lua` with the policies of a layer's cache namespaces compiled in.
//!
//! Knows how a policy is written in its row. Must not know where policies come from; what the functions take and answer is said
//! at each of them in the Lua source.

use crate::model::UseKind;
use crate::model::cache_policy::CachePolicy;

use super::library::Library;
use super::template::{Row, Template};

pub(crate) const LIBRARY: &str = UseKind::CacheNamespace.words().library;
/// The library without policies.
pub const TEMPLATE: Template = Template {
    name: LIBRARY,
    things: include_str!("lua/caches.lua"),
    functions: include_str!("lua/cache_functions.lua"),
};

/// The library of a layer that has these namespaces. The order of the policies makes no difference.
pub fn cache_library(policies: &[CachePolicy]) -> Library {
    TEMPLATE.library(policies.iter().map(row))
}

/// `GENERATION TTL MAX_TTL JITTER STALE NEGATIVE LEASE EARLY BYTES NAMESPACE/NAME CHANNEL`: times in milliseconds, shares in
/// percent.
fn row(policy: &CachePolicy) -> Row {
    let CachePolicy {
        owner,
        generation,
        prefix,
        ttl_ms,
        max_ttl_ms,
        jitter_percent,
        stale_ms,
        negative_ms,
        lease_ms,
        early_percent,
        max_entry_bytes,
        channel,
    } = policy;
    let numbers = format!("{generation} {ttl_ms} {max_ttl_ms} {jitter_percent} {stale_ms} {negative_ms} {lease_ms}");
    Row::new(prefix, &format!("{numbers} {early_percent} {max_entry_bytes} {owner} {channel}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cache_policy::CHANNEL;

    #[test]
    fn a_policy_is_compiled_in_with_its_channel() {
        let policy = CachePolicy {
            owner: "shop/web".to_owned(),
            generation: 3,
            prefix: "web:".to_owned(),
            ttl_ms: 60_000,
            max_ttl_ms: 86_400_000,
            jitter_percent: 10,
            stale_ms: 3_600_000,
            negative_ms: 5_000,
            lease_ms: 2_000,
            early_percent: 100,
            max_entry_bytes: 1 << 20,
            channel: format!("{CHANNEL}web:"),
        };
        let library = cache_library(&[policy]);
        let row = "\\nweb:\\t3 60000 86400000 10 3600000 5000 2000 100 1048576 shop/web cache:invalidate:web:\\n";
        assert!(library.source.contains(row), "{}", &library.source[..1_500]);
        assert!(library.source.starts_with(&format!("#!lua name={LIBRARY}\n")));
        assert!(library.source.contains(&format!("'{LIBRARY}_digest'")));
    }

    #[test]
    fn the_functions_count_what_the_model_names_in_its_order() {
        let columns = UseKind::CacheNamespace.words().counters.unwrap();
        let names: Vec<String> = columns.names.iter().map(|(name, _)| format!("'{name}'")).collect();
        assert!(TEMPLATE.things.contains(&format!("local COLUMNS = {{\n  {},\n}}\n", names.join(", "))), "{names:?}");
    }
}
