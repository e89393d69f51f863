//! Every object that is built, as files: what a change does to them is seen in its review.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;
use redoubt::api::data_layer::DataLayer;
use redoubt::api::uses::DeclaredUse;
use redoubt::build::Credentials;
use redoubt::build::uses::{BindingCredentials, binding, dedicated_layer, export};
use redoubt::build::{Built, Inputs, build, declared};
use redoubt::model::UseKind;
use redoubt::model::{Address, NodeId, NodeKind};
use redoubt::validate::uses::validate as validate_use;
use redoubt::validate::{DataVolumes, ResolvedDefaults, ValidatedLayer, admit, validate};
use serde::Serialize;
use serde_json::{Value, json};

/// Every secret text, marked so that it is found wherever it goes.
const SECRET: &str = "do-not-print";

fn specifications() -> [(&'static str, Value); 5] {
    [
        ("minimal", json!({"mode": "Sentinel"})),
        ("cache", json!({"mode": "Standalone", "purpose": "Cache", "access": {"application": false}})),
        ("sessions-standalone", json!({"mode": "Standalone", "purpose": "Sessions", "memory": {"limit": "1Gi"}})),
        ("cluster", json!({"mode": "Cluster", "shards": 2})),
        ("everything", everything()),
    ]
}

fn everything() -> Value {
    json!({
        "mode": "Sentinel",
        "purpose": "AgentContext",
        "engine": {"image": "example.test/valkey:8.1", "pullPolicy": "Always", "pullSecrets": [{"name": "pull"}]},
        "replicas": 1,
        "memory": {"limit": "2Gi", "maxmemoryPercent": 50, "evictionPolicy": "volatile-ttl"},
        "cpu": "1500m",
        "persistence": {
            "appendOnly": true,
            "snapshots": false,
            "volume": {"size": "20Gi", "storageClassName": "fast", "reclaim": "Delete"},
        },
        "durability": {"minReplicasToWrite": 0, "maxReplicaLag": 5},
        "failover": {"detection": "10s", "sentinels": 5, "quorum": 4, "sentinelVolume": {"size": "2Gi"}},
        "access": {"namespaces": {"from": "Same"}, "announce": "Address", "application": true, "administrator": "Diagnostics"},
        "audit": {"mode": "Repair"},
        "maxConnections": 5000,
        "config": {
            "client-output-buffer-limit": "pubsub 64mb 16mb 90",
            "io-threads": "2",
            "repl-backlog-size": "128mb",
            "search-timeout": "100",
        },
        "scheduling": {
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "data", "operator": "Exists", "effect": "NoSchedule"}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "arch", "operator": "In", "values": ["amd64"]}]},
            ]}}},
            "priorityClassName": "data",
        },
        "podMetadata": {"labels": {"team": "a"}, "annotations": {"example.com/note": "text"}},
        "update": {"approval": "Manual"},
        "paused": false,
    })
}

fn validated(spec: &Value) -> ValidatedLayer {
    let metadata = json!({"name": "web", "namespace": "shop", "uid": "5f0e6f7e-1111-4222-8333-944444444444"});
    let object = json!({"apiVersion": "redoubt.dev/v1alpha1", "kind": "DataLayer", "metadata": metadata, "spec": spec});
    let layer: DataLayer = serde_json::from_value(object).unwrap();
    let resolved = ResolvedDefaults {
        engine_image: "example.test/engine:1".to_owned(),
        agent_image: "example.test/redoubt:1".to_owned(),
        volumes: DataVolumes::Undecided,
        shares: None,
        allowed_images: Vec::new(),
        service_domain: "svc.cluster.local".to_owned(),
    };
    validate(&layer, &resolved).unwrap()
}

fn built(layer: &ValidatedLayer) -> Built {
    built_with(layer, &[])
}

/// `surplus`: nodes that are still to be removed.
fn built_with(layer: &ValidatedLayer, surplus: &[NodeId]) -> Built {
    let address = |node: NodeId| {
        let third = if node.kind == NodeKind::Data { 1 } else { 2 };
        Address(format!("10.96.{third}.{}", node.ordinal))
    };
    let secret = |name: &str| format!("{SECRET}-{name}");
    let [operator, agent, replication, sentinel, application, administrator] =
        ["operator", "agent", "replication", "sentinel", "application", "administrator"].map(secret);
    build(&Inputs {
        layer,
        addresses: &declared(layer).iter().chain(surplus).map(|node| (*node, address(*node))).collect(),
        initialised: true,
        resolved_defaults: r#"{"resolved":"defaults"}"#,
        primary: Some(NodeId::data(0)),
        functions: b"the sources of all libraries",
        called: &BTreeSet::new(),
        caches: &BTreeMap::new(),
        prefixes: "the prefixes of all uses",
        credentials: Credentials {
            operator: &operator,
            agent: &agent,
            replication: &replication,
            sentinel: &sentinel,
            application: &application,
            administrator: &administrator,
            data_users: "user digests of the data nodes",
            sentinel_users: "user digests of the Sentinels",
        },
    })
}

/// All objects as one file, the secret texts shown by their name only.
fn render(built: &Built) -> String {
    let Built { primary_service, services, node_services, budgets, secrets, nodes } = built;
    let mut documents: Vec<Value> = Vec::new();
    let mut add = |kind: &str, object: &dyn erased::Object| {
        let mut value = object.value();
        value["kind"] = json!(kind);
        documents.push(value);
    };
    for service in [primary_service].into_iter().chain(services).chain(node_services.values()) {
        add("Service", service);
    }
    for budget in budgets {
        add("PodDisruptionBudget", budget);
    }
    for secret in secrets {
        add("Secret", secret);
    }
    for node in nodes.values() {
        add("StatefulSet", &node.workload);
    }
    documents.iter_mut().for_each(show_data);
    documents.iter_mut().for_each(show_document);
    let texts: Vec<String> = documents.iter().map(|document| serde_saphyr::to_string(document).unwrap()).collect();
    format!("---\n{}\n", texts.iter().map(|text| text.trim_end()).collect::<Vec<_>>().join("\n---\n"))
}

/// Objects of several kinds in one list.
mod erased {
    pub trait Object {
        fn value(&self) -> serde_json::Value;
    }

    impl<T: super::Serialize> Object for T {
        fn value(&self) -> serde_json::Value {
            serde_json::to_value(self).unwrap()
        }
    }
}

/// `data` of a Secret as text, with each secret in it replaced.
fn show_data(document: &mut Value) {
    let Some(data) = document.get("data") else { return };
    let data: BTreeMap<String, k8s_openapi::ByteString> = serde_json::from_value(data.clone()).unwrap();
    let shown = data.into_iter().map(|(field, bytes)| {
        let text = String::from_utf8(bytes.0).unwrap();
        let text =
            text.replace(SECRET, "(password of").replace("-application", " app)").replace("-administrator", " admin)");
        (field, text)
    });
    document["data"] = shown.collect::<BTreeMap<_, _>>().into_iter().collect();
}

/// The node-config document as structure: a line of JSON shows no difference to anybody.
fn show_document(document: &mut Value) {
    if let Some(text) = document.pointer_mut("/spec/template/metadata/annotations/redoubt.dev~1node-config") {
        *text = serde_json::from_str(text.as_str().unwrap()).unwrap();
    }
}

#[test]
fn the_built_objects_are_the_committed_ones() {
    for (name, spec) in specifications() {
        let path = Path::new("tests/golden").join(format!("{name}.yaml"));
        let text = render(&built(&validated(&spec)));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        let line = committed.lines().zip(text.lines()).position(|(old, new)| old != new);
        assert!(
            committed == text,
            "{} differs from line {line:?} on; see what changed with: UPDATE=1 cargo test --test it golden; git diff",
            path.display()
        );
    }
}

#[test]
fn everything_that_can_be_set_is_set_in_one_golden_file() {
    let schema = serde_json::to_value(redoubt::api::custom_resource_definitions()).unwrap();
    let fields = schema.pointer("/0/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties").unwrap();
    let everything = everything();
    let not_implemented = ["shards", "tls", "bootstrap"];
    let unset: Vec<&String> =
        fields.as_object().unwrap().keys().filter(|field| everything.get(field).is_none()).collect();
    assert!(unset.iter().all(|field| not_implemented.contains(&field.as_str())), "{unset:?}");
}

#[test]
fn secrets_are_in_secrets_only() {
    for (name, spec) in specifications() {
        let built = built(&validated(&spec));
        let Built { primary_service, services, node_services, budgets, secrets, nodes } = &built;
        for node in nodes.values() {
            let text = serde_json::to_string(&node.workload).unwrap() + &node.document;
            assert!(!text.contains(SECRET), "{name}: {text}");
        }
        let others = [
            json!(primary_service),
            json!(services),
            json!(node_services.values().collect::<Vec<_>>()),
            json!(budgets),
        ];
        assert!(others.iter().all(|objects| !objects.to_string().contains(SECRET)), "{name}");
        assert!(!secrets.is_empty());
        let shown = render(&built);
        assert!(!shown.contains(SECRET), "{name}: the golden file would hold a secret");
    }
}

fn revision(spec: &Value, node: NodeId) -> String {
    built(&validated(spec)).nodes[&node].revisions.restart_revision.clone()
}

/// Otherwise the budget would let several of the nodes that are wanted go while there are others.
#[test]
fn a_node_that_is_to_be_removed_counts_in_the_budget_until_it_is_gone() {
    let layer = validated(&specifications()[0].1);
    let stay = |surplus: &[NodeId]| {
        let budgets = built_with(&layer, surplus).budgets;
        let of = |budget: PodDisruptionBudget| (budget.name_any(), budget.spec.unwrap().min_available.unwrap());
        budgets.into_iter().map(of).collect::<BTreeMap<_, _>>()
    };
    let expected = |data, sentinels| {
        let of = |(name, stay): (&str, i32)| (name.to_owned(), IntOrString::Int(stay));
        BTreeMap::from([("web-redis", data), ("web-sentinel", sentinels)].map(of))
    };
    assert_eq!(stay(&[]), expected(2, 2));
    assert_eq!(stay(&[NodeId::data(3), NodeId::data(4), NodeId::sentinel(3)]), expected(4, 3));
}

#[test]
fn a_start_only_directive_rolls_the_data_nodes_and_a_live_one_does_not() {
    let plain = json!({"mode": "Sentinel"});
    let with = |name: &str, value: &str| json!({"mode": "Sentinel", "config": {name: value}});
    let (data, sentinel) = (NodeId::data(0), NodeId::sentinel(0));
    assert_eq!(revision(&with("timeout", "10"), data), revision(&plain, data));
    assert_ne!(revision(&with("io-threads", "2"), data), revision(&plain, data));
    assert_ne!(revision(&with("io-threads", "2"), data), revision(&with("io-threads", "3"), data));
    assert_ne!(revision(&with("search-timeout", "2"), data), revision(&with("search-timeout", "3"), data));
    assert_eq!(revision(&with("io-threads", "2"), sentinel), revision(&plain, sentinel));
    let memory = |percent: i32| json!({"mode": "Sentinel", "memory": {"maxmemoryPercent": percent}});
    assert_eq!(revision(&memory(50), data), revision(&memory(60), data), "maxmemory is set live");
}

#[test]
fn a_restart_that_is_asked_for_is_no_other_revision() {
    let plain = validated(&json!({"mode": "Sentinel"}));
    let asked = ValidatedLayer { restarted_at: Some("2026-01-01".to_owned()), ..plain.clone() };
    let (plain, asked) = (built(&plain), built(&asked));
    for (node, built) in &asked.nodes {
        assert_eq!(built.revisions.restart_revision, plain.nodes[node].revisions.restart_revision);
        assert_ne!(built.revisions.workload_digest, plain.nodes[node].revisions.workload_digest);
        let template = built.workload.spec.as_ref().unwrap().template.metadata.as_ref().unwrap();
        assert_eq!(template.annotations.as_ref().unwrap()["redoubt.dev/restarted-at"], "2026-01-01");
    }
}

#[test]
fn every_object_says_what_it_is_a_part_of() {
    for (name, spec) in specifications() {
        let Built { primary_service, services, node_services, budgets, secrets, nodes } = built(&validated(&spec));
        let workloads: Vec<_> = nodes.values().map(|node| &node.workload).collect();
        let all = [
            json!([primary_service]),
            json!(services),
            json!(node_services.values().collect::<Vec<_>>()),
            json!(budgets),
            json!(secrets),
            json!(workloads),
        ];
        for object in all.iter().flat_map(|objects| objects.as_array().unwrap()) {
            let labels = &object["metadata"]["labels"];
            for label in ["name", "instance", "component", "part-of", "managed-by"] {
                assert!(labels[format!("app.kubernetes.io/{label}")].is_string(), "{name}: {label} of {object}");
            }
            assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "5f0e6f7e-1111-4222-8333-944444444444");
        }
    }
}

#[test]
fn the_binding_has_all_that_a_client_needs() {
    let built = built(&validated(&json!({"mode": "Sentinel"})));
    let binding = built.secrets.iter().find(|secret| secret.metadata.name.as_deref() == Some("web-redis-app")).unwrap();
    let field =
        |name: &str| binding.data.as_ref().unwrap().get(name).map(|text| String::from_utf8(text.0.clone()).unwrap());
    let fields: Vec<&String> = binding.data.as_ref().unwrap().keys().collect();
    assert_eq!(
        fields,
        [
            "host",
            "master-name",
            "max-connections",
            "password",
            "port",
            "provider",
            "sentinel-password",
            "sentinel-username",
            "sentinels",
            "type",
            "uri",
            "username"
        ]
    );
    assert_eq!(field("max-connections").as_deref(), Some("1000"));
    assert_eq!(
        field("sentinels").as_deref(),
        Some(
            "web-sentinel.shop.svc.cluster.local:26379,web-sentinel-0.shop.svc.cluster.local:26379,\
             web-sentinel-1.shop.svc.cluster.local:26379,web-sentinel-2.shop.svc.cluster.local:26379"
        )
    );
    assert_eq!(field("uri"), Some(format!("redis://app:{SECRET}-application@web-redis.shop.svc.cluster.local:6379/0")));
}

/// The binding Secret of a store on a layer of another namespace, in the middle of a rotation; and a dedicated layer.
#[test]
fn the_objects_of_a_session_store_are_the_committed_ones() {
    let metadata = json!({"name": "web", "namespace": "shop", "uid": "6f0e6f7e-1111-4222-8333-944444444444"});
    let object = |spec: Value| -> DeclaredUse {
        let object =
            json!({"apiVersion": "redoubt.dev/v1alpha1", "kind": "SessionStore", "metadata": metadata, "spec": spec});
        DeclaredUse::read(UseKind::SessionStore, &object).unwrap()
    };
    let minimal = object(json!({"idleTimeout": "30m"}));
    let described = object(
        json!({"idleTimeout": "30m", "layer": {"dedicated": {"mode": "Standalone", "memory": {"limit": "1Gi"}}}}),
    );
    let store = validate_use(&minimal, 2).unwrap();
    let password = format!("{SECRET}-application");
    let shown = BindingCredentials {
        user: "ss.shop.web.3",
        password: &password,
        rotation: 3,
        previous: Some(2),
        rotated_at: 1_700_000_000_000,
    };
    let mut secret = json!(binding(&store, &validated(&json!({"mode": "Sentinel"})), shown));
    secret["kind"] = json!("Secret");
    show_data(&mut secret);
    let documents = [secret, json!(dedicated_layer(&minimal)), json!(dedicated_layer(&described))];
    let texts: Vec<String> = documents.iter().map(|it| serde_saphyr::to_string(it).unwrap()).collect();
    let text = format!("---\n{}\n", texts.iter().map(|text| text.trim_end()).collect::<Vec<_>>().join("\n---\n"));
    assert!(!text.contains(SECRET), "the golden file would hold a secret");
    let path = Path::new("tests/golden/session-store.yaml");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, &text).unwrap();
    }
    assert!(
        fs::read_to_string(path).unwrap_or_default() == text,
        "write it anew with: UPDATE=1 cargo test --test it golden"
    );
    let layer: DataLayer = dedicated_layer(&minimal);
    assert!(admit(&layer).is_ok());
}

/// What a gateway's rate limit service reads is named as the service's own settings are.
#[test]
fn the_secret_of_a_rate_limit_service_has_what_the_service_reads() {
    let layer = validated(&json!({"mode": "Sentinel"}));
    let exported = |further: Value| {
        let mut spec = json!({"limits": [{"name": "a", "quota": 1, "window": "1s"}]});
        for (field, value) in further.as_object().unwrap() {
            spec[field] = value.clone();
        }
        let object = json!({
            "apiVersion": "redoubt.dev/v1alpha1", "kind": "RateLimitPolicy", "spec": spec,
            "metadata": {"name": "api", "namespace": "shop", "uid": "6f0e6f7e-1111-4222-8333-944444444444"},
        });
        let policy = validate_use(&DeclaredUse::read(UseKind::RateLimitPolicy, &object).unwrap(), 2).unwrap();
        let (user, password) = ("rlp.shop.api.1", "p");
        let secret = export(
            &policy,
            &layer,
            BindingCredentials { user, password, rotation: 1, previous: Some(0), rotated_at: 1 },
        )?;
        assert_eq!(secret.metadata.name.as_deref(), Some("api-limit-export"));
        assert_eq!(secret.metadata.owner_references.unwrap()[0].uid, "6f0e6f7e-1111-4222-8333-944444444444");
        let text = |text: k8s_openapi::ByteString| String::from_utf8(text.0).unwrap();
        Some(secret.data.unwrap().into_iter().map(|(field, value)| (field, text(value))).collect::<Vec<_>>())
    };
    assert_eq!(exported(json!({})), None);
    let [prefix, auth, url] = exported(json!({"export": {"program": "EnvoyRateLimit"}})).unwrap().try_into().unwrap();
    assert_eq!(prefix, ("CACHE_KEY_PREFIX".to_owned(), "api:".to_owned()));
    assert_eq!(auth, ("REDIS_AUTH".to_owned(), "rlp.shop.api.1:p".to_owned()));
    assert!(
        url.0 == "REDIS_URL" && url.1.contains(".svc") && url.1.ends_with(":6379") && !url.1.contains("//"),
        "{url:?}"
    );
    let limitador = json!({"export": {"program": "Limitador"}, "keyPrefix": "namespace:", "access": {"scripts": true}});
    let fields = exported(limitador).unwrap();
    assert_eq!(fields, [("URL".to_owned(), format!("redis://rlp.shop.api.1:p@{}/0", url.1))]);
}
