//! Random histories of a whole layer under the boot rule: faults of nodes, volumes, networks and Sentinels, and a person's decisions at
//! any time. What a replica confirmed and some node holds is never gone without a person's word, no state waits without end unless it
//! says that it waits for a person, and a person's decision then ends it.
//!
//! One tick is one second. What a primary takes its replicas have in the same second, so an election among them loses nothing by itself.
//! `PROPTEST_CASES` sets the number of histories.

mod agents;
mod sentinels;
mod world;
mod writes;

use proptest::prelude::*;
use redoubt::model::ReplicationId;
use redoubt::model::lineage::Lineage;

use crate::boot_rule::record;
use world::{NODES, SENTINELS, Sentinel, World};

/// Longer than any wait that ends by itself.
const SETTLES_WITHIN: u64 = 400;

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
    /// One node is cut from the others and from the Sentinels.
    CutNode(u16),
    /// These nodes, and one Sentinel or none, are cut from the rest.
    Split(u8),
    Mend,
    /// The node hears what was true a second ago.
    Late(u16),
    /// The node's answers are not believed for a while.
    Absurd(u16),
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
        1 => node().prop_map(Event::CutNode),
        1 => any::<u8>().prop_map(Event::Split),
        2 => Just(Event::Mend),
        1 => node().prop_map(Event::Late),
        1 => node().prop_map(Event::Absurd),
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
        }
        self.before = before;
        self.initialised |= self.is_whole();
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
                (self.node_mut(node).data, self.node_mut(node).written) = (None, None);
            }
            Event::LoseRecord(node) => self.lose_record(node),
            Event::StopAll => (0..NODES).for_each(|node| self.stop(node, node % 2 == 0)),
            Event::StartAll => (0..NODES).for_each(|node| self.start(node)),
            Event::LoseSentinels(mask) => self.lose_sentinels(mask),
            Event::StopSentinel(index) => self.sentinels[index].runs = false,
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

    /// Faults cease, and time passes.
    fn settle(&mut self) {
        self.mend();
        for node in 0..NODES {
            self.start(node);
            (self.node_mut(node).late, self.node_mut(node).absurd) = (0, 0);
        }
        (0..SETTLES_WITHIN).for_each(|_| self.tick());
    }

    /// Settles. What is wrong with what comes of it.
    fn judge(mut self) -> Result<(), String> {
        self.settle();
        if !self.is_whole() {
            let waits = self.nodes.iter().any(|node| node.needs_person.is_some());
            if !waits || !self.keeps_data {
                return Err(format!("it waits and says nothing: {self:#?}"));
            }
            self.decide_as_a_person();
        }
        self.lost.map_or(Ok(()), Err)
    }

    /// Chooses the node that has most of those that wait, and settles.
    fn decide_as_a_person(&mut self) {
        let writes = |node: &u16| self.node(*node).data.as_ref().map(|data| data.writes.len());
        let waiting = (0..NODES).filter(|node| self.node(*node).needs_person.is_some());
        let Some(chosen) = waiting.max_by_key(writes) else { return };
        let before = format!("{self:#?}");
        self.accept_loss = None;
        (0..10).for_each(|_| self.tick());
        self.accept_loss = Some(chosen);
        (0..SETTLES_WITHIN).for_each(|_| self.tick());
        if !self.is_whole() && self.lost.is_none() {
            self.lost = Some(format!("a person chose {chosen} in vain: {before} became {self:#?}"));
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

/// `PROPTEST_CASES` replaces the committed number of cases in a campaign.
fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(cases), max_shrink_iters: 2_000, ..ProptestConfig::default() }
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
