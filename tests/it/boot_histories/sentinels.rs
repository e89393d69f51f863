//! What Sentinels do by themselves, and what their agents show them.

use super::world::{NODES, Node, SENTINELS, Sentinel, World};
use redoubt::model::boot::prevailing;

use crate::boot_rule::LAYER;

const DETECTION: u64 = 5;
/// Until a Sentinel orders a node that it knows and that does not follow whom it names (`SENTINEL_PUBLISH_PERIOD` times 4).
const ORDERS_AFTER: u64 = 8;
/// Between two elections for the same primary.
const ELECTS_EVERY: u64 = 30;

impl World {
    pub fn tick_sentinel(&mut self, index: usize) {
        if !self.sentinels[index].runs {
            return;
        }
        self.hear(index);
        self.learn_replicas(index);
        let zone = self.sentinels[index].zone;
        let own = self.sentinels[index].clone();
        let is_down = |known: &Sentinel| known.down_since.is_some_and(|since| self.now - since >= DETECTION);
        let named = |known: &Sentinel| known.names.map(|(named, _)| named);
        let agree = self.sentinels_of(zone).filter(|known| named(known) == named(&own) && is_down(known)).count();
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
            (own, _) => own,
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

    /// As `SENTINEL FAILOVER`, or an election that was won.
    pub fn elect(&mut self, index: usize, sees: impl Fn(&Node) -> bool) -> bool {
        let sentinel = &self.sentinels[index];
        let (zone, knows) = (sentinel.zone, sentinel.knows.clone());
        let Some((named, _)) = sentinel.names.filter(|_| sentinel.runs) else { return false };
        let can = |node: &u16| {
            let is_electable = |engine: &super::world::Engine| engine.electable && engine.follows.is_some();
            *node != named && self.zone(*node) == zone && self.node(*node).engine.as_ref().is_some_and(is_electable)
        };
        let offset = |node: &u16| self.node(*node).data.as_ref().map(|data| data.record.offset);
        let Some(best) = knows.iter().copied().filter(can).max_by_key(offset) else { return false };
        let epoch = self.sentinels_of(zone).map(|known| known.current_epoch).max().unwrap_or(0) + 1;
        self.go_on_without_the_rest(zone, sees);
        self.promote(best);
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
