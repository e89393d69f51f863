//! Asking an agent what it knows of its node (`GET /lineage`), what its server counted (`GET /counters`), what is in the keys
//! (`GET /audit`), and which functions it had (`GET /functions`). For the other agents, and for the operator.

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;

use crate::model::audit::{AUDIT_FORMAT, AuditReport};
use crate::model::counters::{CounterRows, MOST_ROWS};
use crate::model::lineage::LineageAnswer;
use crate::model::node_config::AGENT_PORT;

/// A record is some 400 bytes, a chain of histories 3 kB.
const LARGEST_RECORD: usize = 64 * 1024;
/// A row of counters is some 100 bytes, and 400 with the longest names.
const LARGEST_COUNTERS: usize = 400 * MOST_ROWS;
/// A prefix with its counts is some 200 bytes.
const LARGEST_REPORT: usize = 4 << 20;
/// 500 policies of 16 limits each are some 100 kB.
const LARGEST_FUNCTIONS: usize = 16 << 20;

/// The record of the agent at an IP address; `None`: there is none, or it is no such answer. Not bounded in time.
pub(crate) async fn fetch(address: &str) -> Option<LineageAnswer> {
    get(address, "lineage", LARGEST_RECORD).await
}

/// What the server of the agent at an IP address counted; the agent reads that first. `None`: as for [`fetch`]. Not bounded in time.
pub async fn counted(address: &str) -> Option<CounterRows> {
    get(address, "counters", LARGEST_COUNTERS).await
}

/// What the agent at an IP address found in the keys of its server; `None`: as for [`fetch`], or it is of a later form. Not bounded in
/// time.
pub async fn fetch_audit(address: &str) -> Option<AuditReport> {
    let report: AuditReport = get(address, "audit", LARGEST_REPORT).await?;
    (report.format <= AUDIT_FORMAT).then_some(report)
}

/// The functions that the server of the agent at an IP address had last (`FUNCTION DUMP`), of this layer and no other. `None`: as for
/// [`fetch`], or it keeps none. Not bounded in time.
pub async fn functions(address: &str, layer_uid: &str) -> Option<Bytes> {
    body(address, &format!("functions/{layer_uid}"), LARGEST_FUNCTIONS).await
}

async fn get<T: DeserializeOwned>(address: &str, path: &str, largest: usize) -> Option<T> {
    serde_json::from_slice(&body(address, path, largest).await?).ok()
}

async fn body(address: &str, path: &str, largest: usize) -> Option<Bytes> {
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let uri = format!("http://{host}:{AGENT_PORT}/{path}").parse().ok()?;
    let response = client.get(uri).await.ok().filter(|response| response.status().is_success())?;
    Some(Limited::new(response.into_body(), largest).collect().await.ok()?.to_bytes())
}
