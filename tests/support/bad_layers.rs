//! Specifications that must be refused, each with words of the reason. Offline evaluation and the API server get the same.

use serde_json::{Value, json};

/// Name, specification, words of the reason.
pub fn bad_layers() -> Vec<(String, Value, &'static str)> {
    let of_fields = [
        (json!({"mode": "Sentinel", "shards": 3}), "shards belongs to mode Cluster"),
        (json!({"mode": "Cluster", "failover": {"sentinels": 3}}), "belong to mode Sentinel"),
        (json!({"shards": 2}), "shards belongs to mode Cluster"),
        (json!({"tls": {}}), "tls is not implemented"),
        (json!({"tls": {"enabled": true}}), "tls is not implemented"),
        (json!({"bootstrap": {"from": "backup"}}), "bootstrap is not implemented"),
        (json!({"access": {"external": {"type": "NodePort"}}}), "access.external is not implemented"),
        (json!({"access": {"namespaces": {"from": "Selector", "selector": {}}}}), "would let every namespace in"),
        (json!({"bootstrap": {}}), "bootstrap is not implemented"),
        (json!({"access": {"external": {}}}), "access.external is not implemented"),
        (json!({"access": {"announce": "Hostname"}}), "Hostname is not implemented"),
        (json!({"access": {"namespaces": {"from": "Selector"}}}), "which needs it"),
        (json!({"replicas": 0}), "mode Sentinel needs at least 1 replica"),
        (json!({"mode": "Standalone", "replicas": 1}), "mode Standalone has no replicas"),
        (json!({"mode": "Standalone", "failover": {}}), "mode Standalone has no failover"),
        (json!({"mode": "Standalone", "durability": {"minReplicasToWrite": 1}}), "must be below replicas"),
        (json!({"durability": {"minReplicasToWrite": 2}}), "must be below replicas"),
        (json!({"replicas": 1, "durability": {"minReplicasToWrite": 1}}), "must be below replicas"),
        (json!({"failover": {"quorum": 4}}), "must be a majority of the Sentinels"),
        (json!({"failover": {"quorum": 1}}), "must be a majority of the Sentinels"),
        (json!({"failover": {"sentinels": 5, "quorum": 2}}), "must be a majority of the Sentinels"),
        (json!({"failover": {"sentinels": 4}}), "must be 3, 5 or 7"),
        (json!({"failover": {"detection": "500ms"}}), "must be from 1s to 60s"),
        (json!({"failover": {"sentinelVolume": {"size": "64mb"}}}), "is not a quantity: write 64M or 64Mi"),
        (json!({"memory": {"limit": "512MB"}}), "is not a quantity: write 512M or 512Mi"),
        (json!({"memory": {"limit": "half"}}), "is not a quantity: write a number with M, G, Mi or Gi"),
        (json!({"memory": {"limit": "512"}}), "has no unit such as Mi or Gi: write 73Mi or more"),
        (json!({"memory": {"limit": "512m"}}), "has no unit"),
        (json!({"memory": {"limit": "-1Gi"}}), "is too small: write 73Mi or more"),
        (json!({"persistence": {"volume": {"size": "10GB"}}}), "is not a quantity: write 10G or 10Gi"),
        (
            json!({"persistence": {"volume": {"size": "100"}}}),
            "has no unit such as Mi or Gi: write as much as memory.limit or more",
        ),
        (json!({"cpu": "much"}), "is not a quantity of processors from 1m to 1000: write 500m"),
        (json!({"cpu": "-1"}), "is not a quantity of processors"),
        (json!({"cpu": 0}), "is not a quantity of processors from 1m"),
        (json!({"cpu": "100000"}), "is not a quantity of processors from 1m to 1000"),
        (json!({"memory": {"limit": "1000Ti"}}), "is more than 64Ti"),
        (
            json!({"memory": {"limit": "4Gi"}, "persistence": {"volume": {"size": "1Gi"}}}),
            "is less than memory.limit, 4Gi",
        ),
        (json!({"persistence": {"volume": {"size": "128Mi"}}}), "is less than memory.limit, 256Mi"),
        (json!({"persistence": {"volume": {"storageClassName": "Fast Disks"}}}), "is not the name of a StorageClass"),
        (json!({"scheduling": {"priorityClassName": "No Such"}}), "is not the name of a PriorityClass"),
        (json!({"scheduling": {"nodeSelector": {"disk": "fast ssd"}}}), "scheduling.nodeSelector: a value is letters"),
        (json!({"scheduling": {"nodeSelector": {"fast disk": "ssd"}}}), "scheduling.nodeSelector: a key is"),
        (
            json!({"scheduling": {"tolerations": [{"key": "data", "operator": "Equals"}]}}),
            "the operator of a toleration is Equal or Exists",
        ),
        (
            json!({"scheduling": {"tolerations": [{"key": "data", "effect": "Never"}]}}),
            "the effect of a toleration is NoSchedule",
        ),
        (
            json!({"scheduling": {"tolerations": [{"key": "data", "operator": "Exists", "value": "a"}]}}),
            "operator Exists takes no value",
        ),
        (json!({"scheduling": {"tolerations": [{"value": "a"}]}}), "every other operator needs a key"),
        (json!({"engine": {"image": "Redis:7"}}), "is not an image reference"),
        (json!({"engine": {"image": "https://example.test/redis:7"}}), "without https://"),
        (json!({"engine": {"image": "redis:"}}), "is not an image reference"),
        (json!({"memory": {"evictionPolicy": "allkeys-lru"}}), "34 of 20,000 sessions"),
        (json!({"purpose": "Sessions", "memory": {"evictionPolicy": "allkeys-lfu"}}), "34 of 20,000 sessions"),
        (json!({"memory": {"evictionPolicy": "volatile-lru"}}), "18 of 20,000 sessions"),
        (json!({"purpose": "Mixed", "memory": {"evictionPolicy": "volatile-lfu"}}), "18 of 20,000 sessions"),
        (json!({"purpose": "Mixed", "memory": {"evictionPolicy": "volatile-random"}}), "18 of 20,000 sessions"),
        (json!({"engine": {"image": "redis 7\n"}}), "not an image reference"),
        (json!({"persistence": {"volume": {"storageClassName": "a..b"}}}), "is not the name of a StorageClass"),
        (json!({"persistence": {"volume": {"storageClassName": "a-.b"}}}), "is not the name of a StorageClass"),
        (json!({"scheduling": {"priorityClassName": "a..b"}}), "is not the name of a PriorityClass"),
        (json!({"scheduling": {"nodeSelector": {"a..b/x": "ssd"}}}), "scheduling.nodeSelector: a key is"),
        (json!({"engine": {"pullSecrets": [{"name": "Two Words"}]}}), "engine.pullSecrets: a name is"),
        (
            json!({"access": {"namespaces": {"from": "Selector", "selector": {"matchExpressions": [{"key": "a", "operator": "Bogus"}]}}}}),
            "selector: an operator is In or NotIn",
        ),
        (
            json!({"access": {"namespaces": {"from": "Selector", "selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}}}),
            "selector: an operator is In or NotIn",
        ),
    ];
    let of_names = [
        ("x".repeat(41), "at most 40 characters"),
        ("7eb".to_owned(), "must begin with a letter"),
        ("web.shop".to_owned(), "hold only a-z, 0-9 and '-'"),
    ];
    let web = |spec: Value, reason| ("web".to_owned(), with_mode(spec), reason);
    let mut all: Vec<_> = of_fields.into_iter().map(|(spec, reason)| web(spec, reason)).collect();
    all.extend(of_config().into_iter().map(|(name, value, reason)| web(json!({"config": {name: value}}), reason)));
    all.extend(of_pods().into_iter().map(|(metadata, reason)| web(json!({"podMetadata": metadata}), reason)));
    all.extend(of_names.into_iter().map(|(name, reason)| (name, json!({"mode": "Sentinel"}), reason)));
    all
}

/// Metadata of pods, words of the reason.
fn of_pods() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"labels": {"redoubt.dev/layer": "other"}}), "this label is Redoubt's own"),
        (json!({"labels": {"app.kubernetes.io/name": "other"}}), "this label is Redoubt's own"),
        (json!({"labels": {"statefulset.kubernetes.io/pod-name": "other"}}), "this label is Redoubt's own"),
        (json!({"labels": {"team": "two words"}}), "a value is letters, digits"),
        (json!({"labels": {"-team": "a"}}), "a key is a Kubernetes label name"),
        (json!({"annotations": {"redoubt.dev/node-config": "{}"}}), "this annotation is Redoubt's own"),
        (json!({"annotations": {"prometheus.io/port": "1"}}), "this annotation is Redoubt's own"),
        (json!({"annotations": {"two words": "1"}}), "a key is a Kubernetes annotation name"),
        (json!({"annotations": {"a..b/x": "1"}}), "a key is a Kubernetes annotation name"),
        (json!({"labels": {format!("{}/x", "a".repeat(254)): "1"}}), "a key is a Kubernetes label name"),
    ]
}

/// Name and value of a directive, words of the reason.
fn of_config() -> Vec<(&'static str, &'static str, &'static str)> {
    vec![
        ("dir", "/tmp", "dir is set by Redoubt, for the files"),
        ("user", "x", "user is set by Redoubt, for the rights of users"),
        ("requirepass", "x", "requirepass is set by Redoubt, for the passwords, which are in binding Secrets"),
        ("replica-priority", "1", "for who may become primary"),
        ("tls-port", "6380", "tls-* is set by Redoubt, for encryption"),
        ("cluster-enabled", "yes", "cluster-* is set by Redoubt"),
        ("enable-debug-command", "yes", "for what a client may do to the server"),
        ("bgsave-cpulist", "0", "for the processors of the pod"),
        ("maxmemory", "1", "maxmemory is set by the field memory.limit and memory.maxmemoryPercent: write it there"),
        ("save", "60", "save is set by the field persistence.snapshots"),
        ("slave-priority", "1", "slave-priority is the old name of replica-priority"),
        ("lua-time-limit", "1", "lua-time-limit is the old name of busy-reply-threshold"),
        ("timeout", "0\nport 1", "without quotes, backslashes and line breaks"),
        ("timeout", "0\rport 1", "without quotes, backslashes and line breaks"),
        ("timeout", "\"0\"", "without quotes, backslashes and line breaks"),
        ("timeout", "'0'", "without quotes, backslashes and line breaks"),
        ("timeout", "\\x30", "without quotes, backslashes and line breaks"),
        ("timeout", "\u{e9}", "without quotes, backslashes and line breaks"),
        ("timeout", "0 1", "timeout: its value is one word, without spaces"),
        ("search-timeout", "0 1", "without spaces"),
        ("timeout\nport", "1", "name"),
        ("time out", "1", "is not the name of a directive"),
        ("TIMEOUT", "1", "is not the name of a directive"),
        ("io_threads", "2", "is not the name of a directive"),
        ("", "1", "is not the name of a directive"),
    ]
}

/// In mode Sentinel, if the specification names none.
fn with_mode(mut spec: Value) -> Value {
    if spec.get("mode").is_none() {
        spec["mode"] = json!("Sentinel");
    }
    spec
}

/// Changes that must be refused: old and new specification, words of the reason.
pub fn bad_changes() -> Vec<(Value, Value, &'static str)> {
    let volume = |volume: Value| json!({"mode": "Sentinel", "persistence": {"volume": volume}});
    let plain = json!({"mode": "Sentinel"});
    vec![
        (plain.clone(), json!({"mode": "Standalone"}), "mode cannot be changed"),
        (json!({"mode": "Cluster"}), json!({"mode": "Cluster", "shards": 5}), "shards cannot be changed"),
        (
            volume(json!({"storageClassName": "fast"})),
            volume(json!({"storageClassName": "slow"})),
            "storageClassName cannot be changed",
        ),
        (volume(json!({"storageClassName": "fast"})), plain.clone(), "storageClassName cannot be changed"),
        (plain.clone(), volume(json!({"storageClassName": "fast"})), "storageClassName cannot be changed"),
        (volume(json!({"size": "2Gi"})), volume(json!({"size": "1Gi"})), "it never shrinks"),
        (volume(json!({"size": "1Gi"})), volume(json!({"size": "2Gi"})), "growing is not implemented yet"),
        (json!({"mode": "Sentinel", "engine": {"image": "redis:8.0"}}), plain, "engine.image cannot be removed"),
        (
            json!({"mode": "Sentinel", "engine": {"image": "redis:8.0"}}),
            json!({"mode": "Sentinel", "engine": {"pullPolicy": "Always"}}),
            "engine.image cannot be removed",
        ),
    ]
}
