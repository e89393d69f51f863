//! Limits how often a subject may do something, with the binding of a `RateLimitPolicy`.
//! Needs the crates `redis` (features `sentinel` and `tokio-comp`), `tokio` and `serde_json`.
#![allow(clippy::print_stdout)]

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::time::{Duration, Instant};

use redis::ConnectionAddr;
use redis::aio::MultiplexedConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};

type Headers = BTreeMap<&'static str, String>;

/// What `redoubt_limit` answers.
type Reply = (i64, i64, i64, u64, i64, String);

struct Limiter {
    layer: SentinelClient,
    /// `None`: the next call asks the Sentinels where the primary is.
    connection: Option<MultiplexedConnection>,
    /// A layer that is slow is one that fails: after this time `on-store-error` decides.
    deadline: Duration,
    prefix: String,
    allows_on_error: bool,
    quotas: String,
    denied: HashMap<String, (Instant, Headers)>,
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
            denied: HashMap::new(),
        })
    }

    /// Whether a request is allowed, and the headers of its response (draft-ietf-httpapi-ratelimit-headers-10).
    async fn limit(&mut self, subject: &str, cost: u64) -> (bool, Headers) {
        if let Some((until, headers)) = self.denied.get(subject)
            && Instant::now() < *until
        {
            return (false, headers.clone());
        }
        let answered = tokio::time::timeout(self.deadline, self.call(subject, cost)).await;
        let Ok(Ok((allowed, _, left, reset, retry, name))) = answered else {
            // Another server may be the primary by now.
            self.connection = None;
            return (self.allows_on_error, Headers::new());
        };
        let mut headers = Headers::from([
            ("RateLimit-Policy", self.quotas.clone()),
            ("RateLimit", format!("\"{name}\";r={left};t={}", reset.div_ceil(1_000))),
        ]);
        if allowed == 0
            && let Ok(retry @ 1..) = u64::try_from(retry)
        {
            headers.insert("Retry-After", retry.div_ceil(1_000).max(1).to_string());
            self.denied.insert(subject.to_owned(), (Instant::now() + Duration::from_millis(retry), headers.clone()));
        }
        (allowed != 0, headers)
    }

    async fn call(&mut self, subject: &str, cost: u64) -> redis::RedisResult<Reply> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.layer.get_async_connection().await?),
        };
        let key = format!("{}{{{subject}}}", self.prefix);
        redis::cmd("FCALL").arg("redoubt_limit").arg(1).arg(key).arg(cost).query_async(connection).await
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut limiter = Limiter::connect().await?;
    for line in std::io::stdin().lines() {
        let (allowed, headers) = limiter.limit(&line?, 1).await;
        let mut answer = serde_json::json!(headers);
        answer["allowed"] = allowed.into();
        println!("{answer}");
    }
    Ok(())
}
