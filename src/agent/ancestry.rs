//! Which histories the node's data contains, beyond the one before that a server itself remembers.
//!
//! A server knows its replication id and the one before. A node that was away for two failovers has a record of neither, and nothing
//! would tell that all it has is in the layer. So agents keep the chain: each promotion adds the id that it ended and how much of it is
//! contained, a start from files adds the id of the record, and a replica in sync takes over its primary's chain.

use std::fs;
use std::path::PathBuf;

use super::config::Environment;
use super::durable;
use crate::model::lineage::{Ancestor, Ancestry, Lineage, LineageAnswer};
use crate::model::position::{Position, Tail, TrailPoint, is_of_its_primary};
use crate::model::{ReplicationId, Role};
use crate::redis::info::Info;

/// Histories that are remembered. One ends with each failover or restart of a primary.
const MOST: usize = 32;
/// Of so many of them the way to their end is remembered: a node that was away for longer has a record that is older than any of it.
const WITH_TRAIL: usize = 4;

fn path(environment: &Environment) -> PathBuf {
    environment.data.join("redoubt/ancestry.json")
}

/// What the volume remembers. A file that is missing or damaged is an empty chain: then less is known to be contained, and more is kept.
pub(super) fn read(environment: &Environment) -> Ancestry {
    fs::read_to_string(path(environment)).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// Writes it. Failing to is no trouble of its own: see [`read`].
pub(super) fn write(environment: &Environment, ancestry: &Ancestry) {
    let written = serde_json::to_string(ancestry).map(|text| durable::replace(&path(environment), &text));
    if !matches!(written, Ok(Ok(()))) {
        tracing::info!("which histories this node's data contains is not written down");
    }
}

/// The chain of a primary that serves under another id than the chain knows. `before`: the record of the data that it began with;
/// `loaded_as`: the id that it had when it had read that, and had followed no primary; `ended`: where it was seen last in the history
/// that its promotion ended, and the way to there.
pub(super) fn continued(
    known: &Ancestry,
    info: &Info,
    before: Option<&Lineage>,
    loaded_as: Option<&ReplicationId>,
    ended: Option<(&Position, Vec<TrailPoint>)>,
) -> Ancestry {
    let own = info.replication_id();
    let mut ancestors = known.ancestors.clone();
    // By its own word where it was promoted; a server that read its files knows no id before.
    let promoted = info.previous_replication_id().zip(info.previous_offset());
    let began_so = promoted.as_ref().is_none_or(|(id, _)| Some(id) == loaded_as);
    let started = before.filter(|_| began_so).map(Lineage::position).filter(|at| at.replication_id != own);
    let started = started.map(|position| Ancestor { position, trail: Vec::new() });
    let promoted = promoted.map(|(replication_id, offset)| {
        let (epoch, term) = ended.as_ref().map_or((0, 0), |(end, _)| (end.epoch, end.term));
        let position = Position { replication_id, offset, epoch, term, tail: Tail::None, led: false, went_on: false };
        Ancestor { position, trail: ended.map(|(_, trail)| trail).unwrap_or_default() }
    });
    for ended in [started, promoted].into_iter().flatten() {
        ancestors.retain(|ancestor| ancestor.position.replication_id != ended.position.replication_id);
        ancestors.push(ended);
    }
    let surplus = ancestors.len().saturating_sub(MOST);
    let mut ancestors = ancestors.split_off(surplus);
    let old = ancestors.len().saturating_sub(WITH_TRAIL);
    ancestors.iter_mut().take(old).for_each(|ancestor| ancestor.trail.clear());
    Ancestry { of: own, ancestors }
}

/// Whether all that the record speaks of is certainly in the answering node's data. A record that counts no keys speaks of some all the
/// same: it may be older than what was written after it.
pub(super) fn contains(answer: &LineageAnswer, record: &Lineage) -> bool {
    let Some(theirs) = &answer.lineage else { return false };
    let (position, ended) = (theirs.position(), record.position());
    // A primary that serves has all of its own history.
    let serves =
        theirs.role == Role::Primary && theirs.held.is_none() && position.replication_id == ended.replication_id;
    let previous = theirs.previous_replication_id.clone().zip(theirs.previous_offset);
    let previous = previous.map(|(replication_id, offset)| Ancestor {
        position: Position { replication_id, offset, tail: Tail::None, led: false, went_on: false, ..position.clone() },
        trail: Vec::new(),
    });
    (serves && ended.offset <= position.offset)
        || position.includes(&ended, &[])
        || previous.is_some_and(|previous| reaches(&previous, &ended))
        || (answer.ancestry.of == theirs.replication_id
            && answer.ancestry.ancestors.iter().any(|ancestor| reaches(ancestor, &ended)))
}

/// Whether what ended there is in the history as far as the ancestor has it.
fn reaches(ancestor: &Ancestor, ended: &Position) -> bool {
    let of = &ancestor.position;
    let is_same = of.replication_id == ended.replication_id;
    // What a primary wrote at its end and had sent to no replica was confirmed by none.
    let is_unsent = ended.led && ended.offset <= of.offset;
    is_same && (is_unsent || is_of_its_primary(of, ended) || of.includes(ended, &ancestor.trail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::lineage_file;
    use crate::model::Offset;
    use crate::model::lineage::Activity;

    fn record(id: &str, offset: u64) -> Lineage {
        let text = format!(
            r#"{{"format":1,"layerUid":"uid","epoch":1,"term":2,"role":"Replica","replicationId":"{id}","previousReplicationId":null,
            "offset":{offset},"synced":true,"linkUp":true,"keys":1,"cleanStop":false}}"#
        );
        lineage_file::parse(&text).unwrap()
    }

    #[test]
    fn a_chain_of_promotions_and_starts_contains_what_each_ended() {
        let promoted = Info::parse("role:master\nmaster_replid:b\nmaster_replid2:a\nsecond_repl_offset:101\n");
        let chain = continued(&Ancestry::default(), &promoted, Some(&record("y", 9)), None, None);
        let started = Info::parse("role:master\nmaster_replid:c\nmaster_replid2:0000\n");
        let chain = continued(&chain, &started, Some(&record("b", 250)), None, None);
        let answer = LineageAnswer {
            layer_uid: "uid".to_owned(),
            ordinal: 0,
            activity: Activity::Serving,
            initialised: true,
            accepting: false,
            needs_person: None,
            lineage: Some(record("c", 10)),
            loaded: true,
            ancestry: chain,
            aside: Vec::new(),
            unusable: None,
            audit: None,
            view: None,
            notices: Vec::new(),
        };
        let contains = |id, offset| contains(&answer, &record(id, offset));
        assert!(contains("a", 100) && contains("b", 250) && contains("c", 10));
        assert!(!contains("a", 101) && !contains("b", 251) && !contains("c", 11), "went on alone");
        assert!(!contains("x", 0), "another history");
        assert!(!contains("y", 9), "it may have been replaced before the promotion");
        assert!(!super::contains(&answer, &Lineage { keys: 0, ..record("x", 0) }), "written after the record, maybe");
        let unknown =
            Lineage { layer_uid: String::new(), replication_id: ReplicationId::default(), keys: 0, ..record("", 0) };
        assert!(!super::contains(&answer, &unknown), "without a record nothing says that there are no keys");
        let id = |id: &str| ReplicationId(id.to_owned());
        let loaded = Info::parse("role:master\nmaster_replid:d\nmaster_replid2:r\nsecond_repl_offset:1\n");
        let chain = continued(&answer.ancestry, &loaded, Some(&record("c", 10)), Some(&id("r")), None);
        let known: Vec<&str> =
            chain.ancestors.iter().map(|ancestor| ancestor.position.replication_id.0.as_str()).collect();
        assert_eq!(known, ["a", "b", "c", "r"], "promoted before it followed anybody: it has what it read");
        assert_eq!(answer.ancestry.of, id("c"));
        assert_eq!(answer.ancestry.ancestors[0].position.offset, Offset(100));
    }
}
