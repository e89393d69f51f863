//! The only place where the steps meet: when a pass is made, and what follows from its end.

mod absences;
mod arguments;
pub mod backoff;
mod cluster_domain;
pub mod config_maps;
pub mod context;
mod error;
mod handovers;
mod kinds;
mod layer;
mod object_metrics;
mod pace;
mod process;
mod publish;
mod reconcile;
mod rejections;
mod run;
pub mod secret_cache;
mod seen;
pub mod uses;
mod watch_pauses;
mod watches;

pub use self::arguments::OperatorArguments;
pub use self::process::{Error, operate};
pub use self::run::run_controllers;
