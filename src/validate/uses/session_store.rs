//! What a session store's own fields say.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::to_u16_or_zero;
use super::judge::{FieldValidator, KindFields, plain};
use crate::api::data_layer::DeploymentMode;
use crate::api::session_store::{ExceedChoice, SessionStoreSpec};
use crate::model::{OnExceed, Policy, SessionPolicy};

/// The longest absolute lifetime where none is given: NIST SP 800-63B, section 2.1.3, asks for a new login after 30 days.
const ABSOLUTE_LIFETIME: Duration = Duration::from_hours(720);
/// A year and a day: what CEL bounds the idle timeout with.
const LONGEST_IDLE: Duration = Duration::from_hours(8_784);
/// Ten years and some: what CEL bounds the absolute lifetime with.
const LONGEST_LIFETIME: Duration = Duration::from_hours(87_840);
/// The shortest timeout.
const SECOND: Duration = Duration::from_secs(1);

pub(super) fn validate(
    judge: &mut FieldValidator<'_>,
    spec: &SessionStoreSpec,
    prefix: String,
    replicas: u16,
) -> KindFields {
    let idle = plain(spec.idle_timeout);
    // What is not given follows from the idle timeout, and is no fault of its own where that is one.
    let sound_idle = idle.min(LONGEST_IDLE);
    let absolute = spec.absolute_lifetime.map_or(ABSOLUTE_LIFETIME.max(sound_idle), plain);
    let touch = spec.touch_interval.map_or(sound_idle / 10, plain);
    let idle = judge.bounded("spec.idleTimeout", idle, SECOND, LONGEST_IDLE);
    let absolute = judge.bounded("spec.absoluteLifetime", absolute, SECOND, LONGEST_LIFETIME);
    let touch = judge.bounded("spec.touchInterval", touch, Duration::ZERO, LONGEST_IDLE);
    if spec.absolute_lifetime.is_some() && idle > absolute {
        judge.fault("spec.idleTimeout", "is above absoluteLifetime: no session lives that long");
    }
    if touch > idle {
        judge.fault(
            "spec.touchInterval",
            "is above idleTimeout: a session that is in use would end between two renewals",
        );
    }
    if let Some(most) = spec.max_per_user.filter(|most| !(1..=10_000).contains(most)) {
        judge.fault("spec.maxPerUser", format!("{most} is not from 1 to 10000"));
    }
    if spec.on_exceed.is_some() && spec.max_per_user.is_none() {
        judge.fault("spec.onExceed", "needs maxPerUser");
    }
    if let Some(wanted) = spec.revoke_replicas
        && spec.layer.as_ref().is_none_or(|layer| layer.name.is_none())
    {
        let dedicated = spec.layer.as_ref().and_then(|layer| layer.dedicated.as_ref());
        let mode = dedicated.map_or(DeploymentMode::Sentinel, |layer| layer.mode);
        let declared = dedicated.and_then(|layer| layer.replicas);
        let has = declared.unwrap_or(mode.default_replicas().into());
        if wanted > has {
            judge.fault(
                "spec.revokeReplicas",
                format!("{wanted} replicas cannot confirm a revocation: the dedicated layer has {has}"),
            );
        }
    }
    let wait_replicas = spec.revoke_replicas.map_or(replicas.min(1), to_u16_or_zero);
    KindFields {
        policy: Policy::Sessions(SessionPolicy {
            store: judge.owner(),
            generation: judge.generation(),
            prefix,
            idle_timeout_milliseconds: idle,
            absolute_lifetime_milliseconds: absolute,
            touch_interval_milliseconds: touch,
            max_per_user: spec.max_per_user.and_then(|most| most.try_into().ok()),
            on_exceed: match spec.on_exceed {
                Some(ExceedChoice::Reject) => OnExceed::Reject,
                Some(ExceedChoice::EvictOldest) | None => OnExceed::EvictOldest,
            },
        }),
        wait_replicas,
        binding: BTreeMap::from([("wait-replicas", wait_replicas.to_string())]),
        export: None,
        budget: None,
    }
}
