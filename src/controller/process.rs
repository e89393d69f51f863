//! The operator's process: its client, its signals, and what it does as leader and as stand-by.

use std::time::Duration;

use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::arguments::OperatorArguments;
use super::context::Duty;
use super::run::run_controllers;
use crate::act::secrets::RootKey;
use crate::api::names::OPERATOR;
use crate::failure::request;
use crate::lease::{self, Candidate, Stop, Timing};
use crate::metrics::{self, Metrics};
use crate::telemetry::Chain;

/// Name of the Secret with the root key.
const ROOT_KEY: &str = "redoubt-root-key";
/// Pause while the root key is not made: the first leader of a new installation does.
const ROOT_KEY_MISSING: Duration = Duration::from_secs(1);

/// Why the operator ended without being told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no way to the cluster.
    #[error("cannot find out how to reach Kubernetes")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// There is no way to the cluster.
    #[error("cannot find out how to reach Kubernetes")]
    Inferred(#[from] kube::config::InferConfigError),
    /// The client cannot be made.
    #[error("cannot make a Kubernetes client")]
    Client(#[source] Box<kube::Error>),
    /// The port or the metrics.
    #[error(transparent)]
    Metrics(#[from] metrics::Error),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] std::io::Error),
}

/// Runs the operator until it is told to stop.
pub(crate) async fn operate(arguments: OperatorArguments) -> Result<(), Error> {
    let client = client(&arguments).await?;
    let metrics = Metrics::new()?;
    let shutdown = shutdown()?;
    let candidate = Candidate {
        namespace: arguments.namespace.clone(),
        name: OPERATOR.to_owned(),
        identity: identity(&arguments),
        timing: Timing::lasting(Duration::from_secs(arguments.lease_duration)),
    };
    let parts = || (client.clone(), metrics.clone(), arguments.clone());
    let lead = |stop| {
        let (client, metrics, arguments) = parts();
        async move {
            let _leads = metrics.leads();
            run_leader(client, metrics, &arguments, stop).await;
        }
    };
    let run_standby = |stop| {
        let (client, metrics, arguments) = parts();
        async move { run_standby(client, metrics, &arguments, stop).await }
    };
    let leading = lease::lead(client.clone(), candidate, shutdown, lead, run_standby);
    let answering = log_when_ready(client.clone(), metrics.clone());
    tokio::select! {
        () = leading => Ok(()),
        ended = metrics::serve(metrics.clone(), arguments.listen) => Ok(ended?),
        () = answering => Ok(()),
    }
}

/// A client whose requests are not repeated behind our back: the loop is the retry.
async fn client(arguments: &OperatorArguments) -> Result<Client, Error> {
    let mut config = match &arguments.kubeconfig {
        Some(path) => {
            let kubeconfig = kube::config::Kubeconfig::read_from(path)?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?
        }
        None => kube::Config::infer().await?,
    };
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    Client::try_from(config).map_err(|source| Error::Client(Box::new(source)))
}

/// The pod's name, and what tells two runs of one container apart.
fn identity(arguments: &OperatorArguments) -> String {
    let host = || std::env::var("HOSTNAME").unwrap_or_else(|_| OPERATOR.to_owned());
    format!("{}_{:08x}", arguments.identity.clone().unwrap_or_else(host), rand::random::<u32>())
}

/// Becomes `true` at SIGTERM or SIGINT.
fn shutdown() -> Result<Stop, Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ = stop.send(true);
    });
    Ok(stopping)
}

/// Says ready once the API server has answered; never returns.
async fn log_when_ready(client: Client, metrics: Metrics) {
    while let Err(error) = request("read", "the version of the API server", client.apiserver_version()).await {
        tracing::warn!(error = %Chain(&error), "the API server does not answer");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    metrics.ready();
    std::future::pending::<()>().await;
}

/// The work of the leader: looks after all layers until told to stop.
async fn run_leader(client: Client, metrics: Metrics, arguments: &OperatorArguments, stop: Stop) {
    let root = match RootKey::load(client.clone(), &arguments.namespace, ROOT_KEY).await {
        Ok(root) => root,
        Err(error) => {
            tracing::error!(error = %Chain(&error), "cannot lead without the root key");
            return;
        }
    };
    run_controllers(client, metrics, root, Duty::Lead, arguments, stop).await;
}

/// What a replica does that does not lead, until told to stop or to lead.
async fn run_standby(client: Client, metrics: Metrics, arguments: &OperatorArguments, stop: Stop) {
    let root = loop {
        match RootKey::read(client.clone(), &arguments.namespace, ROOT_KEY).await {
            Ok(Some(root)) => break root,
            Ok(None) => tracing::debug!("there is no root key yet"),
            Err(error) => tracing::warn!(error = %Chain(&error), "cannot stand by without the root key"),
        }
        tokio::time::sleep(ROOT_KEY_MISSING).await;
    };
    run_controllers(client, metrics, root, Duty::Route, arguments, stop).await;
}
