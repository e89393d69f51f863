//! Tests that need no Kubernetes: pure ones, and those against real engine processes on loopback.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs)]

mod agent_process;
mod boot_rule;
mod custom_resources;
mod directives;
mod docs;
mod golden;
mod image;
mod imports;
mod parsers;
mod planner;
mod planner_properties;
mod planner_rules;
mod redis_server;
mod redis_users;
mod scrape_cost;
mod stock_clients;
#[path = "../support/mod.rs"]
mod support;
mod switchover;
mod world;
