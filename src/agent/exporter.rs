//! `INFO` as Prometheus text, under the names of `redis_exporter`, so that existing dashboards work.

use prometheus::{Encoder as _, Gauge, GaugeVec, Opts, Registry, TextEncoder};

use crate::redis::info::Info;

/// Fields of `INFO` that are exported as they are: field → metric and its help.
const FIELDS: [(&str, &str, &str); 27] = [
    ("uptime_in_seconds", "redis_uptime_in_seconds", "Seconds since the server started"),
    ("connected_clients", "redis_connected_clients", "Client connections"),
    ("blocked_clients", "redis_blocked_clients", "Clients that wait in a blocking command"),
    ("maxclients", "redis_config_maxclients", "Most client connections"),
    ("used_memory", "redis_memory_used_bytes", "Bytes allocated"),
    ("used_memory_rss", "redis_memory_used_rss_bytes", "Bytes resident"),
    ("used_memory_peak", "redis_memory_used_peak_bytes", "Most bytes ever allocated"),
    ("used_memory_dataset", "redis_memory_used_dataset_bytes", "Bytes of the dataset"),
    ("maxmemory", "redis_memory_max_bytes", "maxmemory; 0 is unbounded"),
    ("mem_fragmentation_ratio", "redis_mem_fragmentation_ratio", "Resident bytes by allocated bytes"),
    ("mem_fragmentation_bytes", "redis_mem_fragmentation_bytes", "Resident bytes less allocated bytes"),
    ("loading", "redis_loading_dump_file", "Whether the dataset is being read"),
    ("rdb_changes_since_last_save", "redis_rdb_changes_since_last_save", "Writes since the last snapshot"),
    ("rdb_last_save_time", "redis_rdb_last_save_timestamp_seconds", "When the last snapshot was made"),
    ("aof_enabled", "redis_aof_enabled", "Whether the append-only file is on"),
    ("total_connections_received", "redis_connections_received_total", "Connections accepted"),
    ("total_commands_processed", "redis_commands_processed_total", "Commands done"),
    ("rejected_connections", "redis_rejected_connections_total", "Connections refused for want of room"),
    ("expired_keys", "redis_expired_keys_total", "Keys that expired"),
    ("evicted_keys", "redis_evicted_keys_total", "Keys evicted for want of memory"),
    ("keyspace_hits", "redis_keyspace_hits_total", "Reads that found their key"),
    ("keyspace_misses", "redis_keyspace_misses_total", "Reads that did not"),
    ("connected_slaves", "redis_connected_slaves", "Replicas connected"),
    ("master_repl_offset", "redis_master_repl_offset", "Bytes of the replication stream"),
    ("repl_backlog_size", "redis_replication_backlog_bytes", "Size of the backlog"),
    ("total_net_input_bytes", "redis_net_input_bytes_total", "Bytes received"),
    ("total_net_output_bytes", "redis_net_output_bytes_total", "Bytes sent"),
];

/// Renders the metrics; `None`: the server does not answer.
pub fn render(info: Option<&Info>) -> Result<String, prometheus::Error> {
    let registry = Registry::new();
    gauge(&registry, "redis_up", "Whether the server answers", f64::from(u8::from(info.is_some())))?;
    if let Some(info) = info {
        for (field, name, help) in FIELDS {
            if let Some(value) = info.field(field).and_then(|value| value.parse().ok()) {
                gauge(&registry, name, help, value)?;
            }
        }
        labelled(&registry, info)?;
    }
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn gauge(registry: &Registry, name: &str, help: &str, value: f64) -> Result<(), prometheus::Error> {
    let gauge = Gauge::new(name, help)?;
    gauge.set(value);
    registry.register(Box::new(gauge))
}

fn labelled(registry: &Registry, info: &Info) -> Result<(), prometheus::Error> {
    let instance = GaugeVec::new(
        Opts::new("redis_instance_info", "What the server is"),
        &["role", "redis_version", "redis_mode", "os"],
    )?;
    let values = ["role", "redis_version", "redis_mode", "os"].map(|field| info.field(field).unwrap_or_default());
    instance.with_label_values(&values).set(1.0);
    registry.register(Box::new(instance))?;
    let (keys, expiring) = info.keys();
    let number = |value: u64| value.to_string().parse::<f64>().unwrap_or_default();
    for (name, help, value) in [
        ("redis_db_keys", "Keys", number(keys)),
        ("redis_db_keys_expiring", "Keys with a time to live", number(expiring)),
    ] {
        let gauge = GaugeVec::new(Opts::new(name, help), &["db"])?;
        gauge.with_label_values(&["all"]).set(value);
        registry.register(Box::new(gauge))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_server_is_down_and_nothing_else() {
        let text = render(None).unwrap_or_default();
        assert_eq!(text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>(), ["redis_up 0"]);
    }

    #[test]
    fn metrics_have_the_exporters_names() {
        let info = Info::parse("role:master\nused_memory:5\nmem_fragmentation_ratio:1.25\nkeyspace_hits:7\n");
        let text = render(Some(&info)).unwrap_or_default();
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
