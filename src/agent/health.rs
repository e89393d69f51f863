//! The three verdicts that Kubernetes asks for, from what is known of the engine. Pure.

use std::time::Duration;

use crate::model::Role;
use crate::redis::Class;
use crate::redis::info::Info;

/// A verdict whose look is older counts for nothing: looks are 250 ms apart, and the slowest, at a server that is silent, takes 5 s.
const STALE_AFTER: Duration = Duration::from_secs(6);
/// An agent that did not look for so long does not look again by itself. No pause of its own is half as long.
const DEAD_AFTER: Duration = Duration::from_mins(1);

/// What is known of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It is not started: the boot rule is being asked.
    Deciding,
    /// It is started and has not answered yet.
    Starting,
    /// It reads its dataset.
    Loading,
    /// It answers with an error that only a live server gives (`MISCONF`).
    Answering,
    /// It carries out a script that does not end (`BUSY`), and nothing else.
    Busy,
    /// It answers, as a primary, a Sentinel, or a replica whose link is up and whose first sync is done.
    Serving,
    /// A replica that is not in sync.
    Syncing,
    /// A primary without the functions that applications call: nothing had them when it started, and the operator has not loaded them.
    WithoutFunctions,
    /// It refuses the agent, which can neither see nor do anything there.
    Refusing,
    /// A Sentinel that all data nodes refuse: it sees none of them.
    Refused,
    /// Its clients left no connection for its agent.
    Full,
    /// It answers, and the volume takes no record for seconds.
    DiskHangs,
    /// It answered once and is silent now.
    Silent,
    Stopping,
}

impl Health {
    /// From an answer of a server that has, or does not need, its functions.
    pub(crate) fn of_answer(info: &Info) -> Self {
        match info.role() {
            _ if info.is_loading() => Self::Loading,
            Some(Role::Replica) if !info.primary_link().is_some_and(|link| link.up && !link.syncing) => Self::Syncing,
            _ => Self::Serving,
        }
    }

    /// The same where it has to wait for its functions.
    #[must_use]
    pub(crate) fn without_functions(self, info: &Info) -> Self {
        match self {
            Self::Serving if info.role() == Some(Role::Primary) => Self::WithoutFunctions,
            other => other,
        }
    }

    pub(crate) fn of_error(class: Class, before: &Self) -> Self {
        match class {
            Class::Loading => Self::Loading,
            Class::Busy => Self::Busy,
            Class::Denied => Self::Refusing,
            Class::Full => Self::Full,
            class if class.is_alive() => Self::Answering,
            _ if matches!(before, Self::Starting | Self::Deciding) => Self::Starting,
            _ => Self::Silent,
        }
    }

    /// Liveness probe, with the time since the agent looked last. Silence of the engine is the agent's to handle (it sees its death), and
    /// killing a server that is slow loses data: only an agent that does not look any more is dead. One that hands over and waits for the
    /// end of its engine has a time limit of its own, the grace period.
    pub(crate) fn is_live(&self, since_polled: Duration) -> bool {
        *self == Self::Stopping || since_polled < DEAD_AFTER
    }

    /// Readiness probe: may clients be sent here, may the next node be disturbed.
    pub(crate) fn is_ready(&self, since_polled: Duration) -> bool {
        self.is_good() && since_polled < STALE_AFTER
    }

    /// Whether the last poll found a server that may be used.
    pub(crate) const fn is_good(&self) -> bool {
        matches!(self, Self::Serving | Self::Answering)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misconf_is_ready_and_busy_and_loading_are_only_live() {
        let before = Health::Serving;
        let busy = Health::of_error(Class::Busy, &before);
        assert!(busy.is_live(Duration::ZERO) && !busy.is_ready(Duration::ZERO));
        assert!(Health::of_error(Class::CannotPersist, &before).is_ready(Duration::ZERO));
        let loading = Health::of_error(Class::Loading, &before);
        assert!(loading.is_live(Duration::ZERO) && !loading.is_ready(Duration::ZERO));
        assert_eq!(Health::of_error(Class::Unreachable, &before), Health::Silent);
        let refusing = Health::of_error(Class::Denied, &before);
        assert!(refusing.is_live(Duration::ZERO) && !refusing.is_ready(Duration::ZERO));
        let full = Health::of_error(Class::Full, &before);
        assert!(full.is_live(Duration::ZERO) && !full.is_ready(Duration::ZERO));
    }

    #[test]
    fn an_old_verdict_is_not_ready_and_a_very_old_one_not_live() {
        assert!(Health::Serving.is_ready(Duration::from_secs(5)) && !Health::Serving.is_ready(STALE_AFTER));
        assert!(Health::Serving.is_live(STALE_AFTER) && !Health::Serving.is_live(DEAD_AFTER));
        assert!(Health::Stopping.is_live(DEAD_AFTER), "the grace period may be longer");
    }

    #[test]
    fn a_replica_is_ready_only_with_its_link_up_and_its_sync_done() {
        let replica = |link: &str, syncing: &str| {
            let text =
                format!("role:slave\nmaster_host:a\nmaster_link_status:{link}\nmaster_sync_in_progress:{syncing}\n");
            Health::of_answer(&Info::parse(&text)).is_ready(Duration::ZERO)
        };
        assert!(replica("up", "0"));
        assert!(!replica("up", "1"));
        assert!(!replica("down", "0"));
    }
}
