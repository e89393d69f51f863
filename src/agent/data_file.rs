//! Which of its files has the data of a node: the append-only file, or the last snapshot.
//!
//! The record says it, because at its start an engine loads the one or the other and never both. A server that is told to write no
//! append-only file any more has its data in there until a snapshot has it. Until then the record names the append-only file, and the agent asks
//! for a snapshot: the next one by the settings may be an hour away.

use std::time::Duration;

use tokio::time::Instant;

use crate::redis::info::{AppendOnly, Info, Snapshots};
use crate::redis::{Connection, server};

/// Between two requests for a snapshot.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// What is followed of it.
#[derive(Debug)]
pub(super) struct DataFile {
    is_append_only: bool,
    /// While the append-only file is off and no snapshot has what it has: the time of the last snapshot that had less.
    leaving: Option<u64>,
    asked: Option<Instant>,
    /// Whether the engine was started without the append-only file that it is to have, because its data was in the snapshot.
    lacks: bool,
}

impl DataFile {
    /// Of an engine that loaded this file. `wanted`: whether it is to have an append-only file.
    pub(super) const fn new(is_append_only: bool, wanted: bool) -> Self {
        Self { is_append_only, leaving: None, asked: None, lacks: wanted && !is_append_only }
    }

    pub(super) const fn is_append_only(&self) -> bool {
        self.is_append_only
    }

    /// Notes the result of a poll. `stays`: the server is a primary, or was in sync at the last poll and is now, with the
    /// same data. An append-only file
    /// that is rewritten still holds all data in what was there before, but not after a full sync: a replica begins a new one with what
    /// it was sent, and until that is whole the old one has what the replica had before. The snapshot that it was sent is its own one.
    pub(super) fn note(&mut self, info: &Info, stays: bool, keeps_data: bool) {
        // Once it was on, the operator decides.
        self.lacks &= info.append_only() == AppendOnly::Off;
        match info.append_only() {
            AppendOnly::Whole => (self.is_append_only, self.leaving) = (true, None),
            AppendOnly::Rewriting => {
                self.is_append_only &= stays;
                self.leaving = None;
            }
            AppendOnly::Off if !self.is_append_only => {}
            AppendOnly::Off if is_sent_all(info) || !keeps_data => (self.is_append_only, self.leaving) = (false, None),
            AppendOnly::Off => {
                let Snapshots { last, is_running, succeeded } = info.snapshots();
                // One that runs when the file is switched off began before.
                if is_running {
                    return;
                }
                let had_less = *self.leaving.get_or_insert(last);
                if last != had_less && succeeded {
                    (self.is_append_only, self.leaving) = (false, None);
                }
            }
        }
    }

    /// Whether an engine that wrote a snapshot as it ended leaves all its data in that.
    pub(super) const fn is_left(&self) -> bool {
        self.leaving.is_some()
    }

    /// Switches the append-only file on, where the engine was started without it: what is written until then is in memory only. A replica
    /// is sent its data first, since that would begin another file.
    pub(super) async fn switch_on(&mut self, connection: &Connection, info: &Info) {
        let has_all = info.primary_link().is_none_or(|link| link.up && !link.syncing);
        let is_due = self.asked.is_none_or(|at| at.elapsed() >= ASK_EVERY);
        if !(self.lacks && has_all && is_due) {
            return;
        }
        self.asked = Some(Instant::now());
        match server::config_set(connection, "appendonly", "yes").await {
            Ok(()) => tracing::info!("the server began from its snapshot, and has an append-only file from now on"),
            Err(error) => {
                tracing::warn!(error = %super::chain(&error), "the server keeps what is written in memory only");
            }
        }
    }

    /// Asks for a snapshot, where the data is in no file that is written.
    pub(super) async fn ask_for_snapshot(&mut self, connection: &Connection, info: &Info) {
        let is_due = self.asked.is_none_or(|at| at.elapsed() >= ASK_EVERY);
        if self.leaving.is_none() || info.snapshots().is_running || !is_due {
            return;
        }
        self.asked = Some(Instant::now());
        if let Err(error) = server::save_in_background(connection).await {
            tracing::warn!(error = %super::chain(&error), "no snapshot has the data of the append-only file, which is off");
        }
    }
}

fn is_sent_all(info: &Info) -> bool {
    info.primary_link().is_some_and(|link| link.syncing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(append_only: u8, last: u64, is_running: u8, status: &str) -> Info {
        Info::parse(&format!(
            "role:master\naof_enabled:{append_only}\naof_rewrite_in_progress:0\naof_last_bgrewrite_status:ok\n\
             rdb_last_save_time:{last}\nrdb_bgsave_in_progress:{is_running}\nrdb_last_bgsave_status:{status}\n"
        ))
    }

    /// The record named the snapshot as soon as the file was off: a sudden end of all nodes loaded the last one, which was older or empty.
    #[test]
    fn the_data_is_in_the_append_only_file_until_a_snapshot_has_it() {
        let mut file = DataFile::new(true, true);
        // One began before the file was switched off, and ends after it.
        for look in
            [info(1, 7, 0, "ok"), info(0, 7, 1, "ok"), info(0, 9, 0, "ok"), info(0, 9, 1, "ok"), info(0, 9, 0, "err")]
        {
            file.note(&look, true, true);
            assert!(file.is_append_only(), "{look:?}");
        }
        assert!(file.is_left());
        file.note(&info(0, 12, 0, "ok"), true, true);
        assert!(!file.is_append_only() && !file.is_left());
        file.note(&info(1, 12, 0, "ok"), true, true);
        assert!(file.is_append_only(), "it is on again");
    }

    #[test]
    fn a_full_sync_leaves_its_data_in_the_snapshot_and_what_keeps_nothing_waits_for_none() {
        let link = |syncing: u8| {
            format!(
                "role:slave\nmaster_host:10.0.0.1\nmaster_link_status:down\nmaster_sync_in_progress:{syncing}\naof_enabled:0\n"
            )
        };
        for (text, keeps_data, is_append_only) in
            [(link(1), true, false), (link(0), true, true), (link(0), false, false)]
        {
            let mut file = DataFile::new(true, true);
            file.note(&Info::parse(&text), false, keeps_data);
            assert_eq!((file.is_append_only(), file.is_left()), (is_append_only, is_append_only), "{text}");
        }
    }
}
