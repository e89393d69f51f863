//! What writers were promised, and what became of it.
//!
//! Writers write unique keys through a stock Sentinel-aware client, and note when each write was sent, when it was answered,
//! how, and by whom. The checker then compares with what a server holds. A write without an answer is unknown: it may be there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::sentinel::{Sentinel, SentinelNodeConnectionInfo};
use redis::{
    AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo, RedisResult,
};
use redoubt::redis::{Connection, Endpoint};
use tokio::task::JoinHandle;

/// What a write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged.
    Ok,
    /// Refused by a server that says so: it is not there.
    Refused,
    /// No answer.
    Unknown,
}

/// One write.
#[derive(Clone, Debug)]
pub struct Write {
    /// Its unique key.
    pub key: String,
    /// When it was sent, since the history's beginning.
    pub invoked: Duration,
    /// When its outcome was known.
    pub completed: Duration,
    /// What it came to.
    pub outcome: Outcome,
    /// Who answered: the address and the replication id with which it was primary. A node that is promoted again has a new one,
    /// so it is not taken for its earlier self.
    pub server: String,
    /// Whether a replica confirmed, after it was acknowledged, that it has all that this server had written.
    pub confirmed: bool,
}

/// What the checker found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledged writes.
    pub acknowledged: usize,
    /// Acknowledged writes that are not there.
    pub lost: Vec<String>,
    /// Those of them that a replica had confirmed. Replication is asynchronous, so on a busy machine an unplanned failover may cost
    /// more than what was in flight, and never any of these.
    pub lost_although_confirmed: Vec<String>,
    /// Writes that a replica confirmed.
    pub confirmed: usize,
    /// Longest time without any acknowledgement, between the first and the last.
    pub longest_gap: Duration,
    /// When that began, since the history's beginning.
    pub gap_began: Duration,
    /// What one request to a server took meanwhile that nothing was done to. Zero where no witness was there.
    pub slowness: Duration,
    /// Whether a server acknowledged a write that was sent after another server had begun to acknowledge.
    pub two_primaries: bool,
}

/// Judges a history against the keys that a server holds in the end.
pub fn check(history: &[Write], present: &BTreeSet<String>) -> Verdict {
    let mut acknowledged: Vec<&Write> = history.iter().filter(|write| write.outcome == Outcome::Ok).collect();
    acknowledged.sort_by_key(|write| write.completed);
    let gaps =
        acknowledged.windows(2).map(|pair| (pair[1].completed.saturating_sub(pair[0].completed), pair[0].completed));
    let (longest_gap, gap_began) = gaps.max().unwrap_or_default();
    let mut firsts: BTreeMap<&str, Duration> = BTreeMap::new();
    for write in &acknowledged {
        firsts.entry(&write.server).or_insert(write.completed);
    }
    // A predecessor's acknowledgement for a write that was sent after another server's first.
    let two_primaries = acknowledged.iter().any(|write| {
        let began = firsts[write.server.as_str()];
        firsts.iter().any(|(server, first)| *server != write.server && began < *first && write.invoked > *first)
    });
    let lost: Vec<&&Write> = acknowledged.iter().filter(|write| !present.contains(&write.key)).collect();
    Verdict {
        acknowledged: acknowledged.len(),
        lost: lost.iter().map(|write| write.key.clone()).collect(),
        lost_although_confirmed: lost.iter().filter(|write| write.confirmed).map(|write| write.key.clone()).collect(),
        confirmed: acknowledged.iter().filter(|write| write.confirmed).count(),
        longest_gap,
        gap_began,
        slowness: Duration::ZERO,
        two_primaries,
    }
}

/// Histories of this process so far: each has keys of its own, so that what an earlier one left hides no loss of a later one.
static HISTORIES: AtomicUsize = AtomicUsize::new(0);

/// Writers at work.
pub struct Writers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<Vec<Write>>>,
    confirmations: JoinHandle<Vec<Confirmation>>,
}

/// A replica of this server had all that it had acknowledged by then.
struct Confirmation {
    server: String,
    until: Duration,
}

impl Writers {
    /// Starts `count` writers at full speed, which log in on Sentinels and on data nodes as the endpoints say.
    pub fn start(count: usize, sentinels: &[Endpoint], master_name: &str) -> Self {
        Self::paced(count, sentinels, master_name, Duration::ZERO)
    }

    /// As [`Self::start`]; each writer rests for `pause` after each write.
    pub fn paced(count: usize, sentinels: &[Endpoint], master_name: &str, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let began = Instant::now();
        let history = HISTORIES.fetch_add(1, Ordering::Relaxed);
        let tasks = (0..count)
            .map(|writer| {
                let keys = format!("h:{history}:{writer}");
                let (stop, sentinels, name) = (Arc::clone(&stop), sentinels.to_vec(), master_name.to_owned());
                let acknowledged = Arc::clone(&acknowledged);
                tokio::spawn(async move {
                    write_until((&stop, &acknowledged), &keys, (began, pause), &sentinels, &name).await
                })
            })
            .collect();
        let confirmations = {
            let (stop, sentinels, name) = (Arc::clone(&stop), sentinels.to_vec(), master_name.to_owned());
            let key = format!("h:{history}:confirmed");
            tokio::spawn(async move { confirm_until(&stop, &key, began, &sentinels, &name).await })
        };
        Self { stop, acknowledged, tasks, confirmations }
    }

    /// How many writes were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Ends them and returns what they saw.
    pub async fn finish(self) -> Vec<Write> {
        self.stop.store(true, Ordering::Relaxed);
        let mut history = Vec::new();
        for task in self.tasks {
            history.extend(task.await.unwrap());
        }
        let mut until: BTreeMap<String, Duration> = BTreeMap::new();
        for confirmation in self.confirmations.await.unwrap() {
            until.insert(confirmation.server, confirmation.until);
        }
        for write in &mut history {
            write.confirmed = until.get(&write.server).is_some_and(|until| write.completed <= *until);
        }
        history
    }
}

/// Patience with a lookup. The client's own defaults would wait for a node that is cut off for a second and longer.
const LOOKUP: Duration = Duration::from_millis(250);
/// Patience with a write: longer than the pause of a planned move, which a patient client sits out.
const ANSWER: Duration = Duration::from_secs(3);

/// A stock client (the `redis` crate's), as an application would set it up with the binding's Sentinels.
struct StockClient {
    sentinels: Vec<ConnectionInfo>,
    node: SentinelNodeConnectionInfo,
    client: Sentinel,
}

impl StockClient {
    fn new(sentinels: &[Endpoint]) -> Self {
        let login = |endpoint: &Endpoint| {
            RedisConnectionInfo::default().set_username(&endpoint.username).set_password(endpoint.password.reveal())
        };
        let seeds: Vec<ConnectionInfo> = sentinels
            .iter()
            .map(|endpoint| {
                let address = ConnectionAddr::Tcp(endpoint.address.clone(), endpoint.port);
                address.into_connection_info().unwrap().set_redis_settings(login(endpoint))
            })
            .collect();
        let node = SentinelNodeConnectionInfo::default().set_redis_connection_info(login(&sentinels[0]));
        Self { client: Sentinel::build(seeds.clone()).unwrap(), sentinels: seeds, node }
    }

    /// A connection to the primary, and the primary's name in a history.
    async fn primary(&mut self, master_name: &str) -> Option<(MultiplexedConnection, String)> {
        let Ok(found) = tokio::time::timeout(LOOKUP, self.client.async_master_for(master_name, Some(&self.node))).await
        else {
            // The client takes its Sentinels' answers in order: one that is silent goes to the end.
            self.sentinels.rotate_left(1);
            self.client = Sentinel::build(self.sentinels.clone()).unwrap();
            return None;
        };
        let found = found.ok()?;
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(LOOKUP)).set_response_timeout(Some(ANSWER));
        let mut connection = found.get_multiplexed_async_connection_with_config(&config).await.ok()?;
        let info: String = redis::cmd("INFO").arg("replication").query_async(&mut connection).await.ok()?;
        let id = info.lines().find_map(|line| line.strip_prefix("master_replid:"))?;
        Some((connection, format!("{} {}", found.get_connection_info().addr(), id.trim())))
    }
}

/// How often a confirmation is asked for.
const CONFIRMED_EVERY: Duration = Duration::from_millis(10);

/// Asks the primary again and again whether a replica has all that was written so far.
async fn confirm_until(
    stop: &AtomicBool,
    key: &str,
    began: Instant,
    sentinels: &[Endpoint],
    master_name: &str,
) -> Vec<Confirmation> {
    let (mut client, mut connection, mut confirmations) = (StockClient::new(sentinels), None, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(CONFIRMED_EVERY).await;
        if connection.is_none() {
            connection = client.primary(master_name).await;
        }
        let Some((server, name)) = &mut connection else { continue };
        let until = began.elapsed();
        // `WAIT` speaks of what its own connection wrote last.
        let mut write_and_wait = redis::pipe();
        write_and_wait.set(key, until.as_secs_f64()).ignore().cmd("WAIT").arg(1).arg(1_000);
        match write_and_wait.query_async::<(u64,)>(server).await {
            Ok((0,)) => {}
            Ok(_) => confirmations.push(Confirmation { server: name.clone(), until }),
            Err(_) => connection = None,
        }
    }
    confirmations
}

async fn write_until(
    (stop, acknowledged): (&AtomicBool, &AtomicUsize),
    keys: &str,
    (began, pause): (Instant, Duration),
    sentinels: &[Endpoint],
    master_name: &str,
) -> Vec<Write> {
    let mut history = Vec::new();
    let mut client = StockClient::new(sentinels);
    let mut connection = None;
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let Some((server, name)) = &mut connection else {
            connection = client.primary(master_name).await;
            if connection.is_none() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            continue;
        };
        number += 1;
        let key = format!("{keys}:{number}");
        let invoked = began.elapsed();
        let answer: RedisResult<()> = redis::cmd("SET").arg(&key).arg(number).query_async(server).await;
        let outcome = match &answer {
            Ok(()) => Outcome::Ok,
            // Only a server has error codes.
            Err(error) if error.code().is_some() => Outcome::Refused,
            Err(_) => Outcome::Unknown,
        };
        history.push(Write {
            key,
            invoked,
            completed: began.elapsed(),
            outcome,
            server: name.clone(),
            confirmed: false,
        });
        if outcome == Outcome::Ok {
            acknowledged.fetch_add(1, Ordering::Relaxed);
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        } else {
            connection = None;
        }
    }
    history
}

/// The keys of all writers that a server holds.
pub async fn keys_of(endpoint: &Endpoint) -> BTreeSet<String> {
    let connection = Connection::open(endpoint).await.unwrap();
    let mut keys = BTreeSet::new();
    let mut cursor = 0_u64;
    loop {
        let mut command = redis::cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg("h:*").arg("COUNT").arg(1_000);
        let (next, batch): (u64, Vec<String>) = connection.query(&command).await.unwrap();
        keys.extend(batch);
        if next == 0 {
            return keys;
        }
        cursor = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(key: &str, invoked: u64, completed: u64, server: &str) -> Write {
        let (invoked, completed) = (Duration::from_millis(invoked), Duration::from_millis(completed));
        Write {
            key: key.to_owned(),
            invoked,
            completed,
            outcome: Outcome::Ok,
            server: server.to_owned(),
            confirmed: false,
        }
    }

    #[test]
    fn an_acknowledged_write_that_is_not_there_is_lost_and_an_unknown_one_is_not() {
        let unknown = Write { outcome: Outcome::Unknown, ..write("c", 30, 40, "x") };
        let history = [write("a", 0, 10, "x"), write("b", 10, 500, "x"), unknown];
        let verdict = check(&history, &BTreeSet::from(["a".to_owned()]));
        assert_eq!(verdict.lost, ["b"]);
        assert_eq!((verdict.lost_although_confirmed, verdict.confirmed), (vec![], 0));
        let confirmed = history.map(|write| Write { confirmed: true, ..write });
        let verdict = check(&confirmed, &BTreeSet::from(["a".to_owned()]));
        assert_eq!((verdict.lost_although_confirmed, verdict.confirmed), (vec!["b".to_owned()], 2));
        assert_eq!(verdict.longest_gap, Duration::from_millis(490));
        assert!(!verdict.two_primaries);
    }

    #[test]
    fn a_predecessor_that_goes_on_acknowledging_is_a_second_primary() {
        let history = [write("a", 0, 10, "x"), write("b", 20, 30, "y"), write("c", 40, 50, "x")];
        assert!(check(&history, &BTreeSet::new()).two_primaries);
        let in_turn = [write("a", 0, 10, "x"), write("b", 20, 30, "y"), write("c", 40, 50, "y")];
        assert!(!check(&in_turn, &BTreeSet::new()).two_primaries);
    }
}
