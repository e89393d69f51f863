//! Asks the servers of a layer, and listens to its Sentinels.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::context::Context;
use super::super::observation::Observation;
use super::super::publish;
use super::super::uses::Uses;
use super::build::LayerBuild;
use super::facts::LayerFacts;
use crate::model::audit::AuditReport;
use crate::model::cluster::Shard;
use crate::model::observed::{Observed, ObservedServer};
use crate::model::roles::shards;
use crate::model::{LayerIdentity, NodeId, NodeKind};
use crate::observe::servers::{Answer, Question};

/// Asks the servers everything that the pass needs to know.
pub(super) async fn observe(context: &Context, facts: &LayerFacts, build: &LayerBuild, uses: &Uses) -> Observation {
    let mut seen = ask(context, &facts.identity, &build.questions, facts.observed.clone()).await;
    seen.audit = newest_audit(&seen.audits, &shards(&build.desired), &build.prefixes);
    seen.faults.extend(facts.children.ended_for_memory(publish::now()));
    uses.keep_users_of_unreadable_uses(&mut seen.observed);
    seen.unused = uses.unused(&build.desired, &seen).await;
    context.absences.note_unavailable(&context.client, &facts.identity, &facts.children, &mut seen.observed).await;
    if !facts.observed.handover {
        // What it did is part of what was seen. One that ended since is told of in the next pass.
        seen.ended_move = context.handovers.take_ended(&facts.identity.uid);
    }
    seen
}

/// Asks the servers and adds what they answer to the observation; listens to the Sentinels among them from now on.
pub(super) async fn ask(
    context: &Context,
    layer: &LayerIdentity,
    questions: &BTreeMap<NodeId, Question>,
    mut observed: Observed,
) -> Observation {
    let last_move = context.listeners.last_move(&(layer.namespace.clone(), layer.name.clone()));
    let answers = context.pool.ask(questions.values().cloned().collect(), &last_move).await;
    listen(context, layer, questions, &answers);
    let (mut connections, mut faults, mut waits, mut audits) = (BTreeMap::new(), Vec::new(), Vec::new(), Vec::new());
    for (node, answer) in answers {
        let of_node = |words: &String| format!("{node}: {words}");
        faults.extend(answer.faults.iter().chain(&answer.notes.notices).map(|words| (node, words.clone())));
        waits.extend(answer.notes.waits.iter().map(of_node));
        audits.extend(answer.audit.clone().map(|audit| (node, audit)));
        let mut server = answer.server;
        if let ObservedServer::Data(server) = &mut server {
            server.refuses_clients |= context.rejections.note(&server.run_id, server.rejected_connections);
        }
        let seen = observed.nodes.entry(node).or_default();
        (seen.server, seen.loads_nothing, seen.aside) = (server, answer.notes.loads_nothing, answer.notes.aside);
        connections.extend(answer.connection.map(|connection| (node, connection)));
    }
    Observation { observed, ended_move: None, connections, faults, waits, audits, audit: None, unused: BTreeSet::new() }
}

/// Listens to every Sentinel that answered.
fn listen(
    context: &Context,
    layer: &LayerIdentity,
    questions: &BTreeMap<NodeId, Question>,
    answers: &BTreeMap<NodeId, Answer>,
) {
    let sentinels = questions.values().filter(|question| question.node.kind == NodeKind::Sentinel);
    for question in
        sentinels.filter(|question| answers.get(&question.node).is_some_and(|answer| answer.connection.is_some()))
    {
        let news = (layer.namespace.clone(), layer.name.clone());
        context.listeners.listen(&question.pod_uid, &question.endpoint, news);
    }
}

/// The newest of each shard's that goes by the prefixes that are declared now, put together. `None`: a shard has none.
fn newest_audit(audits: &[(NodeId, Arc<AuditReport>)], shards: &[Shard], prefixes: &str) -> Option<Arc<AuditReport>> {
    let of_shard = |shard: &Shard| {
        let audits = audits.iter().filter(|(node, audit)| Shard::of(*node) == Some(*shard) && audit.list == prefixes);
        audits.map(|(_, audit)| audit).max_by_key(|audit| audit.finished)
    };
    let newest = shards.iter().map(of_shard).collect::<Option<Vec<_>>>()?;
    match newest.as_slice() {
        [one] => Some(Arc::clone(one)),
        several => AuditReport::together(several.iter().map(AsRef::as_ref)).map(Arc::new),
    }
}
