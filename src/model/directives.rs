//! The directives of `redis.conf`: which of them a user may put into `spec.config`, which of them a running server takes,
//! and how `CONFIG GET` spells their values.
//!
//! Source: `src/config.c` of Redis 7.0 to 8.0 and Valkey 7.2 to 8.0, and the answers of a real 7.0 (`tests/it/directives.rs`).
//! A directive that is not here is put into `redis.conf` as it is written, and rolls the nodes when it changes: no code here
//! can tell how a server spells its value, so it is not compared with a running one.
//!
//! Why a table, although a server says itself what it refuses: with it a wrong value is refused before any pod restarts, with the nearest
//! name; the memory plan reads `repl-backlog-size` and `proto-max-bulk-len` from it; and a change of what takes effect at a start rolls.

mod forms;

use forms::Form;
pub(crate) use forms::WrongValue;

/// What a user's directive is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectiveClass {
    /// A running server takes it.
    Live,
    /// It takes effect at the next start: a change rolls the nodes.
    StartOnly,
    /// Redoubt sets it itself; the text says what for.
    Ours(&'static str),
    /// A field of the specification sets it: this one.
    Field(&'static str),
    /// An old name of another directive: this one.
    Renamed(&'static str),
    /// Not in our tables: allowed, put into `redis.conf` as it is written.
    Unknown,
}

/// Directives that a running server may refuse for how it was built, and that end its start there: they are never written into
/// `redis.conf`, only set. Debian's Redis has an allocator that cannot defragment.
const OF_THE_BUILD: [&str; 1] = ["activedefrag"];

/// Whether a directive is set on running servers only.
pub(crate) fn is_set_live_only(name: &str) -> bool {
    OF_THE_BUILD.contains(&name)
}

/// A directive whose values are known.
struct Directive {
    name: &'static str,
    is_start_only: bool,
    form: Form,
}

const fn live(name: &'static str, form: Form) -> Directive {
    Directive { name, is_start_only: false, form }
}

const fn at_start(name: &'static str, form: Form) -> Directive {
    Directive { name, is_start_only: true, form }
}

/// The largest C `int`.
const INT: i64 = i32::MAX as i64;
/// The largest C `long long`.
const LONG: i64 = i64::MAX;
const MEBIBYTE: i64 = 1 << 20;

/// From zero.
const fn up_to(most: i64) -> Form {
    Form::Number { least: 0, most }
}

const fn from(least: i64, most: i64) -> Form {
    Form::Number { least, most }
}

const fn bytes(least: i64) -> Form {
    Form::Bytes { least }
}

/// Every directive whose values we can judge, ours included.
#[rustfmt::skip]
const DIRECTIVES: &[Directive] = &[
    live("acllog-max-len", up_to(LONG)),
    live("active-defrag-cycle-max", from(1, 99)),
    live("active-defrag-cycle-min", from(1, 99)),
    live("active-defrag-ignore-bytes", bytes(1)),
    live("active-defrag-max-scan-fields", from(1, LONG)),
    live("active-defrag-threshold-lower", up_to(1_000)),
    live("active-defrag-threshold-upper", up_to(1_000)),
    live("active-expire-effort", from(1, 10)),
    live("activedefrag", Form::YesNo),
    live("activerehashing", Form::YesNo),
    at_start("always-show-logo", Form::YesNo),
    live("aof-load-truncated", Form::YesNo),
    live("aof-rewrite-incremental-fsync", Form::YesNo),
    live("aof-timestamp-enabled", Form::YesNo),
    live("aof-use-rdb-preamble", Form::YesNo),
    live("appendfsync", Form::Word(&["everysec", "always", "no"])),
    live("appendonly", Form::YesNo),
    live("auto-aof-rewrite-min-size", bytes(0)),
    live("auto-aof-rewrite-percentage", up_to(INT)),
    live("busy-reply-threshold", up_to(LONG)),
    live("client-output-buffer-limit", Form::BufferLimits),
    live("client-query-buffer-limit", bytes(MEBIBYTE)),
    live("crash-log-enabled", Form::YesNo),
    live("crash-memcheck-enabled", Form::YesNo),
    at_start("databases", from(1, 10_000)),
    at_start("disable-thp", Form::YesNo),
    live("dynamic-hz", Form::YesNo),
    live("hash-max-listpack-entries", up_to(LONG)),
    live("hash-max-listpack-value", bytes(0)),
    live("hide-user-data-from-log", Form::YesNo),
    live("hll-sparse-max-bytes", bytes(0)),
    // The server takes any number and clamps it to this range, so that another would be set without end.
    live("hz", from(1, 500)),
    at_start("io-threads", from(1, 128)),
    at_start("io-threads-do-reads", Form::YesNo),
    live("jemalloc-bg-thread", Form::YesNo),
    live("latency-monitor-threshold", up_to(LONG)),
    live("latency-tracking", Form::YesNo),
    live("latency-tracking-info-percentiles", Form::Percentiles),
    live("lazyfree-lazy-eviction", Form::YesNo),
    live("lazyfree-lazy-expire", Form::YesNo),
    live("lazyfree-lazy-server-del", Form::YesNo),
    live("lazyfree-lazy-user-del", Form::YesNo),
    live("lazyfree-lazy-user-flush", Form::YesNo),
    live("lfu-decay-time", up_to(INT)),
    live("lfu-log-factor", up_to(INT)),
    live("list-compress-depth", up_to(INT)),
    live("list-max-listpack-size", from(-5, INT)),
    live("loglevel", Form::Word(&["debug", "verbose", "notice", "warning"])),
    // The server allocates for each; `maxConnections` and our own stay below this.
    live("maxclients", from(1, 200_000)),
    live("maxmemory", bytes(0)),
    live("maxmemory-clients", bytes(0)),
    live("maxmemory-eviction-tenacity", up_to(100)),
    live("maxmemory-policy", Form::Word(&[
        "noeviction", "allkeys-lru", "allkeys-lfu", "allkeys-random",
        "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl",
    ])),
    live("maxmemory-samples", from(1, 64)),
    live("min-replicas-max-lag", up_to(INT)),
    live("min-replicas-to-write", up_to(INT)),
    live("no-appendfsync-on-rewrite", Form::YesNo),
    live("notify-keyspace-events", Form::Events),
    live("propagation-error-behavior", Form::Word(&["ignore", "panic", "panic-on-replicas"])),
    live("proto-max-bulk-len", bytes(MEBIBYTE)),
    live("rdb-del-sync-files", Form::YesNo),
    live("rdb-save-incremental-fsync", Form::YesNo),
    at_start("rdbchecksum", Form::YesNo),
    live("rdbcompression", Form::YesNo),
    // Clamped to at least 16 KiB by the server.
    live("repl-backlog-size", bytes(16 << 10)),
    live("repl-backlog-ttl", up_to(LONG)),
    live("repl-disable-tcp-nodelay", Form::YesNo),
    live("repl-diskless-load", Form::Word(&["disabled", "on-empty-db", "swapdb"])),
    live("repl-diskless-sync", Form::YesNo),
    live("repl-diskless-sync-delay", up_to(INT)),
    live("repl-diskless-sync-max-replicas", up_to(INT)),
    live("repl-ping-replica-period", from(1, INT)),
    live("repl-timeout", from(1, INT)),
    live("replica-ignore-disk-write-errors", Form::YesNo),
    live("replica-lazy-flush", Form::YesNo),
    live("replica-serve-stale-data", Form::YesNo),
    live("sanitize-dump-payload", Form::Word(&["no", "yes", "clients"])),
    live("save", Form::SavePoints),
    live("set-max-intset-entries", up_to(LONG)),
    live("set-max-listpack-entries", up_to(LONG)),
    live("set-max-listpack-value", up_to(LONG)),
    at_start("set-proc-title", Form::YesNo),
    live("shutdown-on-sigterm", Form::Word(&["default", "nosave", "save"])),
    live("slowlog-log-slower-than", from(-1, LONG)),
    live("slowlog-max-len", up_to(LONG)),
    live("stop-writes-on-bgsave-error", Form::YesNo),
    live("stream-node-max-bytes", bytes(0)),
    live("stream-node-max-entries", up_to(LONG)),
    at_start("tcp-backlog", from(1, INT)),
    live("tcp-keepalive", up_to(INT)),
    live("timeout", up_to(INT)),
    live("tracking-table-max-keys", up_to(LONG)),
    live("zset-max-listpack-entries", up_to(LONG)),
    live("zset-max-listpack-value", bytes(0)),
];

/// Directives that Redoubt sets itself, each with what for.
#[rustfmt::skip]
const OURS: &[(&str, &str)] = &[
    ("acl-pubsub-default", "the rights of users"),
    ("aclfile", "the rights of users"),
    ("aof-disable-auto-gc", "the files of the data"),
    ("appenddirname", "the files of the data"),
    ("appendfilename", "the files of the data"),
    ("bind", "the address of the node"),
    ("bind-source-addr", "the address of the node"),
    ("daemonize", "the process of the server"),
    ("dbfilename", "the files of the data"),
    ("dir", "the files of the data"),
    ("ignore-warnings", "the process of the server"),
    ("include", "the one source of the configuration"),
    ("key-load-delay", "a server without faults built in"),
    ("loadmodule", "what may run in the server: it loads no modules"),
    ("logfile", "the log of the pod"),
    ("masterauth", "the passwords, which are in binding Secrets"),
    ("masteruser", "the passwords, which are in binding Secrets"),
    ("maxmemory-clients", "the memory budget"),
    ("oom-score-adj", "the process of the server"),
    ("oom-score-adj-values", "the process of the server"),
    ("pidfile", "the process of the server"),
    ("port", "the address of the node"),
    ("primaryauth", "the passwords, which are in binding Secrets"),
    ("primaryuser", "the passwords, which are in binding Secrets"),
    ("proc-title-template", "the process of the server"),
    ("protected-mode", "the rights of users"),
    ("rdb-key-save-delay", "a server without faults built in"),
    ("rename-command", "the commands that it needs itself"),
    ("replica-announce-ip", "the address of the node"),
    ("replica-announce-port", "the address of the node"),
    ("replica-announced", "the address of the node"),
    ("replica-ignore-maxmemory", "replicas that hold what their primary holds"),
    ("replica-priority", "who may become primary"),
    ("replica-read-only", "replicas that hold what their primary holds"),
    ("replicaof", "who follows whom"),
    ("requirepass", "the passwords, which are in binding Secrets"),
    ("shutdown-on-sigint", "a stop without loss"),
    ("shutdown-on-sigterm", "a stop without loss"),
    ("shutdown-timeout", "a stop without loss"),
    ("slaveof", "who follows whom"),
    ("socket-mark-id", "the process of the server"),
    ("supervised", "the process of the server"),
    ("unixsocket", "the address of the node"),
    ("unixsocketgroup", "the address of the node"),
    ("unixsocketperm", "the address of the node"),
    ("user", "the rights of users"),
    ("watchdog-period", "a server without faults built in"),
];

/// Beginnings of names that are ours as a whole.
const OUR_PREFIXES: &[(&str, &str)] = &[
    ("cluster-", "mode Cluster, which is not implemented"),
    ("enable-", "what a client may do to the server"),
    ("syslog-", "the log of the pod"),
    ("tls-", "encryption, which is not implemented"),
];
/// Ends of names that are ours as a whole.
const OUR_SUFFIXES: &[(&str, &str)] = &[("-cpulist", "the processors of the pod")];

/// Directives that a field sets, each with that field.
const FIELDS: &[(&str, &str)] = &[
    ("appendonly", "persistence.appendOnly"),
    ("maxclients", "maxConnections"),
    ("maxmemory", "memory.limit and memory.maxmemoryPercent"),
    ("maxmemory-policy", "memory.evictionPolicy"),
    ("min-replicas-max-lag", "durability.maxReplicaLag"),
    ("min-replicas-to-write", "durability.minReplicasToWrite"),
    ("save", "persistence.snapshots"),
];

/// Old names. Refused, because the same thing under two names is set twice.
const RENAMED: &[(&str, &str)] = &[
    ("hash-max-ziplist-entries", "hash-max-listpack-entries"),
    ("hash-max-ziplist-value", "hash-max-listpack-value"),
    ("list-max-ziplist-size", "list-max-listpack-size"),
    ("lua-time-limit", "busy-reply-threshold"),
    ("min-slaves-max-lag", "min-replicas-max-lag"),
    ("min-slaves-to-write", "min-replicas-to-write"),
    ("repl-ping-slave-period", "repl-ping-replica-period"),
    ("slave-announce-ip", "replica-announce-ip"),
    ("slave-announce-port", "replica-announce-port"),
    ("slave-ignore-maxmemory", "replica-ignore-maxmemory"),
    ("slave-lazy-flush", "replica-lazy-flush"),
    ("slave-priority", "replica-priority"),
    ("slave-read-only", "replica-read-only"),
    ("slave-serve-stale-data", "replica-serve-stale-data"),
    ("zset-max-ziplist-entries", "zset-max-listpack-entries"),
    ("zset-max-ziplist-value", "zset-max-listpack-value"),
];

/// What a user's directive is to us.
pub fn class(name: &str) -> DirectiveClass {
    let listed = |table: &[(&str, &'static str)]| table.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
    let prefix = OUR_PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix));
    let affix = prefix.or_else(|| OUR_SUFFIXES.iter().find(|(suffix, _)| name.ends_with(suffix)));
    if let Some(what_for) = listed(OURS).or(affix.map(|(_, what_for)| *what_for)) {
        DirectiveClass::Ours(what_for)
    } else if let Some(field) = listed(FIELDS) {
        DirectiveClass::Field(field)
    } else if let Some(new_name) = listed(RENAMED) {
        DirectiveClass::Renamed(new_name)
    } else {
        match known(name) {
            Some(known) if known.is_start_only => DirectiveClass::StartOnly,
            Some(_) => DirectiveClass::Live,
            None => DirectiveClass::Unknown,
        }
    }
}

/// Whether a directive takes effect only when the server starts: those that servers refuse to change, and those that we do
/// not know.
pub fn is_start_only(name: &str) -> bool {
    known(name).is_none_or(|known| known.is_start_only)
}

/// Whether the value that `CONFIG GET` will report is known, so that it can be compared.
pub(crate) fn is_known(name: &str) -> bool {
    known(name).is_some()
}

/// The value as `CONFIG GET` reports it after it was set. That of an unknown directive is left as it is written.
pub fn canonical(name: &str, value: &str) -> Result<String, WrongValue> {
    known(name).map_or_else(|| Ok(value.to_owned()), |known| known.form.canonical(value))
}

/// Whether the value is several words in `redis.conf`; that of any other directive is one word, whatever it holds.
pub(crate) fn takes_words(name: &str) -> bool {
    known(name).is_some_and(|known| known.form.takes_words())
}

/// Names of all directives whose values we can judge.
pub fn known_names() -> impl Iterator<Item = &'static str> {
    DIRECTIVES.iter().map(|known| known.name)
}

/// The directive whose name is most like this one, that of one that users may set; `None`: none is like it. Likeness is the number of
/// letters to insert, remove or change: at most two, and fewer than half of the letters.
pub(crate) fn nearest(name: &str) -> Option<&'static str> {
    let allowed =
        known_names().filter(|known| matches!(class(known), DirectiveClass::Live | DirectiveClass::StartOnly));
    let (distance, found) = allowed.map(|known| (distance(name, known), known)).min()?;
    (distance <= 2 && 2 * distance < name.len()).then_some(found)
}

/// Letters to insert, remove or change.
fn distance(one: &str, other: &str) -> usize {
    let mut above: Vec<usize> = (0..=other.len()).collect();
    for (row, letter) in one.bytes().enumerate() {
        let mut left = row + 1;
        let mut diagonal = std::mem::replace(&mut above[0], left);
        for (column, against) in other.bytes().enumerate() {
            let changed = diagonal + usize::from(letter != against);
            left = changed.min(left + 1).min(above[column + 1] + 1);
            diagonal = std::mem::replace(&mut above[column + 1], left);
        }
    }
    above.last().copied().unwrap_or_default()
}

/// Names of the directives that Redoubt sets itself.
pub fn our_names() -> impl Iterator<Item = &'static str> {
    OURS.iter().map(|(name, _)| *name)
}

/// Beginnings and ends of names that are ours as a whole.
pub fn our_affixes() -> (impl Iterator<Item = &'static str>, impl Iterator<Item = &'static str>) {
    (OUR_PREFIXES.iter().map(|(prefix, _)| *prefix), OUR_SUFFIXES.iter().map(|(suffix, _)| *suffix))
}

/// Directives that a field sets, each with that field.
pub fn field_names() -> impl Iterator<Item = (&'static str, &'static str)> {
    FIELDS.iter().copied()
}

/// Old names, each with the new one.
pub fn renamed_names() -> impl Iterator<Item = (&'static str, &'static str)> {
    RENAMED.iter().copied()
}

fn known(name: &str) -> Option<&'static Directive> {
    DIRECTIVES.iter().find(|known| known.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_directive_is_listed_twice() {
        let mut names: Vec<&str> = DIRECTIVES.iter().map(|known| known.name).collect();
        assert!(names.is_sorted(), "the table is in order, so that a second entry shows");
        names.dedup();
        assert_eq!(names.len(), DIRECTIVES.len());
        let mut refused: Vec<&str> = [OURS, FIELDS, RENAMED].into_iter().flatten().map(|(name, _)| *name).collect();
        let count = refused.len();
        refused.sort_unstable();
        refused.dedup();
        assert_eq!(refused.len(), count);
    }

    #[test]
    fn what_we_do_not_know_takes_effect_at_a_start_and_is_not_compared() {
        assert_eq!(class("search-timeout"), DirectiveClass::Unknown);
        assert!(is_start_only("search-timeout") && !is_known("search-timeout"));
        assert_eq!(canonical("search-timeout", "10ms").as_deref(), Ok("10ms"));
    }

    #[test]
    fn a_misspelt_directive_is_like_one_that_a_user_may_set() {
        assert_eq!(nearest("hzz"), Some("hz"));
        assert_eq!(nearest("timout"), Some("timeout"));
        assert_eq!(nearest("tcp-keep-alive"), Some("tcp-keepalive"));
        assert_eq!(nearest("maxmemory-sample"), Some("maxmemory-samples"));
        for other in ["search-timeout", "ab", "maxmemor"] {
            assert_eq!(nearest(other), None, "{other}");
        }
    }

    #[test]
    fn every_directive_of_a_table_has_its_class() {
        assert_eq!(class("timeout"), DirectiveClass::Live);
        assert_eq!(class("io-threads"), DirectiveClass::StartOnly);
        assert_eq!(class("dir"), DirectiveClass::Ours("the files of the data"));
        assert_eq!(class("tls-port"), DirectiveClass::Ours("encryption, which is not implemented"));
        assert_eq!(class("bio-cpulist"), DirectiveClass::Ours("the processors of the pod"));
        assert_eq!(class("save"), DirectiveClass::Field("persistence.snapshots"));
        assert_eq!(class("lua-time-limit"), DirectiveClass::Renamed("busy-reply-threshold"));
    }
}
