//! Waiting for something with a deadline.

use std::time::{Duration, Instant};

/// Polls until `condition` holds; how long that took. Panics at the deadline with what was waited for.
pub async fn eventually(what: &str, within: Duration, condition: impl AsyncFnMut() -> bool) -> Duration {
    let took = poll(within, condition).await;
    took.unwrap_or_else(|| panic!("not within {within:?}: {what}"))
}

/// Polls as [`eventually`]; `None` at the deadline.
pub async fn eventually_or(what: &str, within: Duration, condition: impl AsyncFnMut() -> bool) -> Option<Duration> {
    let took = poll(within, condition).await;
    if took.is_none() {
        println!("not within {within:?}: {what}");
    }
    took
}

/// Looks, and rests for three times as long as the look took: to ask every server and the API server without a rest takes from
/// two processors what the servers need for that which is waited for.
async fn poll(within: Duration, mut condition: impl AsyncFnMut() -> bool) -> Option<Duration> {
    const REST: std::ops::RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_millis(250);
    let began = Instant::now();
    loop {
        let looked = Instant::now();
        if condition().await {
            return Some(began.elapsed());
        }
        if began.elapsed() >= within {
            return None;
        }
        tokio::time::sleep((3 * looked.elapsed()).clamp(*REST.start(), *REST.end())).await;
    }
}
