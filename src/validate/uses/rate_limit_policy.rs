//! What a rate limit policy's own fields say.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use serde_json::json;

use super::judge::{FieldValidator, KindFields, plain};
use crate::api::names::export;
use crate::api::rate_limit_policy::{
    AlignChoice, ExportChoice, ExportProgram, LeakyChoice, Limit as DeclaredLimit, LimitAlgorithm,
    LimitMode as DeclaredMode, RateLimitPolicySpec, StoreErrorChoice,
};
use crate::model::Policy;
use crate::model::limit_policy::{Algorithm, Limit, LimitMode, LimitPolicy, LimitPolicyDraft};

/// What the names of Limitador's keys begin with, for limits without an id.
const LIMITADOR_KEYS: &str = "namespace:";
/// Entries of a sliding log where nothing is said.
const LOG_ENTRIES: u64 = 1_000;

/// The policy; `None`: a number in it is out of range, and the judge knows which.
pub(super) fn validate(
    judge: &mut FieldValidator<'_>,
    spec: &RateLimitPolicySpec,
    prefix: String,
) -> Option<KindFields> {
    if judge.declared.binding_name() == export(&judge.declared.name_any()) {
        judge.fault("spec.binding.secretName", "is the name of the Secret for a rate limit service: choose another");
    }
    serves_export(judge, spec, &prefix);
    let mut limits = Vec::new();
    for declared in &spec.limits {
        fits(judge, declared);
        limits.push(limit(judge, declared));
    }
    let draft = LimitPolicyDraft {
        policy: judge.owner(),
        generation: judge.generation(),
        prefix,
        mode: mode(spec.mode),
        count_denied: spec.count_denied.unwrap_or_default(),
        shards: spec.shards.map_or(1, |shards| shards.try_into().unwrap_or_default()),
        limits,
    };
    match LimitPolicy::parse(draft) {
        Ok(policy) => {
            let binding = binding(&policy, spec.on_store_error.unwrap_or(StoreErrorChoice::Allow));
            let export = spec.export.map(|export| export.program);
            Some(KindFields { policy: Policy::Limits(policy), wait_replicas: 0, binding, export, budget: None })
        }
        Err(faults) => {
            // What is wrong with the prefix of any use is told already.
            for fault in faults.into_iter().filter(|fault| fault.field != "keyPrefix") {
                judge.fault("spec", format!("{} {}", fault.field, fault.problem));
            }
            None
        }
    }
}

/// Limitador names its keys itself, so they must be the policy's: on a layer of another namespace they could not be.
fn serves_export(judge: &mut FieldValidator<'_>, spec: &RateLimitPolicySpec, prefix: &str) {
    let Some(ExportChoice { program }) = spec.export else { return };
    match program {
        ExportProgram::Limitador => {
            if prefix != LIMITADOR_KEYS {
                judge.fault(
                    "spec.export",
                    "program Limitador needs keyPrefix 'namespace:', which is what its keys begin with",
                );
            }
            if spec.access.as_ref().and_then(|access| access.scripts) != Some(true) {
                judge.fault("spec.export", "program Limitador needs access.scripts true: it counts by scripts");
            }
            let own = judge.declared.metadata.namespace.as_ref();
            if spec.layer.as_ref().is_some_and(|layer| layer.namespace.is_some() && layer.namespace.as_ref() != own) {
                judge.fault("spec.export", "program Limitador needs a layer of the policy's own namespace: on another the keys begin with the policy's");
            }
        }
        ExportProgram::EnvoyRateLimit => {}
    }
}

/// Fields that only some algorithms have.
fn fits(judge: &mut FieldValidator<'_>, declared: &DeclaredLimit) {
    let algorithm = declared.algorithm.unwrap_or(LimitAlgorithm::Gcra);
    let has_burst =
        matches!(algorithm, LimitAlgorithm::Gcra | LimitAlgorithm::TokenBucket | LimitAlgorithm::LeakyBucket);
    let name = &declared.name;
    for (field, is_given, belongs) in [
        ("burst", declared.burst.is_some(), has_burst),
        ("leaky", declared.leaky.is_some(), algorithm == LimitAlgorithm::LeakyBucket),
        ("align", declared.align.is_some(), algorithm == LimitAlgorithm::FixedWindow),
        ("maxEntries", declared.max_entries.is_some(), algorithm == LimitAlgorithm::SlidingLog),
    ] {
        if is_given && !belongs {
            judge.fault("spec.limits", format!("{field} of {name} is not for its algorithm"));
        }
    }
}

fn limit(judge: &mut FieldValidator<'_>, declared: &DeclaredLimit) -> Limit {
    let quota = u64::try_from(declared.quota).unwrap_or_default();
    let burst = declared.burst.map_or(quota, |burst| u64::try_from(burst).unwrap_or_default());
    let window = plain(declared.window);
    if !window.subsec_nanos().is_multiple_of(1_000_000) {
        judge.fault("spec.limits", format!("window of {} is not in whole milliseconds", declared.name));
    }
    let algorithm = match (declared.algorithm, declared.leaky, declared.align) {
        (None | Some(LimitAlgorithm::Gcra), _, _) => Algorithm::Gcra { burst },
        (Some(LimitAlgorithm::TokenBucket), _, _) => Algorithm::TokenBucket { burst },
        (Some(LimitAlgorithm::LeakyBucket), Some(LeakyChoice::Shaper), _) => Algorithm::LeakyShaper { burst },
        (Some(LimitAlgorithm::LeakyBucket), Some(LeakyChoice::Meter) | None, _) => Algorithm::LeakyMeter { burst },
        (Some(LimitAlgorithm::SlidingLog), _, _) => Algorithm::SlidingLog {
            max_entries: declared.max_entries.map_or(LOG_ENTRIES, |most| u64::try_from(most).unwrap_or_default()),
        },
        (Some(LimitAlgorithm::SlidingCounter), _, _) => Algorithm::SlidingCounter,
        (Some(LimitAlgorithm::FixedWindow), _, Some(AlignChoice::FirstHit)) => Algorithm::FixedWindowFromFirstHit,
        (Some(LimitAlgorithm::FixedWindow), _, Some(AlignChoice::Clock) | None) => Algorithm::FixedWindow,
    };
    let window_milliseconds = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    Limit { name: declared.name.clone(), algorithm, quota, window_milliseconds, mode: mode(declared.mode) }
}

const fn mode(declared: Option<DeclaredMode>) -> LimitMode {
    match declared {
        Some(DeclaredMode::Shadow) => LimitMode::Shadow,
        Some(DeclaredMode::Enforce) | None => LimitMode::Enforce,
    }
}

/// What an application needs to know to send headers, to spread a hot subject, and to go on while the layer does not answer.
fn binding(policy: &LimitPolicy, on_store_error: StoreErrorChoice) -> BTreeMap<&'static str, String> {
    let declared = policy.declared();
    let limits: Vec<_> = declared
        .limits
        .iter()
        .map(|limit| {
            json!({
                "name": limit.name, "quota": limit.quota, "windowMilliseconds": limit.window_milliseconds,
                "burst": limit.algorithm.burst().unwrap_or(limit.quota),
            })
        })
        .collect();
    BTreeMap::from([
        ("limits", json!(limits).to_string()),
        ("on-store-error", json!(on_store_error).as_str().unwrap_or_default().to_owned()),
        ("shards", declared.shards.to_string()),
    ])
}
