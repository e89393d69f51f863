//! Tests that need no Kubernetes: pure ones, and those against real engine processes on loopback.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs)]

mod agent_addresses;
mod agent_files;
mod agent_process;
mod agent_restarts;
mod boot_rule;
mod boot_rule_worlds;
mod charts;
mod custom_resources;
mod default_user;
mod directives;
mod docs;
mod docs_reference;
mod freshest;
mod golden;
mod image;
mod imports;
mod lease;
mod observed_servers;
mod parsers;
mod planner;
mod planner_properties;
mod planner_rules;
mod probes;
mod redis_server;
mod redis_users;
mod report;
mod report_events;
mod rights;
mod scrape_cost;
mod sentinel_users;
mod session_stores;
mod sessions_bounds;
mod sessions_cost;
mod sessions_functions;
mod sessions_model;
mod sessions_races;
mod sessions_refusals;
mod stock_clients;
mod store_report;
mod store_users;
#[path = "../support/mod.rs"]
mod support;
mod switchover;
mod world;
