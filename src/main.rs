//! The `redoubt` binary: parses arguments and hands over.

use std::process::ExitCode;

fn main() -> ExitCode {
    redoubt::cli::main()
}
