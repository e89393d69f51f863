//! The control plane of this test process, started when the first claim asks for it: `control-plane` says what it consists of.
//! It ends with the process, whose end closes the pipe that the script reads.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::runtime::Runtime;

use crate::kubelet::Kubelet;

/// The control plane and what runs on it for all claims.
pub struct Plane {
    /// Its folder.
    pub folder: PathBuf,
    /// Runs the pods.
    pub kubelet: Arc<Kubelet>,
    /// The program.
    pub kubectl: PathBuf,
    /// Outlives every claim: kubelet and operators run in it.
    pub runtime: Runtime,
    /// Holds the other end of the script's standard input.
    _script: Child,
}

/// The control plane, with our definitions in place and pods that run.
pub fn plane() -> &'static Plane {
    static PLANE: OnceLock<Plane> = OnceLock::new();
    // A claim's runtime allows no other one to block its thread.
    PLANE.get_or_init(|| std::thread::spawn(Plane::start).join().unwrap())
}

impl Plane {
    fn start() -> Self {
        crate::kubelet::check_engines();
        let mut script = Command::new("tests/nodeless/control-plane")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the script tests/nodeless/control-plane starts");
        let lines = BufReader::new(script.stdout.take().unwrap()).lines().take(2).map_while(Result::ok);
        let lines: Vec<PathBuf> = lines.map(PathBuf::from).collect();
        let [folder, kubectl] = lines.try_into().expect("the control plane does not start: its words are above");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let kubelet = runtime.block_on(async {
            let client = client_of(&folder).await;
            crate::definitions::define(&client).await;
            Kubelet::run(&client, folder.clone())
        });
        Self { folder, kubelet, kubectl, runtime, _script: script }
    }

    /// A client for the claim's own runtime.
    pub async fn client(&self) -> Client {
        client_of(&self.folder).await
    }

    /// The configuration that leads to the API server.
    pub async fn config(&self) -> kube::Config {
        config_of(&self.folder).await
    }
}

async fn config_of(folder: &std::path::Path) -> kube::Config {
    let kubeconfig = Kubeconfig::read_from(folder.join("kubeconfig")).unwrap();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.default_retry = false;
    config
}

async fn client_of(folder: &std::path::Path) -> Client {
    Client::try_from(config_of(folder).await).unwrap()
}
