//! The memory of a data pod, term by term.

mod too_small;

pub use too_small::TooSmall;

const MEBIBYTE: u64 = 1 << 20;
/// What a program without data needs: the server, the agent, and the page tables of both, bytes.
const PROGRAMS: u64 = 24 * MEBIBYTE;
/// The least that is left for data, bytes: below it the fixed parts are most of the pod.
const LEAST_DATA: u64 = 16 * MEBIBYTE;
/// What one connection counts in `maxmemory-clients`, bytes: measured with a thousand, a fresh one takes 38,200 bytes on Redis 7.0
/// (17,900 on 8.0, 17,300 on Valkey 8.1), one that is used with commands of 8 kB less, an idle one 2,500.
const CONNECTION: u64 = 40 << 10;
/// Connections that are ours beside those of applications: replicas, Sentinels (two each), operator, agent, Prometheus.
pub const OWN_CONNECTIONS: u32 = 64;
/// Connections of applications where the specification does not say and memory allows.
const USUAL_CONNECTIONS: u32 = 1_000;
/// The least `proto-max-bulk-len` that a server takes, bytes.
const LEAST_VALUE: u64 = MEBIBYTE;
/// The largest `proto-max-bulk-len` that we give, bytes: what a server has by default.
const MOST_VALUE: u64 = 512 * MEBIBYTE;
/// A string that grows gets this much more than it needs, bytes (`SDS_MAX_PREALLOC`).
const AHEAD: u64 = MEBIBYTE;
/// The least for the buffers of replicas, bytes.
const LEAST_REPLICA_BUFFERS: u64 = 4 * MEBIBYTE;
/// The most that is of use there, bytes: a server's own default.
const MOST_REPLICA_BUFFERS: u64 = 256 * MEBIBYTE;

/// What a pod's memory is divided for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The container's limit, bytes.
    pub limit: u64,
    /// Share of it for data, percent (10 to 90).
    pub percent: u8,
    /// What requests and replies may take together where there is room, percent of the data.
    pub client_percent: u8,
    /// Connections of applications; `None`: 1,000, or fewer where memory is small.
    pub connections: Option<u32>,
    /// Whether files are written by child processes.
    pub saves: bool,
    /// Whether there are replicas.
    pub replicates: bool,
    /// `repl-backlog-size` as somebody set it, bytes.
    pub backlog: Option<u64>,
    /// `proto-max-bulk-len` as somebody set it, bytes.
    pub largest_value: Option<u64>,
}

/// limit = maxmemory + connections + client buffers + largest command + replica buffers + copy-on-write room + fragmentation and
/// programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The container's limit, bytes.
    pub limit: u64,
    /// `maxmemory`, bytes. A server counts the buffers of connections in it, so that writes are refused sooner; they have their own
    /// term because they also grow when nothing is written.
    pub maxmemory: u64,
    /// Connections of applications.
    pub max_connections: u32,
    /// For connections, ours included, before they ask for anything large, bytes.
    pub connections: u64,
    /// For large requests and replies beside that, bytes.
    pub client_buffers: u64,
    /// How far one command may pass `maxmemory`, which is compared before it: one value of the largest size, bytes.
    pub largest_command: u64,
    /// For what replicas have not taken yet, the backlog included, bytes.
    pub replica_buffers: u64,
    /// For pages that are written to while a child saves or a replica is filled, bytes; 0 if neither happens.
    pub copy_on_write: u64,
    /// What is left: fragmentation and the programs, bytes.
    pub fragmentation: u64,
    /// `proto-max-bulk-len`, bytes: the largest string and the largest argument. No term: [`Self::largest_command`] holds it.
    pub largest_value: u64,
}

/// The least of each term that may grow, bytes.
#[derive(Clone, Copy)]
struct Floors {
    client_buffers: u64,
    largest_command: u64,
    replica_buffers: u64,
    copy_on_write: u64,
}

impl Floors {
    fn of(demand: &Demand) -> Self {
        let value = demand.largest_value.unwrap_or(LEAST_VALUE);
        let writes = demand.saves || demand.replicates;
        Self {
            // One that is received and one that is sent.
            client_buffers: value.saturating_mul(2),
            largest_command: value.saturating_add(AHEAD),
            replica_buffers: match (demand.replicates, demand.backlog) {
                (true, backlog) => backlog.unwrap_or_default().max(LEAST_REPLICA_BUFFERS),
                (false, _) => 0,
            },
            copy_on_write: if writes { demand.data() / 32 } else { 0 },
        }
    }

    const fn sum(self) -> u64 {
        self.client_buffers
            .saturating_add(self.largest_command)
            .saturating_add(self.replica_buffers)
            .saturating_add(self.copy_on_write)
    }
}

impl Demand {
    fn data(&self) -> u64 {
        self.limit / 100 * u64::from(self.percent)
    }

    /// What is left beside the data and the least of everything but connections, bytes; `None`: not even that.
    fn beside_floors(&self) -> Option<u64> {
        self.limit.checked_sub(self.data())?.checked_sub(PROGRAMS)?.checked_sub(Floors::of(self).sum())
    }

    /// As many connections as two thirds of what is left can hold, at most the usual; whole tens, at least 10.
    fn connections(&self) -> u32 {
        self.connections.unwrap_or_else(|| {
            let fit = self.beside_floors().unwrap_or_default() / 3 * 2 / CONNECTION;
            let fit = u32::try_from(fit).unwrap_or(u32::MAX).saturating_sub(OWN_CONNECTIONS);
            (fit / 10 * 10).clamp(10, USUAL_CONNECTIONS)
        })
    }
}

/// What connections take, ours included, bytes.
fn bytes_of_connections(connections: u32) -> u64 {
    (u64::from(connections) + u64::from(OWN_CONNECTIONS)) * CONNECTION
}

impl MemoryPlan {
    /// Divides `demand.limit`.
    pub fn divide(demand: &Demand) -> Result<Self, TooSmall> {
        Self::try_divide(demand).ok_or_else(|| TooSmall::of(demand))
    }

    fn try_divide(demand: &Demand) -> Option<Self> {
        let maxmemory = demand.data();
        let max_connections = demand.connections();
        let connections = bytes_of_connections(max_connections);
        let mut rest = demand.beside_floors()?.checked_sub(connections)?;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
            prop_assert!(with(error.least()).is_ok(), "{}", error);
            prop_assert!(with(error.least() - MEBIBYTE).is_err());
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
        insta::assert_snapshot!(words(demand(20)), @"at least 73Mi are needed: 50 % of 20Mi is less than the 16Mi of data below which the fixed parts are most of the pod");
        insta::assert_snapshot!(words(Demand { connections: Some(1_000), ..demand(128) }), @"at least 152Mi are needed: beside data (50 % of 128Mi) 64Mi are left, and 1000 connections need 42Mi, requests and replies 2Mi, one command of the largest size 2Mi, replicas 4Mi, saving 2Mi, the server and its agent 24Mi; 704 connections would fit");
        let cache = Demand { percent: 75, client_percent: 10, saves: false, ..demand(64) };
        insta::assert_snapshot!(words(cache), @"at least 154Mi are needed: beside data (75 % of 64Mi) 16Mi are left, and 10 connections need 3Mi, requests and replies 2Mi, one command of the largest size 2Mi, replicas 4Mi, saving 2Mi, the server and its agent 24Mi");
    }
}
