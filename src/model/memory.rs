//! The memory of a data pod, term by term.

mod demand;
mod too_small;

pub(crate) use self::demand::{Demand, OWN_CONNECTIONS};
use self::demand::{Floors, LEAST_DATA, LEAST_VALUE, MEBIBYTE, PROGRAMS, bytes_of_connections};
pub(crate) use self::too_small::TooSmall;

/// The largest `proto-max-bulk-len` that we give, bytes: what a server has by default.
const MOST_VALUE: u64 = 512 * MEBIBYTE;
/// The most that is of use there, bytes: a server's own default.
const MOST_REPLICA_BUFFERS: u64 = 256 * MEBIBYTE;

/// limit = maxmemory + connections + client buffers + largest command + replica buffers + copy-on-write room + fragmentation and
/// programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The container's limit, bytes.
    pub limit: u64,
    /// `maxmemory`, bytes. A server counts the buffers of connections in it, so that writes are refused sooner; they have their own
    /// term because they also grow when nothing is written.
    pub maxmemory: u64,
    /// Most connections that applications may open together.
    pub max_connections: u32,
    /// For connections, ours included, before they ask for anything large, bytes.
    pub connections: u64,
    /// For large requests and replies besides that, bytes.
    pub client_buffers: u64,
    /// How far one command may pass `maxmemory`, which is compared before it: one value of the largest size, bytes.
    pub largest_command: u64,
    /// For what replicas have not taken yet, the backlog included, bytes.
    pub replica_buffers: u64,
    /// For pages that are written to while a child saves or a replica is filled, and for what is written while a sync of the append-only
    /// file is slow (two seconds of writes at most, outside `maxmemory`), bytes; 0 if nothing is saved or replicated.
    pub copy_on_write: u64,
    /// What is left: fragmentation and the programs, bytes.
    pub fragmentation: u64,
    /// `proto-max-bulk-len`, bytes: the largest string and the largest argument. No term: [`Self::largest_command`] holds it.
    pub largest_value: u64,
}

impl MemoryPlan {
    /// Divides `demand.limit`. An error, with the least that would do, where the limit is too small.
    pub fn divide(demand: &Demand) -> Result<Self, TooSmall> {
        Self::try_divide(demand).ok_or_else(|| TooSmall { demand: *demand, least: least(demand) })
    }

    fn try_divide(demand: &Demand) -> Option<Self> {
        let maxmemory = demand.data();
        let max_connections = demand.connections();
        let connections = bytes_of_connections(max_connections);
        let mut rest = demand.above_floors()?.checked_sub(connections)?;
        if maxmemory < LEAST_DATA {
            return None;
        }
        let mut terms = Floors::of(demand);
        let mut largest_value = demand.largest_value.unwrap_or(LEAST_VALUE);
        if demand.largest_value.is_none() {
            // A value more is one more to receive, one more to send, and one more that passes `maxmemory`.
            let wanted = (maxmemory / 100 * u64::from(demand.client_percent) / 2).min(MOST_VALUE);
            let more = wanted.saturating_sub(largest_value).min(rest / 4 / 3);
            largest_value += more;
            terms.client_buffers += 2 * more;
            terms.largest_command += more;
            rest -= 3 * more;
        }
        if demand.replicates {
            let more = (rest / 4).min(MOST_REPLICA_BUFFERS.saturating_sub(terms.replica_buffers));
            terms.replica_buffers += more;
            rest -= more;
        }
        if demand.saves || demand.replicates {
            let more = rest / 4 * 3;
            terms.copy_on_write += more;
            rest -= more;
        }
        Some(Self {
            limit: demand.limit,
            maxmemory,
            max_connections,
            connections,
            client_buffers: terms.client_buffers,
            largest_command: terms.largest_command,
            replica_buffers: terms.replica_buffers,
            copy_on_write: terms.copy_on_write,
            fragmentation: PROGRAMS + rest,
            largest_value,
        })
    }

    /// `maxmemory-clients`, bytes: above it the server ends the connection that holds most.
    pub const fn of_clients(&self) -> u64 {
        self.connections + self.client_buffers
    }
}

/// By halves: what is enough stays enough when there is more.
fn least(demand: &Demand) -> u64 {
    let is_enough = |mebibytes: u64| {
        MemoryPlan::try_divide(&Demand { limit: mebibytes.saturating_mul(MEBIBYTE), ..*demand }).is_some()
    };
    // 2^40 MiB; no directive asks for more.
    let (mut too_small, mut enough) = (0, 1_u64 << 40);
    while enough - too_small > 1 {
        let middle = too_small + (enough - too_small) / 2;
        if is_enough(middle) { enough = middle } else { too_small = middle }
    }
    enough * MEBIBYTE
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::demand::{AHEAD, CONNECTION, LEAST_REPLICA_BUFFERS};
    use super::*;

    fn demand(limit: u64) -> Demand {
        Demand {
            limit: limit << 20,
            percent: 50,
            client_percent: 5,
            connections: None,
            saves: true,
            replicates: true,
            backlog: None,
            largest_value: None,
        }
    }

    prop_compose! {
        fn any_demand()(
            limit in 0_u64..1 << 38,
            small: bool,
            percent in 10_u8..=90,
            client_percent in 0_u8..=10,
            connections in prop::option::of(10_u32..=100_000),
            saves: bool,
            replicates: bool,
            backlog in prop::option::of(0_u64..1 << 32),
            largest_value in prop::option::of(LEAST_VALUE..1 << 32),
        ) -> Demand {
            let limit = if small { limit >> 9 } else { limit };
            Demand { limit, percent, client_percent, connections, saves, replicates, backlog, largest_value }
        }
    }

    proptest! {
        #[test]
        fn the_terms_make_up_the_limit_and_each_has_its_least(demand in any_demand()) {
            let Ok(plan) = MemoryPlan::divide(&demand) else { return Ok(()) };
            let MemoryPlan { maxmemory, connections, client_buffers, largest_command, replica_buffers, .. } = plan;
            let sum = maxmemory + connections + client_buffers + largest_command + replica_buffers;
            prop_assert_eq!(plan.limit, sum + plan.copy_on_write + plan.fragmentation);
            prop_assert!(maxmemory >= LEAST_DATA && plan.fragmentation >= PROGRAMS);
            prop_assert!(connections >= u64::from(plan.max_connections + OWN_CONNECTIONS) * CONNECTION);
            prop_assert!(demand.connections.is_none_or(|wanted| wanted == plan.max_connections));
            prop_assert!((10..=100_000).contains(&plan.max_connections));
            prop_assert!(client_buffers >= 2 * plan.largest_value && largest_command >= plan.largest_value + AHEAD);
            prop_assert!(plan.largest_value >= LEAST_VALUE);
            prop_assert!(demand.largest_value.is_none_or(|wanted| wanted == plan.largest_value));
            prop_assert!(!demand.replicates || replica_buffers >= demand.backlog.unwrap_or(0).max(LEAST_REPLICA_BUFFERS));
            prop_assert!(!(demand.replicates || demand.saves) || plan.copy_on_write >= maxmemory / 32);
        }

        #[test]
        fn a_limit_that_is_too_small_names_one_that_is_just_enough(demand in any_demand()) {
            let Err(error) = MemoryPlan::divide(&demand) else { return Ok(()) };
            let with = |limit| MemoryPlan::divide(&Demand { limit, ..demand });
            prop_assert!(with(error.least).is_ok(), "{}", error);
            prop_assert!(with(error.least - MEBIBYTE).is_err());
        }
    }

    #[test]
    fn connections_follow_memory_unless_they_are_declared() {
        let connections = |limit, percent| {
            MemoryPlan::divide(&Demand { percent, ..demand(limit) }).map(|plan| plan.max_connections).ok()
        };
        assert_eq!([connections(256, 50), connections(4_096, 50)], [Some(1_000), Some(1_000)]);
        assert_eq!(connections(128, 50), Some(440));
        assert_eq!(connections(96, 50), Some(180));
        // As layers were divided before connections had a term.
        assert_eq!([connections(256, 60), connections(256, 75)], [Some(1_000), Some(370)]);
    }

    #[test]
    fn the_error_says_the_minimum_and_why() {
        let words = |demand: Demand| MemoryPlan::divide(&demand).map_err(|error| error.to_string()).unwrap_err();
        insta::assert_snapshot!(words(demand(20)), @"20Mi is too small: at least 73Mi are needed, because data gets 50 % of it and needs 16Mi");
        insta::assert_snapshot!(words(Demand { connections: Some(1_000), ..demand(128) }), @"128Mi is too small: at least 152Mi are needed, because data gets 50 % of it, which leaves 64Mi, and 1000 connections need 42Mi, requests and replies 2Mi, one command of the largest size 2Mi, replicas 4Mi, saving 2Mi, the server and its agent 24Mi; 704 connections would fit");
        let cache = Demand { percent: 75, client_percent: 10, saves: false, ..demand(64) };
        insta::assert_snapshot!(words(cache), @"64Mi is too small: at least 154Mi are needed, because data gets 75 % of it, which leaves 16Mi, and 10 connections need 3Mi, requests and replies 2Mi, one command of the largest size 2Mi, replicas 4Mi, saving 2Mi, the server and its agent 24Mi");
    }
}
