//! The boot rule: may this data node start its engine, and as what?
//!
//! Pure and total: the agent gathers [`BootFacts`], asks [`decide`], and asks again with new facts while the answer is to
//! wait. The engine is not started while in doubt, so the Sentinels see the node as down and elect another. The rule
//! numbers are those of DESIGN §2 "Boot rule".

mod damaged;
mod decision;
mod facts;
mod in_force;
mod rivals;
mod times;

pub use damaged::{PeerData, holds_all, replaces_damaged};
pub use decision::{BootDecision, PrimaryReason, WaitReason};
pub use facts::{BootFacts, Peer, SentinelAnswer};
pub use in_force::in_force;
pub use rivals::{Rivalry, prevailing, rivalry};
pub(crate) use times::{CATCHES_UP, REFUSED_FAILOVER, SILENT_PEER, SILENT_SENTINELS};
pub use times::{LONGEST_WAIT, UNCLEAN_PRIMARY_WAITS};

use super::lineage::{Activity, Lineage};
pub use super::lineage::{Comparison, compare};
use super::{Mode, Role};

/// The boot rule, and a person's decision where there is one.
pub fn decide(facts: &BootFacts) -> BootDecision {
    let own = facts.own_ordinal;
    match (facts.accepting, facts.accept_loss) {
        (Some(chosen), Some(accepted)) if chosen == accepted && chosen != own => {
            BootDecision::Wait(WaitReason::AnotherIsChosen)
        }
        (Some(chosen), Some(accepted)) if chosen == accepted => carry_out(facts),
        (_, accepted) => {
            let decision = undecided(facts);
            if !needs_a_person(facts, &decision) {
                decision
            } else if accepted == Some(own) {
                carry_out(facts)
            } else {
                gives_way(facts).map_or(decision, |primary| BootDecision::Follow { primary, electable: false })
            }
        }
    }
}

/// The primary that serves, where a person chose its data and not this node's. The decision is for another incident where this node's
/// record shows that it was carried out with this data in the layer.
fn gives_way(facts: &BootFacts) -> Option<u16> {
    let chosen = in_force(facts.accept_loss, &facts.layer_uid, facts.own.iter())?;
    facts.serving_primaries().map(|(ordinal, _)| ordinal).find(|ordinal| *ordinal == chosen)
}

/// What the rule says where no person has decided.
pub fn undecided(facts: &BootFacts) -> BootDecision {
    match (facts.mode, facts.named()) {
        (Mode::Standalone, _) => alone(facts),
        (_, Some(named)) if named == facts.own_ordinal => named_primary(facts),
        (_, Some(named)) => named_other(facts, named),
        (_, None) => no_primary_named(facts),
    }
}

/// Whether waiting may not end by itself, so that a person's `accept-loss` is consulted, and the node says that it waits for one.
pub fn needs_a_person(facts: &BootFacts, decision: &BootDecision) -> bool {
    let is_long = facts.waited >= LONGEST_WAIT;
    match decision {
        BootDecision::StartPrimary(_) => false,
        // Sentinels that are a moment late answer soon.
        BootDecision::Wait(WaitReason::SentinelsAreSilent) => facts.sentinels_silent >= SILENT_SENTINELS || is_long,
        BootDecision::Wait(reason) => reason.needs_a_person() || is_long,
        BootDecision::AskForFailover => facts.refused >= REFUSED_FAILOVER || is_long,
        // How long a primary reads its files depends on the data, and next to one that serves no other data is to be chosen.
        BootDecision::Follow { primary, .. } => is_long && !facts.is_at_work(*primary),
    }
}

/// Whether a replica that runs, and has no primary to follow, becomes primary with what it has in memory: the rule would start it as
/// one, and no peer has begun to start as one.
pub fn promotes_itself(facts: &BootFacts, decision: &BootDecision) -> bool {
    let starts_as_primary = |peer: &Peer| match peer {
        Peer::Answers { activity: Activity::Deciding | Activity::Serving, .. } | Peer::Silent { .. } => false,
        Peer::Answers { activity: Activity::Loading | Activity::Stopping, lineage } => {
            lineage.as_ref().is_none_or(|theirs| theirs.role == Role::Primary)
        }
    };
    match decision {
        BootDecision::StartPrimary(PrimaryReason::NamedAndNewest) => true,
        // Sentinels that are silent may remember a primary, and would elect against this one when they are back.
        BootDecision::StartPrimary(reason) => {
            let own = SentinelAnswer::Names(facts.own_ordinal);
            let remembers = |answer: &SentinelAnswer| matches!(answer, SentinelAnswer::Names(_)) && *answer != own;
            *reason != PrimaryReason::LossAccepted
                && facts.sentinels_answer()
                && !facts.sentinels.iter().any(remembers)
                && !facts.peers.values().any(starts_as_primary)
        }
        BootDecision::Follow { .. } | BootDecision::AskForFailover | BootDecision::Wait(_) => false,
    }
}

/// What a replica that runs, and has no primary to follow, waits for where the rule would start it as primary and it may not promote
/// itself: a person may choose it meanwhile.
pub fn bars_promotion(facts: &BootFacts, decision: &BootDecision) -> Option<WaitReason> {
    let is_barred = matches!(decision, BootDecision::StartPrimary(_)) && !promotes_itself(facts, decision);
    is_barred.then_some(if facts.sentinels_answer() {
        WaitReason::PeerGoesFirst
    } else {
        WaitReason::SentinelsAreSilent
    })
}

/// No node runs that could be followed in this one's place, or that the Sentinels could take for its primary.
fn carry_out(facts: &BootFacts) -> BootDecision {
    if facts.peers.values().any(Peer::may_run) {
        return BootDecision::Wait(WaitReason::OthersStepDown);
    }
    BootDecision::StartPrimary(PrimaryReason::LossAccepted)
}

fn alone(facts: &BootFacts) -> BootDecision {
    if facts.own.is_none() && facts.initialised && facts.keeps_data {
        return BootDecision::Wait(WaitReason::DataMissing);
    }
    BootDecision::StartPrimary(PrimaryReason::OnlyNode)
}

/// Rule 1: the majority names another node.
fn named_other(facts: &BootFacts, named: u16) -> BootDecision {
    let follow = |electable| BootDecision::Follow { primary: named, electable };
    let (activity, theirs) = match facts.peers.get(&named) {
        Some(Peer::Answers { activity, lineage }) => (*activity, lineage.as_ref()),
        // A server that follows a dead primary loses nothing, and the Sentinels need a replica to promote. Before that it
        // must be certain that the named one is gone, and that no node that answers has more.
        Some(Peer::Silent { time }) => {
            return follow(*time >= facts.silence_that_blocks() && may_be_elected(facts));
        }
        None => return no_primary_named(facts),
    };
    match (&facts.own, theirs) {
        (None, Some(_)) => follow(false),
        (None, None) if activity == Activity::Serving => follow(false),
        (None, None) => decide_all_empty(facts, Some(named)),
        (Some(_), None) => {
            // An empty node that is not started does not start while we answer: with us as a replica the Sentinels have
            // a replica to elect.
            if activity == Activity::Deciding && is_best_of_those_left(facts) {
                follow(true)
            } else if facts.awaits_a_peer() {
                BootDecision::Wait(WaitReason::PeerIsSilent)
            } else {
                BootDecision::Wait(WaitReason::NamedPrimaryIsEmpty)
            }
        }
        (Some(own), Some(theirs)) => match compare(own, theirs, &facts.layer_uid) {
            Comparison::Older | Comparison::Equal => follow(false),
            Comparison::Newer if activity == Activity::Deciding && is_best_of_those_left(facts) => follow(true),
            Comparison::Newer => BootDecision::Wait(WaitReason::NamedPrimaryIsOlder),
            // Same epoch and term in two histories: the named one has it from the Sentinels, if it serves.
            Comparison::Unrelated if activity == Activity::Serving => follow(false),
            Comparison::Unrelated => BootDecision::Wait(WaitReason::Unrelated),
        },
    }
}

/// Rule 2: the majority names this node.
fn named_primary(facts: &BootFacts) -> BootDecision {
    // A replica that began empty, and follows an empty node in vain, has nothing that could be lost where nothing is kept.
    let own = facts.own.as_ref().filter(|own| own.synced || facts.keeps_data);
    let is_refused = facts.refused >= REFUSED_FAILOVER;
    let is_clean = own.is_some_and(|own| own.clean_stop);
    let has_heir = !is_clean && facts.peers.values().any(|peer| is_successor(facts, peer, own));
    let Some(own) = own else {
        // What a replica of a layer that keeps nothing has is worth a failover, and no endless wait.
        let gives_up = !facts.keeps_data && facts.waited >= SILENT_PEER;
        return if has_heir && !gives_up {
            BootDecision::AskForFailover
        } else if !gives_up && facts.records().any(|(_, _, theirs)| theirs.synced) {
            BootDecision::Wait(WaitReason::PeerIsNewer)
        } else if facts.keeps_data && facts.records().next().is_some() {
            // Replicas that began empty and follow us in vain: no node has data, and none will.
            BootDecision::Wait(WaitReason::DataMissing)
        } else {
            decide_all_empty(facts, Some(facts.own_ordinal))
        };
    };
    if has_heir && !is_refused {
        return BootDecision::AskForFailover;
    }
    let is_early = facts.waited < CATCHES_UP;
    if is_early && !is_clean && !has_heir && facts.peers.values().any(|peer| may_catch_up(peer, own)) {
        return BootDecision::Wait(WaitReason::PeerCatchesUp);
    }
    if let Some(decision) = gives_way_to_newer(facts, own) {
        return decision;
    }
    if !own.synced {
        return BootDecision::Wait(WaitReason::DataMissing);
    }
    if !own.clean_stop && facts.silences().any(|silence| silence < UNCLEAN_PRIMARY_WAITS) {
        return BootDecision::Wait(WaitReason::PeerIsSilent);
    }
    BootDecision::StartPrimary(PrimaryReason::NamedAndNewest)
}

/// What the named primary does where peers have newer data: one of those that serve takes over, unless one that is not started has more
/// than all of them. That one may be elected as well once it serves.
fn gives_way_to_newer(facts: &BootFacts, own: &Lineage) -> Option<BootDecision> {
    let newer = facts.records().filter(|(.., theirs)| compare(own, theirs, &facts.layer_uid) == Comparison::Older);
    let (serving, others): (Vec<_>, Vec<_>) = newer.partition(|(_, activity, _)| *activity == Activity::Serving);
    let has_all = |theirs: &Lineage, record: &Lineage| compare(record, theirs, &facts.layer_uid) != Comparison::Newer;
    let is_served = |record: &Lineage| serving.iter().any(|(.., theirs)| has_all(theirs, record));
    if serving.is_empty() && others.is_empty() {
        None
    } else if others.iter().all(|(.., record)| is_served(record)) {
        Some(BootDecision::AskForFailover)
    } else {
        Some(BootDecision::Wait(WaitReason::PeerIsNewer))
    }
}

/// Whether the peer may take over from us: it serves as a replica of our own line of data, and has all that any record speaks of, ours
/// and those of nodes that do not serve. One that was cut off while another replica confirmed has less, and that is in a file. What our own
/// files have beyond the record does not count: a replica that runs and lacks it has not confirmed it.
fn is_successor(facts: &BootFacts, peer: &Peer, own: Option<&Lineage>) -> bool {
    let others = facts.records().filter(|(_, activity, _)| *activity != Activity::Serving);
    let own = own.map(Lineage::without_tail);
    let mut records = others.map(|(.., record)| record).chain(own.as_ref());
    serves_as_whole_replica(peer)
        .is_some_and(|theirs| records.all(|record| compare(record, theirs, &facts.layer_uid) != Comparison::Newer))
}

/// Whether the peer may turn out to be an heir: it follows our own history, and its record may be a moment older than ours.
fn may_catch_up(peer: &Peer, own: &Lineage) -> bool {
    serves_as_whole_replica(peer).is_some_and(|theirs| theirs.replication_id == own.replication_id)
}

fn serves_as_whole_replica(peer: &Peer) -> Option<&Lineage> {
    let Peer::Answers { activity: Activity::Serving, lineage: Some(theirs) } = peer else { return None };
    Some(theirs).filter(|theirs| theirs.role == Role::Replica && theirs.synced)
}

/// Rules 3 to 5: no majority names anybody.
fn no_primary_named(facts: &BootFacts) -> BootDecision {
    let mut primaries = facts.serving_primaries();
    if let Some((ordinal, theirs)) = primaries.next() {
        if primaries.next().is_some() {
            return BootDecision::Wait(WaitReason::SeveralPrimaries);
        }
        return match facts.own.as_ref().map(|own| compare(own, theirs, &facts.layer_uid)) {
            None | Some(Comparison::Older | Comparison::Equal) => {
                BootDecision::Follow { primary: ordinal, electable: false }
            }
            Some(_) if !facts.keeps_data => BootDecision::Follow { primary: ordinal, electable: false },
            Some(Comparison::Newer) => BootDecision::Wait(WaitReason::NamedPrimaryIsOlder),
            Some(Comparison::Unrelated) => BootDecision::Wait(WaitReason::Unrelated),
        };
    }
    if facts.awaits_a_peer() {
        return BootDecision::Wait(WaitReason::PeerIsSilent);
    }
    if facts.all_are_empty() {
        return decide_all_empty(facts, None);
    }
    if let Some(reason) = lacks_authority(facts) {
        return BootDecision::Wait(reason);
    }
    match standing(facts) {
        Ok(own) if facts.all_peers_answer() && own.synced => BootDecision::StartPrimary(PrimaryReason::NewestOfAll),
        Ok(own) if own.synced && (own.link_up || !facts.keeps_data) => {
            BootDecision::StartPrimary(PrimaryReason::NewestOfThoseLeft)
        }
        Ok(_) => BootDecision::Wait(WaitReason::DataMissing),
        Err(reason) => BootDecision::Wait(reason),
    }
}

/// Why a node may not become primary without being named, whatever it has. With a peer silent a majority of the Sentinels has to
/// answer, because they are who elects: a majority of data nodes is a second quorum, and the silent one may be the primary of the
/// first. Where every data node answers there is no second one, and Sentinels that may remember a primary are only waited for.
fn lacks_authority(facts: &BootFacts) -> Option<WaitReason> {
    if facts.sentinels_answer() {
        None
    } else if facts.all_peers_answer() {
        let is_soon = facts.sentinels_silent < SILENT_SENTINELS;
        is_soon.then_some(WaitReason::SentinelsAreSilent)
    } else if facts.most_data_nodes_answer() {
        Some(WaitReason::SentinelsAreSilent)
    } else {
        Some(WaitReason::TooFewAnswer)
    }
}

/// Rule 4. The one that the Sentinels name begins, else the lowest ordinal of those that answer. A silent peer may hold data: it
/// delays the beginning, and Sentinels that answer end the delay.
fn decide_all_empty(facts: &BootFacts, named: Option<u16>) -> BootDecision {
    if facts.awaits_a_peer() {
        return BootDecision::Wait(WaitReason::PeerIsSilent);
    }
    if facts.initialised && facts.keeps_data {
        let reason = if facts.all_peers_answer() { WaitReason::DataMissing } else { WaitReason::PeerIsSilent };
        return BootDecision::Wait(reason);
    }
    if !facts.all_peers_answer()
        && let Some(reason) = lacks_authority(facts)
    {
        return BootDecision::Wait(reason);
    }
    if named.or_else(|| lowest_that_answers(facts)) != Some(facts.own_ordinal) {
        return BootDecision::Wait(WaitReason::PeerGoesFirst);
    }
    BootDecision::StartPrimary(PrimaryReason::EverybodyEmpty)
}

fn lowest_that_answers(facts: &BootFacts) -> Option<u16> {
    let answering = facts.peers.iter().filter(|(_, peer)| matches!(peer, Peer::Answers { .. }));
    answering.map(|(ordinal, _)| *ordinal).chain([facts.own_ordinal]).min()
}

/// The own record, if no node that answers has a better one; equal ones yield to the lowest ordinal, and so do those that cannot be
/// ordered where the layer keeps nothing.
fn standing(facts: &BootFacts) -> Result<&Lineage, WaitReason> {
    let Some(own) = &facts.own else { return Err(WaitReason::PeerIsNewer) };
    let mut verdict = Ok(own);
    for (ordinal, _, theirs) in facts.records() {
        match compare(own, theirs, &facts.layer_uid) {
            Comparison::Older => return Err(WaitReason::PeerIsNewer),
            Comparison::Unrelated if facts.keeps_data => verdict = Err(WaitReason::Unrelated),
            Comparison::Equal | Comparison::Unrelated if ordinal < facts.own_ordinal => {
                verdict = Err(WaitReason::PeerGoesFirst);
            }
            Comparison::Newer | Comparison::Equal | Comparison::Unrelated => {}
        }
    }
    verdict
}

/// Whether a replica of a named primary that is silent for long may be promoted: it has the best of what is left, or all are empty
/// in a layer that keeps nothing and it is the first of them.
fn may_be_elected(facts: &BootFacts) -> bool {
    let begins = !facts.keeps_data && facts.all_are_empty() && lowest_that_answers(facts) == Some(facts.own_ordinal);
    begins || is_best_of_those_left(facts)
}

/// A link that was down may mean that the primary went on alone; but where all nodes answer, none has more than what
/// the records say. (All pods die within a moment of each other: the replicas' last word is that their link is down.) What went on
/// alone in a layer that keeps nothing is not waited for. A peer that has been silent for a moment only may start just now, and have more.
fn is_best_of_those_left(facts: &BootFacts) -> bool {
    let all_peers_answer = facts.all_peers_answer();
    (all_peers_answer || facts.sentinels_answer())
        && !facts.awaits_a_peer()
        && standing(facts).is_ok_and(|own| own.synced && (own.link_up || all_peers_answer || !facts.keeps_data))
}
