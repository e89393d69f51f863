//! Files that the engine does not load: whose data replaces them.

use super::in_force::in_force;
use crate::model::Role;
use crate::model::lineage::{Comparison, Lineage, compare};

/// What is known of the data of another data node.
#[derive(Clone, Copy, Debug)]
pub struct PeerData<'a> {
    /// Ordinal of that node.
    pub ordinal: u16,
    /// Its record. `None`: it is silent, or has no data.
    pub record: Option<&'a Lineage>,
    /// Whether its server has read what the record speaks of.
    pub is_loaded: bool,
}

/// Whose data replaces files that do not load. `own`: the node's ordinal and the record of what was in the files; `others`: all other
/// declared data nodes. A node that has all of it, or else the one that a person chose, unless that decision was carried out with this
/// very data in the layer: it was made for another incident. `None`: the files stay.
pub fn replaces_damaged(
    own: (u16, &Lineage),
    layer_uid: &str,
    accept_loss: Option<u16>,
    others: &[PeerData<'_>],
) -> Option<u16> {
    let (ordinal, record) = own;
    let has_all = |peer: &&PeerData<'_>| {
        let rest = others.iter().filter(|other| other.ordinal != peer.ordinal).map(|other| other.record);
        peer.is_loaded && peer.record.is_some_and(|theirs| holds_all(theirs, record, layer_uid, rest))
    };
    let chosen = || in_force(accept_loss, layer_uid, std::iter::once(record)).filter(|chosen| *chosen != ordinal);
    others.iter().find(has_all).map(|peer| peer.ordinal).or_else(chosen)
}

/// Whether the first record's data has all that the second's held and a replica confirmed, as far as records tell. A node that ended
/// suddenly may have a later offset than a replica that was in sync to the end: it yields to that one, as it does where its engine is dead
/// for another reason (rule 2). A record says that its node was in sync at its own end, which may have come before. So it counts only where
/// each of the `rest`, the data nodes that are neither of the two, has a whole dataset and none is newer: one of them may have confirmed
/// more. A record that was lost says nothing of that, and no other one makes up for it.
pub fn holds_all<'a>(
    theirs: &Lineage,
    own: &Lineage,
    layer_uid: &str,
    mut rest: impl Iterator<Item = Option<&'a Lineage>>,
) -> bool {
    let own = &own.before_loss();
    let has_no_less = |other: &Lineage| {
        let order = compare(theirs, other, layer_uid);
        other.synced && !other.is_of_unknown_origin() && matches!(order, Comparison::Newer | Comparison::Equal)
    };
    let was_in_sync = !own.clean_stop
        && theirs.link_up
        && theirs.replication_id == own.replication_id
        && (theirs.layer_uid.as_str(), theirs.epoch, theirs.term) == (layer_uid, own.epoch, own.term);
    let mut has_no_less_than_the_rest = || rest.all(|other| other.is_some_and(has_no_less));
    let (position, lost) = (theirs.position(), own.position());
    // A primary that serves has all of its own history.
    let serves = theirs.role == Role::Primary && theirs.held.is_none();
    let is_certain = position.replication_id != lost.replication_id
        || (serves && lost.offset <= position.offset)
        || position.includes(&lost, &[]);
    theirs.synced
        && match compare(theirs, own, layer_uid) {
            // What a node held whose record was lost is known of no other: the others may have been filled since.
            Comparison::Newer | Comparison::Equal if is_certain => !own.is_of_unknown_origin(),
            Comparison::Newer | Comparison::Equal | Comparison::Older => was_in_sync && has_no_less_than_the_rest(),
            Comparison::Unrelated => false,
        }
}
