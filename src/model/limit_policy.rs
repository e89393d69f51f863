//! What a rate limit policy promises, as the functions on the server carry it out: numbers that are already judged, and what
//! they come to in the worst case.

use std::collections::BTreeSet;
use std::fmt::Display;

use serde::{Deserialize, Serialize};

/// Limits of one policy at most.
pub(crate) const MOST_LIMITS: usize = 16;
/// The largest quota. A count has room for 2^33.
pub(crate) const LARGEST_QUOTA: u64 = 1_000_000_000;
/// A leap year of milliseconds: the longest window, and the longest time that a burst takes to become free again.
pub const LONGEST_MILLISECONDS: u64 = 8_784 * 3_600_000;
/// Units of quota per millisecond of window at most: an interval is then at least 10 µs, and rounding it up to whole
/// microseconds takes at most a tenth of the rate.
pub(crate) const DENSEST: u64 = 100;
/// The largest `quota * window` of a sliding counter: what it computes with stays below 2^53 then.
pub(crate) const LARGEST_COUNTER: u64 = 3_000_000_000_000;
/// Entries of a sliding log at most.
pub(crate) const LONGEST_LOG: u64 = 10_000;
/// Shards of one subject at most.
pub(crate) const MOST_SHARDS: u32 = 64;

/// Whether a denial is told to the caller, or only counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LimitMode {
    /// It denies.
    #[default]
    Enforce,
    /// It admits what it would deny, and says so.
    Shadow,
}

/// How a limit counts, with what only this way of counting has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Algorithm {
    /// The generic cell rate algorithm: one number, a steady rate and a burst.
    Gcra {
        /// What may come at once, in units of cost.
        burst: u64,
    },
    /// A bucket that fills steadily: decides as [`Self::Gcra`].
    TokenBucket {
        /// What the bucket holds, in units of cost.
        burst: u64,
    },
    /// A bucket that leaks, as a meter: decides as [`Self::Gcra`].
    LeakyMeter {
        /// What the bucket holds, in units of cost.
        burst: u64,
    },
    /// A queue that leaks: what it admits is told to wait until its turn.
    LeakyShaper {
        /// What the queue holds, in units of cost.
        burst: u64,
    },
    /// The time of each admission: exact.
    SlidingLog {
        /// Entries that one subject may have at most: the quota cannot be above it.
        max_entries: u64,
    },
    /// This window's count and the last one's, as far as it still overlaps.
    SlidingCounter,
    /// A count for each window of the clock.
    FixedWindow,
    /// A count for a window that begins with the first hit.
    FixedWindowFromFirstHit,
}

impl Algorithm {
    /// The letter that stands in a policy's row and in the keys of states.
    pub fn letter(self) -> char {
        match self {
            Self::Gcra { .. } => 'g',
            Self::TokenBucket { .. } => 'b',
            Self::LeakyMeter { .. } => 'm',
            Self::LeakyShaper { .. } => 's',
            Self::SlidingLog { .. } => 'l',
            Self::SlidingCounter => 'c',
            Self::FixedWindow => 'f',
            Self::FixedWindowFromFirstHit => 'h',
        }
    }

    /// Its burst, if it has one.
    pub fn burst(self) -> Option<u64> {
        match self {
            Self::Gcra { burst }
            | Self::TokenBucket { burst }
            | Self::LeakyMeter { burst }
            | Self::LeakyShaper { burst } => Some(burst),
            Self::SlidingLog { .. } | Self::SlidingCounter | Self::FixedWindow | Self::FixedWindowFromFirstHit => None,
        }
    }

    fn with_burst(self, burst: u64) -> Self {
        match self {
            Self::Gcra { .. } => Self::Gcra { burst },
            Self::TokenBucket { .. } => Self::TokenBucket { burst },
            Self::LeakyMeter { .. } => Self::LeakyMeter { burst },
            Self::LeakyShaper { .. } => Self::LeakyShaper { burst },
            Self::SlidingLog { .. } | Self::SlidingCounter | Self::FixedWindow | Self::FixedWindowFromFirstHit => self,
        }
    }
}

/// One limit of a policy, as it is declared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Limit {
    /// Its name: what a call may name, and the end of its states' keys.
    pub name: String,
    /// How calls are counted against the limit.
    pub algorithm: Algorithm,
    /// What it admits in a window, in units of cost.
    pub quota: u64,
    /// Length of the window, milliseconds.
    pub window_milliseconds: u64,
    /// Whether its denials are told.
    pub mode: LimitMode,
}

impl Limit {
    /// Microseconds in which one unit of cost becomes free again, rounded up: the limit is never looser than declared.
    pub fn interval_microseconds(&self) -> u64 {
        (self.window_milliseconds * 1_000).div_ceil(self.quota.max(1))
    }

    /// The cost that is admitted at most within any window, wherever it begins. A failover adds what was not replicated, and a
    /// clock that is set forward a burst or quota.
    pub fn worst_case(&self) -> u64 {
        match self.algorithm {
            Algorithm::Gcra { burst }
            | Algorithm::TokenBucket { burst }
            | Algorithm::LeakyMeter { burst }
            | Algorithm::LeakyShaper { burst } => burst + self.intervals(),
            Algorithm::SlidingLog { .. } => self.quota,
            Algorithm::SlidingCounter => 2 * self.quota - 1,
            // A window from the first hit begins with the millisecond of that hit: it may end up to 1 ms early.
            Algorithm::FixedWindow | Algorithm::FixedWindowFromFirstHit => 2 * self.quota,
        }
    }

    /// Of a shaper: how many calls of cost 1 begin at most within any window, if callers wait as they are told; `None`: it is no shaper.
    pub fn worst_case_started(&self) -> Option<u64> {
        matches!(self.algorithm, Algorithm::LeakyShaper { .. }).then(|| self.intervals() + 1)
    }

    /// Whole intervals within a window.
    fn intervals(&self) -> u64 {
        self.window_milliseconds * 1_000 / self.interval_microseconds().max(1)
    }

    /// How long what it counts can matter, milliseconds, rounded up: its window, or the time in which its burst becomes free again.
    pub(crate) fn longest_milliseconds(&self) -> u64 {
        let burst = self.algorithm.burst().unwrap_or(0);
        self.window_milliseconds.max(burst.saturating_mul(self.interval_microseconds()).div_ceil(1_000))
    }

    /// What one of `shards` keys admits.
    fn of_one_shard(&self, shards: u32) -> Self {
        let shards = u64::from(shards.max(1));
        let algorithm =
            self.algorithm.burst().map_or(self.algorithm, |burst| self.algorithm.with_burst(burst / shards));
        Self { algorithm, quota: self.quota / shards, ..self.clone() }
    }
}

/// A policy before it was judged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LimitPolicyDraft {
    /// The policy, `NAMESPACE/NAME`: for people and counters.
    pub policy: String,
    /// `metadata.generation` of the policy that this was made from.
    pub generation: i64,
    /// What each key of the policy begins with; ends with `:`, holds no brace, quote or space, and begins no other's.
    pub prefix: String,
    /// `Shadow`: of all its limits.
    pub mode: LimitMode,
    /// Whether a limit that denies becomes full by that.
    pub count_denied: bool,
    /// Keys among which callers spread one subject at random; each has its part of every quota and burst.
    pub shards: u32,
    /// Each counts by itself. One that denies refuses the call, unless it is in mode `Shadow`.
    pub limits: Vec<Limit>,
}

/// The policy of one `RateLimitPolicy`, compiled into the limits' library of its layer. Every number is one that the functions
/// compute with exactly.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "LimitPolicyDraft", into = "LimitPolicyDraft")]
pub struct LimitPolicy(LimitPolicyDraft);

/// What is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LimitFault {
    /// The field, below `spec`: `limits[2].quota`.
    pub field: String,
    /// What is wrong with it, as the end of a sentence that begins with the field.
    pub problem: String,
}

impl LimitPolicy {
    /// Judges a policy; every fault at once.
    pub fn parse(draft: LimitPolicyDraft) -> Result<Self, Vec<LimitFault>> {
        let mut faults = Faults::default();
        if !is_prefix(&draft.prefix) {
            faults.add(
                "keyPrefix",
                "must begin with a letter or digit, hold only letters, digits, '-', '_', '.' and ':', have at most 64 characters, and \
                 end with ':'",
            );
        }
        faults.bounded("shards", u64::from(draft.shards), 1, u64::from(MOST_SHARDS));
        if draft.limits.is_empty() || draft.limits.len() > MOST_LIMITS {
            faults.add("limits", format!("has not from 1 to {MOST_LIMITS} entries"));
        }
        let mut names = BTreeSet::new();
        for (at, limit) in draft.limits.iter().enumerate() {
            if !names.insert(&limit.name) {
                faults.add(format!("limits[{at}].name"), format!("{} is there twice", limit.name));
            }
            judge(&mut faults, at, limit, draft.shards);
        }
        if faults.0.is_empty() { Ok(Self(draft)) } else { Err(faults.0) }
    }

    /// The same policy for keys that begin with another prefix, which admission has judged.
    #[must_use]
    pub fn with_prefix(self, prefix: String) -> Self {
        Self(LimitPolicyDraft { prefix, ..self.0 })
    }

    /// The policy as it was declared.
    pub fn declared(&self) -> &LimitPolicyDraft {
        &self.0
    }

    /// Its limits as they are for one key: with the quota and the burst of one shard, both rounded down.
    pub fn of_one_key(&self) -> impl Iterator<Item = Limit> {
        self.0.limits.iter().map(|limit| limit.of_one_shard(self.0.shards))
    }

    /// How long a key of the policy can matter, milliseconds: the longest of its limits.
    pub(crate) fn longest_milliseconds(&self) -> Option<u64> {
        self.of_one_key().map(|limit| limit.longest_milliseconds()).max()
    }

    /// By limit, the cost that is admitted at most within any window for one subject: see [`Limit::worst_case`].
    pub fn worst_cases(&self) -> impl Iterator<Item = u64> {
        self.of_one_key().map(|limit| limit.worst_case() * u64::from(self.0.shards))
    }

    /// By limit, how many calls of cost 1 begin at most within any window for one subject: see [`Limit::worst_case_started`].
    pub fn worst_cases_started(&self) -> impl Iterator<Item = Option<u64>> {
        self.of_one_key().map(|limit| Some(limit.worst_case_started()? * u64::from(self.0.shards)))
    }
}

impl TryFrom<LimitPolicyDraft> for LimitPolicy {
    type Error = String;

    fn try_from(draft: LimitPolicyDraft) -> Result<Self, String> {
        Self::parse(draft).map_err(|faults| {
            let words = faults.iter().map(|LimitFault { field, problem }| format!("{field} {problem}"));
            words.collect::<Vec<_>>().join("; ")
        })
    }
}

impl From<LimitPolicy> for LimitPolicyDraft {
    fn from(policy: LimitPolicy) -> Self {
        policy.0
    }
}

#[derive(Default)]
struct Faults(Vec<LimitFault>);

impl Faults {
    fn add(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        self.0.push(LimitFault { field: field.into(), problem: problem.into() });
    }

    fn bounded(&mut self, field: impl Into<String>, given: u64, least: u64, most: impl Display + Into<u64> + Copy) {
        if given < least || given > most.into() {
            self.add(field, format!("is {given}, not from {least} to {most}"));
        }
    }
}

fn judge(faults: &mut Faults, at: usize, limit: &Limit, shards: u32) {
    let Limit { name, algorithm, quota, window_milliseconds: window, mode: _ } = limit;
    let (quota, window, shards) = (*quota, *window, u64::from(shards));
    let field = |name: &str| format!("limits[{at}].{name}");
    if !is_name(name) {
        faults.add(
            field("name"),
            "holds only a-z, 0-9 and '-', begins and ends with a letter or digit, and has from 1 to 32 characters",
        );
    }
    faults.bounded(field("quota"), quota, 1, LARGEST_QUOTA);
    faults.bounded(field("window"), window, 1, LONGEST_MILLISECONDS);
    if quota > LARGEST_QUOTA || !(1..=LONGEST_MILLISECONDS).contains(&window) {
        return; // what follows is about their ratio
    }
    if quota > DENSEST * window {
        faults.add(field("quota"), format!("is above {DENSEST} for each millisecond of the window"));
    }
    if quota < shards {
        faults.add(field("quota"), format!("is below the number of shards, {shards}"));
    }
    if let Some(burst) = algorithm.burst() {
        if burst == 0 {
            faults.add(field("burst"), "is 0: no call fits");
        } else if burst < shards {
            faults.add(field("burst"), format!("is below the number of shards, {shards}"));
        }
        if u128::from(burst) * u128::from(window) > u128::from(quota) * u128::from(LONGEST_MILLISECONDS) {
            faults.add(field("burst"), "takes more than 8784h to become free again");
        }
    }
    match algorithm {
        Algorithm::LeakyShaper { .. } if quota > window => {
            faults.add(
                field("quota"),
                "is above one for each millisecond of the window: a shaper's delays are whole milliseconds",
            );
        }
        Algorithm::SlidingLog { max_entries } => {
            faults.bounded(field("maxEntries"), *max_entries, 1, LONGEST_LOG);
            if quota > *max_entries {
                faults.add(field("quota"), format!("is above maxEntries, {max_entries}"));
            }
        }
        Algorithm::SlidingCounter if quota * window > LARGEST_COUNTER => {
            faults.add(field("quota"), "times the window is above 3000000000 s: it could not be computed exactly");
        }
        Algorithm::LeakyShaper { .. }
        | Algorithm::SlidingCounter
        | Algorithm::Gcra { .. }
        | Algorithm::TokenBucket { .. }
        | Algorithm::LeakyMeter { .. }
        | Algorithm::FixedWindow
        | Algorithm::FixedWindowFromFirstHit => {}
    }
}

fn is_prefix(prefix: &str) -> bool {
    prefix.len() <= 64
        && prefix.ends_with(':')
        && prefix.starts_with(|letter: char| letter.is_ascii_alphanumeric())
        && prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
}

/// Upper case is left to the word `ID`.
fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= 32
        && name.bytes().all(|byte| is_plain(byte) || byte == b'-')
        && name.bytes().next().is_some_and(is_plain)
        && name.bytes().last().is_some_and(is_plain)
}
