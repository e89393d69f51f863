//! Changes that the data forbids: an engine that cannot read it, and memory that cannot hold it. What runs is left as it is.

use super::nodes::is_of_another_revision;
use super::roles::{data, of_kind};
use super::{Plan, RefusalReason};
use crate::model::desired::Desired;
use crate::model::engine::EngineVersion;
use crate::model::observed::{DataServer, Observed};
use crate::model::roles::Primaries;
use crate::model::{NodeId, NodeKind};

/// Room besides what a server holds, percent: below it the next writes fail or evict.
const ROOM_PERCENT: u64 = 5;

/// What forbids to roll the outdated nodes, if anything does. The refusal names the first data node of which that holds.
pub(super) fn roll(desired: &Desired, observed: &Observed, primaries: &Primaries) -> Option<RefusalReason> {
    let mut outdated = of_kind(desired, NodeKind::Data).filter(|node| is_of_another_revision(desired, observed, *node));
    outdated.find_map(|node| {
        let primary = primaries.of(node);
        older_engine(desired, observed, primary, node).or_else(|| memory(desired, observed, primary?, node))
    })
}

/// Whether the desired engine cannot read the files of the primary's, or, while no node is primary, of any server's. A replica's
/// files do not count next to a primary that has all of the data.
pub(super) fn older_engine(
    desired: &Desired,
    observed: &Observed,
    primary: Option<NodeId>,
    node: NodeId,
) -> Option<RefusalReason> {
    let wanted = engine(desired, observed).filter(|_| desired.reads_files)?;
    let nodes = observed.nodes.keys().copied().filter(|other| primary.is_none_or(|primary| primary == *other));
    let running = nodes.filter_map(|other| data(observed, other)).find(|server| {
        EngineVersion::of_server(&server.version).is_some_and(|running| wanted.reads(running) == Some(false))
    })?;
    Some(RefusalReason::OlderEngine { node, running: running.version.clone(), wanted: wanted.to_string() })
}

/// The engine of the desired image. One that does not say its version is known once a server of it answers, which is that of the first
/// replica of a roll.
fn engine(desired: &Desired, observed: &Observed) -> Option<EngineVersion> {
    let runs_it = |node: &NodeId| {
        let pod = observed.nodes.get(node).and_then(|seen| seen.pod.as_ref());
        let wanted = &desired.nodes.get(node)?.restart_revision;
        pod.is_some_and(|pod| pod.restart_revision == *wanted).then_some(())?;
        EngineVersion::of_server(&data(observed, *node)?.version)
    };
    desired.engine.or_else(|| desired.nodes.keys().find_map(runs_it))
}

/// Whether less memory is wanted than the primary holds.
fn memory(desired: &Desired, observed: &Observed, primary: NodeId, node: NodeId) -> Option<RefusalReason> {
    let server = data(observed, primary)?;
    let maxmemory = maxmemory(desired)?;
    is_too_little(server, maxmemory).then_some(RefusalReason::MemoryBelowData {
        node,
        held: server.used_memory,
        maxmemory,
    })
}

/// Whether a running server must not be told its new sizes: it would refuse writes from then on. One that evicts any key makes
/// room by itself, as its specification asks for.
pub(super) fn holds_live(desired: &Desired, server: &DataServer) -> bool {
    let evicts = desired.settings.get("maxmemory-policy").is_some_and(|policy| policy.starts_with("allkeys-"));
    !evicts && maxmemory(desired).is_some_and(|wanted| is_too_little(server, wanted))
}

/// Adds the reason why the `maxmemory` of the primary is not lowered.
pub(super) fn refuse(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    let is_held = |node: &NodeId| data(observed, *node).is_some_and(|server| holds_live(desired, server));
    let Some(primary) = plan.primaries.nodes().find(is_held) else { return };
    let is_refused = plan.refused.iter().any(|refused| matches!(refused, RefusalReason::MemoryBelowData { .. }));
    if !is_refused {
        plan.refused.extend(memory(desired, observed, primary, primary));
    }
}

fn maxmemory(desired: &Desired) -> Option<u64> {
    desired.settings.get("maxmemory")?.parse().ok().filter(|bytes| *bytes > 0)
}

/// Whether `wanted` is less than what the server has, and than what it holds with some room.
fn is_too_little(server: &DataServer, wanted: u64) -> bool {
    let is_less = server.maxmemory == 0 || wanted < server.maxmemory;
    is_less && server.used_memory.saturating_add(server.used_memory / 100 * ROOM_PERCENT) > wanted
}
