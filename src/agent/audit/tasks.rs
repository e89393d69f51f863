//! Which node of a layer audits.

use super::super::peers;
use super::super::state::State;
use crate::model::audit::{AuditMode, DeclaredPrefixes};
use crate::model::lineage::{Activity, LineageAnswer};
use crate::model::{ReplicationId, Role};

/// What a node has to do.
#[expect(clippy::struct_excessive_bools, reason = "each is a task of its own")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AuditTasks {
    /// It tells what it finds.
    pub(super) reports: bool,
    /// It gives keys an expiry.
    pub(super) repairs: bool,
    /// It removes keys of uses that take more memory than they may.
    pub(super) shrinks: bool,
    pub(super) is_on_primary: bool,
}

/// Line of data and role of a server that serves, and that has all that its primary writes.
pub(super) fn stands(state: &State) -> Option<(ReplicationId, Role)> {
    let lineage = state.lineage().filter(|lineage| lineage.synced && lineage.link_up)?;
    state.is_loaded().then_some((lineage.replication_id, lineage.role))
}

/// What this node has to do now; `None`: nothing.
pub(super) async fn of(state: &State, role: Role, declared: &DeclaredPrefixes) -> Option<AuditTasks> {
    let config = state.config();
    let others = peers::ask_agents(&config).await;
    let answers: Vec<_> = others.into_iter().filter_map(|(ordinal, answer)| Some((ordinal, answer?))).collect();
    decide(config.node.ordinal, role, declared, &answers)
}

/// The same, by what the other data nodes of the layer answered.
fn decide(own: u16, role: Role, declared: &DeclaredPrefixes, others: &[(u16, LineageAnswer)]) -> Option<AuditTasks> {
    let repairs = declared.mode == AuditMode::Repair;
    let shrinks = declared.prefixes.iter().any(|it| it.budget.is_some_and(|budget| budget.shrinks));
    let mut fit = others.iter().filter(|(_, answer)| is_fit(answer));
    match role {
        Role::Primary => {
            let reports = fit.next().is_none();
            (reports || repairs || shrinks).then_some(AuditTasks { reports, repairs, shrinks, is_on_primary: true })
        }
        Role::Replica => {
            let is_first = fit.all(|(ordinal, _)| *ordinal > own);
            is_first.then_some(AuditTasks { reports: true, repairs: false, shrinks: false, is_on_primary: false })
        }
    }
}

/// A replica that has what its primary has, and whose agent can audit.
fn is_fit(answer: &LineageAnswer) -> bool {
    let is_replica = answer.lineage.as_ref().is_some_and(|it| it.role == Role::Replica && it.synced && it.link_up);
    answer.audit.is_some() && answer.activity == Activity::Serving && is_replica
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Offset;
    use crate::model::audit::{AuditMark, DeclaredPrefix, MemoryBudget};
    use crate::model::lineage::{Ancestry, LINEAGE_FORMAT, Lineage};

    fn answer(role: Role) -> LineageAnswer {
        let lineage = Lineage {
            format: LINEAGE_FORMAT,
            layer_uid: "uid".to_owned(),
            epoch: 1,
            term: 1,
            role,
            replication_id: ReplicationId("a".to_owned()),
            previous_replication_id: None,
            previous_offset: None,
            offset: Offset(1),
            synced: true,
            link_up: true,
            keys: 1,
            clean_stop: false,
            append_only: None,
            accepted: None,
            held: None,
        };
        LineageAnswer {
            layer_uid: "uid".to_owned(),
            ordinal: 0,
            activity: Activity::Serving,
            initialised: true,
            accepting: false,
            needs_person: None,
            lineage: Some(lineage),
            loaded: true,
            ancestry: Ancestry::default(),
            aside: Vec::new(),
            unusable: None,
            view: None,
            notices: Vec::new(),
            audit: Some(AuditMark::default()),
        }
    }

    fn declared(mode: AuditMode, shrinks: bool) -> DeclaredPrefixes {
        let budget = Some(MemoryBudget { bytes: 1, shrinks });
        let prefixes = vec![DeclaredPrefix { prefix: "web:".to_owned(), budget, ..DeclaredPrefix::default() }];
        DeclaredPrefixes { mode, prefixes, ..DeclaredPrefixes::default() }
    }

    #[test]
    fn the_first_fit_replica_audits_and_the_primary_only_where_there_is_none() {
        let (primary, replica) = (answer(Role::Primary), answer(Role::Replica));
        let reports = |own, role, others: &[(u16, LineageAnswer)]| {
            decide(own, role, &declared(AuditMode::Report, false), others).is_some_and(|tasks| tasks.reports)
        };
        assert!(reports(1, Role::Replica, &[(0, primary.clone()), (2, replica.clone())]));
        assert!(!reports(2, Role::Replica, &[(0, primary.clone()), (1, replica.clone())]));
        assert!(!reports(0, Role::Primary, &[(1, replica.clone()), (2, replica.clone())]));
        assert!(reports(0, Role::Primary, &[]));
        // One that loads, lost its link, or has an agent of before leaves it to the next.
        let unfit = [
            LineageAnswer { activity: Activity::Loading, ..replica.clone() },
            LineageAnswer { audit: None, ..replica.clone() },
            LineageAnswer {
                lineage: replica.lineage.clone().map(|own| Lineage { link_up: false, ..own }),
                ..replica.clone()
            },
        ];
        for unfit in unfit {
            assert!(reports(2, Role::Replica, &[(0, primary.clone()), (1, unfit.clone())]), "{unfit:?}");
            assert!(reports(0, Role::Primary, &[(1, unfit)]));
        }
    }

    #[test]
    fn only_a_primary_repairs_and_shrinks_and_it_does_whichever_node_reports() {
        let replica = answer(Role::Replica);
        let tasks = |role, mode, others: &[(u16, LineageAnswer)]| decide(0, role, &declared(mode, false), others);
        let both = Some(AuditTasks { reports: false, repairs: true, shrinks: false, is_on_primary: true });
        assert_eq!(tasks(Role::Primary, AuditMode::Repair, &[(1, replica.clone())]), both);
        assert_eq!(tasks(Role::Primary, AuditMode::Report, &[(1, replica)]), None);
        assert!(tasks(Role::Primary, AuditMode::Repair, &[]).is_some_and(|tasks| tasks.reports && tasks.repairs));
        assert!(tasks(Role::Replica, AuditMode::Repair, &[]).is_some_and(|tasks| tasks.reports && !tasks.repairs));
        let shrinking = |role, others: &[(u16, LineageAnswer)]| {
            decide(0, role, &declared(AuditMode::Report, true), others).is_some_and(|tasks| tasks.shrinks)
        };
        assert!(shrinking(Role::Primary, &[(1, answer(Role::Replica))]) && !shrinking(Role::Replica, &[]));
    }
}
