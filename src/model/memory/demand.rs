//! What the memory of a data pod is divided for, and the least of each term.

pub(super) const MEBIBYTE: u64 = 1 << 20;
/// What a program without data needs: the server, the agent, and the page tables of both, bytes.
pub(super) const PROGRAMS: u64 = 24 * MEBIBYTE;
/// What one connection counts in `maxmemory-clients`, bytes: measured with a thousand, a fresh one takes 38,200 bytes on Redis 7.0
/// (17,900 on 8.0, 17,300 on Valkey 8.1), one that is used with commands of 8 kB less, an idle one 2,500.
pub(super) const CONNECTION: u64 = 40 << 10;
/// Connections that are ours apart from those of applications: replicas, Sentinels (two each), operator, agent, Prometheus.
pub(crate) const OWN_CONNECTIONS: u32 = 64;
/// Connections of applications where the specification does not say and memory allows.
pub(super) const USUAL_CONNECTIONS: u32 = 1_000;
/// The least that is left for data, bytes: below it the fixed parts are most of the pod.
pub(super) const LEAST_DATA: u64 = 16 * MEBIBYTE;
/// The least `proto-max-bulk-len` that a server takes, bytes.
pub(super) const LEAST_VALUE: u64 = MEBIBYTE;
/// A string that grows gets this much more than it needs, bytes (`SDS_MAX_PREALLOC`).
pub(super) const AHEAD: u64 = MEBIBYTE;
/// The least for the buffers of replicas, bytes.
pub(super) const LEAST_REPLICA_BUFFERS: u64 = 4 * MEBIBYTE;

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
    /// `repl-backlog-size` as the specification sets it, bytes.
    pub backlog: Option<u64>,
    /// `proto-max-bulk-len` as the specification sets it, bytes.
    pub largest_value: Option<u64>,
}

/// The least of each term that may grow, bytes.
#[derive(Clone, Copy)]
pub(super) struct Floors {
    pub(super) client_buffers: u64,
    pub(super) largest_command: u64,
    pub(super) replica_buffers: u64,
    pub(super) copy_on_write: u64,
}

impl Floors {
    pub(super) fn of(demand: &Demand) -> Self {
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
    pub(super) fn data(&self) -> u64 {
        self.limit / 100 * u64::from(self.percent)
    }

    /// What is left apart from the data and the least of everything but connections, bytes; `None`: not even that.
    pub(super) fn above_floors(&self) -> Option<u64> {
        self.limit.checked_sub(self.data())?.checked_sub(PROGRAMS)?.checked_sub(Floors::of(self).sum())
    }

    /// As many connections as two thirds of what is left can hold, at most the usual; whole tens, at least 10.
    pub(super) fn connections(&self) -> u32 {
        self.connections.unwrap_or_else(|| {
            let fit = self.above_floors().unwrap_or_default() / 3 * 2 / CONNECTION;
            let fit = u32::try_from(fit).unwrap_or(u32::MAX).saturating_sub(OWN_CONNECTIONS);
            (fit / 10 * 10).clamp(10, USUAL_CONNECTIONS)
        })
    }
}

/// What connections take, ours included, bytes.
pub(super) fn bytes_of_connections(connections: u32) -> u64 {
    (u64::from(connections) + u64::from(OWN_CONNECTIONS)) * CONNECTION
}
