//! The counts that a server keeps for each first word of an error.
//!
//! A script chooses that word, and Redis 7.0 keeps a count for each without a limit. The Sentinels ask for all of them with each `INFO`:
//! from some hundred thousands on a server does nothing else. Later engines keep 128. So the counts are set to zero before that.

use crate::redis::info::Info;
use crate::redis::{Connection, Result, server};

/// So many counts take a server less than a millisecond to tell.
const MOST: u64 = 1_000;

/// How many counts a server may have.
#[derive(Debug, Default)]
pub(super) struct ErrorStats {
    /// Commands that had failed at the last poll.
    failed: u64,
    /// At the most: each command that failed since they were counted may have added one.
    most: u64,
}

impl ErrorStats {
    /// Looks at a server that answers.
    pub(super) async fn reset_if_many(&mut self, connection: &Connection, info: &Info) {
        self.most += self.failures_since(info.number("total_error_replies").unwrap_or_default());
        if self.most <= MOST {
            return;
        }
        match bound(connection).await {
            Ok(left) => self.most = left,
            Err(error) => {
                self.most = 0;
                tracing::warn!(%error, "the server may keep a count for each of many errors");
            }
        }
    }

    /// Commands that failed since the last poll. Fewer than then: the server began to count again.
    fn failures_since(&mut self, failed: u64) -> u64 {
        let before = std::mem::replace(&mut self.failed, failed);
        failed.checked_sub(before).unwrap_or(failed)
    }
}

/// Sets the counts to zero where there are too many. How many are left.
async fn bound(connection: &Connection) -> Result<u64> {
    let counts = server::error_counts(connection).await?;
    if counts <= MOST {
        return Ok(counts);
    }
    server::reset_statistics(connection).await?;
    tracing::warn!(
        counts,
        "scripts made up errors, each with a count of its own: the server's statistics are set to zero"
    );
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_from_the_last_poll_or_from_a_reset() {
        let mut stats = ErrorStats::default();
        assert_eq!([100, 100, 250, 30].map(|failed| stats.failures_since(failed)), [100, 0, 150, 30]);
    }
}
