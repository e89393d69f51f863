//! Leadership against an API server in this process, in paused time: who works when, whatever the network does.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use redoubt::lease::{self, Candidate, Timing, stopped};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

const TIMING: Timing = Timing {
    duration: Duration::from_secs(15),
    renew_deadline: Duration::from_secs(10),
    retry: Duration::from_secs(2),
    stop_grace: Duration::from_secs(3),
};

/// Every process has an identity of its own.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// What the network does with one candidate's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    Whole,
    /// Requests do not arrive.
    Cut,
    /// Answers take this long.
    Slow(Duration),
    /// Requests arrive, answers do not.
    Deaf,
    /// Somebody else edits the Lease between each of its reads and the write that follows.
    Contended,
}

/// The API server, as far as Leases go: one object, and writes only with its current version.
#[derive(Default)]
struct Stored {
    lease: Option<Lease>,
    version: u64,
    renewed_at: Option<Instant>,
}

/// The API server as one candidate reaches it.
#[derive(Clone)]
struct Side {
    stored: Arc<Mutex<Stored>>,
    network: Arc<Mutex<Network>>,
}

impl Stored {
    fn store(&mut self, mut lease: Lease) {
        self.version += 1;
        lease.metadata.resource_version = Some(self.version.to_string());
        self.lease = Some(lease);
        self.renewed_at = Some(Instant::now());
    }

    fn holder(&self) -> String {
        let spec = self.lease.as_ref().and_then(|lease| lease.spec.as_ref());
        spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default()
    }
}

impl Side {
    async fn arrives(&self) {
        // A request takes its time, so that others come between a read and the write that follows.
        sleep(Duration::from_millis(3)).await;
        if *self.network.lock().unwrap() == Network::Cut {
            std::future::pending::<()>().await;
        }
    }

    async fn answer(&self, code: StatusCode, body: String) -> Response {
        let network = *self.network.lock().unwrap();
        sleep(if let Network::Slow(delay) = network { delay } else { Duration::from_millis(3) }).await;
        if matches!(*self.network.lock().unwrap(), Network::Cut | Network::Deaf) {
            std::future::pending::<()>().await;
        }
        (code, [(header::CONTENT_TYPE, "application/json")], body).into_response()
    }

    async fn refuse(&self, code: StatusCode, reason: &str) -> Response {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason,
            "message": reason, "code": code.as_u16()});
        self.answer(code, status.to_string()).await
    }
}

async fn read(State(side): State<Side>) -> Response {
    side.arrives().await;
    let found = {
        let mut stored = side.stored.lock().unwrap();
        let found = stored.lease.clone();
        if *side.network.lock().unwrap() == Network::Contended
            && let Some(lease) = found.clone()
        {
            let renewed_at = stored.renewed_at;
            stored.store(lease);
            stored.renewed_at = renewed_at;
        }
        found
    };
    match found {
        Some(lease) => side.answer(StatusCode::OK, serde_json::to_string(&lease).unwrap()).await,
        None => side.refuse(StatusCode::NOT_FOUND, "NotFound").await,
    }
}

async fn write(side: Side, body: &str, is_new: bool) -> Response {
    side.arrives().await;
    let lease: Lease = serde_json::from_str(body).unwrap();
    let written = {
        let mut stored = side.stored.lock().unwrap();
        let current = stored.lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        let is_current = if is_new { current.is_none() } else { current == lease.metadata.resource_version };
        is_current.then(|| {
            stored.store(lease);
            serde_json::to_string(&stored.lease).unwrap()
        })
    };
    match written {
        Some(body) => side.answer(StatusCode::OK, body).await,
        None => side.refuse(StatusCode::CONFLICT, "Conflict").await,
    }
}

fn client(side: Side) -> Client {
    const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/ours/leases";
    let create = async |State(side): State<Side>, body: String| write(side, &body, true).await;
    let replace = async |State(side): State<Side>, body: String| write(side, &body, false).await;
    let router = Router::new()
        .route(PATH, post(create))
        .route(&format!("{PATH}/operator"), get(read).put(replace))
        .with_state(side);
    Client::new(router, "ours")
}

/// One time that somebody worked as the leader.
#[derive(Clone, Debug, PartialEq)]
struct Term {
    who: &'static str,
    from: Instant,
    until: Option<Instant>,
}

/// Who worked when, in the order of beginnings.
#[derive(Clone, Default)]
struct Terms(Arc<Mutex<Vec<Term>>>);

/// Lasts as long as the work that owns it.
struct Working {
    terms: Terms,
    index: usize,
}

impl Terms {
    fn begin(&self, who: &'static str) -> Working {
        let mut terms = self.0.lock().unwrap();
        terms.push(Term { who, from: Instant::now(), until: None });
        Working { terms: self.clone(), index: terms.len() - 1 }
    }

    fn all(&self) -> Vec<Term> {
        self.0.lock().unwrap().clone()
    }

    /// Who is at work now.
    fn working(&self) -> Vec<&'static str> {
        self.all().into_iter().filter(|term| term.until.is_none()).map(|term| term.who).collect()
    }

    fn assert_one_at_a_time(&self) {
        for pair in self.all().windows(2) {
            assert!(pair[0].until.is_some_and(|until| until <= pair[1].from), "two at once: {pair:#?}");
        }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.terms.0.lock().unwrap()[self.index].until = Some(Instant::now());
    }
}

/// A candidate and what a test can do to it.
struct Contender {
    network: Arc<Mutex<Network>>,
    stop: watch::Sender<bool>,
    leading: JoinHandle<()>,
}

impl Contender {
    fn network(&self, network: Network) {
        *self.network.lock().unwrap() = network;
    }
}

/// A world with its API server; work that is `stubborn` ends only by being dropped.
#[derive(Default)]
struct Election {
    stored: Arc<Mutex<Stored>>,
    terms: Terms,
    /// Who stood by when.
    standing_by: Terms,
}

impl Election {
    fn candidate(&self, who: &'static str, stubborn: bool) -> Contender {
        let network = Arc::new(Mutex::new(Network::Whole));
        let side = Side { stored: Arc::clone(&self.stored), network: Arc::clone(&network) };
        let candidate = Candidate {
            namespace: "ours".to_owned(),
            name: "operator".to_owned(),
            identity: format!("{who}_{}", NEXT.fetch_add(1, Ordering::Relaxed)),
            timing: TIMING,
        };
        let (stop, stopping) = watch::channel(false);
        // As kube's controller does: the passes are tasks of their own, which end with whoever waits for them.
        let last = move |terms: Terms, stop| async move {
            let _working = terms.begin(who);
            stopped(stop).await;
            if stubborn {
                std::future::pending::<()>().await;
            }
        };
        let (terms, standing_by) = (self.terms.clone(), self.standing_by.clone());
        let work = move |stop| last(terms.clone(), stop);
        let run_standby = move |stop| last(standing_by.clone(), stop);
        let leading = tokio::spawn(lease::lead(client(side), candidate, stopping, work, run_standby));
        Contender { network, stop, leading }
    }

    /// Two candidates of which the first leads.
    async fn two(&self, stubborn: bool) -> [Contender; 2] {
        let first = self.candidate("first", stubborn);
        sleep(Duration::from_secs(1)).await;
        let second = self.candidate("second", stubborn);
        sleep(Duration::from_secs(20)).await;
        assert_eq!(self.terms.working(), ["first"]);
        assert_eq!(self.standing_by.working(), ["second"]);
        [first, second]
    }

    fn renewed_at(&self) -> Instant {
        self.stored.lock().unwrap().renewed_at.unwrap()
    }
}

/// Cut off or deaf: whatever of the loser does not stop is dropped while nobody else can hold the Lease yet.
#[tokio::test(start_paused = true)]
async fn the_work_of_a_leader_that_the_api_server_does_not_answer_is_dropped_before_the_lease_ends() {
    for network in [Network::Cut, Network::Deaf] {
        for stubborn in [false, true] {
            let election = Election::default();
            let [first, _second] = election.two(stubborn).await;
            first.network(network);
            sleep(Duration::from_millis(500)).await;
            let began = election.renewed_at();
            sleep(Duration::from_mins(1)).await;
            let terms = election.terms.all();
            let ended = terms[0].until.unwrap_or_else(|| panic!("{network:?}: it works on"));
            let limit = if stubborn { 13_100 } else { 10_100 };
            assert!(ended - began <= Duration::from_millis(limit), "{network:?} {stubborn}: {:?}", ended - began);
            assert_eq!(election.terms.working(), ["second"], "{network:?} {stubborn}");
            election.terms.assert_one_at_a_time();
            assert_eq!(election.standing_by.working(), ["first"], "who lost it stands by at once");
            let standing = election.standing_by.all();
            assert_eq!(terms[0].until, standing.last().map(|term| term.from), "and not while it works");
            let mut seconds = standing.iter().filter(|term| term.who == "second");
            assert_eq!(seconds.next().and_then(|term| term.until), terms.last().map(|term| term.from));
        }
    }
}

/// A Lease that was lost is not given free: others could begin before the loser's last request has arrived.
#[tokio::test(start_paused = true)]
async fn a_lease_that_was_lost_ends_by_itself() {
    let election = Election::default();
    let [first, second] = election.two(false).await;
    second.network(Network::Cut);
    first.network(Network::Contended);
    let renewed_at = election.renewed_at();
    while election.terms.working() == ["first"] {
        sleep(Duration::from_millis(50)).await;
    }
    // It can write again before the Lease has ended: it leads on, and it is not somebody else's turn.
    first.network(Network::Whole);
    assert!(election.stored.lock().unwrap().holder().starts_with("first"));
    assert!(renewed_at.elapsed() < TIMING.duration);
    second.network(Network::Whole);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(election.terms.working(), ["first"]);
    election.terms.assert_one_at_a_time();
}

/// A machine without processor time: each request takes longer than the usual Lease allows for.
#[tokio::test(start_paused = true)]
async fn a_leader_whose_requests_are_slow_keeps_the_work_by_a_longer_lease() {
    let election = Election::default();
    let first = election.candidate("first", false);
    sleep(Duration::from_secs(1)).await;
    // A renewal is a read and a write. Of two seconds and nine it does not end within ten.
    first.network(Network::Slow(Duration::from_millis(4_500)));
    sleep(Duration::from_mins(5)).await;
    let terms = election.terms.all().len();
    assert_eq!(election.terms.working(), ["first"]);
    sleep(Duration::from_mins(4)).await;
    assert_eq!((election.terms.all().len(), election.terms.working()), (terms, vec!["first"]), "it loses it again");
    // Others respect the length that the Lease itself tells.
    let _second = election.candidate("second", false);
    first.network(Network::Cut);
    let cut = Instant::now();
    while election.terms.working() != ["second"] {
        sleep(Duration::from_millis(100)).await;
    }
    assert!(cut.elapsed() > TIMING.duration, "{:?}", cut.elapsed());
    election.terms.assert_one_at_a_time();
    // Once its renewals were quick for minutes, the usual length is in force again.
    first.stop.send_replace(true);
    sleep(Duration::from_mins(6)).await;
    let lasts = election.stored.lock().unwrap().lease.as_ref().unwrap().spec.as_ref().unwrap().lease_duration_seconds;
    assert_eq!(lasts, i32::try_from(TIMING.duration.as_secs()).ok());
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_told_to_stop_gives_the_lease_free_and_another_leads_within_seconds() {
    for stubborn in [false, true] {
        let election = Election::default();
        let [first, _second] = election.two(stubborn).await;
        let told_at = Instant::now();
        first.stop.send_replace(true);
        timeout(TIMING.stop_grace + Duration::from_secs(1), first.leading).await.expect("it returns").unwrap();
        assert_eq!(election.standing_by.working(), ["second"], "who stops does not stand by");
        while election.terms.working() != ["second"] {
            assert!(told_at.elapsed() < Duration::from_secs(6), "{:#?}", election.terms.all());
            sleep(Duration::from_millis(50)).await;
        }
        election.terms.assert_one_at_a_time();
    }
}

/// A stopping process whose API server is silent does not wait for it longer than for one request.
#[tokio::test(start_paused = true)]
async fn a_leader_without_an_api_server_stops_all_the_same() {
    let election = Election::default();
    let [first, _second] = election.two(true).await;
    first.network(Network::Cut);
    first.stop.send_replace(true);
    timeout(Duration::from_secs(10), first.leading).await.expect("it returns").unwrap();
    assert_eq!(election.terms.working(), Vec::<&str>::new());
}

#[tokio::test(start_paused = true)]
async fn a_renewal_with_an_old_version_is_repeated_and_costs_no_leadership() {
    let election = Election::default();
    let [first, _second] = election.two(true).await;
    for _ in 0..20 {
        first.network(Network::Contended);
        sleep(Duration::from_secs(5)).await;
        first.network(Network::Whole);
        sleep(Duration::from_secs(5)).await;
    }
    assert_eq!(election.terms.all().len(), 1, "{:#?}", election.terms.all());
    // If it never succeeds, it is as if nobody answered.
    first.network(Network::Contended);
    sleep(Duration::from_mins(1)).await;
    assert_eq!(election.terms.working(), ["second"]);
    election.terms.assert_one_at_a_time();
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_lease_was_given_to_another_by_hand_stops_at_once() {
    let election = Election::default();
    let [_first, _second] = election.two(true).await;
    {
        let mut stored = election.stored.lock().unwrap();
        let mut lease = stored.lease.clone().unwrap();
        lease.spec.as_mut().unwrap().holder_identity = Some("somebody".to_owned());
        stored.store(lease);
    }
    sleep(TIMING.retry + Duration::from_millis(100)).await;
    assert_eq!(election.terms.working(), Vec::<&str>::new());
}

/// Three candidates under a network that does anything to any of them, and that come and go.
#[tokio::test(start_paused = true)]
async fn two_candidates_never_work_at_once() {
    const NAMES: [&str; 3] = ["one", "two", "three"];
    const NETWORKS: [Network; 5] = [Network::Whole, Network::Whole, Network::Cut, Network::Deaf, Network::Contended];
    let mut terms = 0;
    for seed in 0..12 {
        let mut random = StdRng::seed_from_u64(seed);
        let election = Election::default();
        let mut candidates: Vec<Contender> =
            NAMES.iter().map(|who| election.candidate(who, random.random_bool(0.5))).collect();
        for _ in 0..50 {
            sleep(Duration::from_millis(random.random_range(1..12_000))).await;
            let index = random.random_range(0..NAMES.len());
            if random.random_bool(0.15) {
                candidates[index].stop.send_replace(true);
                // A candidate that comes anew is another process: the old one may still be on its way out.
                candidates[index] = election.candidate(NAMES[index], random.random_bool(0.5));
            } else {
                candidates[index].network(NETWORKS[random.random_range(0..NETWORKS.len())]);
            }
        }
        election.terms.assert_one_at_a_time();
        terms += election.terms.all().len();
        for candidate in &candidates {
            candidate.network(Network::Whole);
        }
        // The longest Lease, four times the usual one, may be about to begin.
        sleep(Duration::from_mins(3)).await;
        assert_eq!(election.terms.working().len(), 1, "seed {seed}: nobody leads in the end");
    }
    assert!(terms > 60, "only {terms} terms: the election is too quiet");
}
