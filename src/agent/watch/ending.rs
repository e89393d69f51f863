//! The end of an engine by our order.

use std::process::ExitStatus;
use std::time::Duration;

use tokio::process::Child;
use tokio::time::{Instant, timeout_at};

use super::Watch;
use crate::agent::config::Environment;
use crate::agent::engine;
use crate::agent::state::State;

/// Until an engine that did not end is ordered again.
const ORDER_AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Watch {
    /// Notes that all that the server had as primary is in its successor, which it follows.
    pub(crate) const fn note_handed_over(&mut self) {
        self.file_links.note_handed_over();
    }

    /// Orders the server to write everything and end, and writes its last record. It is looked at meanwhile: Sentinels may have it
    /// follow another node, and then other data is on the volume than before.
    ///
    /// `grace`: how long it may take. `false`: the server was not ended by then.
    pub(crate) async fn end_engine(
        &mut self,
        environment: &Environment,
        state: &State,
        engine: &mut Child,
        grace: Duration,
    ) -> bool {
        let deadline = Instant::now() + grace;
        let mut is_told = self.poll(environment, state).await;
        let status = loop {
            engine::order_to_end(engine);
            let again = deadline.min(Instant::now() + ORDER_AGAIN_AFTER);
            match timeout_at(again, engine.wait()).await {
                Ok(status) => break status.ok(),
                Err(_) if Instant::now() >= deadline => break None,
                Err(_) => {}
            }
            let looked = tokio::select! {
                status = engine.wait() => break status.ok(),
                () = tokio::time::sleep_until(deadline) => break None,
                is_told = self.poll(environment, state) => is_told,
            };
            // One that ends meanwhile gives no answer, and what it said before holds.
            is_told = looked || (is_told && !self.is_to_end());
        };
        self.write_last(environment, state, is_told && status.is_some_and(|status: ExitStatus| status.success())).await;
        status.is_some()
    }
}
