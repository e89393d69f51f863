//! What the status of a use has in columns: names, counters, and the share of reads that found something.

use crate::api::use_status::{CounterStatus, FunctionStatus, LimitStatus};
use crate::model::UseKind;
use crate::model::counters::{Row, in_steps};
use crate::model::function_library::Functions;

/// Names that `kubectl get` has room for.
const MOST_NAMES: usize = 3;

/// What `kubectl get` shows of limits and functions: a column has one string. `None`: there are none.
pub(super) fn names(limits: &[LimitStatus], functions: &[FunctionStatus]) -> Option<String> {
    let all: Vec<&str> =
        limits.iter().map(|it| it.name.as_str()).chain(functions.iter().map(|it| it.name.as_str())).collect();
    let shown = all.get(..MOST_NAMES).unwrap_or(&all).join(", ");
    let further = all.len().saturating_sub(MOST_NAMES);
    match further {
        0 if all.is_empty() => None,
        0 => Some(shown),
        _ => Some(format!("{shown} and {further} more")),
    }
}

/// Rows of counters in the words of their kind.
pub(super) fn counters(kind: UseKind, rows: &[Row]) -> Vec<CounterStatus> {
    let Some(columns) = kind.words().counters else { return Vec::new() };
    let number = |count: &u64| i64::try_from(in_steps(*count)).unwrap_or(i64::MAX);
    let row = |row: &Row| CounterStatus {
        name: columns.part.map(|_| row.part.clone()),
        counts: columns.names.iter().map(|(name, _)| (*name).to_owned()).zip(row.counts.iter().map(number)).collect(),
    };
    rows.iter().map(row).collect()
}

/// How far the ratio of hits may be off before it is told again, percent.
const RATIO_STAYS: i32 = 5;

/// Reads that found something, percent of all; `None`: the kind has none, or nothing was read. `old` while that is about
/// right.
pub(super) fn hit_ratio(kind: UseKind, rows: &[Row], old: Option<i32>) -> Option<i32> {
    let columns = kind.words().counters?;
    let reads = columns.reads?;
    let sum = |counted: &[&str]| -> u128 {
        let is_counted = |at: usize| columns.names.get(at).is_some_and(|(name, _)| counted.contains(name));
        let of_row = |row: &Row| -> u128 {
            row.counts.iter().enumerate().filter(|(at, _)| is_counted(*at)).map(|(_, count)| u128::from(*count)).sum()
        };
        rows.iter().map(of_row).sum()
    };
    let (found, absent) = (sum(reads.found), sum(reads.absent));
    let told = i32::try_from((found * 100).checked_div(found + absent)?).ok()?;
    Some(old.filter(|old| old.abs_diff(told) < RATIO_STAYS.unsigned_abs()).unwrap_or(told))
}

pub(super) fn listed(functions: &Functions) -> Vec<FunctionStatus> {
    functions.iter().map(|(name, reads_only)| FunctionStatus { name: name.clone(), reads_only: *reads_only }).collect()
}
