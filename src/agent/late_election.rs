//! An election that Sentinel's own limit would never allow.
//!
//! A Sentinel elects no replica whose link went down more than ten times `down-after-milliseconds` before the Sentinel took the primary
//! for down (`sentinelSelectSlave`). A Sentinel that was away meanwhile, or in TILT, took it for down later. Both times grow alike from
//! then on, so it would elect no replica however long it waits. Its agent sets a longer time until there is another primary, where the data
//! nodes show that the election loses nothing that a replica confirmed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::peers;
use crate::model::lineage::{Activity, Comparison, Lineage, LineageAnswer, compare};
use crate::model::node_config::NodeConfig;
use crate::model::observed::SentinelMaster;
use crate::model::{Address, Role, milliseconds};
use crate::redis::sentinel::{self, DownTimes};
use crate::redis::{Connection, Result};

/// Sentinel's own factor.
const TIMES: u32 = 10;
/// What the Sentinel knows of a link is up to a second old, and its clock ticks ten times a second.
const MARGIN: Duration = Duration::from_millis(500);

/// What is followed of the Sentinel's limit.
#[derive(Default)]
pub(super) struct LateElection {
    /// The time of detection that this agent set, while it holds.
    set: Option<Duration>,
}

impl LateElection {
    /// Looks once at the own Sentinel.
    pub(super) async fn adjust_detection(
        &mut self,
        connection: &Connection,
        config: &NodeConfig,
        own: &SentinelMaster,
    ) -> Result<()> {
        let usual = Duration::from_millis(config.detection_milliseconds);
        if !own.is_down() {
            // Where another time is in force by now, another process set it.
            if let Some(set) = self.set.take()
                && milliseconds(own.detection) == milliseconds(set)
            {
                set_detection(connection, config, usual).await?;
            }
            return Ok(());
        }
        if !own.is_down_for_quorum() || own.is_failing_over() {
            return Ok(());
        }
        let answers = peers::ask_agents(config).await;
        let Some(successor) = successor(config, &own.address, &answers) else { return Ok(()) };
        let Some(down) = sentinel::down_times(connection, &config.master_name).await? else { return Ok(()) };
        let Some(needed) = needed(usual, &successor, &down) else { return Ok(()) };
        if milliseconds(own.detection) < milliseconds(needed) {
            tracing::warn!(%successor, detection = ?needed, "the link has been down for longer than a Sentinel allows: it allows more until another is primary");
            set_detection(connection, config, needed).await?;
            self.set = Some(needed);
        }
        Ok(())
    }
}

async fn set_detection(connection: &Connection, config: &NodeConfig, time: Duration) -> Result<()> {
    let value = milliseconds(time).to_string();
    sentinel::set(connection, &config.master_name, "down-after-milliseconds", &value).await
}

/// The time of detection with which the Sentinel would elect the heir. `None`: it would with the usual one, or it would no longer take
/// the primary for down with the time that it needs.
fn needed(usual: Duration, successor: &Address, down: &DownTimes) -> Option<Duration> {
    let beyond = down.links.get(successor)?.checked_sub(down.primary)?;
    if beyond <= usual * TIMES {
        return None;
    }
    let needed = beyond / TIMES + MARGIN;
    (needed + MARGIN < down.primary + usual).then_some(needed)
}

/// The replica that has all that any replica confirmed. `None`: nothing shows that one has, or the primary has more and may serve again.
fn successor(
    config: &NodeConfig,
    primary: &Address,
    answers: &BTreeMap<u16, Option<LineageAnswer>>,
) -> Option<Address> {
    let named = config.data_nodes.iter().find(|(_, address)| *address == primary).map(|(ordinal, _)| *ordinal)?;
    let others = answers.iter().filter(|(ordinal, _)| **ordinal != named);
    let replica = |answer: &Option<LineageAnswer>| whole_replica(answer.as_ref()?).cloned();
    let replicas: Vec<(u16, Option<Lineage>)> = others.map(|(ordinal, answer)| (*ordinal, replica(answer))).collect();
    let whole = || replicas.iter().filter_map(|(ordinal, record)| Some((*ordinal, record.as_ref()?)));
    let (ordinal, best) = whole().max_by(|(_, first), (_, second)| first.position().order(&second.position()))?;
    // One that is silent may have confirmed more than those that answer, and offsets of two histories say nothing.
    let is_certain =
        whole().count() == replicas.len() && whole().all(|(_, record)| record.replication_id == best.replication_id);
    let is_given_up = match answers.get(&named)? {
        None => true,
        Some(answer) => {
            let has_more = |theirs: &Lineage| compare(theirs, best, &config.layer.uid) == Comparison::Newer;
            answer.activity == Activity::Deciding && !answer.lineage.as_ref().is_some_and(has_more)
        }
    };
    config.data_nodes.get(&ordinal).filter(|_| is_given_up && (is_certain || !config.keeps_data)).cloned()
}

fn whole_replica(answer: &LineageAnswer) -> Option<&Lineage> {
    let record = answer.lineage.as_ref()?;
    (answer.activity == Activity::Serving && record.role == Role::Replica && record.synced).then_some(record)
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::lineage::{Ancestry, LINEAGE_FORMAT};
    use crate::model::node_config::NODE_CONFIG_FORMAT;
    use crate::model::{LayerIdentity, Mode, NodeId, Offset, ReplicationId};

    fn address(ordinal: u16) -> Address {
        Address(format!("10.0.0.{ordinal}"))
    }

    #[test]
    fn the_limit_is_raised_as_far_as_the_link_needs_and_no_further_than_the_primary_stays_down() {
        let seconds = Duration::from_secs;
        let needed = |primary, link| {
            let links = BTreeMap::from([(address(1), seconds(link))]);
            needed(seconds(5), &address(1), &DownTimes { primary: seconds(primary), links })
        };
        assert_eq!(needed(1, 50), None, "within ten times 5 s");
        assert_eq!(needed(10, 60), None, "so is this: Sentinel allows for its own wait");
        assert_eq!(needed(5, 70), Some(seconds(6) + 2 * MARGIN), "of 65 s before it took the primary for down");
        assert_eq!(needed(300, 3_905), None, "it would have to take the primary for up again");
        assert_eq!(needed(400, 4_005), Some(seconds(361)), "a tenth of an hour later");
        assert_eq!(needed(5, 0), None, "no link since its start");
    }

    pub(crate) fn config(keeps_data: bool) -> NodeConfig {
        NodeConfig {
            format: NODE_CONFIG_FORMAT,
            layer: LayerIdentity { uid: "layer".to_owned(), namespace: "shop".to_owned(), name: "web".to_owned() },
            node: NodeId::sentinel(0),
            mode: Mode::Sentinel,
            initialised: true,
            keeps_data,
            accept_loss: None,
            drop_aside: BTreeSet::new(),
            caches: BTreeMap::new(),
            functions: BTreeSet::new(),
            data_nodes: (0..3).map(|ordinal| (ordinal, address(ordinal))).collect(),
            sentinels: BTreeMap::new(),
            master_name: "web".to_owned(),
            quorum: 2,
            detection_milliseconds: 5_000,
            failover_timeout_milliseconds: 15_000,
            grace_period_seconds: 20,
            cluster: None,
            settings: BTreeMap::new(),
        }
    }

    fn answer(ordinal: u16, activity: Activity, role: Role, offset: u64) -> (u16, Option<LineageAnswer>) {
        let lineage = Lineage {
            format: LINEAGE_FORMAT,
            layer_uid: "layer".to_owned(),
            epoch: 1,
            term: 1,
            role,
            replication_id: ReplicationId("a".to_owned()),
            previous_replication_id: None,
            previous_offset: None,
            offset: Offset(offset),
            synced: true,
            link_up: false,
            keys: 1,
            clean_stop: false,
            append_only: Some(true),
            accepted: None,
            held: None,
        };
        let answer = LineageAnswer {
            layer_uid: "layer".to_owned(),
            ordinal,
            activity,
            initialised: true,
            accepting: false,
            needs_person: None,
            lineage: Some(lineage),
            loaded: true,
            ancestry: Ancestry::default(),
            aside: Vec::new(),
            unusable: None,
            audit: None,
            view: None,
            notices: Vec::new(),
        };
        (ordinal, Some(answer))
    }

    #[test]
    fn the_successor_has_all_that_any_replica_confirmed_and_no_less_than_the_primary_that_is_back() {
        let replica = |ordinal, offset| answer(ordinal, Activity::Serving, Role::Replica, offset);
        let of = |answers: [(u16, Option<LineageAnswer>); 3], keeps_data| {
            successor(&config(keeps_data), &address(0), &BTreeMap::from(answers))
        };
        assert_eq!(of([(0, None), replica(1, 7), replica(2, 8)], true), Some(address(2)));
        assert_eq!(of([(0, None), replica(1, 7), (2, None)], true), None, "the silent one may have confirmed more");
        assert_eq!(of([(0, None), replica(1, 7), (2, None)], false), Some(address(1)), "nothing is promised there");
        let primary = |activity, offset| answer(0, activity, Role::Primary, offset);
        assert_eq!(of([primary(Activity::Deciding, 8), replica(1, 7), replica(2, 8)], true), Some(address(2)));
        assert_eq!(of([primary(Activity::Deciding, 9), replica(1, 7), replica(2, 8)], true), None, "it starts itself");
        assert_eq!(of([primary(Activity::Loading, 8), replica(1, 7), replica(2, 8)], true), None);
        let mut other = replica(2, 8);
        other.1.as_mut().unwrap().lineage.as_mut().unwrap().replication_id = ReplicationId("b".to_owned());
        assert_eq!(of([(0, None), replica(1, 7), other], true), None, "two histories");
    }
}
