//! The status of each kind in each state, as a file: what a change does to it is seen in its review. `kstatus`, by which Flux and
//! others wait, says of each what it should.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use k8s_openapi::jiff::Timestamp;
use redoubt::api::data_layer_status::DataLayerStatus;
use redoubt::api::use_status::{FunctionsStatus, LayerReference, UseStatus};
use redoubt::model::observed::{ObservedServer, Replication, UnavailableNode};
use redoubt::model::{NodeId, UseKind};
use redoubt::report::uses::{LayerCause, LayerNote, LibraryTrouble, UseFacts, pending, refused, status};
use redoubt::report::{change_refused, not_accepted};
use serde_json::{Value, json};

use crate::report::Sample;
use crate::report_service::contradicts;

const GOLDEN: &str = "tests/golden/statuses.yaml";

/// An object in a state.
struct State {
    /// What is so.
    what: &'static str,
    /// What `kstatus` should say.
    expected: &'static str,
    kind: &'static str,
    status: Value,
}

fn lost(sample: &mut Sample) {
    (0..2).for_each(|ordinal| sample.sentinel(ordinal).master = None);
}

fn syncing(sample: &mut Sample) {
    if let Replication::Replica { link_up, .. } = &mut sample.data(2).replication {
        *link_up = false;
    }
}

fn made_new(sample: &mut Sample) {
    (sample.observed.initialised, sample.observed.recorded) = (false, false);
    for seen in sample.observed.nodes.values_mut() {
        (seen.pod, seen.server) = (None, ObservedServer::Unknown);
    }
}

/// A new layer whose image no Kubernetes node can pull.
fn no_image(sample: &mut Sample) {
    made_new(sample);
    for seen in sample.observed.nodes.values_mut() {
        let words = Some("ImagePullBackOff: no such image".to_owned());
        seen.away = Some(UnavailableNode { seconds: 9, planned: true, words });
    }
}

fn layers() -> Vec<State> {
    let ready = Sample::healthy().status();
    let state =
        |what, expected, status: DataLayerStatus| State { what, expected, kind: "DataLayer", status: json!(status) };
    let of = |make: &dyn Fn(&mut Sample)| {
        let mut sample = Sample::healthy();
        make(&mut sample);
        sample.status_after(&ready, 1)
    };
    let later = |make: &dyn Fn(&mut Sample), before: &DataLayerStatus, second| {
        let mut sample = Sample::healthy();
        make(&mut sample);
        sample.status_after(before, second)
    };
    let roll = |sample: &mut Sample| {
        sample.desired.nodes.values_mut().for_each(|node| "new".clone_into(&mut node.restart_revision));
    };
    let approval = |sample: &mut Sample| {
        roll(sample);
        sample.desired.disruption_needs_approval = true;
    };
    let image = |sample: &mut Sample| {
        roll(sample);
        let seen = sample.observed.nodes.get_mut(&NodeId::data(2)).unwrap();
        (seen.pod, seen.server) = (None, ObservedServer::Unknown);
        let words = Some("ImagePullBackOff: no such image".to_owned());
        seen.away = Some(UnavailableNode { seconds: 9, planned: true, words });
    };
    let faults = ["spec.memory.limit: 20Mi is too small".to_owned()];
    let none = DataLayerStatus::default();
    let stuck = of(&image);
    vec![
        state("it is being made", "InProgress", later(&made_new, &none, 1)),
        state("it is new, and its image does not exist", "InProgress", later(&no_image, &none, 1)),
        state("its first specification is refused", "Failed", not_accepted(1, &faults, &none, Timestamp::UNIX_EPOCH)),
        state("it serves, and nothing is left to do", "Current", ready.clone()),
        state("pods are rolled", "InProgress", of(&roll)),
        state("a roll awaits an approval", "InProgress", of(&approval)),
        state("the image of a roll does not exist", "InProgress", stuck.clone()),
        state("it has not existed for a minute", "Failed", later(&image, &stuck, 61)),
        state(
            "a new specification is refused",
            "Failed",
            change_refused(2, "Invalid", &faults, true, ready.clone(), &ready, Timestamp::UNIX_EPOCH),
        ),
        state("it is paused", "Current", of(&|sample| sample.desired.paused = true)),
        state("a replica is filled", "InProgress", of(&syncing)),
        state("it has no primary", "InProgress", of(&lost)),
        state(
            "a node waits for a person",
            "Failed",
            of(&|sample| {
                sample.waits = vec!["redis-1: SeveralPrimaries: it waits for a person".to_owned()];
            }),
        ),
        state("a server turns clients away", "Current", of(&|sample| sample.data(0).refuses_clients = true)),
    ]
}

/// Why a layer that was Ready, and then this, is not.
fn of_layer(make: &dyn Fn(&mut Sample)) -> Option<LayerCause> {
    let mut sample = Sample::healthy();
    make(&mut sample);
    let is_new = !sample.observed.initialised;
    let before = if is_new { DataLayerStatus::default() } else { Sample::healthy().status() };
    LayerCause::of(&sample.status_after(&before, 1), is_new)
}

/// A layer that was never Ready, with a replica that is filled.
fn first_sync(sample: &mut Sample) {
    (sample.observed.initialised, sample.observed.recorded) = (false, false);
    syncing(sample);
}

/// Of a use that is served.
fn facts_of(kind: UseKind) -> UseFacts {
    UseFacts {
        kind,
        generation: 1,
        layer: ("data".to_owned(), "shared".to_owned()),
        has_primary: true,
        functions_loaded: true,
        functions: FunctionsStatus { library: kind.words().library.to_owned(), digest: "d".to_owned(), generation: 1 },
        violations: kind.has_user().then(Vec::new),
        binding: kind.has_user().then(|| "web-binding".to_owned()),
        user: kind.has_user().then(|| "user".to_owned()),
        primary: Some("redis-0".to_owned()),
        ..UseFacts::default()
    }
}

fn uses(kind: UseKind) -> Vec<State> {
    let facts = facts_of(kind);
    let state =
        |what, expected, status: UseStatus| State { what, expected, kind: kind.words().kind, status: json!(status) };
    let told = |facts: &UseFacts, old: &UseStatus| status(facts, old, Timestamp::UNIX_EPOCH);
    let none = UseStatus::default();
    let ready = told(&facts, &none);
    let without = |make: &dyn Fn(&mut Sample)| UseFacts {
        has_primary: false,
        functions_loaded: false,
        layer_cause: of_layer(make),
        ..facts.clone()
    };
    let layer = || LayerReference::new("data", "shared");
    let refuse = |reason, words, old| refused(kind, 1, reason, words, Some(layer()), old, Timestamp::UNIX_EPOCH);
    let mut states = vec![
        state("its layer is being made", "InProgress", pending(kind, 1, layer(), &none, Timestamp::UNIX_EPOCH)),
        state(
            "its functions are not loaded yet",
            "InProgress",
            told(&UseFacts { functions_loaded: false, ..facts.clone() }, &none),
        ),
        state(
            "its layer was never Ready",
            "InProgress",
            told(&UseFacts { layer_cause: of_layer(&first_sync), ..facts.clone() }, &none),
        ),
        state(
            "no pod of its new layer runs, because their image does not exist",
            "InProgress",
            told(&without(&no_image), &none),
        ),
        state("it is served", "Current", ready.clone()),
        state(
            "a change is on its way",
            "InProgress",
            told(&UseFacts { functions_loaded: false, earlier_policy: Some("d0".to_owned()), ..facts.clone() }, &ready),
        ),
        state(
            "its layer is paused",
            "Current",
            told(&UseFacts { layer_note: Some(LayerNote::Paused), ..facts.clone() }, &ready),
        ),
        state(
            "a change waits for a layer that is paused",
            "Current",
            told(
                &UseFacts {
                    layer_note: Some(LayerNote::Paused),
                    functions_loaded: false,
                    earlier_policy: Some("d0".to_owned()),
                    ..facts.clone()
                },
                &ready,
            ),
        ),
        state(
            "its layer goes on as it was accepted before",
            "Current",
            told(
                &UseFacts { layer_note: Some(LayerNote::Refused("20Mi is too small".to_owned())), ..facts.clone() },
                &ready,
            ),
        ),
        state(
            "its layer was never accepted",
            "InProgress",
            told(
                &UseFacts { layer_trouble: Some("DataLayer shared: 20Mi is too small".to_owned()), ..facts.clone() },
                &none,
            ),
        ),
        state("its layer has no primary", "InProgress", told(&without(&lost), &ready)),
        state(
            "it is refused",
            "Failed",
            refuse("NotAllowed", "namespace shop may not use DataLayer data/shared", &none),
        ),
        state("its layer is gone", "Failed", refuse("LayerNotFound", "there is no DataLayer data/shared", &ready)),
    ];
    if kind == UseKind::FunctionLibrary {
        let trouble = LibraryTrouble { reason: "LoadRefused", message: "ERR no".to_owned() };
        let facts = UseFacts {
            library_trouble: Some(trouble),
            functions_loaded: false,
            earlier_policy: Some("d0".to_owned()),
            ..facts
        };
        states.push(state("a changed source is refused", "Failed", told(&facts, &ready)));
    }
    states
}

fn states() -> Vec<State> {
    let mut all = layers();
    all.extend(UseKind::ALL.into_iter().flat_map(uses));
    all
}

fn object(state: &State) -> Value {
    let generation = state.status["observedGeneration"].clone();
    json!({
        "apiVersion": "redoubt.dev/v1alpha1",
        "kind": state.kind,
        "metadata": {"name": "web", "namespace": "shop", "generation": generation},
        "status": state.status,
    })
}

#[test]
fn no_state_is_reported_by_two_columns_that_are_the_opposite_of_each_other() {
    for state in states() {
        let conditions = state.status["conditions"].as_array().unwrap();
        let ready = conditions.iter().find(|known| known["type"] == "Ready").unwrap()["status"].as_str().unwrap();
        let word = state.status["state"].as_str().unwrap();
        assert!(!contradicts(ready, word), "{} while {}: {ready} {word}", state.kind, state.what);
    }
}

/// Of a store each part of what is known is as it should be or not, in every combination.
#[test]
fn what_kubectl_get_shows_of_a_use_in_two_columns_is_never_the_opposite() {
    const PARTS: usize = 12;
    let whole = facts_of(UseKind::SessionStore);
    let ready = status(&whole, &UseStatus::default(), Timestamp::UNIX_EPOCH);
    let lost = of_layer(&lost).unwrap();
    let cause = |is_new| Some(LayerCause { is_new, ..lost.clone() });
    for before in [UseStatus::default(), ready] {
        for chosen in 0_u32..1 << PARTS {
            let is = |bit: u32| chosen >> bit & 1 == 1;
            let facts = UseFacts {
                has_primary: !is(0),
                functions_loaded: !is(0) && !is(1),
                earlier_policy: is(2).then(|| "d0".to_owned()),
                user_missing: if is(3) { vec!["redis-1".to_owned()] } else { Vec::new() },
                silent: if is(4) { vec!["redis-2".to_owned()] } else { Vec::new() },
                violations: (!is(5)).then(Vec::new),
                name_taken: is(6),
                binding_trouble: is(6).then(|| "Secret shop/web exists and has another owner".to_owned()),
                layer_cause: cause(is(7)).filter(|_| is(0) || is(7)),
                layer_trouble: is(8).then(|| "20Mi is too small".to_owned()),
                layer_note: is(9).then_some(LayerNote::Paused),
                change_refused: is(10).then(|| "mode cannot be changed".to_owned()),
                previous_user: is(11).then(|| "user".to_owned()),
                ..whole.clone()
            };
            let told = status(&facts, &before, Timestamp::UNIX_EPOCH);
            let ready = told.conditions.iter().find(|known| known.type_ == "Ready").unwrap();
            let state = told.state.unwrap();
            assert!(!contradicts(&ready.status, &state), "{facts:#?}: {} {state}", ready.status);
        }
    }
}

#[test]
fn the_committed_statuses_are_those_that_are_reported() {
    let mut text = String::new();
    for state in states() {
        let yaml = serde_saphyr::to_string(&object(&state)).unwrap();
        let _ = write!(text, "---\n# {} ({})\n{yaml}", state.what, state.expected);
    }
    if std::env::var_os("UPDATE").is_some() {
        fs::write(GOLDEN, &text).unwrap();
    }
    assert_eq!(
        fs::read_to_string(GOLDEN).unwrap_or_default(),
        text,
        "write it anew with: UPDATE=1 cargo test --test it committed"
    );
}

/// Flux's own library, built from its module.
#[test]
fn kstatus_says_of_each_status_what_it_should() {
    let mut program = Command::new("go")
        .args(["run", "."])
        .current_dir("tests/kstatus")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("go is installed");
    let states = states();
    let objects: Vec<String> = states.iter().map(|state| object(state).to_string()).collect();
    let lines = objects.join("\n");
    program.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = program.wait_with_output().unwrap();
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    let said: Vec<&str> = said.lines().collect();
    assert_eq!(said.len(), states.len());
    let wrong: Vec<String> = states
        .iter()
        .zip(said)
        .filter(|(state, said)| state.expected != *said)
        .map(|(state, said)| format!("{} while {}: {said}, not {}", state.kind, state.what, state.expected))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
