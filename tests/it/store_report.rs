//! What is told of a session store.

use k8s_openapi::jiff::Timestamp;
use redoubt::api::use_status::{FunctionsStatus, LimitStatus, RotationStatus, UseStatus};
use redoubt::model::UseKind;
use redoubt::model::counters::Row;
use redoubt::report::events::of_conditions;
use redoubt::report::uses::{LayerCause, LayerNote, UseFacts, refused, status};

fn facts() -> UseFacts {
    UseFacts {
        generation: 3,
        layer: ("shop".to_owned(), "web-sessions".to_owned()),
        has_primary: true,
        functions_loaded: true,
        functions: FunctionsStatus { library: "redoubt_sessions".to_owned(), digest: "d".to_owned(), generation: 3 },
        violations: Some(Vec::new()),
        binding: Some("web-session-binding".to_owned()),
        user: Some("ss.shop.web".to_owned()),
        ..UseFacts::default()
    }
}

fn published(facts: &UseFacts, old: &UseStatus) -> UseStatus {
    status(facts, old, Timestamp::UNIX_EPOCH)
}

fn condition(status: &UseStatus, kind: &str) -> (String, String, String) {
    let found = status.conditions.iter().find(|it| it.type_ == kind).unwrap();
    (found.status.clone(), found.reason.clone(), found.message.clone())
}

#[test]
fn a_store_is_ready_when_everything_is_proven() {
    let status = published(&facts(), &UseStatus::default());
    assert_eq!(condition(&status, "Ready").0, "True");
    assert_eq!(condition(&status, "Degraded").0, "False");
    assert_eq!(condition(&status, "Progressing").0, "False");
    assert_eq!(status.functions.as_ref().unwrap().generation, 3);
    assert_eq!(published(&facts(), &status), status, "nothing is written while nothing changes");
}

#[test]
fn whatever_is_not_proven_is_named_and_no_store_is_ready_with_it() {
    let ready = published(&facts(), &UseStatus::default());
    let all = facts();
    for (facts, reason, words) in [
        (UseFacts { functions_loaded: false, ..all.clone() }, "NotLoaded", "FunctionsLoaded"),
        (UseFacts { has_primary: false, functions_loaded: false, ..all.clone() }, "NoPrimary", "no primary"),
        (UseFacts { user_missing: vec!["redis-1".to_owned()], ..all.clone() }, "NotInPlace", "redis-1"),
        (UseFacts { violations: None, ..all.clone() }, "NotAsked", "AccessProven"),
        (UseFacts { violations: Some(vec!["may SCAN 0".to_owned()]), ..all.clone() }, "Breached", "may SCAN 0"),
        (UseFacts { binding: None, ..all.clone() }, "NotWritten", "BindingWritten"),
        (
            UseFacts { layer_trouble: Some("spec is wrong".to_owned()), ..all.clone() },
            "LayerNotAccepted",
            "spec is wrong",
        ),
    ] {
        let status = published(&facts, &ready);
        let (is, found, message) = condition(&status, "Ready");
        assert_eq!((is.as_str(), found.as_str()), ("False", reason));
        assert!(message.contains(words), "{message}");
        assert_eq!(condition(&status, "Degraded").0, "True", "{reason}: it was Ready before");
        let fresh = published(&facts, &UseStatus::default());
        assert_eq!(condition(&fresh, "Degraded").0, "False", "{reason}: it was never Ready");
    }
}

#[test]
fn a_server_that_is_away_is_told_of_and_those_who_use_the_others_do_not_wait_for_it() {
    let facts = UseFacts { silent: vec!["redis-2".to_owned()], ..facts() };
    let status = published(&facts, &UseStatus::default());
    assert_eq!(
        condition(&status, "UserInPlace"),
        ("False".into(), "NotInPlace".into(), "redis-2 does not answer".into())
    );
    assert_eq!(condition(&status, "Ready").0, "True");
}

/// It would log in to a server that lacks its user, or write to a layer that a node may still take for new.
#[test]
fn a_store_is_ready_at_first_once_its_layer_was_and_every_node_that_clients_reach_has_its_user() {
    let ready = published(&facts(), &UseStatus::default());
    let unreached =
        UseFacts { silent: vec!["sentinel-2".to_owned()], unreached: vec!["sentinel-2".to_owned()], ..facts() };
    let missing = LayerCause {
        reason: "NotRedundant".to_owned(),
        message: "HighlyAvailable: redis-2 is not in sync".to_owned(),
        is_trouble: false,
        is_new: true,
    };
    let forming = UseFacts { layer_cause: Some(missing), ..facts() };
    for (facts, reason, words) in [
        (unreached, "NotInPlace", "UserInPlace: sentinel-2 does not answer"),
        (forming, "LayerPending", "layer shop/web-sessions is not Ready yet: HighlyAvailable: redis-2 is not in sync"),
    ] {
        let fresh = published(&facts, &UseStatus::default());
        assert_eq!(condition(&fresh, "Ready"), ("False".into(), reason.into(), words.into()));
        assert_eq!(
            (condition(&fresh, "Progressing").0, condition(&fresh, "Degraded").0),
            ("True".into(), "False".into())
        );
        // Of a primary that was lost the pod counts as ready for another 40 s.
        let without = published(&UseFacts { has_primary: false, ..facts.clone() }, &ready);
        for earlier in [&ready, &without] {
            assert_eq!(
                condition(&published(&facts, earlier), "Ready").0,
                "True",
                "{reason}: those who use it do not wait"
            );
        }
    }
}

/// What keeps the layer's primary away is the reason of its uses too, in its words.
#[test]
fn a_store_says_what_its_layer_says_of_itself() {
    let cause = LayerCause {
        reason: "ImagePullBackOff".to_owned(),
        message: "the pods of redis-0, redis-1 do not run: ImagePullBackOff: no such image".to_owned(),
        is_trouble: true,
        is_new: true,
    };
    let words = |yet| format!("layer shop/web-sessions is not Ready{yet}: {}", cause.message);
    let without = UseFacts { has_primary: false, functions_loaded: false, layer_cause: Some(cause.clone()), ..facts() };
    let forming = UseFacts { layer_cause: Some(cause.clone()), ..facts() };
    for (facts, yet) in [(without, ""), (forming, " yet")] {
        let status = published(&facts, &UseStatus::default());
        assert_eq!(condition(&status, "Ready"), ("False".into(), cause.reason.clone(), words(yet)));
        assert_eq!((status.state.as_deref(), status.message.clone()), (Some("ImagePullBackOff"), Some(words(yet))));
        assert_eq!(condition(&status, "Progressing").1, "ImagePullBackOff");
        assert_eq!(condition(&status, "Degraded").0, "False", "it was never served");
    }
}

#[test]
fn a_change_that_the_layer_does_not_take_is_reported_and_the_store_stays_ready() {
    let facts = UseFacts { change_refused: Some("mode cannot be changed".to_owned()), ..facts() };
    let status = published(&facts, &UseStatus::default());
    assert_eq!(condition(&status, "Ready").0, "True");
    let (is, reason, message) = condition(&status, "Degraded");
    assert_eq!((is.as_str(), reason.as_str()), ("True", "LayerRefused"));
    assert!(message.contains("mode cannot be changed"));
}

#[test]
fn a_refusal_takes_away_what_is_no_longer_so_and_is_an_event_once() {
    let ready = published(&facts(), &UseStatus::default());
    let of =
        |old: &UseStatus| refused(UseKind::SessionStore, 4, "NotAllowed", "no leave", None, old, Timestamp::UNIX_EPOCH);
    let first = of(&ready);
    assert_eq!((first.binding.is_none(), first.user.is_none(), first.functions.is_none()), (true, true, true));
    assert_eq!(condition(&first, "Accepted"), ("False".into(), "NotAllowed".into(), "no leave".into()));
    assert!(condition(&first, "Degraded").2.contains("keys stay until their TTL"));
    let events: Vec<String> =
        of_conditions(&ready.conditions, &first.conditions).into_iter().map(|it| it.action).collect();
    assert_eq!(events, ["AcceptedFalse", "ReadyFalse", "DegradedTrue"]);
    assert_eq!(of(&first), first, "the second time nothing changes");
    assert_eq!(condition(&of(&UseStatus::default()), "Degraded").0, "False", "it was never served");
}

#[test]
fn a_rotation_that_is_under_way_is_progress_and_no_trouble() {
    let facts =
        UseFacts { previous_user: Some("ss.shop.web".to_owned()), user: Some("ss.shop.web.1".to_owned()), ..facts() };
    let status = published(&facts, &UseStatus::default());
    assert_eq!(condition(&status, "Ready").0, "True");
    let (is, reason, message) = condition(&status, "Progressing");
    assert_eq!((is.as_str(), reason.as_str()), ("True", "Rotating"));
    assert!(message.contains("ss.shop.web "));
}

fn everything_else(facts: &UseFacts) -> (UseStatus, UseStatus) {
    let ready = published(&self::facts(), &UseStatus::default());
    (published(facts, &ready), published(facts, &UseStatus::default()))
}

/// A policy that is on its way, and a new replica, take nothing from those who use the store.
#[test]
fn a_store_that_serves_stays_ready_while_a_change_is_on_its_way() {
    let primary = Some("redis-0".to_owned());
    let changed = UseFacts {
        functions_loaded: false,
        earlier_policy: Some("d0".to_owned()),
        primary: primary.clone(),
        ..facts()
    };
    let (serving, fresh) = everything_else(&changed);
    assert_eq!((condition(&serving, "Ready").0, condition(&serving, "Ready").1), ("True".into(), "Serving".into()));
    assert_eq!(condition(&serving, "Degraded").0, "False");
    assert_eq!(condition(&serving, "Progressing").1, "Changing");
    assert_eq!(condition(&serving, "Reconciling").0, "True");
    assert_eq!(condition(&fresh, "Ready").0, "False", "it was never Ready");
    let scaled = UseFacts { user_missing: vec!["redis-2".to_owned()], primary: primary.clone(), ..facts() };
    assert_eq!(condition(&everything_else(&scaled).0, "Ready").0, "True");
    let lost = UseFacts { user_missing: vec!["redis-0".to_owned()], primary, ..facts() };
    assert_eq!(condition(&everything_else(&lost).0, "Ready").0, "False");
}

#[test]
fn a_store_says_what_keeps_changes_from_its_layer() {
    for (note, reason, words) in [
        (
            LayerNote::Paused,
            "LayerPaused",
            "layer shop/web-sessions is paused: a change waits until its spec.paused is false",
        ),
        (
            LayerNote::Refused("20Mi is too small".to_owned()),
            "LayerRefused",
            "the newest specification of layer shop/web-sessions is refused",
        ),
        (LayerNote::Unreadable, "LayerUnreadable", "DataLayer shop/web-sessions cannot be read"),
    ] {
        let (serving, _) = everything_else(&UseFacts { layer_note: Some(note.clone()), ..facts() });
        assert_eq!(condition(&serving, "Ready").0, "True");
        let (is, found, message) = condition(&serving, "Progressing");
        assert_eq!((is.as_str(), found.as_str()), ("False", reason));
        assert!(message.starts_with(words), "{message}");
        assert_eq!(serving.state.as_deref(), Some(reason));
        assert_eq!(serving.layer.unwrap().path, "shop/web-sessions");
        let waiting = UseFacts {
            layer_note: Some(note.clone()),
            functions_loaded: false,
            earlier_policy: Some("d0".to_owned()),
            ..facts()
        };
        let (waiting, _) = everything_else(&waiting);
        assert_eq!(condition(&waiting, "Ready").0, "True");
        assert_eq!(condition(&waiting, "Progressing").1, reason);
        let is_paused = note == LayerNote::Paused;
        assert_eq!(condition(&waiting, "FunctionsLoaded").1, if is_paused { "LayerPaused" } else { "NotLoaded" });
    }
}

#[test]
fn a_name_that_is_taken_moves_no_binding_and_ends_no_service() {
    let why = "Secret shop/taken exists and has another owner";
    let taken = UseFacts {
        name_taken: true,
        binding_trouble: Some(why.to_owned()),
        earlier_policy: Some("d".to_owned()),
        ..facts()
    };
    let (after, _) = everything_else(&taken);
    for kind in ["Accepted", "BindingWritten"] {
        let (is, reason, message) = condition(&after, kind);
        assert_eq!((is.as_str(), reason.as_str()), ("False", "NameTaken"), "{kind}");
        assert_eq!(message, format!("{why}; the binding stays in Secret web-session-binding"));
    }
    assert_eq!(condition(&after, "Ready").0, "True", "{after:#?}");
    assert_eq!(after.binding.unwrap().name, "web-session-binding");
    // A binding without its owner is not the store's, which keeps its user.
    let rotation = Some(RotationStatus { shown: 1, previous: Some(0), rotated_at: None });
    let (disowned, _) = everything_else(&UseFacts { binding: None, rotation: rotation.clone(), ..taken.clone() });
    let (is, reason, message) = condition(&disowned, "BindingWritten");
    assert_eq!((is.as_str(), reason.as_str()), ("False", "NameTaken"));
    assert_eq!(message, format!("{why}; the credentials that the binding showed stay valid"));
    assert_eq!((condition(&disowned, "UserInPlace").0.as_str(), &disowned.rotation), ("True", &rotation));
    assert!(!format!("{:?}", disowned.conditions).contains("removed"), "{disowned:#?}");
    let (never, _) = everything_else(&UseFacts { binding: None, ..taken });
    assert_eq!(condition(&never, "Ready").0, "False", "there is no binding at all");
    assert_eq!((condition(&never, "Accepted").1.as_str(), never.binding), ("NameTaken", None));
}

#[test]
fn a_policys_limits_are_named_in_one_string_of_which_a_column_has_room() {
    let limit = |name: &str| LimitStatus {
        name: name.to_owned(),
        worst_case: 1,
        worst_case_started: None,
        interval_microseconds: 1,
    };
    for (names, shown) in [
        (&["a"][..], Some("a")),
        (&["a", "b"], Some("a, b")),
        (&["a", "b", "c", "d", "e"], Some("a, b, c and 2 more")),
        (&[], None),
    ] {
        let facts = UseFacts { limits: names.iter().map(|name| limit(name)).collect(), ..facts() };
        assert_eq!(published(&facts, &UseStatus::default()).names.as_deref(), shown);
    }
}

/// Ten reads, of which seven found something; then numbers that move it by little and by much.
#[test]
fn a_caches_hit_ratio_counts_what_was_found_and_rests_while_it_is_about_right() {
    let row = |counts: [u64; 11]| {
        let counts = counts.to_vec();
        Some(vec![Row { owner: "shop/web".to_owned(), part: String::new(), counts }])
    };
    let of = |counters: Option<Vec<Row>>, old: &UseStatus| {
        published(&UseFacts { kind: UseKind::CacheNamespace, counters, ..facts() }, old)
    };
    // hits, stale, negative; misses, waits, failed; and what is no read.
    let first = of(row([4, 2, 1, 1, 1, 1, 9, 9, 9, 9, 9]), &UseStatus::default());
    assert_eq!(first.hit_ratio, Some(70));
    let little = of(row([74, 0, 0, 26, 0, 0, 0, 0, 0, 0, 0]), &first);
    assert_eq!(little.hit_ratio, Some(70), "it rests");
    let much = of(row([75, 0, 0, 25, 0, 0, 0, 0, 0, 0, 0]), &first);
    assert_eq!(much.hit_ratio, Some(75));
    assert_eq!(of(None, &much).hit_ratio, Some(75), "what is not known now stays");
    assert_eq!(of(row([0; 11]), &UseStatus::default()).hit_ratio, None, "nothing was read");
    let sessions = UseFacts { counters: row([9; 11]), ..facts() };
    assert_eq!(published(&sessions, &UseStatus::default()).hit_ratio, None);
}
