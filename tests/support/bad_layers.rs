//! Specifications that must be refused, each with words of the reason. Offline evaluation and the API server get the same.

use serde_json::{Value, json};

/// Name, specification, words of the reason.
pub fn bad_layers() -> Vec<(String, Value, &'static str)> {
    vec![
        ("web".to_owned(), json!({"mode": "Sentinel", "replicas": 0}), "mode Sentinel needs at least 1 replica"),
        ("web".to_owned(), json!({"mode": "Standalone", "replicas": 1}), "mode Standalone has no replicas"),
        ("web".to_owned(), json!({"mode": "Standalone", "failover": {}}), "mode Standalone has no failover"),
        ("web".to_owned(), json!({"mode": "Cluster"}), "mode Cluster is not implemented"),
        ("web".to_owned(), json!({"mode": "Sentinel", "shards": 2}), "shards belongs to mode Cluster"),
        ("web".to_owned(), json!({"mode": "Sentinel", "tls": {}}), "tls is not implemented"),
        ("web".to_owned(), json!({"mode": "Sentinel", "bootstrap": {}}), "bootstrap is not implemented"),
        (
            "web".to_owned(),
            json!({"mode": "Sentinel", "durability": {"minReplicasToWrite": 2}}),
            "must be below replicas",
        ),
        (
            "web".to_owned(),
            json!({"mode": "Sentinel", "replicas": 1, "durability": {"minReplicasToWrite": 1}}),
            "must be below replicas",
        ),
        (
            "web".to_owned(),
            json!({"mode": "Sentinel", "failover": {"quorum": 4}}),
            "must be a majority of the Sentinels",
        ),
        (
            "web".to_owned(),
            json!({"mode": "Sentinel", "failover": {"sentinels": 5, "quorum": 2}}),
            "must be a majority of the Sentinels",
        ),
        ("web".to_owned(), json!({"mode": "Sentinel", "failover": {"sentinels": 4}}), "must be 3, 5 or 7"),
        (
            "web".to_owned(),
            json!({"mode": "Sentinel", "memory": {"evictionPolicy": "allkeys-lru"}}),
            "34 of 20,000 sessions",
        ),
        ("web".to_owned(), json!({"mode": "Sentinel", "config": {"dir": "/tmp"}}), "Redoubt's own to set"),
        ("web".to_owned(), json!({"mode": "Sentinel", "config": {"maxmemory": "1"}}), "use the field instead"),
        (
            "web".to_owned(),
            json!({"mode": "Sentinel", "config": {"timeout": "0\nport 1"}}),
            "without quotes and line breaks",
        ),
        ("web".to_owned(), json!({"mode": "Sentinel", "config": {"timeout\nport": "1"}}), "directive's name"),
        (
            "web".to_owned(),
            json!({"mode": "Sentinel", "access": {"external": {}}}),
            "access.external is not implemented",
        ),
        (
            "web".to_owned(),
            json!({"mode": "Sentinel", "access": {"announce": "Hostname"}}),
            "Hostname is not implemented",
        ),
        ("web".to_owned(), json!({"mode": "Sentinel", "engine": {"image": "redis 7\n"}}), "not an image reference"),
        ("x".repeat(41), json!({"mode": "Sentinel"}), "at most 40 characters"),
        ("7eb".to_owned(), json!({"mode": "Sentinel"}), "must begin with a letter"),
    ]
}
