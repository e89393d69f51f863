//! The caches under many connections at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use rand::RngExt as _;
use redis::cmd;
use redoubt::dataplane::{Library, cache_library, load};
use redoubt::model::cache_policy::CachePolicy;
use redoubt::redis::Connection;

use crate::support::cache_calls::{HOUR, cache_call, counter, get, lease, policy, read, server_with};
use crate::support::engine_process::{Process, engines};
use crate::support::function_calls::number;

const CALLERS: usize = 64;
/// Of the callers of a race.
const INVALIDATORS: usize = 6;
const SABOTEURS: usize = 3;
const KEYS: usize = 4;

async fn connections(process: &Process, count: usize) -> Vec<Connection> {
    join_all((0..count).map(|_| process.connect())).await
}

fn below(end: usize) -> usize {
    rand::rng().random_range(0..end)
}

fn key_of(number: usize) -> String {
    format!("web:{{0}}product {number}")
}

/// What a source was asked.
#[derive(Default)]
struct Source {
    now: AtomicUsize,
    most: AtomicUsize,
    all: AtomicUsize,
}

impl Source {
    async fn compute(&self) {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        self.all.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_sixty_four_callers_one_computes_at_a_time_and_once_in_a_ttl() {
    // A refresh is never earlier than a fifth of the TTL before its end: a computation counts as a fiftieth at most.
    let (ttl, soonest, lasts) = (200, Duration::from_millis(160), Duration::from_millis(1_600));
    for engine in engines() {
        let namespace = CachePolicy { ttl_ms: ttl, early_percent: 100, lease_ms: 600_000, ..policy("web") };
        let (process, connection) = server_with(&engine, &[namespace], &[]).await;
        let callers = connections(&process, CALLERS).await;
        let sources: Arc<Vec<Source>> = Arc::new((0..KEYS).map(|_| Source::default()).collect());
        let (began, served) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
        let tasks = callers.into_iter().enumerate().map(|(number, caller)| {
            let (sources, served, at) = (sources.clone(), served.clone(), number % KEYS);
            tokio::spawn(async move {
                while began.elapsed() < lasts {
                    let answer = get(&caller, &key_of(at)).await;
                    served.fetch_add(usize::from(answer.verdict > 0), Ordering::Relaxed);
                    if !answer.token.is_empty() {
                        sources[at].compute().await;
                        assert_eq!(cache_call(&caller, "set", &key_of(at), &[&answer.token, "value"]).await, 1);
                    } else if answer.verdict < 0 {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                }
            })
        });
        join_all(tasks.collect::<Vec<_>>()).await.into_iter().for_each(Result::unwrap);
        let most = began.elapsed().as_millis() / soonest.as_millis() + 2;
        for source in sources.iter() {
            assert_eq!(source.most.load(Ordering::SeqCst), 1, "{}: two computed at once", engine.name);
            let computed = source.all.load(Ordering::SeqCst);
            assert!(computed >= 4 && computed as u128 <= most, "{}: {computed} computations", engine.name);
        }
        println!(
            "{}: {} served, {} early of {} computations",
            engine.name,
            served.load(Ordering::Relaxed),
            counter(&connection, "web:", "early").await,
            sources.iter().map(|source| source.all.load(Ordering::SeqCst)).sum::<usize>()
        );
    }
}

/// How a race invalidates.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Key,
    Tag,
}

/// What goes wrong meanwhile.
#[derive(Clone, Copy, PartialEq)]
enum Sabotage {
    None,
    /// Leases and generations are evicted.
    Evictions,
    /// The library is loaded again and again.
    Loads,
}

/// A database: values that only rise, and of each the one below which no reader may see any more.
struct Database {
    values: Vec<AtomicI64>,
    floors: Vec<AtomicI64>,
    races: AtomicUsize,
    violations: AtomicUsize,
    refused: AtomicUsize,
    done: AtomicBool,
}

impl Database {
    fn new() -> Arc<Self> {
        let zeros = || (0..KEYS).map(|_| AtomicI64::new(0)).collect();
        Arc::new(Self {
            values: zeros(),
            floors: zeros(),
            races: AtomicUsize::new(0),
            violations: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            done: AtomicBool::new(false),
        })
    }

    /// Reads, and computes what it is told to compute, from a value that may be old by the time it is stored.
    async fn read(&self, connection: &Connection, by: By) {
        while !self.done.load(Ordering::SeqCst) {
            let at = below(KEYS);
            let floor = self.floors[at].load(Ordering::SeqCst);
            let answer = get(connection, &key_of(at)).await;
            if let Some(value) = answer.value {
                let is_old = value.parse::<i64>().unwrap() < floor;
                self.violations.fetch_add(usize::from(is_old), Ordering::SeqCst);
            }
            if answer.token.is_empty() {
                continue;
            }
            let value = self.values[at].load(Ordering::SeqCst).to_string();
            for _ in 0..below(20) {
                tokio::task::yield_now().await;
            }
            let tag = format!("tag {at}");
            let mut arguments = vec![answer.token.as_str(), &value];
            if by == By::Tag {
                arguments.extend(["", &tag]);
            }
            let stored = cache_call(connection, "set", &key_of(at), &arguments).await;
            self.refused.fetch_add(usize::from(stored == 0), Ordering::SeqCst);
        }
    }

    /// Changes a value, invalidates it, and only then says that no reader may see an older one.
    async fn change(&self, connection: &Connection, by: By) {
        while !self.done.load(Ordering::SeqCst) {
            let at = below(KEYS);
            let value = self.values[at].fetch_add(1, Ordering::SeqCst) + 1;
            match by {
                By::Key => number(connection, "cache_invalidate", &[&key_of(at)], &[]).await,
                By::Tag => cache_call(connection, "invalidate_tag", "web:{0}", &[&format!("tag {at}")]).await,
            };
            self.floors[at].fetch_max(value, Ordering::SeqCst);
            self.races.fetch_add(1, Ordering::SeqCst);
            for _ in 0..below(40) {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn sabotage(&self, connection: &Connection, sabotage: Sabotage, library: &Library) {
        while sabotage != Sabotage::None && !self.done.load(Ordering::SeqCst) {
            if sabotage == Sabotage::Loads {
                load(connection, library).await.unwrap();
            } else {
                let at = below(KEYS);
                let key =
                    if below(2) == 0 { format!("web:{{0}}@l:product {at}") } else { format!("web:{{0}}@t:tag {at}") };
                connection.query::<()>(cmd("UNLINK").arg(key)).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Races sets against invalidations until there were so many. Answers how often an invalidated value was read, and how many sets
/// were refused.
async fn race(process: &Process, library: &Library, by: By, sabotage: Sabotage, races: usize) -> (usize, usize) {
    let database = Database::new();
    let tasks = connections(process, CALLERS).await.into_iter().enumerate().map(|(number, caller)| {
        let (database, library) = (database.clone(), library.clone());
        tokio::spawn(async move {
            if number < INVALIDATORS {
                database.change(&caller, by).await;
            } else if number < INVALIDATORS + SABOTEURS && sabotage != Sabotage::None {
                database.sabotage(&caller, sabotage, &library).await;
            } else {
                database.read(&caller, by).await;
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    while database.races.load(Ordering::SeqCst) < races && tasks.iter().all(|task| !task.is_finished()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    database.done.store(true, Ordering::SeqCst);
    join_all(tasks).await.into_iter().for_each(Result::unwrap);
    (database.violations.load(Ordering::SeqCst), database.refused.load(Ordering::SeqCst))
}

fn namespace() -> CachePolicy {
    CachePolicy { stale_ms: HOUR, ..policy("web") }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_invalidations_by_key_never_let_an_older_value_come_back() {
    for engine in engines() {
        let (process, _connection) = server_with(&engine, &[namespace()], &[]).await;
        let library = cache_library(&[namespace()]);
        let (violations, refused) = race(&process, &library, By::Key, Sabotage::None, 10_000).await;
        assert_eq!(violations, 0, "{}", engine.name);
        assert!(refused > 100, "{}: {refused} sets were overtaken: that shows little", engine.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalidations_by_tag_never_let_an_older_value_come_back_whatever_is_evicted_or_loaded() {
    for engine in engines() {
        let (process, _connection) = server_with(&engine, &[namespace()], &[]).await;
        let library = cache_library(&[namespace()]);
        for sabotage in [Sabotage::None, Sabotage::Evictions, Sabotage::Loads] {
            let (violations, refused) = race(&process, &library, By::Tag, sabotage, 2_000).await;
            assert_eq!(violations, 0, "{}", engine.name);
            assert!(refused > 50, "{}: {refused} sets were overtaken: that shows little", engine.name);
        }
    }
}

/// Without what refuses an overtaken set the same races read invalidated values.
#[tokio::test(flavor = "multi_thread")]
async fn the_races_find_a_library_that_stores_what_was_overtaken() {
    for engine in engines() {
        let Library { name, source, digest } = cache_library(&[namespace()]);
        for (by, check, none) in [
            (By::Key, "redis.call('GET', lease) ~= token", "false"),
            (By::Tag, "elseif began and generation >= began then", "elseif false then"),
        ] {
            assert_eq!(source.matches(check).count(), 1, "{check}");
            let library = Library { name: name.clone(), source: source.replace(check, none), digest: digest.clone() };
            let (process, connection) = server_with(&engine, &[], &[]).await;
            load(&connection, &library).await.unwrap();
            let (violations, _) = race(&process, &library, by, Sabotage::None, 1_000).await;
            assert!(violations > 0, "{}: the races found nothing", engine.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_is_invalidated_while_fifty_set_leaves_none_of_their_values() {
    const SETTERS: usize = 50;
    for engine in engines() {
        let (process, connection) = server_with(&engine, &[namespace()], &[]).await;
        let callers = connections(&process, SETTERS).await;
        let (mut before, mut after) = (0, 0);
        for round in 0..60 {
            let keys: Vec<String> = (0..SETTERS).map(|name| format!("web:{{0}}{round}/{name}")).collect();
            let tokens = join_all(keys.iter().map(|key| lease(&connection, key))).await;
            let sets = callers.iter().zip(&keys).zip(&tokens).map(|((caller, key), token)| async move {
                cache_call(caller, "set", key, &[token, "old", "", "all"]).await
            });
            // Somewhere among the sets: how far they got by then differs.
            let invalidation = async {
                for _ in 0..round % 12 {
                    tokio::task::yield_now().await;
                }
                cache_call(&connection, "invalidate_tag", "web:{0}", &["all"]).await
            };
            let (stored, _) = tokio::join!(join_all(sets), invalidation);
            let stored = stored.into_iter().sum::<i64>();
            (before, after) = (before + stored, after + 50 - stored);
            for answer in join_all(keys.iter().map(|key| read(&connection, "get_ro", key))).await {
                assert_eq!(answer.served(), (0, None), "{}", engine.name);
            }
        }
        assert!(before > 0 && after > 0, "{}: {before} sets before and {after} after", engine.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_fails_is_not_asked_by_all_and_its_values_are_served_until_their_hard_end() {
    let namespace = CachePolicy { ttl_ms: 50, stale_ms: 1_500, lease_ms: 600_000, ..policy("web") };
    for engine in engines() {
        let (process, connection) = server_with(&engine, std::slice::from_ref(&namespace), &[]).await;
        assert_eq!(cache_call(&connection, "set", &key_of(0), &["", "value"]).await, 1);
        let (began, asked) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
        let (stale, down) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks = connections(&process, CALLERS).await.into_iter().map(|caller| {
            let (asked, stale, down) = (asked.clone(), stale.clone(), down.clone());
            tokio::spawn(async move {
                while down.load(Ordering::SeqCst) < 1_000 {
                    let answer = get(&caller, &key_of(0)).await;
                    if !answer.token.is_empty() {
                        asked.fetch_add(1, Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_millis(5)).await; // until it fails
                        assert_eq!(cache_call(&caller, "fail", &key_of(0), &[&answer.token, "100"]).await, 1);
                    }
                    match answer.verdict {
                        2 | 3 => _ = stale.fetch_add(1, Ordering::SeqCst),
                        -2 => _ = down.fetch_add(1, Ordering::SeqCst),
                        -1..=1 => {}
                        other => panic!("{other}"),
                    }
                    // Never an error while there is something stale.
                    let is_before_the_end = began.elapsed() < Duration::from_millis(1_400);
                    assert!(!is_before_the_end || answer.value.is_some(), "{answer:?}");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
        });
        join_all(tasks.collect::<Vec<_>>()).await.into_iter().for_each(Result::unwrap);
        let (asked, most) = (asked.load(Ordering::SeqCst), began.elapsed().as_millis() / 100 + 2);
        assert!(asked >= 5 && asked as u128 <= most, "{}: asked {asked} times, at most {most}", engine.name);
        assert!(stale.load(Ordering::SeqCst) > 500, "{}", engine.name);
    }
}
