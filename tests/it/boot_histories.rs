//! Random histories of a whole layer under the boot rule: faults of nodes, volumes, networks and Sentinels, and a person's decisions at
//! any time. What a replica confirmed and some node holds is never gone without a person's word, no state waits without end unless it
//! says that it waits for a person, and a person's decision then ends it. That holds while nodes, Sentinels and zones stay away, and once
//! they are back.
//!
//! One tick is one second. What a primary takes its replicas have in the same second, so an election among them loses nothing by itself.
//! `PROPTEST_CASES` sets the number of histories.

mod agents;
mod cases;
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
    /// The same in the middle of the next failover: the replica is promoted, and no Sentinel names it yet.
    LoseSentinelsInFailover(u8),
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
    /// From now on the node's record is so many seconds older than its files when it ends suddenly.
    Lag(u16, usize),
    /// The node's volume takes no record until its engine ends. Its files go on.
    StickRecord(u16),
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
        1 => (1..8_u8).prop_map(Event::LoseSentinelsInFailover),
        1 => any::<u8>().prop_map(Event::Split),
        2 => Just(Event::Mend),
        1 => node().prop_map(Event::Late),
        1 => node().prop_map(Event::Absurd),
        1 => node().prop_map(Event::Forge),
        2 => node().prop_map(Event::Damage),
        1 => node().prop_map(Event::Repair),
        2 => (node(), 0..=2_usize).prop_map(|(node, lag)| Event::Lag(node, lag)),
        1 => node().prop_map(Event::StickRecord),
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
        self.write_records();
        for node in &mut self.nodes {
            (node.late, node.absurd) = (node.late.saturating_sub(1), node.absurd.saturating_sub(1));
            node.forged = node.forged.saturating_sub(1);
        }
        self.before = before;
        let is_in_sync = self.is_in_sync();
        self.initialised |= is_in_sync;
        self.is_deciding &= !is_in_sync;
        self.judge_epochs();
        let gone = held.without(&self.held()).and(&self.confirmed);
        if self.keeps_data && !gone.is_empty() && self.lost.is_none() {
            self.lost = Some(format!("at {} {gone:?} are gone: {self:#?}", self.now));
        }
    }

    fn apply_event(&mut self, event: Event) {
        match event {
            Event::Rest(seconds) => (0..seconds).for_each(|_| self.tick()),
            Event::Stop(node, clean) => self.stop(node, clean),
            Event::Start(node) => self.start(node),
            Event::KillEngine(node) => self.end_engine(node, false),
            Event::LoseVolume(node) => {
                self.stop(node, false);
                self.repair(node);
                (self.node_mut(node).data, self.node_mut(node).written) = (None, Vec::new());
            }
            Event::LoseRecord(node) => self.lose_record(node),
            Event::StopAll => (0..NODES).for_each(|node| self.stop(node, node % 2 == 0)),
            Event::StartAll => (0..NODES).for_each(|node| self.start(node)),
            Event::LoseSentinels(mask) => self.lose_sentinels(mask),
            Event::LoseSentinelsInFailover(mask) => self.lost_in_failover = Some(mask),
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
            Event::Lag(node, lag) => self.node_mut(node).lag = lag,
            Event::StickRecord(node) => self.node_mut(node).is_stuck = true,
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
    pub fn lose_sentinels(&mut self, mask: u8) {
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
    assert!(world.is_in_sync(), "a new layer does not form: {world:#?}");
    for event in events {
        world.apply_event(*event);
    }
    world.judge()
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
