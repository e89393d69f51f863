//! The command line.
#![expect(clippy::print_stderr, clippy::print_stdout, reason = "this is where the program speaks to a person")]

use std::error::Error as StdError;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{agent, api};

/// The operator for the Redis data layer.
#[derive(Debug, Parser)]
#[command(name = "redoubt", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
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
    /// Print the custom resource definitions, as YAML.
    Crds,
    /// Copy this program into a folder.
    Install {
        /// The folder.
        directory: PathBuf,
    },
}

/// Runs the command. Errors are printed with their whole chain of causes.
pub async fn run(arguments: Arguments) -> ExitCode {
    let result: Result<(), Box<dyn StdError>> = match arguments.command {
        Command::Agent { data, config, secrets, run, bind } => {
            agent::run(agent::Environment { data, config, secrets, run, bind }).await.map_err(Into::into)
        }
        Command::Install { directory } => agent::install::install(&directory).map_err(Into::into),
        Command::Crds => print_definitions().map_err(Into::into),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = chain(error.as_ref());
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

fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
