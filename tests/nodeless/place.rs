//! The control plane of this process, and the operators on it: one for each claim's namespace, so that claims run side by side and
//! each may do to its own what it wants. A claim about several namespaces has one for all, and runs alone.

use std::collections::BTreeMap;
use std::sync::Mutex;

use kube::api::{Api, DeleteParams, ListParams};
use kube::{Client, ResourceExt as _};
use redoubt::api::data_layer::DataLayer;
use redoubt::metrics::Metrics;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::faults::Faults;
use crate::operator::{Operator, Scope};
use crate::plane::plane;
use crate::test_namespace::LEFT;

/// Taken for reading by a claim whose operator watches one namespace, and for writing by one whose operator watches all.
static SCOPES: std::sync::LazyLock<std::sync::Arc<RwLock<()>>> = std::sync::LazyLock::new(Default::default);
/// The running operators by namespace; that of all has no name.
static OPERATORS: Mutex<BTreeMap<String, Operator>> = Mutex::new(BTreeMap::new());

/// Whether what a claim made ends with it, without a request to the API server.
pub const ENDS_WITH_THE_CLAIM: bool = true;

/// The operator's service for a claim. With it end the operator and the pods of the claim's namespace, unless its layer is left to
/// the next claim.
pub struct Service {
    namespace: String,
    scope: Taken,
    is_left: bool,
}

enum Taken {
    /// One namespace.
    BesideOthers { _guard: OwnedRwLockReadGuard<()> },
    /// All.
    Alone { _guard: OwnedRwLockWriteGuard<()> },
}

impl Service {
    /// Keeps operator and pods.
    pub fn leave(&mut self) {
        self.is_left = true;
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.is_left {
            return;
        }
        match self.scope {
            Taken::BesideOthers { .. } => end(&self.namespace),
            Taken::Alone { .. } => {
                stop_operator("");
                plane().kubelet.abandon_all();
            }
        }
    }
}

fn end(namespace: &str) {
    stop_operator(namespace);
    plane().kubelet.abandon(namespace);
}

/// A client of the API server.
pub async fn client() -> Client {
    plane().client().await
}

/// Starts an operator for a namespace.
pub async fn operator_of(namespace: &str) -> Service {
    let service = operator_in(namespace).await;
    start_operator(namespace);
    service
}

/// The operator of a namespace that has one already.
pub async fn operator_in(namespace: &str) -> Service {
    let scope = Taken::BesideOthers { _guard: SCOPES.clone().read_owned().await };
    plane().kubelet.adopt(namespace);
    Service { namespace: namespace.to_owned(), scope, is_left: false }
}

/// Starts an operator for all namespaces, once no other claim is under way.
pub async fn operator_of_all() -> Service {
    let scope = Taken::Alone { _guard: SCOPES.clone().write_owned().await };
    // Layers that were left have operators of their own.
    for layer in std::mem::take(&mut *LEFT.lock().unwrap()) {
        end(&layer.namespace);
    }
    // Those of claims that have ended have no pods any more, and no primary comes back.
    let client = client().await;
    let all = Api::<DataLayer>::all(client.clone()).list(&ListParams::default()).await.unwrap();
    for layer in all {
        let layers: Api<DataLayer> = Api::namespaced(client.clone(), &layer.namespace().unwrap());
        layers.delete(&layer.name_any(), &DeleteParams::default()).await.unwrap();
    }
    start(Scope::All, Faults::default(), "");
    Service { namespace: String::new(), scope, is_left: false }
}

/// Ends the operator of all namespaces as a process that is killed, and starts another.
pub fn replace_operator_of_all() {
    start(Scope::All, Faults::default(), "");
}

/// Starts the operator of a namespace (again).
pub fn start_operator(namespace: &str) {
    start_operator_with(namespace, Faults::default());
}

/// Starts the operator of a namespace (again), with these faults from its first request.
pub fn start_operator_with(namespace: &str, faults: Faults) {
    start(Scope::Namespace(namespace.to_owned()), faults, namespace);
}

fn start(scope: Scope, faults: Faults, name: &str) {
    stop_operator(name);
    // In the runtime that outlives the claim, as its layer may.
    let start = || plane().runtime.block_on(Operator::start_with(scope, faults));
    let operator = std::thread::scope(|threads| threads.spawn(start).join().unwrap());
    OPERATORS.lock().unwrap().insert(name.to_owned(), operator);
}

/// Ends the operator of a namespace in the middle of what it does, as a process that is killed.
pub fn stop_operator(namespace: &str) {
    drop(OPERATORS.lock().unwrap().remove(namespace));
}

/// What the client of a namespace's operator meets.
pub fn faults(namespace: &str) -> Faults {
    OPERATORS.lock().unwrap()[namespace].faults.clone()
}

/// Lets the pods of a namespace see their Secrets as they are now.
pub async fn refresh_secrets(namespace: &str) {
    plane().kubelet.refresh_secrets(namespace).await;
}

/// The metrics of a namespace's operator.
pub fn metrics(namespace: &str) -> Metrics {
    OPERATORS.lock().unwrap()[namespace].metrics.clone()
}

/// How many passes the operator of a namespace made, by outcome; empty where it is that of all, or gone.
pub fn passes(namespace: &str) -> String {
    let text = OPERATORS.lock().unwrap().get(namespace).map(|operator| operator.metrics.text()).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.strip_prefix("redoubt_reconcile_duration_seconds_count"));
    lines.collect::<Vec<_>>().join(" ")
}

/// Removes everything on the volume of a pod while its server runs. Its agent writes there meanwhile, so a folder may be filled again
/// before it is removed.
pub fn wipe(namespace: &str, pod: &str) {
    let data = plane().kubelet.folders(namespace, pod)["data"].clone();
    let script = r#"cd "$1" && for try in $(seq 100); do rm -rf -- ..?* .[!.]* * 2> /dev/null && exit 0; done; exit 1"#;
    let wiped = std::process::Command::new("sh").args(["-c", script, "sh"]).arg(&data).status().unwrap();
    assert!(wiped.success(), "{}", data.display());
}

/// What a pod has logged so far; empty where it does not run.
pub fn log(namespace: &str, pod: &str) -> String {
    plane().kubelet.log(namespace, pod)
}

/// Sends a signal to a process of a pod.
pub fn signal(namespace: &str, pod: &str, signal: &str, process: &str) {
    plane().kubelet.signal(namespace, pod, signal, process);
}
