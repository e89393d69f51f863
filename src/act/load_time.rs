//! How long a server took to load a user's library: it does nothing else meanwhile.

use std::time::{Duration, Instant};

use crate::redis::{Connection, functions};

/// Begun before a load.
pub(super) struct LoadTimer<'a> {
    connection: &'a Connection,
    /// What the server had spent on loads before; `None`: it did not say.
    before: Option<Duration>,
    began: Instant,
}

impl<'a> LoadTimer<'a> {
    pub(super) async fn begin(connection: &'a Connection) -> Self {
        Self { connection, before: functions::load_time(connection).await.ok(), began: Instant::now() }
    }

    /// What the server spent since; where it does not say, what went by.
    pub(super) async fn end(self) -> Duration {
        let passed = self.began.elapsed();
        match (self.before, functions::load_time(self.connection).await.ok()) {
            // Fewer: the statistics were set to zero.
            (Some(before), Some(after)) => after.checked_sub(before).unwrap_or(after),
            (Some(_) | None, Some(_) | None) => passed,
        }
    }
}
