//! Whatever the bytes: parsers of the agent's inputs never fail, and what is written is read again as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use proptest::prelude::*;
use redoubt::agent::config::{Environment, read_node_config};
use redoubt::agent::lineage_file::{self, Fault};
use redoubt::agent::sentinel_conf::{self, SentinelState};
use redoubt::agent::{exporter, lineage_file as records};
use redoubt::model::lineage::{LARGEST_NUMBER, LINEAGE_FORMAT, Lineage};
use redoubt::model::node_config::{NODE_CONFIG_FORMAT, NodeConfig};
use redoubt::model::{Address, LayerIdentity, Mode, NodeId, Offset, ReplicationId, Role};
use redoubt::redis::Secret;
use redoubt::redis::info::Info;

fn environment() -> Environment {
    let path = |name: &str| PathBuf::from("/nowhere").join(name);
    Environment { data: path("data"), config: path("config"), secrets: path("secrets"), run: path("run"), bind: None }
}

fn config() -> NodeConfig {
    let addresses = |network: u16| (0..3).map(|node| (node, Address(format!("10.0.{network}.{node}")))).collect();
    let layer = LayerIdentity { uid: "0123-uid".to_owned(), namespace: "shop".to_owned(), name: "web".to_owned() };
    NodeConfig {
        format: NODE_CONFIG_FORMAT,
        master_name: layer.master_name(),
        layer,
        node: NodeId::sentinel(0),
        mode: Mode::Sentinel,
        initialised: true,
        keeps_data: true,
        accept_loss: None,
        drop_aside: BTreeSet::new(),
        caches: BTreeMap::new(),
        functions: BTreeSet::new(),
        data_nodes: addresses(1),
        sentinels: addresses(2),
        quorum: 2,
        detection_milliseconds: 5_000,
        failover_timeout_milliseconds: 15_000,
        grace_period_seconds: 60,
        cluster: None,
        settings: [("maxmemory".to_owned(), "1gb".to_owned())].into(),
    }
}

fn any_lineage() -> impl Strategy<Value = Lineage> {
    let numbers = (0..=LARGEST_NUMBER, 0..=LARGEST_NUMBER, 0..=LARGEST_NUMBER, 0..=LARGEST_NUMBER);
    let switches = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let words = (".{0,20}", "[0-9a-f]{0,40}", proptest::option::of("[0-9a-f]{40}"));
    (numbers, switches, words).prop_map(
        |((epoch, term, offset, keys), (primary, synced, link_up, clean_stop), words)| Lineage {
            format: LINEAGE_FORMAT,
            layer_uid: words.0,
            epoch,
            term,
            role: if primary { Role::Primary } else { Role::Replica },
            replication_id: ReplicationId(words.1),
            previous_replication_id: words.2.map(ReplicationId),
            previous_offset: primary.then_some(Offset(keys)),
            offset: Offset(offset),
            synced,
            link_up,
            keys,
            clean_stop,
            append_only: [None, Some(synced)][usize::from(link_up)],
            accepted: [None, Some(7)][usize::from(primary)],
            held: None,
        },
    )
}

fn any_memory() -> impl Strategy<Value = SentinelState> {
    let node = || 0..3_u8;
    let epoch = || 0..=LARGEST_NUMBER;
    (node(), epoch(), epoch(), epoch(), prop::collection::btree_set(node(), 0..3), any::<bool>()).prop_map(
        |(primary, current_epoch, config_epoch, leader_epoch, replicas, knows_sentinels)| {
            let data = |node: u8| Address(format!("10.0.1.{node}"));
            let known = |node: u8| (Address(format!("10.0.2.{node}")), format!("{node:040x}"));
            SentinelState {
                primary: Some(data(primary)),
                current_epoch,
                config_epoch,
                leader_epoch,
                replicas: replicas.into_iter().filter(|node| *node != primary).map(data).collect(),
                sentinels: if knows_sentinels { [known(1), known(2)].into() } else { BTreeSet::new() },
            }
        },
    )
}

/// Words of the formats, in any order, and bytes that are none.
fn near_text() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "sentinel",
        "monitor",
        "current-epoch",
        "known-replica",
        "known-sentinel",
        "web-0123",
        "10.0.1.1",
        "\"",
        "\n",
        "slave0:",
        "ip=",
        ",",
        "state=online",
        "db0:",
        "keys=",
        ":",
        "\r\n",
        "{",
        "}",
        "\"format\"",
        "1",
        "role:master",
    ]);
    prop::collection::vec(prop_oneof![words.prop_map(str::to_owned), ".{0,4}"], 0..40).prop_map(|words| words.join(" "))
}

fn render(remembered: &SentinelState) -> String {
    let own = Address("10.0.2.0".to_owned());
    let users = "user default reset off\n";
    sentinel_conf::render(&environment(), &config(), &own, remembered, &Secret::new("secret"), users)
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_fail(text in prop_oneof![near_text(), "(?s).{0,200}"]) {
        let info = Info::parse(&text);
        let _ = (info.replication(), info.keys(), info.replicas(), info.primary_link(), info.persistence_trouble());
        let _ = (info.role(), info.offset(), info.version(), info.previous_replication_id());
        prop_assert!(exporter::render(Some(&info), exporter::AgentMetrics::default()).is_ok());
        let _ = sentinel_conf::remember(&text, &config());
        let _ = sentinel_conf::damage(&text, &config().master_name);
        let _ = records::parse(&text);
        let _ = serde_json::from_str::<NodeConfig>(&text);
    }

    #[test]
    fn a_sentinel_remembers_what_was_rendered(remembered in any_memory()) {
        let text = render(&remembered);
        prop_assert_eq!(sentinel_conf::damage(&text, &config().master_name), None);
        prop_assert_eq!(sentinel_conf::remember(&text, &config()), remembered);
    }

    /// A file that was cut off is either called damaged or has lost none of the epochs and votes.
    #[test]
    fn half_a_sentinels_file_is_damaged_or_has_all_its_epochs(remembered in any_memory(), cut in any::<prop::sample::Index>()) {
        let text = render(&remembered);
        let length = 1 + cut.index(text.len() - 1);
        let half = &text[..length];
        if sentinel_conf::damage(half, &config().master_name).is_none() {
            let epochs = |of: &SentinelState| (of.current_epoch, of.config_epoch, of.leader_epoch);
            let found = sentinel_conf::remember(half, &config());
            let is_all = found.primary.is_some() && epochs(&found) == epochs(&remembered);
            let knows_nobody = found.primary.is_none() && found.current_epoch == remembered.current_epoch;
            prop_assert!(is_all || knows_nobody, "{half}");
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_half_of_one_never(lineage in any_lineage(), cut in any::<prop::sample::Index>()) {
        let text = lineage_file::render(&lineage).unwrap();
        prop_assert_eq!(records::parse(&text).unwrap(), lineage);
        let mut length = cut.index(text.len());
        while !text.is_char_boundary(length) {
            length -= 1;
        }
        prop_assert!(matches!(records::parse(&text[..length]), Err(Fault::Damaged(_))));
    }
}

#[test]
fn a_record_of_a_later_version_is_refused_by_its_format_and_not_called_damaged() {
    assert!(matches!(records::parse(r#"{"format": 7, "somethingElse": true}"#), Err(Fault::Newer(7))));
}

#[test]
fn a_node_config_survives_the_way_and_a_damaged_one_is_named() {
    let text = serde_json::to_string(&config()).unwrap();
    assert_eq!(serde_json::from_str::<NodeConfig>(&text).unwrap(), config());
    let folder = std::env::temp_dir().join(format!("redoubt-parsers-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let environment = Environment { config: folder.join("node-config"), ..environment() };
    std::fs::write(&environment.config, &text[..text.len() / 2]).unwrap();
    let error = read_node_config(&environment).unwrap_err().to_string();
    assert!(error.starts_with("cannot parse ") && error.ends_with("node-config"), "{error}");
    std::fs::remove_dir_all(&folder).unwrap();
}

/// What dashboards for redis_exporter ask for, of what one `INFO` holds.
const EXPORTERS_NAMES: [&str; 33] = [
    "redis_up",
    "redis_uptime_in_seconds",
    "redis_connected_clients",
    "redis_blocked_clients",
    "redis_memory_used_bytes",
    "redis_memory_used_rss_bytes",
    "redis_memory_max_bytes",
    "redis_mem_fragmentation_ratio",
    "redis_keyspace_hits_total",
    "redis_keyspace_misses_total",
    "redis_evicted_keys_total",
    "redis_expired_keys_total",
    "redis_commands_processed_total",
    "redis_connections_received_total",
    "redis_rejected_connections_total",
    "redis_net_input_bytes_total",
    "redis_net_output_bytes_total",
    "redis_db_keys",
    "redis_db_keys_expiring",
    "redis_db_avg_ttl_seconds",
    "redis_connected_slaves",
    "redis_connected_slave_offset_bytes",
    "redis_master_repl_offset",
    "redis_instance_info",
    "redis_aof_enabled",
    "redis_rdb_last_bgsave_status",
    "redis_aof_last_write_status",
    "redis_rdb_changes_since_last_save",
    "redis_latest_fork_seconds",
    "redis_cpu_user_seconds_total",
    "redis_start_time_seconds",
    "redis_commands_total",
    "redis_commands_duration_seconds_total",
];

/// Names that only a replica has, there with labels.
const REPLICAS_NAMES: [&str; 5] = [
    "redis_slave_info",
    "redis_slave_repl_offset",
    "redis_master_link_up",
    "redis_master_last_io_seconds_ago",
    "redis_master_sync_in_progress",
];

#[tokio::test]
async fn a_live_servers_metrics_have_the_names_of_redis_exporter() {
    use crate::support::engine_process::{Process, engines};
    for engine in engines() {
        let (first, second) =
            (Process::server(&engine, &["appendonly yes"]).await, Process::server(&engine, &[]).await);
        let connection = first.connect().await;
        let replica = second.connect().await;
        second.follow(&replica, &first).await;
        connection.query::<()>(redis::cmd("SET").arg("key").arg(1).arg("EX").arg(100)).await.unwrap();
        let info = redoubt::redis::server::info_with_commands(&connection).await.unwrap();
        let text = exporter::render(Some(&info), exporter::AgentMetrics { hit_ratio: Some(0.5), ..Default::default() })
            .unwrap();
        let has = |name: &str| text.lines().any(|line| line.split([' ', '{']).next() == Some(name));
        let missing: Vec<&str> = EXPORTERS_NAMES.into_iter().filter(|name| !has(name)).collect();
        assert!(missing.is_empty(), "{missing:?} of {}", engine.name);
        assert!(has("redoubt_keyspace_hit_ratio_5m"));
        for line in ["redis_db_keys{db=\"db0\"} 1", "redis_db_keys_expiring{db=\"db0\"} 1", "redis_aof_enabled 1"] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
        assert!(text.contains("redis_commands_total{cmd=\"set\"} 1\n"), "{text}");
        let info = redoubt::redis::server::info_with_commands(&replica).await.unwrap();
        let text = exporter::render(Some(&info), exporter::AgentMetrics::default()).unwrap();
        let labels = format!("{{master_host=\"{}\",master_port=\"6379\"", first.address);
        for name in REPLICAS_NAMES {
            assert!(text.contains(&format!("{name}{labels}")), "{name} of {}: {text}", engine.name);
        }
    }
}
