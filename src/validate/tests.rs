use serde_json::{Value, json};

use super::*;

fn layer(spec: &Value) -> DataLayer {
    let metadata = json!({"name": "web", "namespace": "shop", "uid": "uid-1"});
    let object = json!({"apiVersion": "redoubt.dev/v1alpha1", "kind": "DataLayer", "metadata": metadata, "spec": spec});
    serde_json::from_value(object).unwrap()
}

fn judged_with(volumes: DataVolumes, spec: &Value) -> Result<ValidatedLayer, Vec<String>> {
    judged_as_recorded(volumes, None, spec)
}

fn judged_as_recorded(
    volumes: DataVolumes,
    shares: Option<Shares>,
    spec: &Value,
) -> Result<ValidatedLayer, Vec<String>> {
    let (engine_image, agent_image) = ("engine".to_owned(), "agent".to_owned());
    validate(
        &layer(spec),
        &ResolvedDefaults {
            engine_image,
            agent_image,
            volumes,
            shares,
            allowed_images: Vec::new(),
            service_domain: "svc".to_owned(),
        },
    )
    .map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

fn judged_accepted(spec: &Value) -> Result<ValidatedLayer, Vec<String>> {
    let (engine_image, agent_image) = ("engine".to_owned(), "agent".to_owned());
    let (volumes, shares, service_domain) = (DataVolumes::Undecided, None, "svc".to_owned());
    // What was accepted goes on whatever became of the list.
    let allowed_images = vec!["registry.example.com/".to_owned()];
    validate_accepted(
        &layer(spec),
        &ResolvedDefaults { engine_image, agent_image, volumes, shares, allowed_images, service_domain },
    )
    .map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

fn judged(spec: &Value) -> Result<ValidatedLayer, Vec<String>> {
    judged_with(DataVolumes::Undecided, spec)
}

fn config(name: &str, value: &str) -> Result<Option<String>, Vec<String>> {
    judged(&json!({"mode": "Sentinel", "config": {name: value}})).map(|layer| layer.settings.get(name).cloned())
}

#[test]
fn a_decision_for_a_node_that_is_no_more_is_none_and_makes_nothing_invalid() {
    let mut faults = Vec::new();
    let mut decided = |ordinal: &str| {
        let mut layer = layer(&json!({"mode": "Sentinel"}));
        layer.annotations_mut().insert(ANNOTATION_ACCEPT_LOSS.to_owned(), ordinal.to_owned());
        accepted_loss(&layer, 1, 2, &mut faults)
    };
    assert_eq!([decided("2"), decided("3"), decided("9")], [Some(2), None, None]);
    assert_eq!(faults.len(), 0);
}

#[test]
fn the_smallest_layer_is_safe() {
    let layer = judged(&json!({"mode": "Sentinel"})).unwrap();
    assert_eq!((layer.data_nodes, layer.sentinels, layer.quorum, layer.max_connections), (3, 3, 2, 1_000));
    let setting = |name: &str| layer.settings.get(name).map(String::as_str);
    assert_eq!(setting("maxmemory-policy"), Some("noeviction"));
    assert_eq!((setting("appendonly"), setting("min-replicas-to-write")), (Some("yes"), Some("1")));
    assert_eq!(layer.volume.unwrap().size, 1 << 30);
}

#[test]
fn memory_is_divided_as_was_recorded_for_the_purpose_unless_the_specification_says_how() {
    let recorded = Shares { purpose: Purpose::Mixed, maxmemory_percent: 60, client_percent: 5 };
    let divided = |spec: &Value| {
        let layer = judged_as_recorded(DataVolumes::Undecided, Some(recorded), spec).unwrap();
        (layer.memory.maxmemory, layer.max_connections, layer.shares)
    };
    let percent = (256 << 20) / 100;
    let as_recorded = divided(&json!({"mode": "Sentinel"}));
    assert_eq!(as_recorded, (60 * percent, 1_000, recorded));
    assert_eq!(divided(&json!({"mode": "Sentinel", "memory": {"maxmemoryPercent": 40}})).0, 40 * percent);
    // Another purpose is another decision.
    let (cache, _, shares) = divided(&json!({"mode": "Sentinel", "purpose": "Cache"}));
    assert_eq!((cache, shares), (60 * percent, purpose::defaults(Purpose::Cache).shares(Purpose::Cache)));
}

#[test]
fn a_value_is_spelled_as_the_server_spells_it_and_a_wrong_one_is_refused() {
    assert_eq!(config("repl-backlog-size", "64mb"), Ok(Some("67108864".to_owned())));
    assert_eq!(
        config("timeout", "10s"),
        Err(vec!["spec.config: timeout: \"10s\" is not a number from 0 to 2147483647".to_owned()])
    );
    assert_eq!(config("search-timeout", "10s"), Ok(Some("10s".to_owned())));
}

#[test]
fn a_limit_that_is_too_small_for_the_purpose_says_the_minimum_and_why() {
    let spec = json!({"mode": "Sentinel", "purpose": "Cache", "memory": {"limit": "64Mi"}});
    let faults = judged(&spec).unwrap_err();
    assert_eq!(
        faults,
        [
            "spec.memory.limit: for purpose Cache, 64Mi is too small: at least 92Mi are needed, because data gets 60 % of it, which leaves 25Mi, and \
             10 connections need 3Mi, requests and replies 2Mi, one command of the largest size 2Mi, replicas 4Mi, saving 2Mi, \
             the server and its agent 24Mi"
        ]
    );
}

#[test]
fn more_connections_than_memory_has_room_for_are_refused_with_the_figures() {
    let faults = judged(&json!({"mode": "Sentinel", "maxConnections": 5000})).unwrap_err().concat();
    assert!(faults.contains("5000 connections need 198Mi") && faults.contains("connections would fit"), "{faults}");
    assert!(judged(&json!({"mode": "Sentinel", "maxConnections": 5000, "memory": {"limit": "1Gi"}})).is_ok());
}

#[test]
fn what_a_specification_sets_of_the_backlog_and_of_the_largest_value_is_in_the_plan() {
    let memory = |config: Value| {
        judged(&json!({"mode": "Sentinel", "memory": {"limit": "2Gi"}, "config": config})).unwrap().memory
    };
    assert!(memory(json!({"repl-backlog-size": "200mb"})).replica_buffers >= 200 << 20);
    assert_eq!(memory(json!({"proto-max-bulk-len": "100mb"})).largest_value, 100 << 20);
    let faults = judged(&json!({"mode": "Sentinel", "config": {"proto-max-bulk-len": "512mb"}})).unwrap_err().concat();
    assert!(faults.contains("one command of the largest size 513Mi"), "{faults}");
    let limits = json!({"client-output-buffer-limit": "replica 1gb 0 0"});
    let faults = judged(&json!({"mode": "Sentinel", "config": limits})).unwrap_err().concat();
    assert!(faults.contains("Redoubt sets the limit of replicas itself"), "{faults}");
}

#[test]
fn replicas_are_bounded_even_where_the_schema_was_not_asked() {
    assert_eq!(judged(&json!({"mode": "Sentinel", "replicas": 9})).map(|layer| layer.data_nodes), Ok(10));
    assert_eq!(
        judged(&json!({"mode": "Sentinel", "replicas": 10})),
        Err(vec!["spec.replicas: 10 is not from 0 to 9".to_owned()])
    );
}

#[test]
fn a_change_of_memory_does_not_change_the_volume() {
    let spec = json!({"mode": "Sentinel", "memory": {"limit": "1Gi"}});
    let size = |volumes| judged_with(volumes, &spec).unwrap().volume.unwrap().size;
    assert_eq!(size(DataVolumes::Undecided), 4 << 30);
    assert_eq!(size(DataVolumes::Of(1 << 30)), 1 << 30);
}

#[test]
fn an_explicit_size_that_is_not_the_one_of_the_volumes_is_refused() {
    let spec = json!({"mode": "Sentinel", "persistence": {"volume": {"size": "2Gi"}}});
    let of =
        |gibibytes: u64| judged_with(DataVolumes::Of(gibibytes << 30), &spec).map(|layer| layer.volume.unwrap().size);
    assert_eq!(of(2), Ok(2 << 30));
    assert!(of(3).unwrap_err().concat().contains("cannot shrink to 2147483648"));
    assert!(of(1).unwrap_err().concat().contains("growing to 2147483648 is not implemented"));
}

#[test]
fn persistence_is_not_switched_on_for_pods_without_volumes_and_volumes_stay_when_it_is_switched_off() {
    let kept = json!({"mode": "Sentinel"});
    let not_kept = json!({"mode": "Sentinel", "purpose": "Cache"});
    let faults = judged_with(DataVolumes::Without, &kept).unwrap_err().concat();
    assert!(faults.contains("make a new layer"), "{faults}");
    assert_eq!(judged_with(DataVolumes::Without, &not_kept).unwrap().volume, None);
    assert_eq!(judged_with(DataVolumes::Of(1 << 30), &not_kept).unwrap().volume.unwrap().size, 1 << 30);
}

#[test]
fn what_was_decided_of_volumes_is_decided_once() {
    let volume = judged(&json!({"mode": "Sentinel"})).unwrap().volume;
    assert_eq!(DataVolumes::Undecided.or_decide(volume.as_ref()), DataVolumes::Of(1 << 30));
    assert_eq!(DataVolumes::Undecided.or_decide(None), DataVolumes::Without);
    assert_eq!(DataVolumes::Without.or_decide(volume.as_ref()), DataVolumes::Without);
    assert_eq!(DataVolumes::Of(5).or_decide(volume.as_ref()), DataVolumes::Of(5));
}

#[test]
fn every_fault_is_named_at_once() {
    let spec = json!({"mode": "Sentinel", "cpu": "much", "memory": {"limit": "1Mi"}, "config": {"hz": "0"}});
    let faults = judged(&spec).unwrap_err();
    assert_eq!(faults.len(), 3, "{faults:#?}");
}

#[test]
fn what_is_no_quantity_is_named_with_what_to_write() {
    let faults = judged_accepted(&json!({"mode": "Sentinel", "memory": {"limit": "1GB"}, "cpu": "x"})).unwrap_err();
    assert!(faults[0].contains("\"1GB\" is not a quantity of bytes: write"), "{faults:?}");
    assert!(faults[1].contains("\"x\" is not a quantity of processors"), "{faults:?}");
}

/// A rule of admission that is newer than a layer must not end the care for it.
#[test]
fn a_specification_that_was_accepted_before_a_rule_was_made_is_gone_on_with() {
    let spec = json!({"mode": "Sentinel", "persistence": {"volume": {"size": "1Mi"}}});
    assert!(judged(&spec).unwrap_err().concat().contains("is too small: write as much as memory.limit or more"));
    assert_eq!(judged_accepted(&spec).unwrap().volume.unwrap().size, 1 << 20);
}

#[test]
fn a_sentinels_volume_is_what_common_storage_makes_unless_it_is_given() {
    let size = |failover: Value| judged(&json!({"mode": "Sentinel", "failover": failover})).unwrap().sentinel_volume;
    assert_eq!(size(json!({})), 1 << 30);
    assert_eq!(size(json!({"sentinelVolume": {"size": "10Gi"}})), 10 << 30);
}

#[test]
fn a_volume_that_cannot_hold_the_data_is_refused_before_it_is_made_and_a_limit_that_outgrows_one_is_too() {
    let sized = |limit: &str, size: &str| json!({"mode": "Sentinel", "memory": {"limit": limit}, "persistence": {"volume": {"size": size}}});
    assert!(judged(&sized("1Gi", "1Gi")).is_ok());
    let told = judged(&sized("4Gi", "1Gi")).unwrap_err().join("; ");
    assert!(
        told.contains("1024Mi are too few: maxmemory is 2048Mi") && told.contains("write 4096Mi or more"),
        "{told}"
    );
    // Percentages that the rule of admission leaves out.
    let mut most = sized("1Gi", "1Gi");
    most["memory"]["maxmemoryPercent"] = json!(60);
    assert!(judged(&most).unwrap_err().concat().contains("write 1229Mi or more"));
    let mut not_kept = sized("4Gi", "1Gi");
    not_kept["persistence"]["appendOnly"] = json!(false);
    assert!(judged(&not_kept).is_ok());
    let made = DataVolumes::Of(1 << 30);
    assert!(judged_with(made, &json!({"mode": "Sentinel", "memory": {"limit": "1Gi"}})).is_ok());
    assert_eq!(
        judged_with(made, &json!({"mode": "Sentinel", "memory": {"limit": "4Gi"}})).unwrap_err(),
        [
            "spec.memory.limit: the volumes have 1024Mi and cannot grow: maxmemory is 2048Mi, and the files of the data are twice as large while they are rewritten; lower it"
        ]
    );
    assert!(judged_accepted(&sized("4Gi", "1Gi")).is_ok(), "what was accepted before is looked after");
}

#[test]
fn a_limit_without_a_unit_is_reported_as_such() {
    let told = judged(&json!({"mode": "Sentinel", "memory": {"limit": "512"}})).unwrap_err();
    assert_eq!(
        told,
        ["spec.memory.limit: \"512\" has no unit such as Mi or Gi: write 73Mi or more, for purpose Cache 92Mi or more"]
    );
}

#[test]
fn a_selector_that_nothing_can_evaluate_is_refused() {
    let of = |operator: &str| {
        let selector = json!({"matchExpressions": [{"key": "team", "operator": operator, "values": ["a"]}]});
        json!({"mode": "Sentinel", "access": {"namespaces": {"from": "Selector", "selector": selector}}})
    };
    assert!(judged(&of("In")).is_ok());
    let told = judged(&of("Is")).unwrap_err().concat();
    assert!(told.starts_with("spec.access.namespaces.selector: Is is not an operator"), "{told}");
}

#[test]
fn an_unknown_directive_is_accepted_and_told_with_the_one_that_it_is_like() {
    let layer =
        judged(&json!({"mode": "Sentinel", "config": {"hzz": "20", "search-timeout": "10", "hz": "20"}})).unwrap();
    assert_eq!(layer.unknown_directives, ["hzz (did you mean hz?)", "search-timeout"]);
}

#[test]
fn only_images_that_the_operator_allows_are_accepted_and_a_name_that_goes_on_is_another() {
    let spec = |image: &str| json!({"mode": "Sentinel", "engine": {"image": image}});
    let told = |allowed: &[&str], spec: &Value| {
        let resolved = ResolvedDefaults {
            engine_image: "engine".to_owned(),
            agent_image: "agent".to_owned(),
            volumes: DataVolumes::Undecided,
            shares: None,
            allowed_images: allowed.iter().map(|&prefix| prefix.to_owned()).collect(),
            service_domain: "svc".to_owned(),
        };
        validate(&layer(spec), &resolved).map(drop).map_err(|faults| faults[0].to_string())
    };
    let allowed = ["docker.io/valkey/valkey", "registry.example.com", "redis"];
    for good in [
        "docker.io/valkey/valkey",
        "docker.io/valkey/valkey:8.1",
        "docker.io/valkey/valkey@sha256:0a0a",
        "registry.example.com/team/redis:8",
        "redis:8.0",
    ] {
        assert_eq!(told(&allowed, &spec(good)), Ok(()), "{good}");
        assert_eq!(told(&[], &spec(good)), Ok(()), "{good}");
    }
    assert_eq!(told(&allowed, &json!({"mode": "Sentinel"})), Ok(()), "the default image");
    for bad in [
        "docker.io/valkey/valkey-other:1",
        "registry.example.com:5000/redis:8",
        "registry.example.community/redis",
        "redis-other",
    ] {
        let told = told(&allowed, &spec(bad)).expect_err(bad);
        assert!(told.starts_with("spec.engine.image: ") && told.contains("is not allowed"), "{told}");
    }
    assert!(judged_accepted(&spec("docker.io/valkey/valkey:8.1")).is_ok(), "a layer that runs is not touched");
}
