//! `INFO` as Prometheus text, under the names of `redis_exporter`, so that existing dashboards work.
//!
//! The crate `prometheus` writes and escapes the format. Its objects are made for each scrape, because labels come and go with what the
//! server says; what that costs is measured next to `redis_exporter` (docs/promises.md, "A scrape").

use prometheus::{Counter, CounterVec, Encoder as _, Gauge, GaugeVec, Opts, Registry, TextEncoder};

use super::audit;
use super::numbers::float;
use crate::model::audit::AuditReport;
use crate::redis::info::Info;

/// Fields of `INFO` that are exported as they are: field → metric and its help.
const FIELDS: [(&str, &str, &str); 69] = [
    ("uptime_in_seconds", "redis_uptime_in_seconds", "Seconds since the server started"),
    ("process_id", "redis_process_id", "Process id of the server"),
    ("io_threads_active", "redis_io_threads_active", "Whether threads do input and output"),
    ("connected_clients", "redis_connected_clients", "Client connections"),
    ("blocked_clients", "redis_blocked_clients", "Clients that wait in a blocking command"),
    ("tracking_clients", "redis_tracking_clients", "Clients with client-side caching"),
    ("clients_in_timeout_table", "redis_clients_in_timeout_table", "Blocked clients with a timeout"),
    ("cluster_connections", "redis_cluster_connections", "Sockets of the cluster bus"),
    ("maxclients", "redis_max_clients", "Most client connections"),
    ("maxclients", "redis_config_maxclients", "Most client connections"),
    ("client_recent_max_input_buffer", "redis_client_recent_max_input_buffer_bytes", "Largest input buffer"),
    ("client_recent_max_output_buffer", "redis_client_recent_max_output_buffer_bytes", "Largest output buffer"),
    ("used_memory", "redis_memory_used_bytes", "Bytes allocated"),
    ("used_memory_rss", "redis_memory_used_rss_bytes", "Bytes resident"),
    ("used_memory_peak", "redis_memory_used_peak_bytes", "Most bytes ever allocated"),
    ("used_memory_startup", "redis_memory_used_startup_bytes", "Bytes allocated after the start"),
    ("used_memory_dataset", "redis_memory_used_dataset_bytes", "Bytes of the dataset"),
    ("used_memory_overhead", "redis_memory_used_overhead_bytes", "Bytes that are not the dataset"),
    ("used_memory_lua", "redis_memory_used_lua_bytes", "Bytes of the Lua engine"),
    ("used_memory_scripts", "redis_memory_used_scripts_bytes", "Bytes of cached scripts"),
    ("maxmemory", "redis_memory_max_bytes", "maxmemory; 0 is unbounded"),
    ("mem_fragmentation_ratio", "redis_mem_fragmentation_ratio", "Resident bytes by allocated bytes"),
    ("mem_fragmentation_bytes", "redis_mem_fragmentation_bytes", "Resident bytes less allocated bytes"),
    ("mem_clients_normal", "redis_mem_clients_normal", "Bytes of the buffers of clients"),
    ("mem_clients_slaves", "redis_mem_clients_slaves", "Bytes of the buffers of replicas"),
    ("mem_not_counted_for_evict", "redis_mem_not_counted_for_eviction_bytes", "Bytes that evict nothing"),
    ("lazyfree_pending_objects", "redis_lazyfree_pending_objects", "Objects that wait to be freed"),
    ("active_defrag_running", "redis_active_defrag_running", "Share of CPU that defragmentation takes, percent"),
    ("loading", "redis_loading_dump_file", "Whether the dataset is being read"),
    ("rdb_changes_since_last_save", "redis_rdb_changes_since_last_save", "Writes since the last snapshot"),
    ("rdb_bgsave_in_progress", "redis_rdb_bgsave_in_progress", "Whether a snapshot is being made"),
    ("rdb_last_save_time", "redis_rdb_last_save_timestamp_seconds", "When the last snapshot was made"),
    ("rdb_last_bgsave_time_sec", "redis_rdb_last_bgsave_duration_sec", "Seconds of the last snapshot"),
    ("rdb_last_cow_size", "redis_rdb_last_cow_size_bytes", "Bytes that the last snapshot copied"),
    ("aof_enabled", "redis_aof_enabled", "Whether the append-only file is on"),
    ("aof_rewrite_in_progress", "redis_aof_rewrite_in_progress", "Whether the append-only file is being rewritten"),
    ("aof_rewrite_scheduled", "redis_aof_rewrite_scheduled", "Whether a rewrite waits for a snapshot"),
    ("aof_last_rewrite_time_sec", "redis_aof_last_rewrite_duration_sec", "Seconds of the last rewrite"),
    ("aof_last_cow_size", "redis_aof_last_cow_size_bytes", "Bytes that the last rewrite copied"),
    ("aof_current_size", "redis_aof_current_size_bytes", "Bytes of the append-only file"),
    ("aof_base_size", "redis_aof_base_size_bytes", "Bytes of it after the last rewrite"),
    ("total_connections_received", "redis_connections_received_total", "Connections accepted"),
    ("total_commands_processed", "redis_commands_processed_total", "Commands done"),
    ("instantaneous_ops_per_sec", "redis_instantaneous_ops_per_sec", "Commands in the last second"),
    ("total_net_input_bytes", "redis_net_input_bytes_total", "Bytes received"),
    ("total_net_output_bytes", "redis_net_output_bytes_total", "Bytes sent"),
    ("rejected_connections", "redis_rejected_connections_total", "Connections refused for want of room"),
    ("sync_full", "redis_replica_resyncs_full", "Full syncs given to replicas"),
    ("sync_partial_ok", "redis_replica_partial_resync_accepted", "Partial syncs given"),
    ("sync_partial_err", "redis_replica_partial_resync_denied", "Partial syncs refused"),
    ("expired_keys", "redis_expired_keys_total", "Keys that expired"),
    ("expired_stale_perc", "redis_expired_stale_percentage", "Share of keys that are likely expired, percent"),
    ("evicted_keys", "redis_evicted_keys_total", "Keys evicted for want of memory"),
    ("keyspace_hits", "redis_keyspace_hits_total", "Reads that found their key"),
    ("keyspace_misses", "redis_keyspace_misses_total", "Reads that did not"),
    ("pubsub_channels", "redis_pubsub_channels", "Channels with subscribers"),
    ("pubsub_patterns", "redis_pubsub_patterns", "Patterns with subscribers"),
    ("total_error_replies", "redis_total_error_replies", "Error replies"),
    ("acl_access_denied_auth", "redis_acl_access_denied_auth_total", "Logins that were refused"),
    ("acl_access_denied_cmd", "redis_acl_access_denied_cmd_total", "Commands that their user may not send"),
    ("acl_access_denied_key", "redis_acl_access_denied_key_total", "Commands with a key that is not their user's"),
    (
        "acl_access_denied_channel",
        "redis_acl_access_denied_channel_total",
        "Commands with a channel that is not their user's",
    ),
    ("connected_slaves", "redis_connected_slaves", "Replicas connected"),
    ("master_repl_offset", "redis_master_repl_offset", "Bytes of the replication stream"),
    ("second_repl_offset", "redis_second_repl_offset", "Offset up to which the previous history is served"),
    ("repl_backlog_size", "redis_replication_backlog_bytes", "Size of the backlog"),
    ("repl_backlog_histlen", "redis_repl_backlog_history_bytes", "Bytes in the backlog"),
    ("latest_fork_usec", "redis_latest_fork_usec", "Microseconds of the last fork"),
    ("slave_priority", "redis_slave_priority", "replica-priority; 0 is never elected"),
];

/// Fields that are counted in microseconds by `INFO` and in seconds by the exporter.
const MICROSECONDS: [(&str, &str, &str); 1] =
    [("latest_fork_usec", "redis_latest_fork_seconds", "Seconds of the last fork")];

/// Fields that are counted in seconds under names with labels or units of their own.
const SECONDS: [(&str, &str, &str); 4] = [
    ("used_cpu_sys", "redis_cpu_sys_seconds_total", "Seconds of system CPU"),
    ("used_cpu_user", "redis_cpu_user_seconds_total", "Seconds of user CPU"),
    ("used_cpu_sys_children", "redis_cpu_sys_children_seconds_total", "Seconds of system CPU of children"),
    ("used_cpu_user_children", "redis_cpu_user_children_seconds_total", "Seconds of user CPU of children"),
];

/// Fields that say `ok` or not, or `up` or not: 1 or 0.
const STATUSES: [(&str, &str, &str); 3] = [
    ("rdb_last_bgsave_status", "redis_rdb_last_bgsave_status", "Whether the last snapshot succeeded"),
    ("aof_last_bgrewrite_status", "redis_aof_last_bgrewrite_status", "Whether the last rewrite succeeded"),
    (
        "aof_last_write_status",
        "redis_aof_last_write_status",
        "Whether the last write to the append-only file succeeded",
    ),
];

/// Fields of a replica, which the exporter labels with the primary that it follows.
const LINK: [(&str, &str, &str); 4] = [
    ("master_link_status", "redis_master_link_up", "Whether the replica's link is up"),
    ("master_last_io_seconds_ago", "redis_master_last_io_seconds_ago", "Seconds since the primary was last heard"),
    ("master_sync_in_progress", "redis_master_sync_in_progress", "Whether the replica is being filled"),
    ("slave_repl_offset", "redis_slave_repl_offset", "Bytes of the stream that the replica processed"),
];

/// Labels of `redis_instance_info`, which are fields of `INFO`.
const INSTANCE: [&str; 9] = [
    "role",
    "redis_version",
    "redis_build_id",
    "redis_mode",
    "os",
    "maxmemory_policy",
    "tcp_port",
    "run_id",
    "process_id",
];

/// First words of error replies that are counted apart: the servers' own, and those of the operator's functions. The others are counted
/// together, because a script can make up any.
const ERRORS: [&str; 25] = [
    "BADARG",
    "BUSY",
    "CONFLICT",
    "ERR",
    "EXISTS",
    "LIMIT",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOAUTH",
    "NOLIMIT",
    "NOPERM",
    "NOPOLICY",
    "NOREPLICAS",
    "NOSCRIPT",
    "NOSESSION",
    "OOM",
    "READONLY",
    "TOOBIG",
    "TOOLARGE",
    "UNKILLABLE",
    "WRONGPASS",
    "WRONGTYPE",
    "EXECABORT",
    "NOPROTO",
];
/// The label of those.
const OTHER_ERRORS: &str = "other";

/// What the agent knows besides `INFO`.
#[derive(Clone, Copy, Debug, Default)]
pub struct AgentMetrics<'a> {
    /// Reads that found their key, by all reads of the last minutes.
    pub hit_ratio: Option<f64>,
    /// What the last pass over all keys found.
    pub audit: Option<&'a AuditReport>,
    /// Keys that the agent gave an expiry.
    pub repaired: u64,
    /// Keys that it removed because their use took more memory than it may.
    pub shrunk: u64,
}

/// Renders the metrics; `None`: the server does not answer.
pub fn render(info: Option<&Info>, known: AgentMetrics<'_>) -> Result<String, prometheus::Error> {
    let registry = Registry::new();
    single(&registry, "redis_up", "Whether the server answers", f64::from(u8::from(info.is_some())))?;
    if let Some(info) = info {
        for (field, name, help) in FIELDS.into_iter().chain(SECONDS) {
            if let Some(value) = info.decimal(field) {
                single(&registry, name, help, value)?;
            }
        }
        for (field, name, help) in MICROSECONDS {
            if let Some(value) = info.decimal(field) {
                single(&registry, name, help, value / 1_000_000.0)?;
            }
        }
        for (field, name, help) in STATUSES {
            if let Some(value) = info.field(field) {
                single(&registry, name, help, f64::from(u8::from(matches!(value, "ok" | "up"))))?;
            }
        }
        if let (Some(now), Some(uptime)) = (info.number("server_time_usec"), info.number("uptime_in_seconds")) {
            let started = float((now / 1_000_000).saturating_sub(uptime));
            single(&registry, "redis_start_time_seconds", "When the server started", started)?;
        }
        labelled(&registry, info)?;
        link(&registry, info)?;
        commands(&registry, info)?;
        errors(&registry, info)?;
        audit::metrics::register(&registry, known.audit, known.repaired, known.shrunk)?;
        if let Some(ratio) = known.hit_ratio {
            single(
                &registry,
                "redoubt_keyspace_hit_ratio_5m",
                "Reads that found their key, by all reads, over the last five minutes",
                ratio,
            )?;
        }
    }
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// By the convention of names a `_total` is a counter.
fn single(registry: &Registry, name: &str, help: &str, value: f64) -> Result<(), prometheus::Error> {
    if name.ends_with("_total") {
        let counter = Counter::new(name, help)?;
        counter.inc_by(value.max(0.0));
        return registry.register(Box::new(counter));
    }
    let gauge = Gauge::new(name, help)?;
    gauge.set(value);
    registry.register(Box::new(gauge))
}

fn labelled(registry: &Registry, info: &Info) -> Result<(), prometheus::Error> {
    let instance = GaugeVec::new(Opts::new("redis_instance_info", "What the server is"), &INSTANCE)?;
    instance.with_label_values(&INSTANCE.map(|field| info.field(field).unwrap_or_default())).set(1.0);
    registry.register(Box::new(instance))?;
    let keyspace = [("redis_db_keys", "Keys"), ("redis_db_keys_expiring", "Keys with a time to live")];
    let [keys, expiring] = keyspace.map(|(name, help)| GaugeVec::new(Opts::new(name, help), &["db"]));
    let (keys, expiring) = (keys?, expiring?);
    let lifetime = GaugeVec::new(Opts::new("redis_db_avg_ttl_seconds", "Mean time to live"), &["db"])?;
    for database in info.databases() {
        let label = [database.name.as_str()];
        keys.with_label_values(&label).set(float(database.keys));
        expiring.with_label_values(&label).set(float(database.expiring));
        lifetime.with_label_values(&label).set(float(database.mean_lifetime_milliseconds) / 1_000.0);
    }
    for gauge in [keys, expiring, lifetime] {
        registry.register(Box::new(gauge))?;
    }
    let names = ["slave_ip", "slave_port", "slave_state"];
    let offsets = GaugeVec::new(Opts::new("redis_connected_slave_offset_bytes", "Acknowledged bytes"), &names)?;
    let lags = GaugeVec::new(Opts::new("redis_connected_slave_lag_seconds", "Since it acknowledged"), &names)?;
    for replica in info.replicas() {
        let state = if replica.online { "online" } else { "syncing" };
        let label = [replica.address.0.as_str(), replica.port.as_str(), state];
        offsets.with_label_values(&label).set(float(replica.offset.0));
        lags.with_label_values(&label).set(float(replica.lag_seconds));
    }
    registry.register(Box::new(offsets))?;
    registry.register(Box::new(lags))
}

/// A replica's link; a primary has none.
fn link(registry: &Registry, info: &Info) -> Result<(), prometheus::Error> {
    let (Some(host), Some(port)) = (info.field("master_host"), info.field("master_port")) else { return Ok(()) };
    for (field, name, help) in LINK {
        let value = match info.field(field) {
            Some("up") => 1.0,
            Some("down") => 0.0,
            _ => match info.decimal(field) {
                Some(number) => number,
                None => continue,
            },
        };
        let gauge = GaugeVec::new(Opts::new(name, help), &["master_host", "master_port"])?;
        gauge.with_label_values(&[host, port]).set(value);
        registry.register(Box::new(gauge))?;
    }
    let names = ["master_host", "master_port", "read_only"];
    let replica = GaugeVec::new(Opts::new("redis_slave_info", "Whom the replica follows"), &names)?;
    replica.with_label_values(&[host, port, info.field("slave_read_only").unwrap_or_default()]).set(1.0);
    registry.register(Box::new(replica))
}

/// What was carried out, by command. Their number is the engine's, some hundreds.
fn commands(registry: &Registry, info: &Info) -> Result<(), prometheus::Error> {
    let counter = |name: &str, help: &str| CounterVec::new(Opts::new(name, help), &["cmd"]);
    let calls = counter("redis_commands_total", "Calls, by command")?;
    let seconds = counter("redis_commands_duration_seconds_total", "Seconds of all calls, by command")?;
    let rejected = counter("redis_commands_rejected_calls_total", "Calls that were refused, by command")?;
    let failed = counter("redis_commands_failed_calls_total", "Calls that failed, by command")?;
    for command in info.commands() {
        let label = [command.name.as_str()];
        calls.with_label_values(&label).inc_by(float(command.calls));
        seconds.with_label_values(&label).inc_by(float(command.microseconds) / 1_000_000.0);
        rejected.with_label_values(&label).inc_by(float(command.rejected));
        failed.with_label_values(&label).inc_by(float(command.failed));
    }
    for counter in [calls, seconds, rejected, failed] {
        registry.register(Box::new(counter))?;
    }
    Ok(())
}

/// Error replies, by their first word.
fn errors(registry: &Registry, info: &Info) -> Result<(), prometheus::Error> {
    let counter = CounterVec::new(Opts::new("redis_errors_total", "Error replies, by their first word"), &["err"])?;
    for (word, count) in info.errors() {
        let label = ERRORS.iter().find(|known| **known == word).copied().unwrap_or(OTHER_ERRORS);
        counter.with_label_values(&[label]).inc_by(float(count));
    }
    registry.register(Box::new(counter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_server_is_down_and_nothing_else() {
        let text = render(None, AgentMetrics::default()).unwrap_or_default();
        assert_eq!(text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>(), ["redis_up 0"]);
    }

    #[test]
    fn errors_are_reported_by_a_bounded_number_of_words() {
        let made_up: Vec<String> = (0..1_000).map(|number| format!("errorstat_MADE{number}:count=2\n")).collect();
        let made_up = made_up.concat();
        let info = Info::parse(&format!(
            "errorstat_OOM:count=3\nerrorstat_NOPOLICY:count=1\n{made_up}acl_access_denied_key:4\n"
        ));
        let text = render(Some(&info), AgentMetrics::default()).unwrap_or_default();
        let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("redis_errors_total")).collect();
        let of = |word: &str, count: u64| format!("redis_errors_total{{err=\"{word}\"}} {count}");
        assert_eq!(errors, [of("NOPOLICY", 1), of("OOM", 3), of("other", 2_000)]);
        assert!(text.contains("redis_acl_access_denied_key_total 4"), "{text}");
    }

    #[test]
    fn metrics_have_the_exporters_names() {
        let info = Info::parse("role:master\nused_memory:5\nmem_fragmentation_ratio:1.25\nkeyspace_hits:7\n");
        let text = render(Some(&info), AgentMetrics::default()).unwrap_or_default();
        for line in [
            "redis_up 1",
            "redis_memory_used_bytes 5",
            "redis_mem_fragmentation_ratio 1.25",
            "redis_keyspace_hits_total 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
    }
}
