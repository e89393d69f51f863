//! What an operator costs that looks after many uses: a process of its own, with a service account whose requests the API server
//! notes.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use redoubt::api::session_store::SessionStore;
use serde_json::json;

use crate::commands::kubectl;
use crate::place;
use crate::plane::plane;
use crate::test_namespace::{TestNamespace, engine};

const LAYERS: usize = 20;
/// For all of them to be Ready.
const READY_WITHIN: Duration = Duration::from_mins(40);

/// The operator as a process; it ends with this.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    fn start(namespace: &str) -> Self {
        kubectl(&["-n", namespace, "create", "serviceaccount", "operator"]);
        let account = format!("--serviceaccount={namespace}:operator");
        kubectl(&["create", "clusterrolebinding", namespace, "--clusterrole=cluster-admin", &account]);
        let token = kubectl(&["-n", namespace, "create", "token", "operator", "--duration=3h"]);
        let text = fs::read_to_string(plane().folder.join("kubeconfig")).unwrap();
        let lines = text.lines().map(|line| {
            if line.starts_with("users:") {
                format!("users: [{{name: redoubt, user: {{token: {token}}}}}]")
            } else {
                line.to_owned()
            }
        });
        let file = plane().folder.join("operator.yaml");
        fs::write(&file, lines.collect::<Vec<_>>().join("\n")).unwrap();
        let this_test = std::env::current_exe().unwrap();
        let mut command = Command::new(this_test.parent().unwrap().parent().unwrap().join("redoubt"));
        command.args(["operator", "--namespace", namespace, "--watch-namespace", namespace, "--listen", "127.0.0.1:0"]);
        command.arg("--kubeconfig").arg(&file).args([
            "--default-engine-image",
            engine(),
            "--agent-image",
            "localhost/redoubt:dev",
        ]);
        command
            .stderr(fs::File::create(plane().folder.join("log/scale-operator")).unwrap())
            .stdout(std::process::Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// A field of what the kernel says of its memory, in MiB.
    fn mebibytes(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_start_matches(':').trim().split(' ').next().unwrap().parse::<u64>().unwrap() >> 10
    }

    /// Its requests so far, watches counted when they end.
    fn requests(namespace: &str) -> usize {
        let user = format!("system:serviceaccount:{namespace}:operator\"");
        let audit = fs::read_to_string(plane().folder.join("log/audit")).unwrap();
        audit.lines().filter(|line| line.contains(&user) && line.contains("\"ResponseComplete\"")).count()
    }
}

/// How many stores are Ready for what they say now, and what the most others say.
async fn ready(stores: &Api<SessionStore>) -> (usize, String) {
    let mut others: BTreeMap<String, usize> = BTreeMap::new();
    // What the API server has in its cache, not what it asks etcd for.
    let all = stores.list(&ListParams::default().match_any()).await.unwrap();
    for store in &all {
        let condition =
            store.status.iter().flat_map(|status| &status.conditions).find(|condition| condition.type_ == "Ready");
        let said = match condition {
            Some(condition) if condition.observed_generation != store.metadata.generation => {
                "another generation".to_owned()
            }
            Some(condition) if condition.status == "True" => continue,
            Some(condition) => format!("{}: {}", condition.reason, condition.message),
            None => "nothing".to_owned(),
        };
        *others.entry(said.chars().filter(|letter| !letter.is_ascii_digit()).collect()).or_default() += 1;
    }
    let most = others.iter().max_by_key(|(_, count)| **count).map(|(said, count)| format!("{count} say {said}"));
    (all.items.len() - others.values().sum::<usize>(), most.unwrap_or_default())
}

fn store(number: usize) -> SessionStore {
    let (layer, name) = (format!("layer{}", number % LAYERS), format!("store{number}"));
    let body = json!({"apiVersion": "redoubt.dev/v1alpha1", "kind": "SessionStore", "metadata": {"name": name},
        "spec": {"layer": {"name": layer}, "idleTimeout": "30m"}});
    serde_json::from_value(body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a figure: make bench"]
async fn many_uses_on_twenty_layers_are_measured() {
    let uses = std::env::var("REDOUBT_USES").map_or(10_000, |text| text.parse().unwrap());
    let namespace = TestNamespace::create_with("nl-scale", place::operator_in("nl-scale").await).await;
    let (client, name): (Client, _) = (namespace.client.clone(), namespace.name.clone());
    let operator = Program::start(&name);
    let mut layers = Vec::new();
    for number in 0..LAYERS {
        layers.push(
            namespace
                .layer(&format!("layer{number}"), json!({"mode": "Standalone", "memory": {"limit": "128Mi"}}))
                .await,
        );
    }
    for layer in &layers {
        layer.ready().await;
    }
    println!("{LAYERS} layers, no use: {} MiB", operator.mebibytes("VmRSS"));
    let stores: Api<SessionStore> = Api::namespaced(client, &name);
    let began = Instant::now();
    let created = futures::stream::iter(0..uses).map(|number| {
        let stores = stores.clone();
        async move { stores.create(&PostParams::default(), &store(number)).await.unwrap() }
    });
    assert_eq!(created.buffer_unordered(8).count().await, uses);
    println!("{uses} uses created in {:.0?}", began.elapsed());
    loop {
        let (ready, others) = ready(&stores).await;
        println!("{ready} Ready after {:.0?}, {} MiB; {others}", began.elapsed(), operator.mebibytes("VmRSS"));
        if ready == uses {
            break;
        }
        assert!(began.elapsed() < READY_WITHIN);
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    // At rest: what status still says in steps is over.
    let mut last = Program::requests(&name);
    for minute in 0..4 {
        tokio::time::sleep(Duration::from_mins(1)).await;
        let now = Program::requests(&name);
        println!(
            "minute {minute}: {} requests, {} MiB, at most {}",
            now - last,
            operator.mebibytes("VmRSS"),
            operator.mebibytes("VmHWM")
        );
        last = now;
    }
    for number in (0..uses).step_by((uses / 10).max(1)) {
        let (name, began) = (format!("store{number}"), Instant::now());
        let patch = Patch::Merge(json!({"spec": {"idleTimeout": "31m"}}));
        stores.patch(&name, &PatchParams::default(), &patch).await.unwrap();
        let proven = async || {
            let store = stores.get(&name).await.unwrap();
            let conditions = store.status.into_iter().flat_map(|status| status.conditions);
            conditions.into_iter().any(|condition| {
                condition.type_ == "Ready"
                    && condition.status == "True"
                    && condition.observed_generation == store.metadata.generation
            })
        };
        crate::eventually("the changed use is proven", Duration::from_mins(2), proven).await;
        println!("{name} changed and proven in {:.2?}", began.elapsed());
    }
    kubectl(&["delete", "clusterrolebinding", &name]);
    stores.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    namespace.delete().await;
}
