//! What a pass has counted so far, and what that comes to.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::largest::{LargeKeySearch, Largest};
use super::prefixes::{PrefixAudit, Prefixes};
use super::report::{AUDIT_FORMAT, AuditReport, MOST_EXAMPLES, short_hash};

/// The first keys of each prefix are all measured: few keys are known exactly, and many have a sample that is large enough.
pub(crate) const FIRST_KEYS: u64 = 1_000;
/// Of the keys after those one of so many is measured, another one in each pass.
pub(crate) const SAMPLE_EACH: u64 = 16;
/// A sample that is smaller says too little of how much the sizes differ.
const SMALLEST_SAMPLE: u64 = 30;
/// What the operator and the agents keep under the prefix of a use: the jobs of a cache.
const OWN_KEY: &[u8] = b"{@jobs}";

/// When a key ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// It has ended: since it was listed it is gone.
    Gone,
    Never,
    /// At some time.
    Ends,
}

impl Expiry {
    /// Of what `PTTL` answers.
    pub(crate) fn of(milliseconds: i64) -> Self {
        match milliseconds {
            -2 => Self::Gone,
            -1 => Self::Never,
            _ => Self::Ends,
        }
    }
}

/// What is to be done with a key that was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountedKey {
    /// Place of its prefix; `None`: it is under none.
    pub place: Option<usize>,
    /// The sample that its size is a part of; `None`: none.
    pub sample: Option<Part>,
    /// Whether it was among the largest of the pass before.
    pub was_large: bool,
    /// The lifetime that it should get, milliseconds.
    pub repair: Option<u64>,
}

impl CountedKey {
    /// Whether its size is wanted, for [`Tally::measure`].
    pub(crate) fn is_measured(&self) -> bool {
        self.sample.is_some() || self.was_large
    }
}

/// A part of the keys of a prefix, with a sample of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The first [`FIRST_KEYS`], of which each is measured.
    First,
    /// The rest, of which one in [`SAMPLE_EACH`] is.
    Later,
}

/// The counts of a pass.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    prefixes: Arc<Prefixes>,
    repairs: bool,
    counts: Vec<Count>,
    outside: Count,
    examples: BTreeSet<String>,
    outside_examples: BTreeSet<String>,
    largest: Largest,
    search: LargeKeySearch,
}

impl Tally {
    /// Nothing is counted yet. With `repairs`, keys without an expiry that can be given one count as having it. `search`: what the passes
    /// before found, [`Self::next_search`].
    pub(crate) fn new(prefixes: Arc<Prefixes>, repairs: bool, search: LargeKeySearch) -> Self {
        let counts = vec![Count::default(); prefixes.len()];
        Self {
            prefixes,
            repairs,
            counts,
            outside: Count::default(),
            examples: BTreeSet::new(),
            outside_examples: BTreeSet::new(),
            largest: Largest::default(),
            search,
        }
    }

    /// Counts a key. `None`: it is gone.
    pub(crate) fn count(&mut self, key: &[u8], expiry: Expiry) -> Option<CountedKey> {
        if expiry == Expiry::Gone {
            return None;
        }
        let place = self.prefixes.of(key);
        let is_own =
            place.is_some_and(|place| key[self.prefixes.text(place).len()..].starts_with(OWN_KEY)) || key.is_empty();
        let is_at_fault = expiry == Expiry::Never && !is_own;
        let lifetime = place.and_then(|place| self.prefixes.lifetime(place)).filter(|_| self.repairs && is_at_fault);
        if is_at_fault && lifetime.is_none() {
            keep_smallest(&mut self.examples, key);
        }
        if place.is_none_or(|place| self.prefixes.has_left(place)) {
            keep_smallest(&mut self.outside_examples, key);
        }
        let count = of_place(&mut self.counts, &mut self.outside, place);
        count.without_expiry += u64::from(is_at_fault && lifetime.is_none());
        let sample = count.add(self.search.passes());
        Some(CountedKey { place, sample, was_large: self.search.knows(key), repair: lifetime })
    }

    /// Notes the size of a key that [`CountedKey::is_measured`], bytes.
    pub(crate) fn measure(&mut self, found: CountedKey, key: &[u8], bytes: u64) {
        let CountedKey { place, sample, .. } = found;
        if let Some(part) = sample {
            of_place(&mut self.counts, &mut self.outside, place).of(part).measure(bytes);
        }
        self.largest.note(key, place, bytes);
    }

    /// What the next pass is told of this one.
    pub(crate) fn next_search(&self) -> LargeKeySearch {
        self.largest.next_search(&self.search)
    }

    /// The declared prefixes that it counts by.
    pub(crate) fn prefixes(&self) -> &Prefixes {
        &self.prefixes
    }

    /// Keys that were counted.
    pub(crate) fn keys(&self) -> u64 {
        self.counts.iter().chain([&self.outside]).map(Count::keys).sum()
    }

    /// What the counts of a whole pass come to; times, and by which list it went, are the caller's.
    pub(crate) fn report(&self) -> AuditReport {
        let all = || self.counts.iter().chain([&self.outside]);
        let estimates: Vec<Estimate> = all().map(Count::estimate).collect();
        let variance = estimates.iter().fold(0_u128, |sum, estimate| sum.saturating_add(estimate.variance));
        let prefixes = self.counts.iter().enumerate().filter(|(_, count)| count.keys() > 0).map(|(place, count)| {
            let budget_bytes = self.prefixes.budget(place).map(|budget| budget.bytes);
            (self.prefixes.text(place).to_owned(), PrefixAudit { budget_bytes, ..count.audit() })
        });
        let knows_prefixes = !self.prefixes.is_empty();
        let of_those_that_left = self
            .counts
            .iter()
            .enumerate()
            .filter(|(place, _)| self.prefixes.has_left(*place))
            .map(|(_, count)| count.keys());
        let outside = self.outside.keys() + of_those_that_left.sum::<u64>();
        AuditReport {
            format: AUDIT_FORMAT,
            keys: self.keys(),
            without_expiry: all().map(|count| count.without_expiry).sum(),
            outside: if knows_prefixes { outside } else { 0 },
            bytes: estimates.iter().fold(0, |sum, estimate| estimate.bytes.saturating_add(sum)),
            bytes_error: error(variance),
            examples: self.examples.iter().cloned().collect(),
            outside_examples: if knows_prefixes { self.outside_examples.iter().cloned().collect() } else { Vec::new() },
            largest: self.largest.keys(&self.prefixes),
            prefixes: prefixes.collect(),
            ..AuditReport::default()
        }
    }
}

fn of_place<'a>(counts: &'a mut [Count], outside: &'a mut Count, place: Option<usize>) -> &'a mut Count {
    place.and_then(|place| counts.get_mut(place)).unwrap_or(outside)
}

/// The smallest hashes of all: a fair choice, and the same in each pass over the same keys.
fn keep_smallest(examples: &mut BTreeSet<String>, key: &[u8]) {
    examples.insert(short_hash(key));
    if examples.len() > MOST_EXAMPLES {
        examples.pop_last();
    }
}

/// Keys of one prefix. Servers list keys in the order of a hash, so the first ones are as good a sample as any.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    first: Sample,
    later: Sample,
    without_expiry: u64,
}

/// Keys, and the sizes of those that were measured.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    keys: u64,
    measured: u64,
    sum: u128,
    squares: u128,
}

/// A sum of sizes, and the variance of that guess.
#[derive(Clone, Copy, Debug, Default)]
struct Estimate {
    bytes: u64,
    variance: u128,
}

impl Count {
    fn keys(&self) -> u64 {
        self.first.keys + self.later.keys
    }

    /// Counts a key, and says in which sample it is to be measured, after so many passes.
    fn add(&mut self, passes: u64) -> Option<Part> {
        if self.first.keys < FIRST_KEYS {
            self.first.keys += 1;
            return Some(Part::First);
        }
        let turn = self.later.keys % SAMPLE_EACH;
        self.later.keys += 1;
        (turn == passes % SAMPLE_EACH).then_some(Part::Later)
    }

    fn of(&mut self, part: Part) -> &mut Sample {
        match part {
            Part::First => &mut self.first,
            Part::Later => &mut self.later,
        }
    }

    fn estimate(&self) -> Estimate {
        let both = self.first.with(&self.later);
        let of = |sample: &Sample| sample.estimate(if sample.measured < SMALLEST_SAMPLE { &both } else { sample });
        let (first, later) = (of(&self.first), of(&self.later));
        Estimate {
            bytes: first.bytes.saturating_add(later.bytes),
            variance: first.variance.saturating_add(later.variance),
        }
    }

    fn audit(&self) -> PrefixAudit {
        let Estimate { bytes, variance } = self.estimate();
        PrefixAudit {
            keys: self.keys(),
            without_expiry: self.without_expiry,
            bytes,
            bytes_error: error(variance),
            budget_bytes: None,
        }
    }
}

impl Sample {
    fn measure(&mut self, bytes: u64) {
        self.measured += 1;
        self.sum += u128::from(bytes);
        self.squares = self.squares.saturating_add(u128::from(bytes) * u128::from(bytes));
    }

    fn with(&self, other: &Self) -> Self {
        Self {
            keys: self.keys + other.keys,
            measured: self.measured + other.measured,
            sum: self.sum + other.sum,
            squares: self.squares.saturating_add(other.squares),
        }
    }

    /// The sizes of these keys together, by those that were measured and, for the others, by the sizes of `like`.
    fn estimate(&self, like: &Self) -> Estimate {
        let (keys, rest) = (u128::from(self.keys), u128::from(self.keys.saturating_sub(self.measured)));
        let measured = u128::from(like.measured);
        if measured == 0 {
            return Estimate::default();
        }
        let bytes = self.sum + rest * like.sum / measured;
        Estimate {
            bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
            // Of a sum over all keys that is guessed from a sample without repetition.
            variance: (keys * rest).saturating_mul(like.variance()) / u128::from(self.measured.max(1)),
        }
    }

    /// Of the sizes.
    fn variance(&self) -> u128 {
        let measured = u128::from(self.measured);
        if measured < 2 {
            // One size says nothing of the others: as if each could be as far off as it is large.
            return self.squares;
        }
        self.squares.saturating_sub(self.sum.saturating_mul(self.sum) / measured) / (measured - 1)
    }
}

/// 1.96 standard deviations: what is exceeded once in twenty times.
fn error(variance: u128) -> u64 {
    u64::try_from(variance.isqrt().saturating_mul(196) / 100).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::prefixes::{DeclaredPrefix, DeclaredPrefixes};
    use super::*;

    fn declared(list: &[(&str, Option<u64>)]) -> Arc<Prefixes> {
        let prefix = |(prefix, lifetime): &(&str, Option<u64>)| DeclaredPrefix {
            prefix: (*prefix).to_owned(),
            lifetime_milliseconds: *lifetime,
            ..DeclaredPrefix::default()
        };
        let prefixes = list.iter().map(prefix).collect();
        Arc::new(Prefixes::new(&DeclaredPrefixes { prefixes, ..DeclaredPrefixes::default() }))
    }

    #[test]
    fn keys_of_a_use_that_left_count_as_outside_and_under_its_prefix() {
        let left = DeclaredPrefix { prefix: "web:".to_owned(), left: true, ..DeclaredPrefix::default() };
        let prefixes = vec![left, DeclaredPrefix { prefix: "api:".to_owned(), ..DeclaredPrefix::default() }];
        let prefixes = Arc::new(Prefixes::new(&DeclaredPrefixes { prefixes, ..DeclaredPrefixes::default() }));
        let mut tally = Tally::new(prefixes, false, LargeKeySearch::default());
        for key in ["web:a", "api:a", "other"] {
            assert!(tally.count(key.as_bytes(), Expiry::Ends).is_some());
        }
        let report = tally.report();
        assert_eq!((report.keys, report.outside), (3, 2));
        assert_eq!(report.prefixes.keys().collect::<Vec<_>>(), ["api:", "web:"]);
        assert!(report.outside_examples.contains(&short_hash(b"web:a")));
    }

    #[test]
    fn faults_are_counted_where_they_are_and_our_own_keys_are_none() {
        let mut tally = Tally::new(declared(&[("web:", Some(9)), ("lib:", None)]), false, LargeKeySearch::default());
        for (key, expiry) in [
            ("web:a", Expiry::Ends),
            ("web:b", Expiry::Never),
            ("web:{@jobs}", Expiry::Never),
            ("lib:a", Expiry::Never),
            ("other", Expiry::Never),
            ("another", Expiry::Ends),
            ("web:c", Expiry::Gone),
        ] {
            let found = tally.count(key.as_bytes(), expiry);
            assert_eq!(found.is_none(), expiry == Expiry::Gone);
            if let Some(found) = found {
                assert_eq!(found.repair, None, "nothing is repaired unless that is asked for");
                tally.measure(found, key.as_bytes(), 100);
            }
        }
        let report = tally.report();
        assert_eq!((report.keys, report.without_expiry, report.outside), (6, 3, 2));
        assert_eq!((report.bytes, report.bytes_error), (600, 0), "few keys are known exactly");
        let of = |prefix: &str| report.prefixes[prefix];
        assert_eq!((of("web:").keys, of("web:").without_expiry), (3, 1));
        assert_eq!((of("lib:").keys, of("lib:").without_expiry), (1, 1));
        assert_eq!(report.examples.len(), 3);
        assert!(report.examples.contains(&short_hash(b"other")) && !report.examples.contains(&short_hash(b"web:a")));
        let text = serde_json::to_string(&report).unwrap_or_default();
        assert!(!text.contains("web:b") && !text.contains("other"), "no key leaves the agent: {text}");
    }

    #[test]
    fn only_keys_under_a_prefix_with_a_lifetime_are_repaired() {
        let mut tally = Tally::new(declared(&[("web:", Some(9)), ("lib:", None)]), true, LargeKeySearch::default());
        let mut repair = |key: &str, expiry| tally.count(key.as_bytes(), expiry).and_then(|found| found.repair);
        assert_eq!(repair("web:b", Expiry::Never), Some(9));
        for (key, expiry) in [
            ("web:a", Expiry::Ends),
            ("web:{@jobs}", Expiry::Never),
            ("lib:a", Expiry::Never),
            ("other", Expiry::Never),
            ("web:c", Expiry::Gone),
        ] {
            assert_eq!(repair(key, expiry), None, "{key}");
        }
        assert_eq!(tally.report().without_expiry, 2, "what was repaired is no fault any more");
    }

    #[test]
    fn without_a_list_no_key_is_outside() {
        let mut tally = Tally::new(declared(&[]), true, LargeKeySearch::default());
        tally.count(b"a", Expiry::Never);
        let report = tally.report();
        assert_eq!((report.keys, report.without_expiry, report.outside), (1, 1, 0));
        assert_eq!(report.outside_examples, [""; 0]);
    }

    /// Sizes in the order of a hash, as a server lists its keys.
    fn sizes(seed: u64, keys: u64) -> Vec<u64> {
        let mut state = seed | 1;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        (0..keys)
            .map(|_| match random() % 100 {
                0 => 10_000 + random() % 90_000,
                1..30 => 500 + random() % 2_000,
                _ => 100 + random() % 100,
            })
            .collect()
    }

    /// The sum that is told, its error, and the true sum.
    fn estimated(seed: u64, keys: u64) -> (u64, u64, u64) {
        let mut tally = Tally::new(declared(&[("web:", None)]), false, LargeKeySearch::default());
        let sizes = sizes(seed, keys);
        for (number, bytes) in sizes.iter().enumerate() {
            let key = format!("web:{number}");
            if let Some(found) = tally.count(key.as_bytes(), Expiry::Ends) {
                tally.measure(found, key.as_bytes(), *bytes);
            }
        }
        let audit = tally.report().prefixes["web:"];
        (audit.bytes, audit.bytes_error, sizes.iter().sum())
    }

    #[test]
    fn the_true_sum_is_within_the_error_nineteen_times_in_twenty() {
        const TRIES: u64 = 400;
        let mut outside = 0;
        for seed in 0..TRIES {
            let (bytes, error, truth) = estimated(seed * 7_919 + 12_345, 20_000);
            assert!(error > 0 && error < truth / 2, "{error} of {truth}");
            outside += u64::from(bytes.abs_diff(truth) > error);
        }
        println!("{outside} of {TRIES} sums were further off than was told");
        // One in twenty is 20 of these; sizes are skewed, so the normal distribution is only near.
        assert!((4..=44).contains(&outside), "{outside}");
    }

    proptest! {
        #[test]
        fn up_to_a_thousand_keys_are_reported_exactly(seed in any::<u64>(), keys in 1_u64..=FIRST_KEYS) {
            let (bytes, error, truth) = estimated(seed, keys);
            prop_assert_eq!((bytes, error), (truth, 0));
        }

        #[test]
        fn no_sizes_make_the_sum_overflow(keys in 1_u64..1_100, bytes in any::<u64>()) {
            let mut tally = Tally::new(declared(&[("a", None)]), false, LargeKeySearch::default());
            for _ in 0..keys {
                if let Some(found) = tally.count(b"a", Expiry::Ends) {
                    tally.measure(found, b"a", bytes);
                }
            }
            prop_assert_eq!(tally.report().keys, keys);
        }
    }
}
