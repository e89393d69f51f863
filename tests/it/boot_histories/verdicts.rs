//! What must come of a history: while what is away stays away, and once all faults have ceased.

use super::world::{NODES, SENTINELS, World};

/// Longer than any wait that ends by itself, seconds.
const QUIET_WITHIN: u64 = 400;
/// A layer that was whole for as long stays so: longer than any order that a Sentinel or an agent may still give, seconds.
const IN_SYNC_FOR: u64 = 40;
/// A layer that keeps nothing, of which most data nodes and most Sentinels reach each other, has a primary within so long, seconds.
const CACHE_SERVES_WITHIN: u64 = 90;

impl World {
    /// What is wrong with what comes of the history. A campaign of random histories (`PROPTEST_CASES`) judges what is left without the
    /// rest only where `REDOUBT_AWAY` is set: `make soak` sets it, because what it finds is rarer than one in 10,000.
    pub fn judge(self) -> Result<(), String> {
        let is_set = |name: &str| std::env::var_os(name).is_some();
        if is_set("PROPTEST_CASES") && !is_set("REDOUBT_AWAY") {
            return self.judge_end();
        }
        let mut without_the_rest = self.clone();
        without_the_rest.judge_without_the_rest()?;
        without_the_rest.judge_end()?;
        self.judge_end()
    }

    /// A record's epoch never falls while the node's data is the same. (Its term does: a node has that of its primary's line of data.)
    pub fn judge_epochs(&mut self) {
        for (before, now) in self.before.iter().zip(&self.nodes) {
            // What was not written down is forgotten.
            let is_set_aside = before.is_stuck || before.files.are_damaged && !now.files.are_damaged;
            if let (Some(first), Some(then), false) = (&before.data, &now.data, is_set_aside)
                && first.record.layer_uid == then.record.layer_uid
                && first.record.epoch > then.record.epoch
            {
                self.lost.get_or_insert(format!("at {} an epoch fell: {before:#?} became {now:#?}", self.now));
            }
        }
    }

    /// Nodes, Sentinels and zones that are away stay away. Either what is left serves, or some node that runs says that a person decides,
    /// whose decision is carried out then. Of a layer that keeps nothing that is asked of most nodes only.
    fn judge_without_the_rest(&mut self) -> Result<(), String> {
        self.answer_truly();
        let began = self.now;
        let is_quick = !self.keeps_data && (0..=1).any(|zone| self.has_most(zone));
        let served_after = self.rest_until_served().map(|since| since - began);
        if let Some(lost) = self.lost.take() {
            return Err(lost);
        }
        match served_after {
            Some(after) if is_quick && after > CACHE_SERVES_WITHIN => {
                Err(format!("it serves after {after} s only: {self:#?}"))
            }
            Some(_) => self.all_follow_or_say_so(),
            None if is_quick => Err(format!("most nodes of a layer that keeps nothing have no primary: {self:#?}")),
            None if (0..NODES).all(|node| !self.node(node).runs) => Ok(()),
            // Nothing is lost by waiting, no agent asks a person, and the layer's status names the pods that are missing.
            None if !self.keeps_data => Ok(()),
            None if (0..NODES).any(|node| self.says_so(node)) => self.decide_without_the_rest(),
            None => Err(format!("what is left waits and says nothing: {self:#?}")),
        }
    }

    /// Whether most data nodes and most Sentinels run in this zone.
    fn has_most(&self, zone: u8) -> bool {
        let nodes = (0..NODES).filter(|node| self.node(*node).runs && self.zone(*node) == zone).count();
        nodes > usize::from(NODES) / 2 && self.sentinels_of(zone).count() > SENTINELS / 2
    }

    /// Whether a node says that a person decides.
    fn says_so(&self, node: u16) -> bool {
        let known = self.node(node);
        known.runs && (known.needs_person.is_some() || known.files.are_unusable)
    }

    /// Whether a primary takes writes that most Sentinels name, or that is the only one where no majority of them is reached.
    fn serves_without_the_rest(&self) -> bool {
        let is_right = |node: u16| {
            if let Some((named, _)) = self.majority(self.zone(node)) {
                return named == node;
            }
            let mut others = (0..NODES).filter(|other| *other != node && self.zone(*other) == self.zone(node));
            self.sentinels_of(self.zone(node)).count() <= SENTINELS / 2 && others.all(|other| !self.is_primary(other))
        };
        let is_missing = (0..=1).any(|zone| self.has_most(zone) && !self.has_named_primary(zone));
        !is_missing && (0..NODES).any(|node| self.is_primary(node) && is_right(node))
    }

    fn has_named_primary(&self, zone: u8) -> bool {
        let named = self.majority(zone).map(|(named, _)| named);
        named.is_some_and(|named| self.zone(named) == zone && self.is_primary(named))
    }

    /// Each node that runs is primary, is sent what one writes, or says why not.
    fn all_follow_or_say_so(&self) -> Result<(), String> {
        let is_known = |node: u16| self.is_primary(node) || self.source(node).is_some() || self.says_so(node);
        match (0..NODES).find(|node| self.node(*node).runs && !is_known(*node)) {
            Some(node) => Err(format!("{node} waits and says nothing: {self:#?}")),
            None => Ok(()),
        }
    }

    /// A person chooses one of the nodes that say that they wait and whose files load. Of one that most nodes do not reach the others
    /// could only wait for.
    fn decide_without_the_rest(&mut self) -> Result<(), String> {
        let has_most = (0..=1).any(|zone| self.has_most(zone));
        let is_reached = |node: &u16| self.says_so(*node) && (!has_most || self.has_most(self.zone(*node)));
        let Some(chosen) = self.best_choice(is_reached) else { return Ok(()) };
        let before = format!("{self:#?}");
        self.accept_loss = None;
        (0..10).for_each(|_| self.tick());
        self.accept_loss = Some(chosen);
        let is_served = self.rest_until_served().is_some();
        match self.lost.take() {
            Some(lost) => Err(lost),
            None if !is_served => Err(format!("a person chose {chosen} in vain: {before} became {self:#?}")),
            None => Ok(()),
        }
    }

    /// Time passes until what is left has served for long, and each other node says why it does not follow. Since when it serves.
    fn rest_until_served(&mut self) -> Option<u64> {
        let mut since = None;
        for _ in 0..QUIET_WITHIN {
            self.tick();
            since = self.serves_without_the_rest().then(|| since.unwrap_or(self.now));
            let is_long = since.is_some_and(|since| self.now - since > IN_SYNC_FOR);
            if is_long && self.all_follow_or_say_so().is_ok() {
                break;
            }
        }
        since
    }

    /// Answers are late, absurd or forged no more.
    fn answer_truly(&mut self) {
        for node in &mut self.nodes {
            (node.late, node.absurd, node.forged) = (0, 0, 0);
        }
    }

    /// Faults cease, and time passes.
    fn run_without_faults(&mut self) {
        self.mend();
        (0..NODES).for_each(|node| self.start(node));
        self.answer_truly();
        self.rest();
    }

    /// Time passes until the layer has been in sync for long, or nothing more can be expected.
    fn rest(&mut self) {
        let mut in_sync_for = 0;
        for _ in 0..QUIET_WITHIN {
            self.tick();
            in_sync_for = if self.is_in_sync() { in_sync_for + 1 } else { 0 };
            if in_sync_for > IN_SYNC_FOR {
                return;
            }
        }
    }

    /// Runs without faults. What is wrong with what comes of it.
    fn judge_end(mut self) -> Result<(), String> {
        self.run_without_faults();
        if !self.is_in_sync() {
            let waits = self.nodes.iter().any(|node| node.needs_person.is_some() || node.files.are_unusable);
            if !waits || !self.keeps_data {
                return Err(format!("it waits and says nothing: {self:#?}"));
            }
            self.decide_as_a_person();
        }
        self.lost.map_or(Ok(()), Err)
    }

    /// Of those that wait for a person, and whose files load, the one that has most.
    fn best_choice(&self, may: impl Fn(&u16) -> bool) -> Option<u16> {
        let waits = |node: &u16| self.node(*node).needs_person.is_some() && !self.node(*node).files.are_damaged;
        let waiting = (0..NODES).filter(|node| waits(node) && may(node));
        waiting.max_by_key(|node| self.node(*node).data.as_ref().map(|data| data.writes.len()))
    }

    /// Repairs files, or chooses the node that has most of those that wait and whose files load, or the one that serves; and runs without faults.
    fn decide_as_a_person(&mut self) {
        let choose = |world: &Self| world.best_choice(|_| true).or((0..NODES).find(|node| world.is_primary(*node)));
        let chosen = choose(self);
        if self.nodes.iter().any(|node| node.files.are_unusable) && (self.now.is_multiple_of(2) || chosen.is_none()) {
            (0..NODES).for_each(|node| self.repair(node));
            self.rest();
            if self.is_in_sync() {
                return;
            }
        }
        let Some(chosen) = choose(self).or(chosen) else { return };
        let before = format!("{self:#?}");
        self.accept_loss = None;
        (0..10).for_each(|_| self.tick());
        self.accept_loss = Some(chosen);
        self.rest();
        if !self.is_in_sync() && self.node(chosen).files.are_unusable {
            // It served, so that no sign of the damage was to be seen. Now it says so, and a person mends the files.
            self.repair(chosen);
            self.rest();
        }
        if !self.is_in_sync() && self.lost.is_none() {
            self.lost = Some(format!("a person chose {chosen} in vain: {before} became {self:#?}"));
        }
    }
}
