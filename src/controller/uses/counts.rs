//! What the functions of a layer's uses counted, as the agents of its data nodes tell: asked once a minute, so that statuses rest.

use std::time::{Duration, Instant};

use super::super::context::Context;
use super::super::observation::LayerPass;

use crate::model::counters::Row;
use crate::model::{NodeId, NodeKind, UseKind};
use crate::observe::agents;

/// Between two questions.
const EVERY: Duration = Duration::from_mins(1);

/// Asks the layer's agents if it is time. One that is silent counts with what it told last.
pub(super) async fn ask(context: &Context, pass: LayerPass<'_>) {
    let uid = &pass.layer.identity.uid;
    let asked = context.uses.counts.lock().get(uid).and_then(|told| told.asked);
    if asked.is_some_and(|at| at.elapsed() < EVERY) {
        return;
    }
    let answers = |node: &NodeId| node.kind == NodeKind::Data && pass.seen.connections.contains_key(node);
    let nodes = pass.questions.iter().filter(|(node, _)| answers(node));
    let fresh = agents::counted(nodes.map(|(node, question)| (*node, question.endpoint.address.clone()))).await;
    let mut counts = context.uses.counts.lock();
    let told = counts.entry(uid.clone()).or_default();
    told.asked = Some(Instant::now());
    told.by_node.retain(|node, _| pass.desired.nodes.contains_key(node));
    told.by_node.extend(fresh);
    told.add();
}

/// What was counted of a use, by part, over all nodes; `None`: no agent told.
pub(super) fn of(context: &Context, layer_uid: &str, kind: UseKind, owner: &str) -> Option<Vec<Row>> {
    let counts = context.uses.counts.lock();
    let told = counts.get(layer_uid).filter(|told| !told.by_node.is_empty())?;
    let rows = told.sums.get(&(kind, owner.to_owned())).into_iter().flatten();
    let row = |(part, counts): (&String, &Vec<u64>)| Row {
        owner: owner.to_owned(),
        part: part.clone(),
        counts: counts.clone(),
    };
    Some(rows.map(row).collect())
}
