//! The directives of `redis.conf` that follow from a specification, in the form in which `CONFIG GET` reports them.

use std::collections::BTreeMap;

use super::directives;
use super::memory::{MemoryPlan, OWN_CONNECTIONS};
use super::purpose::PurposeDefaults;

/// `client-output-buffer-limit`: the directive that is made of ours and the user's own.
pub(crate) const OUTPUT_LIMITS: &str = "client-output-buffer-limit";
/// The least limit of replicas' buffers, bytes: that of a layer which has no replicas yet.
const LEAST_REPLICA_LIMIT: u64 = 4 << 20;

/// What the directives depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettingInputs<'a> {
    /// Defaults of the purpose.
    pub defaults: PurposeDefaults,
    /// Division of the memory limit, bytes.
    pub memory: MemoryPlan,
    /// `maxmemory-policy`.
    pub eviction_policy: &'a str,
    /// `appendonly`.
    pub append_only: bool,
    /// Whether `save` has points of its own; otherwise it is empty.
    pub snapshots: bool,
    /// `min-replicas-to-write`; 0: writes need no replica.
    pub min_replicas_to_write: u16,
    /// `min-replicas-max-lag`, seconds.
    pub max_replica_lag: u16,
}

/// The directives of every data node.
pub fn settings(inputs: &SettingInputs<'_>) -> BTreeMap<String, String> {
    let yes_no = |on: bool| if on { "yes" } else { "no" }.to_owned();
    let mut settings = BTreeMap::new();
    let mut set = |name: &str, value: String| drop(settings.insert(name.to_owned(), value));
    set("maxmemory", inputs.memory.maxmemory.to_string());
    set("maxmemory-policy", inputs.eviction_policy.to_owned());
    set("maxmemory-clients", inputs.memory.of_clients().to_string());
    set("maxclients", (inputs.memory.max_connections + OWN_CONNECTIONS).to_string());
    set("proto-max-bulk-len", inputs.memory.largest_value.to_string());
    set(OUTPUT_LIMITS, output_limits(&inputs.memory));
    set("appendonly", yes_no(inputs.append_only));
    set("appendfsync", "everysec".to_owned());
    set("aof-use-rdb-preamble", "yes".to_owned());
    set("save", if inputs.snapshots { "3600 1" } else { "" }.to_owned());
    // A server that is told to stop writes a snapshot first wherever `save` is set, however long that takes, and then reads the
    // append-only file at its next start (documentation, "Redis signals handling").
    set("shutdown-on-sigterm", if inputs.append_only { "nosave" } else { "default" }.to_owned());
    set("min-replicas-to-write", inputs.min_replicas_to_write.to_string());
    set("min-replicas-max-lag", inputs.max_replica_lag.to_string());
    set("repl-backlog-size", inputs.defaults.backlog.min(replica_limit(&inputs.memory)).to_string());
    set("repl-diskless-sync", "yes".to_owned());
    set("repl-diskless-sync-delay", "0".to_owned());
    // Short: connections to a pod that is gone hang, they are not refused.
    set("repl-timeout", "10".to_owned());
    set("repl-ping-replica-period", "1".to_owned());
    set("tcp-keepalive", "30".to_owned());
    set("latency-monitor-threshold", inputs.defaults.latency_threshold.to_string());
    if let Some(bytes) = inputs.defaults.largest_packed_value {
        set("hash-max-listpack-value", bytes.to_string());
    }
    set("slowlog-log-slower-than", "10000".to_owned());
    // An entry has the refused command's key as it was sent, up to the largest value, in memory that no limit counts.
    set("acllog-max-len", "0".to_owned());
    // The names of keys that clients track stay when their connection ends, and no limit counts how long they are. A client that tracks by
    // prefix (`BCAST`) needs none of them.
    set("tracking-table-max-keys", "1".to_owned());
    for name in ["lazyeviction", "lazyexpire", "lazyserver-del", "lazyuser-del"] {
        set(&name.replace("lazy", "lazyfree-lazy-"), "yes".to_owned());
    }
    settings
}

/// A replica that has not taken more than this is cut, bytes: it resumes from the backlog, or is filled again. A server goes by the
/// backlog's size where that is larger, so the backlog is never larger.
fn replica_limit(memory: &MemoryPlan) -> u64 {
    memory.replica_buffers.max(LEAST_REPLICA_LIMIT)
}

/// The limits of what a server keeps for a client that does not take it, as `CONFIG GET` reports them. One reply is held to what all
/// clients may take together while it grows, which `maxmemory-clients` compares only after the command.
fn output_limits(memory: &MemoryPlan) -> String {
    let listeners = memory.client_buffers.min(32 << 20);
    format!(
        "normal {} 0 0 slave {} 0 0 pubsub {listeners} {} 60",
        memory.of_clients(),
        replica_limit(memory),
        listeners.min(16 << 20) / 2
    )
}

/// `ours` with the classes that the user's own value names. An error, in words, for replicas: they are a term of the memory budget.
pub(crate) fn with_output_limits(ours: &str, theirs: &str) -> Result<String, String> {
    let canonical = directives::canonical(OUTPUT_LIMITS, theirs).map_err(|error| error.to_string())?;
    let named: Vec<String> = theirs.split_ascii_whitespace().step_by(4).map(str::to_ascii_lowercase).collect();
    if named.iter().any(|class| class == "replica" || class == "slave") {
        return Err("Redoubt sets the limit of replicas itself, for the memory budget".to_owned());
    }
    let (ours, theirs): (Vec<&str>, Vec<&str>) = (ours.split(' ').collect(), canonical.split(' ').collect());
    let groups = ours.chunks(4).zip(theirs.chunks(4));
    let chosen = groups.flat_map(|(our, their)| if named.iter().any(|class| class == our[0]) { their } else { our });
    Ok(chosen.copied().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Purpose, purpose};

    #[test]
    fn directives_have_the_names_that_redis_knows() {
        let defaults = purpose::defaults(Purpose::Sessions);
        let memory = MemoryPlan::divide(&defaults.demand(256 << 20)).expect("256 MiB are enough");
        let settings = settings(&SettingInputs {
            defaults,
            memory,
            eviction_policy: defaults.eviction_policy,
            append_only: true,
            snapshots: true,
            min_replicas_to_write: 1,
            max_replica_lag: 3,
        });
        for name in
            ["lazyfree-lazy-eviction", "lazyfree-lazy-expire", "lazyfree-lazy-server-del", "lazyfree-lazy-user-del"]
        {
            assert_eq!(settings.get(name).map(String::as_str), Some("yes"));
        }
        assert_eq!(settings.get("maxclients").map(String::as_str), Some("1064"));
    }

    #[test]
    fn a_limit_of_listeners_is_the_users_and_that_of_replicas_is_not() {
        let ours = "normal 50 0 0 slave 9 0 0 pubsub 8 4 60";
        assert_eq!(
            with_output_limits(ours, "PubSub 1mb 0 10").as_deref(),
            Ok("normal 50 0 0 slave 9 0 0 pubsub 1048576 0 10")
        );
        let refused = "Redoubt sets the limit of replicas itself, for the memory budget".to_owned();
        assert_eq!(with_output_limits(ours, "normal 0 0 0 Replica 1gb 0 0"), Err(refused));
    }
}
