//! What is told of a layer: whole statuses of hand-made observations.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::jiff::Timestamp;
use redoubt::api::data_layer_status::{DataLayerStatus, MemoryStatus};
use redoubt::model::audit::AuditReport;
use redoubt::model::desired::{Desired, DesiredLibrary, DesiredUser, PromotionRequest};
use redoubt::model::engine::EngineVersion;
use redoubt::model::observed::{DataServer, Observed, ObservedServer, Replication, SentinelServer, UnavailableNode};
use redoubt::model::{NodeId, NodeKind, Purpose};
use redoubt::plan::plan;
use redoubt::report::{Facts, LayerSummary, StepFailure, change_refused, not_accepted, status};

use crate::planner;

/// A healthy layer with a user, a library and files, whose primary is the first node.
pub struct Sample {
    pub desired: Desired,
    pub observed: Observed,
    pub subject: LayerSummary,
    pub undone: Vec<StepFailure>,
    pub faults: Vec<(NodeId, String)>,
    pub waits: Vec<String>,
}

impl Sample {
    pub fn healthy() -> Self {
        let mut desired = planner::desired("old");
        desired.settings.extend([("appendonly", "yes"), ("maxclients", "1000")].map(|(k, v)| (k.into(), v.into())));
        desired.users = BTreeMap::from([("web".to_owned(), DesiredUser { rules: Vec::new() })]);
        desired.sentinel_users = BTreeMap::from([("agent".to_owned(), DesiredUser { rules: Vec::new() })]);
        desired.libraries = BTreeMap::from([("tools".to_owned(), DesiredLibrary { digest: "d1".to_owned() })]);
        let mut observed = planner::converged(NodeId::data(0));
        for (node, seen) in &mut observed.nodes {
            if let Some(pod) = &mut seen.pod {
                pod.kubernetes_node = Some(format!("worker-{}", node.ordinal));
            }
            match &mut seen.server {
                ObservedServer::Data(server) => {
                    server.settings.clone_from(&desired.settings);
                    server.users_in_place = ["web".to_owned()].into();
                    server.libraries = BTreeMap::from([("tools".to_owned(), "d1".to_owned())]);
                }
                ObservedServer::Sentinel(server) => server.users_in_place = ["agent".to_owned()].into(),
                ObservedServer::Unknown | ObservedServer::Loading => {}
            }
        }
        let subject = LayerSummary {
            memory: MemoryStatus::default(),
            keeps_data: true,
            purpose: Purpose::Mixed,
            application_access: true,
            administrator_access: false,
            max_connections: 500,
            image: "example.test/engine:1".to_owned(),
            unknown_directives: Vec::new(),
            odd_approval: None,
            promote: None,
            leaves_out_functions: false,
            application_breaches: Vec::new(),
            audit: Some(std::sync::Arc::new(AuditReport { keys: 1_234, ..AuditReport::default() })),
        };
        Self { desired, observed, subject, undone: Vec::new(), faults: Vec::new(), waits: Vec::new() }
    }

    pub fn data(&mut self, ordinal: u16) -> &mut DataServer {
        match &mut self.observed.nodes.get_mut(&NodeId::data(ordinal)).unwrap().server {
            ObservedServer::Data(server) => server,
            other => panic!("{other:?}"),
        }
    }

    pub fn sentinel(&mut self, ordinal: u16) -> &mut SentinelServer {
        match &mut self.observed.nodes.get_mut(&NodeId::sentinel(ordinal)).unwrap().server {
            ObservedServer::Sentinel(server) => server,
            other => panic!("{other:?}"),
        }
    }

    pub fn status(&self) -> DataLayerStatus {
        self.status_after(&DataLayerStatus::default(), 0)
    }

    /// `old`: the status before; `second`: now.
    pub fn status_after(&self, old: &DataLayerStatus, second: i64) -> DataLayerStatus {
        let plan = plan(&self.desired, &self.observed);
        let facts = Facts {
            desired: &self.desired,
            observed: &self.observed,
            plan: &plan,
            undone: &self.undone,
            faults: &self.faults,
            waits: &self.waits,
            subject: &self.subject,
        };
        status(facts, old, Timestamp::from_second(second).unwrap())
    }
}

/// One line for each condition, checklist item and data node.
fn text(status: &DataLayerStatus) -> String {
    let mut text = String::new();
    for said in &status.conditions {
        let _ = writeln!(text, "{}={} {}: {}", said.type_, said.status, said.reason, said.message);
    }
    for item in &status.checklist {
        let _ = writeln!(text, "[{}] {}: {}", if item.ok { "x" } else { " " }, item.item, item.evidence);
    }
    for node in status.nodes.iter().filter(|node| node.role.as_deref() != Some("Sentinel")) {
        let words = [&node.role, &node.state].map(|word| word.as_deref().unwrap_or("-"));
        let _ = writeln!(text, "{} {}", node.name, words.join(" "));
    }
    text
}

/// What of a status differs from that of the healthy layer.
fn differing(sample: &Sample) -> String {
    let healthy = text(&Sample::healthy().status());
    text(&sample.status()).lines().filter(|line| !healthy.lines().any(|known| known == *line)).fold(
        String::new(),
        |mut text, line| {
            text.push_str(line);
            text.push('\n');
            text
        },
    )
}

#[test]
fn a_healthy_layer_is_ready_and_everything_is_proven() {
    insta::assert_snapshot!(text(&Sample::healthy().status()), @r"
    Accepted=True Valid: the specification is valid
    MemoryBounded=True Bounded: every data node's maxmemory is as planned
    Persisted=True Persisted: every data node writes its files as declared
    FunctionsLoaded=True Loaded: the primary answers for every library
    UsersInPlace=True InPlace: every server has exactly the declared users
    SettingsApplied=True Applied: every directive was read back as declared
    HighlyAvailable=True Redundant: any one node may be lost
    Degraded=False AsDeclared: nothing is wrong
    Progressing=False AsDeclared: nothing is left to do
    Ready=True Proven: proven on the live servers for this generation
    [x] memory bounded: every data node's maxmemory is as planned
    [x] eviction fits the uses: noeviction: no key is ever evicted
    [x] persisted: every data node writes its files as declared
    [x] functions on every primary: the primary answers for every library
    [x] connections within the pool budget: maxclients 1000, 500 of them for applications
    [x] every key expires: none of about 1200 keys is without an expiry
    [x] no single point of failure: any one node may be lost
    web-redis-0 Primary InSync
    web-redis-1 Replica InSync
    web-redis-2 Replica InSync
    ");
}

#[test]
fn without_a_primary_nothing_that_depends_on_one_is_proven() {
    let mut sample = Sample::healthy();
    for ordinal in 0..2 {
        sample.sentinel(ordinal).master = None;
    }
    insta::assert_snapshot!(differing(&sample), @r"
    FunctionsLoaded=False NotLoaded: there is no primary to ask
    HighlyAvailable=False NotRedundant: there is no primary
    Degraded=True NoPrimary: most Sentinels do not agree on a primary yet
    Progressing=True Waiting: most Sentinels do not agree on a primary yet
    Ready=False NoPrimary: there is no primary: no data node says that it is one while most Sentinels name it
    Reconciling=True Waiting: most Sentinels do not agree on a primary yet
    [ ] functions on every primary: there is no primary to ask
    [ ] no single point of failure: there is no primary
    web-redis-0 Primary Syncing
    web-redis-1 Replica Syncing
    web-redis-2 Replica Syncing
    ");
}

#[test]
fn a_replica_that_is_linked_and_far_behind_is_lagging_and_not_redundant() {
    let mut sample = Sample::healthy();
    sample.data(0).offset.0 = 9 + (64 << 20);
    assert_eq!(differing(&sample), "", "so much may be under way");
    sample.data(0).offset.0 += 1;
    insta::assert_snapshot!(differing(&sample), @r"
    HighlyAvailable=False NotRedundant: redis-1 is not in sync; redis-2 is not in sync
    Progressing=True Waiting: redis-1 is not in sync yet; redis-2 is not in sync yet
    Ready=True Serving: the layer serves; the other conditions say what is not as declared
    Reconciling=True Waiting: redis-1 is not in sync yet; redis-2 is not in sync yet
    [ ] no single point of failure: redis-1 is not in sync; redis-2 is not in sync
    web-redis-1 Replica Lagging
    web-redis-2 Replica Lagging
    ");
}

#[test]
fn one_replica_that_is_not_synced_is_named() {
    let mut sample = Sample::healthy();
    if let Replication::Replica { link_up, .. } = &mut sample.data(2).replication {
        *link_up = false;
    }
    insta::assert_snapshot!(differing(&sample), @r"
    HighlyAvailable=False NotRedundant: redis-2 is not in sync
    Progressing=True Waiting: redis-2 is not in sync yet
    Ready=True Serving: the layer serves; the other conditions say what is not as declared
    Reconciling=True Waiting: redis-2 is not in sync yet
    [ ] no single point of failure: redis-2 is not in sync
    web-redis-2 Replica Syncing
    ");
}

/// Found by an audit: the report called replicas in sync that no Sentinel would elect.
#[test]
fn replicas_that_may_not_be_elected_are_no_redundancy() {
    let mut sample = Sample::healthy();
    for ordinal in 1..3 {
        if let Replication::Replica { priority, .. } = &mut sample.data(ordinal).replication {
            *priority = 0;
        }
    }
    insta::assert_snapshot!(differing(&sample), @r"
    HighlyAvailable=False NotRedundant: redis-1 is not in sync; redis-2 is not in sync
    Progressing=True Waiting: redis-1 is not in sync yet; redis-2 is not in sync yet
    Ready=True Serving: the layer serves; the other conditions say what is not as declared
    Reconciling=True Waiting: redis-1 is not in sync yet; redis-2 is not in sync yet
    [ ] no single point of failure: redis-1 is not in sync; redis-2 is not in sync
    web-redis-1 Replica Syncing
    web-redis-2 Replica Syncing
    ");
}

#[test]
fn a_missing_library_is_named() {
    let mut sample = Sample::healthy();
    sample.data(0).libraries.clear();
    insta::assert_snapshot!(differing(&sample), @r"
    FunctionsLoaded=False NotLoaded: the primary does not have the function library tools as declared
    Progressing=True Changing: steps are being carried out
    Ready=False NotLoaded: redis-0 lacks the function library tools
    Reconciling=True Changing: steps are being carried out
    [ ] functions on every primary: the primary does not have the function library tools as declared
    ");
}

#[test]
fn a_setting_that_differs_is_named_with_its_node() {
    let mut sample = Sample::healthy();
    sample.data(1).settings.insert("appendonly".to_owned(), "no".to_owned());
    sample.data(2).maxmemory = 0;
    insta::assert_snapshot!(differing(&sample), @r"
    MemoryBounded=False NotBounded: redis-2 has no maxmemory
    Persisted=False NotPersisted: redis-1: appendonly is not as declared
    SettingsApplied=False NotApplied: redis-1 differs in appendonly
    Progressing=True Changing: steps are being carried out
    Ready=True Serving: the layer serves; the other conditions say what is not as declared
    Reconciling=True Changing: steps are being carried out
    [ ] memory bounded: redis-2 has no maxmemory
    [ ] persisted: redis-1: appendonly is not as declared
    ");
}

#[test]
fn a_user_that_is_missing_or_not_declared_is_named_with_its_node() {
    let mut sample = Sample::healthy();
    sample.data(1).users_in_place.clear();
    sample.data(2).users_foreign.insert("mallory".to_owned());
    sample.sentinel(0).users_in_place.clear();
    insta::assert_snapshot!(differing(&sample), @r"
    UsersInPlace=False NotInPlace: redis-1 differs in the user web; redis-2 has undeclared users: mallory; sentinel-0 differs in the user agent
    Progressing=True Changing: steps are being carried out
    Ready=True Serving: the layer serves; the other conditions say what is not as declared
    Reconciling=True Changing: steps are being carried out
    ");
}

#[test]
fn a_server_that_cannot_write_is_named() {
    let mut sample = Sample::healthy();
    sample.data(0).persistence_trouble = Some("rdb".to_owned());
    insta::assert_snapshot!(differing(&sample), @r"
    Persisted=False NotPersisted: redis-0 cannot write its rdb file
    Degraded=True FilesNotWritten: redis-0 cannot write its rdb file
    Ready=False NotPersisted: Persisted: redis-0 cannot write its rdb file
    [ ] persisted: redis-0 cannot write its rdb file
    ");
}

#[test]
fn trouble_with_a_pod_is_reported_in_the_words_of_kubernetes() {
    let mut sample = Sample::healthy();
    let seen = sample.observed.nodes.get_mut(&NodeId::data(2)).unwrap();
    seen.server = ObservedServer::Unknown;
    let pod = seen.pod.as_mut().unwrap();
    (pod.ready, pod.trouble) = (false, Some("ImagePullBackOff: no such image".to_owned()));
    insta::assert_snapshot!(differing(&sample), @r"
    MemoryBounded=False NotBounded: redis-2 does not answer
    Persisted=False NotPersisted: redis-2 does not answer
    UsersInPlace=False NotInPlace: redis-2 does not answer
    SettingsApplied=False NotApplied: redis-2 does not answer
    HighlyAvailable=False NotRedundant: redis-2 is not in sync
    Degraded=True ImagePullBackOff: the pod of redis-2 does not run: ImagePullBackOff: no such image
    Progressing=True Waiting: the pod of redis-2 does not run: ImagePullBackOff: no such image; redis-2 is not in sync yet
    Ready=True Serving: the layer serves; the other conditions say what is not as declared
    Reconciling=True Waiting: the pod of redis-2 does not run: ImagePullBackOff: no such image; redis-2 is not in sync yet
    [ ] memory bounded: redis-2 does not answer
    [ ] persisted: redis-2 does not answer
    [ ] no single point of failure: redis-2 is not in sync
    web-redis-2 - Unreachable
    ");
}

/// The layer after the pod of its third data node is gone.
fn without_a_pod(away: UnavailableNode) -> Sample {
    let mut sample = Sample::healthy();
    let seen = sample.observed.nodes.get_mut(&NodeId::data(2)).unwrap();
    (seen.pod, seen.server, seen.away) = (None, ObservedServer::Unknown, Some(away));
    sample
}

fn degraded(sample: &Sample) -> String {
    let status = sample.status();
    let said = status.conditions.iter().find(|said| said.type_ == "Degraded").unwrap();
    format!("{} {}", said.status, said.message)
}

#[test]
fn a_pod_that_is_refused_is_reported_in_the_words_of_kubernetes_in_a_new_layer_too() {
    let words = Some("FailedCreate: create Pod web-redis-2-0 failed: exceeded quota: small".to_owned());
    let mut sample = without_a_pod(UnavailableNode { seconds: 5, planned: true, words });
    let told =
        "True the pod of redis-2 does not run: FailedCreate: create Pod web-redis-2-0 failed: exceeded quota: small";
    assert_eq!(degraded(&sample), told);
    sample.observed.initialised = false;
    assert_eq!(degraded(&sample), told);
    // What ends within seconds is no trouble of a layer that is still being made.
    sample.observed.nodes.get_mut(&NodeId::data(2)).unwrap().away.as_mut().unwrap().seconds = 4;
    assert_eq!(degraded(&sample), "False nothing is wrong");
}

/// One cause of several nodes is one sentence, wherever it is told.
#[test]
fn pods_that_do_not_run_for_one_reason_are_named_together() {
    let mut sample = Sample::healthy();
    sample.observed.initialised = false;
    let pull = "ImagePullBackOff: no such image";
    for (node, words) in [
        (NodeId::data(0), pull),
        (NodeId::data(1), "FailedMount: no"),
        (NodeId::data(2), pull),
        (NodeId::sentinel(0), pull),
    ] {
        let seen = sample.observed.nodes.get_mut(&node).unwrap();
        (seen.pod, seen.server) = (None, ObservedServer::Unknown);
        seen.away = Some(UnavailableNode { seconds: 9, planned: true, words: Some(words.to_owned()) });
    }
    let together = format!("the pods of redis-0, redis-2, sentinel-0 do not run: {pull}");
    let alone = "the pod of redis-1 does not run: FailedMount: no";
    let status = sample.status();
    for kind in ["Degraded", "Progressing", "Ready"] {
        let said = &status.conditions.iter().find(|said| said.type_ == kind).unwrap().message;
        assert!(said.contains(&format!("{together}; {alone}")), "{kind}: {said}");
        assert_eq!(said.matches(pull).count(), 1, "{kind}: {said}");
    }
}

#[test]
fn a_node_that_served_and_is_away_degrades_unless_we_took_it_away_a_moment_ago() {
    let is_degraded = |seconds, planned, initialised| {
        let mut sample = without_a_pod(UnavailableNode { seconds, planned, words: None });
        sample.observed.initialised = initialised;
        degraded(&sample)
    };
    let missing = "True the pod of redis-2 does not run yet";
    assert_eq!(is_degraded(0, false, true), missing);
    assert_eq!(is_degraded(59, true, true), "False nothing is wrong");
    assert_eq!(is_degraded(60, true, true), missing);
    assert_eq!(is_degraded(60, false, false), "False nothing is wrong");
}

#[test]
fn without_a_primary_it_is_reported_what_keeps_one_away() {
    let mut sample = Sample::healthy();
    for seen in sample.observed.nodes.values_mut() {
        let words = Some("FailedCreate: no PriorityClass with name nope was found".to_owned());
        (seen.pod, seen.server) = (None, ObservedServer::Unknown);
        seen.away = Some(UnavailableNode { seconds: 9, planned: false, words });
    }
    sample.observed.initialised = false;
    let ready = |sample: &Sample| {
        let status = sample.status();
        status.conditions.iter().find(|said| said.type_ == "Ready").unwrap().message.clone()
    };
    assert!(ready(&sample).contains("FailedCreate: no PriorityClass with name nope was found"), "{}", ready(&sample));
    sample.desired.nodes.retain(|node, _| node.kind == NodeKind::Data);
    assert!(ready(&sample).starts_with("the data node does not serve: "), "{}", ready(&sample));
}

#[test]
fn a_server_without_a_connection_left_and_a_sentinel_in_tilt_are_reported() {
    let mut sample = Sample::healthy();
    sample.data(1).refuses_clients = true;
    sample.sentinel(2).tilt = true;
    let told = degraded(&sample);
    assert!(told.contains("redis-1 refuses new clients: 1000 connections are open"), "{told}");
    assert!(told.contains("sentinel-2 is in TILT mode"), "{told}");
    let status = sample.status();
    assert!(status.checklist.iter().any(|item| item.item.starts_with("connections") && !item.ok));
}

#[test]
fn a_change_that_the_data_forbids_is_reported_with_both_sides() {
    let mut sample = Sample::healthy();
    sample.data(0).used_memory = 220 << 20;
    sample.data(0).maxmemory = 300 << 20;
    sample.desired.settings.insert("maxmemory".to_owned(), (150_u64 << 20).to_string());
    let told = degraded(&sample);
    assert!(told.contains("maxmemory would be 150Mi, and the primary holds 208Mi or more"), "{told}");
    let mut sample = Sample::healthy();
    "redis 8.0.2".clone_into(&mut sample.data(0).version);
    sample.desired.engine = EngineVersion::of_image("redis:7.0");
    sample.desired.nodes.values_mut().for_each(|node| node.restart_revision = "new".to_owned());
    let told = degraded(&sample);
    assert!(told.contains("redis 7.0 cannot read the files of redis 8.0.2"), "{told}");
}

#[test]
fn a_volume_that_is_being_deleted_is_reported_with_what_saves_the_data() {
    let mut sample = Sample::healthy();
    sample.observed.nodes.get_mut(&NodeId::data(1)).unwrap().ending_claim = Some("data-web-redis-1-0".to_owned());
    insta::assert_snapshot!(differing(&sample), @"Degraded=True VolumeBeingDeleted: redis-1: its volume claim data-web-redis-1-0 is being deleted and goes when its pod does; to have a new volume filled from another node: kubectl -n shop rollout restart statefulset web-redis-1");
    sample.desired.nodes.retain(|node, _| *node == NodeId::data(0));
    sample.observed.nodes.retain(|node, _| *node == NodeId::data(0));
    assert_eq!(sample.status().conditions.iter().filter(|it| it.reason == "VolumeBeingDeleted").count(), 0);
    sample.observed.nodes.get_mut(&NodeId::data(0)).unwrap().ending_claim = Some("data-web-redis-0-0".to_owned());
    let told = degraded(&sample);
    assert!(told.contains("and the data with it, so the operator does not restart it; copy the data"), "{told}");
}

#[test]
fn a_paused_layer_says_so() {
    let mut sample = Sample::healthy();
    sample.desired.paused = true;
    insta::assert_snapshot!(differing(&sample), @"Progressing=False Paused: spec.paused is set: nothing is changed");
}

#[test]
fn an_application_that_may_more_than_it_should_is_reported() {
    let mut sample = Sample::healthy();
    sample.subject.application_breaches = vec!["redis-1: app may PUBLISH __sentinel__:hello m".to_owned()];
    insta::assert_snapshot!(differing(&sample), @r"
    UsersInPlace=False NotInPlace: redis-1: app may PUBLISH __sentinel__:hello m
    Degraded=True RightsDiffer: redis-1: app may PUBLISH __sentinel__:hello m
    Ready=True Serving: the layer serves; the other conditions say what is not as declared
    ");
}

#[test]
fn functions_that_no_secret_holds_are_reported() {
    let mut sample = Sample::healthy();
    sample.subject.leaves_out_functions = true;
    insta::assert_snapshot!(differing(&sample), @r"
    FunctionsLoaded=True NotInSecret: the primary answers for every library; their sources are too long for the layer's Secret, so once all data nodes have lost their volumes the functions come back when the operator loads them
    [x] functions on every primary: the primary answers for every library; their sources are too long for the layer's Secret, so once all data nodes have lost their volumes the functions come back when the operator loads them
    ");
}

#[test]
fn what_production_lacks_is_on_the_checklist() {
    let mut sample = Sample::healthy();
    sample.subject = LayerSummary { keeps_data: false, max_connections: 2_000, ..sample.subject };
    let policy = ("maxmemory-policy".to_owned(), "volatile-lru".to_owned());
    sample.desired.settings.extend([policy.clone()]);
    for ordinal in 0..3 {
        sample.data(ordinal).settings.extend([policy.clone()]);
    }
    for seen in sample.observed.nodes.values_mut() {
        seen.pod.as_mut().unwrap().kubernetes_node = Some("the-only-worker".to_owned());
    }
    insta::assert_snapshot!(differing(&sample), @r"
    Persisted=False NotDeclared: declared without persistence: the data is lost when all data pods are
    [ ] eviction fits the uses: volatile-lru: drops keys that are still wanted when memory is full
    [ ] persisted: declared without persistence: the data is lost when all data pods are
    [ ] connections within the pool budget: maxclients 1000, 2000 of them for applications
    [ ] no single point of failure: all data pods run on one Kubernetes node
    ");
}

/// A step that somebody forbids is trouble; one that may succeed later is not.
#[test]
fn only_what_does_not_pass_by_itself_degrades() {
    let undone = |passes| StepFailure { step: None, why: "forbidden: quota".to_owned(), passes, name_taken: false };
    let mut sample = Sample::healthy();
    sample.undone = vec![undone(true)];
    insta::assert_snapshot!(differing(&sample), @r"
    Progressing=True Changing: steps are being carried out
    Ready=True Serving: the layer serves; the other conditions say what is not as declared
    Reconciling=True Changing: steps are being carried out
    ");
    sample.undone = vec![undone(false)];
    sample.faults = vec![(NodeId::data(0), "ACL LIST is denied".to_owned())];
    insta::assert_snapshot!(differing(&sample), @r"
    Degraded=True StepRefused: forbidden: quota; redis-0: ACL LIST is denied
    Progressing=True Changing: steps are being carried out
    Ready=True Serving: the layer serves; the other conditions say what is not as declared
    Reconciling=True Changing: steps are being carried out
    ");
}

#[test]
fn what_a_server_that_was_just_taken_away_does_not_answer_is_no_fault() {
    let mut sample = Sample::healthy();
    sample.faults = vec![(NodeId::data(1), "no answer within 5s".to_owned())];
    for (away, is_fault) in [
        (None, true),
        (Some(UnavailableNode { seconds: 5, planned: false, words: None }), true),
        (Some(UnavailableNode { seconds: 5, planned: true, words: None }), false),
        (Some(UnavailableNode { seconds: 300, planned: true, words: None }), true),
    ] {
        sample.observed.nodes.get_mut(&NodeId::data(1)).unwrap().away.clone_from(&away);
        let told = text(&sample.status());
        assert_eq!(
            told.contains("Degraded=True ServerFault: redis-1: no answer within 5s"),
            is_fault,
            "{away:?}: {told}"
        );
    }
}

#[test]
fn a_layer_is_ready_only_once_its_objects_say_that_it_was_initialised() {
    let mut sample = Sample::healthy();
    sample.observed.recorded = false;
    assert_eq!(
        differing(&sample).lines().find(|line| line.starts_with("Ready")),
        Some("Ready=False Recording: everything is as declared; the layer's objects are being marked as initialised")
    );
    sample.desired.paused = true;
    assert!(text(&sample.status()).contains("Ready=True"), "nothing is marked while it is paused");
}

#[test]
fn a_new_layer_is_not_ready_while_anything_that_is_declared_is_not_proven() {
    type Spoil = fn(&mut Sample);
    let cases: [(&str, Spoil); 6] = [
        ("MemoryBounded", |it| it.data(2).maxmemory = 0),
        ("FunctionsLoaded", |it| it.data(0).libraries.clear()),
        ("UsersInPlace", |it| it.data(1).users_in_place.clear()),
        ("SettingsApplied", |it| drop(it.data(1).settings.insert("maxclients".to_owned(), "7".to_owned()))),
        ("Persisted", |it| it.data(1).persistence_trouble = Some("rdb".to_owned())),
        ("HighlyAvailable", |it| {
            if let Replication::Replica { link_up, .. } = &mut it.data(2).replication {
                *link_up = false;
            }
        }),
    ];
    for (kind, spoil) in cases {
        let mut sample = Sample::healthy();
        (sample.observed.initialised, sample.observed.recorded) = (false, false);
        spoil(&mut sample);
        let said = differing(&sample);
        let ready = said.lines().find(|line| line.starts_with("Ready=False ")).unwrap_or_default();
        assert!(ready.contains(&format!(": {kind}: ")), "{kind}: {said}");
    }
}

/// A layer of a repository may have the annotation from its first moment: the move waited for the mark, and the mark for the move.
#[test]
fn a_move_that_waits_for_a_new_layer_keeps_it_from_no_mark() {
    let mut sample = Sample::healthy();
    (sample.observed.initialised, sample.observed.recorded) = (false, false);
    sample.desired.promotion = Some(PromotionRequest { node: Some(NodeId::data(1)), failed: None });
    sample.subject.promote = Some("web-redis-1-0".to_owned());
    assert!(text(&sample.status()).contains("Ready=False Recording: "), "{}", text(&sample.status()));
    (sample.observed.initialised, sample.observed.recorded) = (true, true);
    assert!(text(&sample.status()).contains("Progressing=True "), "then it is moved");
}

/// Also of a layer that was never Ready: volumes of a predecessor may hold two histories.
#[test]
fn what_only_a_person_ends_is_reported_first() {
    let mut sample = Sample::healthy();
    sample.observed.initialised = false;
    sample.faults = vec![(NodeId::data(0), "ACL LIST is denied".to_owned())];
    sample.waits = vec!["redis-1: SeveralPrimaries: it waits for a person".to_owned()];
    insta::assert_snapshot!(differing(&sample), @r"
    Degraded=True NeedsPerson: redis-1: SeveralPrimaries: it waits for a person
    Stalled=True NeedsPerson: redis-1: SeveralPrimaries: it waits for a person
    ");
    sample.observed.initialised = true;
    insta::assert_snapshot!(differing(&sample), @r"
    Degraded=True NeedsPerson: redis-1: SeveralPrimaries: it waits for a person; redis-0: ACL LIST is denied
    Stalled=True NeedsPerson: redis-1: SeveralPrimaries: it waits for a person; redis-0: ACL LIST is denied
    ");
}

#[test]
fn an_invalid_specification_keeps_what_was_known_of_the_servers() {
    let before = Sample::healthy().status();
    let faults = ["spec.replicas: at least 1".to_owned()];
    let after = change_refused(2, "Invalid", &faults, true, before.clone(), &before, Timestamp::UNIX_EPOCH);
    let known = text(&before);
    let new: Vec<String> =
        text(&after).lines().filter(|line| !known.lines().any(|old| old == *line)).map(str::to_owned).collect();
    insta::assert_snapshot!(new.join("\n"), @r"
    Accepted=False Invalid: spec.replicas: at least 1
    Progressing=False NotAccepted: what was accepted last stays in force until the specification is corrected
    Stalled=True Invalid: spec.replicas: at least 1
    ");
    assert_eq!(after.state.as_deref(), Some("Invalid"));
    assert_eq!((after.nodes, after.primary), (before.nodes, before.primary));
}

#[test]
fn a_layer_that_was_never_accepted_keeps_nothing() {
    let after = not_accepted(1, &["no".to_owned()], &DataLayerStatus::default(), Timestamp::UNIX_EPOCH);
    insta::assert_snapshot!(text(&after), @r"
    Accepted=False Invalid: no
    Ready=False NotAccepted: no
    Progressing=False NotAccepted: nothing is done until the specification is corrected
    Stalled=True Invalid: no
    ");
}

/// A time changes with the status of its condition and with nothing else.
#[test]
fn a_condition_keeps_its_time_while_its_status_does() {
    let sample = Sample::healthy();
    let plan = plan(&sample.desired, &sample.observed);
    let facts = Facts {
        desired: &sample.desired,
        observed: &sample.observed,
        plan: &plan,
        undone: &sample.undone,
        faults: &sample.faults,
        waits: &[],
        subject: &sample.subject,
    };
    let mut old = sample.status();
    for condition in &mut old.conditions {
        "some other words".clone_into(&mut condition.message);
        if condition.type_ == "Ready" {
            "False".clone_into(&mut condition.status);
        }
    }
    let later = Timestamp::from_second(60).unwrap();
    let new = status(facts, &old, later);
    let moved: Vec<&str> = new
        .conditions
        .iter()
        .filter(|condition| condition.last_transition_time.0 == later)
        .map(|condition| condition.type_.as_str())
        .collect();
    assert_eq!(moved, ["Ready"]);
}
