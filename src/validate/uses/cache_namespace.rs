//! What a cache's own fields say.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::quantity;
use super::judge::{FieldValidator, KindFields, plain};
use crate::api::cache_namespace::{CacheNamespaceSpec, Invalidation, OnBudget};
use crate::model::Policy;
use crate::model::audit::MemoryBudget;
use crate::model::cache_policy::{
    CHANNEL, CachePolicy, LARGEST_ENTRY_BYTES, LONGEST_LEASE_MS, LONGEST_MILLISECONDS, MOST_EARLY_PERCENT,
    MOST_JITTER_PERCENT, SHORTEST_LEASE_MS,
};

const MILLISECOND: Duration = Duration::from_millis(1);
/// A leap year: what CEL bounds TTLs with.
const LONGEST: Duration = Duration::from_millis(LONGEST_MILLISECONDS);
/// How long an entry is fresh at most where nothing is said.
const MAX_TTL: Duration = Duration::from_hours(24);
/// How long it is remembered that there is no value, where nothing is said.
const NEGATIVE_TTL: Duration = Duration::from_secs(5);
/// For how long one caller computes, where nothing is said.
const LEASE: Duration = Duration::from_secs(5);
/// Percent of each TTL that chance takes off, where nothing is said.
const JITTER: u8 = 10;
/// The usual factor of XFetch, in percent.
const EARLY: u16 = 100;
/// Bytes of a value where nothing is said.
const ENTRY_BYTES: u32 = 1 << 20;
/// Bytes of the smallest budget.
const LEAST_BUDGET: u64 = 1 << 20;
/// Characters of a channel, as the schema bounds them.
const LONGEST_CHANNEL: usize = 192;

pub(super) fn validate(judge: &mut FieldValidator<'_>, spec: &CacheNamespaceSpec, prefix: String) -> KindFields {
    let ttl = plain(spec.ttl);
    let longest = spec.max_ttl.map_or(MAX_TTL.max(ttl), plain);
    let negative = spec.negative_ttl.map_or(NEGATIVE_TTL.min(ttl), plain);
    if ttl > longest {
        judge.fault("spec.ttl", "is above maxTtl: every entry would be cut short");
    }
    if negative > longest {
        judge.fault("spec.negativeTtl", "is above maxTtl");
    }
    let (lease, stale) = (spec.lease_timeout.map_or(LEASE, plain), spec.stale_for.map_or(Duration::ZERO, plain));
    let (shortest_lease, longest_lease) =
        (Duration::from_millis(SHORTEST_LEASE_MS), Duration::from_millis(LONGEST_LEASE_MS));
    let policy = CachePolicy {
        owner: judge.owner(),
        generation: judge.generation(),
        ttl_ms: judge.bounded("spec.ttl", ttl, MILLISECOND, LONGEST),
        max_ttl_ms: judge.bounded("spec.maxTtl", longest, MILLISECOND, LONGEST),
        jitter_percent: percent(judge, "spec.jitter", spec.jitter, JITTER, MOST_JITTER_PERCENT),
        stale_ms: judge.bounded("spec.staleFor", stale, Duration::ZERO, LONGEST),
        negative_ms: judge.bounded("spec.negativeTtl", negative, Duration::ZERO, LONGEST),
        lease_ms: judge.bounded("spec.leaseTimeout", lease, shortest_lease, longest_lease),
        early_percent: percent(judge, "spec.earlyRefresh", spec.early_refresh, EARLY, MOST_EARLY_PERCENT),
        max_entry_bytes: entry_bytes(judge, spec),
        channel: channel(judge, spec.invalidation.as_ref(), &prefix),
        prefix,
    };
    let binding = BTreeMap::from([
        ("ttl-ms", policy.ttl_ms.to_string()),
        ("max-ttl-ms", policy.max_ttl_ms.to_string()),
        ("stale-ms", policy.stale_ms.to_string()),
        ("lease-ms", policy.lease_ms.to_string()),
        ("max-entry-bytes", policy.max_entry_bytes.to_string()),
    ]);
    let budget = budget(judge, spec);
    KindFields { policy: Policy::Caches(policy), wait_replicas: 0, binding, export: None, budget }
}

fn budget(judge: &mut FieldValidator<'_>, spec: &CacheNamespaceSpec) -> Option<MemoryBudget> {
    let Some(given) = &spec.memory_budget else {
        if spec.on_budget.is_some() {
            judge.fault("spec.onBudget", "needs memoryBudget");
        }
        return None;
    };
    let bytes = quantity::parse(&given.0, 1).filter(|bytes| *bytes >= LEAST_BUDGET);
    if bytes.is_none() {
        judge.fault("spec.memoryBudget", format!("is not at least {LEAST_BUDGET} bytes"));
    }
    let shrinks = match spec.on_budget.unwrap_or_default() {
        OnBudget::Report => false,
        OnBudget::Shrink => true,
    };
    Some(MemoryBudget { bytes: bytes?, shrinks })
}

/// A share in percent; a fault if it is not from 0 to `most`.
fn percent<N>(judge: &mut FieldValidator<'_>, field: &'static str, given: Option<i32>, default: N, most: N) -> N
where
    N: TryFrom<i32> + PartialOrd + std::fmt::Display + Copy,
{
    let Some(given) = given else { return default };
    N::try_from(given).ok().filter(|percent| *percent <= most).unwrap_or_else(|| {
        judge.fault(field, format!("{given} is not from 0 to {most}"));
        default
    })
}

fn entry_bytes(judge: &mut FieldValidator<'_>, spec: &CacheNamespaceSpec) -> u32 {
    let Some(given) = &spec.max_entry_bytes else { return ENTRY_BYTES };
    let bytes = quantity::parse(&given.0, 1).and_then(|bytes| u32::try_from(bytes).ok());
    bytes.filter(|bytes| (1..=LARGEST_ENTRY_BYTES).contains(bytes)).unwrap_or_else(|| {
        judge.fault("spec.maxEntryBytes", format!("{:?} is not from 1 to {LARGEST_ENTRY_BYTES} bytes", given.0));
        ENTRY_BYTES
    })
}

/// The channel. A pattern in it, or another end, would reach what is others'.
fn channel(judge: &mut FieldValidator<'_>, choice: Option<&Invalidation>, prefix: &str) -> String {
    let Some(channel) = choice.and_then(|choice| choice.channel.clone()) else { return format!("{CHANNEL}{prefix}") };
    let is_plain = channel.starts_with(|letter: char| letter.is_ascii_alphanumeric())
        && channel.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.:/".contains(letter));
    if !is_plain || channel.len() > LONGEST_CHANNEL {
        judge.fault(
            "spec.invalidation.channel",
            "must begin with a letter or digit, hold only letters, digits, '-', '_', '.', ':' and '/', and have at most 192 characters",
        );
    }
    if !channel.ends_with(prefix) {
        judge.fault("spec.invalidation.channel", format!("does not end with the key prefix {prefix}"));
    }
    channel
}
