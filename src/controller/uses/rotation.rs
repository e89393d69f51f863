//! The rotation of a use's credentials.
//!
//! Each rotation is a user of its own. The binding Secret says which one it shows, which one it showed before, and since when. The
//! use's status repeats that, because a Secret can be deleted or edited by hand; no step is taken before the status tells of the last:
//!
//! 1. another rotation is wanted: its user is made next to the one that is shown;
//! 2. every server that answers has it: the binding shows it, and names the one before;
//! 3. no client is connected as the one before, or its grace is over: the binding no longer names it, so it is not declared any
//!    more, and the planner removes it, which ends its connections.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret as KubernetesSecret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::super::observation::{LayerPass, Observation};
use super::of_layer::Uses;
use super::served::ServedUse;
use crate::api::names;
use crate::api::use_status::RotationStatus;
use crate::model::NodeKind;
use crate::model::desired::Desired;
use crate::model::observed::ObservedServer;
use crate::redis::use_access::connections_of;
use crate::validate::uses::ValidatedUse;

/// Old credentials stay at least this long, if their grace is not shorter: kubelets renew mounted Secrets within about two
/// minutes, so an application that is between two connections still has the old ones.
pub(super) const LEAST_OVERLAP: Duration = Duration::from_mins(3);
/// Which credentials a binding shows, which it showed before while those are still valid, and since when, milliseconds of Unix time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RotationState {
    pub(super) shown: Option<u32>,
    pub(super) previous: Option<u32>,
    pub(super) rotated_at: u64,
}

impl RotationState {
    /// What holds now. `told`: what the use's status says. `wanted`: the declared rotation; a larger number was written by hand.
    pub(super) fn of(binding: Option<&KubernetesSecret>, told: Option<Self>, wanted: u32) -> Self {
        let read = Self::read(binding);
        let is_ours = read.shown.is_some_and(|shown| shown <= wanted && read.previous.is_none_or(|it| it < shown));
        match (is_ours.then_some(read), told) {
            (read, None) => read.unwrap_or_default(),
            // The one step that a binding may be ahead: it was written, and the status was not. That a previous user is no longer named
            // is no such step. It could have been edited out, and then it must stay valid.
            (Some(read), Some(told))
                if told.previous.is_none() && read.shown > told.shown && read.previous == told.shown =>
            {
                read
            }
            (_, Some(told)) => told,
        }
    }

    /// What a binding says of itself.
    fn read(binding: Option<&KubernetesSecret>) -> Self {
        let number = |name: &str| binding?.annotations().get(name)?.parse::<u64>().ok();
        let rotation = |name: &str| number(name).and_then(|number| number.try_into().ok());
        let shown = rotation(names::ANNOTATION_ROTATION);
        Self {
            shown,
            previous: rotation(names::ANNOTATION_PREVIOUS_ROTATION).filter(|previous| Some(*previous) != shown),
            rotated_at: number(names::ANNOTATION_ROTATED_AT).unwrap_or_default(),
        }
    }

    /// What a status tells; `None`: numbers that no operator wrote.
    pub(super) fn from_status(status: &RotationStatus) -> Option<Self> {
        let previous = match status.previous {
            Some(previous) => Some(u32::try_from(previous).ok()?),
            None => None,
        };
        let shown = Some(u32::try_from(status.shown).ok()?);
        let rotated_at = status.rotated_at.as_ref().map_or(0, |at| at.0.as_millisecond());
        Some(Self { shown, previous, rotated_at: rotated_at.try_into().ok()? })
    }

    /// What the status is to tell; `None`: the binding shows nothing yet.
    pub(super) fn status(self) -> Option<RotationStatus> {
        let at = i64::try_from(self.rotated_at).ok().and_then(|at| Timestamp::from_millisecond(at).ok());
        Some(RotationStatus {
            shown: self.shown?.try_into().ok()?,
            previous: self.previous.and_then(|previous| previous.try_into().ok()),
            rotated_at: at.map(MicroTime),
        })
    }

    /// The credentials that should be valid now.
    pub(super) fn valid(self, wanted: u32) -> Vec<u32> {
        let mut valid: Vec<u32> = self.shown.into_iter().chain(self.previous).collect();
        // A further rotation waits for the end of the one that is under way: two are valid, never three.
        if self.previous.is_none() && self.shown != Some(wanted) {
            valid.push(wanted);
        }
        valid
    }

    /// What the binding should say next. `is_in_place`: every server that answers has the wanted user. `is_unused`: no client is
    /// connected as the previous one.
    pub(super) fn next(self, accepted: &ValidatedUse, now: u64, is_in_place: bool, is_unused: bool) -> Self {
        let wanted = accepted.rotation;
        match self {
            Self { previous: Some(_), rotated_at, .. } => {
                let grace = accepted.rotation_grace;
                // A time in the future is no true one: it ends the grace instead of making it longer.
                let age = Duration::from_millis(now.checked_sub(rotated_at).unwrap_or(u64::MAX));
                let is_over = age >= grace || (is_unused && age >= grace.min(LEAST_OVERLAP));
                if is_over { Self { previous: None, ..self } } else { self }
            }
            Self { shown, .. } if shown != Some(wanted) && is_in_place => {
                Self { shown: Some(wanted), previous: shown, rotated_at: now }
            }
            unchanged => unchanged,
        }
    }
}

/// What a use's binding says, and what it is to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::controller) struct Rotation {
    pub(super) now: RotationState,
    pub(super) next: RotationState,
}

impl Uses {
    /// What the bindings of the uses that are served are to say next, in their order.
    pub(in crate::controller) fn plan(&self, pass: LayerPass<'_>) -> Vec<Rotation> {
        self.served.iter().map(|it| it.plan(pass)).collect()
    }

    /// UIDs of the uses whose previous user is not connected to any data node. Asked only at the end of a rotation.
    pub(in crate::controller) async fn unused(&self, desired: &Desired, seen: &Observation) -> BTreeSet<String> {
        let mut unused = BTreeSet::new();
        for it in &self.served {
            let now = it.rotation();
            let age = Duration::from_millis(seen.observed.at.saturating_sub(now.rotated_at));
            let is_due = age >= it.accepted().rotation_grace.min(LEAST_OVERLAP);
            if let Some(previous) = now.previous.filter(|_| is_due)
                && is_unused(desired, seen, &it.user(previous)).await
            {
                unused.insert(it.accepted().uid.clone());
            }
        }
        unused
    }
}

/// Whether every data node says that no client is connected as this user.
async fn is_unused(desired: &Desired, seen: &Observation, user: &str) -> bool {
    for node in desired.nodes.keys().filter(|node| node.kind == NodeKind::Data) {
        let Some(connection) = seen.connections.get(node) else { return false };
        if !connections_of(connection, user).await.is_ok_and(|count| count == 0) {
            return false;
        }
    }
    true
}

impl ServedUse {
    fn recorded_rotation(&self) -> Option<RotationState> {
        RotationState::from_status(self.object()?.status.as_ref()?.rotation.as_ref()?)
    }

    /// Which of its credentials hold now.
    pub(super) fn rotation(&self) -> RotationState {
        RotationState::of(self.binding(), self.recorded_rotation(), self.accepted().rotation)
    }

    fn plan(&self, pass: LayerPass<'_>) -> Rotation {
        if !self.accepted().kind.has_user() {
            return Rotation::default();
        }
        let now = self.rotation();
        if now != RotationState::default() && self.recorded_rotation() != Some(now) {
            return Rotation { now, next: now };
        }
        let answered = pass.primary.and_then(|node| pass.seen.observed.nodes.get(&node));
        let placement = self.user_placement(pass, self.accepted().rotation);
        // A rotation does not wait for a server that we do not reach: the credentials before it are valid there.
        let is_reached = now.shown.is_some() || placement.unreached.is_empty();
        let is_in_place = answered.is_some_and(|seen| matches!(seen.server, ObservedServer::Data(_)))
            && placement.missing.is_empty()
            && is_reached;
        let is_unused = pass.seen.unused.contains(&self.accepted().uid);
        Rotation { now, next: now.next(self.accepted(), pass.seen.observed.at, is_in_place, is_unused) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{OnExceed, Policy, SessionPolicy, UseKind};

    fn store(rotation: u32, grace: u64) -> ValidatedUse {
        ValidatedUse {
            kind: UseKind::SessionStore,
            uid: "uid-1".to_owned(),
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            policy: Policy::Sessions(SessionPolicy {
                store: "shop/web".to_owned(),
                generation: 1,
                prefix: "web:".to_owned(),
                idle_timeout_milliseconds: 1,
                absolute_lifetime_milliseconds: 1,
                touch_interval_milliseconds: 1,
                max_per_user: None,
                on_exceed: OnExceed::EvictOldest,
            }),
            wait_replicas: 1,
            binding_name: "web-session-binding".to_owned(),
            binding: std::collections::BTreeMap::new(),
            export: None,
            budget: None,
            scripts: false,
            tracking: false,
            rotation,
            rotation_grace: Duration::from_millis(grace),
        }
    }

    const HOUR: u64 = 3_600_000;

    #[test]
    fn a_binding_shows_only_a_user_that_is_in_place() {
        let none = RotationState::default();
        assert_eq!(none.valid(0), [0]);
        assert_eq!(none.next(&store(0, HOUR), 7, false, false), none);
        let first = none.next(&store(0, HOUR), 7, true, false);
        assert_eq!(first, RotationState { shown: Some(0), previous: None, rotated_at: 7 });
        assert_eq!(first.next(&store(0, HOUR), 8, true, true), first, "at rest");
    }

    #[test]
    fn a_rotation_keeps_two_and_ends_when_the_old_one_is_unused_or_its_grace_is_over() {
        let first = RotationState { shown: Some(0), previous: None, rotated_at: 7 };
        assert_eq!(first.valid(1), [0, 1]);
        assert_eq!(first.next(&store(1, HOUR), 1_000, false, true), first, "not before the new one is in place");
        let both = first.next(&store(1, HOUR), 1_000, true, false);
        assert_eq!(both, RotationState { shown: Some(1), previous: Some(0), rotated_at: 1_000 });
        assert_eq!(both.valid(1), [1, 0]);
        assert_eq!(both.next(&store(1, HOUR), 1_000 + 179_999, true, true), both, "a mounted Secret may lag");
        let after = RotationState { previous: None, ..both };
        assert_eq!(both.next(&store(1, HOUR), 1_000 + 180_000, true, true), after);
        assert_eq!(both.next(&store(1, HOUR), 1_000 + 180_000, true, false), both);
        assert_eq!(both.next(&store(1, HOUR), 1_000 + HOUR, true, false), after);
        assert_eq!(after.valid(1), [1]);
    }

    #[test]
    fn a_further_rotation_waits_for_the_one_that_is_under_way() {
        let both = RotationState { shown: Some(1), previous: Some(0), rotated_at: 1_000 };
        assert_eq!(both.valid(2), [1, 0]);
        assert_eq!(both.next(&store(2, HOUR), 2_000, true, true), both);
    }

    #[test]
    fn a_time_in_the_future_makes_no_grace_longer() {
        let both = RotationState { shown: Some(1), previous: Some(0), rotated_at: u64::MAX };
        assert_eq!(both.next(&store(1, HOUR), 2_000, true, false).previous, None);
    }

    fn binding(shown: &str, previous: &str, at: &str) -> KubernetesSecret {
        serde_json::from_value(serde_json::json!({"metadata": {"annotations": {
            "redoubt.dev/rotation": shown, "redoubt.dev/previous-rotation": previous, "redoubt.dev/rotated-at": at}}}))
        .unwrap()
    }

    #[test]
    fn a_binding_is_read_as_it_was_written() {
        let both = RotationState { shown: Some(2), previous: Some(1), rotated_at: 5 };
        assert_eq!(RotationState::of(Some(&binding("2", "1", "5")), None, 2), both);
        assert_eq!(RotationState::of(None, None, 2), RotationState::default());
        assert_eq!(RotationState::from_status(&both.status().unwrap()), Some(both), "the status repeats it");
        assert_eq!(RotationState::default().status(), None);
    }

    #[test]
    fn a_binding_that_was_deleted_or_edited_ends_and_revives_no_credentials() {
        let both = RotationState { shown: Some(1), previous: Some(0), rotated_at: 1_000 };
        let after = RotationState { previous: None, ..both };
        let of = |secret: Option<&KubernetesSecret>, told| RotationState::of(secret, Some(told), 1);
        assert_eq!(of(None, both), both, "deleted");
        assert_eq!(of(Some(&binding("1", "", "1000")), both), both, "the previous one edited out");
        assert_eq!(of(Some(&binding("1", "0", "0")), both), both, "its time set back");
        assert_eq!(of(Some(&binding("1", "0", "1000")), after), after, "the previous one edited in");
        assert_eq!(of(Some(&binding("77", "1", "1000")), after), after, "a number above the declared one");
        assert_eq!(RotationState::of(Some(&binding("77", "", "5")), None, 1), RotationState::default());
        let first = RotationState { shown: Some(0), previous: None, rotated_at: 7 };
        assert_eq!(of(Some(&binding("1", "0", "1000")), first), both, "written, and not told yet");
        assert_eq!(of(Some(&binding("1", "", "1000")), first), first, "no step of ours drops credentials with it");
    }
}
