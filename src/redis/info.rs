//! `INFO` as text to facts. Total: whatever the bytes, it answers what it understood.

use std::collections::BTreeMap;

use crate::model::observed::Replication;
use crate::model::{Address, Offset, ReplicationId, Role};

/// The fields of one `INFO` answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    fields: BTreeMap<String, String>,
}

/// One `slaveN:` line of a primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnlineReplica {
    /// Address that it announces.
    pub address: Address,
    /// `state` is `online`: its first sync with this primary is done.
    pub online: bool,
    /// Offset that it acknowledged last (at most a second ago).
    pub offset: Offset,
    /// Port that it announces, as text.
    pub port: String,
    /// Seconds since it acknowledged.
    pub lag_seconds: u64,
}

/// One `dbN:` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// As `INFO` has it: `db0`.
    pub name: String,
    /// Keys of the database, those with an expiry included.
    pub keys: u64,
    /// Keys with a time to live.
    pub expiring: u64,
    /// Mean time to live of those.
    pub mean_lifetime_milliseconds: u64,
}

/// One `cmdstat_NAME:` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandStatistics {
    /// `get`, `config|set`.
    pub name: String,
    /// How often it was carried out.
    pub calls: u64,
    /// Time that it took, all calls together.
    pub microseconds: u64,
    /// How often it was refused before it began.
    pub rejected: u64,
    /// How often it failed.
    pub failed: u64,
}

/// A replica's view of its link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrimaryLink {
    /// Whom it follows.
    pub primary: Address,
    /// `master_link_status:up`.
    pub up: bool,
    /// `master_sync_in_progress:1`.
    pub syncing: bool,
    /// `slave_priority`: 0 is never promoted.
    pub priority: u32,
    /// Seconds without a link; since the process began where it never had one. `None`: it is up, or nothing is said.
    pub down_seconds: Option<u64>,
}

/// What a server says of its snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Snapshots {
    /// When the last one ended that succeeded, seconds since 1970.
    pub last: u64,
    /// Whether one is being made.
    pub(crate) is_running: bool,
    pub succeeded: bool,
}

/// State of the append-only file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOnly {
    /// There is none, or it is not written.
    Off,
    /// It is being rewritten, or that failed: whether the one before holds all data, only the past can tell.
    Rewriting,
    /// It holds all data.
    Whole,
}

impl Info {
    /// Reads the text of `INFO`.
    pub fn parse(text: &str) -> Self {
        let fields = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim_end().to_owned()))
            .collect();
        Self { fields }
    }

    /// Bytes of the append-only files (`aof_current_size`). `None`: it writes none.
    pub(crate) fn appended(&self) -> Option<u64> {
        self.field("aof_current_size")?.parse().ok()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    /// A field as a whole number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.field(name)?.parse().ok()
    }

    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// A field as a decimal number (`mem_fragmentation_ratio:1.5`); not-a-number and infinities count as absent.
    pub(crate) fn decimal(&self, name: &str) -> Option<f64> {
        self.field(name)?.parse().ok().filter(|number: &f64| number.is_finite())
    }

    /// Whether the dataset is still being read, from the own files or from the primary (`async_loading`).
    pub(crate) fn is_loading(&self) -> bool {
        self.field("loading") == Some("1") || self.field("async_loading") == Some("1")
    }

    /// `run_id`: changes with each start of the process.
    pub fn run_id(&self) -> Option<&str> {
        self.field("run_id").filter(|run_id| !run_id.is_empty())
    }

    /// `redis 7.0.15` or `valkey 8.1.1`. Valkey says `redis_version:7.2.4` besides, for old clients: not its version.
    pub fn version(&self) -> Option<String> {
        match self.field("valkey_version") {
            Some(version) => Some(format!("{} {version}", self.field("server_name").unwrap_or("valkey"))),
            None => self.field("redis_version").map(|version| format!("redis {version}")),
        }
    }

    /// Role and what belongs to it, in the model's words. `None`: not the answer of a data node.
    pub fn replication(&self) -> Option<Replication> {
        Some(match (self.role()?, self.primary_link()) {
            (Role::Primary, _) => {
                let online = self.replicas().into_iter().filter(|replica| replica.online);
                Replication::Primary { replicas: online.map(|replica| (replica.address, replica.offset)).collect() }
            }
            (Role::Replica, link) => {
                let PrimaryLink { primary, up, syncing, priority, down_seconds } = link?;
                Replication::Replica { primary, link_up: up, syncing, priority, link_down_seconds: down_seconds }
            }
        })
    }

    /// What keeps the server from writing its data down: `aof` and `rdb` (each makes it refuse writes with `MISCONF`), or
    /// `aof-rewrite` (the file grows until a rewrite succeeds).
    pub fn persistence_trouble(&self) -> Option<&'static str> {
        const STATUSES: [(&str, &str); 3] = [
            ("aof_last_write_status", "aof"),
            ("rdb_last_bgsave_status", "rdb"),
            ("aof_last_bgrewrite_status", "aof-rewrite"),
        ];
        STATUSES.into_iter().find(|(status, _)| self.field(status) == Some("err")).map(|(_, trouble)| trouble)
    }

    /// Whether there is an append-only file, and whether it holds all data: not while it is rewritten, which after a full sync,
    /// and where it was switched on just now, is the first time.
    pub fn append_only(&self) -> AppendOnly {
        let is = |name: &str, value: &str| self.field(name) == Some(value);
        if !is("aof_enabled", "1") {
            return AppendOnly::Off;
        }
        let is_rewritten = is("aof_rewrite_in_progress", "1") || is("aof_rewrite_scheduled", "1");
        if is_rewritten || is("aof_last_bgrewrite_status", "err") { AppendOnly::Rewriting } else { AppendOnly::Whole }
    }

    /// The snapshots, as far as the server says; a time that it does not say is 0.
    pub(crate) fn snapshots(&self) -> Snapshots {
        Snapshots {
            last: self.field("rdb_last_save_time").and_then(|value| value.parse().ok()).unwrap_or(0),
            is_running: self.field("rdb_bgsave_in_progress") == Some("1"),
            succeeded: self.field("rdb_last_bgsave_status") == Some("ok"),
        }
    }

    /// Whether the append-only file lacks what was written last, because a write to it failed: the server keeps that in memory, and tries again.
    pub(crate) fn append_only_is_behind(&self) -> bool {
        self.field("aof_enabled") == Some("1") && self.field("aof_last_write_status") == Some("err")
    }

    /// Bytes of the append-only files, those included that are still to be written: of the same moment as [`Info::offset`]. `None`: there is
    /// no append-only file.
    pub(crate) fn append_only_bytes(&self) -> Option<u64> {
        let number = |name: &str| self.field(name)?.parse::<u64>().ok();
        number("aof_current_size")?.checked_add(number("aof_buffer_length")?)
    }

    /// What changes whenever append-only files are begun or replaced: the rewrites since the server's start, and whether one runs.
    pub(crate) fn rewrites(&self) -> (Option<u64>, bool) {
        let count = self.field("aof_rewrites").and_then(|value| value.parse().ok());
        (count, self.field("aof_rewrite_in_progress") == Some("1"))
    }

    /// Writes that were refused because the server is a replica (`errorstat_READONLY`), since its start.
    pub(crate) fn refused_writes(&self) -> u64 {
        let count = |line| part(line, "count").and_then(|value| value.parse().ok());
        self.field("errorstat_READONLY").and_then(count).unwrap_or(0)
    }

    /// Error replies by their first word (`errorstat_…`), since the server's start. Scripts make up words, so their number is anybody's.
    pub(crate) fn errors(&self) -> impl Iterator<Item = (&str, u64)> {
        let errors = self.fields().filter_map(|(field, value)| Some((field.strip_prefix("errorstat_")?, value)));
        errors.filter_map(|(word, value)| Some((word, part(value, "count")?.parse().ok()?)))
    }

    /// `role`.
    pub fn role(&self) -> Option<Role> {
        match self.field("role")? {
            "master" => Some(Role::Primary),
            "slave" => Some(Role::Replica),
            _ => None,
        }
    }

    /// `master_replid`.
    pub(crate) fn replication_id(&self) -> ReplicationId {
        ReplicationId(self.field("master_replid").unwrap_or_default().to_owned())
    }

    /// `master_replid2`, unless it is unset (all zeros).
    pub fn previous_replication_id(&self) -> Option<ReplicationId> {
        let id = self.field("master_replid2")?;
        id.bytes().any(|byte| byte != b'0').then(|| ReplicationId(id.to_owned()))
    }

    /// Whether its data is that of this history, or what became of it: no full sync of another replaced it.
    pub(crate) fn continues(&self, before: &ReplicationId) -> bool {
        self.replication_id() == *before || self.previous_replication_id().as_ref() == Some(before)
    }

    /// How much of the history before belongs to the own data (`second_repl_offset` names the byte after it); `None`: there is none.
    pub(crate) fn previous_offset(&self) -> Option<Offset> {
        self.previous_replication_id()?;
        let after: u64 = self.number("second_repl_offset")?;
        Some(Offset(after.saturating_sub(1)))
    }

    /// How far the own data is: `master_repl_offset` of a primary, `slave_repl_offset` of a replica.
    pub fn offset(&self) -> Offset {
        let name = if self.role() == Some(Role::Replica) { "slave_repl_offset" } else { "master_repl_offset" };
        Offset(self.number(name).unwrap_or_default())
    }

    /// How much of its primary's stream a replica has read, executed or not (`slave_read_repl_offset`); of a primary, and where the
    /// server does not tell, as [`Self::offset`]. <https://redis.io/docs/latest/commands/info/>
    pub(crate) fn read_offset(&self) -> Offset {
        let read = self.number("slave_read_repl_offset").filter(|_| self.role() == Some(Role::Replica));
        read.map_or_else(|| self.offset(), Offset)
    }

    /// The replicas that a primary lists.
    pub fn replicas(&self) -> Vec<OnlineReplica> {
        let lines = self.fields.iter().filter(|(name, _)| is_numbered(name, "slave"));
        lines.filter_map(|(_, line)| parse_replica(line)).collect()
    }

    /// A replica's link to its primary; `None` on a primary.
    pub fn primary_link(&self) -> Option<PrimaryLink> {
        let up = self.field("master_link_status") == Some("up");
        let never_up = self.field("master_link_down_since_seconds").is_some_and(|seconds| seconds.starts_with('-'));
        let down_since = if never_up { "uptime_in_seconds" } else { "master_link_down_since_seconds" };
        Some(PrimaryLink {
            primary: Address(self.field("master_host")?.to_owned()),
            up,
            down_seconds: self.number(down_since).filter(|_| !up),
            syncing: self.field("master_sync_in_progress") == Some("1"),
            priority: self.number("slave_priority").and_then(|value| value.try_into().ok()).unwrap_or(0),
        })
    }

    /// The databases that hold keys.
    pub fn databases(&self) -> impl Iterator<Item = Database> {
        let lines = self.fields.iter().filter(|(name, _)| is_numbered(name, "db"));
        lines.map(|(name, line)| {
            let value = |name| part(line, name).and_then(|value| value.parse().ok()).unwrap_or(0_u64);
            Database {
                name: name.clone(),
                keys: value("keys"),
                expiring: value("expires"),
                mean_lifetime_milliseconds: value("avg_ttl"),
            }
        })
    }

    /// What was carried out, by command (`INFO commandstats`).
    pub fn commands(&self) -> impl Iterator<Item = CommandStatistics> {
        self.fields.iter().filter_map(|(field, line)| {
            let name = field.strip_prefix("cmdstat_")?.to_owned();
            let value = |name| part(line, name).and_then(|value| value.parse().ok()).unwrap_or(0_u64);
            Some(CommandStatistics {
                name,
                calls: value("calls"),
                microseconds: value("usec"),
                rejected: value("rejected_calls"),
                failed: value("failed_calls"),
            })
        })
    }

    /// Keys of all databases, and how many of them expire.
    pub fn keys(&self) -> (u64, u64) {
        self.databases().fold((0, 0), |(keys, expiring), database| {
            (keys.saturating_add(database.keys), expiring.saturating_add(database.expiring))
        })
    }
}

fn is_numbered(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

fn part<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split(',').filter_map(|part| part.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn parse_replica(line: &str) -> Option<OnlineReplica> {
    Some(OnlineReplica {
        address: Address(part(line, "ip")?.to_owned()),
        online: part(line, "state") == Some("online"),
        offset: Offset(part(line, "offset")?.parse().ok()?),
        port: part(line, "port").unwrap_or_default().to_owned(),
        lag_seconds: part(line, "lag").and_then(|lag| lag.parse().ok()).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_primary_lists_its_replicas() {
        let info = Info::parse(
            "# Replication\r\nrole:master\r\nconnected_slaves:1\r\n\
             slave0:ip=10.0.0.2,port=6379,state=online,offset=42,lag=0\r\nmaster_replid:ab\r\n\
             master_replid2:0000\r\nmaster_repl_offset:43\r\n# Keyspace\r\ndb0:keys=5,expires=3,avg_ttl=0\r\n",
        );
        assert_eq!(info.role(), Some(Role::Primary));
        assert_eq!(info.offset(), Offset(43));
        assert_eq!((info.previous_replication_id(), info.previous_offset()), (None, None));
        assert_eq!(info.keys(), (5, 3));
        let (address, port) = (Address("10.0.0.2".into()), "6379".to_owned());
        let replica = OnlineReplica { address, online: true, offset: Offset(42), port, lag_seconds: 0 };
        assert_eq!(info.replicas(), vec![replica]);
        assert_eq!(info.primary_link(), None);
    }

    #[test]
    fn only_online_replicas_count_and_valkey_says_its_own_version() {
        let info = Info::parse(
            "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\nrole:master\r\n\
             slave10:ip=10.0.0.3,port=6379,state=wait_bgsave,offset=0,lag=0\r\n\
             slave0:ip=fd00::2,port=6379,state=online,offset=42,lag=0\r\n",
        );
        assert_eq!(info.version().as_deref(), Some("valkey 8.1.1"));
        let replicas = BTreeMap::from([(Address("fd00::2".into()), Offset(42))]);
        assert_eq!(info.replication(), Some(Replication::Primary { replicas }));
    }

    #[test]
    fn a_replica_without_a_known_priority_is_never_promoted() {
        let info =
            Info::parse("role:slave\r\nmaster_host:10.0.0.1\r\nmaster_link_status:up\r\nslave_repl_offset:7\r\n");
        assert_eq!(info.read_offset(), Offset(7), "nothing else is told");
        let primary = Address("10.0.0.1".into());
        let replica =
            Replication::Replica { primary, link_up: true, syncing: false, priority: 0, link_down_seconds: None };
        assert_eq!((info.replication(), info.offset()), (Some(replica), Offset(7)));
    }

    #[test]
    fn a_link_that_never_was_is_down_since_the_process_began() {
        let seconds = |status: &str, since: &str| {
            let text = format!(
                "role:slave\r\nmaster_host:10.0.0.1\r\nmaster_link_status:{status}\r\nuptime_in_seconds:90\r\n{since}"
            );
            Info::parse(&text).primary_link().and_then(|link| link.down_seconds)
        };
        assert_eq!(seconds("down", "master_link_down_since_seconds:40\r\n"), Some(40));
        assert_eq!(seconds("down", "master_link_down_since_seconds:-1\r\n"), Some(90));
        assert_eq!(seconds("down", ""), None);
        assert_eq!(seconds("up", ""), None);
    }

    #[test]
    fn the_cause_of_refused_writes_is_named() {
        assert_eq!(Info::parse("rdb_last_bgsave_status:ok\naof_last_write_status:ok").persistence_trouble(), None);
        assert_eq!(Info::parse("rdb_last_bgsave_status:err").persistence_trouble(), Some("rdb"));
        assert_eq!(
            Info::parse("aof_last_write_status:err\nrdb_last_bgsave_status:err").persistence_trouble(),
            Some("aof")
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_fail(text in "(?s).{0,400}") {
            let info = Info::parse(&text);
            let _ = (info.role(), info.offset(), info.replicas(), info.keys(), info.primary_link());
            let _ = (info.replication(), info.version(), info.run_id(), info.is_loading(), info.persistence_trouble());
        }

        #[test]
        fn no_field_value_makes_the_parser_fail(value in ".{0,80}") {
            let info = Info::parse(&format!("role:slave\r\nmaster_host:{value}\r\nslave0:{value}\r\ndb0:{value}\r\n"));
            let _ = (info.replicas(), info.keys(), info.primary_link());
        }
    }
}
