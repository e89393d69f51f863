//! Which changes of a layer's status are worth an event.

use k8s_openapi::jiff::Timestamp;
use redoubt::api::data_layer_status::DataLayerStatus;
use redoubt::report::events::{Transition, transitions};
use redoubt::report::not_accepted;

use crate::report::Sample;

#[test]
fn the_same_status_is_no_event_and_neither_are_other_words() {
    let old = Sample::healthy().status();
    assert_eq!(transitions(&old, &old), []);
    let mut new = old.clone();
    for condition in &mut new.conditions {
        condition.message.push_str(", still");
        "Otherwise".clone_into(&mut condition.reason);
    }
    assert_eq!(transitions(&old, &new), []);
}

#[test]
fn a_condition_that_changes_is_one_event_and_progress_is_none() {
    let old = Sample::healthy().status();
    let mut sample = Sample::healthy();
    sample.data(0).libraries.clear();
    let new = sample.status();
    let actions = |transitions: Vec<Transition>| {
        transitions.into_iter().map(|event| (event.action, event.warning)).collect::<Vec<_>>()
    };
    let event = |action: &str, warning| (action.to_owned(), warning);
    assert_eq!(actions(transitions(&old, &new)), [event("ReadyFalse", true)]);
    assert_eq!(actions(transitions(&new, &old)), [event("ReadyTrue", false)]);
}

#[test]
fn trouble_that_comes_to_wait_for_a_person_is_one_more_event() {
    let mut sample = Sample::healthy();
    sample.data(0).libraries.clear();
    sample.waits = vec!["redis-1: Unrelated: it waits for a person".to_owned()];
    let waits = sample.status();
    let mut before = waits.clone();
    for condition in before.conditions.iter_mut().filter(|condition| condition.type_ == "Degraded") {
        "Trouble".clone_into(&mut condition.reason);
    }
    let events = transitions(&before, &waits);
    assert_eq!(
        events.iter().map(|event| (event.action.as_str(), event.warning)).collect::<Vec<_>>(),
        [("DegradedTrue", true)]
    );
    assert!(events[0].reason == "NeedsPerson" && events[0].note.starts_with("redis-1: Unrelated"), "{events:?}");
    assert_eq!(transitions(&waits, &waits), []);
    assert_eq!(transitions(&waits, &before), [], "it is over");
}

#[test]
fn what_was_never_said_is_an_event_only_if_it_is_waited_for() {
    let first = Sample::healthy().status();
    let events = transitions(&DataLayerStatus::default(), &first);
    assert_eq!(events.iter().map(|event| event.action.as_str()).collect::<Vec<_>>(), ["ReadyTrue"]);
    let old = DataLayerStatus::default();
    let refused = not_accepted(1, &["no".to_owned()], &old, Timestamp::UNIX_EPOCH);
    let events = transitions(&DataLayerStatus::default(), &refused);
    assert_eq!(events.iter().map(|event| event.action.as_str()).collect::<Vec<_>>(), ["AcceptedFalse"]);
}

#[test]
fn a_primary_that_moves_is_an_event_and_one_that_is_lost_or_found_is_not() {
    let old = Sample::healthy().status();
    let moved = DataLayerStatus { primary: Some("web-redis-1".to_owned()), ..old.clone() };
    let lost = DataLayerStatus { primary: None, ..old.clone() };
    assert_eq!(
        transitions(&old, &moved),
        [Transition {
            warning: false,
            action: "PrimaryMoved".to_owned(),
            reason: "PrimaryMoved".to_owned(),
            note: "the primary moved from web-redis-0 to web-redis-1".to_owned(),
        }]
    );
    assert_eq!(transitions(&old, &lost), []);
    assert_eq!(transitions(&lost, &old), []);
}

#[test]
fn an_unknown_directive_is_one_warning_and_not_one_in_each_pass() {
    let told_of = |unknown: &[&str]| {
        let mut sample = Sample::healthy();
        sample.subject.unknown_directives = unknown.iter().map(|&name| name.to_owned()).collect();
        sample.status()
    };
    let (healthy, odd) = (told_of(&[]), told_of(&["hzz (did you mean hz?)"]));
    for before in [&healthy, &DataLayerStatus::default()] {
        let events = transitions(before, &odd);
        let events: Vec<&Transition> = events.iter().filter(|event| event.reason == "UnknownDirectives").collect();
        assert!(events.len() == 1 && events[0].warning && events[0].note.contains("did you mean hz?"), "{events:?}");
    }
    assert_eq!(transitions(&odd, &odd), []);
    assert_eq!(transitions(&odd, &healthy), []);
    assert_eq!(transitions(&odd, &told_of(&["hzz (did you mean hz?)", "tieout (did you mean timeout?)"])).len(), 1);
    assert!(odd.conditions.iter().any(|known| known.type_ == "Ready" && known.status == "True"));
}
