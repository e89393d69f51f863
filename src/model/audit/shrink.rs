//! Which keys of a prefix that takes more memory than it may are removed: those that are nearest to their end.
//!
//! One pass measures, the next removes: of each page the same share of the keys of such a prefix, nearest to their end first, until
//! what was removed makes up for it. Servers list keys in the order of a hash, so the keys of a page are as near to their end as all.

use std::collections::BTreeMap;

use super::prefixes::{PrefixAudit, Prefixes};

/// What is removed brings a prefix this far below its budget, in percent of it: keys that are written meanwhile do not have it shrunk
/// again at once.
const BELOW_PERCENT: u64 = 5;
/// Keys of one page that are removed at most.
pub(crate) const MOST_REMOVED: usize = 512;
/// Of a million.
const WHOLE: u64 = 1_000_000;

/// What is still to be removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shrink {
    goals: BTreeMap<usize, Goal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Goal {
    /// The share of each page, in millionths.
    share: u64,
    /// Bytes that are still to go.
    bytes: u64,
}

/// A key of a page that may be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Place of its prefix.
    pub place: usize,
    /// Name of the key.
    pub key: &'a [u8],
    /// How long it has to live, milliseconds; `u64::MAX`: it does not end.
    pub lifetime: u64,
}

impl Shrink {
    /// What is to be removed where a pass found so much, by prefix. Empty: nothing.
    pub(crate) fn new(prefixes: &Prefixes, found: &BTreeMap<String, PrefixAudit>) -> Self {
        let goal = |place: usize| {
            let budget = prefixes.budget(place).filter(|budget| budget.shrinks)?;
            let found = found.get(prefixes.text(place)).copied().filter(|found| budget.is_exceeded_by(*found))?;
            let (bytes, goal) = (found.bytes, budget.bytes - budget.bytes / 100 * BELOW_PERCENT);
            let excess = bytes.checked_sub(goal)?;
            let share = u128::from(excess) * u128::from(WHOLE) / u128::from(bytes.max(1));
            Some((place, Goal { share: u64::try_from(share).unwrap_or(WHOLE) + 1, bytes: excess }))
        };
        Self { goals: (0..prefixes.len()).filter_map(goal).collect() }
    }

    /// Whether nothing is to be removed any more.
    pub(crate) fn is_done(&self) -> bool {
        self.goals.is_empty()
    }

    /// The keys of a page that are to be removed, at most [`MOST_REMOVED`].
    pub(crate) fn choose<'a>(&self, prefixes: &Prefixes, page: &[Candidate<'a>]) -> Vec<Candidate<'a>> {
        let mut chosen = Vec::new();
        for (place, goal) in &self.goals {
            let prefix = prefixes.text(*place);
            let mut of_place: Vec<Candidate<'a>> = page.iter().filter(|it| it.place == *place).copied().collect();
            let count = u64::try_from(of_place.len()).unwrap_or_default().saturating_mul(goal.share).div_ceil(WHOLE);
            of_place.retain(|it| !is_kept(it.key.get(prefix.len()..).unwrap_or_default()));
            of_place.sort_by_key(|it| it.lifetime);
            chosen.extend(of_place.into_iter().take(usize::try_from(count).unwrap_or(MOST_REMOVED)));
        }
        chosen.truncate(MOST_REMOVED);
        chosen
    }

    /// Whether a key of so many bytes is still to be removed, which is taken for done.
    pub(crate) fn take(&mut self, place: usize, bytes: u64) -> bool {
        let Some(goal) = self.goals.get_mut(&place) else { return false };
        goal.bytes = goal.bytes.saturating_sub(bytes);
        if goal.bytes == 0 {
            self.goals.remove(&place);
        }
        true
    }
}

/// Whether a key, of which this follows the prefix, is no entry: leases (`{GROUP}@l:`) and generations of tags (`{GROUP}@t:`) are small,
/// and without them callers compute at once what one should, or entries are void that are not; so are jobs (`{@jobs}`).
fn is_kept(rest: &[u8]) -> bool {
    let Some(end) = rest.iter().position(|byte| *byte == b'}').filter(|_| rest.first() == Some(&b'{')) else {
        return false;
    };
    let name = &rest[end + 1..];
    rest.starts_with(b"{@jobs}") || name.starts_with(b"@l:") || name.starts_with(b"@t:")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::prefixes::{DeclaredPrefix, DeclaredPrefixes, MemoryBudget};
    use super::*;

    fn prefixes(budget: u64, shrinks: bool) -> Prefixes {
        let prefix = DeclaredPrefix {
            prefix: "web:".to_owned(),
            budget: Some(MemoryBudget { bytes: budget, shrinks }),
            ..DeclaredPrefix::default()
        };
        Prefixes::new(&DeclaredPrefixes { prefixes: vec![prefix], ..DeclaredPrefixes::default() })
    }

    fn found(bytes: u64) -> BTreeMap<String, PrefixAudit> {
        BTreeMap::from([("web:".to_owned(), PrefixAudit { bytes, ..PrefixAudit::default() })])
    }

    #[test]
    fn nothing_is_removed_within_the_budget_or_where_it_is_only_told() {
        assert!(Shrink::new(&prefixes(1_000, true), &found(1_000)).is_done());
        assert!(Shrink::new(&prefixes(1_000, false), &found(5_000)).is_done());
        assert!(Shrink::new(&prefixes(1_000, true), &BTreeMap::new()).is_done());
        assert!(!Shrink::new(&prefixes(1_000, true), &found(1_001)).is_done());
        // A guess that may be above only by its error removes nothing.
        let guess = PrefixAudit { bytes: 1_100, bytes_error: 100, ..PrefixAudit::default() };
        assert!(Shrink::new(&prefixes(1_000, true), &BTreeMap::from([("web:".to_owned(), guess)])).is_done());
        let guess = PrefixAudit { bytes_error: 99, ..guess };
        assert!(!Shrink::new(&prefixes(1_000, true), &BTreeMap::from([("web:".to_owned(), guess)])).is_done());
    }

    #[test]
    fn leases_generations_and_jobs_stay_and_what_ends_soonest_goes() {
        let prefixes = prefixes(1_000, true);
        let shrink = Shrink::new(&prefixes, &found(2_000));
        let keys: [(&[u8], u64); 7] = [
            (b"web:{0}@l:a", 1),
            (b"web:{0}@t:tag", 2),
            (b"web:{@jobs}", 3),
            (b"web:{0}a", 90),
            (b"web:1:django", 10),
            (b"web:{0}b", 20),
            (b"web:{0", 15),
        ];
        let page: Vec<Candidate<'_>> =
            keys.iter().map(|(key, lifetime)| Candidate { place: 0, key, lifetime: *lifetime }).collect();
        let chosen: Vec<u64> = shrink.choose(&prefixes, &page).iter().map(|it| it.lifetime).collect();
        assert_eq!(chosen, [10, 15, 20, 90], "more than half of seven");
    }

    proptest! {
        /// Page after page, a cache comes to below its budget and not far below, whatever the sizes.
        #[test]
        fn a_prefix_comes_to_its_budget_and_not_far_below(
            sizes in prop::collection::vec(50_u64..5_000, 600..2_000),
            percent in 20_u64..95,
            page in 16_usize..512,
        ) {
            let total: u64 = sizes.iter().sum();
            let budget = total * percent / 100;
            let prefixes = prefixes(budget, true);
            let (mut left, mut passes) = (sizes, 0);
            loop {
                let now: u64 = left.iter().sum();
                let mut shrink = Shrink::new(&prefixes, &found(now));
                if shrink.is_done() {
                    prop_assert!(now <= budget);
                    prop_assert!(passes == 0 || now + 5_000 >= budget - budget / 20, "{} of {}", now, budget);
                    break;
                }
                passes += 1;
                prop_assert!(passes < 20);
                let mut kept = Vec::new();
                for sizes in left.chunks(page) {
                    let names: Vec<String> = (0..sizes.len()).map(|number| format!("web:{number}")).collect();
                    let candidates: Vec<Candidate<'_>> = names
                        .iter()
                        .zip(sizes)
                        .map(|(name, size)| Candidate { place: 0, key: name.as_bytes(), lifetime: size * 7 % 1_000 })
                        .collect();
                    let chosen: Vec<Vec<u8>> =
                        shrink.choose(&prefixes, &candidates).iter().map(|it| it.key.to_vec()).collect();
                    prop_assert!(chosen.len() <= MOST_REMOVED);
                    for (name, size) in names.iter().zip(sizes) {
                        let is_chosen = chosen.iter().any(|it| it == name.as_bytes());
                        if !is_chosen || !shrink.take(0, *size) {
                            kept.push(*size);
                        }
                    }
                }
                left = kept;
            }
        }
    }
}
