//! What is told of data that nodes keep aside.

use redoubt::api::data_layer_status::DataLayerStatus;
use redoubt::model::NodeId;
use redoubt::model::lineage::{Aside, AsideReason};
use redoubt::model::observed::ObservedServer;
use redoubt::report::events::transitions;

use crate::report::Sample;

fn keep(sample: &mut Sample, ordinal: u16, folders: &[&str]) {
    let kept = |folder: &&str| Aside {
        folder: (*folder).to_owned(),
        reason: AsideReason::Replaced,
        at: 1,
        bytes: 7,
        lineage: None,
    };
    sample.observed.nodes.get_mut(&NodeId::data(ordinal)).unwrap().aside = Some(folders.iter().map(kept).collect());
}

fn degraded(status: &DataLayerStatus) -> (String, String, String) {
    let told = status.conditions.iter().find(|told| told.type_ == "Degraded").unwrap();
    (told.status.clone(), told.reason.clone(), told.message.clone())
}

fn events_of(old: &DataLayerStatus, new: &DataLayerStatus) -> Vec<(String, String)> {
    transitions(old, new).into_iter().map(|told| (told.action, told.note)).collect()
}

const FIRST: &str = "20261128T062033Z-replaced";
const SECOND: &str = "20261128T070000Z-replaced";

#[test]
fn kept_data_degrades_a_layer_by_a_reason_of_its_own_and_names_the_folder_and_what_to_do() {
    for initialised in [true, false] {
        let mut sample = Sample::healthy();
        sample.observed.initialised = initialised;
        keep(&mut sample, 1, &[FIRST]);
        let status = sample.status();
        let (holds, reason, message) = degraded(&status);
        assert_eq!((holds.as_str(), reason.as_str()), ("True", "DataKeptAside"), "{message}");
        for part in ["redis-1: /data/aside/20261128T062033Z-replaced holds 7 bytes", "redoubt.dev/drop-aside"] {
            assert!(message.contains(part), "{message}");
        }
        let nodes: Vec<_> = status.nodes.iter().filter(|node| !node.kept_aside.is_empty()).collect();
        assert_eq!((nodes.len(), nodes[0].name.as_str()), (1, "web-redis-1"));
        assert_eq!((nodes[0].kept_aside[0].folder.as_str(), nodes[0].kept_aside[0].bytes), (FIRST, 7));
    }
}

/// After a failover the layer is degraded by the node that is away, as a rule, when data turns out to be kept.
#[test]
fn each_new_folder_is_one_event_while_the_layer_is_degraded_by_something_else() {
    let mut sample = Sample::healthy();
    sample.observed.nodes.get_mut(&NodeId::data(2)).unwrap().server = ObservedServer::Unknown;
    let before = sample.status();
    assert_eq!((degraded(&before).0.as_str(), degraded(&before).1.as_str()), ("True", "NoAnswer"));
    keep(&mut sample, 1, &[FIRST]);
    let one = sample.status_after(&before, 1);
    assert_eq!(degraded(&one).1, "NoAnswer", "what is graver comes first");
    let events = events_of(&before, &one);
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(events[0].0 == "DataKeptAside" && events[0].1.contains(&format!("web-redis-1: /data/aside/{FIRST}")));
    assert!(transitions(&before, &one)[0].warning);
    assert_eq!(events_of(&one, &sample.status_after(&one, 2)), [], "once");
    keep(&mut sample, 1, &[FIRST, SECOND]);
    let two = sample.status_after(&one, 3);
    let events = events_of(&one, &two);
    assert!(events.len() == 1 && events[0].1.contains(SECOND), "{events:?}");
    keep(&mut sample, 1, &[SECOND]);
    assert_eq!(events_of(&two, &sample.status_after(&two, 4)), [], "one that is dropped is no news");
}

#[test]
fn a_folder_that_degrades_the_layer_is_reported_by_that_event_alone() {
    let mut sample = Sample::healthy();
    let before = sample.status();
    keep(&mut sample, 0, &[FIRST]);
    let events = events_of(&before, &sample.status_after(&before, 1));
    assert_eq!(events.iter().map(|event| event.0.as_str()).collect::<Vec<_>>(), ["DegradedTrue"]);
    assert!(events[0].1.contains(FIRST));
}

/// A volume has what it had: neither the end of the trouble nor the folder once more is told.
#[test]
fn an_agent_that_does_not_answer_in_a_pass_takes_nothing_from_what_is_reported() {
    let mut sample = Sample::healthy();
    keep(&mut sample, 1, &[FIRST]);
    let before = sample.status();
    sample.observed.nodes.get_mut(&NodeId::data(1)).unwrap().aside = None;
    let silent = sample.status_after(&before, 1);
    assert_eq!((degraded(&silent), &silent.nodes), (degraded(&before), &before.nodes));
    assert_eq!(events_of(&before, &silent), []);
    keep(&mut sample, 1, &[FIRST]);
    assert_eq!(events_of(&silent, &sample.status_after(&silent, 2)), []);
    keep(&mut sample, 1, &[]);
    let dropped = sample.status_after(&silent, 3);
    assert_eq!(degraded(&dropped).0, "False");
}
