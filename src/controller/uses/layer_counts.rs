//! What the agents of a layer told of what the functions of its uses counted.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::model::counters::CounterRows;
use crate::model::{NodeId, UseKind};

/// What the agents of a layer told.
#[derive(Default)]
pub(super) struct LayerCounts {
    /// When they were asked last; `None`: they are to be asked now.
    pub(super) asked: Option<Instant>,
    pub(super) by_node: BTreeMap<NodeId, CounterRows>,
    /// The rows of each use, summed over the nodes.
    pub(super) sums: BTreeMap<(UseKind, String), BTreeMap<String, Vec<u64>>>,
}

impl LayerCounts {
    pub(super) fn add(&mut self) {
        self.sums.clear();
        for kind in UseKind::ALL {
            for row in self.by_node.values().flat_map(|counted| counted.of(kind)) {
                let of_use = self.sums.entry((kind, row.owner.clone())).or_default();
                let sum = of_use.entry(row.part.clone()).or_insert_with(|| vec![0; row.counts.len()]);
                sum.iter_mut().zip(&row.counts).for_each(|(sum, count)| *sum = sum.saturating_add(*count));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::counters::{Row, Tally};

    fn counted(rows: &[(UseKind, &str, &str, &[u64])]) -> CounterRows {
        let mut tally = Tally::default();
        for (kind, owner, part, counts) in rows {
            let row = Row { owner: (*owner).to_owned(), part: (*part).to_owned(), counts: counts.to_vec() };
            tally.note(*kind, 1, [row]);
        }
        tally.counted()
    }

    #[test]
    fn a_use_has_the_sum_of_its_nodes_by_part_and_no_other_uses() {
        use UseKind::{RateLimitPolicy as Limits, SessionStore as Sessions};
        let mut counts = LayerCounts::default();
        counts.by_node.insert(
            NodeId::data(0),
            counted(&[
                (Limits, "shop/api", "second", &[7, 2, 0]),
                (Limits, "shop/api", "day", &[9, 0, 1]),
                (Limits, "shop/web", "second", &[100, 100, 100]),
                (Sessions, "shop/api", "", &[50; 7]),
            ]),
        );
        counts.by_node.insert(NodeId::data(1), counted(&[(Limits, "shop/api", "second", &[1, u64::MAX, 4])]));
        // Once more over the same nodes: it begins again.
        counts.add();
        counts.add();
        let of = |kind, owner: &str| counts.sums[&(kind, owner.to_owned())].clone();
        let row = |part: &str, counts: &[u64]| (part.to_owned(), counts.to_vec());
        assert_eq!(of(Limits, "shop/api"), BTreeMap::from([row("day", &[9, 0, 1]), row("second", &[8, u64::MAX, 4])]));
        assert_eq!(of(Limits, "shop/web"), BTreeMap::from([row("second", &[100, 100, 100])]));
        assert_eq!(of(Sessions, "shop/api"), BTreeMap::from([row("", &[50; 7])]));
        counts.by_node.remove(&NodeId::data(1));
        counts.add();
        assert_eq!(counts.sums[&(Limits, "shop/api".to_owned())]["second"], [7, 2, 0]);
    }
}
