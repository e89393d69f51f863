//! Tests that need no Kubernetes: pure ones, and those against real engine processes on loopback.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs)]

mod agent_process;
mod boot_rule;
mod custom_resources;
mod imports;
#[path = "../support/mod.rs"]
mod support;
