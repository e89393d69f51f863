//! Waiting for something with a deadline, and the commands that a person would type.

use std::process::Command;
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

/// Runs the development cluster's command, or kubectl; its output.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("the program runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// `tests/cluster/cluster`.
pub fn cluster(arguments: &[&str]) -> String {
    run("tests/cluster/cluster", arguments)
}

/// A node that is off the network for as long as this lives: also a claim that fails leaves the cluster whole to the next one.
pub struct CutOff {
    node: String,
}

impl CutOff {
    /// Cuts it off.
    pub fn begin(node: &str) -> Self {
        cluster(&["cut", node]);
        Self { node: node.to_owned() }
    }

    /// Puts it back.
    pub fn heal(self) {
        drop(self);
    }
}

impl Drop for CutOff {
    fn drop(&mut self) {
        let healed = Command::new("tests/cluster/cluster").args(["heal", &self.node]).status();
        if !healed.is_ok_and(|status| status.success()) {
            println!("cannot put {} back on the network", self.node);
        }
    }
}

/// `kubectl`.
pub fn kubectl(arguments: &[&str]) -> String {
    run("kubectl", arguments)
}

/// `helm`.
pub fn helm(arguments: &[&str]) -> String {
    run("helm", arguments)
}
