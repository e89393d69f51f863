//! What the functions of the server next to us counted: read before anything sets it to zero, added up, told in `/metrics` and
//! `/counters`.
//!
//! A library counts in memory, without writes, so each load of it and each start of the server begins at zero. The agent reads the
//! counters every few seconds, before it ends the engine, and whenever `/counters` is asked for, which the operator does before it
//! loads a library. What was counted between the last poll and such an end is lost: milliseconds where we knew of it, at most
//! [`EVERY`] where the engine died.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::model::UseKind;
use crate::model::counters::{CounterRows, MOST_ROWS, Tally};
use crate::redis::Connection;
use crate::redis::counters::{counting_kinds, page};

/// Between two polls.
const EVERY: Duration = Duration::from_secs(5);
/// How long a poll may keep something else waiting.
pub(super) const LAST_WITHIN: Duration = Duration::from_millis(500);
/// Looks that are asked for are this far apart at least, and so far that they take a fifth of the server's time at most: anybody in
/// the cluster may ask.
const APART: Duration = Duration::from_millis(20);

/// What was counted since the agent began.
#[derive(Default)]
pub(crate) struct Counters {
    tally: Mutex<Tally>,
    /// When the last poll ended, and how long it took; held while one is under way.
    last: tokio::sync::Mutex<Option<(Instant, Duration)>>,
}

impl Counters {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        // Every change is one call, and each leaves sums that can be told.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what the server counted, unless it was read a moment ago.
    pub(crate) async fn refresh(&self, connection: &Connection) -> crate::redis::Result<()> {
        let mut last = self.last.lock().await;
        if last.is_some_and(|(ended, took)| ended.elapsed() < APART.max(4 * took)) {
            return Ok(());
        }
        let began = Instant::now();
        self.read(connection).await?;
        *last = Some((Instant::now(), began.elapsed()));
        Ok(())
    }

    async fn read(&self, connection: &Connection) -> crate::redis::Result<()> {
        for kind in counting_kinds(connection).await? {
            let mut first = 0;
            while first < MOST_ROWS {
                let page = page(connection, kind, first).await?;
                if page.rows.is_empty() {
                    break;
                }
                first += page.rows.len();
                self.tally().note(kind, page.load, page.rows);
            }
        }
        Ok(())
    }

    /// Reads it, for as long as that may keep something else waiting.
    pub(crate) async fn refresh_at_end(&self, connection: &Connection) {
        // Without an answer what was counted since the last poll is lost with the server.
        let _ = timeout(LAST_WITHIN, self.refresh(connection)).await;
    }

    pub(crate) fn counted(&self) -> CounterRows {
        self.tally().counted()
    }

    /// The sums as Prometheus text: `<library>_<column>_total`, labelled with the use's namespace and name and the part.
    pub(crate) fn render(&self) -> String {
        let (tally, mut text) = (self.tally(), String::new());
        for kind in UseKind::ALL {
            let words = kind.words();
            let Some(columns) = words.counters else { continue };
            for (at, (column, help)) in columns.names.iter().enumerate() {
                let name = format!("{}_{column}_total", words.library);
                for (index, (owner, part, counts)) in tally.of(kind).enumerate() {
                    // Writing to a string cannot fail.
                    if index == 0 {
                        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
                    }
                    let (namespace, of) = owner.split_once('/').unwrap_or(("", owner));
                    let _ = write!(text, "{name}{{namespace={namespace:?},{}={of:?}", words.noun);
                    if let Some(label) = columns.part {
                        let _ = write!(text, ",{label}={part:?}");
                    }
                    let _ = writeln!(text, "}} {}", counts.get(at).copied().unwrap_or_default());
                }
            }
        }
        text
    }
}

/// Looks every few seconds, besides all else that the agent does.
#[derive(Debug, Default)]
pub(crate) struct CounterPoll {
    began: Option<Instant>,
    task: Option<JoinHandle<()>>,
}

impl CounterPoll {
    /// Begins a poll if one is due and none is under way.
    pub(crate) fn begin_if_due(&mut self, counters: &Arc<Counters>, connection: &Connection) {
        let is_due = self.began.is_none_or(|began| began.elapsed() >= EVERY);
        if is_due && self.task.as_ref().is_none_or(JoinHandle::is_finished) {
            self.began = Some(Instant::now());
            let (counters, connection) = (Arc::clone(counters), connection.clone());
            self.task = Some(tokio::spawn(async move {
                if let Err(error) = counters.refresh(&connection).await {
                    tracing::debug!(error = %crate::telemetry::Chain(&error), "the counters are read later");
                }
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::counters::Row;

    #[test]
    fn sums_are_reported_by_the_words_of_their_kind() {
        let counters = Counters::default();
        assert_eq!(counters.render(), "");
        let row = |owner: &str, part: &str, counts: &[u64]| Row {
            owner: owner.to_owned(),
            part: part.to_owned(),
            counts: counts.to_vec(),
        };
        counters.tally().note(UseKind::RateLimitPolicy, 1, [row("shop/api", "second", &[7, 2, 0])]);
        counters.tally().note(UseKind::SessionStore, 1, [row("shop/web", "", &[1, 2, 3, 4, 5, 6, 7])]);
        let text = counters.render();
        for line in [
            "# TYPE redoubt_limits_allowed_total counter",
            r#"redoubt_limits_allowed_total{namespace="shop",policy="api",limit="second"} 7"#,
            r#"redoubt_limits_denied_total{namespace="shop",policy="api",limit="second"} 2"#,
            r#"redoubt_limits_shadowed_total{namespace="shop",policy="api",limit="second"} 0"#,
            r#"redoubt_sessions_missed_total{namespace="shop",store="web"} 7"#,
        ] {
            assert_eq!(text.lines().filter(|found| *found == line).count(), 1, "{line} in {text}");
        }
    }
}
