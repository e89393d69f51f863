//! How slow a machine is while something is timed: units of work that nothing is done to, one after the other.
//!
//! A bound in a claim is one of a machine that works. On a busy one everything takes longer, also what a claim has no part in. So the
//! bound is widened by what a unit took meanwhile, and a quiet machine keeps the bound as it is.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use redoubt::redis::{Connection, Endpoint};
use serde_json::json;
use tokio::task::JoinHandle;

/// Steps, one after the other, of what is timed: a planned change of the primary takes some ten requests.
const STEPS: u32 = 10;
/// From the end of a unit to the begin of the next.
const PAUSE: Duration = Duration::from_millis(50);

/// Repeats a unit of work until it is dropped.
pub struct Witness {
    /// Begin and end of each unit that ended well.
    units: Arc<Mutex<Vec<Range<Instant>>>>,
    task: JoinHandle<()>,
}

impl Witness {
    /// Begins, and returns after the first unit. `unit` gives whether it succeeded.
    async fn start<F: Future<Output = bool> + Send>(unit: impl Fn() -> F + Send + 'static) -> Self {
        let began = Instant::now();
        while !unit().await {
            assert!(began.elapsed() < Duration::from_mins(1), "no unit of a witness ends well");
        }
        let units = Arc::new(Mutex::new(vec![began..Instant::now()]));
        let ended = Arc::clone(&units);
        let task = tokio::spawn(async move {
            loop {
                let began = Instant::now();
                if unit().await {
                    ended.lock().unwrap().push(began..Instant::now());
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        Self { units, task }
    }

    /// Begins to ask a server for an answer. One that cannot be reached or is silent is asked again over another connection.
    pub async fn of_server(endpoint: Endpoint) -> Self {
        let connection = Arc::new(tokio::sync::Mutex::new(None));
        Self::start(move || {
            let (connection, endpoint) = (Arc::clone(&connection), endpoint.clone());
            async move {
                let mut open = connection.lock().await;
                let live: Connection = match open.take() {
                    Some(live) => live,
                    None => match Connection::open(&endpoint).await {
                        Ok(live) => live,
                        Err(_) => return false,
                    },
                };
                let is_answered = live.query::<String>(&redis::cmd("PING")).await.is_ok();
                if is_answered {
                    *open = Some(live);
                }
                is_answered
            }
        })
        .await
    }

    /// Begins to write an object of a namespace's, of its own, which the API server has to store each time.
    pub async fn of_api_server(client: Client, namespace: &str) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("witness-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let objects: Api<ConfigMap> = Api::namespaced(client, namespace);
        Self::start(move || {
            let (objects, name) = (objects.clone(), name.clone());
            let number = NUMBER.fetch_add(1, Ordering::Relaxed).to_string();
            async move {
                let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"number": number}});
                objects.patch(&name, &PatchParams::apply("witness"), &Patch::Apply(object)).await.is_ok()
            }
        })
        .await
    }

    /// Longest time without the end of a unit, of those that overlap with `window`.
    pub fn longest_silence(&self, window: &Range<Instant>) -> Duration {
        longest_silence(&self.units.lock().unwrap(), window, Instant::now())
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the quickest of these took for one unit in `window`.
pub fn slowness(witnesses: &[Witness], window: &Range<Instant>) -> Duration {
    witnesses.iter().map(|witness| witness.longest_silence(window)).min().unwrap_or_default()
}

/// A bound, on a machine that took so long for one unit.
pub fn widened(bound: Duration, slowness: Duration) -> Duration {
    bound + slowness * STEPS
}

fn longest_silence(units: &[Range<Instant>], window: &Range<Instant>, now: Instant) -> Duration {
    let ends = units.iter().map(|unit| unit.end).chain([now]).collect::<Vec<_>>();
    let silent = ends.windows(2).filter(|pair| pair[1] >= window.start && pair[0] <= window.end);
    silent.map(|pair| (pair[1] - pair[0]).saturating_sub(PAUSE)).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_silent_within_the_window_counts() {
        let began = Instant::now();
        let at = |milliseconds| began + Duration::from_millis(milliseconds);
        let units = [at(0)..at(1), at(51)..at(101), at(151)..at(1_151), at(1_201)..at(1_202), at(1_252)..at(1_253)];
        let silence = |from, to| longest_silence(&units, &(at(from)..at(to)), at(1_303));
        assert_eq!(silence(0, 90), Duration::from_millis(50));
        assert_eq!(silence(500, 600), Duration::from_secs(1));
        assert_eq!(silence(1_160, 1_300), Duration::from_millis(1));
        // What has not ended by now is silent up to now.
        assert_eq!(longest_silence(&units, &(at(1_260)..at(5_000)), at(5_253)), Duration::from_millis(3_950));
    }
}
