//! The declared prefixes of a layer, and which of them a key begins with.

use serde::{Deserialize, Serialize};

/// Version of [`DeclaredPrefixes`]. An agent that meets a newer one goes by no list.
pub const PREFIXES_FORMAT: u32 = 1;

/// What is done about keys without an expiry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuditMode {
    /// They are counted.
    #[default]
    Report,
    /// Those under a declared prefix get the lifetime of their use.
    Repair,
}

/// What the operator tells the agents of a layer's uses, as JSON among the secrets of each data node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeclaredPrefixes {
    /// [`PREFIXES_FORMAT`] of the writer.
    pub format: u32,
    /// What is done about keys without an expiry.
    pub mode: AuditMode,
    /// The prefixes of all uses.
    pub prefixes: Vec<DeclaredPrefix>,
}

/// What a pass found of one prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrefixAudit {
    /// Keys that begin with the prefix.
    pub keys: u64,
    /// Keys without an expiry; our own are left out.
    pub without_expiry: u64,
    /// Bytes, estimated.
    pub bytes: u64,
    /// With a probability of 95 % the true sum is at most this far from [`Self::bytes`].
    pub bytes_error: u64,
    /// Bytes that the use may take; `None`: as much as there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_bytes: Option<u64>,
}

/// The memory that the keys of a use may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemoryBudget {
    /// Bytes that they may take together.
    pub bytes: u64,
    /// Whether the agent of the primary removes keys above it.
    pub shrinks: bool,
}

impl MemoryBudget {
    /// Whether what was found is above it, even if the estimate is off by its error.
    pub(crate) fn is_exceeded_by(self, found: PrefixAudit) -> bool {
        found.bytes.saturating_sub(found.bytes_error) > self.bytes
    }
}

/// The prefix of one use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeclaredPrefix {
    /// What each key of the use begins with.
    pub prefix: String,
    /// The longest that a key of the use may live, milliseconds. `None`: it is not known, and no key is given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_milliseconds: Option<u64>,
    /// The memory that its keys may take. `None`: as much as there is. (An agent of before knows none.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<MemoryBudget>,
    /// Whether the use left. What keys of it are still there is counted, and they count as outside. (An agent of before knows none.)
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
}

/// The prefixes in an order in which that of a key is found by bisection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefixes {
    sorted: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    prefix: String,
    lifetime_milliseconds: Option<u64>,
    budget: Option<MemoryBudget>,
    left: bool,
    /// The longest other prefix that begins this one. No two uses have such prefixes; a file may.
    within: Option<usize>,
}

impl Prefixes {
    /// Of a list. An empty prefix, which would be that of every key, is left out.
    pub(crate) fn new(declared: &DeclaredPrefixes) -> Self {
        let mut list: Vec<&DeclaredPrefix> = declared.prefixes.iter().filter(|it| !it.prefix.is_empty()).collect();
        list.sort_by(|one, other| one.prefix.cmp(&other.prefix));
        list.dedup_by(|one, other| one.prefix == other.prefix);
        let mut sorted: Vec<Entry> = Vec::with_capacity(list.len());
        for DeclaredPrefix { prefix, lifetime_milliseconds, budget, left } in list {
            let mut within = sorted.len().checked_sub(1);
            while let Some(index) = within.filter(|index| !prefix.starts_with(&sorted[*index].prefix)) {
                within = sorted[index].within;
            }
            let (lifetime_milliseconds, budget, left) = (*lifetime_milliseconds, *budget, *left);
            sorted.push(Entry { prefix: prefix.clone(), lifetime_milliseconds, budget, left, within });
        }
        Self { sorted }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// The place of the longest prefix that a key begins with, below [`Self::len`].
    pub(crate) fn of(&self, key: &[u8]) -> Option<usize> {
        // All between the longest prefix of a key and the key begin with that prefix: so it is the last that is not behind the
        // key, or what that one is within.
        let mut found = self.sorted.partition_point(|entry| entry.prefix.as_bytes() <= key).checked_sub(1);
        while let Some(index) = found.filter(|index| !key.starts_with(self.sorted[*index].prefix.as_bytes())) {
            found = self.sorted[index].within;
        }
        found
    }

    pub(crate) fn text(&self, place: usize) -> &str {
        self.sorted.get(place).map_or("", |entry| &entry.prefix)
    }

    /// The longest that a key of the use at a place may live, milliseconds.
    pub(crate) fn lifetime(&self, place: usize) -> Option<u64> {
        self.sorted.get(place)?.lifetime_milliseconds
    }

    /// Whether the use at a place left.
    pub(crate) fn has_left(&self, place: usize) -> bool {
        self.sorted.get(place).is_some_and(|entry| entry.left)
    }

    /// The memory that the keys of the use at a place may take.
    pub(crate) fn budget(&self, place: usize) -> Option<MemoryBudget> {
        self.sorted.get(place)?.budget
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefixes(list: &[String]) -> Prefixes {
        let prefixes = list.iter().map(|prefix| DeclaredPrefix {
            prefix: prefix.clone(),
            lifetime_milliseconds: u64::try_from(prefix.len()).ok(),
            ..DeclaredPrefix::default()
        });
        Prefixes::new(&DeclaredPrefixes { prefixes: prefixes.collect(), ..DeclaredPrefixes::default() })
    }

    #[test]
    fn a_key_is_found_among_ten_thousand_prefixes() {
        let list: Vec<String> = (0..10_000).map(|number| format!("shop/web{number}:")).collect();
        let prefixes = prefixes(&list);
        assert_eq!(prefixes.len(), 10_000);
        for prefix in &list {
            let place = prefixes.of(format!("{prefix}{{ada}}s:1").as_bytes());
            assert_eq!(place.map(|place| prefixes.text(place)), Some(prefix.as_str()));
        }
        for key in ["", "shop/web", "shop/web1", "shop/web10000:a", "zoo:a", "a"] {
            assert_eq!(prefixes.of(key.as_bytes()), None, "{key}");
        }
    }

    proptest! {
        #[test]
        fn the_prefix_of_a_key_is_the_longest_that_it_begins_with(
            list in prop::collection::vec("[ab:]{0,5}", 0..12),
            key in prop::collection::vec(prop::sample::select(b"ab:\xff\x00".to_vec()), 0..8),
        ) {
            let prefixes = prefixes(&list);
            let expected = list
                .iter()
                .filter(|prefix| !prefix.is_empty() && key.starts_with(prefix.as_bytes()))
                .max_by_key(|prefix| prefix.len());
            let found = prefixes.of(&key);
            prop_assert_eq!(found.map(|place| prefixes.text(place)), expected.map(String::as_str));
            let lifetime = expected.and_then(|prefix| u64::try_from(prefix.len()).ok());
            prop_assert_eq!(found.and_then(|place| prefixes.lifetime(place)), lifetime);
        }
    }
}
