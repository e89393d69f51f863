//! Logs a user in to the session store of a binding.
//! Needs the crates `redis` (features `sentinel` and `tokio-comp`), `tokio`, `rand` and `sha2`.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::{Duration, Instant};

use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{AsyncConnectionConfig, Cmd, ConnectionAddr, FromRedisValue, RedisResult};
use sha2::{Digest as _, Sha256};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let root = std::env::var("SERVICE_BINDING_ROOT")?;
    let field = |name: &str| std::fs::read_to_string(format!("{root}/web/{name}"));
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

    let (user, token) = ("ada", format!("{:032x}", rand::random::<u128>()));
    let [a, b, c, d, ..] = Sha256::digest(user).0;
    let key = format!("{}{{{:08x}}}s:{token}", field("prefix")?, u32::from_be_bytes([a, b, c, d]));
    let mut create = redis::cmd("FCALL");
    create.arg("redoubt_session_create").arg(1).arg(&key).arg(user).arg("role").arg("admin");
    let _expires: i64 = call(&mut layer, &create).await?;
    let get = redis::cmd("FCALL").arg("redoubt_session_get").arg(1).arg(&key).to_owned();
    let (_version, _created, _expires, who, fields): (i64, i64, i64, String, Vec<String>) =
        call(&mut layer, &get).await?;
    println!("{who} {fields:?}");

    // For whom measures a failover: reads on for so long, and says how long the longest call took.
    let stay = std::env::var("STAY_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .map_or(Duration::ZERO, Duration::from_secs);
    let (start, mut longest) = (Instant::now(), Duration::ZERO);
    while start.elapsed() < stay {
        let began = Instant::now();
        let _: redis::Value = call(&mut layer, &get).await?;
        longest = longest.max(began.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    if !longest.is_zero() {
        println!("longest call {} ms", longest.as_millis());
    }
    Ok(())
}

/// Asks the Sentinels where the primary is, and calls it; again after an error, up to ten times. (An application keeps the
/// connection until a call fails.)
async fn call<T: FromRedisValue>(layer: &mut SentinelClient, command: &Cmd) -> RedisResult<T> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(Duration::from_millis(500)))
        .set_response_timeout(Some(Duration::from_secs(1)));
    let mut tries = 0;
    loop {
        let called = match layer.get_async_connection_with_config(&config).await {
            Ok(mut connection) => command.query_async(&mut connection).await,
            Err(error) => Err(error),
        };
        if called.is_ok() || tries == 10 {
            return called;
        }
        tries += 1;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}
