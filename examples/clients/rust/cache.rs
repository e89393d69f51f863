//! Reads through a cache, with the binding of a `CacheNamespace`.
//! Needs the crates `redis` (features `sentinel` and `tokio-comp`), `tokio` and `futures`.
#![allow(clippy::print_stdout)]

use std::collections::HashMap;
use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, Value};
use tokio::time::sleep;

type Failure = Box<dyn Error + Send + Sync>;
/// Run and number of a message.
type Position = (String, i64);

/// Copies of values, and until when each is used.
type Values = HashMap<String, (Option<String>, Instant)>;

/// How long to wait for what another caller computes.
const PATIENCE: Duration = Duration::from_secs(5);
/// For how long a copy in this process is used at most.
const COPIED: Duration = Duration::from_secs(10);

fn field(name: &str) -> Result<String, Failure> {
    let root = std::env::var("SERVICE_BINDING_ROOT")?;
    Ok(std::fs::read_to_string(format!("{root}/cache/{name}"))?)
}

/// The primary, as the Sentinels name it now.
async fn primary() -> Result<Client, Failure> {
    let mut seeds = Vec::new();
    for seed in field("sentinels")?.split(',') {
        let (host, port) = seed.rsplit_once(':').ok_or("a seed is HOST:PORT")?;
        seeds.push(ConnectionAddr::Tcp(host.to_owned(), port.parse()?));
    }
    let mut layer = SentinelClientBuilder::new(seeds, field("master-name")?, SentinelServerType::Master)?
        .set_client_to_sentinel_username(field("sentinel-username")?)
        .set_client_to_sentinel_password(field("sentinel-password")?)
        .set_client_to_redis_username(field("username")?)
        .set_client_to_redis_password(field("password")?)
        .build()?;
    Ok(layer.async_get_client().await?)
}

/// A connection to the primary that answers within a second, or fails.
async fn connect() -> Result<MultiplexedConnection, Failure> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(Duration::from_millis(500)))
        .set_response_timeout(Some(Duration::from_secs(1)));
    Ok(primary().await?.get_multiplexed_async_connection_with_config(&config).await?)
}

#[derive(Default)]
struct Cache {
    connection: tokio::sync::Mutex<Option<MultiplexedConnection>>,
}

impl Cache {
    /// Over the connection that there is. After an error the next call makes another: the primary may have changed.
    async fn call<T: redis::FromRedisValue>(&self, name: &str, key: &str, rest: &[&str]) -> Result<T, Failure> {
        let mut connection = {
            let mut held = self.connection.lock().await;
            match &*held {
                Some(connection) => connection.clone(),
                None => held.insert(connect().await?).clone(),
            }
        };
        let mut call = redis::cmd("FCALL");
        call.arg(name).arg(1).arg(key).arg(rest);
        let called = call.query_async(&mut connection).await;
        if called.is_err() {
            *self.connection.lock().await = None;
        }
        Ok(called?)
    }

    /// Says how a computation ended. A cache that is away now costs the next reader one: the answer is there without it.
    async fn tell(&self, name: &str, key: &str, rest: &[&str]) {
        let _stored: Result<i64, Failure> = self.call(name, key, rest).await;
    }

    /// The value of a key, `None` if there is none; computed by this caller if it is the one that is told to.
    async fn cached<F>(&self, key: &str, compute: F, ttl: &str, tags: &[&str]) -> Result<Option<String>, Failure>
    where
        F: AsyncFn() -> Result<Option<String>, Failure>,
    {
        let began = Instant::now();
        loop {
            let Ok(reply) = self.call::<Vec<Value>>("redoubt_cache_get", key, &[]).await else {
                return compute().await; // a cache that is away costs time, not answers: bound what reaches the source here
            };
            let mut parts = reply.into_iter();
            let mut part = || parts.next().unwrap_or(Value::Nil);
            let verdict: i64 = redis::from_redis_value(part())?;
            let value: Option<String> = redis::from_redis_value(part())?;
            let token: Option<String> = redis::from_redis_value(part())?;
            let wait: Option<u64> = redis::from_redis_value(part())?;
            if let Some(token) = token.filter(|token| !token.is_empty()) {
                let fresh = match compute().await {
                    Ok(fresh) => fresh,
                    Err(error) => {
                        self.tell("redoubt_cache_fail", key, &[&token]).await;
                        // What is stale is served, to the next callers too.
                        return if verdict < 1 { Err(error) } else { Ok(value) };
                    }
                };
                // 0: overtaken; the value is still ours to use.
                match &fresh {
                    None => self.tell("redoubt_cache_negative", key, &[&[token.as_str()], tags].concat()).await,
                    Some(fresh) => self.tell("redoubt_cache_set", key, &[&[&token, fresh, ttl], tags].concat()).await,
                }
                return Ok(fresh);
            }
            if verdict >= 1 {
                return Ok(value);
            }
            if verdict == -2 || began.elapsed() > PATIENCE {
                return Err("the source is down".into());
            }
            sleep(Duration::from_millis(wait.unwrap_or_default().min(20))).await;
        }
    }
}

/// Copies in this process of what the cache said. A message removes one; what may have been missed removes all.
#[derive(Default)]
struct Copies {
    state: Mutex<(Values, Option<Position>)>,
}

impl Copies {
    fn lock(&self) -> MutexGuard<'_, (Values, Option<Position>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, key: &str) -> bool {
        self.lock().0.contains_key(key)
    }

    fn hear(&self, message: &str) {
        let (values, heard) = &mut *self.lock();
        let mut parts = message.splitn(4, ' ');
        let mut part = || parts.next().unwrap_or_default();
        let (run, number, kind, what) = (part().to_owned(), part().parse().unwrap_or_default(), part(), part());
        let is_next = heard.as_ref().is_some_and(|(of, last)| *of == run && last + 1 == number);
        if is_next && kind == "k" {
            values.remove(what);
        } else {
            values.clear();
        }
        *heard = Some((run, number));
    }

    /// What the server says; `None`: it does not answer.
    fn compare(&self, position: Option<Position>) {
        let (values, heard) = &mut *self.lock();
        if *heard != position {
            values.clear();
            *heard = position;
        }
    }

    async fn listen_once(&self) -> Result<(), Failure> {
        let client = primary().await?;
        let mut subscriber = client.get_async_pubsub().await?;
        subscriber.subscribe(field("channel")?).await?;
        let (mut messages, prefix) = (subscriber.into_on_message(), field("prefix")?);
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut ask = tokio::time::interval(Duration::from_secs(5));
        loop {
            tokio::select! {
                biased;
                message = messages.next() => self.hear(&message.ok_or("the connection ended")?.get_payload::<String>()?),
                _ = ask.tick() => {
                    let mut call = redis::cmd("FCALL_RO");
                    call.arg("redoubt_caches_position").arg(0).arg(&prefix);
                    self.compare(Some(call.query_async(&mut connection).await?));
                }
            }
        }
    }

    async fn listen(&self) {
        while self.listen_once().await.is_err() {
            self.compare(None);
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn get<F>(&self, cache: &Cache, key: &str, compute: F) -> Result<Option<String>, Failure>
    where
        F: AsyncFn() -> Result<Option<String>, Failure>,
    {
        let heard = {
            let (values, heard) = &*self.lock();
            if let Some((value, until)) = values.get(key)
                && Instant::now() < *until
            {
                return Ok(value.clone());
            }
            heard.clone()
        };
        let value = cache.cached(key, compute, "", &[]).await?;
        let (values, now) = &mut *self.lock();
        // Else it may be from before an invalidation.
        if heard.is_some() && heard == *now {
            values.insert(key.to_owned(), (value.clone(), Instant::now() + COPIED));
        }
        Ok(value)
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let cache = Cache::default();
    let prefix = field("prefix")?;
    let (key, group) = (format!("{prefix}{{0}}rust"), format!("{prefix}{{0}}"));
    let computed = AtomicUsize::new(0);
    let source = async || Ok(Some(format!("value {}", computed.fetch_add(1, Ordering::SeqCst) + 1)));
    join_all((0..8).map(|_| cache.cached(&key, source, "", &["shop"])))
        .await
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    if computed.load(Ordering::SeqCst) == 1 {
        println!("one computed");
    }
    cache.call::<i64>("redoubt_cache_invalidate_tag", &group, &["shop"]).await?;
    println!("{}", cache.cached(&key, source, "20", &["shop"]).await?.unwrap_or_default());
    sleep(Duration::from_millis(50)).await;
    let down = async || Err::<Option<String>, Failure>("the source is down".into());
    let (first, second) = (cache.cached(&key, down, "", &[]).await?, cache.cached(&key, down, "", &[]).await?);
    println!("stale {} {}", first.unwrap_or_default(), second.unwrap_or_default());
    if cache.cached(&format!("{key} gone"), down, "", &[]).await.is_err() {
        println!("down");
    }

    let copies = Arc::new(Copies::default());
    let listening = copies.clone();
    tokio::spawn(async move { listening.listen().await });
    let other = format!("{key} copy");
    for says in ["told", "noticed"] {
        while !copies.has(&other) {
            copies.get(&cache, &other, async || Ok(Some("copied".to_owned()))).await?;
        }
        if says == "told" {
            cache.call::<i64>("redoubt_cache_invalidate", &other, &[]).await?;
        } else {
            copies.hear("1 1 k another run");
        }
        while copies.has(&other) {
            sleep(Duration::from_millis(10)).await;
        }
        println!("{says}");
    }
    Ok(())
}
