//! Histories that went wrong once: found by a campaign, or read in the rule.

use super::world::NODES;
use super::{Event, World, play};

/// Two primaries that no election orders, and no Sentinel that remembers one.
#[test]
fn a_primary_that_was_cut_off_when_the_sentinels_lost_everything_does_not_stay() {
    play(false, &[Event::LoseSentinels(7), Event::CutNode(0), Event::Rest(31)]).unwrap();
    for primary in 0..NODES {
        for keeps_data in [true, false] {
            let events = [Event::CutNode(primary), Event::Rest(6), Event::StartAll, Event::LoseSentinels(7)];
            play(keeps_data, &events).unwrap();
        }
    }
}

/// Sentinels that were away for longer than they allow a replica's link to be down elect nobody by themselves.
#[test]
fn a_primary_that_is_lost_while_no_sentinel_runs_is_replaced_without_it_and_with_it() {
    for (keeps_data, further) in [(true, None), (false, None), (false, Some(1))] {
        let mut world = World::new(keeps_data);
        for event in [Event::Rest(30), Event::StopSentinels, Event::Stop(0, false)] {
            world.apply_event(event);
        }
        if let Some(node) = further {
            world.apply_event(Event::Stop(node, false));
        }
        for event in [Event::Rest(70), Event::StartSentinels, Event::Rest(60)] {
            world.apply_event(event);
        }
        assert_eq!(world.primaries(), 1, "{world:#?}");
        world.judge().unwrap();
    }
    play(true, &[Event::StopSentinels, Event::Stop(0, false), Event::Stop(1, false), Event::Rest(70)]).unwrap();
}

/// A replica that was cut off for a second, while another one that confirmed died with the primary.
#[test]
fn a_replica_that_lacks_what_another_confirmed_is_not_asked_to_take_over() {
    for (cut, other) in [(1, 2), (2, 1)] {
        let events =
            [Event::Split(1 << cut), Event::Rest(1), Event::KillEngine(0), Event::KillEngine(other), Event::Rest(3)];
        play(true, &events).unwrap();
    }
}

#[test]
fn data_that_lost_its_record_is_not_taken_for_empty() {
    let events = [Event::Stop(1, false), Event::Rest(1), Event::LoseVolume(0), Event::StopAll, Event::LoseRecord(2)];
    play(true, &events).unwrap();
}

/// Records of nodes that wait kept the decision that was removed, so it counted as carried out when it was made again.
#[test]
fn a_person_may_choose_the_same_node_again_where_no_node_serves() {
    let events = [
        Event::Absurd(1),
        Event::Accept(2),
        Event::Stop(1, false),
        Event::LoseSentinels(7),
        Event::Absurd(0),
        Event::KillEngine(0),
        Event::StartAll,
        Event::Rest(61),
        Event::KillEngine(0),
        Event::KillEngine(1),
    ];
    play(true, &events).unwrap();
}

/// Chosen while it reached no Sentinel, it announced itself under an epoch that they had already, and all waited for each other.
#[test]
fn a_node_that_was_chosen_behind_a_cut_network_becomes_the_primary_of_all() {
    let events = [
        Event::Stop(0, false),
        Event::StartAll,
        Event::CutNode(1),
        Event::CutNode(0),
        Event::Rest(1),
        Event::Absurd(0),
        Event::Accept(0),
        Event::Rest(72),
    ];
    play(false, &events).unwrap();
}

#[test]
fn a_stale_replica_is_not_asked_to_take_over_while_the_one_that_confirmed_is_off() {
    play(true, &[Event::Split(74), Event::Rest(1), Event::KillEngine(2), Event::LoseVolume(0)]).unwrap();
}

/// The Sentinels named one that followed another one, which followed it.
#[test]
fn empty_replicas_that_follow_each_other_do_not_wait_without_end() {
    let events = [
        Event::Absurd(1),
        Event::Split(227),
        Event::Rest(6),
        Event::StopAll,
        Event::Late(2),
        Event::CutNode(2),
        Event::StartAll,
        Event::Rest(1),
    ];
    play(false, &events).unwrap();
}

/// A replica that ended before the others said that it was in sync at its end: the damaged files of the one that had confirmed more were put
/// aside for it.
#[test]
fn damaged_files_do_not_give_way_to_a_replica_that_ended_before() {
    for rest in [1, 7] {
        let events = [Event::Damage(1), Event::Stop(2, false), Event::Rest(rest), Event::LoseVolume(0), Event::StopAll];
        play(true, &events).unwrap();
        play(true, &[&events[..], &[Event::Accept(1)]].concat()).unwrap();
    }
}

/// The record of a third node was lost, and with it that this one had confirmed as much.
#[test]
fn damaged_files_do_not_give_way_next_to_data_without_a_record() {
    let events = [
        Event::Stop(2, false),
        Event::Rest(1),
        Event::StopAll,
        Event::Damage(0),
        Event::LoseRecord(0),
        Event::Damage(1),
    ];
    play(true, &events).unwrap();
    play(true, &[&events[..5], &[Event::LoseRecord(1)], &events[5..]].concat()).unwrap();
}

/// The primary that served was chosen, and the node that waited for a decision waited on.
#[test]
fn a_node_that_waits_follows_the_primary_that_serves_and_that_a_person_chose() {
    let events = [
        Event::LoseVolume(0),
        Event::Damage(2),
        Event::Rest(6),
        Event::StopAll,
        Event::LoseRecord(1),
        Event::LoseSentinels(7),
        Event::Start(1),
        Event::Rest(60),
    ];
    play(true, &events).unwrap();
}

/// A decision that was carried out long ago stood still when the file of the node that has most did not load: it was put aside, and who
/// had less began.
#[test]
fn a_decision_of_another_incident_gives_no_damaged_file_away() {
    let (overtaken, goes_on) =
        ([Event::Rest(5), Event::Accept(1), Event::Rest(5)], [Event::Stop(1, true), Event::Rest(5)]);
    let damaged = [Event::Stop(0, true), Event::Stop(2, true), Event::Damage(0), Event::Damage(2)];
    let events = [&overtaken[..], &goes_on, &damaged, &[Event::StartAll, Event::Rest(80)]].concat();
    play(true, &events).unwrap();
}

/// Node 0 was primary behind a cut, and the one that was elected meanwhile ended while node 2 was away.
#[test]
fn two_of_three_nodes_that_keep_nothing_have_a_primary_after_a_cut() {
    let events = [
        Event::Start(0),
        Event::CutNode(0),
        Event::Rest(6),
        Event::KillEngine(1),
        Event::Start(0),
        Event::Mend,
        Event::Stop(2, false),
    ];
    play(false, &events).unwrap();
}

/// Sentinels that forgot node 0 named node 2, and could neither demote nor elect node 0 when they reached that one alone.
#[test]
fn a_primary_of_which_the_sentinels_know_nothing_gives_way_to_an_election() {
    let events = [
        Event::LoseSentinels(7),
        Event::CutNode(0),
        Event::Stop(1, false),
        Event::Rest(32),
        Event::Split(92),
        Event::StartAll,
        Event::Start(0),
    ];
    play(false, &events).unwrap();
}

/// Two Sentinels named a primary each by knowledge that was as new, and the third one was away.
#[test]
fn two_sentinels_that_disagree_without_the_third_agree_on_the_primary_that_prevails() {
    let split = [Event::LoseSentinels(7), Event::Split(9), Event::Rest(32)];
    play(false, &[&split[..], &[Event::StopSentinel(0), Event::Split(0)]].concat()).unwrap();
}

/// The named node had lost its record, so it asked for a failover while the one that confirmed more was about to start.
#[test]
fn a_failover_is_not_asked_for_while_one_that_confirmed_more_starts() {
    let lost = [Event::Damage(0), Event::Stop(0, false), Event::LoseRecord(0), Event::KillEngine(2)];
    play(true, &[&[Event::CutNode(1), Event::Rest(1)], &lost[..]].concat()).unwrap();
}

/// The primary of before two splits is all that is left: the Sentinels elect it, or a node says that a person decides.
#[test]
fn what_two_splits_leave_serves_or_says_that_a_person_decides() {
    let events = [Event::Split(5), Event::Rest(6), Event::LoseVolume(2), Event::Stop(1, false), Event::Split(254)];
    play(true, &events).unwrap();
}

/// The primary that was cut off is back with a replica for a second, and confirms a write. Then both die, and the one that was elected
/// behind the cut becomes primary: the write is kept aside.
#[test]
fn what_is_confirmed_right_after_a_cut_outlives_the_death_of_both_that_have_it() {
    let events = [
        Event::Split(171),
        Event::Rest(6),
        Event::LoseSentinels(7),
        Event::Stop(2, false),
        Event::Mend,
        Event::Rest(1),
        Event::KillEngine(0),
        Event::KillEngine(1),
    ];
    play(true, &events).unwrap();
}

/// A cut leaves two primaries of one epoch whose files do not load any more, which shows only when one is chosen and starts again: it says
/// so, and a person mends the files.
#[test]
fn a_primary_that_is_chosen_and_does_not_load_its_files_says_so() {
    let events = [
        Event::KillEngine(0),
        Event::Rest(2),
        Event::Damage(2),
        Event::KillEngine(0),
        Event::LoseSentinels(7),
        Event::CutNode(2),
        Event::Rest(61),
        Event::Damage(0),
    ];
    play(true, &events).unwrap();
}

/// Two nodes lose their records and the third its volume: nothing says that the damaged files of one have more than those of the other, so
/// a person decides.
#[test]
fn damaged_files_without_a_record_do_not_give_way_to_files_without_a_record() {
    let events = [
        Event::Damage(1),
        Event::Stop(0, false),
        Event::Rest(6),
        Event::StopAll,
        Event::LoseVolume(2),
        Event::LoseRecord(0),
        Event::LoseRecord(1),
    ];
    play(true, &events).unwrap();
}

/// The named primary has lost its record, its files do not load, and the one that confirmed as much is cut off: what that one has is kept
/// aside.
#[test]
fn what_a_node_behind_a_cut_confirmed_is_kept_aside_where_the_named_one_knows_nothing() {
    let lost = [Event::Damage(2), Event::Stop(0, false), Event::Rest(6), Event::StopAll];
    play(true, &[&lost[..], &[Event::Split(218), Event::LoseRecord(2), Event::StartAll]].concat()).unwrap();
}

/// Three empty nodes began next to each other, because none believed the others, and the one that the Sentinels name is gone.
#[test]
fn of_several_primaries_next_to_a_silent_one_that_the_sentinels_name_one_is_elected() {
    let unbelieved = [Event::StopAll, Event::Absurd(0), Event::StartAll, Event::LoseSentinels(7), Event::Absurd(1)];
    play(false, &[&unbelieved[..], &[Event::Rest(31), Event::LoseVolume(0)]].concat()).unwrap();
}

/// The chosen replica ran, the rule would have started it, and without most Sentinels it does not promote itself.
#[test]
fn a_chosen_replica_that_may_not_promote_itself_starts_over() {
    let lost = [Event::Stop(1, false), Event::Damage(0), Event::KillEngine(0), Event::CutNode(0), Event::LoseRecord(1)];
    play(true, &[&[Event::Split(46), Event::Rest(1)], &lost[..], &[Event::StartAll]].concat()).unwrap();
}

/// The others were filled since from one that had less, and so tell nothing of what these files held.
#[test]
fn damaged_files_whose_record_was_lost_stay_whatever_the_others_have_by_then() {
    let lost = [Event::Stop(2, false), Event::Rest(1), Event::LoseVolume(0), Event::KillEngine(1)];
    play(true, &[&lost[..], &[Event::LoseRecord(1), Event::LoseSentinels(7), Event::Damage(1)]].concat()).unwrap();
}

/// The replica is promoted, and the Sentinel that elected it is gone before any names it.
#[test]
fn a_failover_in_which_the_sentinels_are_lost_loses_nothing() {
    for mask in 1..8 {
        for then in [vec![], vec![Event::StopAll, Event::StartAll], vec![Event::KillEngine(1)]] {
            let lost = [Event::Rest(6), Event::LoseSentinelsInFailover(mask), Event::Stop(0, false), Event::Rest(30)];
            play(true, &[&lost[..], &then, &[Event::Start(0)]].concat()).unwrap();
        }
    }
}

/// The third Sentinel was cut off with the other replica, and did not vote. What the promoted one has is there, or kept aside.
#[test]
fn a_failover_that_is_forgotten_next_to_a_sentinel_that_did_not_vote_loses_nothing() {
    let lost = [Event::Rest(1), Event::LoseSentinelsInFailover(1), Event::KillEngine(0)];
    play(true, &[&[Event::Split(236)], &lost[..]].concat()).unwrap();
}

/// The Sentinels name a replica of the one that a person chose. They elect another node, and forget it.
#[test]
fn a_cache_whose_sentinels_name_a_replica_of_two_primaries_has_one_again() {
    let lost = [Event::StopAll, Event::LoseSentinels(3), Event::StopSentinels, Event::LoseSentinelsInFailover(1)];
    let events = [&[Event::Accept(2)], &lost[..], &[Event::Start(0), Event::Start(2)]].concat();
    play(false, &events).unwrap();
}

/// A person chose a node that was cut off from the Sentinels. They name a replica of it, by the epoch that its record copied.
#[test]
fn a_chosen_primary_tells_the_sentinels_that_name_its_replica() {
    let chosen = [Event::CutNode(1), Event::Rest(32), Event::LoseSentinels(7), Event::Accept(1), Event::Rest(35)];
    let events = [&chosen[..], &[Event::LoseVolume(2), Event::Stop(0, false), Event::Mend, Event::Start(0)]].concat();
    play(true, &events).unwrap();
}

/// A5: a replica dies, the other confirms more and dies with the primary, whose volume is lost. Both records are as old, and the lower
/// ordinal won.
#[test]
fn what_is_in_a_file_and_in_no_record_outlives_the_primary() {
    for (early, late) in [(1, 2), (2, 1)] {
        for lag in 0..3 {
            let old = [Event::Lag(early, lag), Event::Lag(late, 2), Event::Rest(5), Event::Stop(early, false)];
            let lost = [Event::Rest(1), Event::Stop(late, false), Event::LoseVolume(0), Event::StartAll];
            play(true, &[&old[..], &lost].concat()).unwrap();
        }
    }
}

/// A4: the volume of a replica takes no record, and the files go on.
#[test]
fn what_a_replica_confirmed_that_can_write_no_record_outlives_the_primary() {
    for (early, stuck) in [(1, 2), (2, 1)] {
        let old = [Event::StickRecord(stuck), Event::Rest(5), Event::Stop(early, true), Event::Rest(20)];
        play(true, &[&old[..], &[Event::Stop(stuck, false), Event::LoseVolume(0), Event::StartAll]].concat()).unwrap();
    }
}
