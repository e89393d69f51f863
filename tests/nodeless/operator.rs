//! The operator in this process: its controllers as the leader runs them, with a client that can be made to fail.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, Patch, PatchParams};
use kube::client::ClientBuilder;
use redoubt::act::secrets::RootKey;
use redoubt::cli::OperatorArguments;
use redoubt::controller::{self, context::Duty};
use redoubt::metrics::Metrics;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::faults::Faults;
use crate::plane::plane;

/// Namespace of the operator.
pub const OPERATOR_NAMESPACE: &str = "redoubt-system";

/// Claims begin at once, and of two operators that make the root key one fails, as a replica would, which starts again.
static ROOT: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// What an operator watches.
#[derive(Clone, Debug)]
pub enum Scope {
    /// Every namespace. One such operator at most, and none with another scope meanwhile.
    All,
    /// One namespace.
    Namespace(String),
}

/// A running operator. It ends when dropped, in the middle of what it does, as a process that is killed.
pub struct Operator {
    /// What its client meets.
    pub faults: Faults,
    /// Its own count of what it wrote.
    pub metrics: Metrics,
    running: JoinHandle<()>,
    _stop: watch::Sender<bool>,
}

impl Operator {
    /// Starts one in the runtime that calls this.
    pub async fn start(scope: Scope) -> Self {
        Self::start_with(scope, Faults::default()).await
    }

    /// Starts one whose client meets these faults from the beginning.
    pub async fn start_with(scope: Scope, faults: Faults) -> Self {
        let config = plane().config().await;
        let plain = kube::Client::try_from(config.clone()).unwrap();
        let namespaces: Api<Namespace> = Api::all(plain.clone());
        let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OPERATOR_NAMESPACE}});
        let parameters = PatchParams::apply("redoubt-tests").force();
        namespaces.patch(OPERATOR_NAMESPACE, &parameters, &Patch::Apply(&space)).await.unwrap();
        let _one_at_a_time = ROOT.lock().await;
        let root = RootKey::load(plain, OPERATOR_NAMESPACE, "redoubt-root-key").await.unwrap();
        let client = ClientBuilder::try_from(config).unwrap().with_layer(&faults).build();
        let metrics = Metrics::new().unwrap();
        let (stop, stopped) = watch::channel(false);
        let arguments = OperatorArguments {
            cluster_domain: None,
            kubeconfig: None,
            namespace: OPERATOR_NAMESPACE.to_owned(),
            watch_namespace: match scope {
                Scope::All => None,
                Scope::Namespace(name) => Some(name),
            },
            default_engine_image: crate::test_namespace::engine().to_owned(),
            allowed_images: Vec::new(),
            forbid_dedicated: false,
            agent_image: "localhost/redoubt:dev".to_owned(),
            identity: None,
            lease_duration: 6,
            concurrency: 4,
            listen: ([127, 0, 0, 1], 0).into(),
        };
        let work = metrics.clone();
        let running = tokio::spawn(async move {
            controller::run_controllers(client, work, root, Duty::Lead, &arguments, stopped).await;
        });
        Self { faults, metrics, running, _stop: stop }
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.running.abort();
    }
}
