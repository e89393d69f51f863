//! The charts as Helm renders them: golden files, values that are refused, and rights that nobody gets.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use clap::CommandFactory as _;
use redoubt::cli::Arguments;
use serde_json::{Value, json};

const CHART: &str = "charts/redoubt";
/// Values that have a golden file: `tests/golden/charts/NAME.values.yaml` gives `NAME.yaml`.
const CASES: [&str; 3] = ["default", "namespaced", "everything"];

/// A program of the search path, or the one that is built with the development cluster.
pub fn program(name: &str) -> PathBuf {
    let built = std::env::var_os("REDOUBT_CLUSTER_BIN").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache/redoubt-cluster/bin"),
        PathBuf::from,
    );
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&folders).any(|folder| folder.join(name).is_file());
    if is_there { name.into() } else { built.join(name) }
}

/// Runs `helm`. Without any this fails: it is never skipped.
pub fn helm(arguments: &[&str]) -> Output {
    Command::new(program("helm")).args(arguments).output().expect("helm is missing; get it with: make helm")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn template(further: &[&str]) -> Result<String, String> {
    let output = helm(&[&["template", "redoubt", CHART, "--namespace", "redoubt-system"], further].concat());
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn values_of(case: &str) -> String {
    format!("tests/golden/charts/{case}.values.yaml")
}

fn rendered(case: &str) -> String {
    template(&["--values", &values_of(case)]).unwrap()
}

fn objects(case: &str) -> Vec<Value> {
    let text = rendered(case);
    let documents = text.split("---\n").filter(|document| document.contains("kind:"));
    documents.map(|document| serde_saphyr::from_str(document).unwrap()).collect()
}

fn of_kind(objects: &[Value], kind: &str) -> Vec<Value> {
    objects.iter().filter(|object| object["kind"] == kind).cloned().collect()
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn both_charts_are_clean_for_lint() {
    for arguments in [
        vec!["lint", "--strict", "charts/redoubt-crds"],
        vec!["lint", "--strict", CHART],
        vec!["lint", "--strict", CHART, "--values", &values_of("everything")],
        vec!["lint", "--strict", CHART, "--values", "tests/e2e/values.yaml"],
    ] {
        let output = helm(&arguments);
        assert!(output.status.success(), "{arguments:?}\n{}{}", text(&output.stdout), text(&output.stderr));
    }
}

#[test]
fn the_rendered_charts_are_the_committed_ones() {
    for case in CASES {
        let path = PathBuf::from(format!("tests/golden/charts/{case}.yaml"));
        let text = rendered(case);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == text,
            "{} differs; see what changed with: UPDATE=1 cargo test --test it charts; git diff",
            path.display()
        );
    }
}

#[test]
fn every_value_is_set_in_one_golden_file() {
    let [all, set] = [yaml("charts/redoubt/values.yaml"), yaml(&values_of("everything"))];
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&set), names(&all));
}

#[test]
fn the_chart_of_the_definitions_has_the_definitions_and_keeps_them() {
    let output = helm(&["template", "redoubt-crds", "charts/redoubt-crds"]);
    let text = text(&output.stdout);
    let definitions = redoubt::api::custom_resource_definitions();
    assert_eq!(text.matches("kind: CustomResourceDefinition\n").count(), definitions.len());
    assert_eq!(text.matches("helm.sh/resource-policy: keep\n").count(), definitions.len());
    let refused = helm(&["template", "redoubt-crds", "charts/redoubt-crds", "--set", "keep=false"]);
    assert!(!refused.status.success(), "a value that nobody reads is accepted");
}

#[test]
fn values_that_mean_nothing_are_refused_and_named() {
    let good = ["--set", "image.repository=registry.example.com/redoubt"];
    assert!(template(&good).is_ok());
    for (bad, named) in [
        ("replica=3", "replica"),
        ("replicas=0", "replicas"),
        ("replicas=two", "replicas"),
        ("image.repo=x", "repo"),
        ("image.repository=registry.example.com/redoubt:1", "repository"),
        ("image.digest=sha256:12", "digest"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("image.pullSecrets[0]=pull", "pullSecrets"),
        ("watchNamespace=Shop", "watchNamespace"),
        ("watchNamespace={a,b}", "watchNamespace"),
        ("concurrency=0", "concurrency"),
        ("leaseDuration=2", "leaseDuration"),
        ("defaultEngineImage=", "defaultEngineImage"),
        ("logLevel=loud", "logLevel"),
        ("clusterDomain=Cluster.", "clusterDomain"),
        ("allowedImages=docker.io", "allowedImages"),
        ("allowedImages[0]=a b", "allowedImages"),
        ("forbidDedicated=please", "forbidDedicated"),
        ("serviceAccount.crate=true", "crate"),
        ("metrics.serviceMonitor.interval=often", "interval"),
        ("metrics.serviceMonitor.enable=true", "enable"),
        ("resources.limit.cpu=1", "limit"),
        ("tolerations[0].effect=Never", "effect"),
        ("nodeSelector.a=1", "nodeSelector"),
        ("affinity.nodeAfinity.a=b", "nodeAfinity"),
        ("podDisruptionBudget.minAvailable=1", "minAvailable"),
        ("networkPolicy.metricsFrom[0].namespace=monitoring", "metricsFrom"),
    ] {
        let refused = template(&[&good[..], &["--set", bad]].concat()).expect_err(&format!("accepted: {bad}"));
        assert!(refused.contains(named), "{bad}: {refused}");
    }
    for (without, named) in [("replicas=2", "image.repository"), ("serviceAccount.create=false", "image.repository")] {
        let refused = template(&["--set", without]).unwrap_err();
        assert!(refused.contains(named), "{refused}");
    }
    let refused = template(&[&good[..], &["--set", "serviceAccount.create=false"]].concat()).unwrap_err();
    assert!(refused.contains("serviceAccount.name"), "{refused}");
}

/// Verbs by which somebody becomes more than he is.
const NEVER: [&str; 5] = ["*", "bind", "escalate", "impersonate", "deletecollection"];

fn words(rule: &Value, field: &str) -> Vec<String> {
    let list = rule[field].as_array().into_iter().flatten();
    list.map(|word| word.as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_operator_gets_no_right_by_which_it_could_take_a_cluster() {
    for case in CASES {
        let objects = objects(case);
        let mut roles = [of_kind(&objects, "Role"), of_kind(&objects, "ClusterRole")].concat();
        roles.retain(|role| !FOR_PEOPLE.iter().any(|name| role["metadata"]["name"] == *name));
        assert_eq!(roles.len(), 2, "{case}");
        for rule in roles.iter().flat_map(|role| role["rules"].as_array().unwrap()) {
            let (verbs, resources) = (words(rule, "verbs"), words(rule, "resources"));
            assert!(!verbs.is_empty() && !resources.is_empty(), "{case}: {rule}");
            assert!(!verbs.iter().any(|verb| NEVER.contains(&verb.as_str())), "{case}: {rule}");
            assert!(rule["nonResourceURLs"].is_null(), "{case}: {rule}");
            let all = [words(rule, "apiGroups"), resources.clone()].concat();
            assert!(!all.iter().any(|word| word.contains('*')), "{case}: {rule}");
            assert!(!all.iter().any(|word| word == "rbac.authorization.k8s.io"), "{case}: {rule}");
            for resource in &resources {
                let is_way_in = ["pods/", "nodes", "serviceaccounts"].iter().any(|way| resource.starts_with(way));
                assert!(!is_way_in, "{case}: {rule}");
                let reads_all = verbs.iter().any(|verb| verb == "list" || verb == "watch");
                // The values of that case take the right away; charts/redoubt/README.md says why it is given otherwise.
                assert!(!(resource == "secrets" && reads_all && case == "everything"), "{case}: {rule}");
                assert!(!(resource == "pods" && verbs.contains(&"create".to_owned())), "{case}: {rule}");
            }
        }
    }
}

#[test]
fn an_operator_of_one_namespace_has_no_right_outside_of_it_and_its_own() {
    for case in ["namespaced", "everything"] {
        let objects = objects(case);
        let wide: Vec<&Value> = objects.iter().filter(|object| object["metadata"]["namespace"].is_null()).collect();
        assert!(wide.is_empty(), "{case}: {wide:?}");
        let mut places: Vec<String> = of_kind(&objects, "RoleBinding")
            .iter()
            .map(|binding| binding["metadata"]["namespace"].as_str().unwrap().to_owned())
            .collect();
        places.sort();
        assert_eq!(places, ["redoubt-system", "shop"], "{case}");
        let arguments = objects_arguments(&objects);
        assert!(arguments.contains(&"--watch-namespace=shop".to_owned()), "{arguments:?}");
    }
    let rules = |case: &str, kind: &str| {
        let mut roles = of_kind(&objects(case), kind);
        roles.retain(|role| !FOR_PEOPLE.iter().any(|name| role["metadata"]["name"] == *name));
        roles[0]["rules"].clone()
    };
    let mut wide = rules("default", "ClusterRole").as_array().unwrap().clone();
    // Labels of namespaces: an operator of one namespace lets no other in.
    let namespaces = json!({"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "list", "watch"]});
    wide.retain(|rule| *rule != namespaces);
    assert_eq!(rules("namespaced", "Role"), Value::Array(wide), "what is done is the same");
}

/// ClusterRoles that are for people. The operator is bound to none of them.
const FOR_PEOPLE: [&str; 2] = ["redoubt-view", "redoubt-edit"];

/// The role of people with this name.
fn role_for_people(name: &str) -> Value {
    let mut roles = of_kind(&objects("default"), "ClusterRole");
    roles.retain(|role| role["metadata"]["name"] == name);
    assert_eq!(roles.len(), 1, "{name}");
    roles.remove(0)
}

#[test]
fn people_who_may_view_or_edit_a_namespace_may_do_so_with_every_kind_and_no_more() {
    let mut kinds: Vec<String> =
        redoubt::api::custom_resource_definitions().into_iter().map(|kind| kind.spec.names.plural).collect();
    kinds.sort();
    for (name, verbs, aggregated) in [
        ("redoubt-view", &["get", "list", "watch"][..], &["view", "edit", "admin"][..]),
        ("redoubt-edit", &["create", "update", "patch", "delete"], &["edit", "admin"]),
    ] {
        let role = role_for_people(name);
        let is_aggregated =
            |to: &&str| role["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{to}")] == "true";
        let to: Vec<&str> = ["view", "edit", "admin"].into_iter().filter(is_aggregated).collect();
        assert_eq!(to, aggregated, "{name}");
        let rules = role["rules"].as_array().unwrap();
        assert!(rules.iter().all(|rule| words(rule, "apiGroups") == ["redoubt.dev"]), "{name}");
        let (main, further) = rules.split_first().unwrap();
        let mut found = words(main, "resources");
        found.sort();
        assert_eq!(
            (found, words(main, "verbs")),
            (kinds.clone(), verbs.iter().map(|verb| (*verb).to_owned()).collect())
        );
        // A right to write a status is a right to give a use the place of another.
        for rule in further {
            let is_read = words(rule, "verbs").iter().all(|verb| verb == "get");
            let is_scale = words(rule, "resources") == ["datalayers/scale"];
            assert!(is_read || is_scale, "{name}: {rule}");
        }
    }
}

#[test]
fn roles_for_people_can_be_left_out() {
    let good = ["--set", "image.repository=registry.example.com/redoubt"];
    assert!(template(&good).unwrap().contains("name: redoubt-view"));
    assert!(!template(&[&good[..], &["--set", "rbac.aggregate=false"]].concat()).unwrap().contains("redoubt-view"));
}

fn objects_arguments(objects: &[Value]) -> Vec<String> {
    let deployment = &of_kind(objects, "Deployment")[0];
    words(&deployment["spec"]["template"]["spec"]["containers"][0], "args")
}

#[test]
fn every_pod_is_restricted_and_has_nothing_to_write_to() {
    for case in CASES {
        let objects = objects(case);
        let deployment = of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"].clone();
        let test = of_kind(&objects, "Pod")[0]["spec"].clone();
        assert_eq!(test["automountServiceAccountToken"], false, "{case}");
        for pod in [deployment, test] {
            let context = &pod["securityContext"];
            assert_eq!(context["runAsNonRoot"], true, "{case}");
            assert!(context["runAsUser"].as_u64().unwrap() >= 10_000, "{case}");
            assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault", "{case}");
            for field in ["volumes", "hostNetwork", "hostPID", "hostIPC", "initContainers"] {
                assert!(pod[field].is_null(), "{case}: {field}");
            }
            for container in pod["containers"].as_array().unwrap() {
                assert_eq!(
                    container["securityContext"],
                    json!({
                        "allowPrivilegeEscalation": false,
                        "privileged": false,
                        "readOnlyRootFilesystem": true,
                        "runAsNonRoot": true,
                        "capabilities": {"drop": ["ALL"]},
                    }),
                    "{case}"
                );
                assert!(container["resources"]["limits"]["memory"].is_string(), "{case}");
                let environment = container["env"].to_string();
                assert!(!environment.contains("secretKeyRef") && container["envFrom"].is_null(), "{case}");
            }
        }
    }
}

#[test]
fn what_the_pods_are_given_is_what_the_program_takes() {
    for case in CASES {
        let objects = objects(case);
        let command = |arguments: Vec<String>| {
            let all = [vec!["redoubt".to_owned()], arguments.clone()].concat();
            let parsed = Arguments::command().try_get_matches_from(all);
            assert!(parsed.is_ok(), "{case}: {arguments:?}: {parsed:?}");
        };
        command(objects_arguments(&objects));
        for container in of_kind(&objects, "Pod")[0]["spec"]["containers"].as_array().unwrap() {
            command(words(container, "args"));
        }
    }
}

#[test]
fn the_test_pod_is_not_taken_for_an_operator() {
    for case in CASES {
        let objects = objects(case);
        let selector = of_kind(&objects, "Service")[0]["spec"]["selector"].clone();
        let deployment = &of_kind(&objects, "Deployment")[0];
        assert_eq!(deployment["spec"]["selector"]["matchLabels"], selector, "{case}");
        let selects = |labels: &Value| selector.as_object().unwrap().iter().all(|(name, value)| labels[name] == *value);
        assert!(selects(&deployment["spec"]["template"]["metadata"]["labels"]), "{case}");
        assert!(!selects(&of_kind(&objects, "Pod")[0]["metadata"]["labels"]), "{case}");
    }
}

#[test]
fn the_policy_of_the_operators_pods_opens_its_port_to_those_that_are_named_and_to_the_test() {
    assert!(of_kind(&objects("default"), "NetworkPolicy").is_empty(), "it is made where it is asked for");
    let objects = objects("everything");
    let policies = of_kind(&objects, "NetworkPolicy");
    let [policy] = policies.as_slice() else { panic!("{policies:?}") };
    let deployment = &of_kind(&objects, "Deployment")[0];
    assert_eq!(policy["spec"]["podSelector"], deployment["spec"]["selector"]);
    let [rule] = policy["spec"]["ingress"].as_array().unwrap().as_slice() else { panic!("{policy}") };
    let ports = &deployment["spec"]["template"]["spec"]["containers"][0]["ports"];
    assert_eq!(rule["ports"], json!([{"protocol": "TCP", "port": ports[0]["name"]}]));
    let monitoring = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}});
    let test = rule["from"][0]["podSelector"]["matchLabels"].as_object().unwrap();
    let labels = &of_kind(&objects, "Pod")[0]["metadata"]["labels"];
    assert!(!test.is_empty() && test.iter().all(|(name, value)| labels[name] == *value), "{policy}");
    assert_eq!(rule["from"].as_array().unwrap()[1..], [monitoring]);
}

#[test]
fn the_charts_defaults_and_versions_are_the_programs() {
    let values = yaml("charts/redoubt/values.yaml");
    let command = Arguments::command();
    let operator = command.find_subcommand("operator").unwrap();
    for (argument, value) in [
        ("default_engine_image", &values["defaultEngineImage"]),
        ("concurrency", &values["concurrency"]),
        ("lease_duration", &values["leaseDuration"]),
    ] {
        let known = operator.get_arguments().find(|known| known.get_id() == argument).unwrap();
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        assert_eq!(known.get_default_values(), [value.as_str()], "{argument}");
    }
    for chart in [CHART, "charts/redoubt-crds"] {
        let chart = yaml(&format!("{chart}/Chart.yaml"));
        assert_eq!((&chart["version"], &chart["appVersion"]), (&json!(env!("CARGO_PKG_VERSION")), &chart["version"]));
    }
}

/// Path and comment of each value that has no others in it, as `values.yaml` has them.
fn documented() -> Vec<(String, String, String)> {
    let text = fs::read_to_string("charts/redoubt/values.yaml").unwrap();
    let (mut path, mut comment, mut found): (Vec<String>, String, Vec<(String, String, String)>) = Default::default();
    for line in text.lines() {
        let (depth, line) = ((line.len() - line.trim_start().len()) / 2, line.trim());
        if let Some(words) = line.strip_prefix("# ") {
            let space = if comment.is_empty() { "" } else { " " };
            let _ = write!(comment, "{space}{words}");
        } else if let Some((name, value)) = line.split_once(':') {
            path.truncate(depth);
            path.push(name.to_owned());
            let is_documented_above =
                found.last().is_some_and(|(above, _, _)| path.join(".").starts_with(&format!("{above}.")));
            if comment.is_empty() {
                assert!(value.is_empty() || is_documented_above, "{} has no comment", path.join("."));
            } else {
                found.push((path.join("."), value.trim().to_owned(), std::mem::take(&mut comment)));
            }
        }
    }
    found
}

#[test]
fn every_value_is_documented_and_the_committed_table_is_the_generated_one() {
    let mut table = "| value | default | |\n|---|---|---|\n".to_owned();
    for (path, value, comment) in documented() {
        let value = if value.is_empty() { "see `values.yaml`".to_owned() } else { format!("`{value}`") };
        let _ = writeln!(table, "| `{path}` | {value} | {} |", comment.replace('|', "\\|"));
    }
    let path = "charts/redoubt/README.md";
    let (begin, end) = ("<!-- values: generated -->\n", "<!-- end of values -->");
    let text = fs::read_to_string(path).unwrap();
    let (before, rest) = text.split_once(begin).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    let wanted = format!("{before}{begin}\n{table}\n{end}{after}");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, &wanted).unwrap();
    }
    assert_eq!(fs::read_to_string(path).unwrap(), wanted, "write it anew with: UPDATE=1 cargo test --test it charts");
}

#[test]
fn the_schema_knows_exactly_the_values() {
    let schema: Value =
        serde_json::from_str(&fs::read_to_string("charts/redoubt/values.schema.json").unwrap()).unwrap();
    assert_same_fields("", &schema, &yaml("charts/redoubt/values.yaml"));
}

fn assert_same_fields(path: &str, schema: &Value, values: &Value) {
    let Some(fields) = schema["properties"].as_object() else { return };
    assert_eq!(schema["additionalProperties"], false, "{path} takes what nobody reads");
    // `resources` and `affinity` are Kubernetes' own: not all of their fields have a default.
    let is_ours = path != ".resources" && path != ".affinity";
    for (name, field) in fields {
        let is_there = values.get(name).is_some() || (path.is_empty() && name == "global");
        assert!(is_there || !is_ours, "{path}.{name} is in the schema only");
        assert_same_fields(&format!("{path}.{name}"), field, &values[name]);
    }
    for name in values.as_object().unwrap().keys() {
        assert!(fields.contains_key(name), "{path}.{name} is not in the schema");
    }
}
