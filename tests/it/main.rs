//! Tests that need no Kubernetes: pure ones, and those against real engine processes on loopback.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod boot_rule;
