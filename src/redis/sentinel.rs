//! Commands to a Sentinel, and its events.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ::redis::{FromRedisValue as _, Value, cmd};
use futures::{Stream, StreamExt as _};

use super::connection::{Connection, Endpoint, open_subscriber};
use super::error::Result;
use super::info::Info;
use crate::model::observed::SentinelMaster;
use crate::model::{Address, Offset};

type Fields = BTreeMap<String, String>;

/// What this Sentinel believes of `master_name`; `None`: it monitors nothing of that name. One round trip.
pub async fn master(connection: &Connection, master_name: &str) -> Result<Option<SentinelMaster>> {
    let replies = connection.query_all(&master_questions(master_name)).await?;
    read_master(connection, master_name, replies)
}

/// The commands whose replies [`read_master`] puts together.
pub(super) fn master_questions(master_name: &str) -> [::redis::Cmd; 3] {
    let question = |words: &[&str]| {
        let mut command = cmd("SENTINEL");
        command.arg(words);
        command
    };
    [question(&["MASTERS"]), question(&["SENTINELS", master_name]), question(&["REPLICAS", master_name])]
}

/// The answers to [`master_questions`] as one belief. The last two are errors where the name is unknown.
pub(super) fn read_master(
    connection: &Connection,
    master_name: &str,
    replies: Vec<Result<Value>>,
) -> Result<Option<SentinelMaster>> {
    let mut replies = replies.into_iter();
    let mut next = || replies.next().unwrap_or(Ok(Value::Nil));
    let (masters, other_sentinels, replicas) = (next()?, next(), next());
    let records = |reply: Value| {
        Vec::<Fields>::from_redis_value(reply).map_err(|error| connection.bad_reply("SENTINEL", error.to_string()))
    };
    let masters = records(masters)?;
    let Some(fields) = masters.iter().find(|fields| fields.get("name").is_some_and(|name| name == master_name)) else {
        return Ok(None);
    };
    parse_master(fields, &records(other_sentinels?)?, &records(replicas?)?)
        .map(Some)
        .ok_or_else(|| connection.bad_reply("SENTINEL MASTERS", "an entry without an address"))
}

/// `SENTINEL RESET`: forget replicas and Sentinels and find them again. One Sentinel at a time, never in a failover.
pub async fn reset(connection: &Connection, master_name: &str) -> Result<u64> {
    connection.query(cmd("SENTINEL").arg("RESET").arg(master_name)).await
}

/// `SENTINEL REMOVE`: stop monitoring.
pub async fn remove(connection: &Connection, master_name: &str) -> Result<()> {
    connection.query(cmd("SENTINEL").arg("REMOVE").arg(master_name)).await
}

fn parse_master(fields: &Fields, other_sentinels: &[Fields], replicas: &[Fields]) -> Option<SentinelMaster> {
    let number = |name: &str| fields.get(name).and_then(|value| value.parse::<u64>().ok()).unwrap_or_default();
    Some(SentinelMaster {
        address: address(fields)?,
        config_epoch: number("config-epoch"),
        flags: flags(fields),
        quorum: number("quorum").try_into().unwrap_or(u16::MAX),
        detection: Duration::from_millis(number("down-after-milliseconds")),
        failover_timeout: Duration::from_millis(number("failover-timeout")),
        parallel_syncs: number("parallel-syncs").try_into().unwrap_or(u16::MAX),
        other_sentinels: other_sentinels
            .iter()
            .filter_map(|fields| Some((fields.get("runid")?.clone(), address(fields)?)))
            .collect(),
        steady_milliseconds: fields.get("role-reported-time").and_then(|value| value.parse().ok()),
        replicas: replicas.iter().filter_map(|fields| Some((address(fields)?, flags(fields)))).collect(),
    })
}

fn address(fields: &Fields) -> Option<Address> {
    fields.get("ip").map(|ip| Address(ip.clone()))
}

fn flags(fields: &Fields) -> BTreeSet<String> {
    fields.get("flags").map(|flags| flags.split(',').map(str::to_owned).collect()).unwrap_or_default()
}

/// Where `master_name` is, and the configuration epoch of that knowledge. During a failover the address is already the
/// promoted replica's, while `SENTINEL MASTERS` lists the old one until the last replica follows.
pub async fn primary_address(connection: &Connection, master_name: &str) -> Result<Option<(Address, u64)>> {
    let (mut get_address, mut masters) = (cmd("SENTINEL"), cmd("SENTINEL"));
    get_address.arg("GET-MASTER-ADDR-BY-NAME").arg(master_name);
    masters.arg("MASTERS");
    let (address, masters): (Option<(String, u16)>, Vec<Fields>) =
        tokio::try_join!(connection.query(&get_address), connection.query(&masters))?;
    let fields = masters.iter().find(|fields| fields.get("name").is_some_and(|name| name == master_name));
    let epoch = fields.and_then(|fields| fields.get("config-epoch")?.parse().ok()).unwrap_or_default();
    Ok(address.map(|(address, _)| (Address(address), epoch)))
}

/// One replica as a Sentinel sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplicaView {
    pub address: Address,
    /// Whether the Sentinel might elect it: none of its flags says that it is gone, and its priority, as the Sentinel last
    /// saw it, is above 0 (Sentinel documentation, "Replica selection and priority").
    pub electable: bool,
    /// Whether only its closed connection keeps the Sentinel from electing it. Once that is open again the Sentinel goes by what it saw
    /// before.
    pub(crate) is_cut_off: bool,
    /// Time since the Sentinel's last `INFO` of it (`info-refresh`).
    pub(crate) info_age: Duration,
    /// How much of its primary's stream it had then (`slave-repl-offset`): of several, the Sentinel elects who has most.
    pub offset: Offset,
}

pub(crate) async fn replica_views(connection: &Connection, master_name: &str) -> Result<Vec<ReplicaView>> {
    let replicas: Vec<Fields> = connection.query(cmd("SENTINEL").arg("REPLICAS").arg(master_name)).await?;
    Ok(replicas.iter().filter_map(parse_replica).collect())
}

/// Replicas that this Sentinel might elect: see [`ReplicaView::electable`].
pub async fn electable_replicas(connection: &Connection, master_name: &str) -> Result<Vec<Address>> {
    let views = replica_views(connection, master_name).await?;
    Ok(views.into_iter().filter(|view| view.electable).map(|view| view.address).collect())
}

fn parse_replica(fields: &Fields) -> Option<ReplicaView> {
    let age = fields.get("info-refresh")?.parse().ok().map(Duration::from_millis)?;
    let offset = Offset(fields.get("slave-repl-offset")?.parse().ok()?);
    let is_fit = is_fit(fields);
    let is_connected = !flags(fields).contains("disconnected");
    Some(ReplicaView {
        address: address(fields)?,
        electable: is_fit && is_connected,
        is_cut_off: is_fit && !is_connected,
        info_age: age,
        offset,
    })
}

/// For how long a primary has been away, as a Sentinel saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DownTimes {
    /// Since the Sentinel took it for down (`s-down-time`); it does so after `down-after-milliseconds`.
    pub primary: Duration,
    /// Replica → since its link went down (`master-link-down-time`); zero where it has had none since its start.
    pub links: BTreeMap<Address, Duration>,
}

/// `None`: it does not take the primary for down, or watches none of that name.
pub(crate) async fn down_times(connection: &Connection, master_name: &str) -> Result<Option<DownTimes>> {
    let (mut masters, mut replicas) = (cmd("SENTINEL"), cmd("SENTINEL"));
    masters.arg("MASTERS");
    replicas.arg("REPLICAS").arg(master_name);
    let (masters, replicas): (Vec<Fields>, Vec<Fields>) =
        tokio::try_join!(connection.query(&masters), connection.query(&replicas))?;
    let fields = masters.iter().find(|fields| fields.get("name").is_some_and(|name| name == master_name));
    Ok(fields.and_then(|fields| parse_down_times(fields, &replicas)))
}

fn parse_down_times(master: &Fields, replicas: &[Fields]) -> Option<DownTimes> {
    // A link that never was up has a negative time.
    let time = |fields: &Fields, name: &str| {
        let milliseconds = fields.get(name)?.parse::<i64>().ok()?;
        Some(Duration::from_millis(milliseconds.try_into().unwrap_or(0)))
    };
    let link = |fields: &Fields| Some((address(fields)?, time(fields, "master-link-down-time")?));
    Some(DownTimes { primary: time(master, "s-down-time")?, links: replicas.iter().filter_map(link).collect() })
}

/// `SENTINEL DEBUG INFO-PERIOD` (Redis 7.0, Valkey): the time between two `INFO` to each data node while all is well, 10 s
/// unless set. It is not written to the Sentinel's file: a restart forgets it.
pub(crate) async fn set_info_period(connection: &Connection, period: Duration) -> Result<()> {
    set_period(connection, "INFO-PERIOD", period).await
}

/// By its priority, and unless it was away for the time of detection.
fn is_fit(fields: &Fields) -> bool {
    let flags = flags(fields);
    fields.get("slave-priority").is_some_and(|priority| priority != "0")
        && !["s_down", "o_down"].iter().any(|gone| flags.contains(*gone))
}

/// The period that [`set_info_period`] sets, as it is now.
pub(crate) async fn info_period(connection: &Connection) -> Result<Option<Duration>> {
    let settings: Fields = connection.query(cmd("SENTINEL").arg("DEBUG")).await?;
    Ok(settings.get("INFO-PERIOD").and_then(|value| value.parse().ok()).map(Duration::from_millis))
}

/// `SENTINEL DEBUG PING-PERIOD`: the time between two `PING` to each server, 1 s unless set. A restart forgets it too.
pub(crate) async fn set_ping_period(connection: &Connection, period: Duration) -> Result<()> {
    set_period(connection, "PING-PERIOD", period).await
}

/// `SENTINEL DEBUG ASK-PERIOD`: the time between two questions to each other Sentinel whether it, too, takes a primary for
/// dead, 1 s unless set. A restart forgets it too.
pub(crate) async fn set_ask_period(connection: &Connection, period: Duration) -> Result<()> {
    set_period(connection, "ASK-PERIOD", period).await
}

async fn set_period(connection: &Connection, name: &str, period: Duration) -> Result<()> {
    let milliseconds = u64::try_from(period.as_millis()).unwrap_or(u64::MAX).max(1);
    connection.query(cmd("SENTINEL").arg("DEBUG").arg(name).arg(milliseconds)).await
}

/// `SENTINEL FAILOVER`: without asking the other Sentinels.
pub async fn failover(connection: &Connection, master_name: &str) -> Result<()> {
    connection.query(cmd("SENTINEL").arg("FAILOVER").arg(master_name)).await
}

/// `SENTINEL MONITOR`: it watches the primary at this address. Refused where it watches one of this name.
pub async fn monitor(
    connection: &Connection,
    master_name: &str,
    address: &Address,
    port: u16,
    quorum: u16,
) -> Result<()> {
    connection.query(cmd("SENTINEL").arg("MONITOR").arg(master_name).arg(&address.0).arg(port).arg(quorum)).await
}

/// `SENTINEL SET` of one option.
pub async fn set(connection: &Connection, master_name: &str, option: &str, value: &str) -> Result<()> {
    connection.query(cmd("SENTINEL").arg("SET").arg(master_name).arg(option).arg(value)).await
}

/// Whether the Sentinel is in TILT: its clock jumped, and it acts on nothing it sees.
pub(crate) async fn is_in_tilt(connection: &Connection) -> Result<bool> {
    let text = connection.text(cmd("INFO").arg("sentinel")).await?;
    Ok(Info::parse(&text).field("sentinel_tilt") == Some("1"))
}

/// The event of a Sentinel that told a replica to be primary and waits until it is.
pub(crate) const WAIT_PROMOTION: &str = "+failover-state-wait-promotion";

/// A primary that moves: the name and the new primary's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrimaryMoved {
    /// Name of the primary in the Sentinels.
    pub master_name: String,
    /// Address of the new primary.
    pub address: Address,
}

/// `+switch-master` events of one Sentinel, until its connection ends.
pub async fn primary_moves(endpoint: &Endpoint) -> Result<impl Stream<Item = PrimaryMoved> + use<>> {
    let subscriber = open_subscriber(endpoint, "+switch-master").await?;
    Ok(subscriber.into_on_message().filter_map(async |message| {
        let payload: String = message.get_payload().ok()?;
        parse_switch(&payload)
    }))
}

/// Replicas that one Sentinel has just ordered to be primary (`+failover-state-wait-promotion`), until its connection ends.
pub(crate) async fn promotions(endpoint: &Endpoint) -> Result<impl Stream<Item = PrimaryMoved> + use<>> {
    let subscriber = open_subscriber(endpoint, WAIT_PROMOTION).await?;
    Ok(subscriber.into_on_message().filter_map(async |message| {
        let payload: String = message.get_payload().ok()?;
        parse_promotion(&payload)
    }))
}

/// `slave <name> <ip> <port> @ <master name> <master ip> <master port>` (Sentinel's documentation, "Pub/Sub messages").
fn parse_promotion(payload: &str) -> Option<PrimaryMoved> {
    let words: Vec<&str> = payload.split(' ').collect();
    match words.as_slice() {
        ["slave", _, address, _, "@", master_name, ..] => {
            Some(PrimaryMoved { master_name: (*master_name).to_owned(), address: Address((*address).to_owned()) })
        }
        _ => None,
    }
}

/// `<name> <old ip> <old port> <new ip> <new port>` (Sentinel's documentation, "Pub/Sub messages").
fn parse_switch(payload: &str) -> Option<PrimaryMoved> {
    let mut words = payload.split(' ');
    let master_name = words.next()?.to_owned();
    let address = Address(words.nth(2)?.to_owned());
    Some(PrimaryMoved { master_name, address })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_fields() -> impl Strategy<Value = Fields> {
        let names =
            prop::sample::select(vec!["name", "ip", "info-refresh", "runid", "flags", "config-epoch", "quorum"]);
        prop::collection::btree_map(names.prop_map(str::to_owned), "[0-9a-z.,:-]{0,12}|[0-9]{1,22}", 0..7)
    }

    #[test]
    fn a_switch_names_the_new_address() {
        let moved = PrimaryMoved { master_name: "web-1".into(), address: Address("10.0.0.2".into()) };
        assert_eq!(parse_switch("web-1 10.0.0.1 6379 10.0.0.2 6379"), Some(moved.clone()));
        assert_eq!(parse_promotion("slave 10.0.0.2:6379 10.0.0.2 6379 @ web-1 10.0.0.1 6379"), Some(moved));
        assert_eq!(parse_promotion("master web-1 10.0.0.1 6379"), None);
    }

    proptest! {
        #[test]
        fn no_record_makes_the_parser_fail(fields in any_fields(), others in prop::collection::vec(any_fields(), 0..3)) {
            let _ = parse_master(&fields, &others, &others);
            let _ = (parse_replica(&fields), parse_down_times(&fields, &others));
        }

        #[test]
        fn no_payload_makes_the_parser_fail(payload in ".{0,80}") {
            let _ = (parse_switch(&payload), parse_promotion(&payload));
        }
    }
}
