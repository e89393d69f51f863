//! The memory of a data pod, term by term.

/// What a program without data needs: the server, the agent, and the page tables of both, bytes.
const PROGRAMS: u64 = 24 << 20;
/// The least that is left for data, bytes: below it the fixed parts are most of the pod.
const LEAST_DATA: u64 = 16 << 20;

/// limit = maxmemory + copy-on-write room + client buffers + fragmentation and programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The container's limit, bytes.
    pub limit: u64,
    /// `maxmemory`, bytes.
    pub maxmemory: u64,
    /// For the buffers of clients (`maxmemory-clients`), bytes.
    pub client_buffers: u64,
    /// For pages that are written to while a child saves, bytes; 0 if nothing is ever saved.
    pub copy_on_write: u64,
    /// What is left: fragmentation and the programs, bytes.
    pub fragmentation: u64,
}

/// A limit that is too small, and what it is too small for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooSmall {
    /// The share for data.
    #[error(
        "at least {}Mi are needed: {percent} % of {}Mi is less than the {}Mi of data below which the fixed parts are most of the pod",
        mebibytes(*.least), mebibytes(*.limit), mebibytes(LEAST_DATA)
    )]
    Data {
        /// The limit, bytes.
        limit: u64,
        /// The least limit, bytes; whole mebibytes.
        least: u64,
        /// Share of the limit for data, percent.
        percent: u8,
    },
    /// What is left beside the data.
    #[error(
        "at least {}Mi are needed: beside data ({percent} % of {}Mi) and client buffers ({client_percent} % of that) {}Mi are left, and the server and its agent take {}Mi",
        mebibytes(*.least), mebibytes(*.limit), mebibytes(*.rest), mebibytes(PROGRAMS)
    )]
    Rest {
        /// The limit, bytes.
        limit: u64,
        /// The least limit, bytes; whole mebibytes.
        least: u64,
        /// Share of the limit for data, percent.
        percent: u8,
        /// Share of that for client buffers, percent.
        client_percent: u8,
        /// What is left, bytes.
        rest: u64,
    },
}

impl TooSmall {
    /// The least limit that is enough, bytes; whole mebibytes.
    pub const fn least(self) -> u64 {
        match self {
            Self::Data { least, .. } | Self::Rest { least, .. } => least,
        }
    }
}

/// Whole mebibytes, rounded down: for people.
const fn mebibytes(bytes: u64) -> u64 {
    bytes >> 20
}

impl MemoryPlan {
    /// Divides `limit`. `percent` (10 to 90) of it is for data, `client_percent` of that for client buffers.
    pub fn divide(limit: u64, percent: u8, client_percent: u8, saves: bool) -> Result<Self, TooSmall> {
        let (maxmemory, client_buffers, rest) = shares(limit, percent, client_percent);
        if maxmemory < LEAST_DATA {
            return Err(TooSmall::Data { limit, least: least(percent, client_percent), percent });
        }
        if rest < PROGRAMS {
            return Err(TooSmall::Rest { limit, least: least(percent, client_percent), percent, client_percent, rest });
        }
        let copy_on_write = if saves { (rest - PROGRAMS) / 4 * 3 } else { 0 };
        Ok(Self { limit, maxmemory, client_buffers, copy_on_write, fragmentation: rest - copy_on_write })
    }
}

/// For data, for client buffers, and what is left, bytes.
fn shares(limit: u64, percent: u8, client_percent: u8) -> (u64, u64, u64) {
    let maxmemory = limit / 100 * u64::from(percent);
    let client_buffers = maxmemory / 100 * u64::from(client_percent);
    (maxmemory, client_buffers, limit.saturating_sub(maxmemory).saturating_sub(client_buffers))
}

/// The least limit that leaves enough for data and programs, rounded up to whole mebibytes.
fn least(percent: u8, client_percent: u8) -> u64 {
    let (percent, client_percent) = (u64::from(percent.max(1)), u64::from(client_percent));
    let for_data = LEAST_DATA * 100 / percent;
    // Ten-thousandths of the limit that are neither data nor client buffers.
    let share_left = 10_000_u64.saturating_sub(percent * (100 + client_percent)).max(1);
    // The shares are rounded down by less than 20 kB: one more mebibyte makes up for that where it matters.
    for_data.max(PROGRAMS * 10_000 / share_left).next_multiple_of(1 << 20) + (1 << 20)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_terms_make_up_the_limit(limit in 0_u64..1 << 40, percent in 10_u8..=90, clients in 0_u8..=10, saves: bool) {
            if let Ok(plan) = MemoryPlan::divide(limit, percent, clients, saves) {
                prop_assert_eq!(plan.limit, plan.maxmemory + plan.client_buffers + plan.copy_on_write + plan.fragmentation);
                prop_assert!(plan.maxmemory >= LEAST_DATA && plan.fragmentation >= PROGRAMS);
            }
        }
    }

    proptest! {
        #[test]
        fn a_limit_that_is_too_small_names_one_that_is_just_enough(percent in 10_u8..=90, clients in 0_u8..=10) {
            let least = MemoryPlan::divide(0, percent, clients, true).map_err(TooSmall::least).unwrap_err();
            prop_assert!(MemoryPlan::divide(least, percent, clients, true).is_ok());
            prop_assert!(MemoryPlan::divide(least - (2 << 20), percent, clients, true).is_err());
        }
    }

    #[test]
    fn the_error_says_the_minimum_and_why() {
        let words = |limit: u64, percent, clients| {
            MemoryPlan::divide(limit << 20, percent, clients, true).map_err(|error| error.to_string())
        };
        assert_eq!(
            words(20, 60, 5),
            Err(
                "at least 66Mi are needed: 60 % of 20Mi is less than the 16Mi of data below which the fixed parts are \
                 most of the pod"
                    .to_owned()
            )
        );
        assert_eq!(
            words(64, 75, 10),
            Err("at least 139Mi are needed: beside data (75 % of 64Mi) and client buffers (10 % of that) 11Mi are left, \
                 and the server and its agent take 24Mi"
                .to_owned())
        );
    }
}
