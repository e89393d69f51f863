//! The agent's port: probes for the kubelet, the record for peers, metrics for Prometheus. Nothing here changes anything.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::config::Environment;
use super::health::Health;
use super::state::State;
use super::{Error, Result, counters, exporter, port};
use crate::model::NodeKind;
use crate::model::node_config::AGENT_PORT;
use crate::redis::info::Info;
use crate::redis::{Connection, server};

/// How long the first answers wait for something better to say: the probes' `timeoutSeconds` is 1.
const FIRST_READY_WITHIN: Duration = Duration::from_millis(700);

#[derive(Clone)]
struct Context {
    state: Arc<State>,
    environment: Environment,
    /// The connection that scrapes ask over: opening one and logging in would cost more than the question.
    scraping: Arc<Mutex<Option<Connection>>>,
}

impl Context {
    /// Asks over the connection that is kept, and over a new one where that turns out to be dead; `None`: the server does not answer.
    async fn ask<T, F>(&self, question: impl Fn(Connection) -> F) -> Option<T>
    where
        F: Future<Output = crate::redis::Result<T>>,
    {
        let kept = self.scraping.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(connection) = kept {
            match question(connection).await {
                Ok(answer) => return Some(answer),
                Err(error) if error.class().is_alive() => return None,
                // Its server is another one by now, or it was cut.
                Err(_) => {}
            }
        }
        let connection = Connection::open(&self.state.own_endpoint(&self.environment)).await.ok()?;
        let answer = question(connection.clone()).await.ok()?;
        *self.scraping.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        Some(answer)
    }

    /// One `INFO`; `None`: the server does not answer it.
    async fn info(&self) -> Option<Info> {
        self.ask(|connection| async move { server::info_with_commands(&connection).await }).await
    }
}

/// Opens the port and serves until the process ends.
pub(crate) async fn serve(environment: &Environment, state: Arc<State>) -> Result<()> {
    let address = SocketAddr::new(environment.bind.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)), AGENT_PORT);
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        // A machine without IPv6.
        Err(_) if environment.bind.is_none() => TcpListener::bind(("0.0.0.0", AGENT_PORT))
            .await
            .map_err(|source| Error::Listen { address: address.to_string(), source })?,
        Err(source) => return Err(Error::Listen { address: address.to_string(), source }),
    };
    let router = Router::new()
        .route("/", get("see /metrics, /lineage, /audit, /counters, /health/ready and /health/live\n"))
        // The agent runs. The engine may load for as long as it takes: no probe limits that.
        .route("/health/started", get("ok"))
        .route("/health/ready", get(readiness))
        .route("/health/live", get(async |context| verdict(context, Health::is_live)))
        .route("/lineage", get(lineage))
        .route("/audit", get(audit))
        .route("/functions/{layer}", get(functions))
        .route("/metrics", get(metrics))
        .route("/counters", get(counted))
        .with_state(Context { state, environment: environment.clone(), scraping: Arc::default() });
    tokio::spawn(port::serve(listener, router, port::BOUNDS));
    Ok(())
}

async fn readiness(context: Shared<Context>) -> (StatusCode, String) {
    context.state.first_ready(FIRST_READY_WITHIN).await;
    verdict(context, Health::is_ready)
}

fn verdict(Shared(context): Shared<Context>, judge: fn(&Health, Duration) -> bool) -> (StatusCode, String) {
    let health = context.state.health();
    let status =
        if judge(&health, context.state.since_polled()) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let trouble = context.state.trouble().into_iter().chain(context.state.refusals());
    (status, std::iter::once(format!("{health:?}")).chain(trouble).map(|line| line + "\n").collect())
}

/// What the volume holds; unavailable before it was read: an answer without a record would say that it is empty, and a peer that has less
/// would go on without this node.
async fn lineage(Shared(context): Shared<Context>) -> Response {
    if !context.state.is_read() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    match serde_json::to_string(&context.state.lineage_answer()) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// What the last whole pass over the keys found; not found: there was none, or another node makes them.
async fn audit(Shared(context): Shared<Context>) -> Response {
    let Some(report) = context.state.audit() else { return StatusCode::NOT_FOUND.into_response() };
    match serde_json::to_string(report.as_ref()) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// The functions that the server had last; not found: there are none, or the agent is of another layer.
async fn functions(Shared(context): Shared<Context>, Path(layer): Path<String>) -> Response {
    let config = context.state.config();
    let is_kept = !config.keeps_data && config.node.kind == NodeKind::Data && config.layer.uid == layer;
    let dump = if is_kept { context.state.functions().read_in_time(&context.environment).await } else { None };
    match dump {
        Some(dump) => ([(header::CONTENT_TYPE, "application/octet-stream")], dump).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn metrics(Shared(context): Shared<Context>) -> Response {
    let (state, report) = (&context.state, context.state.audit());
    let known = exporter::AgentMetrics {
        hit_ratio: state.hit_ratio(),
        audit: report.as_deref(),
        repaired: state.repaired(),
        shrunk: state.shrunk(),
    };
    match exporter::render(context.info().await.as_ref(), known) {
        Ok(text) => {
            let text = text + &context.state.counters().render();
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// What the server's functions counted, up to this moment if the server answers.
async fn counted(Shared(context): Shared<Context>) -> Response {
    let counters = context.state.counters();
    let refresh = context.ask(|connection| async move { counters.refresh(&connection).await });
    // Without an answer what is known is told.
    let _ = timeout(counters::LAST_WITHIN, refresh).await;
    match serde_json::to_string(&counters.counted()) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
