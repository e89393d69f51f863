//! `Ready` speaks of service, whatever else is under way: all combinations of what may be so of a layer at once.

use std::collections::BTreeSet;

use redoubt::api::data_layer_status::DataLayerStatus;
use redoubt::model::NodeId;
use redoubt::model::engine::EngineVersion;
use redoubt::model::observed::{ObservedServer, Replication, UnavailableNode};
use redoubt::report::StepFailure;

use crate::report::Sample;

/// Something that may be so of a layer that was Ready.
struct Fact {
    name: &'static str,
    make: fn(&mut Sample),
    /// Whether clients are served all the same.
    serves: bool,
    /// Whether it heals by waiting, or was asked for.
    is_planned: bool,
}

const fn fact(name: &'static str, make: fn(&mut Sample), serves: bool, is_planned: bool) -> Fact {
    Fact { name, make, serves, is_planned }
}

/// Each changes other parts of a sample than the rest.
const FACTS: [Fact; 13] = [
    fact(
        "a roll that awaits an approval",
        |sample| {
            roll(sample);
            sample.desired.disruption_needs_approval = true;
        },
        true,
        true,
    ),
    fact("a roll", roll, true, true),
    fact("paused", |sample| sample.desired.paused = true, true, true),
    fact(
        "a new policy in a library",
        |sample| {
            sample.data(0).libraries.insert("tools".into(), "d0".into());
        },
        true,
        true,
    ),
    fact(
        "a library that is gone",
        |sample| {
            sample.data(0).libraries.remove("tools");
        },
        false,
        true,
    ),
    fact("a replica that we restarted", |sample| lose(sample, 2, true), true, true),
    fact("a replica that died", |sample| lose(sample, 2, false), true, false),
    fact(
        "a replica that is filled",
        |sample| {
            if let Replication::Replica { link_up, .. } = &mut sample.data(1).replication {
                *link_up = false;
            }
        },
        true,
        true,
    ),
    fact("a full volume", |sample| sample.data(0).persistence_trouble = Some("aof".into()), false, false),
    fact(
        "a removed node that Sentinels remember",
        |sample| {
            sample
                .sentinel(0)
                .master
                .as_mut()
                .unwrap()
                .replicas
                .insert(redoubt::model::Address("10.0.0.9".into()), BTreeSet::default());
        },
        true,
        true,
    ),
    fact(
        "no agreement of Sentinels",
        |sample| {
            sample.sentinel(0).master = None;
            sample.sentinel(1).master = None;
        },
        false,
        false,
    ),
    fact(
        "a step that is forbidden",
        |sample| {
            sample.undone.push(StepFailure {
                step: None,
                why: "forbidden: no".into(),
                passes: false,
                name_taken: false,
            });
        },
        true,
        false,
    ),
    fact(
        "a step that failed and is tried again",
        |sample| sample.undone.push(StepFailure { step: None, why: "timeout".into(), passes: true, name_taken: false }),
        true,
        true,
    ),
];

fn roll(sample: &mut Sample) {
    sample.desired.nodes.values_mut().for_each(|node| "new".clone_into(&mut node.restart_revision));
}

fn lose(sample: &mut Sample, ordinal: u16, planned: bool) {
    let seen = sample.observed.nodes.get_mut(&NodeId::data(ordinal)).unwrap();
    (seen.pod, seen.server) = (None, ObservedServer::Unknown);
    seen.away = Some(UnavailableNode { seconds: 1, planned, words: None });
}

fn holds(status: &DataLayerStatus, kind: &str) -> Option<bool> {
    let found = status.conditions.iter().find(|known| known.type_ == kind)?;
    Some(found.status == "True")
}

/// Whether the columns READY and STATUS of `kubectl get` say the opposite of each other.
pub fn contradicts(ready: &str, state: &str) -> bool {
    const SERVED: [&str; 4] = ["Ready", "Serving", "Proven", "AsDeclared"];
    const UNSERVED: [&str; 7] =
        ["NotReady", "NoPrimary", "NotAccepted", "LayerPending", "LayerNotAccepted", "LayerNotFound", "NotAllowed"];
    if ready == "True" { UNSERVED.contains(&state) } else { SERVED.contains(&state) }
}

fn message_of(status: &DataLayerStatus, kind: &str) -> String {
    let found = status.conditions.iter().find(|known| known.type_ == kind);
    found.map(|it| format!("{} {}: {}", it.status, it.reason, it.message)).unwrap_or_default()
}

#[test]
fn ready_speaks_of_service_and_degraded_of_what_does_not_resolve_by_itself() {
    let before = Sample::healthy().status();
    for chosen in 0_u32..1 << FACTS.len() {
        let chosen: Vec<&Fact> =
            FACTS.iter().enumerate().filter(|(bit, _)| chosen >> bit & 1 == 1).map(|(_, fact)| fact).collect();
        let has = |name: &str| chosen.iter().any(|fact| fact.name == name);
        // One and the same node.
        if has("a replica that died") && has("a replica that we restarted") {
            continue;
        }
        let mut sample = Sample::healthy();
        for fact in &chosen {
            (fact.make)(&mut sample);
        }
        let status = sample.status_after(&before, 1);
        let names: Vec<&str> = chosen.iter().map(|fact| fact.name).collect();
        assert_eq!(
            holds(&status, "Ready"),
            Some(chosen.iter().all(|fact| fact.serves)),
            "{names:?}: {}",
            message_of(&status, "Ready")
        );
        // A layer that is paused plans nothing, so it waits for nothing either.
        let silenced = ["a replica that died", "no agreement of Sentinels"];
        let is_planned = |fact: &&&Fact| fact.is_planned || (has("paused") && silenced.contains(&fact.name));
        let degraded = !chosen.iter().all(|fact| is_planned(&fact));
        // We took a node away, and with it a primary may be missed for a moment.
        let is_excused = has("a replica that we restarted") && has("no agreement of Sentinels");
        if !is_excused {
            assert_eq!(holds(&status, "Degraded"), Some(degraded), "{names:?}: {}", message_of(&status, "Degraded"));
        }
        let waiters = ["Reconciling", "Stalled"].map(|kind| holds(&status, kind));
        assert!(waiters.contains(&None), "{names:?}: both at once");
        let (state, message) = (status.state.unwrap(), status.message.unwrap());
        assert!(!state.is_empty() && !message.is_empty() && !message.contains("Some("), "{names:?}: {state} {message}");
    }
}

/// What is so of single nodes and of moves, and not in the list of [`FACTS`].
const FURTHER: [Fact; 3] = [
    fact("a pod that is not ready", |sample| unready(sample, 2), true, false),
    fact(
        "a pod of a Sentinel that is not ready",
        |sample| {
            let seen = sample.observed.nodes.get_mut(&NodeId::sentinel(1)).unwrap();
            seen.pod.as_mut().unwrap().ready = false;
        },
        true,
        false,
    ),
    fact("a primary that is moved", |sample| sample.observed.handover = true, true, true),
];

fn unready(sample: &mut Sample, ordinal: u16) {
    let seen = sample.observed.nodes.get_mut(&NodeId::data(ordinal)).unwrap();
    if let Some(pod) = seen.pod.as_mut() {
        pod.ready = false;
    }
}

#[test]
fn what_kubectl_get_shows_of_a_layer_in_two_columns_is_never_the_opposite() {
    let all: Vec<&Fact> = FURTHER.iter().chain(&FACTS).collect();
    let mut found = BTreeSet::new();
    for before in [DataLayerStatus::default(), Sample::healthy().status()] {
        // In the order of the list: a later one may take away what an earlier one changes.
        let pairs =
            all.iter().enumerate().flat_map(|(at, first)| all.iter().skip(at).map(move |second| (first, second)));
        for (first, second) in pairs {
            for initialised in [true, false] {
                let mut sample = Sample::healthy();
                (sample.observed.initialised, sample.observed.recorded) = (initialised, initialised);
                (first.make)(&mut sample);
                (second.make)(&mut sample);
                let status = sample.status_after(&before, 1);
                let ready = message_of(&status, "Ready");
                let (ready, _) = ready.split_once(' ').unwrap();
                let state = status.state.unwrap();
                assert!(!contradicts(ready, &state), "{} and {}: {ready} {state}", first.name, second.name);
                found.insert((ready.to_owned(), state));
            }
        }
    }
    // Among them the one that was told as `NotReady`, and the one that was told as `NoPrimary`.
    for state in [("True", "PodNotReady"), ("False", "NoPrimary")] {
        assert!(found.contains(&(state.0.to_owned(), state.1.to_owned())), "{found:?}");
    }
}

#[test]
fn a_layer_that_was_never_ready_is_ready_with_everything_and_not_before() {
    for fact in FACTS.iter().filter(|fact| fact.name != "paused") {
        let mut sample = Sample::healthy();
        (sample.observed.initialised, sample.observed.recorded) = (false, false);
        (fact.make)(&mut sample);
        assert_eq!(holds(&sample.status(), "Ready"), Some(false), "{}", fact.name);
    }
}

#[test]
fn the_cause_itself_is_the_reason() {
    let degraded = |make: &dyn Fn(&mut Sample)| {
        let mut sample = Sample::healthy();
        make(&mut sample);
        let status = sample.status_after(&Sample::healthy().status(), 1);
        (message_of(&status, "Degraded"), status.state.unwrap())
    };
    let (told, state) = degraded(&|sample| {
        lose(sample, 2, false);
        let words = Some("FailedCreate: exceeded quota: small".to_owned());
        sample.observed.nodes.get_mut(&NodeId::data(2)).unwrap().away.as_mut().unwrap().words = words;
    });
    assert!(told.starts_with("True FailedCreate: the pod of redis-2 does not run: FailedCreate: exceeded"), "{told}");
    assert_eq!(state, "FailedCreate");
    let (told, _) = degraded(&|sample| {
        roll(sample);
        "redis 8.0.2".clone_into(&mut sample.data(0).version);
        sample.desired.engine = EngineVersion::of_image("redis:7.0");
    });
    assert!(told.starts_with("True OlderEngine: "), "{told}");
    let (told, _) = degraded(&|sample| sample.data(1).refuses_clients = true);
    assert!(told.starts_with("True RefusesClients: redis-1"), "{told}");
}

#[test]
fn a_primary_that_takes_no_writes_is_no_service() {
    let mut sample = Sample::healthy();
    sample.desired.settings.insert("min-replicas-to-write".to_owned(), "1".to_owned());
    sample.data(0).settings.insert("min-replicas-to-write".to_owned(), "1".to_owned());
    if let Replication::Primary { replicas } = &mut sample.data(0).replication {
        replicas.clear();
    }
    let status = sample.status_after(&Sample::healthy().status(), 1);
    assert_eq!(
        message_of(&status, "Ready"),
        "False RefusesWrites: redis-0 refuses writes: min-replicas-to-write is 1, and 0 replicas are connected"
    );
}

#[test]
fn a_primary_that_is_moved_as_planned_serves_all_the_while() {
    let before = Sample::healthy().status();
    let mut sample = Sample::healthy();
    (0..2).for_each(|ordinal| sample.sentinel(ordinal).master = None);
    sample.observed.handover = true;
    assert_eq!(holds(&sample.status_after(&before, 1), "Ready"), Some(true));
    assert_eq!(
        holds(&sample.status_after(&DataLayerStatus::default(), 1), "Ready"),
        Some(false),
        "it was not Ready before"
    );
    sample.observed.handover = false;
    assert_eq!(holds(&sample.status_after(&before, 1), "Ready"), Some(false));
}

#[test]
fn a_layer_without_redundancy_for_long_is_degraded_by_it() {
    let mut sample = Sample::healthy();
    if let Replication::Replica { link_up, .. } = &mut sample.data(2).replication {
        *link_up = false;
    }
    let first = sample.status_after(&Sample::healthy().status(), 1);
    assert_eq!(holds(&first, "Degraded"), Some(false));
    assert_eq!(holds(&sample.status_after(&first, 600), "Degraded"), Some(false));
    let late = sample.status_after(&first, 601);
    assert_eq!(message_of(&late, "Degraded"), "True NotRedundant: redis-2 is not in sync");
}

#[test]
fn a_waiting_change_is_reported_when_it_goes_on_and_when_it_stalls() {
    let before = Sample::healthy().status();
    let mut sample = Sample::healthy();
    roll(&mut sample);
    let rolling = sample.status_after(&before, 1);
    assert_eq!((holds(&rolling, "Reconciling"), holds(&rolling, "Stalled")), (Some(true), None));
    let words = Some("ErrImagePull: not found".to_owned());
    lose(&mut sample, 2, true);
    sample.observed.nodes.get_mut(&NodeId::data(2)).unwrap().away.as_mut().unwrap().words = words;
    let stuck = sample.status_after(&rolling, 10);
    assert_eq!((holds(&stuck, "Reconciling"), holds(&stuck, "Stalled")), (Some(true), None), "it may pass");
    let stalled = sample.status_after(&stuck, 70);
    assert_eq!((holds(&stalled, "Reconciling"), holds(&stalled, "Stalled")), (None, Some(true)));
    assert_eq!(holds(&stalled, "Ready"), Some(true), "the others serve");
}

#[test]
fn a_sentinel_that_lists_a_removed_node_is_named_with_how_long_that_takes() {
    let fact = FACTS.iter().find(|fact| fact.name == "a removed node that Sentinels remember").unwrap();
    let mut sample = Sample::healthy();
    (fact.make)(&mut sample);
    let status = sample.status_after(&Sample::healthy().status(), 1);
    let words = "sentinel-0 still lists a removed node; the Sentinels forget it one after the other, about 30 s apart";
    assert!(message_of(&status, "Progressing").contains(words), "{}", message_of(&status, "Progressing"));
}

#[test]
fn an_approval_says_what_restarts_and_how_it_is_given() {
    let mut sample = Sample::healthy();
    roll(&mut sample);
    sample.desired.disruption_needs_approval = true;
    sample.subject.odd_approval = Some("yes".to_owned());
    let status = sample.status_after(&Sample::healthy().status(), 1);
    assert_eq!(status.state.as_deref(), Some("AwaitsApproval"));
    assert_eq!(
        status.message.as_deref(),
        Some(
            "6 of 6 pods are to be restarted (redis-0, redis-1, redis-2, sentinel-0, sentinel-1, sentinel-2); to approve: kubectl \
             -n shop annotate datalayer web redoubt.dev/approved-generation=1 --overwrite; redoubt.dev/approved-generation=\"yes\" \
             approves nothing: its value is a number"
        )
    );
}

#[test]
fn a_node_without_replicas_that_we_restart_is_no_trouble() {
    let mut sample = Sample::healthy();
    sample.desired.nodes.retain(|node, _| *node == NodeId::data(0));
    sample.observed.nodes.retain(|node, _| *node == NodeId::data(0));
    let before = sample.status();
    assert_eq!(holds(&before, "Ready"), Some(true), "{before:#?}");
    lose(&mut sample, 0, true);
    let status = sample.status_after(&before, 1);
    assert_eq!((holds(&status, "Ready"), holds(&status, "Degraded")), (Some(false), Some(false)), "{status:#?}");
}
