//! The largest keys. One pass measures few of many keys, and each pass others: a key that was found to be large is looked at again in
//! each pass that follows, so what is told converges to the largest of all.

use std::collections::BTreeSet;
use std::fmt;

use super::prefixes::Prefixes;
use super::report::{LargeKey, MOST_LARGEST, short_hash};

/// What the passes before found. It holds names of keys, which its `Debug` form hides.
#[derive(Clone, Default)]
pub(crate) struct LargeKeySearch {
    passes: u64,
    known: BTreeSet<Vec<u8>>,
}

impl LargeKeySearch {
    /// Passes before this one.
    pub(crate) fn passes(&self) -> u64 {
        self.passes
    }

    /// Whether a key was among the largest of the pass before.
    pub(crate) fn knows(&self, key: &[u8]) -> bool {
        self.known.contains(key)
    }
}

impl fmt::Debug for LargeKeySearch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "LargeKeySearch({} passes, {} keys)", self.passes, self.known.len())
    }
}

/// The largest keys that a pass has measured so far, the largest first. It holds their names, which its `Debug` form hides.
#[derive(Clone, Default)]
pub(super) struct Largest(Vec<Large>);

#[derive(Clone)]
struct Large {
    key: Vec<u8>,
    place: Option<usize>,
    bytes: u64,
}

impl Largest {
    /// Notes the size of a key, bytes. `place`: that of its prefix.
    pub(super) fn note(&mut self, key: &[u8], place: Option<usize>, bytes: u64) {
        let is_large = self.0.len() < MOST_LARGEST || self.0.last().is_some_and(|least| least.bytes < bytes);
        if !is_large {
            return;
        }
        // A key may be listed twice while the server resizes its table.
        self.0.retain(|known| known.key != key);
        self.0.push(Large { key: key.to_vec(), place, bytes });
        self.0.sort_by(|one, other| other.bytes.cmp(&one.bytes).then_with(|| one.key.cmp(&other.key)));
        self.0.truncate(MOST_LARGEST);
    }

    pub(super) fn keys(&self, prefixes: &Prefixes) -> Vec<LargeKey> {
        let hashed = |Large { key, place, bytes }: &Large| {
            let prefix = place.map(|place| prefixes.text(place).to_owned()).unwrap_or_default();
            LargeKey { key: short_hash(key), prefix, bytes: *bytes }
        };
        self.0.iter().map(hashed).collect()
    }

    /// For the pass after that which went by `search`.
    pub(super) fn next_search(&self, search: &LargeKeySearch) -> LargeKeySearch {
        LargeKeySearch {
            passes: search.passes.wrapping_add(1),
            known: self.0.iter().map(|large| large.key.clone()).collect(),
        }
    }
}

impl fmt::Debug for Largest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Largest({} keys)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{CountedKey, DeclaredPrefix, DeclaredPrefixes, Expiry, Tally};
    use super::*;

    fn web() -> Arc<Prefixes> {
        let prefixes = vec![DeclaredPrefix { prefix: "web:".to_owned(), ..DeclaredPrefix::default() }];
        Arc::new(Prefixes::new(&DeclaredPrefixes { prefixes, ..DeclaredPrefixes::default() }))
    }

    #[test]
    fn the_largest_key_is_found_within_sixteen_passes_and_is_reported_until_it_is_gone() {
        const KEYS: usize = 20_000;
        for place in [0, 999, 1_000, 12_345, KEYS - 1] {
            let (mut search, mut first_told) = (LargeKeySearch::default(), None);
            for pass in 0..40 {
                let mut tally = Tally::new(web(), false, search);
                // It is gone in the end.
                for number in (0..KEYS).filter(|number| *number != place || pass < 30) {
                    let key = format!("web:{number}");
                    if let Some(found) = tally.count(key.as_bytes(), Expiry::Ends).filter(CountedKey::is_measured) {
                        tally.measure(found, key.as_bytes(), if number == place { 5_000_000 } else { 100 });
                    }
                }
                let largest = tally.report().largest;
                let is_told = largest[0].bytes == 5_000_000;
                assert!(!is_told || largest[0].key == short_hash(format!("web:{place}").as_bytes()));
                if is_told {
                    first_told.get_or_insert(pass);
                }
                assert_eq!(is_told, pass < 30 && first_told.is_some(), "key {place} in pass {pass}");
                search = tally.next_search();
                assert!(!format!("{search:?} {tally:?}").contains("web:1"), "no name of a key gets into a log");
            }
            assert!(first_told.is_some_and(|pass| pass < 16), "key {place}: {first_told:?}");
        }
    }

    /// A key that is measured only because it was large is no part of the sample.
    #[test]
    fn what_was_large_before_makes_no_sum_larger() {
        let pass = |search| {
            let mut tally = Tally::new(web(), false, search);
            for number in 0..17_000 {
                let key = format!("web:{number}");
                if let Some(found) = tally.count(key.as_bytes(), Expiry::Ends).filter(CountedKey::is_measured) {
                    tally.measure(found, key.as_bytes(), if number == 1_000 { 1_000_000 } else { 100 });
                }
            }
            tally
        };
        let first = pass(LargeKeySearch::default());
        let next = pass(first.next_search());
        assert_eq!((first.report().largest[0].bytes, next.report().largest[0].bytes), (1_000_000, 1_000_000));
        // One in sixteen was the large one in the first pass, and none in the next.
        assert_eq!((first.report().bytes, next.report().bytes), (1_699_900 + 16 * 999_900 + 100, 1_700_000));
    }
}
