//! What the agents of a layer told of what the functions of its uses counted.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::model::counters::Counted;
use crate::model::{NodeId, UseKind};

/// What the agents of a layer told.
#[derive(Default)]
pub(super) struct LayerCounts {
    /// When they were asked last; `None`: they are to be asked now.
    pub(super) asked: Option<Instant>,
    pub(super) by_node: BTreeMap<NodeId, Counted>,
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
