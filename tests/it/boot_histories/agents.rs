//! What agents do with their engines, as `redoubt::agent` does it.

use std::time::Duration;

use redoubt::model::boot::{
    BootDecision, BootFacts, LONGEST_WAIT, Peer, PrimaryReason, Rivalry, WaitReason, bars_promotion, decide,
    needs_a_person, promotes_itself, rivalry, undecided,
};
use redoubt::model::lineage::{Lineage, next_term};
use redoubt::model::position::is_of_its_primary;
use redoubt::model::{Offset, Role};

use super::world::{Asking, Dataset, Engine, NODES, Node, SENTINELS, World, become_replica};
use super::writes::Writes;
use crate::boot_rule::{LAYER, record};

/// How long a replica waits for an order before it asks the rule (`boot::ALONE_FOR`, `wrong_primary::REPOINTED_WITHIN`).
const REPOINTED_WITHIN: u64 = 15;
/// Bytes of a write, and of a `SELECT`.
const WRITE: u64 = 150;
/// As `watch::primacy::ELECTED_WITHIN`.
const ELECTED_WITHIN: u64 = 20;

impl World {
    /// As `Asking::round`.
    fn ask(&mut self, node: u16, asking: &mut Asking) -> (BootFacts, BootDecision) {
        let facts = self.facts(node, asking);
        let open = undecided(&facts);
        asking.refused_since = match open {
            BootDecision::AskForFailover => asking.refused_since.or(Some(self.now)),
            _ => None,
        };
        let barred =
            if self.node(node).engine.is_some() { bars_promotion(&facts, &open).map(BootDecision::Wait) } else { None };
        let needs_person = needs_a_person(&facts, &open) || (barred.is_some() && facts.waited >= LONGEST_WAIT);
        let own = self.node_mut(node);
        own.accepting = facts.accept_loss == Some(node) && (needs_person || barred.is_some() || own.accepting);
        own.needs_person = needs_person.then(|| barred.unwrap_or(open));
        let decision = decide(&facts);
        (facts, decision)
    }

    /// As `boot::wait_for_decision` and the start after it.
    pub fn boot(&mut self, node: u16) {
        self.give_way_or_repair(node);
        let mut asking = self.node(node).asking.clone();
        let (facts, decision) = self.ask(node, &mut asking);
        self.node_mut(node).asking = asking;
        let is_damaged = self.node(node).files.are_damaged;
        match decision {
            BootDecision::StartPrimary(reason) if is_damaged => {
                if reason == PrimaryReason::LossAccepted {
                    let zone = self.zone(node);
                    let epoch = self.above_all(node);
                    self.announce(node, zone, epoch);
                }
                self.ends_over_files(node, Role::Primary);
            }
            BootDecision::Follow { .. } if is_damaged => self.ends_over_files(node, Role::Replica),
            BootDecision::StartPrimary(reason) => {
                self.note_reason(node, reason);
                let theirs = facts.peers.values().filter_map(|peer| match peer {
                    Peer::Answers { lineage: Some(lineage), .. } => Some(lineage.term),
                    Peer::Answers { .. } | Peer::Silent { .. } => None,
                });
                let highest = theirs.chain(facts.own.as_ref().map(|own| own.term)).max().unwrap_or(0);
                self.start_primary(node, next_term(highest), reason == PrimaryReason::LossAccepted);
            }
            BootDecision::Follow { primary, electable } => {
                if facts.accept_loss == Some(primary) && needs_a_person(&facts, &undecided(&facts)) {
                    // A person gave up what only it has.
                    let writes = self.node(node).data.as_ref().map(|data| data.writes.clone()).unwrap_or_default();
                    self.kept_aside.add(&writes);
                }
                let own = self.node_mut(node);
                own.engine =
                    Some(Engine { follows: Some(primary), electable, takes_part: electable, ..Engine::primary() });
                if let Some(data) = &mut own.data {
                    (data.record.role, data.record.clean_stop) = (Role::Replica, false);
                }
                own.needs_person = None;
            }
            BootDecision::AskForFailover => self.fail_over(node),
            BootDecision::Wait(WaitReason::AnotherIsChosen) => {
                let writes = self.node(node).data.as_ref().map(|data| data.writes.clone()).unwrap_or_default();
                self.kept_aside.add(&writes);
            }
            BootDecision::Wait(_) => {}
        }
    }

    /// The rule, or an election, goes on without nodes that are not reached, whatever they have: when they are back, that is kept aside.
    /// `sees`: whether a node that is reached counts.
    pub fn go_on_without_the_rest(&mut self, zone: u8, sees: impl Fn(&Node) -> bool) {
        let mut reached = Writes::default();
        for (node, _) in self.nodes.iter().zip(&self.zones).filter(|(node, of)| sees(node) && **of == zone) {
            // Files that do not load, and of which no record tells what they held, are not reached either.
            let tells = |data: &&Dataset| !(node.files.are_damaged && data.record.is_of_unknown_origin());
            if let Some(data) = node.data.as_ref().filter(tells) {
                reached.add(&data.writes);
            }
        }
        let rest = self.confirmed.without(&reached);
        self.contested.add(&rest);
    }

    fn note_reason(&mut self, node: u16, reason: PrimaryReason) {
        if reason == PrimaryReason::NewestOfThoseLeft {
            self.go_on_without_the_rest(self.zone(node), |peer| peer.runs && peer.absurd == 0);
        }
    }

    fn fail_over(&mut self, node: u16) {
        for sentinel in 0..SENTINELS {
            let known = &self.sentinels[sentinel];
            let may = known.zone == self.zone(node) && known.names.is_some_and(|(named, _)| named == node);
            if may && self.elect(sentinel, |peer| peer.runs && peer.absurd == 0) {
                return;
            }
        }
    }

    fn start_primary(&mut self, node: u16, term: u64, is_chosen: bool) {
        let history = self.fresh_history();
        let zone = self.zone(node);
        let above = self.above_all(node);
        let own = self.node_mut(node);
        let data = own.data.get_or_insert_with(|| Dataset::empty(record(0, 0, 0)));
        data.began = Some(data.record.position());
        let is_of_this_layer = data.record.layer_uid == LAYER;
        data.record = Lineage {
            term,
            epoch: match (is_chosen, is_of_this_layer) {
                (true, _) => above,
                (false, true) => data.record.epoch,
                (false, false) => 0,
            },
            layer_uid: LAYER.to_owned(),
            role: Role::Primary,
            replication_id: history,
            previous_replication_id: None,
            previous_offset: None,
            synced: true,
            link_up: true,
            clean_stop: false,
            held: None,
            ..data.record.clone()
        };
        own.engine = Some(Engine::primary());
        own.needs_person = None;
        if is_chosen {
            // By a person's word the rest is given up.
            let kept = data.writes.clone();
            own.accepting = true;
            self.is_deciding = true;
            self.confirmed = self.confirmed.and(&kept);
            self.announce(node, zone, above);
        }
    }

    /// An epoch above all that the node hears of.
    fn above_all(&self, node: u16) -> u64 {
        let heard = (0..NODES).filter(|peer| *peer == node || self.is_heard(*peer, node));
        let named = self.sentinels_of(self.zone(node)).filter_map(|known| known.names).map(|(_, epoch)| epoch);
        heard.map(|peer| self.recorded_epoch(peer)).chain(named).max().unwrap_or(0) + 1
    }

    pub fn promote(&mut self, node: u16) {
        let history = self.fresh_history();
        let heard = (0..NODES).filter(|peer| *peer == node || self.is_heard(*peer, node));
        let terms = heard.filter_map(|peer| self.node(peer).data.as_ref()).map(|data| data.record.term);
        let highest = terms.max().unwrap_or(0);
        let own = self.node_mut(node);
        if let (Some(engine), Some(data)) = (&mut own.engine, &mut own.data)
            && engine.follows.is_some()
        {
            *engine = Engine::primary();
            data.began = Some(data.record.position());
            data.record.held = None;
            data.record.previous_replication_id = Some(data.record.replication_id.clone());
            data.record.previous_offset = Some(data.record.offset);
            data.record.replication_id = history;
            data.record.term = next_term(highest);
            (data.record.role, data.record.synced, data.record.link_up) = (Role::Primary, true, true);
        }
    }

    pub fn tick_primary(&mut self, node: u16) {
        if self.meet_rivals(node) || self.step_down(node) {
            return;
        }
        let zone = self.zone(node);
        self.counter += 1;
        let id = self.counter;
        let named = self.majority(zone).filter(|(named, _)| *named == node);
        let direct: Vec<u16> = (0..NODES).filter(|peer| self.is_direct(*peer, node)).collect();
        let sent: Vec<u16> = (0..NODES).filter(|peer| self.source(*peer) == Some(node)).collect();
        let is_disputed = self.nodes.iter().any(|known| known.runs && known.needs_person.is_some());
        // Another one was elected while this one was cut off, and is away.
        let is_overtaken = (0..NODES).any(|peer| self.recorded_epoch(peer) > self.recorded_epoch(node));
        let is_contested = named.is_none() || self.primaries() > 1 || is_disputed || is_overtaken || self.is_deciding;
        let accept_loss = self.accept_loss;
        let names_other = self.majority(zone).is_some_and(|(named, _)| named != node);
        let own = self.node_mut(node);
        let Some(data) = &mut own.data else { return };
        // What is in the stream and in no file.
        data.record.offset = Offset(data.record.offset.0 + 37);
        if !direct.is_empty() {
            data.record.offset = Offset(data.record.offset.0 + WRITE);
            data.bytes += WRITE;
            data.writes.insert(id);
            data.record.keys += 1;
        }
        if let Some((_, epoch)) = named {
            data.record.epoch = data.record.epoch.max(epoch);
        }
        let is_known = own.accepting || !names_other;
        let is_own = accept_loss == Some(node) && own.needs_person.is_none() && is_known;
        if is_own || accept_loss.is_some_and(|chosen| direct.contains(&chosen)) {
            data.record.accepted = accept_loss;
        }
        let copy = data.clone();
        if own.accepting {
            self.keep_chosen(node, copy.record.epoch);
        }
        if !direct.is_empty() {
            self.confirmed.insert(id);
            if is_contested {
                self.contested.insert(id);
            }
        }
        for peer in sent {
            self.send(&copy, peer);
        }
    }

    fn send(&mut self, source: &Dataset, peer: u16) {
        let is_unknown = self.node(peer).data.as_ref().is_some_and(|data| data.record.is_of_unknown_origin());
        let contested = self.contested.clone();
        let fresh_files = self.fresh_files();
        let own = self.node_mut(peer);
        // As `Watch::record`: it goes on from its own epoch.
        let is_of_this_layer = |data: &Dataset| data.record.layer_uid == source.record.layer_uid;
        let epoch = own.data.as_ref().filter(|data| is_of_this_layer(data)).map_or(0, |data| data.record.epoch);
        let replaced = own.data.replace(source.clone());
        // A server that read its append-only file knows no history, so it is sent all; and then it has other files.
        let goes_on = replaced.as_ref().filter(|before| {
            let id = &before.record.replication_id;
            let is_known =
                *id == source.record.replication_id || source.record.previous_replication_id.as_ref() == Some(id);
            is_known && before.record.held.is_none()
        });
        let files = goes_on.map_or(fresh_files, |before| before.files);
        // Neither is certain to have all that the other has, or a primary began again next to one that went on from it and could write no
        // record: what is overwritten is kept aside then.
        let ended = replaced.as_ref().map(|data| data.record.position());
        let is_open = ended.zip(source.began.as_ref()).is_some_and(|(ended, began)| {
            let includes = began.includes(&ended, &[]) || ended.includes(began, &[]);
            ended.replication_id == began.replication_id
                && (!includes || (began.led && !is_of_its_primary(began, &ended)))
        });
        let before = replaced.as_ref().map(|data| data.writes.clone()).unwrap_or_default();
        let own = self.node_mut(peer);
        if let (Some(data), Some(engine)) = (&mut own.data, &mut own.engine) {
            data.record.epoch = data.record.epoch.max(epoch);
            data.files = files;
            become_replica(&mut data.record);
            (engine.electable, engine.takes_part, engine.asking) = (true, true, None);
        }
        own.needs_person = None;
        // As the agent's `Standing`, which keeps all that is not in the primary's history. Here it counts only where it is expected.
        let replaced = before.without(&source.writes);
        let kept = if is_unknown || is_open { replaced } else { replaced.and(&contested) };
        if self.keeps_data {
            self.kept_aside.add(&kept);
        }
    }

    /// As `Watch::keep_chosen`.
    fn keep_chosen(&mut self, node: u16, epoch: u64) {
        let zone = self.zone(node);
        let others = self.sentinels_of(zone).filter_map(|known| known.names).filter(|(named, _)| *named != node);
        let Some(newest) = others.map(|(_, epoch)| epoch).max() else {
            self.node_mut(node).accepting = false;
            return;
        };
        let epoch = epoch.max(newest + 1);
        if let Some(data) = &mut self.node_mut(node).data {
            data.record.epoch = epoch;
        }
        self.announce(node, zone, epoch);
    }

    /// As `chosen::announce`.
    fn announce(&mut self, node: u16, zone: u8, epoch: u64) {
        for sentinel in self.sentinels.iter_mut().filter(|known| known.runs && known.zone == zone) {
            if let Some((named, known)) = sentinel.names
                && known < epoch
            {
                if named != node {
                    sentinel.knows.insert(named);
                    sentinel.knows.remove(&node);
                }
                (sentinel.names, sentinel.down_since) = (Some((node, epoch)), None);
                sentinel.current_epoch = sentinel.current_epoch.max(epoch);
            }
        }
    }

    /// As `Watch::step_down`. True: it is a replica now.
    fn step_down(&mut self, node: u16) -> bool {
        let own_epoch = self.recorded_epoch(node);
        let Some((named, epoch)) = self.majority(self.zone(node)) else { return false };
        if named == node || epoch <= own_epoch || !self.is_heard(named, node) || !self.is_primary(named) {
            return false;
        }
        self.follow(node, named);
        true
    }

    /// As `REPLICAOF`.
    pub fn follow(&mut self, node: u16, primary: u16) {
        let own = self.node_mut(node);
        if let Some(engine) = &mut own.engine {
            engine.had_link &= engine.follows.is_some();
            (engine.follows, engine.wrong_primary_since) = (Some(primary), None);
        }
        if let Some(data) = &mut own.data {
            (data.record.role, data.record.link_up) = (Role::Replica, false);
        }
    }

    /// As `Rivals::look`. True: the engine was ended.
    fn meet_rivals(&mut self, node: u16) -> bool {
        let Some(engine) = &self.node(node).engine else { return false };
        // The Sentinels are being told of what a person chose.
        if self.node(node).accepting {
            return false;
        }
        let mut asking = engine.asking.clone().unwrap_or_else(|| Asking::begin(self.now));
        let mut facts = self.facts(node, &mut asking);
        asking.rival_since = facts.has_rival().then(|| asking.rival_since.unwrap_or(self.now));
        asking.unnamed_since = facts.names_no_primary().then(|| asking.unnamed_since.unwrap_or(self.now));
        facts.unnamed = asking.unnamed_since.map_or(Duration::ZERO, |since| Duration::from_secs(self.now - since));
        facts.waited = asking.rival_since.map_or(Duration::ZERO, |since| Duration::from_secs(self.now - since));
        let rivalry = rivalry(&facts);
        let own = self.node_mut(node);
        own.needs_person = None;
        if let Some(engine) = &mut own.engine {
            engine.asking = (rivalry != Rivalry::Alone).then_some(asking);
        }
        let ends = match rivalry {
            Rivalry::Alone | Rivalry::GoesOn => false,
            Rivalry::TellsSentinels => {
                let epoch = self.recorded_epoch(node);
                self.keep_chosen(node, epoch);
                false
            }
            Rivalry::StepsDown => true,
            Rivalry::NeedsPerson(reason) => {
                own.needs_person = Some(BootDecision::Wait(reason));
                own.accepting = facts.accept_loss == Some(node);
                own.accepting
            }
        };
        if ends {
            self.end_engine(node, true);
        }
        ends
    }

    /// As `Watch::decide_again`, and `WrongPrimary`.
    pub fn tick_replica(&mut self, node: u16) {
        if self.follows_wrong_primary(node) {
            self.end_engine(node, true);
            return;
        }
        if self.source(node).is_some() {
            if let Some(engine) = &mut self.node_mut(node).engine {
                (engine.had_link, engine.alone_since) = (true, None);
            }
            return;
        }
        let majority = self.majority(self.zone(node));
        let accept_loss = self.accept_loss;
        let now = self.now;
        let own = self.node_mut(node);
        if let Some(engine) = &mut own.engine {
            engine.alone_since.get_or_insert(now);
        }
        let Some(engine) = own.engine.clone() else { return };
        let is_late = engine.alone_since.is_some_and(|since| now - since >= ELECTED_WITHIN);
        let data = own.data.get_or_insert_with(|| Dataset::empty(Lineage { synced: false, ..record(0, 0, 0) }));
        data.record.link_up = false;
        let is_told = majority.is_some_and(|(named, _)| named != node);
        if engine.takes_part && is_told && !is_late && accept_loss != Some(node) {
            (own.accepting, own.needs_person) = (false, None);
            if let Some(engine) = &mut own.engine {
                engine.asking = None;
            }
            return;
        }
        let mut asking = engine.asking.unwrap_or_else(|| Asking::begin(now));
        let (facts, decision) = self.ask(node, &mut asking);
        let is_long = now - asking.since >= REPOINTED_WITHIN;
        let promotes = promotes_itself(&facts, &decision);
        let is_electable = matches!(decision, BootDecision::Follow { electable: true, .. });
        let has_another = match &decision {
            BootDecision::Follow { primary, .. } => {
                is_long && engine.follows != Some(*primary) && self.is_primary(*primary)
            }
            BootDecision::StartPrimary(_) | BootDecision::AskForFailover | BootDecision::Wait(_) => false,
        };
        if self.node(node).accepting || has_another {
            self.end_engine(node, true);
            return;
        }
        if let Some(engine) = &mut self.node_mut(node).engine {
            engine.asking = Some(asking);
            engine.electable |= is_electable;
            engine.takes_part |= is_electable;
        }
        if promotes && let BootDecision::StartPrimary(reason) = decision {
            self.note_reason(node, reason);
            self.promote(node);
        }
    }

    fn follows_wrong_primary(&mut self, node: u16) -> bool {
        let named = self.majority(self.zone(node)).map(|(named, _)| named).filter(|named| *named != node);
        let now = self.now;
        let Some(engine) = &mut self.node_mut(node).engine else { return false };
        let (Some(followed), Some(named)) = (engine.follows, named) else {
            engine.wrong_primary_since = None;
            return false;
        };
        if followed == named {
            engine.wrong_primary_since = None;
            return false;
        }
        let since = *engine.wrong_primary_since.get_or_insert(now);
        let serves = |peer: u16| self.is_heard(peer, node) && self.is_primary(peer);
        now - since >= REPOINTED_WITHIN && !serves(followed) && serves(named)
    }

    /// As `chosen::forget_overtaken`, and `Watch::record`.
    pub fn forget_overtaken(&mut self, node: u16) {
        let accept_loss = self.accept_loss;
        if let Some(data) = &mut self.node_mut(node).data {
            data.record.accepted = data.record.accepted.filter(|accepted| accept_loss == Some(*accepted));
        }
    }

    /// Whether a person chose another node, which waits for this one.
    pub fn yields(&self, node: u16) -> bool {
        let is_other = |chosen: u16| chosen != node && self.is_heard(chosen, node) && self.node(chosen).accepting;
        self.accept_loss.is_some_and(is_other)
    }

    pub fn end_engine(&mut self, node: u16, clean: bool) {
        let (now, keeps_data) = (self.now, self.keeps_data);
        let own = self.node_mut(node);
        if own.engine.take().is_none() {
            return;
        }
        own.asking = Asking::begin(now);
        if !keeps_data {
            own.data = None;
            return;
        }
        if !clean || own.is_stuck {
            Self::leave_record(own);
        } else if let Some(data) = &mut own.data {
            (data.record.clean_stop, data.record.held) = (true, None);
            own.written.clear();
        }
    }

    pub fn stop(&mut self, node: u16, clean: bool) {
        self.end_engine(node, clean);
        let own = self.node_mut(node);
        (own.runs, own.accepting, own.needs_person) = (false, false, None);
    }

    pub fn start(&mut self, node: u16) {
        let now = self.now;
        let own = self.node_mut(node);
        if !own.runs {
            (own.runs, own.asking) = (true, Asking::begin(now));
        }
    }
}
