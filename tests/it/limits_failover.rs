//! What a limit admits too much when its primary dies, while no operator is there: what was counted and had not reached the replica
//! that is elected, so rate × lag. And when all pods are replaced: everything is forgotten, and no call meets a primary without
//! functions.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::{Value, cmd};
use redoubt::dataplane::{built_in_libraries, limit_library};
use redoubt::model::NodeId;
use redoubt::model::limit_policy::Algorithm;
use redoubt::model::node_config::FUNCTIONS_FILE;
use redoubt::redis::{Connection, Endpoint};
use tokio::task::JoinHandle;

use crate::support::eventually;
use crate::support::layer::{Layer, Options};
use crate::support::limit_calls::{MINUTE, limit_call, single};

const QUOTA: u64 = 6_000;
const CALLERS: usize = 8;
const SOON: Duration = Duration::from_mins(1);
/// How long the replicas are cut off before the primary dies.
const CUT: Duration = Duration::from_millis(300);

/// One decision that a caller was told.
#[derive(Clone, Copy, Debug)]
struct Decision {
    at: Instant,
    by: NodeId,
    allowed: bool,
    /// What of the quota is used by then.
    used: u64,
}

/// Callers of one subject, who ask the primary wherever it is, until each was denied or all are told to stop.
struct Callers {
    decisions: Arc<Mutex<Vec<Decision>>>,
    without_functions: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

/// The node among these that says it is primary, and a connection to it.
async fn primary_of(nodes: &[(NodeId, Endpoint)]) -> Option<(NodeId, Connection)> {
    for (id, endpoint) in nodes {
        let Ok(connection) = Connection::open(endpoint).await else { continue };
        if is_primary(&connection).await {
            return Some((*id, connection));
        }
    }
    None
}

async fn is_primary(connection: &Connection) -> bool {
    matches!(
        connection.query::<Vec<Value>>(&cmd("ROLE")).await.as_deref(),
        Ok([Value::BulkString(role), ..]) if role == b"master"
    )
}

impl Callers {
    fn start(layer: &Layer, subject: &str) -> Self {
        let nodes: Vec<(NodeId, Endpoint)> = layer.data_ids().into_iter().map(|id| (id, layer.endpoint(id))).collect();
        let mut callers = Self {
            decisions: Arc::default(),
            without_functions: Arc::default(),
            stop: Arc::default(),
            tasks: Vec::new(),
        };
        for _ in 0..CALLERS {
            let (decisions, stop) = (Arc::clone(&callers.decisions), Arc::clone(&callers.stop));
            let (without_functions, nodes) = (Arc::clone(&callers.without_functions), nodes.clone());
            let call = limit_call(&format!("api:{{{subject}}}"), &[]);
            callers.tasks.push(tokio::spawn(async move {
                let mut place = None;
                while !stop.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    if place.is_none() {
                        place = primary_of(&nodes).await;
                    }
                    let Some((by, connection)) = &place else { continue };
                    match connection.query::<(i64, u64, u64, i64, i64, String)>(&call).await {
                        Ok((allowed, limit, remaining, ..)) => {
                            let decision = Decision {
                                at: Instant::now(),
                                by: *by,
                                allowed: allowed == 1,
                                used: limit - remaining,
                            };
                            decisions.lock().unwrap().push(decision);
                            if allowed == 0 {
                                break;
                            }
                        }
                        Err(error) => {
                            if format!("{error:?}").contains("not found") && is_primary(connection).await {
                                without_functions.fetch_add(1, Ordering::Relaxed);
                            }
                            place = None;
                        }
                    }
                }
            }));
        }
        callers
    }

    fn admitted(&self) -> u64 {
        u64::try_from(self.decisions.lock().unwrap().iter().filter(|decision| decision.allowed).count()).unwrap()
    }

    async fn have_spent_half(&self) {
        eventually("half of the quota is used", SOON, async || self.admitted() > QUOTA / 2).await;
    }

    /// Waits until each caller was denied; the decisions of all, in order.
    async fn denied(self) -> Vec<Decision> {
        for task in self.tasks {
            tokio::time::timeout(SOON, task).await.expect("a caller is never denied").unwrap();
        }
        assert_eq!(self.without_functions.load(Ordering::Relaxed), 0, "calls met a primary without functions");
        let mut decisions = self.decisions.lock().unwrap().clone();
        decisions.sort_by_key(|decision| decision.at);
        decisions
    }
}

/// The longest time between two decisions.
fn gap(decisions: &[Decision]) -> Duration {
    decisions.windows(2).map(|pair| pair[1].at - pair[0].at).max().unwrap()
}

/// What one killed primary cost.
struct Cost {
    /// Admitted above the quota.
    over: i64,
    /// Decisions that callers were told by the old primary, and that the new one does not know.
    forgotten: u64,
    /// How old the first of those was when the last was told.
    lag: Duration,
    /// Decisions of a second, in the last one before the kill.
    rate: usize,
    gap: Duration,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { over, forgotten, lag, rate, gap } = self;
        write!(formatter, "{over} of {QUOTA} too many, {forgotten} forgotten, lag {lag:.0?}, {rate}/s, gap {gap:.2?}")
    }
}

fn cost(decisions: &[Decision], primary: NodeId) -> Cost {
    let (old, new): (Vec<&Decision>, Vec<&Decision>) = decisions.iter().partition(|decision| decision.by == primary);
    let known = new.iter().map(|decision| decision.used).min().unwrap() - 1;
    let last = old.iter().map(|decision| decision.at).max().unwrap();
    let forgotten: Vec<&&Decision> = old.iter().filter(|decision| decision.used > known).collect();
    let first = forgotten.iter().map(|decision| decision.at).min();
    let admitted = decisions.iter().filter(|decision| decision.allowed).count();
    Cost {
        over: i64::try_from(admitted).unwrap() - i64::try_from(QUOTA).unwrap(),
        forgotten: u64::try_from(forgotten.len()).unwrap(),
        lag: first.map_or(Duration::ZERO, |first| last - first),
        rate: old.iter().filter(|decision| last - decision.at < Duration::from_secs(1)).count(),
        gap: gap(decisions),
    }
}

async fn layer() -> Layer {
    let layer = Layer::in_sync(&Options { keeps_data: false, min_replicas: 0, ..Options::default() }).await;
    layer.mark_initialised();
    let policy = single("api", Algorithm::FixedWindowFromFirstHit, QUOTA, 60 * MINUTE);
    let library = limit_library(&[policy]);
    let sources: Vec<String> = built_in_libraries().into_iter().chain([library]).map(|it| it.source).collect();
    let text = serde_json::to_string(&sources).unwrap();
    for id in layer.data_ids() {
        fs::write(layer.data(id).with_file_name("secrets").join(FUNCTIONS_FILE), &text).unwrap();
    }
    // The servers start with what the operator left.
    layer.data_ids().into_iter().for_each(|id| layer.kill_engine(id));
    layer.wait_until_in_sync().await;
    layer
}

fn kills() -> usize {
    std::env::var("REDOUBT_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_primary_forgets_at_most_what_had_not_reached_a_replica() {
    let layer = layer().await;
    for round in 0..kills() {
        let callers = Callers::start(&layer, &format!("kill{round}"));
        callers.have_spent_half().await;
        let primary = layer.primary().await.unwrap();
        layer.kill_engine(primary);
        let cost = cost(&callers.denied().await, primary);
        println!("primary killed: {cost}");
        // Of each caller at most the call that was answered last: the server sends replies and replicas' copies together.
        assert!(cost.over <= i64::try_from(CALLERS).unwrap(), "{cost}");
        layer.wait_until_in_sync().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_whose_replicas_lag_forgets_rate_times_lag_and_no_more() {
    let layer = layer().await;
    for round in 0..kills() {
        let callers = Callers::start(&layer, &format!("lag{round}"));
        callers.have_spent_half().await;
        let primary = layer.primary().await.unwrap();
        let replicas: Vec<NodeId> = layer.data_ids().into_iter().filter(|id| *id != primary).collect();
        let operator = Connection::open(&layer.operator_on(primary)).await.unwrap();
        // What is in the sockets of a replica that stands still reaches it later; what comes after the cut does not.
        for id in &replicas {
            layer.freeze_engine(*id, true);
        }
        let cut = Instant::now();
        let _: u64 = operator.query(cmd("CLIENT").arg("KILL").arg("TYPE").arg("replica")).await.unwrap();
        tokio::time::sleep(CUT).await;
        layer.kill_engine(primary);
        for id in &replicas {
            layer.freeze_engine(*id, false);
        }
        let decisions = callers.denied().await;
        let since = decisions.iter().filter(|decision| decision.by == primary && decision.at > cut).count();
        let cost = cost(&decisions, primary);
        println!("primary killed {CUT:?} after its replicas were cut off, {since} decisions later: {cost}");
        // What a frozen replica had not read yet when it was frozen is in its socket; so is what was sent before the cut.
        assert!(cost.over <= i64::try_from(since + CALLERS).unwrap(), "{cost}");
        assert!(cost.over > 0, "the precondition does not hold: {cost}");
        layer.wait_until_in_sync().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pods_replaced_forget_all_and_admit_one_quota_more() {
    let mut layer = layer().await;
    let callers = Callers::start(&layer, "all");
    callers.have_spent_half().await;
    for id in layer.data_ids() {
        layer.kill_node(id);
    }
    for id in layer.data_ids() {
        layer.wipe(id);
        layer.start_node(id);
    }
    let decisions = callers.denied().await;
    let admitted = u64::try_from(decisions.iter().filter(|decision| decision.allowed).count()).unwrap();
    println!("all pods replaced: {admitted} admitted of {QUOTA}, {:?} without a decision", gap(&decisions));
    assert!(admitted <= 2 * QUOTA, "{admitted}");
    layer.wait_until_in_sync().await;
}
