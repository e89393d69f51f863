//! Data nodes that serve as primaries at the same time.
//!
//! An election by the Sentinels decides which of them is the layer's primary, and a record shows an election by its epoch. In one epoch
//! a node may have become primary because its peers were silent for long, while they went on together: its term is higher then, and the
//! other may have what its replicas confirmed. So only a higher epoch decides where data is kept.

use std::time::Duration;

use super::WaitReason;
use super::facts::{BootFacts, Peer};
use super::times::{ELECTS_WITHIN, LONGEST_WAIT, RIVALRY};
use crate::model::Role;
use crate::model::lineage::{Comparison, Lineage, compare};

/// What a primary that runs does while another one may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rivalry {
    /// No other primary serves, and the Sentinels name no other node that is silent, or that is a replica of a layer that keeps nothing.
    Alone,
    /// It goes on: the other one is to step down, the Sentinels decide it soon, or whom they name is silent or a replica, but not for long.
    GoesOn,
    /// It ends its engine in order, so that all it has is in its files, and asks the boot rule. What only it has is kept aside.
    StepsDown,
    /// It goes on, and tells the Sentinels under a new epoch that it is the primary.
    TellsSentinels,
    /// It goes on and says that it waits for a person.
    NeedsPerson(WaitReason),
}

/// The one of these primaries that is the layer's without a person's word. `None`: there is none, or nothing shows which it is.
pub fn prevailing(serving: &[(u16, &Lineage)], layer_uid: &str, keeps_data: bool) -> Option<u16> {
    let beats_all = |one: &&(u16, &Lineage)| {
        let mut others = serving.iter().filter(|other| other.0 != one.0);
        others.all(|other| prevails(**one, *other, layer_uid, keeps_data))
    };
    serving.iter().find(beats_all).map(|(ordinal, _)| *ordinal)
}

/// Whether the first is the layer's primary, and not the second. A layer that keeps nothing always has one of the two.
fn prevails(first: (u16, &Lineage), second: (u16, &Lineage), layer_uid: &str, keeps_data: bool) -> bool {
    match compare(first.1, second.1, layer_uid) {
        Comparison::Newer => !keeps_data || first.1.epoch > second.1.epoch,
        Comparison::Older => false,
        Comparison::Equal | Comparison::Unrelated => !keeps_data && first.0 < second.0,
    }
}

/// What this node, of which the engine runs as primary, does. `facts.waited`: since another primary was seen first.
pub fn rivalry(facts: &BootFacts) -> Rivalry {
    let Some(own) = facts.own.as_ref().map(|own| (facts.own_ordinal, own)) else { return Rivalry::Alone };
    let rivals: Vec<_> = facts.serving_primaries().collect();
    if rivals.is_empty() {
        return unnamed(facts);
    }
    if facts.waited < RIVALRY {
        return Rivalry::GoesOn;
    }
    let prevails = |first, second| prevails(first, second, &facts.layer_uid, facts.keeps_data);
    let is_long = facts.waited >= LONGEST_WAIT;
    let serving: Vec<_> = rivals.iter().copied().chain([own]).collect();
    let prevailing = prevailing(&serving, &facts.layer_uid, facts.keeps_data);
    let is_settled = match facts.named() {
        // What keeps nothing follows whom the Sentinels name, whatever it has.
        Some(named) if named == facts.own_ordinal => {
            !facts.keeps_data || rivals.iter().all(|theirs| prevails(own, *theirs))
        }
        Some(named) => match rivals.iter().find(|(ordinal, _)| *ordinal == named) {
            Some(theirs) if !facts.keeps_data || prevails(*theirs, own) => return Rivalry::StepsDown,
            Some(_) => false,
            // Of what keeps nothing there is none that could be overwritten: as replicas one of them is elected.
            None if !facts.keeps_data && unnamed(facts) == Rivalry::StepsDown => return Rivalry::StepsDown,
            // They name a replica, and know no node that they could elect.
            None if !facts.keeps_data && prevailing != Some(facts.own_ordinal) => true,
            None if unnamed(facts) == Rivalry::TellsSentinels => return Rivalry::TellsSentinels,
            // They elect, or hear of who was elected.
            None => !is_long,
        },
        // They are shown the one that prevails. Those that name several primaries are shown none, so what keeps nothing ends it itself.
        None => match prevailing {
            Some(ordinal) if ordinal != facts.own_ordinal && !facts.keeps_data && facts.is_certain_of_sentinels() => {
                return Rivalry::StepsDown;
            }
            Some(_) => !facts.keeps_data || !is_long,
            None => false,
        },
    };
    if is_settled { Rivalry::GoesOn } else { Rivalry::NeedsPerson(WaitReason::SeveralPrimaries) }
}

/// What it does while no other primary is heard. Sentinels that never knew it as a replica neither demote nor elect it, so it would serve
/// next to them for as long as the one that they name is silent, or is a replica. Where data is kept, the other may have what was
/// confirmed. In a layer that keeps nothing this one may be elected as a replica, or is the only one that can take its place.
fn unnamed(facts: &BootFacts) -> Rivalry {
    let silence = longest_election(facts);
    match facts.named().and_then(|named| facts.peers.get(&named)) {
        Some(Peer::Silent { time }) if *time >= silence && facts.keeps_data => {
            Rivalry::NeedsPerson(WaitReason::PeerIsSilent)
        }
        Some(Peer::Silent { time }) if *time >= silence => Rivalry::StepsDown,
        Some(Peer::Silent { .. }) => Rivalry::GoesOn,
        Some(Peer::Answers { lineage, .. }) if !facts.keeps_data || is_own_replica(facts, lineage.as_ref()) => {
            if facts.unnamed >= silence { Rivalry::TellsSentinels } else { Rivalry::GoesOn }
        }
        Some(Peer::Answers { .. }) | None => Rivalry::Alone,
    }
}

/// Whether the record is of a replica that has this node's data: it can have no more.
fn is_own_replica(facts: &BootFacts, theirs: Option<&Lineage>) -> bool {
    let own = facts.own.as_ref();
    theirs.zip(own).is_some_and(|(theirs, own)| {
        theirs.role == Role::Replica && theirs.link_up && theirs.replication_id == own.replication_id
    })
}

/// After this long the Sentinels have elected, if they can: those that detect late may be about to.
fn longest_election(facts: &BootFacts) -> Duration {
    facts.silence_that_blocks().max(ELECTS_WITHIN * facts.detection)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::boot::SentinelAnswer;
    use crate::model::boot::times::{SILENT_PEER, SILENT_PEER_OF_A_CACHE};
    use crate::model::lineage::{Activity, LINEAGE_FORMAT};
    use crate::model::{Mode, Offset, ReplicationId};

    fn primary(epoch: u64, term: u64) -> Lineage {
        Lineage {
            format: LINEAGE_FORMAT,
            layer_uid: "layer".to_owned(),
            epoch,
            term,
            role: Role::Primary,
            replication_id: ReplicationId(format!("history-{epoch}-{term}")),
            previous_replication_id: None,
            previous_offset: None,
            offset: Offset(7),
            synced: true,
            link_up: true,
            keys: 7,
            clean_stop: false,
            append_only: Some(true),
            accepted: None,
            held: None,
        }
    }

    /// Node 1 sees node 0, both serving as primaries, and one named by most Sentinels or none.
    fn facts(own: Lineage, theirs: Lineage, named: Option<u16>, keeps_data: bool) -> BootFacts {
        let named = named.map_or(SentinelAnswer::NamesNone, SentinelAnswer::Names);
        BootFacts {
            mode: Mode::Sentinel,
            layer_uid: "layer".to_owned(),
            own_ordinal: 1,
            own: Some(own),
            initialised: true,
            keeps_data,
            accept_loss: None,
            accepting: None,
            peers: BTreeMap::from([
                (0, Peer::Answers { activity: Activity::Serving, lineage: Some(theirs) }),
                (2, Peer::Silent { time: Duration::from_secs(70) }),
            ]),
            detection: Duration::from_secs(5),
            sentinels: vec![named, named, SentinelAnswer::Silent],
            sentinels_silent: Duration::ZERO,
            refused: Duration::ZERO,
            unnamed: Duration::ZERO,
            waited: RIVALRY,
        }
    }

    const SEVERAL: Rivalry = Rivalry::NeedsPerson(WaitReason::SeveralPrimaries);

    #[test]
    fn a_layer_that_keeps_nothing_has_one_primary_whatever_the_records_say() {
        for (own, theirs) in
            [(primary(3, 1), primary(3, 2)), (primary(3, 2), primary(3, 1)), (primary(3, 1), primary(3, 1))]
        {
            assert_eq!(rivalry(&facts(own.clone(), theirs.clone(), Some(0), false)), Rivalry::StepsDown);
            assert_eq!(rivalry(&facts(own.clone(), theirs.clone(), Some(1), false)), Rivalry::GoesOn);
            let both = [(1, &own), (0, &theirs)];
            assert!(prevailing(&both, "layer", false).is_some(), "the Sentinels are shown one");
        }
    }

    #[test]
    fn sentinels_that_remember_nothing_are_shown_the_primary_that_was_elected_last() {
        let (before, after) = (primary(3, 4), primary(4, 5));
        assert_eq!(prevailing(&[(0, &before), (1, &after)], "layer", true), Some(1));
        assert_eq!(rivalry(&facts(before.clone(), after.clone(), None, true)), Rivalry::GoesOn, "until they are");
        assert_eq!(rivalry(&facts(before.clone(), after.clone(), Some(0), true)), Rivalry::StepsDown);
        assert_eq!(rivalry(&facts(after, before, Some(1), true)), Rivalry::GoesOn);
    }

    #[test]
    fn without_an_election_between_them_both_primaries_wait_for_a_person() {
        for (first, second) in [(primary(3, 4), primary(3, 5)), (primary(3, 4), primary(3, 4))] {
            assert_eq!(prevailing(&[(0, &first), (1, &second)], "layer", true), None);
            for named in [None, Some(0), Some(1)] {
                assert_eq!(rivalry(&facts(first.clone(), second.clone(), named, true)), SEVERAL, "{named:?}");
                assert_eq!(rivalry(&facts(second.clone(), first.clone(), named, true)), SEVERAL, "{named:?}");
            }
        }
        let newer_unnamed = facts(primary(4, 5), primary(3, 4), Some(0), true);
        assert_eq!(rivalry(&newer_unnamed), SEVERAL, "the Sentinels name the one of before");
    }

    #[test]
    fn where_the_sentinels_disagree_a_layer_that_keeps_nothing_has_the_primary_that_prevails() {
        let (before, after) = (primary(3, 4), primary(3, 5));
        assert_eq!(rivalry(&facts(before.clone(), after.clone(), None, false)), Rivalry::StepsDown);
        let unheard = BootFacts {
            sentinels: vec![SentinelAnswer::Silent; 3],
            ..facts(before.clone(), after.clone(), None, false)
        };
        assert_eq!(rivalry(&unheard), Rivalry::GoesOn, "they may name this one, and are a moment late");
        let after_long = BootFacts { waited: LONGEST_WAIT, ..facts(after, before, None, false) };
        assert_eq!(rivalry(&after_long), Rivalry::GoesOn, "no person decides");
    }

    #[test]
    fn where_the_sentinels_name_a_replica_the_primary_that_prevails_tells_them() {
        let (lower, higher) = (primary(3, 4), primary(3, 5));
        let named_replica = |own: &Lineage, theirs: Option<&Lineage>, keeps_data, unnamed| {
            let theirs = theirs.cloned().unwrap_or_else(|| Lineage { role: Role::Replica, ..primary(3, 4) });
            let facts = facts(own.clone(), theirs, Some(2), keeps_data);
            let mut facts = BootFacts { unnamed, waited: unnamed, ..facts };
            let record = Lineage { role: Role::Replica, ..primary(3, 4) };
            facts.peers.insert(2, Peer::Answers { activity: Activity::Serving, lineage: Some(record) });
            assert!(facts.names_no_primary());
            rivalry(&facts)
        };
        let long = SILENT_PEER_OF_A_CACHE;
        let soon = long.saturating_sub(Duration::from_millis(1));
        assert_eq!(named_replica(&higher, Some(&lower), false, soon), Rivalry::GoesOn, "they may elect one of the two");
        assert_eq!(named_replica(&higher, Some(&lower), false, long), Rivalry::TellsSentinels);
        assert_eq!(
            named_replica(&lower, Some(&higher), false, LONGEST_WAIT),
            Rivalry::GoesOn,
            "until they name the other"
        );
        assert_eq!(named_replica(&lower, None, false, soon), Rivalry::GoesOn, "asked about again");
        assert_eq!(named_replica(&lower, None, false, long), Rivalry::TellsSentinels);
        assert_eq!(
            named_replica(&higher, Some(&lower), true, LONGEST_WAIT),
            SEVERAL,
            "a person decides where data is kept"
        );
        assert_eq!(named_replica(&lower, None, true, long), Rivalry::GoesOn);
        assert_eq!(
            named_replica(&lower, None, true, SILENT_PEER),
            Rivalry::TellsSentinels,
            "its own replica has no more"
        );
        assert_eq!(
            named_replica(&higher, None, true, LONGEST_WAIT),
            Rivalry::Alone,
            "one of another history may have more"
        );
    }

    #[test]
    fn a_primary_next_to_sentinels_that_name_a_silent_node_becomes_a_replica_or_says_so() {
        let silent = |keeps_data, time| BootFacts {
            peers: BTreeMap::from([(0, Peer::Silent { time })]),
            ..facts(primary(3, 4), primary(3, 4), Some(0), keeps_data)
        };
        let mut two = silent(false, SILENT_PEER_OF_A_CACHE);
        two.peers.insert(2, Peer::Answers { activity: Activity::Serving, lineage: Some(primary(3, 5)) });
        assert_eq!(rivalry(&two), Rivalry::StepsDown, "one of the two is elected");
        for (keeps_data, silence, then) in [
            (true, SILENT_PEER, Rivalry::NeedsPerson(WaitReason::PeerIsSilent)),
            (false, SILENT_PEER_OF_A_CACHE, Rivalry::StepsDown),
        ] {
            assert_eq!(rivalry(&silent(keeps_data, silence)), then);
            assert_eq!(
                rivalry(&silent(keeps_data, silence.saturating_sub(Duration::from_millis(1)))),
                Rivalry::GoesOn,
                "asked about again"
            );
            let no_majority = BootFacts {
                sentinels: vec![SentinelAnswer::Names(0), SentinelAnswer::Silent, SentinelAnswer::Silent],
                ..silent(keeps_data, silence)
            };
            assert_eq!(rivalry(&no_majority), Rivalry::Alone);
        }
    }

    #[test]
    fn sentinels_that_detect_late_have_time_to_elect_before_a_cache_ends_its_primary() {
        let detection = Duration::from_mins(1);
        let silent = |time| BootFacts {
            peers: BTreeMap::from([(0, Peer::Silent { time })]),
            detection,
            ..facts(primary(3, 4), primary(3, 4), Some(0), false)
        };
        assert_eq!(rivalry(&silent((3 * detection).saturating_sub(Duration::from_millis(1)))), Rivalry::GoesOn);
        assert_eq!(rivalry(&silent(3 * detection)), Rivalry::StepsDown);
    }

    #[test]
    fn a_moment_with_two_primaries_is_the_sentinels_affair() {
        let soon = |facts: BootFacts| BootFacts { waited: RIVALRY.saturating_sub(Duration::from_millis(1)), ..facts };
        assert_eq!(rivalry(&soon(facts(primary(3, 4), primary(4, 5), Some(0), true))), Rivalry::GoesOn);
        assert_eq!(rivalry(&soon(facts(primary(3, 4), primary(3, 5), None, true))), Rivalry::GoesOn);
        let alone = BootFacts { peers: BTreeMap::new(), ..facts(primary(3, 4), primary(3, 4), None, true) };
        assert_eq!(rivalry(&alone), Rivalry::Alone);
        let third = |waited| BootFacts { waited, ..facts(primary(4, 5), primary(3, 4), Some(2), true) };
        assert_eq!(rivalry(&third(RIVALRY)), Rivalry::GoesOn, "the one that they name is to serve soon");
        assert_eq!(rivalry(&third(LONGEST_WAIT)), SEVERAL);
    }
}
