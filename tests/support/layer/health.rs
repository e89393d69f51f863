//! Whether a layer is in sync, and what is wrong where it is not.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use redoubt::model::node_config::REDIS_PORT;
use redoubt::model::{Address, NodeId, Role};
use redoubt::redis::info::Info;
use redoubt::redis::{Connection, Endpoint, sentinel, server, users};

use super::{Layer, SOON, endpoint};

impl Layer {
    /// `INFO replication` of a data node.
    pub async fn replication(&self, id: NodeId) -> Option<Info> {
        let endpoint = endpoint(&self.nodes[&id].address, REDIS_PORT, users::OPERATOR, "p-o");
        server::replication(&Connection::open(&endpoint).await.ok()?).await.ok()
    }

    /// The node that a majority of the Sentinels names and that says it is primary.
    pub async fn primary(&self) -> Option<NodeId> {
        self.known_primary().await.ok()
    }

    /// Waits until [all is in sync](Self::check_in_sync), and says how long that took. Panics with what is wrong after [`SOON`].
    pub async fn wait_until_in_sync(&self) -> Duration {
        let began = Instant::now();
        while let Err(fault) = self.check_in_sync().await {
            assert!(began.elapsed() < SOON, "not in sync within {SOON:?}: {fault}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        began.elapsed()
    }

    /// The same, however long that takes.
    pub async fn until_in_sync(&self) {
        while self.check_in_sync().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Nothing where there is one primary, every other data node is its synced and electable replica, and every Sentinel names it
    /// and knows all.
    pub async fn check_in_sync(&self) -> Result<(), String> {
        let primary = self.known_primary().await?;
        for id in self.data_ids() {
            let info = self.replication(id).await.ok_or_else(|| format!("{id} does not answer"))?;
            let is_fine = match info.primary_link() {
                // Before a replica acknowledges for the first time, it is sent no writes.
                None => id == primary && info.replicas().iter().all(|replica| replica.offset.0 > 0),
                Some(link) => link.up && link.priority > 0 && link.primary == self.nodes[&primary].address,
            };
            if !is_fine {
                return Err(format!(
                    "{primary} is primary, and {id} says {:?}, {:?}",
                    info.primary_link(),
                    info.replicas()
                ));
            }
        }
        for endpoint in self.sentinel_endpoints() {
            self.what_a_sentinel_lacks(&endpoint, primary)
                .await
                .map_err(|lack| format!("{primary} is primary, and the Sentinel at {} {lack}", endpoint.address))?;
        }
        Ok(())
    }

    async fn what_a_sentinel_lacks(&self, endpoint: &Endpoint, primary: NodeId) -> Result<(), String> {
        let connection = Connection::open(endpoint).await.map_err(|error| format!("does not answer: {error}"))?;
        let master = sentinel::master(&connection, &self.master_name).await.map_err(|error| format!("says {error}"))?;
        let master = master.ok_or("monitors nothing")?;
        let electable = sentinel::electable_replicas(&connection, &self.master_name).await.unwrap_or_default();
        if master.address != self.nodes[&primary].address {
            return Err(format!("names {}", master.address.0));
        }
        if electable.len() != self.data_ids().len() - 1 {
            return Err(format!("would elect of {electable:?}"));
        }
        if master.other_sentinels.len() != self.sentinel_ids().len() - 1 {
            return Err(format!("knows as others {:?}", master.other_sentinels));
        }
        Ok(())
    }

    async fn known_primary(&self) -> Result<NodeId, String> {
        let mut votes: BTreeMap<Address, usize> = BTreeMap::new();
        for endpoint in self.sentinel_endpoints() {
            let Ok(connection) = Connection::open(&endpoint).await else { continue };
            if let Ok(Some((address, _))) = sentinel::primary_address(&connection, &self.master_name).await {
                *votes.entry(address).or_default() += 1;
            }
        }
        let majority = self.sentinel_ids().len() / 2;
        let named = votes.iter().find(|(_, count)| **count > majority).map(|(address, _)| address);
        let named = named.ok_or_else(|| format!("no majority of the Sentinels names a primary: {votes:?}"))?;
        let node = self.nodes.values().find(|node| node.address == *named);
        let id = node.ok_or_else(|| format!("the Sentinels name {}, which is no node's", named.0))?.id;
        let info =
            self.replication(id).await.ok_or_else(|| format!("the Sentinels name {id}, which does not answer"))?;
        match info.role() {
            Some(Role::Primary) => Ok(id),
            role => Err(format!("the Sentinels name {id}, which says that it is {role:?}")),
        }
    }
}
