//! Asking an agent what it knows of its node (`GET /lineage`). For the other agents, and for the operator.

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use crate::model::lineage::LineageAnswer;
use crate::model::node_config::AGENT_PORT;

/// A record is some 400 bytes, a chain of histories 3 kB.
const LARGEST_ANSWER: usize = 64 * 1024;

/// The answer of the agent at an IP address; `None`: there is none, or it is no such answer. Not bounded in time.
pub async fn fetch(address: &str) -> Option<LineageAnswer> {
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let uri = format!("http://{host}:{AGENT_PORT}/lineage").parse().ok()?;
    let response = client.get(uri).await.ok()?;
    let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await.ok()?;
    serde_json::from_slice(&body.to_bytes()).ok()
}
