//! The operator's own numbers and its HTTP port: `/metrics`, `/healthz`, `/readyz`.
//!
//! The operator's own metrics are named here; labels come from closed sets (step, outcome, class). Those of objects are named in
//! `controller::object_metrics`. No label is an error text: those belong in status and events.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use prometheus::{Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

/// What can go wrong with the metrics and their port.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A metric could not be registered.
    #[error("cannot register the operator's metrics")]
    Register(#[from] prometheus::Error),
    /// The port is not to be had.
    #[error("cannot listen on {address}")]
    Listen {
        /// Address and port that it was to listen on.
        address: SocketAddr,
        /// What the kernel answered.
        source: std::io::Error,
    },
}

/// The operator's metrics; a clone shares them.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    passes: HistogramVec,
    steps: IntCounterVec,
    writes: IntCounterVec,
    leader: IntGauge,
    ready: Arc<AtomicBool>,
}

impl Metrics {
    /// Registers everything in a registry of its own.
    pub fn new() -> Result<Self, Error> {
        let passes = HistogramVec::new(
            HistogramOpts::new(
                "redoubt_reconcile_duration_seconds",
                "Time of one pass over one layer, by how it ended.",
            )
            .buckets(vec![0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0]),
            &["outcome"],
        )?;
        let steps = IntCounterVec::new(
            Opts::new("redoubt_steps_total", "Steps carried out, by kind of step and outcome."),
            &["step", "outcome"],
        )?;
        let writes = IntCounterVec::new(
            Opts::new("redoubt_api_writes_total", "Writes to the Kubernetes API, by what was written."),
            &["object"],
        )?;
        let leader = IntGauge::new("redoubt_leader", "1 while this replica leads.")?;
        let registry = Registry::new();
        registry.register(Box::new(passes.clone()))?;
        registry.register(Box::new(steps.clone()))?;
        registry.register(Box::new(writes.clone()))?;
        registry.register(Box::new(leader.clone()))?;
        Ok(Self { registry, passes, steps, writes, leader, ready: Arc::default() })
    }

    /// One pass over one layer has ended; `outcome` is `ok` or the class of the error.
    pub fn pass(&self, outcome: &str, took: Duration) {
        self.passes.with_label_values(&[outcome]).observe(took.as_secs_f64());
    }

    /// Counts a step by its name and outcome (`redoubt_steps_total`).
    pub fn step(&self, step: &str, outcome: &str) {
        self.steps.with_label_values(&[step, outcome]).inc();
    }

    /// One write to the Kubernetes API was made.
    pub(crate) fn write(&self, object: &str) {
        self.writes.with_label_values(&[object]).inc();
    }

    /// This replica leads for as long as the answer lives: work that is dropped has ended too.
    pub(crate) fn leads(&self) -> LeaderGuard {
        self.leader.set(1);
        LeaderGuard(self.leader.clone())
    }

    /// Answers with these metrics too, for as long as the answer lives. An error: some of their names are taken.
    pub(crate) fn include<C: prometheus::core::Collector + Clone + 'static>(
        &self,
        collector: &C,
    ) -> Result<IncludedMetrics, Error> {
        self.registry.register(Box::new(collector.clone()))?;
        let (registry, collector) = (self.registry.clone(), collector.clone());
        Ok(IncludedMetrics(Some(Box::new(move || {
            // Only what was registered is taken out: there is nothing else to do about an error.
            let _ = registry.unregister(Box::new(collector));
        }))))
    }

    /// Says that this replica has started (a candidate is ready too: it has to be counted by a rollout).
    pub(crate) fn ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Everything in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut text = Vec::new();
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8(text).unwrap_or_default()
    }
}

/// See [`Metrics::leads`].
#[must_use]
pub(crate) struct LeaderGuard(IntGauge);

impl Drop for LeaderGuard {
    fn drop(&mut self) {
        self.0.set(0);
    }
}

/// See [`Metrics::include`].
#[must_use]
pub(crate) struct IncludedMetrics(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Drop for IncludedMetrics {
    fn drop(&mut self) {
        if let Some(exclude) = self.0.take() {
            exclude();
        }
    }
}

/// Serves the port until the process ends.
pub(crate) async fn serve(metrics: Metrics, address: SocketAddr) -> Result<(), Error> {
    let listener = tokio::net::TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
    axum::serve(listener, routes(metrics)).await.map_err(|source| Error::Listen { address, source })
}

fn routes(metrics: Metrics) -> Router {
    Router::new()
        .route("/", get(|| async { "see /metrics, /healthz and /readyz\n" }))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(readiness))
        .route("/metrics", get(|State(metrics): State<Metrics>| async move { metrics.text() }))
        .with_state(metrics)
}

async fn readiness(State(metrics): State<Metrics>) -> (StatusCode, &'static str) {
    if metrics.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the Kubernetes API has not answered yet")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_writes_are_counted_by_closed_labels() {
        let metrics = Metrics::new().unwrap();
        metrics.step("RestartPod", "done");
        metrics.write("Service");
        let text = metrics.text();
        assert!(text.contains(r#"redoubt_steps_total{outcome="done",step="RestartPod"} 1"#), "{text}");
        assert!(text.contains(r#"redoubt_api_writes_total{object="Service"} 1"#), "{text}");
    }

    #[test]
    fn who_leads_does_so_until_the_work_is_dropped() {
        let metrics = Metrics::new().unwrap();
        let leads = metrics.leads();
        let is_told = |line: &str| metrics.text().lines().any(|told| told == line);
        assert!(is_told("redoubt_leader 1"));
        drop(leads);
        assert!(is_told("redoubt_leader 0"));
    }
}
