//! The command line: what a person or a pod may ask this binary to do. Parses and starts; the work is elsewhere.
#![expect(clippy::print_stderr, clippy::print_stdout, reason = "this is where the program speaks to a person")]

use std::error::Error as StdError;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use crate::controller::OperatorArguments;
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
    /// Run next to an engine, as process 1 of its pod.
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
        /// Where the file `redoubt` is written to.
        directory: PathBuf,
    },
}

/// Runs the command. Errors are printed with their whole chain of causes.
pub async fn run(arguments: Arguments) -> ExitCode {
    let result: Result<(), Box<dyn StdError>> = match arguments.command {
        Command::Operator(arguments) => Box::pin(controller::operate(arguments)).await.map_err(Into::into),
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
