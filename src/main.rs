//! The `redoubt` binary: parses arguments and hands over.

use std::process::ExitCode;

use clap::Parser as _;
use redoubt::cli::{Arguments, run};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    redoubt::telemetry::start();
    run(arguments).await
}
