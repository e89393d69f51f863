//! A script or function that does not end.
//!
//! A server says `BUSY` once a script has run for `busy-reply-threshold` (5 s by default): until then it says nothing at all. By then all
//! its clients have waited that long, and the Sentinels are about to take it for down. A script that has written nothing is killed. One
//! that has cannot be (`UNKILLABLE`): its server is ended, because what such a script did is neither in a file nor on a replica before it
//! ends, and the server does nothing else any more, not even follow another primary.

use std::time::Duration;

use tokio::time::Instant;

use crate::redis::{Class, Connection, Error, server};

/// How long a server may say `BUSY` before its script is killed: the script has run for `busy-reply-threshold` and this.
const KILL_AFTER: Duration = Duration::from_secs(1);
/// How long a server may say `BUSY` before it is ended, where the script cannot be killed. The Sentinels need 5 s by default to find out,
/// and a second to elect: by then another is primary, if there is one. Without them this is what replaces the server.
const END_AFTER: Duration = Duration::from_secs(10);
/// The same where the data is only in snapshots, or nowhere: an end loses what was written since the last one.
const END_AFTER_UNSAVED: Duration = Duration::from_mins(5);

/// Since when a server is busy.
#[derive(Debug, Default)]
pub(super) struct BusyScript {
    since: Option<Instant>,
}

impl BusyScript {
    /// The server answered something else.
    pub(super) fn ends(&mut self) {
        if let Some(since) = self.since.take() {
            tracing::info!(after = ?since.elapsed(), "the server is no longer busy with a script");
        }
    }

    /// A poll that failed. `is_saved`: ending the server loses nothing that it confirmed. True: the server is to be ended.
    pub(super) async fn must_end_server(
        &mut self,
        error: &Error,
        connection: Option<&Connection>,
        is_saved: bool,
    ) -> bool {
        if error.class() != Class::Busy {
            return false;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() < KILL_AFTER {
            return false;
        }
        let Some(connection) = connection else { return false };
        match server::end_scripts(connection).await {
            Ok(true) => tracing::warn!("a script that did not end is killed"),
            Ok(false) => {}
            Err(error) if has_written(&error) && is_due(since.elapsed(), is_saved) => {
                tracing::error!(busy_for = ?since.elapsed(), "a script that has written does not end: its server is ended");
                return true;
            }
            Err(error) if has_written(&error) => {
                tracing::warn!("a script that has written does not end, and cannot be killed");
            }
            Err(error) => tracing::warn!(%error, "a script that does not end is not killed"),
        }
        false
    }
}

fn is_due(busy_for: Duration, is_saved: bool) -> bool {
    busy_for >= if is_saved { END_AFTER } else { END_AFTER_UNSAVED }
}

/// Whether the script cannot be killed any more.
fn has_written(error: &Error) -> bool {
    error.server_text().is_some_and(|text| text.starts_with("UNKILLABLE"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_whose_data_is_in_no_append_only_file_is_ended_later() {
        let second = Duration::from_secs(1);
        assert!(!is_due(END_AFTER.saturating_sub(second), true) && is_due(END_AFTER, true));
        assert!(!is_due(END_AFTER_UNSAVED.saturating_sub(second), false) && is_due(END_AFTER_UNSAVED, false));
    }
}
