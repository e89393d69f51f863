//! The health of the engine, shared by its tasks, and waiting until it is ready for the first time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::health::Health;

/// What is known of the engine, shared.
pub(super) struct SharedHealth {
    health: watch::Sender<Health>,
    was_ready: AtomicBool,
}

impl Default for SharedHealth {
    fn default() -> Self {
        Self { health: watch::Sender::new(Health::Deciding), was_ready: AtomicBool::new(false) }
    }
}

impl SharedHealth {
    pub(super) fn get(&self) -> Health {
        self.health.borrow().clone()
    }

    pub(super) fn set(&self, health: Health) {
        self.was_ready.fetch_or(health.is_good(), Ordering::Relaxed);
        self.health.send_replace(health);
    }

    /// Waits until the node is ready for the first time, at most for `within`: a kubelet asks once a second, and a layer is
    /// not Ready before that. A node that was ready once is not waited for: that it no longer is has to be reported at once.
    pub(super) async fn first_ready(&self, within: Duration) {
        if !self.was_ready.load(Ordering::Relaxed) {
            // Too late is an answer too.
            let _ = timeout(within, self.health.subscribe().wait_for(Health::is_good)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    const READY_WITHIN: Duration = Duration::from_millis(700);

    #[tokio::test(start_paused = true)]
    async fn only_the_first_readiness_is_waited_for() {
        let (health, began) = (SharedHealth::default(), Instant::now());
        health.first_ready(READY_WITHIN).await;
        assert_eq!(began.elapsed(), READY_WITHIN, "never ready");
        let serving = async {
            sleep(Duration::from_millis(100)).await;
            health.set(Health::Syncing);
            sleep(Duration::from_millis(100)).await;
            health.set(Health::Serving);
        };
        let began = Instant::now();
        tokio::join!(health.first_ready(READY_WITHIN), serving);
        assert_eq!(began.elapsed(), Duration::from_millis(200), "no longer than until it is");
        health.set(Health::Silent);
        let began = Instant::now();
        health.first_ready(READY_WITHIN).await;
        assert_eq!(began.elapsed(), Duration::ZERO, "it was");
    }
}
