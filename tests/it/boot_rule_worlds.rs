//! The boot rule in whole worlds: of nodes that all restart at once and see each other, no two become primary, and they wait
//! only for a person.

use std::time::Duration;

use redoubt::model::boot::{BootDecision, BootFacts, Comparison, Peer, SentinelAnswer, compare, decide};
use redoubt::model::lineage::{Activity, Lineage};
use redoubt::model::{Mode, ReplicationId, Role};

use crate::boot_rule::{LAYER, record, sentinel_views, volumes};

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
                accepting: None,
                peers: peers.collect(),
                sentinels: sentinels.to_vec(),
                detection: Duration::from_secs(5),
                sentinels_silent: Duration::from_mins(1),
                refused: Duration::ZERO,
                unnamed: Duration::ZERO,
                waited: Duration::ZERO,
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
fn a_world_in_which_all_peers_answer_waits_only_for_a_person() {
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
    let decisions = decisions_of_a_world(&[None, None, None], &[SentinelAnswer::NamesNone; 3], false);
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
                accepting: None,
                peers: peers(own).collect(),
                sentinels: vec![SentinelAnswer::NamesNone; 3],
                detection: Duration::from_secs(5),
                sentinels_silent: Duration::ZERO,
                refused: Duration::ZERO,
                unnamed: Duration::ZERO,
                waited: Duration::ZERO,
            });
            assert_eq!(matches!(decision, BootDecision::StartPrimary(_)), own == chosen, "{own} {chosen} {decision:?}");
        }
    }
}
