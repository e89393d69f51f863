//! The command line: what a person or a pod may ask this binary to do. Parses and starts; the work is elsewhere.
#![expect(clippy::print_stderr, clippy::print_stdout, reason = "this is where the program speaks to a person")]

use std::error::Error as StdError;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::telemetry::Chain;
use crate::{agent, api, check, controller, demo};

/// The operator for the Redis data layer.
#[derive(Debug, Parser)]
#[command(name = "redoubt", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator: keep every DataLayer as it is declared.
    Operator(OperatorArguments),
    /// Run beside an engine, as process 1 of its pod.
    Agent {
        /// The node's volume.
        #[arg(long, default_value = "/data")]
        data: PathBuf,
        /// The node-config document.
        #[arg(long, default_value = "/etc/redoubt/node/config.json")]
        config: PathBuf,
        /// Folder of the secrets.
        #[arg(long, default_value = "/etc/redoubt/secrets")]
        secrets: PathBuf,
        /// Folder for rendered files.
        #[arg(long, default_value = "/run/redoubt")]
        run: PathBuf,
        /// Address to listen on; all, if not given.
        #[arg(long)]
        bind: Option<IpAddr>,
    },
    /// Ask a page of an operator's HTTP port for up to 40 s until it answers 200. What `helm test` runs.
    Check {
        /// The page: `http://HOST:8080/readyz`.
        url: hyper::Uri,
    },
    /// Print the custom resource definitions, as YAML.
    Crds,
    /// Act as an application of a session store or a rate limit policy, for `make demo`: take one step and print what came of it as JSON.
    Demo {
        /// Folder in which the store's binding is mounted.
        #[arg(long, default_value = "/bindings/web")]
        binding: PathBuf,
        #[command(subcommand)]
        step: demo::Step,
    },
    /// Copy this program into a folder.
    Install {
        /// The folder.
        directory: PathBuf,
    },
}

/// Arguments of `redoubt operator`.
#[derive(Clone, Debug, Args)]
pub struct OperatorArguments {
    /// Kubeconfig file; without it, the pod's service account or the usual places.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the operator itself: its Lease and its root key are there.
    #[arg(long, env = "REDOUBT_NAMESPACE", default_value = "redoubt-system")]
    pub namespace: String,
    /// Watch this namespace only; without it, all.
    #[arg(long, env = "REDOUBT_WATCH_NAMESPACE")]
    pub watch_namespace: Option<String>,
    /// Engine image of layers that name none. Recorded for each layer at its creation: a change affects new layers only.
    #[arg(long, env = "REDOUBT_DEFAULT_ENGINE_IMAGE", default_value = "docker.io/valkey/valkey:8.1")]
    pub default_engine_image: String,
    /// Image that the pods copy their agent from: this operator's own. Recorded like the engine image.
    #[arg(long, env = "REDOUBT_AGENT_IMAGE")]
    pub agent_image: String,
    /// Domain of the cluster's Services, which bindings name: `cluster.local`. Without it, what this pod's `/etc/resolv.conf` says.
    #[arg(long, env = "REDOUBT_CLUSTER_DOMAIN")]
    pub cluster_domain: Option<String>,
    /// Name of this replica in the Lease; without it, the host name.
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,
    /// Seconds that a leader is respected after its last sign of life, 3 to 60. Shorter: a leader that is lost with its node is
    /// replaced sooner. Longer: one that an API server answers slowly keeps its place.
    #[arg(long, env = "REDOUBT_LEASE_DURATION", default_value_t = 6, value_parser = clap::value_parser!(u64).range(3..=60))]
    pub lease_duration: u64,
    /// Layers that are looked after at the same time.
    #[arg(long, default_value_t = 4)]
    pub concurrency: u16,
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    #[arg(long, env = "REDOUBT_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
}

/// Runs the command. Errors are printed with their whole chain of causes.
pub async fn run(arguments: Arguments) -> ExitCode {
    let result: Result<(), Box<dyn StdError>> = match arguments.command {
        Command::Operator(arguments) => controller::operate(arguments).await.map_err(Into::into),
        Command::Agent { data, config, secrets, run, bind } => {
            agent::run(agent::Environment { data, config, secrets, run, bind }).await.map_err(Into::into)
        }
        Command::Install { directory } => agent::install::install(&directory).map_err(Into::into),
        Command::Check { url } => check::check_soon(&url).await.map_err(Into::into),
        Command::Crds => print_definitions().map_err(Into::into),
        Command::Demo { binding, step } => demo::take(&step, binding).await.map_err(Into::into),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = Chain(error.as_ref()).to_string();
            eprintln!("redoubt: {text}");
            // Kubernetes shows this in the pod's status; outside of a pod there is no such file.
            let _ = std::fs::write("/dev/termination-log", text);
            ExitCode::FAILURE
        }
    }
}

fn print_definitions() -> Result<(), serde_saphyr::ser::Error> {
    for definition in api::custom_resource_definitions() {
        print!("---\n{}", serde_saphyr::to_string(&definition)?);
    }
    Ok(())
}
