//! What an agent tells its peers that its running engine is doing.

use super::health::Health;
use super::replica_state::ReplicaState;
use crate::model::lineage::Activity;
use crate::redis::info::Info;

/// By what the server says, and by whether it was sent all that its primary writes.
pub(super) fn activity_of(info: &Info, replica_state: &ReplicaState) -> Activity {
    match Health::of_answer(info) {
        Health::Loading => Activity::Loading,
        // Its primary has what this one was not sent yet.
        _ if info.primary_link().is_some_and(|link| link.up) && !replica_state.is_acknowledging() => Activity::Loading,
        // A replica whose first sync is under way or has yet to begin has nothing to give, and cannot be elected: a primary
        // that asked for a failover because of it would ask without end. One that only lost its link serves what it has.
        Health::Syncing if info.primary_link().is_some_and(|link| link.syncing || link.priority == 0) => {
            Activity::Loading
        }
        _ => Activity::Serving,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::redis_conf;

    fn replica(priority: u32) -> Info {
        Info::parse(&format!(
            "# Replication\r\nrole:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:6379\r\nmaster_link_status:down\r\n\
             master_sync_in_progress:0\r\nslave_repl_offset:7\r\nslave_priority:{priority}\r\n"
        ))
    }

    #[test]
    fn a_replica_that_was_never_linked_since_its_start_is_not_electable() {
        let replica_state = ReplicaState::default();
        assert_eq!(activity_of(&replica(0), &replica_state), Activity::Loading);
        assert_eq!(activity_of(&replica(redis_conf::PRIORITY_WHOLE), &replica_state), Activity::Serving);
    }
}
