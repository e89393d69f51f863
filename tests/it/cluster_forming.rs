//! Mode Cluster on real servers: what agents and operator decide makes one Cluster of servers that know nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use redoubt::agent::cluster::join::{self, JoinFacts, JoinStep};
use redoubt::model::cluster::{ClusterView, Shard, ViewAnswer};
use redoubt::model::slots::SlotSet;
use redoubt::model::topology::{Topology, Unsettled};
use redoubt::model::{Address, NodeId};
use redoubt::plan::cluster::slots::shares;
use redoubt::redis::{Connection, cluster, cluster_nodes, server};

use crate::support::engine_process::{Engine, Process, engines};
use crate::support::eventually;

const SOON: Duration = Duration::from_secs(40);
const LINES: [&str; 7] = [
    "cluster-enabled yes",
    "cluster-config-file nodes.conf",
    "cluster-node-timeout 2000",
    "cluster-require-full-coverage no",
    "cluster-allow-replica-migration no",
    "cluster-replica-validity-factor 0",
    "cluster-replica-no-failover yes",
];

/// The servers of a layer, each looked at and told what its agent would tell it, and what the operator would.
struct TestCluster {
    servers: BTreeMap<NodeId, Process>,
    declared: BTreeMap<NodeId, Address>,
    initialised: bool,
}

impl TestCluster {
    /// Three shards of two nodes each.
    async fn start(engine: &Engine) -> Self {
        let nodes = (0..3).flat_map(|shard| [Shard(shard).node(0), Shard(shard).node(1)]);
        let starting = nodes.map(async |node| {
            let lines = |address: &str| {
                let announced = format!("cluster-announce-ip {address}");
                LINES.iter().map(|line| (*line).to_owned()).chain([announced]).collect()
            };
            (node, Process::start(engine, false, lines).await)
        });
        let servers: BTreeMap<NodeId, Process> = join_all(starting).await.into_iter().collect();
        let declared = servers.iter().map(|(node, it)| (*node, Address(it.address.clone()))).collect();
        Self { servers, declared, initialised: false }
    }

    async fn views(&self) -> BTreeMap<NodeId, (Connection, ClusterView)> {
        let mut views = BTreeMap::new();
        for (node, process) in &self.servers {
            let Ok(connection) = Connection::open(&process.endpoint("default", "")).await else { continue };
            let view = cluster_nodes::view(&connection).await.unwrap();
            views.insert(*node, (connection, view));
        }
        views
    }

    async fn topology(&self) -> Topology {
        let views = self.views().await.into_iter().map(|(node, (_, view))| (node, view)).collect();
        Topology::of(&self.declared, &views)
    }

    /// One pass of every agent and of the operator. What they know after it.
    async fn pass(&self) -> Topology {
        let seen = self.views().await;
        let answers: BTreeMap<NodeId, ViewAnswer> =
            seen.iter().map(|(node, (_, view))| (*node, view.answer(&self.declared))).collect();
        for (own, (connection, view)) in &seen {
            let peers = answers.iter().filter(|(node, _)| *node != own).map(|(node, it)| (*node, it.clone())).collect();
            let has_keys = server::info(connection).await.unwrap().keys().0 > 0;
            let facts = JoinFacts {
                own: *own,
                declared: &self.declared,
                view,
                has_keys,
                peers: &peers,
                initialised: self.initialised,
            };
            for step in join::steps(&facts) {
                match step {
                    JoinStep::SetEpoch(epoch) => cluster::set_config_epoch(connection, epoch).await.unwrap(),
                    JoinStep::Meet(address) => cluster::meet(connection, &address).await.unwrap(),
                    JoinStep::Replicate(primary) => cluster::replicate(connection, &primary).await.unwrap(),
                }
            }
        }
        let topology = self.topology().await;
        self.operate(&topology, &seen).await;
        topology
    }

    /// What the operator does: it gives slots away once all know each other, and has what is gone forgotten.
    async fn operate(&self, topology: &Topology, seen: &BTreeMap<NodeId, (Connection, ClusterView)>) {
        let is_joined = topology.unsettled.iter().all(|what| {
            !matches!(
                what,
                Unsettled::Silent { .. }
                    | Unsettled::Unmet { .. }
                    | Unsettled::Doubted { .. }
                    | Unsettled::Stranger { .. }
            )
        });
        if is_joined && !self.initialised {
            let owned = topology.shards.iter().map(|(shard, it)| (*shard, it.slots.clone())).collect();
            let staying: BTreeSet<Shard> = topology.shards.keys().copied().collect();
            for (shard, slots) in shares(&topology.unowned, &owned, &staying) {
                let primary = topology.shards[&shard].owner.unwrap_or(shard.node(0));
                // Another server may have told it of an owner since.
                if let Err(error) = cluster::add_slots(&seen[&primary].0, &slots).await {
                    println!("{primary}: {error}");
                }
            }
        }
        for what in &topology.unsettled {
            if let Unsettled::Stranger { viewer, id } = what
                && topology.strangers.get(id).is_none_or(SlotSet::is_empty)
                && seen.len() == self.servers.len()
            {
                // It may have been forgotten by itself.
                let _ = cluster::forget(&seen[viewer].0, id).await;
            }
        }
    }

    async fn agree(&self) -> (Topology, Duration) {
        let mut last = None;
        let took = tokio::time::timeout(
            SOON,
            eventually("all servers agree", SOON, async || {
                let topology = self.pass().await;
                let is_settled = topology.is_settled();
                last = Some(topology);
                is_settled
            }),
        )
        .await;
        let topology = last.unwrap();
        (topology.clone(), took.unwrap_or_else(|_| panic!("{:#?}", topology.unsettled)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_know_nothing_become_one_cluster_in_which_each_slot_has_one_owner() {
    for engine in engines() {
        let cluster = TestCluster::start(&engine).await;
        let (topology, took) = cluster.agree().await;
        println!("{}: formed after {took:?}", engine.name);
        let owners: Vec<(Shard, Option<NodeId>, u16)> =
            topology.shards.iter().map(|(shard, it)| (*shard, it.owner, it.slots.count())).collect();
        let expected = [(0, 5_462), (1, 5_461), (2, 5_461)];
        assert_eq!(
            owners,
            expected.map(|(shard, count)| (Shard(shard), Some(Shard(shard).node(0)), count)),
            "{}",
            engine.name
        );
        assert_eq!(topology.unowned, SlotSet::default());
        let quiet = cluster.views().await.into_values().all(|(_, view)| view.serves);
        assert!(quiet, "{}: each serves", engine.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_without_its_files_joins_again_and_its_old_name_is_forgotten() {
    for engine in engines() {
        let mut cluster = TestCluster::start(&engine).await;
        let (before, _) = cluster.agree().await;
        cluster.initialised = true;
        let lost = Shard(1).node(1);
        let process = cluster.servers.get_mut(&lost).unwrap();
        process.kill();
        std::fs::remove_file(process.folder.join("nodes.conf")).unwrap();
        process.run();
        process.wait_until_it_answers().await;
        let (after, took) = cluster.agree().await;
        println!("{}: joined again after {took:?}", engine.name);
        assert_ne!(after.ids[&lost], before.ids[&lost], "{}", engine.name);
        let owners = |topology: &Topology| topology.shards.values().map(|it| it.slots.clone()).collect::<Vec<_>>();
        assert_eq!(owners(&after), owners(&before), "{}", engine.name);
    }
}
