//! What a running server can be told: directives, users, function libraries, a Sentinel's times.

use std::collections::BTreeMap;

use super::roles::{data, of_kind, sentinel};
use super::{Plan, Step, WaitReason, hold};
use crate::model::desired::{Desired, DesiredLibrary, SentinelSettings};
use crate::model::function_library::is_users_library;
use crate::model::observed::{DataServer, Observed, SentinelMaster};
use crate::model::{NodeId, NodeKind};

/// Directives that fit the memory limit of the pod which they were planned for: a pod of another revision has another.
const SIZED_BY_POD: [&str; 6] = [
    "client-output-buffer-limit",
    "maxclients",
    "maxmemory",
    "maxmemory-clients",
    "proto-max-bulk-len",
    "repl-backlog-size",
];

pub(super) fn plan(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    for node in of_kind(desired, NodeKind::Data) {
        let Some(server) = data(observed, node) else { continue };
        let run_id = &server.run_id;
        let pod = observed.nodes.get(&node).and_then(|seen| seen.pod.as_ref());
        let is_current =
            desired.nodes.get(&node).map(|wanted| &wanted.restart_revision) == pod.map(|pod| &pod.restart_revision);
        let is_sized = is_current && !hold::holds_live(desired, server);
        let differs = |(name, value): &(&String, &String)| {
            let is_live = !desired.start_only.contains(*name) && (is_sized || !SIZED_BY_POD.contains(&name.as_str()));
            is_live && server.settings.get(*name).is_some_and(|live| live != *value)
        };
        let changes: BTreeMap<String, String> =
            desired.settings.iter().filter(differs).map(|(name, value)| (name.clone(), value.clone())).collect();
        if !changes.is_empty() {
            plan.steps.push(Step::SetSettings { node, run_id: run_id.clone(), changes });
        }
        for user in desired.users.keys().filter(|user| !server.users_in_place.contains(*user)) {
            plan.steps.push(Step::SetUser { node, run_id: run_id.clone(), user: user.clone() });
        }
        for user in &server.users_foreign {
            plan.steps.push(Step::DeleteUser { node, run_id: run_id.clone(), user: user.clone() });
        }
    }
    for primary in plan.primaries.nodes().collect::<Vec<_>>() {
        if let Some(server) = data(observed, primary) {
            libraries(desired, primary, server, plan);
        }
    }
    let wanted = desired.sentinel_settings;
    for node in of_kind(desired, NodeKind::Sentinel) {
        let Some(server) = sentinel(observed, node) else { continue };
        let differs = server.master.as_ref().is_some_and(|master| {
            let live = SentinelSettings {
                quorum: master.quorum,
                detection: master.detection,
                failover_timeout: master.failover_timeout,
                parallel_syncs: master.parallel_syncs,
            };
            live != wanted
        });
        // While it takes the primary for down, its agent may have set a longer time of detection, so that it can elect.
        let is_electing = server.master.as_ref().is_some_and(SentinelMaster::is_down);
        if differs && !is_electing {
            plan.steps.push(Step::SetSentinel { node, run_id: server.run_id.clone() });
        }
        for user in &server.users_foreign {
            plan.steps.push(Step::DeleteUser { node, run_id: server.run_id.clone(), user: user.clone() });
        }
        for user in desired.sentinel_users.keys().filter(|user| !server.users_in_place.contains(*user)) {
            plan.steps.push(Step::SetUser { node, run_id: server.run_id.clone(), user: user.clone() });
        }
    }
}

/// The primary's libraries: the operator's first, then the users'. One that goes makes room for a function of the same name.
fn libraries(desired: &Desired, primary: NodeId, server: &DataServer, plan: &mut Plan) {
    let run_id = &server.run_id;
    let load = |(library, wanted): (&String, &DesiredLibrary)| {
        let is_there = server.libraries.get(library) == Some(&wanted.digest);
        let (library, digest) = (library.clone(), wanted.digest.clone());
        (!is_there).then(|| Step::LoadLibrary { node: primary, run_id: run_id.clone(), library, digest })
    };
    let (users, ours): (Vec<Step>, Vec<Step>) =
        desired.libraries.iter().filter_map(load).partition(Step::is_of_users_library);
    if desired.gathering {
        // The layer does not wait for a user's library.
        plan.waiting.extend(ours.iter().map(|_| WaitReason::Gathering));
    } else {
        plan.steps.extend(ours);
    }
    let is_wanted =
        |library: &String| desired.libraries.contains_key(library) || desired.kept_libraries.contains(library);
    for library in server.libraries.keys().filter(|library| is_users_library(library) && !is_wanted(library)) {
        plan.steps.push(Step::DeleteLibrary { node: primary, run_id: run_id.clone(), library: library.clone() });
    }
    if !desired.gathering {
        plan.steps.extend(users);
    }
}
