//! Logs a user in to the session store of a binding.
//! Needs the crates `redis` (features `sentinel` and `tokio-comp`), `tokio`, `rand` and `sha2`.
#![allow(clippy::print_stdout)]

use std::error::Error;

use redis::ConnectionAddr;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
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
    let mut connection = layer.get_async_connection().await?;

    let (user, token) = ("ada", format!("{:032x}", rand::random::<u128>()));
    let [a, b, c, d, ..] = Sha256::digest(user).0;
    let key = format!("{}{{{:08x}}}s:{token}", field("prefix")?, u32::from_be_bytes([a, b, c, d]));
    let mut create = redis::cmd("FCALL");
    create.arg("redoubt_session_create").arg(1).arg(&key).arg(user).arg("role").arg("admin");
    let _expires: i64 = create.query_async(&mut connection).await?;
    let get = redis::cmd("FCALL").arg("redoubt_session_get").arg(1).arg(&key).to_owned();
    let (_version, _created, _expires, who, fields): (i64, i64, i64, String, Vec<String>) =
        get.query_async(&mut connection).await?;
    println!("{who} {fields:?}");
    Ok(())
}
