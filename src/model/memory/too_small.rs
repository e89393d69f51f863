//! A limit that is too small, and what it is too small for.

use super::demand::{
    CONNECTION, Demand, Floors, LEAST_DATA, MEBIBYTE, OWN_CONNECTIONS, PROGRAMS, bytes_of_connections,
};

/// A limit that is too small, term by term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSmall {
    pub(super) demand: Demand,
    /// The least limit that is enough, bytes; whole mebibytes.
    pub(super) least: u64,
}

impl std::error::Error for TooSmall {}

impl std::fmt::Display for TooSmall {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        /// Whole mebibytes, rounded up: for people.
        const fn up(bytes: u64) -> u64 {
            bytes.div_ceil(MEBIBYTE)
        }
        let Self { demand, least } = self;
        let (limit, percent, data) = (demand.limit / MEBIBYTE, demand.percent, demand.data());
        write!(formatter, "at least {}Mi are needed: ", least / MEBIBYTE)?;
        if data < LEAST_DATA {
            return write!(
                formatter,
                "{percent} % of {limit}Mi is less than the {}Mi of data below which the fixed parts are most of the pod",
                up(LEAST_DATA)
            );
        }
        let connections = demand.connections();
        let floors = Floors::of(demand);
        write!(
            formatter,
            "besides data ({percent} % of {limit}Mi) {}Mi are left, and {connections} connections need {}Mi, requests and replies \
             {}Mi, one command of the largest size {}Mi, replicas {}Mi, saving {}Mi, the server and its agent {}Mi",
            demand.limit.saturating_sub(data) / MEBIBYTE,
            up(bytes_of_connections(connections)),
            up(floors.client_buffers),
            up(floors.largest_command),
            up(floors.replica_buffers),
            up(floors.copy_on_write),
            up(PROGRAMS),
        )?;
        let fit = (demand.besides_floors().unwrap_or_default() / CONNECTION).saturating_sub(u64::from(OWN_CONNECTIONS));
        if demand.connections.is_some() && fit >= 10 {
            write!(formatter, "; {fit} connections would fit")?;
        }
        Ok(())
    }
}
