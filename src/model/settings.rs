//! The directives of `redis.conf` that follow from a specification, in the form in which `CONFIG GET` reports them.

use std::collections::BTreeMap;

use super::memory::MemoryPlan;
use super::purpose::PurposeDefaults;

/// Connections that are ours beside those of applications: replicas, Sentinels (two each), operator, agent, Prometheus.
const OWN_CONNECTIONS: u32 = 64;

/// What the directives depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettingInputs<'a> {
    /// Defaults of the purpose.
    pub defaults: PurposeDefaults,
    /// The memory plan.
    pub memory: MemoryPlan,
    /// `maxmemory-policy`.
    pub eviction_policy: &'a str,
    /// Append-only file.
    pub append_only: bool,
    /// Snapshots.
    pub snapshots: bool,
    /// `min-replicas-to-write`.
    pub min_replicas_to_write: u16,
    /// `min-replicas-max-lag`, seconds.
    pub max_replica_lag: u16,
    /// Connections of applications.
    pub max_connections: u32,
}

/// The directives of every data node.
pub fn settings(inputs: &SettingInputs<'_>) -> BTreeMap<String, String> {
    let yes_no = |on: bool| if on { "yes" } else { "no" }.to_owned();
    let mut settings = BTreeMap::new();
    let mut set = |name: &str, value: String| drop(settings.insert(name.to_owned(), value));
    set("maxmemory", inputs.memory.maxmemory.to_string());
    set("maxmemory-policy", inputs.eviction_policy.to_owned());
    set("maxmemory-clients", inputs.memory.client_buffers.to_string());
    set("maxclients", (inputs.max_connections + OWN_CONNECTIONS).to_string());
    set("appendonly", yes_no(inputs.append_only));
    set("appendfsync", "everysec".to_owned());
    set("aof-use-rdb-preamble", "yes".to_owned());
    set("save", if inputs.snapshots { "3600 1" } else { "" }.to_owned());
    // A server that is told to stop writes a snapshot first wherever `save` is set, however long that takes, and then reads the
    // append-only file at its next start (documentation, "Redis signals handling").
    set("shutdown-on-sigterm", if inputs.append_only { "nosave" } else { "default" }.to_owned());
    set("min-replicas-to-write", inputs.min_replicas_to_write.to_string());
    set("min-replicas-max-lag", inputs.max_replica_lag.to_string());
    set("repl-backlog-size", inputs.defaults.backlog.min(inputs.memory.maxmemory / 8).to_string());
    set("repl-diskless-sync", "yes".to_owned());
    set("repl-diskless-sync-delay", "0".to_owned());
    // Short: connections to a pod that is gone hang, they are not refused.
    set("repl-timeout", "10".to_owned());
    set("repl-ping-replica-period", "1".to_owned());
    set("tcp-keepalive", "30".to_owned());
    set("latency-monitor-threshold", inputs.defaults.latency_threshold.to_string());
    set("slowlog-log-slower-than", "10000".to_owned());
    for name in ["lazyeviction", "lazyexpire", "lazyserver-del", "lazyuser-del"] {
        set(&name.replace("lazy", "lazyfree-lazy-"), "yes".to_owned());
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Purpose, purpose};

    #[test]
    fn directives_have_the_names_that_redis_knows() {
        let memory = MemoryPlan::divide(256 << 20, 60, 5, true).expect("256 MiB are enough");
        let defaults = purpose::defaults(Purpose::Sessions);
        let settings = settings(&SettingInputs {
            defaults,
            memory,
            eviction_policy: defaults.eviction_policy,
            append_only: true,
            snapshots: true,
            min_replicas_to_write: 1,
            max_replica_lag: 3,
            max_connections: 1_000,
        });
        for name in
            ["lazyfree-lazy-eviction", "lazyfree-lazy-expire", "lazyfree-lazy-server-del", "lazyfree-lazy-user-del"]
        {
            assert_eq!(settings.get(name).map(String::as_str), Some("yes"));
        }
        assert_eq!(settings.get("maxclients").map(String::as_str), Some("1064"));
    }
}
