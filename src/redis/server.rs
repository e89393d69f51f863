//! Commands to a data node.

use std::collections::BTreeMap;

use ::redis::cmd;

use super::connection::Connection;
use super::error::Result;
use super::info::Info;

/// `INFO everything`: all sections, in one answer.
pub async fn info(connection: &Connection) -> Result<Info> {
    let text: String = connection.query(cmd("INFO").arg("everything")).await?;
    Ok(Info::parse(&text))
}

/// `INFO replication`.
pub async fn replication(connection: &Connection) -> Result<Info> {
    let text: String = connection.query(cmd("INFO").arg("replication")).await?;
    Ok(Info::parse(&text))
}

/// `CONFIG GET` of several directives; those that the server does not know are absent.
pub async fn config_get(connection: &Connection, names: &[&str]) -> Result<BTreeMap<String, String>> {
    connection.query(cmd("CONFIG").arg("GET").arg(names)).await
}

/// `CONFIG SET` of one directive.
pub async fn config_set(connection: &Connection, name: &str, value: &str) -> Result<()> {
    connection.query(cmd("CONFIG").arg("SET").arg(name).arg(value)).await
}

/// `REPLICAOF host port`.
pub async fn replica_of(connection: &Connection, address: &str, port: u16) -> Result<()> {
    connection.query(cmd("REPLICAOF").arg(address).arg(port)).await
}

/// `CLIENT PAUSE milliseconds WRITE`: writers wait, readers and replication go on.
pub async fn pause_writes(connection: &Connection, milliseconds: u64) -> Result<()> {
    connection.query(cmd("CLIENT").arg("PAUSE").arg(milliseconds).arg("WRITE")).await
}

/// `CLIENT UNPAUSE`.
pub async fn unpause(connection: &Connection) -> Result<()> {
    connection.query(cmd("CLIENT").arg("UNPAUSE")).await
}

/// Ends all connections of applications but our own: they come back to whoever is primary now.
pub async fn cut_clients(connection: &Connection) -> Result<u64> {
    connection.query(cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes")).await
}

/// `PING`.
pub async fn ping(connection: &Connection) -> Result<String> {
    connection.query(&cmd("PING")).await
}
