//! What the fields of one use say, with every fault that is found on the way.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::ResourceExt as _;

use crate::api::rate_limit_policy::ExportProgram;
use crate::api::uses::DeclaredUse;
use crate::model::Policy;
use crate::model::audit::MemoryBudget;
use crate::validate::fault::Fault;

/// What the fields of one object say, with every fault that is found on the way.
pub(super) struct FieldValidator<'a> {
    pub(super) declared: &'a DeclaredUse,
    pub(super) faults: Vec<Fault>,
}

impl FieldValidator<'_> {
    pub(super) fn fault(&mut self, field: &'static str, problem: impl Into<String>) {
        self.faults.push(Fault { field, problem: problem.into() });
    }

    /// A duration in milliseconds; a fault if it is not within the bounds.
    pub(super) fn bounded(&mut self, field: &'static str, given: Duration, least: Duration, most: Duration) -> u64 {
        if given < least || given > most {
            let bounds = format!("{} to {}", written(least), written(most));
            self.fault(field, format!("{} is not from {bounds}: write a duration such as 30m", written(given)));
        }
        u64::try_from(given.as_millis()).unwrap_or(u64::MAX)
    }

    /// `NAMESPACE/NAME`.
    pub(super) fn owner(&self) -> String {
        format!("{}/{}", self.declared.namespace().unwrap_or_default(), self.declared.name_any())
    }

    pub(super) fn generation(&self) -> i64 {
        self.declared.metadata.generation.unwrap_or_default()
    }
}

/// A duration as it is written in a specification.
pub(super) fn written(duration: Duration) -> String {
    let (seconds, milliseconds) = (duration.as_secs(), duration.as_millis());
    match () {
        () if duration == Duration::MAX => "a negative duration".to_owned(),
        () if u128::from(seconds) * 1_000 != milliseconds => format!("{milliseconds}ms"),
        () if seconds > 0 && seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        () if seconds > 0 && seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        () => format!("{seconds}s"),
    }
}

/// A negative duration of Kubernetes reads as a positive one here: the sign is judged first.
pub(super) fn plain(duration: kube::core::Duration) -> Duration {
    if duration.is_negative() { Duration::MAX } else { duration.into() }
}

/// The fields of a validated use that depend on its kind.
pub(super) struct KindFields {
    pub(super) policy: Policy,
    pub(super) wait_replicas: u16,
    pub(super) binding: BTreeMap<&'static str, String>,
    pub(super) export: Option<ExportProgram>,
    pub(super) budget: Option<MemoryBudget>,
}
