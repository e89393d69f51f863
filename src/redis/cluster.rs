//! Commands of a Cluster to one of its servers.

use ::redis::cmd;

use super::connection::Connection;
use super::error::Result;
use crate::model::Address;
use crate::model::cluster::{ClusterNodeId, ConfigEpoch};
use crate::model::node_config::{BUS_PORT, REDIS_PORT};
use crate::model::slots::SlotSet;

/// `CLUSTER MEET`: the server shakes hands with another. It answers at once, and knows the other some moments later.
pub async fn meet(connection: &Connection, address: &Address) -> Result<()> {
    connection.query(cmd("CLUSTER").arg("MEET").arg(&address.0).arg(REDIS_PORT).arg(BUS_PORT)).await
}

/// `CLUSTER SET-CONFIG-EPOCH`: only a server that knows no other, and has no epoch, takes one.
pub async fn set_config_epoch(connection: &Connection, epoch: ConfigEpoch) -> Result<()> {
    connection.query(cmd("CLUSTER").arg("SET-CONFIG-EPOCH").arg(epoch.0)).await
}

/// `CLUSTER REPLICATE`: the server copies another from now on. One that owns slots or holds keys refuses.
pub async fn replicate(connection: &Connection, primary: &ClusterNodeId) -> Result<()> {
    connection.query(cmd("CLUSTER").arg("REPLICATE").arg(primary.to_string())).await
}

/// `CLUSTER FORGET`: the server knows the other no more, and does not hear of it for 60 s.
pub async fn forget(connection: &Connection, gone: &ClusterNodeId) -> Result<()> {
    connection.query(cmd("CLUSTER").arg("FORGET").arg(gone.to_string())).await
}

/// `CLUSTER ADDSLOTSRANGE`: the server owns these slots. It refuses all of them where it knows an owner of one.
pub async fn add_slots(connection: &Connection, slots: &SlotSet) -> Result<()> {
    let mut command = cmd("CLUSTER");
    command.arg("ADDSLOTSRANGE");
    for range in slots.ranges() {
        command.arg(range.first().number()).arg(range.last().number());
    }
    connection.query(&command).await
}

/// `READONLY`: a replica answers reads on this connection itself.
pub(crate) async fn read_only(connection: &Connection) -> Result<()> {
    connection.query(&cmd("READONLY")).await
}

/// `CLUSTER FAILOVER TAKEOVER`: the replica owns its primary's slots from now on, without an election. The caller has to know that the owners of most shards consent, and that no other may take over.
pub async fn take_over(connection: &Connection) -> Result<()> {
    connection.query(cmd("CLUSTER").arg("FAILOVER").arg("TAKEOVER")).await
}
