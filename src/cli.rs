//! The command line: what a person or a pod may ask this binary to do.
//!
//! Parses and starts; the work is elsewhere. The only module beside tests that may print.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::telemetry::{self, Chain};

/// The Kubernetes operator for the Redis data layer.
#[derive(Debug, Parser)]
#[command(name = "redoubt", version, about, max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the operator: keeps every DataLayer as it is declared.
    Operator(OperatorArguments),
    /// Runs process 1 of a data or Sentinel pod.
    Agent,
    /// Copies this binary into a folder (the init container of every pod).
    Install {
        /// The folder.
        directory: PathBuf,
    },
    /// Prints the custom resource definitions as YAML.
    Crds,
    /// Prints the version.
    Version,
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
    /// Name of this replica in the Lease; without it, the host name.
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,
    /// Layers that are looked after at the same time.
    #[arg(long, default_value_t = 4)]
    pub concurrency: u16,
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    #[arg(long, env = "REDOUBT_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
}

/// Does what the command line asks for.
pub fn main() -> ExitCode {
    match CommandLine::parse().command {
        Command::Operator(arguments) => run(crate::controller::operate(arguments)),
        Command::Agent => agent(),
        Command::Install { directory } => install(&directory),
        Command::Crds => crds(),
        Command::Version => {
            print(env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
    }
}

/// Runs the operator to its end and says how it ended.
fn run<E: std::error::Error + 'static>(work: impl Future<Output = Result<(), E>>) -> ExitCode {
    telemetry::start();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match runtime.block_on(work) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    tracing::error!(error = %Chain(error), "ended");
    ExitCode::FAILURE
}

#[expect(clippy::print_stdout, reason = "the command line's answer")]
fn print(text: &str) {
    println!("{text}");
}
