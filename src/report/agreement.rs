//! In what the servers of a Cluster differ, as words.

use crate::model::topology::Unsettled;

/// One thing in which servers of a Cluster differ.
pub(super) fn unsettled(what: &Unsettled) -> String {
    match what {
        Unsettled::Silent { node } => format!("{node} does not answer"),
        Unsettled::Unmet { viewer, node } => format!("{viewer} does not know {node}"),
        Unsettled::Doubted { viewer, node } => format!("{viewer} takes {node} for lost"),
        Unsettled::Stranger { viewer, id } => format!("{viewer} remembers {id}, which is no node any more"),
        Unsettled::Disputed { viewer, node } => format!("{viewer} has another role or other slots for {node}"),
        Unsettled::Astray { node } => format!("{node} does not copy the primary of its shard"),
        Unsettled::Divided { shard } => format!("several nodes of {shard} own slots"),
        Unsettled::SharedEpoch { node, other } => format!("{node} and {other} have one epoch"),
        Unsettled::Open { node, slot } => format!("slot {slot} is on its way at {node}"),
        Unsettled::Unowned => "some slots have no owner".to_owned(),
        Unsettled::NotServing { node } => format!("{node} says that the Cluster is down"),
    }
}
