//! What tests share: a layer of real processes on loopback, and a history of what its writers were promised.

pub mod bad_caches;
pub mod bad_layers;
pub mod bad_libraries;
pub mod bad_policies;
pub mod bad_stores;
pub mod bound_layer;
pub mod cache_calls;
pub mod cache_copies;
pub mod cache_models;
pub mod cluster;
pub mod cut_way;
pub mod engine_process;
pub mod figures;
pub mod function_calls;
pub mod function_clock;
pub mod history;
pub mod layer;
pub mod limit_calls;
pub mod limit_clock;
pub mod limit_models;
pub mod limit_programs;
pub mod session_calls;
pub mod slow_log;

use std::time::{Duration, Instant};

/// Polls until `condition` holds. Panics at the deadline with what was waited for.
pub async fn eventually(what: &str, within: Duration, mut condition: impl AsyncFnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}

/// Count, median and worst of a measurement, for people.
pub fn spread(mut figures: Vec<Duration>) -> String {
    figures.sort();
    let (median, worst) = (figures[figures.len() / 2], figures[figures.len() - 1]);
    format!("{} times, median {median:.2?}, worst {worst:.2?} of {figures:.2?}", figures.len())
}
