//! The only place where the steps meet: when a pass is made, and what follows from its end.

mod absences;
mod arguments;
pub(crate) mod backoff;
mod cluster_domain;
pub(crate) mod config_maps;
pub mod context;
mod error;
mod handovers;
mod kinds;
mod layer;
mod object_metrics;
mod observation;
mod pace;
mod process;
mod publish;
mod reconcile;
mod rejections;
mod run;
pub(crate) mod secret_cache;
mod turns;
pub mod uses;
mod watch_pauses;
mod watches;

pub use self::arguments::OperatorArguments;
pub use self::process::Error;
pub(crate) use self::process::operate;
pub use self::run::run_controllers;
