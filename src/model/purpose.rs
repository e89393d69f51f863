//! What a purpose means for the servers: the defaults of the matrix in `dataplane.md` §3.

use super::Purpose;

/// Defaults of one purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurposeDefaults {
    /// `maxmemory-policy`.
    pub eviction_policy: &'static str,
    /// Share of the memory limit for data, percent.
    pub maxmemory_percent: u8,
    /// Append-only file.
    pub append_only: bool,
    /// `repl-backlog-size`, bytes: a minute of writes, so that a replica that was away resumes.
    pub backlog: u64,
    /// Share of `maxmemory` that the buffers of clients may take, percent (`maxmemory-clients`).
    pub client_percent: u8,
    /// `min-replicas-to-write`, where there are two replicas or more.
    pub min_replicas_to_write: u16,
    /// `latency-monitor-threshold`, milliseconds.
    pub latency_threshold: u16,
}

/// The defaults of a purpose.
pub const fn defaults(purpose: Purpose) -> PurposeDefaults {
    const MEBIBYTE: u64 = 1 << 20;
    let kept = PurposeDefaults {
        eviction_policy: "noeviction",
        maxmemory_percent: 60,
        append_only: true,
        backlog: 64 * MEBIBYTE,
        client_percent: 5,
        min_replicas_to_write: 1,
        latency_threshold: 50,
    };
    match purpose {
        Purpose::Sessions | Purpose::Mixed => kept,
        Purpose::AgentContext => PurposeDefaults { maxmemory_percent: 55, latency_threshold: 100, ..kept },
        Purpose::RateLimits => PurposeDefaults {
            maxmemory_percent: 65,
            append_only: false,
            backlog: 16 * MEBIBYTE,
            min_replicas_to_write: 0,
            latency_threshold: 10,
            ..kept
        },
        Purpose::Cache => PurposeDefaults {
            eviction_policy: "allkeys-lfu",
            maxmemory_percent: 75,
            append_only: false,
            client_percent: 10,
            min_replicas_to_write: 0,
            ..kept
        },
    }
}
