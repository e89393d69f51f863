//! Limits how often a subject may do something, with the binding of a `RateLimitPolicy`.
//! Needs the crates `redis` (features `sentinel` and `tokio-comp`), `tokio`, `serde_json` and `rand`.
#![allow(clippy::print_stdout)]

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::time::{Duration, Instant};

use redis::ConnectionAddr;
use redis::aio::MultiplexedConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};

type Headers = BTreeMap<&'static str, String>;

/// What `redoubt_limit` answers.
type Reply = (i64, i64, u64, u64, i64, String);

/// Denials that are remembered at most: beyond them all are forgotten, and the layer is asked again.
const REMEMBERED: usize = 1_000;

struct Denial {
    cost: u64,
    told: Instant,
    wait: Duration,
    reply: Reply,
}

struct Limiter {
    layer: SentinelClient,
    /// `None`: the next call asks the Sentinels where the primary is.
    connection: Option<MultiplexedConnection>,
    /// A layer that is slow is one that fails: after this time `on-store-error` decides.
    deadline: Duration,
    prefix: String,
    allows_on_error: bool,
    quotas: String,
    shards: u64,
    /// By key.
    denied: HashMap<String, Denial>,
}

impl Limiter {
    /// Reads the binding and connects to the primary.
    async fn connect() -> Result<Self, Box<dyn Error>> {
        let root = std::env::var("SERVICE_BINDING_ROOT")?;
        let field = |name: &str| std::fs::read_to_string(format!("{root}/limits/{name}"));
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
        let limits: serde_json::Value = serde_json::from_str(&field("limits")?)?;
        let quota = |it: &serde_json::Value| {
            let window = it["windowMilliseconds"].as_u64().unwrap_or_default();
            // w is in whole seconds, and may be left out.
            let window = if window.is_multiple_of(1_000) { format!(";w={}", window / 1_000) } else { String::new() };
            format!("{};q={}{window}", it["name"], it["quota"])
        };
        let quotas: Vec<String> = limits.as_array().into_iter().flatten().map(quota).collect();
        Ok(Self {
            connection: Some(layer.get_async_connection().await?),
            layer,
            deadline: match std::env::var("LIMIT_DEADLINE") {
                Ok(seconds) => Duration::from_secs_f64(seconds.parse()?),
                Err(_) => Duration::from_millis(50),
            },
            prefix: field("prefix")?,
            allows_on_error: field("on-store-error")? == "Allow",
            quotas: quotas.join(", "),
            shards: field("shards")?.parse()?,
            denied: HashMap::new(),
        })
    }

    /// Of a response, by a reply of this age (draft-ietf-httpapi-ratelimit-headers-10).
    fn headers(&self, (allowed, _, left, reset, retry, name): &Reply, age: Duration) -> Headers {
        let seconds = |milliseconds: u64| Duration::from_millis(milliseconds).saturating_sub(age).as_secs_f64().ceil();
        let mut headers = Headers::from([
            ("RateLimit-Policy", self.quotas.clone()),
            ("RateLimit", format!("\"{name}\";r={};t={}", left * self.shards, seconds(*reset))),
        ]);
        // -1: the cost is above what ever fits.
        if *allowed == 0
            && let Ok(retry) = u64::try_from(*retry)
        {
            headers.insert("Retry-After", seconds(retry).to_string());
        }
        headers
    }

    /// Whether a request is allowed, and the headers of its response.
    async fn limit(&mut self, subject: &str, cost: u64) -> (bool, Headers) {
        let shard = if self.shards > 1 { format!(":{}", rand::random_range(0..self.shards)) } else { String::new() };
        let key = format!("{}{{{subject}{shard}}}", self.prefix);
        if let Some(Denial { reply, told, .. }) =
            self.denied.get(&key).filter(|denial| cost >= denial.cost && denial.told.elapsed() < denial.wait)
        {
            return (false, self.headers(reply, told.elapsed()));
        }
        let answered = tokio::time::timeout(self.deadline, self.call(&key, cost)).await;
        let Ok(Ok(reply)) = answered else {
            // Another server may be the primary by now.
            self.connection = None;
            return (self.allows_on_error, Headers::new());
        };
        let (is_allowed, headers) = (reply.0 != 0, self.headers(&reply, Duration::ZERO));
        if !is_allowed && let Ok(wait @ 1..) = u64::try_from(reply.4) {
            if self.denied.len() >= REMEMBERED {
                self.denied.clear();
            }
            self.denied.insert(key, Denial { cost, told: Instant::now(), wait: Duration::from_millis(wait), reply });
        }
        (is_allowed, headers)
    }

    async fn call(&mut self, key: &str, cost: u64) -> redis::RedisResult<Reply> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.layer.get_async_connection().await?),
        };
        redis::cmd("FCALL").arg("redoubt_limit").arg(1).arg(key).arg(cost).query_async(connection).await
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut limiter = Limiter::connect().await?;
    for line in std::io::stdin().lines() {
        let line = line?;
        let (cost, subject) = line.split_once(' ').ok_or("a line is COST SUBJECT")?;
        let (allowed, headers) = limiter.limit(subject, cost.parse()?).await;
        let mut answer = serde_json::json!(headers);
        answer["allowed"] = allowed.into();
        println!("{answer}");
    }
    Ok(())
}
