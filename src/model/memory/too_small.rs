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
        let least = least / MEBIBYTE;
        write!(
            formatter,
            "{limit}Mi is too small: at least {least}Mi are needed, because data gets {percent} % of it"
        )?;
        if data < LEAST_DATA {
            return write!(formatter, " and needs {}Mi", up(LEAST_DATA));
        }
        let connections = demand.connections();
        let floors = Floors::of(demand);
        write!(
            formatter,
            ", which leaves {}Mi, and {connections} connections need {}Mi, requests and replies \
             {}Mi, one command of the largest size {}Mi, replicas {}Mi, saving {}Mi, the server and its agent {}Mi",
            demand.limit.saturating_sub(data) / MEBIBYTE,
            up(bytes_of_connections(connections)),
            up(floors.client_buffers),
            up(floors.largest_command),
            up(floors.replica_buffers),
            up(floors.copy_on_write),
            up(PROGRAMS),
        )?;
        let fit = (demand.above_floors().unwrap_or_default() / CONNECTION).saturating_sub(u64::from(OWN_CONNECTIONS));
        if demand.connections.is_some() && fit >= 10 {
            write!(formatter, "; {fit} connections would fit")?;
        }
        Ok(())
    }
}
