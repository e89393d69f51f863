//! What the layer's servers answer: one connection per pod, asked all at once, each within a bounded time.
//!
//! A pod that is silent costs the pass [`POD_TIMEOUT`] and no more, however many are, and less as soon as a Sentinel tells that
//! the primary moved: what follows it must not wait for what is dead. Connections are kept by the pod's UID: a new pod at an
//! old address is never taken for its predecessor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, sleep};

use crate::model::NodeId;
use crate::model::audit::AuditReport;
use crate::model::desired::DesiredUser;
use crate::model::observed::ObservedServer;
use crate::observe::agents;
use crate::observe::events::LastMove;
use crate::redis::probe::{DataProbe, ProbeResult, probe_data, probe_sentinel};
use crate::redis::user_forms::UserForms;
use crate::redis::{Class, Connection, Endpoint};

/// How long one server may keep a pass waiting, connecting included. A healthy one answers within milliseconds.
const POD_TIMEOUT: Duration = Duration::from_secs(1);

/// The same for a pod that was silent in the pass before.
const UNRESPONSIVE_POD_TIMEOUT: Duration = Duration::from_millis(250);

/// How often a pod that stays silent gets [`POD_TIMEOUT`] again. It has no connection left, so it has more to do in less time: one
/// that is only slow would be called silent for as long as its machine is busy.
const WHOLE_TIMEOUT_EVERY: Duration = Duration::from_secs(3);

/// The same for every pod when the primary has just moved.
const TIMEOUT_DURING_FAILOVER: Duration = Duration::from_millis(150);

/// For how long a move of the primary makes passes until_primary_moves: each Sentinel tells of it in its turn, and each time a pass follows.
const JUST_MOVED: Duration = Duration::from_secs(2);

/// What is asked of one pod.
#[derive(Clone, Debug)]
pub struct Question {
    /// The node whose pod is asked.
    pub node: NodeId,
    /// UID of the pod: an answer counts for this pod only.
    pub pod_uid: String,
    /// Where its server is, and as whom to log in.
    pub endpoint: Endpoint,
    /// What is to be known.
    pub probe: ServerProbe,
}

/// What is to be known of a server.
#[derive(Clone, Debug)]
pub enum ServerProbe {
    /// Of a data node.
    Data(Arc<DataProbe>),
    /// Of a Sentinel.
    Sentinel {
        /// Name of the primary.
        master_name: String,
        /// Users that it should have.
        users: Arc<BTreeMap<String, DesiredUser>>,
    },
}

/// What one pod's server and agent answered in this pass.
#[derive(Debug)]
pub struct Answer {
    /// The server in the model's words.
    pub server: ObservedServer,
    /// What it refused to say, or why it is unknown; without secrets.
    pub faults: Vec<String>,
    /// What its agent says to a person.
    pub notes: agents::AgentNotes,
    /// What its agent found in the keys; `None`: it says nothing of them.
    pub audit: Option<Arc<AuditReport>>,
    /// The open connection, for the steps that follow; `None`: there is none.
    pub connection: Option<Connection>,
}

/// The open connections of all layers.
#[derive(Default)]
pub struct Pool {
    open: Mutex<BTreeMap<String, Connection>>,
    /// When each pod that was silent in the pass before began to be waited for [`POD_TIMEOUT`] last, by its UID.
    silent: Mutex<BTreeMap<String, Instant>>,
    audits: Mutex<BTreeMap<String, Arc<AuditReport>>>,
    forms: UserForms,
}

impl Pool {
    /// Asks every pod of a layer at the same time.
    pub async fn ask(&self, questions: Vec<Question>, last_move: &LastMove) -> BTreeMap<NodeId, Answer> {
        let asking = questions.into_iter().map(async |question| {
            let agent = async {
                match question.probe {
                    // Within the time that a silent server takes, so it makes no pass longer.
                    ServerProbe::Data(_) => {
                        let known = self.audits().get(&question.pod_uid).cloned();
                        agents::ask(&question.endpoint.address, known).await
                    }
                    ServerProbe::Sentinel { .. } => agents::ask(&question.endpoint.address, None).await,
                }
            };
            let (answer, (notes, audit)) = tokio::join!(self.ask_one(&question, last_move), agent);
            self.note_audit(&question.pod_uid, audit.as_ref());
            (question.node, Answer { notes, audit, ..answer })
        });
        join_all(asking).await.into_iter().collect()
    }

    /// Closes the connections to pods that are gone.
    pub(crate) fn retain(&self, alive: &BTreeSet<String>) {
        self.connections().retain(|uid, _| alive.contains(uid));
        self.silent().retain(|uid, _| alive.contains(uid));
        self.audits().retain(|uid, _| alive.contains(uid));
    }

    fn note_audit(&self, pod_uid: &str, audit: Option<&Arc<AuditReport>>) {
        match audit {
            Some(audit) => _ = self.audits().insert(pod_uid.to_owned(), Arc::clone(audit)),
            None => _ = self.audits().remove(pod_uid),
        }
    }

    async fn ask_one(&self, question: &Question, last_move: &LastMove) -> Answer {
        let began = Instant::now();
        let waited_whole =
            self.silent().get(&question.pod_uid).copied().filter(|at| at.elapsed() < WHOLE_TIMEOUT_EVERY);
        let within = if waited_whole.is_some() { UNRESPONSIVE_POD_TIMEOUT } else { POD_TIMEOUT };
        let asked = tokio::select! {
            biased;
            asked = self.probe(question) => Some(asked),
            () = sleep(within) => None,
            () = until_primary_moves(last_move.clone()) => None,
        };
        let is_silent = !matches!(asked, Some(Ok(_))) && began.elapsed() >= TIMEOUT_DURING_FAILOVER;
        if is_silent {
            self.silent().insert(question.pod_uid.clone(), waited_whole.unwrap_or(began));
        } else {
            self.silent().remove(&question.pod_uid);
        }
        let (connection, probed) = match asked {
            Some(Ok((connection, probed))) => (Some(connection), probed),
            Some(Err(probed)) => (None, probed),
            None => {
                self.connections().remove(&question.pod_uid);
                // The same words in each pass: status must not change with our timeout.
                let fault = format!("{}: no answer within {POD_TIMEOUT:?}", question.endpoint.name());
                return Answer {
                    server: ObservedServer::Unknown,
                    faults: vec![fault],
                    notes: agents::AgentNotes::default(),
                    audit: None,
                    connection: None,
                };
            }
        };
        if is_useless(&probed) {
            self.connections().remove(&question.pod_uid);
        }
        let faults = probed.faults.iter().map(|fault| crate::telemetry::Chain(fault).to_string()).collect();
        Answer { server: probed.server, faults, notes: agents::AgentNotes::default(), audit: None, connection }
    }

    /// Asks over the connection that is open, and over a new one where that turns out to be dead: Sentinels cut all connections
    /// of the replica that they promote, and that very server is the one which matters then.
    async fn probe(&self, question: &Question) -> Result<(Connection, ProbeResult), ProbeResult> {
        let open = self.connections().get(&question.pod_uid).cloned();
        if let Some(connection) = open {
            let probed = self.probe_over(&connection, question).await;
            if !is_useless(&probed) {
                return Ok((connection, probed));
            }
            self.connections().remove(&question.pod_uid);
        }
        let connection = Connection::open(&question.endpoint).await.map_err(ProbeResult::unknown)?;
        self.connections().insert(question.pod_uid.clone(), connection.clone());
        let probed = self.probe_over(&connection, question).await;
        Ok((connection, probed))
    }

    async fn probe_over(&self, connection: &Connection, question: &Question) -> ProbeResult {
        match &question.probe {
            ServerProbe::Data(probe) => probe_data(connection, probe, &self.forms).await,
            ServerProbe::Sentinel { master_name, users } => {
                probe_sentinel(connection, master_name, users, &self.forms).await
            }
        }
    }

    fn audits(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<AuditReport>>> {
        self.audits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn silent(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Instant>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Connection>> {
        // Each use of the map is one call: it is never left half changed.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Dead, or logged in with rights of yesterday.
fn is_useless(probed: &ProbeResult) -> bool {
    probed.faults.iter().any(|fault| matches!(fault.class(), Class::Unreachable | Class::Denied | Class::Full))
}

/// Resolves when who has just moved has been waited for: a short while after the beginning, or after the news.
async fn until_primary_moves(mut last_move: LastMove) {
    let has_just_moved = |at: &Option<Instant>| at.is_some_and(|at| at.elapsed() < JUST_MOVED);
    if last_move.wait_for(has_just_moved).await.is_err() {
        // No listener is left.
        std::future::pending::<()>().await;
    }
    sleep(TIMEOUT_DURING_FAILOVER).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::Secret;

    fn question(node: NodeId, port: u16) -> Question {
        let endpoint = Endpoint {
            address: "127.0.0.1".to_owned(),
            port,
            username: "redoubt-operator".to_owned(),
            password: Secret::new("secret"),
            other_password: None,
        };
        Question { node, pod_uid: format!("uid-{node}"), endpoint, probe: ServerProbe::Data(Arc::default()) }
    }

    fn faults(answers: &BTreeMap<NodeId, Answer>) -> Vec<&String> {
        answers.values().flat_map(|answer| &answer.faults).collect()
    }

    #[tokio::test]
    async fn silent_pods_cost_the_pass_no_more_than_one_does() {
        // Listens and never answers.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let questions: Vec<Question> = (0..5).map(|ordinal| question(NodeId::data(ordinal), port)).collect();
        let (_moves, last_move) = tokio::sync::watch::channel(None);
        let (pool, started) = (Pool::default(), std::time::Instant::now());
        let answers = pool.ask(questions.clone(), &last_move).await;
        assert_eq!(answers.len(), 5);
        assert!(answers.values().all(|answer| answer.server == ObservedServer::Unknown && answer.connection.is_none()));
        assert!(started.elapsed() < 2 * POD_TIMEOUT);
        let started = std::time::Instant::now();
        let again = pool.ask(questions.clone(), &last_move).await;
        assert!(started.elapsed() < POD_TIMEOUT, "who was silent before is waited for less");
        assert_eq!(
            faults(&again),
            faults(&pool.ask(questions, &last_move).await),
            "status rests while a pod is silent"
        );
    }

    /// Answers each command after `pause` with an error, which is an answer too.
    async fn slow_server(pause: Duration) -> u16 {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut buffer = [0; 16_384];
                    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                        sleep(pause).await;
                        // Each command is an array, and none of ours holds a line that begins with an asterisk.
                        for _ in buffer[..read].iter().filter(|byte| **byte == b'*') {
                            let _ = stream.write_all(b"+OK\r\n").await;
                        }
                    }
                });
            }
        });
        port
    }

    #[tokio::test]
    async fn who_was_silent_and_is_slow_is_heard_again() {
        let (_moves, last_move) = tokio::sync::watch::channel(None);
        let pool = Pool::default();
        // To log in and to answer takes two of its pauses.
        let slow = question(NodeId::data(0), slow_server(2 * UNRESPONSIVE_POD_TIMEOUT / 3).await);
        pool.silent().insert(slow.pod_uid.clone(), Instant::now());
        let began = Instant::now();
        let mut passes = 0;
        while pool.ask(vec![slow.clone()], &last_move).await[&slow.node].connection.is_none() {
            passes += 1;
            assert!(began.elapsed() < 3 * WHOLE_TIMEOUT_EVERY, "called silent for as long as it is slow");
        }
        assert!(passes > 1, "it is waited for less before");
    }

    /// How long a pass waits for a silent pod when news of a move come after `news_after`.
    async fn waited(pool: &Pool, news_after: Option<Duration>) -> Duration {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let question = question(NodeId::data(0), silent.local_addr().unwrap().port());
        let (moves, last_move) = tokio::sync::watch::channel(None);
        let started = Instant::now();
        let tell = async {
            if let Some(after) = news_after {
                sleep(after).await;
                moves.send_replace(Some(Instant::now()));
            }
        };
        futures::future::join(pool.ask(vec![question], &last_move), tell).await;
        started.elapsed()
    }

    #[tokio::test]
    async fn who_is_silent_is_waited_for_less_once_the_primary_moved() {
        let before = waited(&Pool::default(), Some(Duration::ZERO)).await;
        assert!(before >= TIMEOUT_DURING_FAILOVER && before < POD_TIMEOUT, "{before:?}");
        let meanwhile = waited(&Pool::default(), Some(Duration::from_millis(300))).await;
        assert!(meanwhile >= 2 * TIMEOUT_DURING_FAILOVER && meanwhile < POD_TIMEOUT, "{meanwhile:?}");
        assert!(waited(&Pool::default(), None).await >= POD_TIMEOUT);
    }
}
