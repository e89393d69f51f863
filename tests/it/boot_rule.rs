//! The boot rule's truth table: every combination of small domains, for up to four nodes, against its invariants.

use redoubt::model::boot::{BootDecision, BootFacts, Comparison, Peer, PrimaryReason, SentinelAnswer, compare, decide};
use redoubt::model::lineage::{Activity, LINEAGE_FORMAT, Lineage};
use redoubt::model::{Mode, Offset, ReplicationId, Role};

const LAYER: &str = "layer";

fn record(epoch: u64, term: u64, offset: u64) -> Lineage {
    Lineage {
        format: LINEAGE_FORMAT,
        layer_uid: LAYER.to_owned(),
        epoch,
        term,
        role: Role::Replica,
        replication_id: ReplicationId(format!("history-{epoch}-{term}")),
        previous_replication_id: None,
        offset: Offset(offset),
        synced: true,
        link_up: true,
        keys: offset,
        clean_stop: true,
    }
}

/// The records that one volume may hold; `None` is an empty one.
fn volumes() -> Vec<Option<Lineage>> {
    let base = record(1, 1, 10);
    vec![
        None,
        Some(base.clone()),
        Some(Lineage { clean_stop: false, ..base.clone() }),
        Some(Lineage { clean_stop: false, offset: Offset(20), ..base.clone() }),
        Some(record(2, 2, 10)),
        Some(Lineage { link_up: false, ..base.clone() }),
        Some(Lineage { synced: false, clean_stop: false, ..record(2, 2, 5) }),
        Some(Lineage { replication_id: ReplicationId("another".to_owned()), ..base.clone() }),
        Some(Lineage { layer_uid: "predecessor".to_owned(), ..record(9, 9, 90) }),
    ]
}

fn peers_of_one() -> Vec<Peer> {
    let mut peers = vec![Peer::Silent { milliseconds: 0 }, Peer::Silent { milliseconds: 60_000 }];
    for lineage in volumes() {
        peers.push(Peer::Answers { activity: Activity::Deciding, lineage: lineage.clone() });
        if let Some(lineage) = lineage {
            peers.push(Peer::Answers { activity: Activity::Stopping, lineage: Some(lineage.clone()) });
            for role in [Role::Replica, Role::Primary] {
                let lineage = Lineage { role, clean_stop: false, ..lineage.clone() };
                peers.push(Peer::Answers { activity: Activity::Serving, lineage: Some(lineage) });
            }
        }
    }
    peers
}

/// Three Sentinels of which all, or none, name a node; or which are silent.
fn sentinel_views(nodes: u16) -> Vec<Vec<SentinelAnswer>> {
    let mut views = vec![vec![SentinelAnswer::Silent; 3], vec![SentinelAnswer::NamesNobody; 3]];
    views.extend((0..nodes).map(|node| vec![SentinelAnswer::Names(node); 3]));
    views.push(vec![SentinelAnswer::Names(0), SentinelAnswer::Silent, SentinelAnswer::Silent]);
    views
}

/// Calls `check` with every combination that the view of node `own` can have among `nodes` nodes.
fn every_view(nodes: u16, own_ordinal: u16, peer_states: &[Peer], mut check: impl FnMut(&BootFacts)) {
    let others: Vec<u16> = (0..nodes).filter(|node| *node != own_ordinal).collect();
    let combinations = peer_states.len().pow(u32::try_from(others.len()).expect("few nodes"));
    let sentinel_views = sentinel_views(nodes);
    let mut facts = BootFacts {
        mode: Mode::Sentinel,
        layer_uid: LAYER.to_owned(),
        own_ordinal,
        own: None,
        initialised: false,
        keeps_data: true,
        accept_loss: None,
        peers: std::collections::BTreeMap::new(),
        sentinels: vec![],
        sentinels_silent_milliseconds: 60_000,
    };
    for index in 0..combinations {
        let mut rest = index;
        for other in &others {
            facts.peers.insert(*other, peer_states[rest % peer_states.len()].clone());
            rest /= peer_states.len();
        }
        for own in volumes() {
            facts.own = own;
            for sentinels in &sentinel_views {
                facts.sentinels.clone_from(sentinels);
                for initialised in [false, true] {
                    facts.initialised = initialised;
                    check(&facts);
                }
            }
        }
    }
}

fn answering(facts: &BootFacts) -> impl Iterator<Item = (Activity, &Lineage)> {
    facts.peers.values().filter_map(|peer| match peer {
        Peer::Answers { activity, lineage: Some(lineage) } => Some((*activity, lineage)),
        _ => None,
    })
}

/// What must hold of every decision, whatever the facts.
fn check_invariants(facts: &BootFacts) {
    let decision = decide(facts);
    let say = |claim: &str| format!("{claim}: {decision:?} from {facts:#?}");
    match &decision {
        BootDecision::StartPrimary(_) => {
            for (_, theirs) in answering(facts) {
                let Some(own) = &facts.own else { panic!("{}", say("an empty node is primary while a peer has data")) };
                assert_ne!(compare(own, theirs, LAYER), Comparison::Older, "{}", say("an older node is primary"));
            }
            assert!(
                facts.own.is_some() || !facts.initialised,
                "{}",
                say("an empty node is primary in a layer that had data")
            );
            assert!(facts.own.as_ref().is_none_or(|own| own.synced), "{}", say("half a dataset is primary"));
            let named = facts.sentinels.iter().filter_map(|answer| match answer {
                SentinelAnswer::Names(node) if *node != facts.own_ordinal => Some(()),
                _ => None,
            });
            assert!(named.count() < 2, "{}", say("a node is primary against the majority"));
        }
        BootDecision::Follow { primary, electable } => {
            let Some(peer) = facts.peers.get(primary) else { panic!("{}", say("follows nobody")) };
            if let (Peer::Answers { activity, lineage }, Some(own)) = (peer, &facts.own) {
                let theirs = lineage.as_ref().map(|theirs| compare(own, theirs, LAYER));
                let older = matches!(theirs, None | Some(Comparison::Newer));
                assert!(
                    !older || (*electable && *activity == Activity::Deciding),
                    "{}",
                    say("follows a serving node that is empty or older")
                );
            }
        }
        BootDecision::AskForFailover => {
            assert!(
                answering(facts).any(|(activity, theirs)| activity == Activity::Serving && theirs.synced),
                "{}",
                say("asks for a failover to nobody")
            );
        }
        BootDecision::Wait(_) => {}
    }
}

/// Sentinels that are just starting may remember a primary; only data that no Sentinel can know of does not wait for them.
#[test]
fn nobody_with_data_is_primary_before_the_sentinels_had_time_to_say_who_is() {
    every_view(3, 1, &peers_of_one(), |facts| {
        let silent = facts.sentinels.iter().filter(|answer| **answer == SentinelAnswer::Silent).count();
        if silent < 2 {
            return;
        }
        let soon = BootFacts { sentinels_silent_milliseconds: 9_999, ..facts.clone() };
        if let BootDecision::StartPrimary(reason) = decide(&soon) {
            assert_eq!((reason, &soon.own), (PrimaryReason::EverybodyEmpty, &None), "{soon:#?}");
        }
    });
}

#[test]
fn no_view_of_up_to_three_nodes_breaks_an_invariant() {
    let states = peers_of_one();
    for nodes in 1..=3 {
        for own in 0..nodes {
            every_view(nodes, own, &states, check_invariants);
        }
    }
}

#[test]
fn no_view_of_four_nodes_breaks_an_invariant() {
    every_view(4, 1, &peers_of_one(), check_invariants);
}

/// Nodes that all restart at once and see each other: the decisions of all of them, together.
fn decisions_of_a_world(
    world: &[Option<Lineage>],
    sentinels: &[SentinelAnswer],
    initialised: bool,
) -> Vec<BootDecision> {
    let ordinals: Vec<u16> = (0..).take(world.len()).collect();
    ordinals
        .iter()
        .map(|own| {
            let peers = ordinals.iter().filter(|peer| *peer != own).map(|peer| {
                let lineage = world[usize::from(*peer)].clone();
                (*peer, Peer::Answers { activity: Activity::Deciding, lineage })
            });
            decide(&BootFacts {
                mode: Mode::Sentinel,
                layer_uid: LAYER.to_owned(),
                own_ordinal: *own,
                own: world[usize::from(*own)].clone(),
                initialised,
                keeps_data: true,
                accept_loss: None,
                peers: peers.collect(),
                sentinels: sentinels.to_vec(),
                sentinels_silent_milliseconds: 60_000,
            })
        })
        .collect()
}

fn every_world(nodes: u16, mut check: impl FnMut(&[Option<Lineage>], &[SentinelAnswer], bool)) {
    let volumes = volumes();
    for index in 0..volumes.len().pow(u32::from(nodes)) {
        let mut rest = index;
        let world: Vec<_> = (0..nodes)
            .map(|_| {
                let volume = volumes[rest % volumes.len()].clone();
                rest /= volumes.len();
                volume
            })
            .collect();
        for sentinels in sentinel_views(nodes) {
            for initialised in [false, true] {
                check(&world, &sentinels, initialised);
            }
        }
    }
}

#[test]
fn two_nodes_of_one_world_never_start_as_primary() {
    for nodes in 1..=4 {
        every_world(nodes, |world, sentinels, initialised| {
            let decisions = decisions_of_a_world(world, sentinels, initialised);
            let primaries = decisions.iter().filter(|decision| matches!(decision, BootDecision::StartPrimary(_)));
            assert!(primaries.count() <= 1, "{decisions:?} from {world:#?} {sentinels:?}");
        });
    }
}

/// Somebody moves, or the facts truly cannot be ordered by a machine.
#[test]
fn a_world_in_which_everybody_answers_waits_only_for_a_person() {
    for nodes in 1..=4 {
        every_world(nodes, |world, sentinels, initialised| {
            let decisions = decisions_of_a_world(world, sentinels, initialised);
            let moves = decisions.iter().any(|decision| !matches!(decision, BootDecision::Wait(_)));
            let whole: Vec<&Lineage> = world.iter().flatten().filter(|lineage| lineage.synced).collect();
            let comparable = whole
                .iter()
                .all(|first| whole.iter().all(|second| compare(first, second, LAYER) != Comparison::Unrelated));
            let nothing_left = whole.is_empty() && (initialised || world.iter().any(Option::is_some));
            assert!(
                moves || !comparable || nothing_left,
                "nobody moves: {decisions:?} from {world:#?} {sentinels:?} initialised={initialised}"
            );
        });
    }
}

#[test]
fn the_lowest_ordinal_of_a_new_layer_begins() {
    let decisions = decisions_of_a_world(&[None, None, None], &[SentinelAnswer::NamesNobody; 3], false);
    insta::assert_yaml_snapshot!(decisions, @r"
    - StartPrimary: EverybodyEmpty
    - Wait: PeerGoesFirst
    - Wait: PeerGoesFirst
    ");
}

#[test]
fn a_wiped_primary_that_is_still_named_does_not_start() {
    let world = [None, Some(record(1, 1, 10)), Some(record(1, 1, 12))];
    let decisions = decisions_of_a_world(&world, &[SentinelAnswer::Names(0); 3], true);
    insta::assert_yaml_snapshot!(decisions, @r"
    - Wait: PeerIsNewer
    - Wait: NamedPrimaryIsEmpty
    - Follow:
        primary: 0
        electable: true
    ");
}

/// Seen: the primary dies a moment before its replicas, with a record a second old, and they note that the link is down.
#[test]
fn replicas_that_outlived_their_primary_by_a_moment_do_not_wait_for_a_person() {
    let outlived = Lineage { link_up: false, clean_stop: false, ..record(0, 1, 16_993) };
    let primary = Lineage { role: Role::Primary, clean_stop: false, ..record(0, 1, 197) };
    let world = [Some(primary), Some(outlived.clone()), Some(outlived)];
    let decisions = decisions_of_a_world(&world, &[SentinelAnswer::Names(0); 3], true);
    insta::assert_yaml_snapshot!(decisions, @r"
    - Wait: PeerIsNewer
    - Follow:
        primary: 0
        electable: true
    - Wait: NamedPrimaryIsOlder
    ");
}

#[test]
fn a_cut_off_node_whose_peers_are_silent_for_ever_does_not_start() {
    let silent = Peer::Silent { milliseconds: 3_600_000 };
    let facts = BootFacts {
        mode: Mode::Sentinel,
        layer_uid: LAYER.to_owned(),
        own_ordinal: 0,
        own: Some(record(1, 1, 10)),
        initialised: true,
        keeps_data: true,
        accept_loss: None,
        peers: [(1, silent.clone()), (2, silent)].into(),
        sentinels: vec![SentinelAnswer::Silent; 3],
        sentinels_silent_milliseconds: 3_600_000,
    };
    assert!(matches!(decide(&facts), BootDecision::Wait(_)));
}

#[test]
fn accepting_a_loss_starts_the_chosen_node_and_no_other() {
    let world =
        [None, Some(Lineage { replication_id: ReplicationId("x".into()), ..record(1, 1, 9) }), Some(record(1, 1, 9))];
    for chosen in 1..3_u16 {
        let peers = |own: u16| {
            (0..3).filter(move |peer| *peer != own).map(|peer| {
                let lineage = world[usize::from(peer)].clone();
                (peer, Peer::Answers { activity: Activity::Deciding, lineage })
            })
        };
        for own in 0..3_u16 {
            let decision = decide(&BootFacts {
                mode: Mode::Sentinel,
                layer_uid: LAYER.to_owned(),
                own_ordinal: own,
                own: world[usize::from(own)].clone(),
                initialised: true,
                keeps_data: true,
                accept_loss: Some(chosen),
                peers: peers(own).collect(),
                sentinels: vec![SentinelAnswer::NamesNobody; 3],
                sentinels_silent_milliseconds: 0,
            });
            assert_eq!(matches!(decision, BootDecision::StartPrimary(_)), own == chosen, "{own} {chosen} {decision:?}");
        }
    }
}
