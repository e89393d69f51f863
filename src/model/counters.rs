//! What the functions of a kind of use counted: rows as a library tells them, and their sum over its loads.
//!
//! A library counts from zero after each load and each start of its server. The sum only grows, as a Prometheus counter has to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::UseKind;

/// Rows that are kept of one kind: 10,000 uses with three parts each. Further ones are left out.
pub(crate) const MOST_ROWS: usize = 30_000;

/// What was counted of one use or of a part of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The use, `NAMESPACE/NAME`.
    pub owner: String,
    /// The part; empty: the kind has none.
    pub part: String,
    /// A number for each column.
    pub counts: Vec<u64>,
}

/// What an agent tells of its server: the rows of each kind, by `kind` of the custom resource. A kind that is not known is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterRows(BTreeMap<String, Vec<Row>>);

impl CounterRows {
    /// The rows of a kind.
    pub fn of(&self, kind: UseKind) -> &[Row] {
        self.0.get(kind.words().kind).map_or(&[], Vec::as_slice)
    }
}

/// The sums of what a server's libraries counted, over all their loads that were seen.
#[derive(Debug, Default)]
pub(crate) struct Tally(BTreeMap<UseKind, BTreeMap<(String, String), Sum>>);

#[derive(Debug)]
struct Sum {
    /// The load that `seen` is of.
    load: u64,
    seen: Vec<u64>,
    total: Vec<u64>,
}

impl Tally {
    /// Adds what some rows have grown by since they were noted last. `load` tells one load of the library from the next. A row with
    /// another number of columns than its kind has is left out.
    pub(crate) fn note(&mut self, kind: UseKind, load: u64, rows: impl IntoIterator<Item = Row>) {
        let Some(columns) = kind.words().counters else { return };
        let sums = self.0.entry(kind).or_default();
        for Row { owner, part, counts } in rows.into_iter().filter(|row| row.counts.len() == columns.names.len()) {
            if sums.len() >= MOST_ROWS && !sums.contains_key(&(owner.clone(), part.clone())) {
                // Rows that this load does not have may be of uses that are gone.
                sums.retain(|_, sum| sum.load == load);
                if sums.len() >= MOST_ROWS {
                    continue;
                }
            }
            let zeros = || vec![0; counts.len()];
            let sum = sums.entry((owner, part)).or_insert_with(|| Sum { load, seen: zeros(), total: zeros() });
            if sum.load != load {
                (sum.load, sum.seen) = (load, zeros());
            }
            for ((total, seen), count) in sum.total.iter_mut().zip(&mut sum.seen).zip(counts) {
                *total += count.saturating_sub(*seen);
                *seen = count;
            }
        }
    }

    /// The sums as they are.
    pub(crate) fn counted(&self) -> CounterRows {
        let row = |((owner, part), sum): (&(String, String), &Sum)| Row {
            owner: owner.clone(),
            part: part.clone(),
            counts: sum.total.clone(),
        };
        let kinds = self.0.iter().map(|(kind, sums)| (kind.words().kind.to_owned(), sums.iter().map(row).collect()));
        CounterRows(kinds.collect())
    }

    /// Each use, part and sums of a kind, in order.
    pub(crate) fn of(&self, kind: UseKind) -> impl Iterator<Item = (&str, &str, &[u64])> {
        let sums = self.0.get(&kind).into_iter().flatten();
        sums.map(|((owner, part), sum)| (owner.as_str(), part.as_str(), sum.total.as_slice()))
    }
}

/// A count in steps of two significant digits, rounded down: what is reported of it rests while it grows by less than a step.
pub(crate) const fn in_steps(count: u64) -> u64 {
    let mut step = 1;
    while count / step >= 100 {
        step *= 10;
    }
    count - count % step
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: UseKind = UseKind::RateLimitPolicy;

    fn row(owner: &str, counts: [u64; 3]) -> Row {
        Row { owner: owner.to_owned(), part: "second".to_owned(), counts: counts.to_vec() }
    }

    fn sums(tally: &Tally) -> Vec<(&str, Vec<u64>)> {
        tally.of(KIND).map(|(owner, _, counts)| (owner, counts.to_vec())).collect()
    }

    #[test]
    fn a_sum_grows_by_what_each_load_counted_and_never_falls() {
        let mut tally = Tally::default();
        tally.note(KIND, 1, [row("shop/api", [5, 1, 0])]);
        tally.note(KIND, 1, [row("shop/api", [7, 1, 0])]);
        assert_eq!(sums(&tally), [("shop/api", vec![7, 1, 0])]);
        // A load whose numbers passed the ones before it is one all the same.
        tally.note(KIND, 2, [row("shop/api", [9, 0, 2])]);
        assert_eq!(sums(&tally), [("shop/api", vec![16, 1, 2])]);
        // A use that this load was not asked for keeps its sum.
        tally.note(KIND, 3, [row("shop/web", [1, 0, 0])]);
        tally.note(KIND, 3, [row("shop/api", [0, 0, 0])]);
        assert_eq!(sums(&tally), [("shop/api", vec![16, 1, 2]), ("shop/web", vec![1, 0, 0])]);
        // Numbers that fell within a load are no negative growth.
        tally.note(KIND, 3, [row("shop/web", [0, 0, 0])]);
        tally.note(KIND, 3, [row("shop/web", [2, 0, 0])]);
        assert_eq!(sums(&tally)[1], ("shop/web", vec![3, 0, 0]));
        assert_eq!(tally.counted().of(KIND)[0], row("shop/api", [16, 1, 2]));
        assert_eq!(tally.counted().of(UseKind::SessionStore), []);
    }

    #[test]
    fn rows_of_another_form_and_kinds_without_counters_are_left_out() {
        let mut tally = Tally::default();
        let short = Row { counts: vec![1], ..row("shop/api", [0; 3]) };
        tally.note(KIND, 1, [short.clone()]);
        tally.note(UseKind::FunctionLibrary, 1, [short]);
        assert_eq!(sums(&tally), []);
    }

    #[test]
    fn rows_are_bounded_and_those_of_uses_that_are_gone_make_room() {
        let mut tally = Tally::default();
        let rows = |word: &str, load: u64, tally: &mut Tally| {
            let rows = (0..MOST_ROWS + 5).map(|number| row(&format!("{word}/{number}"), [1, 0, 0]));
            tally.note(KIND, load, rows);
        };
        rows("old", 1, &mut tally);
        assert_eq!(tally.of(KIND).count(), MOST_ROWS);
        rows("new", 2, &mut tally);
        assert_eq!(tally.of(KIND).count(), MOST_ROWS);
        assert!(tally.of(KIND).all(|(owner, _, _)| owner.starts_with("new/")));
    }

    #[test]
    fn what_is_reported_moves_in_steps() {
        for (count, told) in [
            (0, 0),
            (9, 9),
            (99, 99),
            (100, 100),
            (109, 100),
            (110, 110),
            (1_999, 1_900),
            (u64::MAX, 18_000_000_000_000_000_000),
        ] {
            assert_eq!(in_steps(count), told);
        }
    }

    #[test]
    fn what_an_agent_tells_is_read_by_a_version_that_knows_other_kinds() {
        let text = r#"{"CacheThing":[{"owner":"a/b","part":"","counts":[1,2,3,4]}],"RateLimitPolicy":[{"owner":"shop/api","part":"second","counts":[1,0,0]}]}"#;
        let counted: CounterRows = serde_json::from_str(text).unwrap();
        assert_eq!(counted.of(KIND), [row("shop/api", [1, 0, 0])]);
        assert_eq!(serde_json::to_string(&counted).unwrap(), text);
    }
}
