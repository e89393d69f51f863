//! What Sentinels do by themselves, and what their agents show them.

use super::world::{Dataset, NODES, Node, SENTINELS, Sentinel, World};
use redoubt::model::boot::{Comparison, compare, prevailing};

use crate::boot_rule::LAYER;

pub const DETECTION: u64 = 5;
/// Until a Sentinel orders a node that it knows and that does not follow whom it names (`SENTINEL_PUBLISH_PERIOD` times 4).
const ORDERS_AFTER: u64 = 8;
/// Between two elections for the same primary.
const ELECTS_EVERY: u64 = 30;
/// Of the time of detection: for so long before it took the primary for down a replica's link may have been down.
const TIMES: u64 = 10;

impl World {
    pub fn tick_sentinel(&mut self, index: usize) {
        if !self.sentinels[index].runs {
            self.sentinels[index].down_since = None;
            return;
        }
        self.hear(index);
        self.learn_replicas(index);
        let zone = self.sentinels[index].zone;
        let own = self.sentinels[index].clone();
        let is_down = |known: &Sentinel| known.down_since.is_some_and(|since| self.now - since >= DETECTION);
        let named = |known: &Sentinel| known.names.map(|(named, _)| named);
        let agree = self.sentinels_of(zone).filter(|known| named(known) == named(&own) && is_down(known)).count();
        self.sentinels[index].detection = if is_down(&own) { self.needed_detection(&own) } else { 0 };
        let rests = own.tried.is_some_and(|tried| self.now - tried < ELECTS_EVERY);
        if is_down(&own) && agree > SENTINELS / 2 && !rests {
            self.sentinels[index].tried = Some(self.now);
            // It sees servers that may be elected, and not what others have in their files.
            self.elect(index, |node| node.engine.as_ref().is_some_and(|engine| engine.electable));
        }
        self.order(index);
    }

    /// Sentinels that see each other believe the newest; one that names nobody is shown the layer's primary by its agent.
    fn hear(&mut self, index: usize) {
        let zone = self.sentinels[index].zone;
        let newest = self.sentinels_of(zone).filter_map(|known| known.names).max_by_key(|(_, epoch)| *epoch);
        let current = self.sentinels_of(zone).map(|known| known.current_epoch).max().unwrap_or(0);
        let serving = (0..NODES).filter(|node| self.zone(*node) == zone && self.is_primary(*node));
        let records: Vec<_> = serving.filter_map(|node| Some((node, &self.node(node).data.as_ref()?.record))).collect();
        let shown = prevailing(&records, LAYER, self.keeps_data).map(|node| (node, 0));
        let own = self.sentinels[index].names;
        let mut names = match (own, newest) {
            (Some(own), Some(newest)) if newest.1 > own.1 => Some(newest),
            (None, newest) => newest.or(shown),
            (Some(own), _) => self.dissents(zone, own).or(Some(own)),
        };
        if let Some((named, epoch)) = &mut names
            && self.zone(*named) == zone
        {
            *epoch = (*epoch).max(self.recorded_epoch(*named));
        }
        let is_up = names.is_some_and(|(named, _)| self.zone(named) == zone && self.is_primary(named));
        let now = self.now;
        let sentinel = &mut self.sentinels[index];
        sentinel.current_epoch = sentinel.current_epoch.max(current).max(names.map_or(0, |(_, epoch)| epoch));
        let (before, after) = (own.map(|(named, _)| named), names.map(|(named, _)| named));
        if before != after {
            sentinel.down_since = None;
            sentinel.wrong_since.clear();
            sentinel.knows.extend(before);
            sentinel.knows.retain(|node| Some(*node) != after);
        }
        sentinel.names = names;
        sentinel.down_since = if is_up || names.is_none() { None } else { sentinel.down_since.or(Some(now)) };
    }

    /// As `Dissent`, where no majority names a node: whom another Sentinel names by knowledge as new, and who serves while its own does not.
    fn dissents(&self, zone: u8, own: (u16, u64)) -> Option<(u16, u64)> {
        let serves = |node: u16| self.zone(node) == zone && self.is_primary(node);
        let mut others = self.sentinels_of(zone).filter_map(|known| known.names);
        let is_split = self.majority(zone).is_none() && !serves(own.0);
        others.find(|(named, epoch)| is_split && *epoch == own.1 && serves(*named))
    }

    /// Of replicas it hears from its primary, and by its agent where that one is down for long.
    fn learn_replicas(&mut self, index: usize) {
        let Some((named, _)) = self.sentinels[index].names else { return };
        let (zone, now) = (self.sentinels[index].zone, self.now);
        let is_long = self.sentinels[index].down_since.is_some_and(|since| now - since >= DETECTION + 5);
        let is_told = |node: &u16| {
            let runs = self.zone(*node) == zone && self.node(*node).engine.is_some() && !self.is_primary(*node);
            (self.zone(named) == zone && self.is_direct(*node, named)) || (is_long && runs)
        };
        let told: Vec<u16> = (0..NODES).filter(|node| *node != named && is_told(node)).collect();
        self.sentinels[index].knows.extend(told);
    }

    /// As `LateElection`: the time of detection with which it would elect a replica that has all that any replica confirmed.
    fn needed_detection(&self, own: &Sentinel) -> u64 {
        let (Some((named, _)), Some(down_since)) = (own.names, own.down_since) else { return 0 };
        let answers = |node: u16| {
            let known = self.node(node);
            known.runs && known.absurd == 0 && self.zone(node) == own.zone
        };
        let whole = |node: u16| {
            let known = self.node(node);
            let engine = known.engine.as_ref().filter(|engine| engine.follows.is_some() && engine.takes_part)?;
            let record = &known.data.as_ref()?.record;
            (answers(node) && record.synced).then_some((engine, record))
        };
        let replicas: Vec<_> = (0..NODES).filter(|node| *node != named).map(whole).collect();
        let Some((engine, best)) = replicas.iter().flatten().max_by_key(|(_, record)| record.offset) else { return 0 };
        let is_certain = replicas.iter().all(Option::is_some)
            && replicas.iter().flatten().all(|(_, record)| record.replication_id == best.replication_id);
        let has_more = |data: &Dataset| compare(&data.record, best, LAYER) == Comparison::Newer;
        let is_given_up = !answers(named)
            || (self.node(named).engine.is_none() && !self.node(named).data.as_ref().is_some_and(has_more));
        let Some(lost) = engine.alone_since.filter(|_| engine.had_link && is_given_up) else { return 0 };
        let found = down_since + DETECTION;
        let needed = found.saturating_sub(lost) / TIMES + 1;
        let stays_down = needed + 1 < self.now - down_since;
        if stays_down && (is_certain || !self.keeps_data) { needed } else { 0 }
    }

    /// Whether the replica's link was not down for too long when the Sentinel took the primary for down.
    fn is_in_time(&self, sentinel: &Sentinel, node: u16) -> bool {
        let engine = self.node(node).engine.as_ref().filter(|engine| engine.follows.is_some());
        let Some(lost) = engine.filter(|engine| engine.had_link).and_then(|engine| engine.alone_since) else {
            return true;
        };
        let found = sentinel.down_since.map_or(self.now, |since| self.now.min(since + DETECTION));
        found.saturating_sub(lost) <= TIMES * DETECTION.max(sentinel.detection)
    }

    /// As `SENTINEL FAILOVER`, or an election that was won.
    pub fn elect(&mut self, index: usize, sees: impl Fn(&Node) -> bool) -> bool {
        let sentinel = &self.sentinels[index];
        let (zone, knows) = (sentinel.zone, sentinel.knows.clone());
        let Some((named, _)) = sentinel.names.filter(|_| sentinel.runs) else { return false };
        // Of those that it knows as replicas it asks no role: it elects a primary that came back and that no order has reached yet
        // (`attacks_rivals::sentinels_elect_a_primary_that_they_have_not_demoted`). Such a one tells it no offset, so it is the last choice.
        let can = |node: &u16| {
            let is_electable = |engine: &super::world::Engine| engine.electable;
            let runs = self.zone(*node) == zone && self.node(*node).engine.as_ref().is_some_and(is_electable);
            *node != named && runs && self.is_in_time(sentinel, *node)
        };
        let replicated = |node: &u16| self.node(*node).data.as_ref().filter(|_| !self.is_primary(*node));
        let offset = |node: &u16| replicated(node).map(|data| data.record.offset);
        let Some(best) = knows.iter().copied().filter(can).max_by_key(offset) else { return false };
        let epoch = self.sentinels_of(zone).map(|known| known.current_epoch).max().unwrap_or(0) + 1;
        self.go_on_without_the_rest(zone, sees);
        self.promote(best);
        if let Some(mask) = self.lost_in_failover.take() {
            // Those that voted know the epoch, and none of them that the replica was promoted. A vote for another counts as a failover of
            // one's own (`sentinelVoteLeader`), so each waits before the next.
            let now = self.now;
            self.sentinels.iter_mut().filter(|known| known.runs && known.zone == zone).for_each(|known| {
                (known.current_epoch, known.tried) = (epoch, Some(now));
            });
            self.lose_sentinels(mask | 1 << index);
            self.contest_what_others_lack(best);
            return true;
        }
        for other in knows.into_iter().filter(|node| *node != best) {
            if self.zone(other) == zone && self.node(other).engine.is_some() && !self.is_primary(other) {
                self.follow(other, best);
            }
        }
        let sentinel = &mut self.sentinels[index];
        sentinel.knows.insert(named);
        sentinel.knows.remove(&best);
        sentinel.wrong_since.clear();
        (sentinel.names, sentinel.current_epoch, sentinel.down_since) = (Some((best, epoch)), epoch, None);
        for other in 0..SENTINELS {
            if self.sentinels[other].runs && self.sentinels[other].zone == zone {
                self.hear(other);
            }
        }
        true
    }

    /// A Sentinel that did not vote, because it was cut off, may have another elected as soon as it is back. What only this node has is
    /// kept aside then.
    fn contest_what_others_lack(&mut self, node: u16) {
        let writes = |node: u16| self.node(node).data.as_ref().map(|data| data.writes.clone()).unwrap_or_default();
        let own = writes(node);
        let lacked: Vec<_> =
            (0..NODES).filter(|other| *other != node).map(|other| own.without(&writes(other))).collect();
        for writes in &lacked {
            self.contested.add(writes);
        }
    }

    /// What it knows and what does not follow whom it names gets an order after a while, also another primary.
    fn order(&mut self, index: usize) {
        let zone = self.sentinels[index].zone;
        let Some((named, _)) = self.sentinels[index].names else { return };
        let is_up = self.zone(named) == zone && self.is_primary(named);
        for node in self.sentinels[index].knows.clone() {
            let follows = self.node(node).engine.as_ref().map(|engine| engine.follows);
            let is_wrong = is_up && self.zone(node) == zone && follows.is_some_and(|follows| follows != Some(named));
            let now = self.now;
            let wrong_since = &mut self.sentinels[index].wrong_since;
            if !is_wrong {
                wrong_since.remove(&node);
            } else if now - *wrong_since.entry(node).or_insert(now) >= ORDERS_AFTER {
                wrong_since.remove(&node);
                self.follow(node, named);
            }
        }
    }
}
