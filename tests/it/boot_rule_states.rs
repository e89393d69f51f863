//! The boot rule in the states that were seen to last, or to lose what was confirmed.

use std::time::Duration;

use redoubt::model::boot::{
    BootDecision, BootFacts, Peer, PrimaryReason, SentinelAnswer, UNCLEAN_PRIMARY_WAITS, WaitReason, decide, in_force,
    promotes_itself,
};
use redoubt::model::lineage::{Activity, LARGEST_NUMBER, Lineage, next_term};
use redoubt::model::{Mode, Offset, Role};

use crate::boot_rule::{LAYER, record};
use SentinelAnswer::{Names, NamesNone, Silent};

fn silent(seconds: u64) -> Peer {
    Peer::Silent { time: Duration::from_secs(seconds) }
}

fn deciding(lineage: Option<Lineage>) -> Peer {
    Peer::Answers { activity: Activity::Deciding, lineage }
}

fn serving(lineage: Lineage) -> Peer {
    Peer::Answers { activity: Activity::Serving, lineage: Some(lineage) }
}

/// Node 1 of three.
fn facts(own: Option<Lineage>, peers: [Peer; 2], sentinels: [SentinelAnswer; 3]) -> BootFacts {
    let [first, last] = peers;
    BootFacts {
        mode: Mode::Sentinel,
        layer_uid: LAYER.to_owned(),
        own_ordinal: 1,
        own,
        initialised: true,
        keeps_data: true,
        accept_loss: None,
        accepting: None,
        peers: [(0, first), (2, last)].into(),
        detection: Duration::from_secs(5),
        sentinels: sentinels.to_vec(),
        sentinels_silent: Duration::from_hours(1),
        refused: Duration::ZERO,
        unnamed: Duration::ZERO,
        waited: Duration::ZERO,
    }
}

fn chosen(facts: &BootFacts) -> BootDecision {
    decide(&BootFacts { accept_loss: Some(1), ..facts.clone() })
}

const BY_A_PERSON: BootDecision = BootDecision::StartPrimary(PrimaryReason::LossAccepted);

/// A zone with most data nodes and one Sentinel, beside one with the primary and most Sentinels.
#[test]
fn most_data_nodes_are_no_second_quorum() {
    let own = record(1, 1, 10);
    let peers = || [silent(3_600), deciding(Some(own.clone()))];
    let cut_off = facts(Some(own.clone()), peers(), [Silent, Silent, Names(0)]);
    assert_eq!(decide(&cut_off), BootDecision::Wait(WaitReason::SentinelsAreSilent));
    assert_eq!(chosen(&cut_off), BY_A_PERSON);
    let reached = facts(Some(own.clone()), peers(), [Silent, NamesNone, NamesNone]);
    assert_eq!(decide(&reached), BootDecision::StartPrimary(PrimaryReason::NewestOfThoseLeft));
    let alone = facts(Some(own), [silent(3_600), silent(3_600)], [Silent; 3]);
    assert_eq!(decide(&alone), BootDecision::Wait(WaitReason::TooFewAnswer));
    assert_eq!(chosen(&alone), BY_A_PERSON);
}

/// Both replicas of a primary that lost its volume start at the same moment, and one has confirmed more. The other did not wait for its
/// answer, and was elected.
#[test]
fn a_replica_is_not_electable_before_a_peer_that_may_have_more_had_time_to_answer() {
    let with = |peer: Peer| facts(Some(record(1, 1, 10)), [deciding(None), peer], [Names(0); 3]);
    assert_eq!(decide(&with(silent(0))), BootDecision::Wait(WaitReason::PeerIsSilent));
    assert_eq!(decide(&with(silent(60))), BootDecision::Follow { primary: 0, electable: true });
    assert_eq!(decide(&with(deciding(Some(record(1, 1, 9))))), BootDecision::Follow { primary: 0, electable: true });
    assert_eq!(decide(&with(deciding(Some(record(1, 1, 11))))), BootDecision::Wait(WaitReason::NamedPrimaryIsEmpty));
}

fn of_a_cache(facts: BootFacts) -> BootFacts {
    BootFacts { keeps_data: false, ..facts }
}

/// A replica that began empty and follows an empty primary that is away.
fn in_vain() -> Lineage {
    Lineage { synced: false, link_up: false, clean_stop: false, ..record(0, 0, 0) }
}

#[test]
fn a_layer_that_keeps_nothing_starts_again_by_itself() {
    let empty = BootDecision::StartPrimary(PrimaryReason::EverybodyEmpty);
    let running = || Peer::Answers { activity: Activity::Loading, lineage: Some(in_vain()) };
    let named = [Names(1); 3];
    let all_are_back = of_a_cache(facts(None, [deciding(None), deciding(None)], named));
    assert_eq!(decide(&all_are_back), empty);
    let came_last = of_a_cache(facts(None, [running(), running()], named));
    assert_eq!(decide(&came_last), empty, "the others began to follow it while it was away");
    let one_away = |seconds| of_a_cache(facts(None, [running(), silent(seconds)], named));
    assert_eq!(decide(&one_away(29)), BootDecision::Wait(WaitReason::PeerIsSilent));
    assert_eq!(decide(&one_away(30)), empty);
    // The primary's pod never comes back.
    let follower = |seconds| of_a_cache(facts(Some(in_vain()), [silent(seconds), running()], [Names(0); 3]));
    assert_eq!(decide(&follower(29)), BootDecision::Follow { primary: 0, electable: false });
    assert_eq!(decide(&follower(30)), BootDecision::Follow { primary: 0, electable: true });
    let second = BootFacts { own_ordinal: 2, peers: [(0, silent(90)), (1, running())].into(), ..follower(0) };
    assert_eq!(decide(&second), BootDecision::Follow { primary: 0, electable: false }, "one of them is enough");
    // Warm replicas take over; where the Sentinels would not have it, the layer begins empty.
    let warm = |waited| {
        let replica = Lineage { clean_stop: false, ..record(1, 1, 10) };
        let facts = of_a_cache(facts(None, [serving(replica), deciding(None)], named));
        BootFacts { waited, ..facts }
    };
    assert_eq!(decide(&warm(Duration::from_millis(59_999))), BootDecision::AskForFailover);
    assert_eq!(decide(&warm(Duration::from_mins(1))), empty);
    // Each of them follows another one.
    let circle = of_a_cache(facts(Some(in_vain()), [running(), running()], named));
    assert_eq!(decide(&circle), empty);
    assert!(promotes_itself(&circle, &decide(&circle)), "the Sentinels name it, and elect nobody who has nothing");
    // The Sentinels forgot whom they named.
    let forgot = of_a_cache(facts(None, [deciding(None), running()], [NamesNone; 3]));
    assert_eq!(decide(&forgot), BootDecision::Wait(WaitReason::PeerGoesFirst));
    assert_eq!(
        decide(&BootFacts { own_ordinal: 0, peers: [(1, deciding(None)), (2, running())].into(), ..forgot }),
        empty
    );
}

#[test]
fn a_new_layer_forms_without_the_node_that_cannot_start_and_an_old_one_does_not_begin_empty() {
    let new = |sentinels| BootFacts { initialised: false, ..facts(None, [silent(60), deciding(None)], sentinels) };
    let empty = BootDecision::StartPrimary(PrimaryReason::EverybodyEmpty);
    assert_eq!(decide(&new([NamesNone; 3])), empty);
    assert_eq!(decide(&new([NamesNone, NamesNone, Silent])), empty);
    assert_eq!(decide(&new([NamesNone, Silent, Silent])), BootDecision::Wait(WaitReason::SentinelsAreSilent));
    let soon = BootFacts { peers: [(0, silent(59)), (2, deciding(None))].into(), ..new([NamesNone; 3]) };
    assert_eq!(decide(&soon), BootDecision::Wait(WaitReason::PeerIsSilent));
    let old = BootFacts { initialised: true, ..new([NamesNone; 3]) };
    assert_eq!(decide(&old), BootDecision::Wait(WaitReason::PeerIsSilent));
    assert_eq!(chosen(&BootFacts { waited: Duration::from_secs(90), ..old }), BY_A_PERSON);
    let adopted = Lineage { layer_uid: "predecessor".to_owned(), ..in_vain() };
    let adopts = BootFacts { peers: [(0, silent(60)), (2, deciding(Some(adopted)))].into(), ..new([NamesNone; 3]) };
    assert!(matches!(decide(&adopts), BootDecision::Wait(_)), "its predecessor's data may be on the silent node");
}

/// Cut off for a moment it lacks what another replica confirmed, and that one may have died with the primary.
#[test]
fn a_replica_that_has_less_than_the_dead_primary_is_not_its_successor() {
    let own = Lineage { role: Role::Primary, clean_stop: false, ..record(1, 1, 10) };
    let replica = |offset| serving(Lineage { clean_stop: false, ..record(1, 1, offset) });
    let after =
        |waited, offset| BootFacts { waited, ..facts(Some(own.clone()), [replica(9), replica(offset)], [Names(1); 3]) };
    assert_eq!(
        decide(&after(Duration::from_millis(999), 9)),
        BootDecision::Wait(WaitReason::PeerCatchesUp),
        "its record may be a moment old"
    );
    assert_eq!(decide(&after(Duration::from_secs(1), 9)), BootDecision::StartPrimary(PrimaryReason::NamedAndNewest));
    for waited in [Duration::ZERO, Duration::from_secs(1)] {
        assert_eq!(decide(&after(waited, 10)), BootDecision::AskForFailover, "one that has all is enough");
    }
    let wiped = BootFacts {
        own: None,
        peers: [(0, replica(9)), (2, deciding(Some(record(1, 1, 10))))].into(),
        ..after(Duration::ZERO, 9)
    };
    assert_eq!(
        decide(&wiped),
        BootDecision::Wait(WaitReason::PeerIsNewer),
        "the one that confirmed is off, and has a file"
    );
    let later = serving(Lineage { clean_stop: false, ..record(2, 2, 3) });
    let promoted = BootFacts { peers: [(0, later), (2, replica(9))].into(), ..after(Duration::ZERO, 9) };
    assert_eq!(
        decide(&promoted),
        BootDecision::AskForFailover,
        "of a later epoch: offsets of two histories say nothing"
    );
    let in_order = BootFacts { own: Some(Lineage { clean_stop: true, ..own.clone() }), ..after(Duration::ZERO, 9) };
    assert_eq!(decide(&in_order), BootDecision::StartPrimary(PrimaryReason::NamedAndNewest));
}

/// Sentinels in TILT elect nobody for half a minute.
/// The peers of a primary that was killed may just be starting as well, with a newer file.
#[test]
fn a_named_primary_that_was_killed_gives_silent_peers_a_moment() {
    let after =
        |own: &Lineage, time| decide(&facts(Some(own.clone()), [Peer::Silent { time }, silent(3_600)], [Names(1); 3]));
    let starts = BootDecision::StartPrimary(PrimaryReason::NamedAndNewest);
    let killed = Lineage { role: Role::Primary, clean_stop: false, ..record(1, 1, 10) };
    let waits = UNCLEAN_PRIMARY_WAITS;
    assert_eq!(
        after(&killed, waits.saturating_sub(Duration::from_millis(1))),
        BootDecision::Wait(WaitReason::PeerIsSilent)
    );
    assert_eq!(after(&killed, waits), starts);
    assert_eq!(after(&Lineage { clean_stop: true, ..killed }, Duration::ZERO), starts);
}

#[test]
fn half_a_dataset_is_not_started_as_primary_although_it_is_named() {
    for link_up in [true, false] {
        let half = Lineage { synced: false, link_up, ..record(1, 1, 10) };
        let named = facts(Some(half), [silent(3_600), deciding(None)], [Names(1); 3]);
        assert_eq!(decide(&named), BootDecision::Wait(WaitReason::DataMissing), "link up: {link_up}");
    }
}

#[test]
fn an_election_that_does_not_come_is_not_waited_for_where_the_own_file_is_whole() {
    let own = Lineage { role: Role::Primary, clean_stop: false, ..record(1, 1, 10) };
    let replica = |offset| serving(Lineage { clean_stop: false, ..record(1, 1, offset) });
    let asked = |offset, refused| BootFacts {
        refused,
        unnamed: Duration::ZERO,
        ..facts(Some(own.clone()), [replica(offset), replica(10)], [Names(1); 3])
    };
    assert_eq!(decide(&asked(10, Duration::from_millis(9_999))), BootDecision::AskForFailover);
    assert_eq!(decide(&asked(10, Duration::from_secs(10))), BootDecision::StartPrimary(PrimaryReason::NamedAndNewest));
    let newer = asked(11, Duration::from_secs(10));
    assert_eq!(decide(&newer), BootDecision::AskForFailover, "what the replica confirmed is not given up");
    let off = BootFacts { peers: [(0, deciding(Some(record(1, 1, 11)))), (2, silent(90))].into(), ..newer.clone() };
    assert_eq!(chosen(&newer), BootDecision::Wait(WaitReason::OthersStepDown));
    assert_eq!(decide(&BootFacts { accept_loss: Some(1), accepting: Some(1), ..off }), BY_A_PERSON);
}

/// One answer that was late made the chosen node start beside a node that served, which then overwrote it.
#[test]
fn a_node_that_missed_one_question_may_run_and_is_waited_for() {
    let own = record(1, 1, 10);
    let newer = Lineage { epoch: 9, ..record(9, 1, 10) };
    let carrying_out = |peer| BootFacts {
        accept_loss: Some(1),
        accepting: Some(1),
        ..facts(Some(own.clone()), [peer, deciding(Some(own.clone()))], [Names(1); 3])
    };
    let waits = BootDecision::Wait(WaitReason::OthersStepDown);
    assert_eq!(decide(&carrying_out(serving(newer))), waits);
    assert_eq!(decide(&carrying_out(Peer::Silent { time: Duration::from_millis(350) })), waits);
    assert_eq!(decide(&carrying_out(silent(4))), waits);
    assert_eq!(decide(&carrying_out(silent(5))), BY_A_PERSON, "a node that is gone is not waited for");
}

#[test]
fn who_is_not_chosen_keeps_off_until_the_chosen_one_is_primary() {
    let own = record(1, 1, 10);
    let mut other = facts(Some(own.clone()), [deciding(Some(own.clone())), deciding(Some(own))], [Names(1); 3]);
    assert_eq!(decide(&other), BootDecision::StartPrimary(PrimaryReason::NamedAndNewest));
    (other.accept_loss, other.accepting) = (Some(2), Some(2));
    assert_eq!(decide(&other), BootDecision::Wait(WaitReason::AnotherIsChosen));
    other.accept_loss = None;
    assert_eq!(
        decide(&other),
        BootDecision::StartPrimary(PrimaryReason::NamedAndNewest),
        "a peer's word alone, and not the own document's, stops nobody"
    );
}

#[test]
fn a_decision_counts_for_one_incident() {
    let with = |term, accepted| Lineage { accepted, ..record(1, term, 10) };
    let force = |records: &[Lineage]| in_force(Some(1), LAYER, records.iter());
    assert_eq!(force(&[with(3, None), with(3, None)]), Some(1));
    assert_eq!(force(&[with(4, Some(1)), with(3, None)]), None, "it was carried out");
    assert_eq!(force(&[with(4, Some(2)), with(3, None)]), Some(1), "another one was");
    assert_eq!(force(&[with(4, None), with(3, Some(1))]), Some(1), "and was taken back since");
    assert_eq!(force(&[]), Some(1));
    let predecessor = Lineage { layer_uid: "predecessor".to_owned(), ..with(9, Some(1)) };
    assert_eq!(force(&[predecessor]), Some(1));
}

#[test]
fn a_running_replica_becomes_primary_only_where_no_other_may_be() {
    let own = Lineage { link_up: false, clean_stop: false, ..record(1, 1, 10) };
    let lost = facts(Some(own.clone()), [deciding(None), serving(record(1, 1, 9))], [NamesNone; 3]);
    let promotes = |facts: &BootFacts| promotes_itself(facts, &decide(facts));
    assert!(promotes(&lost), "the Sentinels lost what they knew, and the primary its volume");
    let named = BootFacts { sentinels: vec![NamesNone, NamesNone, Names(0)], ..lost.clone() };
    assert!(!promotes(&named), "one remembers somebody, and will tell the others");
    let own = BootFacts { sentinels: vec![NamesNone, NamesNone, Names(1)], ..lost.clone() };
    assert!(promotes(&own), "it remembers this very node");
    let loading = Peer::Answers {
        activity: Activity::Loading,
        lineage: Some(Lineage { role: Role::Primary, ..record(1, 1, 9) }),
    };
    let starting = BootFacts { peers: [(0, loading), (2, deciding(None))].into(), ..lost };
    assert!(!promotes(&starting));
}

#[test]
fn numbers_that_no_layer_reaches_are_not_believed_and_no_sum_overflows() {
    assert_eq!(record(1, 1, 1).absurd_number(), None);
    assert_eq!(record(u64::MAX, 1, 1).absurd_number(), Some("epoch"));
    assert_eq!(record(1, LARGEST_NUMBER + 1, 1).absurd_number(), Some("term"));
    let previous = Lineage { previous_offset: Some(Offset(u64::MAX)), ..record(1, 1, 1) };
    assert_eq!(previous.absurd_number(), Some("previousOffset"));
    assert_eq!((next_term(7), next_term(LARGEST_NUMBER), next_term(u64::MAX)), (8, LARGEST_NUMBER, LARGEST_NUMBER));
    let text = redoubt::agent::lineage_file::render(&record(1, u64::MAX, 1)).unwrap();
    let fault = redoubt::agent::lineage_file::parse(&text).unwrap_err();
    assert!(fault.to_string().contains("its term is larger"), "{fault}");
}
