//! Random histories of a whole layer under the boot rule: faults of nodes, volumes, networks and Sentinels, and a person's decisions at
//! any time. What a replica confirmed and some node holds is never gone without a person's word, no state waits without end unless it
//! says that it waits for a person, and a person's decision then ends it. That holds while nodes, Sentinels and zones stay away, and once
//! they are back.
//!
//! One tick is one second. What a primary takes its replicas have in the same second, so an election among them loses nothing by itself.
//! `PROPTEST_CASES` sets the number of histories.

mod agents;
mod damaged;
mod sentinels;
mod verdicts;
mod world;
mod writes;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use redoubt::model::ReplicationId;
use redoubt::model::lineage::Lineage;

use crate::boot_rule::record;
use world::{NODES, SENTINELS, Sentinel, World};

#[derive(Clone, Copy, Debug)]
enum Event {
    Rest(u8),
    /// Agent and engine end: at once, or in order.
    Stop(u16, bool),
    Start(u16),
    /// The engine dies under its agent.
    KillEngine(u16),
    LoseVolume(u16),
    /// The record is lost, the data is not.
    LoseRecord(u16),
    StopAll,
    StartAll,
    /// These Sentinels end and lose their volumes; they are back at once.
    LoseSentinels(u8),
    StopSentinel(usize),
    StopSentinels,
    StartSentinels,
    /// One node is cut from the others and from the Sentinels.
    CutNode(u16),
    /// These nodes, and one Sentinel or none, are cut from the rest.
    Split(u8),
    Mend,
    /// The node hears what was true a second ago.
    Late(u16),
    /// The node's answers are not believed for a while.
    Absurd(u16),
    /// Somebody answers in the node's place for a while: believable, and newer than its data is.
    Forge(u16),
    /// The node's files are damaged: they do not load when its engine starts next.
    Damage(u16),
    /// A person repairs the node's files.
    Repair(u16),
    Accept(u16),
    TakeBack,
}

fn event() -> impl Strategy<Value = Event> {
    let node = || 0..NODES;
    prop_oneof![
        6 => (1..90_u8).prop_map(Event::Rest),
        2 => (node(), any::<bool>()).prop_map(|(node, clean)| Event::Stop(node, clean)),
        3 => node().prop_map(Event::Start),
        2 => node().prop_map(Event::KillEngine),
        1 => node().prop_map(Event::LoseVolume),
        1 => node().prop_map(Event::LoseRecord),
        2 => Just(Event::StopAll),
        3 => Just(Event::StartAll),
        2 => (1..8_u8).prop_map(Event::LoseSentinels),
        1 => Just(Event::LoseSentinels(7)),
        1 => (0..SENTINELS).prop_map(Event::StopSentinel),
        1 => Just(Event::StopSentinels),
        1 => Just(Event::StartSentinels),
        1 => node().prop_map(Event::CutNode),
        1 => any::<u8>().prop_map(Event::Split),
        2 => Just(Event::Mend),
        1 => node().prop_map(Event::Late),
        1 => node().prop_map(Event::Absurd),
        1 => node().prop_map(Event::Forge),
        2 => node().prop_map(Event::Damage),
        1 => node().prop_map(Event::Repair),
        1 => node().prop_map(Event::Accept),
        1 => Just(Event::TakeBack),
    ]
}

impl World {
    fn tick(&mut self) {
        let (held, confirmed) = (self.held(), self.confirmed.clone());
        self.now += 1;
        let before = self.nodes.clone();
        for index in 0..SENTINELS {
            self.tick_sentinel(index);
        }
        for node in (0..NODES).filter(|node| before[usize::from(*node)].runs) {
            self.forget_overtaken(node);
            if self.node(node).engine.is_none() {
                self.boot(node);
            } else if self.yields(node) {
                self.end_engine(node, true);
            } else if self.is_primary(node) {
                self.tick_primary(node);
            } else {
                self.tick_replica(node);
            }
        }
        if self.primaries() > 1 {
            let fresh = self.confirmed.without(&confirmed);
            self.contested.add(&fresh);
        }
        for node in &mut self.nodes {
            node.written = node.data.as_ref().filter(|_| node.engine.is_some()).map(|data| data.record.clone());
            (node.late, node.absurd) = (node.late.saturating_sub(1), node.absurd.saturating_sub(1));
            node.forged = node.forged.saturating_sub(1);
        }
        self.before = before;
        let is_whole = self.is_whole();
        self.initialised |= is_whole;
        self.is_deciding &= !is_whole;
        self.judge_epochs();
        let gone = held.without(&self.held()).and(&self.confirmed);
        if self.keeps_data && !gone.is_empty() && self.lost.is_none() {
            self.lost = Some(format!("at {} {gone:?} are gone: {self:#?}", self.now));
        }
    }

    fn suffer(&mut self, event: Event) {
        match event {
            Event::Rest(seconds) => (0..seconds).for_each(|_| self.tick()),
            Event::Stop(node, clean) => self.stop(node, clean),
            Event::Start(node) => self.start(node),
            Event::KillEngine(node) => self.end_engine(node, false),
            Event::LoseVolume(node) => {
                self.stop(node, false);
                self.repair(node);
                (self.node_mut(node).data, self.node_mut(node).written) = (None, None);
            }
            Event::LoseRecord(node) => self.lose_record(node),
            Event::StopAll => (0..NODES).for_each(|node| self.stop(node, node % 2 == 0)),
            Event::StartAll => (0..NODES).for_each(|node| self.start(node)),
            Event::LoseSentinels(mask) => self.lose_sentinels(mask),
            Event::StopSentinel(index) => self.sentinels[index].runs = false,
            Event::StopSentinels => self.sentinels.iter_mut().for_each(|known| known.runs = false),
            Event::StartSentinels => self.sentinels.iter_mut().for_each(|known| known.runs = true),
            Event::CutNode(node) => self.zones[usize::from(node)] = 1,
            Event::Split(mask) => {
                for (index, zone) in self.zones.iter_mut().enumerate() {
                    *zone = mask >> index & 1;
                }
                self.sentinels[2].zone = mask >> 3 & 1;
            }
            Event::Mend => self.mend(),
            Event::Late(node) => self.node_mut(node).late = 3,
            Event::Absurd(node) => self.node_mut(node).absurd = 70,
            Event::Forge(node) => self.node_mut(node).forged = 70,
            Event::Damage(node) => self.damage(node),
            Event::Repair(node) => self.repair(node),
            Event::Accept(node) => self.accept_loss = Some(node),
            Event::TakeBack => self.accept_loss = None,
        }
    }

    fn lose_record(&mut self, node: u16) {
        if self.node(node).engine.is_none()
            && let Some(data) = &mut self.node_mut(node).data
        {
            data.record = Lineage {
                layer_uid: String::new(),
                replication_id: ReplicationId::default(),
                clean_stop: false,
                ..record(0, 0, 0)
            };
        }
    }

    /// As `epochs::recorded`: a new one begins with what the data nodes that it reaches recorded.
    fn lose_sentinels(&mut self, mask: u8) {
        for index in (0..SENTINELS).filter(|index| mask & (1 << index) != 0) {
            let zone = self.sentinels[index].zone;
            let reached = (0..NODES).filter(|node| self.node(*node).runs && self.zone(*node) == zone);
            let current_epoch = reached.map(|node| self.recorded_epoch(node)).max().unwrap_or(0);
            self.sentinels[index] = Sentinel { runs: true, zone, current_epoch, ..Sentinel::default() };
        }
    }
}

fn play(keeps_data: bool, events: &[Event]) -> Result<(), String> {
    let mut world = World::new(keeps_data);
    for _ in 0..10 {
        world.tick();
    }
    assert!(world.is_whole(), "a new layer does not form: {world:#?}");
    for event in events {
        world.suffer(*event);
    }
    world.judge()
}

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
            world.suffer(event);
        }
        if let Some(node) = further {
            world.suffer(Event::Stop(node, false));
        }
        for event in [Event::Rest(70), Event::StartSentinels, Event::Rest(60)] {
            world.suffer(event);
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

/// The primary of before two splits is all that is left: the Sentinels elect it, or a node says that a person decides.
#[test]
fn what_two_splits_leave_serves_or_says_that_a_person_decides() {
    let events = [Event::Split(5), Event::Rest(6), Event::LoseVolume(2), Event::Stop(1, false), Event::Split(254)];
    play(true, &events).unwrap();
}

/// The primary that was cut off is back with a replica for a second, and confirms a write. Then both die, and the one that was elected
/// behind the cut becomes primary. An agent keeps the write aside, but no person was asked.
#[test]
#[ignore = "open since 29 November 2026: found by a campaign of 20,000 histories"]
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

/// Two nodes lose their records and the third its volume: nothing says that the damaged files of one have more than those of the other. An
/// agent moves them aside, but no person was asked.
#[test]
#[ignore = "open since 29 November 2026: found by a campaign of 20,000 histories"]
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

/// `PROPTEST_CASES` makes a campaign of so many cases, other ones each time. Without it the cases are always the same.
fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    let rng_seed = if asked.is_some() { RngSeed::Random } else { RngSeed::Fixed(15) };
    ProptestConfig { cases: asked.unwrap_or(cases), rng_seed, max_shrink_iters: 2_000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn what_was_confirmed_is_never_gone_and_no_state_waits_without_saying_so(
        events in prop::collection::vec(event(), 0..25)
    ) {
        let verdict = play(true, &events);
        prop_assert!(verdict.is_ok(), "{}", verdict.unwrap_err());
    }

    #[test]
    fn a_layer_that_keeps_nothing_always_comes_back(events in prop::collection::vec(event(), 0..25)) {
        let verdict = play(false, &events);
        prop_assert!(verdict.is_ok(), "{}", verdict.unwrap_err());
    }
}
