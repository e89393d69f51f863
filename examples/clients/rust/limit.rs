//! Limits how often a subject may do something, with the binding of a `RateLimitPolicy`.
//! Needs the crates `redis` (features `sentinel` and `tokio-comp`), `tokio` and `serde_json`.
#![allow(clippy::print_stdout)]

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::time::{Duration, Instant};

use redis::ConnectionAddr;
use redis::aio::MultiplexedConnection;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};

type Headers = BTreeMap<&'static str, String>;

struct Limiter {
    connection: MultiplexedConnection,
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
            let seconds = (it["windowMilliseconds"].as_u64().unwrap_or_default() / 1_000).max(1);
            format!("{};q={};w={seconds}", it["name"], it["quota"])
        };
        let quotas: Vec<String> = limits.as_array().into_iter().flatten().map(quota).collect();
        Ok(Self {
            connection: layer.get_async_connection().await?,
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
        let mut call = redis::cmd("FCALL");
        call.arg("redoubt_limit").arg(1).arg(format!("{}{{{subject}}}", self.prefix)).arg(cost);
        let asked = call.query_async::<(i64, i64, i64, u64, i64, String)>(&mut self.connection);
        let Ok(Ok((allowed, _, left, reset, retry, name))) = tokio::time::timeout(self.deadline, asked).await else {
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
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut limiter = Limiter::connect().await?;
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(limiter.limit("joan", 1).await);
    }
    let allowed: Vec<bool> = answers.iter().map(|(allowed, _)| *allowed).collect();
    println!("{allowed:?} {} {}", answers[0].1["RateLimit"], answers[3].1["Retry-After"]);
    Ok(())
}
