//! What the functions of a layer's uses counted, as the agents of its data nodes tell: asked once a minute, so that statuses rest.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::super::context::Context;
use super::memory::locked;
use super::served::Scene;
use crate::model::counters::{Counted, Row};
use crate::model::{NodeId, NodeKind, UseKind};
use crate::observe::agents;

/// Between two questions.
const EVERY: Duration = Duration::from_mins(1);

/// What the agents of a layer told.
#[derive(Default)]
pub(super) struct Told {
    /// When they were asked last; `None`: they are to be asked now.
    pub(super) asked: Option<Instant>,
    by_node: BTreeMap<NodeId, Counted>,
    /// The rows of each use, summed over the nodes.
    sums: BTreeMap<(UseKind, String), BTreeMap<String, Vec<u64>>>,
}

impl Told {
    fn add(&mut self) {
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

/// Asks the layer's agents if it is time. One that is silent counts with what it told last.
pub(super) async fn ask(context: &Context, scene: Scene<'_>) {
    let uid = &scene.layer.identity.uid;
    let asked = locked(&context.uses.counts).get(uid).and_then(|told| told.asked);
    if asked.is_some_and(|at| at.elapsed() < EVERY) {
        return;
    }
    let answers = |node: &NodeId| node.kind == NodeKind::Data && scene.connections.contains_key(node);
    let nodes = scene.endpoints.iter().filter(|(node, _)| answers(node));
    let fresh = agents::counted(nodes.map(|(node, endpoint)| (*node, endpoint.address.clone()))).await;
    let mut counts = locked(&context.uses.counts);
    let told = counts.entry(uid.clone()).or_default();
    told.asked = Some(Instant::now());
    told.by_node.retain(|node, _| scene.desired.nodes.contains_key(node));
    told.by_node.extend(fresh);
    told.add();
}

/// What was counted of a use, by part, over all nodes; `None`: no agent told.
pub(super) fn of(context: &Context, layer_uid: &str, kind: UseKind, owner: &str) -> Option<Vec<Row>> {
    let counts = locked(&context.uses.counts);
    let told = counts.get(layer_uid).filter(|told| !told.by_node.is_empty())?;
    let rows = told.sums.get(&(kind, owner.to_owned())).into_iter().flatten();
    let row = |(part, counts): (&String, &Vec<u64>)| Row {
        owner: owner.to_owned(),
        part: part.clone(),
        counts: counts.clone(),
    };
    Some(rows.map(row).collect())
}
