//! What a purpose means for the servers: the defaults of the matrix in `dataplane.md` §3.

use serde::{Deserialize, Serialize};

use super::Purpose;
use super::memory::Demand;

/// How the memory of a purpose is divided. Recorded for a layer when it is made: a later version of the operator that divides
/// otherwise must not take a share away from data that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shares {
    /// The purpose; another one has other shares.
    pub purpose: Purpose,
    /// See [`PurposeDefaults::maxmemory_percent`].
    pub maxmemory_percent: u8,
    /// See [`PurposeDefaults::client_percent`].
    pub client_percent: u8,
}

/// Defaults of one purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurposeDefaults {
    /// `maxmemory-policy`.
    pub eviction_policy: &'static str,
    /// Share of the memory limit for data, percent.
    pub maxmemory_percent: u8,
    /// Whether an append-only file is written (`appendonly`).
    pub append_only: bool,
    /// `repl-backlog-size`, bytes: a minute of writes, so that a replica that was away resumes.
    pub backlog: u64,
    /// What large requests and replies may take together where there is room, percent of `maxmemory`: see
    /// [`MemoryPlan::client_buffers`](super::memory::MemoryPlan::client_buffers).
    pub client_percent: u8,
    /// `min-replicas-to-write`, where there are two replicas or more.
    pub min_replicas_to_write: u16,
    /// `latency-monitor-threshold`, milliseconds.
    pub latency_threshold: u16,
    /// `hash-max-listpack-value`, bytes; `None`: the server's own.
    pub largest_packed_value: Option<u16>,
}

impl PurposeDefaults {
    /// With the shares that were recorded for this purpose.
    #[must_use]
    pub(crate) fn with(self, purpose: Purpose, recorded: Option<Shares>) -> Self {
        match recorded.filter(|shares| shares.purpose == purpose) {
            Some(Shares { maxmemory_percent, client_percent, .. }) => {
                Self { maxmemory_percent, client_percent, ..self }
            }
            None => self,
        }
    }

    /// What the memory of a pod is divided for, where the specification says nothing but the limit (bytes).
    pub const fn demand(&self, limit: u64) -> Demand {
        Demand {
            limit,
            percent: self.maxmemory_percent,
            client_percent: self.client_percent,
            connections: None,
            saves: self.append_only,
            replicates: true,
            backlog: None,
            largest_value: None,
        }
    }

    pub(crate) const fn shares(&self, purpose: Purpose) -> Shares {
        Shares { purpose, maxmemory_percent: self.maxmemory_percent, client_percent: self.client_percent }
    }
}

/// The defaults of a purpose.
pub const fn defaults(purpose: Purpose) -> PurposeDefaults {
    const MEBIBYTE: u64 = 1 << 20;
    let kept = PurposeDefaults {
        eviction_policy: "noeviction",
        maxmemory_percent: 50,
        append_only: true,
        backlog: 64 * MEBIBYTE,
        client_percent: 5,
        min_replicas_to_write: 1,
        latency_threshold: 50,
        largest_packed_value: None,
    };
    match purpose {
        Purpose::Sessions | Purpose::Mixed => kept,
        Purpose::AgentContext => PurposeDefaults { latency_threshold: 100, ..kept },
        // The TTL of a limit's state is what it still owes: the state that is nearest to its end matters least. With `noeviction`
        // a flood of new subjects would make every call fail.
        Purpose::RateLimits => PurposeDefaults {
            eviction_policy: "volatile-ttl",
            maxmemory_percent: 55,
            append_only: false,
            backlog: 16 * MEBIBYTE,
            min_replicas_to_write: 0,
            latency_threshold: 10,
            ..kept
        },
        Purpose::Cache => PurposeDefaults {
            eviction_policy: "allkeys-lfu",
            maxmemory_percent: 60,
            append_only: false,
            client_percent: 10,
            min_replicas_to_write: 0,
            // An entry is a hash of two fields. Measured: at 100 bytes it takes 216 bytes of memory in place of 352, at 1 KiB 1,418,
            // where a plain string takes 1,171.
            largest_packed_value: Some(4096),
            ..kept
        },
    }
}
