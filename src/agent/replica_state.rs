//! When a replica takes part in what its primary writes: not at the end of its full sync, but from its first acknowledgement on.
//!
//! Redis 7.0 lists a replica as online, and counts it for `min-replicas-to-write`, as soon as the snapshot is sent, but sends it
//! nothing more before it has acknowledged something, which it does once a second (`replicationCron`). What the primary acknowledges
//! meanwhile is in its own file only. A replica that offered itself in that second would be given the primacy when the engine is
//! killed, and roll its clients back by what the dead engine's file still holds.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::Offset;
use crate::redis::info::Info;

/// A replica whose event loop turned for this long with a link has acknowledged something, and what follows is on its way.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_millis(1_500);

/// Whether a server takes part, by what its polls found since its start.
#[derive(Debug, Default)]
pub(super) struct ReplicaState {
    /// The first poll with a link since the last full sync, and the offset that it told.
    linked: Option<(Instant, Offset)>,
    acknowledging: bool,
}

impl ReplicaState {
    /// Notes the result of a poll. A link that is lost and comes back without a full sync is sent what it missed at once.
    pub(super) fn note(&mut self, info: &Info, now: Instant) {
        let Some(link) = info.primary_link() else {
            *self = Self { linked: None, acknowledging: true };
            return;
        };
        if link.syncing {
            self.acknowledging = false;
        }
        if !link.up && !self.acknowledging {
            self.linked = None;
        }
        if !link.up || self.acknowledging {
            return;
        }
        let (since, offset) = *self.linked.get_or_insert((now, info.offset()));
        self.acknowledging = info.offset() > offset || now.duration_since(since) >= ACKNOWLEDGED_WITHIN;
    }

    /// Whether it is sent what its primary writes, or was until its link went down; a primary always is.
    pub(super) const fn is_acknowledging(&self) -> bool {
        self.acknowledging
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(link: &str, syncing: u8, offset: u64) -> Info {
        Info::parse(&format!(
            "# Replication\r\nrole:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:6379\r\nmaster_link_status:{link}\r\n\
             master_sync_in_progress:{syncing}\r\nslave_repl_offset:{offset}\r\nslave_priority:0\r\n"
        ))
    }

    fn after(polls: &[(u64, Info)]) -> bool {
        let (began, mut replica_state) = (Instant::now(), ReplicaState::default());
        for (milliseconds, info) in polls {
            replica_state.note(info, began + Duration::from_millis(*milliseconds));
        }
        replica_state.is_acknowledging()
    }

    #[test]
    fn a_replica_takes_part_once_it_is_sent_something_or_must_have_acknowledged() {
        assert!(!after(&[(0, replica("down", 1, 0))]));
        assert!(!after(&[(0, replica("up", 0, 7))]), "the link is up, and nothing more was sent");
        assert!(!after(&[(0, replica("up", 0, 7)), (1_250, replica("up", 0, 7))]));
        assert!(after(&[(0, replica("up", 0, 7)), (1_500, replica("up", 0, 7))]), "a primary at rest sends nothing");
        assert!(after(&[(0, replica("up", 0, 7)), (250, replica("up", 0, 8))]));
    }

    #[test]
    fn a_link_that_ends_before_counts_for_nothing_and_one_that_ends_later_takes_nothing_away() {
        assert!(!after(&[(0, replica("up", 0, 7)), (5_000, replica("down", 0, 7))]), "its primary died with the rest");
        assert!(after(&[(0, replica("up", 0, 7)), (250, replica("up", 0, 8)), (500, replica("down", 0, 8))]));
    }

    #[test]
    fn a_further_full_sync_begins_again_and_a_primary_needs_none() {
        let synced = [(0, replica("up", 0, 7)), (250, replica("up", 0, 8))];
        assert!(!after(&[
            synced[0].clone(),
            synced[1].clone(),
            (500, replica("down", 1, 8)),
            (750, replica("up", 0, 9))
        ]));
        assert!(after(&[(0, Info::parse("# Replication\r\nrole:master\r\nmaster_repl_offset:9\r\n"))]));
    }
}
