//! Drives Limitador's Redis storage with the URL that a `RateLimitPolicy` exports, and prints one line for each claim that held.

use std::collections::HashMap;
use std::error::Error;

use limitador::AsyncRateLimiter;
use limitador::limit::Limit;
use limitador::storage::redis::AsyncRedisStorage;

const NAMESPACE: &str = "shop";

/// Whether each of some calls of one user is limited.
async fn calls(limiter: &AsyncRateLimiter, namespace: &str, count: usize) -> Result<Vec<bool>, Box<dyn Error>> {
    let context = HashMap::from([("user".to_owned(), "ada".to_owned())]).into();
    let mut limited = Vec::new();
    for _ in 0..count {
        limited.push(limiter.check_rate_limited_and_update(&namespace.into(), &context, 1).await?.limited);
    }
    Ok(limited)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("URL")?;
    let storage = AsyncRedisStorage::new(&url).await?;
    let limiter = AsyncRateLimiter::new_with_storage(Box::new(storage));
    let variables = || Ok::<_, Box<dyn Error>>(vec!["user".try_into().map_err(|error| format!("{error:?}"))?]);
    limiter.add_limit(Limit::new(NAMESPACE, 3, 60, vec![], variables()?));
    limiter.add_limit(Limit::with_id("one", "with-id", 3, 60, vec![], variables()?));
    if calls(&limiter, NAMESPACE, 5).await? == [false, false, false, true, true] {
        println!("three of five admitted");
    }
    let counters = limiter.get_counters(&NAMESPACE.into()).await?;
    if counters.iter().any(|counter| counter.remaining() == Some(0)) {
        println!("counters read back");
    }
    match calls(&limiter, "with-id", 1).await {
        Err(error) if format!("{error:?}").contains("NOPERM") || error.to_string().contains("permission") => {
            println!("a limit with an id refused");
        }
        other => println!("a limit with an id: {other:?}"),
    }
    Ok(())
}
