//! A flash sale: fifty times the load on a few entries, from a source that takes few loads at a time, and the primary dies in the middle.
//! What `docs/uses/spikes.md` says a caller does is done here.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::{Value, cmd};
use redoubt::dataplane::{cache_library, load};
use redoubt::model::cache_policy::CachePolicy;
use redoubt::redis::{Connection, Endpoint, Error};

use crate::support::cache_calls::{Answer, get_call, policy};
use crate::support::engine_process::engines;
use crate::support::eventually;
use crate::support::function_calls::function_call;
use crate::support::layer::{Layer, Options, SOON};

/// Entries that everybody wants.
const PRODUCTS: usize = 20;
/// Loads that the source takes at a time; it refuses more.
const SOURCE_TAKES: usize = 4;
/// For how long the source is left alone after it refused.
const RETRY: Duration = Duration::from_millis(200);
/// How long one takes.
const LOAD: Duration = Duration::from_millis(40);
/// One caller is the usual load.
const CALLERS: usize = 50;
/// Between two calls of a caller.
const EVERY: Duration = Duration::from_millis(50);
/// A request that takes longer is asked of another server.
const ANSWER_WITHIN: Duration = Duration::from_millis(400);
const TTL_MS: u64 = 2_000;

/// How long the spike is; `REDOUBT_SPIKE_SECONDS=20` is what `make bench` plays.
fn spike() -> Duration {
    let seconds = std::env::var("REDOUBT_SPIKE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(10))
}

fn namespace() -> CachePolicy {
    CachePolicy { ttl_ms: TTL_MS, stale_ms: 60_000, lease_ms: 5_000, ..policy("web") }
}

/// A load: of which product, from when to when, and whether the source took it.
#[derive(Clone, Copy, Debug)]
struct Load {
    product: usize,
    began: Instant,
    ended: Instant,
    taken: bool,
}

/// What the cache saves from its callers.
#[derive(Default)]
struct Source {
    running: AtomicUsize,
    is_down: AtomicBool,
    version: AtomicUsize,
    loads: Mutex<Vec<Load>>,
}

impl Source {
    /// A new version of a product; `None`: the source has too much to do, or is down.
    async fn load(&self, product: usize) -> Option<String> {
        let began = Instant::now();
        let is_free = self.running.fetch_add(1, Ordering::SeqCst) < SOURCE_TAKES;
        let taken = is_free && !self.is_down.load(Ordering::SeqCst);
        if taken {
            tokio::time::sleep(LOAD).await;
        }
        self.running.fetch_sub(1, Ordering::SeqCst);
        self.loads.lock().unwrap().push(Load { product, began, ended: Instant::now(), taken });
        taken.then(|| format!("{product} v{}", self.version.fetch_add(1, Ordering::SeqCst)))
    }
}

/// What callers were given.
#[derive(Default)]
struct Given {
    fresh: AtomicUsize,
    stale: AtomicUsize,
    by_replicas: AtomicUsize,
    errors: Mutex<Vec<String>>,
    /// Milliseconds.
    slowest: AtomicU64,
}

/// A replica, and the connection to it.
#[derive(Clone)]
struct Replica {
    node: Endpoint,
    connection: Connection,
}

/// One process with a small pool: connections that all its callers share.
struct Shop {
    nodes: Vec<Endpoint>,
    primary: tokio::sync::Mutex<Option<Connection>>,
    replicas: tokio::sync::Mutex<Vec<Replica>>,
    source: Source,
    given: Given,
    stop: AtomicBool,
}

impl Shop {
    fn new(layer: &Layer) -> Arc<Self> {
        Arc::new(Self {
            nodes: layer.data_ids().into_iter().map(|id| layer.endpoint(id)).collect(),
            primary: tokio::sync::Mutex::default(),
            replicas: tokio::sync::Mutex::default(),
            source: Source::default(),
            given: Given::default(),
            stop: AtomicBool::new(false),
        })
    }

    /// Looks who is what, until told to stop: as a client does that is told by Sentinel.
    async fn watch(self: Arc<Self>) {
        while !self.stop.load(Ordering::Relaxed) {
            let (mut primary, mut replicas) = (None, Vec::new());
            for node in &self.nodes {
                let Ok(connection) = Connection::open_with(node, ANSWER_WITHIN, ANSWER_WITHIN).await else { continue };
                match connection.query::<Vec<Value>>(&cmd("ROLE")).await.as_deref() {
                    Ok([Value::BulkString(role), ..]) if role == b"master" => primary = Some(connection),
                    Ok(_) => replicas.push(Replica { node: node.clone(), connection }),
                    Err(_) => {}
                }
            }
            *self.primary.lock().await = primary;
            *self.replicas.lock().await = replicas;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Reads a product as the page says: of the primary, and where it does not answer, of a replica.
    async fn read(self: &Arc<Self>, product: usize) -> Result<String, String> {
        let key = format!("web:{{{product}}}p");
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let primary = self.primary.lock().await.clone();
            let answer = match &primary {
                Some(connection) => connection.query::<Value>(&get_call(&key)).await.ok().map(Answer::read),
                None => None,
            };
            match (answer, primary) {
                (Some(Answer { verdict, value: Some(value), token, .. }), Some(connection)) => {
                    let count = if verdict == 1 { &self.given.fresh } else { &self.given.stale };
                    count.fetch_add(1, Ordering::Relaxed);
                    if !token.is_empty() {
                        tokio::spawn(Arc::clone(self).compute(connection, product, key, token));
                    }
                    return Ok(value);
                }
                (Some(Answer { verdict: 0, token, .. }), Some(connection)) => {
                    if let Some(value) = Arc::clone(self).compute(connection, product, key.clone(), token).await {
                        return Ok(value);
                    }
                }
                (Some(answer), _) if Instant::now() > deadline => return Err(format!("{answer:?}")),
                (Some(answer), _) => {
                    let wait = u64::try_from(answer.milliseconds).unwrap_or(0).clamp(10, 100);
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                }
                (None, _) => return self.read_replica(&key).await,
            }
        }
    }

    async fn read_replica(&self, key: &str) -> Result<String, String> {
        let mut call = cmd("FCALL_RO");
        call.arg("redoubt_cache_get_ro").arg(1).arg(key);
        let mut said = "no replica answers".to_owned();
        // Of its own: what a `for` is given lives as long as the loop does.
        let replicas = self.replicas.lock().await.clone();
        for replica in replicas {
            let mut answer = replica.connection.query::<Value>(&call).await;
            if answer.as_ref().is_err_and(Error::is_cut) {
                answer = self.connected_again(&replica).await.query::<Value>(&call).await;
            }
            match answer.map(Answer::read) {
                Ok(Answer { value: Some(value), .. }) => {
                    self.given.by_replicas.fetch_add(1, Ordering::Relaxed);
                    return Ok(value);
                }
                other => said = format!("{other:?}"),
            }
        }
        Err(said)
    }

    /// Another connection to a replica that closed this one, as each client's pool makes it: a Sentinel that promotes a replica, or
    /// tells it to follow another primary, has it close all of them.
    async fn connected_again(&self, replica: &Replica) -> Connection {
        let Ok(connection) = Connection::open_with(&replica.node, ANSWER_WITHIN, ANSWER_WITHIN).await else {
            return replica.connection.clone();
        };
        for known in self.replicas.lock().await.iter_mut().filter(|known| known.node == replica.node) {
            known.connection = connection.clone();
        }
        connection
    }

    /// Loads and stores, or tells that the source refuses. `None`: nothing was loaded.
    async fn compute(
        self: Arc<Self>,
        connection: Connection,
        product: usize,
        key: String,
        token: String,
    ) -> Option<String> {
        let value = self.source.load(product).await;
        let call = match &value {
            Some(value) => function_call("cache_set", &[&key], &[&token, value]),
            None => function_call("cache_fail", &[&key], &[&token, &RETRY.as_millis().to_string()]),
        };
        // A primary that died meanwhile cannot be told: the lease ends by itself.
        let _ = connection.query::<Value>(&call).await;
        value
    }

    /// One caller, until told to stop.
    async fn call(self: Arc<Self>, number: usize) {
        let mut product = number;
        while !self.stop.load(Ordering::Relaxed) {
            product = (product + 7) % PRODUCTS;
            let began = Instant::now();
            match self.read(product).await {
                Ok(value) => assert!(value.starts_with(&format!("{product} v")), "{product}: {value}"),
                Err(error) => self.given.errors.lock().unwrap().push(error),
            }
            let took = began.elapsed();
            self.given.slowest.fetch_max(u64::try_from(took.as_millis()).unwrap(), Ordering::Relaxed);
            tokio::time::sleep(EVERY.saturating_sub(took)).await;
        }
    }
}

/// Loads of a product, refused ones too, that ran at the same time or too soon after one that was refused; but for those that began before
/// the primary died and were not over when the next one gave the lease again.
fn too_soon(loads: &[Load], killed: Instant) -> Vec<(Load, Load)> {
    let mut by_product: BTreeMap<usize, Vec<Load>> = BTreeMap::new();
    for load in loads {
        by_product.entry(load.product).or_default().push(*load);
    }
    let mut found = Vec::new();
    for loads in by_product.values_mut() {
        loads.sort_by_key(|load| load.began);
        for pair in loads.windows(2) {
            let is_of_two_primaries = pair[0].began <= killed && pair[1].began > killed;
            let rests_until = pair[0].ended + if pair[0].taken { Duration::ZERO } else { RETRY };
            if pair[1].began < rests_until && !is_of_two_primaries {
                found.push((pair[0], pair[1]));
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_times_the_load_and_a_dead_primary_cost_the_source_one_load_per_entry_and_refresh_and_callers_nothing() {
    for engine in engines() {
        let name = engine.name.clone();
        let options = Options { engine: Some(engine), keeps_data: false, min_replicas: 0, ..Options::default() };
        let layer = Layer::in_sync(&options).await;
        layer.mark_initialised();
        let primary = layer.primary().await.unwrap();
        let operator = Connection::open(&layer.operator_on(primary)).await.unwrap();
        load(&operator, &cache_library(&[namespace()])).await.unwrap();
        let shop = Shop::new(&layer);
        let watcher = tokio::spawn(Arc::clone(&shop).watch());
        eventually("servers are known", SOON, async || {
            shop.primary.lock().await.is_some() && shop.replicas.lock().await.len() == 2
        })
        .await;
        let mut callers = vec![tokio::spawn(Arc::clone(&shop).call(0))];
        eventually("the usual load has filled the cache", SOON, async || {
            let loads = shop.source.loads.lock().unwrap().clone();
            (0..PRODUCTS).all(|product| loads.iter().any(|load| load.product == product && load.taken))
        })
        .await;

        let began = Instant::now();
        callers.extend((1..CALLERS).map(|number| tokio::spawn(Arc::clone(&shop).call(number))));
        let third = spike() / 3;
        tokio::time::sleep(third).await;
        let killed = Instant::now();
        layer.kill_engine(primary);
        tokio::time::sleep(third).await;
        eventually("another is primary", SOON, async || layer.primary().await.is_some_and(|id| id != primary)).await;
        let failed_over = killed.elapsed();
        // The source is down for a while, too.
        shop.source.is_down.store(true, Ordering::SeqCst);
        tokio::time::sleep(third / 2).await;
        shop.source.is_down.store(false, Ordering::SeqCst);
        let before = shop.source.loads.lock().unwrap().len();
        tokio::time::sleep(third / 2).await;
        eventually("entries are refreshed by the next primary", SOON, async || {
            shop.source.loads.lock().unwrap().iter().skip(before).any(|load| load.taken)
        })
        .await;
        let took = began.elapsed();
        shop.stop.store(true, Ordering::Relaxed);
        for caller in callers {
            caller.await.unwrap();
        }
        watcher.await.unwrap();

        let loads = shop.source.loads.lock().unwrap().clone();
        let given = &shop.given;
        let [fresh, stale, by_replicas] =
            [&given.fresh, &given.stale, &given.by_replicas].map(|count| count.load(Ordering::Relaxed));
        let errors = given.errors.lock().unwrap().clone();
        let taken = loads.iter().filter(|load| load.taken).count();
        println!(
            "{name}: {fresh} fresh, {stale} stale, {by_replicas} by replicas in {took:.1?} ({failed_over:.1?} without a primary), \
             {taken} loads and {} refused, slowest {} ms",
            loads.len() - taken,
            given.slowest.load(Ordering::Relaxed),
        );
        assert_eq!(errors, Vec::<String>::new(), "all of it could be served stale");
        let found = too_soon(&loads, killed);
        assert!(found.is_empty(), "{found:?}");
        let refused = loads.len() - taken;
        let rests = usize::try_from((third / 2).as_millis() / RETRY.as_millis()).unwrap() + 1;
        // A source that is down is asked once by each entry in that time, and is sometimes too busy besides.
        assert!((1..=PRODUCTS * 2 * rests).contains(&refused), "{refused} loads were refused");
        // One at the beginning, one in each TTL, and one that the old primary lost.
        let most = usize::try_from(took.as_millis() / u128::from(TTL_MS)).unwrap() + 3;
        for product in 0..PRODUCTS {
            let of_product = loads.iter().filter(|load| load.product == product && load.taken).count();
            assert!(of_product <= most, "{of_product} loads of {product}, at most {most}");
        }
        assert!(by_replicas > 0 && stale > 0, "the precondition does not hold");
        assert!(fresh + stale + by_replicas > taken * 10, "the cache serves nearly all");
    }
}
