//! Commands to a data node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use ::redis::{Value, cmd};

use super::connection::Connection;
use super::error::{Class, Result};
use super::info::Info;
use super::reply::{items, number, text};
use crate::model::{Address, Offset};

/// The sections of `INFO` that are read often. Plain `INFO` has a line for each error's first word besides, of which Redis 7.0 keeps
/// as many as scripts make up: with some ten thousands an answer takes longer than the time between two.
pub(crate) const SECTIONS: [&str; 8] =
    ["server", "clients", "memory", "persistence", "stats", "replication", "cpu", "keyspace"];

/// What the server is and does, without the counts of each command and of each error.
pub async fn info(connection: &Connection) -> Result<Info> {
    let text = connection.text(cmd("INFO").arg(&SECTIONS)).await?;
    Ok(Info::parse(&text))
}

/// Writes that were refused because the server is a replica, since its start (`INFO errorstats`).
pub(crate) async fn refused_writes(connection: &Connection) -> Result<u64> {
    let text = connection.text(cmd("INFO").arg("errorstats")).await?;
    Ok(Info::parse(&text).refused_writes())
}

/// For how many first words of errors the server has a count (`INFO errorstats`).
pub(crate) async fn error_counts(connection: &Connection) -> Result<u64> {
    let text = connection.text(cmd("INFO").arg("errorstats")).await?;
    let counts = text.lines().filter(|line| line.starts_with("errorstat_")).count();
    Ok(u64::try_from(counts).unwrap_or(u64::MAX))
}

/// `CONFIG RESETSTAT`: all counters of `INFO` begin at zero.
pub(crate) async fn reset_statistics(connection: &Connection) -> Result<()> {
    connection.query(cmd("CONFIG").arg("RESETSTAT")).await
}

/// `SCRIPT FLUSH ASYNC`.
pub(crate) async fn flush_scripts(connection: &Connection) -> Result<()> {
    connection.query(cmd("SCRIPT").arg("FLUSH").arg("ASYNC")).await
}

/// `INFO everything`: all sections, in one answer. Those of commands are a third of it.
pub async fn info_with_commands(connection: &Connection) -> Result<Info> {
    let text = connection.text(cmd("INFO").arg("everything")).await?;
    Ok(Info::parse(&text))
}

/// `INFO replication`: role, offset, and the replicas or the link.
pub async fn replication(connection: &Connection) -> Result<Info> {
    let text = connection.text(cmd("INFO").arg("replication")).await?;
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

/// `CLIENT UNPAUSE`: ends what [`pause_writes`] began.
pub async fn unpause(connection: &Connection) -> Result<()> {
    connection.query(cmd("CLIENT").arg("UNPAUSE")).await
}

/// Ends all connections of applications but our own: they come back to whichever node is primary now.
pub async fn cut_clients(connection: &Connection) -> Result<u64> {
    connection.query(cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes")).await
}

/// Ends the link to the primary; the replica makes another at once.
pub(crate) async fn cut_primary(connection: &Connection) -> Result<u64> {
    connection.query(cmd("CLIENT").arg("KILL").arg("TYPE").arg("master")).await
}

/// Ends all connections that subscribe; a Sentinel holds one on each server that it watches.
pub async fn cut_subscribers(connection: &Connection) -> Result<u64> {
    connection.query(cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub")).await
}

/// Ends the connection of the client at that address and port. How many that were: 0 or 1.
pub(crate) async fn cut_address(connection: &Connection, client: SocketAddr) -> Result<u64> {
    connection.query(cmd("CLIENT").arg("KILL").arg("ADDR").arg(client.to_string()).arg("SKIPME").arg("yes")).await
}

/// Ends the script or function that runs, if it wrote nothing yet (`SCRIPT KILL`, `FUNCTION KILL`): a server that answers `BUSY`
/// serves again. `Ok(false)`: none ran. An error where it wrote already (`UNKILLABLE`): only the end of the process ends it.
pub async fn end_scripts(connection: &Connection) -> Result<bool> {
    let mut ended = false;
    for kind in ["SCRIPT", "FUNCTION"] {
        match connection.query::<()>(cmd(kind).arg("KILL")).await {
            Ok(()) => ended = true,
            // `NOTBUSY`: nothing runs; `BUSY`: what runs is of the other kind.
            Err(error) if error.server_text().is_some_and(|text| text.contains("BUSY")) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ended)
}

/// A client as `CLIENT LIST` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientLine {
    pub id: u64,
    pub user: String,
    /// Its last command, in lower case (`set`, `xgroup|create`); `NULL` before the first.
    pub command: String,
}

/// `CLIENT LIST`: all connections, those that did not log in as `default`. Each is a line of some 350 bytes, and its name.
pub(crate) async fn all_clients(connection: &Connection) -> Result<Vec<ClientLine>> {
    let text = connection.text(cmd("CLIENT").arg("LIST")).await?;
    Ok(text.lines().filter_map(parse_client).collect())
}

/// `CLIENT LIST TYPE normal`: connections of applications and of ours.
pub(crate) async fn clients(connection: &Connection) -> Result<Vec<ClientLine>> {
    let text = connection.text(cmd("CLIENT").arg("LIST").arg("TYPE").arg("normal")).await?;
    Ok(text.lines().filter_map(parse_client).collect())
}

fn parse_client(line: &str) -> Option<ClientLine> {
    let field = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let text = |name| field(name).unwrap_or_default().to_owned();
    Some(ClientLine { id: field("id")?.parse().ok()?, user: text("user"), command: text("cmd") })
}

/// Ends connections by their numbers.
pub(crate) async fn cut_ids(connection: &Connection, ids: &[u64]) -> Result<()> {
    let kills: Vec<_> = ids.iter().map(|id| cmd("CLIENT").arg("KILL").arg("ID").arg(*id).clone()).collect();
    // One that is gone by itself is no fault.
    connection.query_all(&kills).await.map(drop)
}

/// The commands that write, as `CLIENT LIST` names them.
pub(crate) async fn write_commands(connection: &Connection) -> Result<BTreeSet<String>> {
    connection.query(cmd("COMMAND").arg("LIST").arg("FILTERBY").arg("ACLCAT").arg("write")).await
}

pub(crate) async fn ping(connection: &Connection) -> Result<String> {
    connection.query(&cmd("PING")).await
}

/// What `ROLE` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleReply {
    /// Takes writes.
    Primary {
        /// Offset of the replication stream that it writes.
        offset: Offset,
        /// Replicas: announced address, port, acknowledged offset.
        replicas: Vec<(Address, u16, Offset)>,
    },
    /// Copies another server.
    Replica {
        /// The server that it copies.
        primary: Address,
        /// Port of that server.
        port: u16,
        /// `connect`, `connecting`, `sync` or `connected`.
        state: String,
        /// Processed offset; `None` before the first sync.
        offset: Option<Offset>,
    },
    /// Watches primaries and holds no data.
    Sentinel {
        /// Names that it monitors.
        masters: Vec<String>,
    },
}

/// `ROLE`. An error where the answer is of no known role.
pub async fn role(connection: &Connection) -> Result<RoleReply> {
    let reply: Value = connection.query(&cmd("ROLE")).await?;
    parse_role(&reply).ok_or_else(|| connection.bad_reply("ROLE", "neither master, slave nor sentinel"))
}

fn parse_role(reply: &Value) -> Option<RoleReply> {
    let (role, details) = items(reply)?.split_first()?;
    match (text(role)?.as_str(), details) {
        ("master", [offset, replicas, ..]) => {
            let replica = |replica| match items(replica)? {
                [address, port, offset, ..] => Some((Address(text(address)?), number(port)?, Offset(number(offset)?))),
                _ => None,
            };
            let replicas = items(replicas)?.iter().filter_map(replica).collect();
            Some(RoleReply::Primary { offset: Offset(number(offset)?), replicas })
        }
        ("slave", [address, port, state, offset, ..]) => Some(RoleReply::Replica {
            primary: Address(text(address)?),
            port: number(port)?,
            state: text(state)?,
            offset: number(offset).map(Offset),
        }),
        ("sentinel", [masters, ..]) => {
            Some(RoleReply::Sentinel { masters: items(masters)?.iter().filter_map(text).collect() })
        }
        _ => None,
    }
}

/// A directive that the server did not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedSetting {
    /// Its name in `redis.conf`.
    pub name: String,
    /// The server's words.
    pub reason: String,
}

/// `CONFIG SET` of several directives: in one command, so all or none; only if the server refuses the whole, one after the
/// other, so that one which this build lacks (`activedefrag` on Debian's) does not hold back the others. Answers those that
/// were refused; an `Err` is about the connection or our rights.
pub async fn config_set_all(
    connection: &Connection,
    changes: &BTreeMap<String, String>,
) -> Result<Vec<RefusedSetting>> {
    let mut together = cmd("CONFIG");
    together.arg("SET");
    for (name, value) in changes {
        together.arg(name).arg(value);
    }
    // One directive alone goes the second way at once: there it is named.
    if changes.len() > 1 {
        match connection.query::<()>(&together).await {
            Ok(()) => return Ok(Vec::new()),
            Err(error) if error.class() == Class::Other => {}
            Err(error) => return Err(error),
        }
    }
    let mut refused = Vec::new();
    for (name, value) in changes {
        match config_set(connection, name, value).await {
            Ok(()) => {}
            Err(error) if error.class() == Class::Other => refused.push(RefusedSetting {
                name: name.clone(),
                reason: error.server_text().unwrap_or_else(|| error.to_string()),
            }),
            Err(error) => return Err(error),
        }
    }
    Ok(refused)
}

/// `ACL LIST`: one line per user, `user NAME flags… rules…`. Data nodes and Sentinels.
pub async fn acl_list(connection: &Connection) -> Result<Vec<String>> {
    connection.query(cmd("ACL").arg("LIST")).await
}

/// `ACL SETUSER`: all rules or none. The user's connections stay; see [`cut_user`].
pub async fn acl_set_user(connection: &Connection, user: &str, rules: &[String]) -> Result<()> {
    connection.query(cmd("ACL").arg("SETUSER").arg(user).arg(rules)).await
}

/// `ACL DELUSER`: ends the user's connections too. Whether the user existed.
pub async fn acl_delete_user(connection: &Connection, user: &str) -> Result<bool> {
    connection.query::<u64>(cmd("ACL").arg("DELUSER").arg(user)).await.map(|deleted| deleted > 0)
}

/// Ends all connections of one user but our own. How many.
pub async fn cut_user(connection: &Connection, user: &str) -> Result<u64> {
    connection.query(cmd("CLIENT").arg("KILL").arg("USER").arg(user).arg("SKIPME").arg("yes")).await
}

/// `ACL USERS`: the names of all users.
pub(crate) async fn acl_users(connection: &Connection) -> Result<Vec<String>> {
    connection.query(cmd("ACL").arg("USERS")).await
}

/// Ends the connections of one user that listen to channels, or those that do not. How many.
pub(crate) async fn cut_user_by_type(connection: &Connection, user: &str, listeners: bool) -> Result<u64> {
    let kind = if listeners { "pubsub" } else { "normal" };
    connection.query(cmd("CLIENT").arg("KILL").arg("USER").arg(user).arg("TYPE").arg(kind)).await
}

/// `REPLICAOF NO ONE`: take writes.
pub async fn replica_of_no_one(connection: &Connection) -> Result<()> {
    connection.query(cmd("REPLICAOF").arg("NO").arg("ONE")).await
}

/// `BGSAVE`: begin a snapshot.
pub(crate) async fn save_in_background(connection: &Connection) -> Result<()> {
    connection.query(&cmd("BGSAVE")).await
}

/// What `SHUTDOWN` does with the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownData {
    /// As the directive `save` says: a snapshot if any is configured.
    AsConfigured,
    /// A snapshot in any case.
    Save,
    /// No snapshot; the append-only file is written and synced all the same.
    NoSave,
}

/// `SHUTDOWN`: `Ok` once the server closed the connection, `Err` if it refused or did not end within `wait`. With `now` it
/// does not wait for lagging replicas (otherwise for up to `shutdown-timeout`).
pub async fn shutdown(connection: &Connection, data: ShutdownData, now: bool, wait: Duration) -> Result<()> {
    let mut command = cmd("SHUTDOWN");
    match data {
        ShutdownData::AsConfigured => {}
        ShutdownData::Save => _ = command.arg("SAVE"),
        ShutdownData::NoSave => _ = command.arg("NOSAVE"),
    }
    if now {
        command.arg("NOW");
    }
    connection.query_until_closed(&command, wait).await
}

/// `WAIT`: how many replicas acknowledged this connection's last write within `limit`.
pub async fn wait(connection: &Connection, replicas: u16, limit: Duration) -> Result<u64> {
    let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    let waiting = connection.with_response_timeout(limit + super::connection::RESPONSE_TIMEOUT);
    waiting.query(cmd("WAIT").arg(replicas).arg(milliseconds)).await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::reply::tests::{any_reply, bulk};
    use super::*;

    #[test]
    fn the_three_roles_are_read() {
        let replica = Value::Array(vec![bulk("10.0.0.2"), bulk("6379"), bulk("40")]);
        let primary = Value::Array(vec![bulk("master"), Value::Int(42), Value::Array(vec![replica])]);
        let replicas = vec![(Address("10.0.0.2".into()), 6379, Offset(40))];
        assert_eq!(parse_role(&primary), Some(RoleReply::Primary { offset: Offset(42), replicas }));

        let unsynced = [bulk("slave"), bulk("10.0.0.1"), Value::Int(6379), bulk("connect"), Value::Int(-1)];
        let (primary, state) = (Address("10.0.0.1".into()), "connect".to_owned());
        let replica = RoleReply::Replica { primary, port: 6379, state, offset: None };
        assert_eq!(parse_role(&Value::Array(unsynced.to_vec())), Some(replica));

        let sentinel = Value::Array(vec![bulk("sentinel"), Value::Array(vec![bulk("web")])]);
        assert_eq!(parse_role(&sentinel), Some(RoleReply::Sentinel { masters: vec!["web".to_owned()] }));
    }

    #[test]
    fn a_client_is_read_from_its_line() {
        let line =
            "id=7 addr=10.0.0.9:51234 laddr=10.0.0.1:6379 fd=8 name= age=3 flags=N db=0 cmd=set user=app redir=-1";
        let client = ClientLine { id: 7, user: "app".to_owned(), command: "set".to_owned() };
        assert_eq!(parse_client(line), Some(client));
        assert_eq!(parse_client("name=x"), None);
    }

    proptest! {
        #[test]
        fn no_line_makes_the_client_parser_fail(line in ".{0,80}") {
            let _ = parse_client(&line);
        }

        #[test]
        fn no_reply_makes_the_role_parser_fail(reply in any_reply()) {
            let _ = parse_role(&reply);
        }
    }
}
