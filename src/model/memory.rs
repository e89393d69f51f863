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

/// Why a limit is too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{limit} bytes are too little: at least {least} are needed, {PROGRAMS} for the programs and {LEAST_DATA} for data at {percent} %"
)]
pub struct TooSmall {
    /// The limit, bytes.
    pub limit: u64,
    /// The least limit, bytes.
    pub least: u64,
    /// Share of the limit for data, percent.
    pub percent: u8,
}

impl MemoryPlan {
    /// Divides `limit`. `percent` (10 to 90) of it is for data, `client_percent` of that for client buffers.
    pub fn divide(limit: u64, percent: u8, client_percent: u8, saves: bool) -> Result<Self, TooSmall> {
        let maxmemory = limit / 100 * u64::from(percent);
        let client_buffers = maxmemory / 100 * u64::from(client_percent);
        let rest = limit.saturating_sub(maxmemory).saturating_sub(client_buffers);
        if maxmemory < LEAST_DATA || rest < PROGRAMS {
            let for_data = LEAST_DATA * 100 / u64::from(percent.max(1));
            let share_left = u64::from(100_u8.saturating_sub(percent)).max(1);
            let least = for_data.max(PROGRAMS * 100 / share_left).next_multiple_of(1 << 20);
            return Err(TooSmall { limit, least: least.max(limit + 1), percent });
        }
        let copy_on_write = if saves { (rest - PROGRAMS) / 4 * 3 } else { 0 };
        Ok(Self { limit, maxmemory, client_buffers, copy_on_write, fragmentation: rest - copy_on_write })
    }
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

    #[test]
    fn a_limit_that_is_too_small_names_one_that_is_not() {
        let error = MemoryPlan::divide(20 << 20, 60, 5, true).err();
        assert!(error.is_some_and(|error| error.least > 40 << 20));
    }
}
