//! The boot rule's truth table: every view that one of up to four nodes may have, made of small domains, against the rule's
//! invariants. What several nodes decide together: `boot_rule_worlds.rs`.

use std::time::Duration;

use redoubt::model::boot::{
    BootDecision, BootFacts, Comparison, Peer, PrimaryReason, SentinelAnswer, WaitReason, compare, decide,
    needs_a_person,
};
use redoubt::model::lineage::{Activity, LINEAGE_FORMAT, Lineage};
use redoubt::model::{Mode, Offset, ReplicationId, Role};

/// UID of the layer.
pub const LAYER: &str = "layer";

/// The record of a replica that was stopped in order, in sync with its primary.
pub fn record(epoch: u64, term: u64, offset: u64) -> Lineage {
    Lineage {
        format: LINEAGE_FORMAT,
        layer_uid: LAYER.to_owned(),
        epoch,
        term,
        role: Role::Replica,
        replication_id: ReplicationId(format!("history-{epoch}-{term}")),
        previous_replication_id: None,
        previous_offset: None,
        offset: Offset(offset),
        synced: true,
        link_up: true,
        keys: offset,
        clean_stop: true,
        append_only: Some(true),
        accepted: None,
        held: None,
    }
}

/// The record of a node that was promoted at an offset, or followed who was, and was stopped before its agent heard the term.
fn continued(record: &Lineage, at: u64) -> Lineage {
    Lineage {
        replication_id: ReplicationId("next".to_owned()),
        previous_replication_id: Some(record.replication_id.clone()),
        previous_offset: Some(Offset(at)),
        offset: Offset(at + 3),
        ..record.clone()
    }
}

#[test]
fn a_history_is_newer_than_the_one_that_it_continues_unless_that_went_on() {
    let (before, after) = (record(1, 1, 15), continued(&record(1, 1, 15), 15));
    assert_eq!(compare(&after, &before, LAYER), Comparison::Newer);
    assert_eq!(compare(&before, &after, LAYER), Comparison::Older);
    assert_eq!(
        compare(&after, &record(1, 1, 16), LAYER),
        Comparison::Unrelated,
        "the other has what this one never had"
    );
    let untold = Lineage { previous_offset: None, ..after };
    assert_eq!(compare(&untold, &before, LAYER), Comparison::Unrelated, "an older agent's record does not say where");
}

/// The records that one volume may hold; `None` is an empty one.
pub fn volumes() -> Vec<Option<Lineage>> {
    let base = record(1, 1, 10);
    vec![
        None,
        Some(base.clone()),
        Some(Lineage { clean_stop: false, ..base.clone() }),
        Some(Lineage { clean_stop: false, offset: Offset(20), ..base.clone() }),
        Some(record(2, 2, 10)),
        Some(Lineage { link_up: false, ..continued(&base, 15) }),
        Some(Lineage { synced: false, clean_stop: false, ..record(2, 2, 5) }),
        Some(Lineage { replication_id: ReplicationId("another".to_owned()), ..base.clone() }),
        Some(Lineage { layer_uid: "predecessor".to_owned(), ..record(9, 9, 90) }),
    ]
}

fn peers_of_one() -> Vec<Peer> {
    let mut peers = vec![Peer::Silent { time: Duration::ZERO }, Peer::Silent { time: Duration::from_mins(1) }];
    for lineage in volumes() {
        peers.push(Peer::Answers { activity: Activity::Deciding, lineage: lineage.clone() });
        if let Some(lineage) = lineage {
            for activity in [Activity::Stopping, Activity::Loading] {
                peers.push(Peer::Answers { activity, lineage: Some(lineage.clone()) });
            }
            for role in [Role::Replica, Role::Primary] {
                let lineage = Lineage { role, clean_stop: false, ..lineage.clone() };
                peers.push(Peer::Answers { activity: Activity::Serving, lineage: Some(lineage) });
            }
        }
    }
    peers
}

/// Three Sentinels of which all, most, one or none name a node, or which are silent, or of which each says another thing.
pub fn sentinel_views(nodes: u16) -> Vec<Vec<SentinelAnswer>> {
    use SentinelAnswer::{Names, NamesNone, Silent};
    let mut views = vec![vec![Silent; 3], vec![NamesNone; 3]];
    views.extend((0..nodes).map(|node| vec![Names(node); 3]));
    views.push(vec![Names(0), Silent, Silent]);
    views.push(vec![Names(0), Names(0), Silent]);
    views.push(vec![Names(0), NamesNone, Silent]);
    if nodes > 1 {
        views.push(vec![Names(1), Names(1), Names(0)]);
        views.push(vec![Names(0), Names(1), Silent]);
        views.push(vec![Names(0), Names(nodes - 1), NamesNone]);
    }
    views
}

/// What is varied beside the node's own record and the Sentinels.
struct Domain {
    peers: Vec<Peer>,
    /// Whether data is meant to survive.
    keeps_data: Vec<bool>,
    /// Whose data a person chose.
    accept_loss: Vec<Option<u16>>,
}

impl Domain {
    /// Data is kept and no person decided.
    fn usual() -> Self {
        Self { peers: peers_of_one(), keeps_data: vec![true], accept_loss: vec![None] }
    }

    fn whole(nodes: u16) -> Self {
        let accept_loss = std::iter::once(None).chain((0..nodes).map(Some)).collect();
        Self { keeps_data: vec![true, false], accept_loss, ..Self::usual() }
    }
}

/// Calls `check` with every combination that the view of node `own` can have among `nodes` nodes.
fn every_view(nodes: u16, own_ordinal: u16, domain: &Domain, mut check: impl FnMut(&BootFacts)) {
    let peer_states = &domain.peers;
    let others: Vec<u16> = (0..nodes).filter(|node| *node != own_ordinal).collect();
    let worlds = peer_states.len().pow(u32::try_from(others.len()).expect("few nodes"));
    let sentinel_views = sentinel_views(nodes);
    let mut facts = BootFacts {
        mode: Mode::Sentinel,
        layer_uid: LAYER.to_owned(),
        own_ordinal,
        own: None,
        initialised: false,
        keeps_data: true,
        accept_loss: None,
        accepting: None,
        peers: std::collections::BTreeMap::new(),
        sentinels: vec![],
        detection: Duration::from_secs(5),
        sentinels_silent: Duration::from_mins(1),
        refused: Duration::ZERO,
        unnamed: Duration::ZERO,
        waited: Duration::ZERO,
    };
    for index in 0..worlds {
        let mut rest = index;
        for other in &others {
            facts.peers.insert(*other, peer_states[rest % peer_states.len()].clone());
            rest /= peer_states.len();
        }
        for own in volumes() {
            facts.own = own;
            for sentinels in &sentinel_views {
                facts.sentinels.clone_from(sentinels);
                for (initialised, keeps_data, accept_loss) in
                    combinations(&[false, true], &domain.keeps_data, &domain.accept_loss)
                {
                    (facts.initialised, facts.keeps_data, facts.accept_loss) = (initialised, keeps_data, accept_loss);
                    check(&facts);
                }
            }
        }
    }
}

/// Every combination of three lists.
fn combinations<A: Copy, B: Copy, C: Copy>(first: &[A], second: &[B], third: &[C]) -> impl Iterator<Item = (A, B, C)> {
    first.iter().flat_map(move |a| second.iter().flat_map(move |b| third.iter().map(move |c| (*a, *b, *c))))
}

fn answering(facts: &BootFacts) -> impl Iterator<Item = (Activity, &Lineage)> {
    facts.peers.values().filter_map(|peer| match peer {
        Peer::Answers { activity, lineage: Some(lineage) } => Some((*activity, lineage)),
        _ => None,
    })
}

/// What must hold of every decision, whatever the facts.
fn check_invariants(facts: &BootFacts) {
    let decision = decide(facts);
    let say = |claim: &str| format!("{claim}: {decision:?} from {facts:#?}");
    match &decision {
        BootDecision::StartPrimary(PrimaryReason::LossAccepted) => {
            assert_eq!(facts.accept_loss, Some(facts.own_ordinal), "{}", say("a loss that nobody accepted"));
            let undecided = decide(&BootFacts { accept_loss: None, ..facts.clone() });
            assert!(needs_a_person(facts, &undecided), "{}", say("a person's word outranks the rule"));
            assert!(
                !facts.peers.values().any(Peer::may_run),
                "{}",
                say("a peer runs that could overwrite the chosen data")
            );
        }
        BootDecision::StartPrimary(reason) => {
            for (_, theirs) in answering(facts) {
                let Some(own) = facts.own.as_ref().filter(|own| own.synced || facts.keeps_data) else {
                    let is_nothing = !facts.keeps_data && (!theirs.synced || facts.waited >= Duration::from_mins(1));
                    assert!(is_nothing, "{}", say("an empty node is primary while a peer has data"));
                    continue;
                };
                assert_ne!(compare(own, theirs, LAYER), Comparison::Older, "{}", say("an older node is primary"));
            }
            assert!(
                facts.own.is_some() || !facts.initialised || !facts.keeps_data,
                "{}",
                say("an empty node is primary in a layer that had data")
            );
            assert!(
                facts.own.as_ref().is_none_or(|own| own.synced || !facts.keeps_data),
                "{}",
                say("half a dataset is primary")
            );
            let silent = |answer: &&SentinelAnswer| **answer == SentinelAnswer::Silent;
            assert!(
                *reason == PrimaryReason::NamedAndNewest
                    || !facts.peers.values().any(|peer| matches!(peer, Peer::Silent { .. }))
                    || facts.sentinels.iter().filter(silent).count() <= facts.sentinels.len() / 2,
                "{}",
                say("a second quorum: a peer is silent, and so are those who elect")
            );
            let against = facts
                .peers
                .keys()
                .map(|peer| facts.sentinels.iter().filter(|answer| **answer == SentinelAnswer::Names(*peer)).count());
            assert!(against.max() < Some(2), "{}", say("a node is primary against the majority"));
        }
        BootDecision::Follow { primary, electable } => {
            let Some(peer) = facts.peers.get(primary) else { panic!("{}", say("follows nobody")) };
            if let (Peer::Answers { activity, lineage }, Some(own)) = (peer, &facts.own) {
                let theirs = lineage.as_ref().map(|theirs| compare(own, theirs, LAYER));
                let older = matches!(theirs, None | Some(Comparison::Newer));
                // A person gave up what only this node has, and the primary that has less serves.
                let is_chosen = facts.accept_loss == Some(*primary)
                    && *activity == Activity::Serving
                    && lineage.as_ref().is_some_and(|theirs| theirs.role == Role::Primary);
                assert!(
                    !older || !facts.keeps_data || is_chosen || (*electable && *activity == Activity::Deciding),
                    "{}",
                    say("follows a serving node that is empty or older")
                );
            }
        }
        BootDecision::AskForFailover => {
            assert!(
                answering(facts).any(|(activity, theirs)| activity == Activity::Serving && theirs.synced),
                "{}",
                say("asks for a failover to nobody")
            );
        }
        BootDecision::Wait(_) => {}
    }
}

/// Sentinels that are just starting may remember a primary; only data that no Sentinel can know of does not wait for them.
#[test]
fn no_node_with_data_is_primary_before_the_sentinels_had_time_to_say_who_is() {
    every_view(3, 1, &Domain::usual(), |facts| {
        let silent = facts.sentinels.iter().filter(|answer| **answer == SentinelAnswer::Silent).count();
        if silent < 2 {
            return;
        }
        let soon = BootFacts { sentinels_silent: Duration::from_millis(9_999), ..facts.clone() };
        if let BootDecision::StartPrimary(reason) = decide(&soon) {
            assert_eq!((reason, &soon.own), (PrimaryReason::EverybodyEmpty, &None), "{soon:#?}");
        }
    });
}

/// After any time in which nothing came of waiting or asking.
#[test]
fn no_view_of_two_nodes_breaks_an_invariant_however_long_it_lasts() {
    for (own, seconds) in [(0, 10), (1, 10), (0, 60), (1, 60), (0, 90), (1, 90)] {
        let lasted = Duration::from_secs(seconds);
        every_view(2, own, &Domain::whole(2), |facts| {
            check_invariants(&BootFacts { refused: lasted, waited: lasted, ..facts.clone() });
        });
    }
}

#[test]
fn no_view_of_up_to_three_nodes_breaks_an_invariant() {
    for nodes in 1..=3 {
        for own in 0..nodes {
            every_view(nodes, own, &Domain::whole(nodes), check_invariants);
        }
    }
}

#[test]
fn no_view_of_four_nodes_breaks_an_invariant() {
    every_view(4, 1, &Domain::usual(), check_invariants);
}

/// The first and the last of four, whose peers are all above and all below: what yields to the lowest ordinal does here.
#[test]
fn no_view_of_the_first_and_the_last_of_four_nodes_breaks_an_invariant() {
    let mut domain = Domain::usual();
    let deciding_or_serving = |peer: &Peer| match peer {
        Peer::Answers { activity, .. } => matches!(activity, Activity::Deciding | Activity::Serving),
        Peer::Silent { .. } => true,
    };
    domain.peers.retain(deciding_or_serving);
    for own in [0, 3] {
        every_view(4, own, &domain, check_invariants);
    }
}

/// Alone there is nobody to ask: what is there is served, and what is missing is a person's to give up.
#[test]
fn a_node_alone_serves_what_it_has_and_never_begins_empty_where_data_was() {
    for (own, (initialised, keeps_data, accept_loss)) in volumes().iter().flat_map(|own| {
        combinations(&[false, true], &[true, false], &[None, Some(0), Some(1)]).map(move |rest| (own, rest))
    }) {
        let facts = BootFacts {
            mode: Mode::Standalone,
            layer_uid: LAYER.to_owned(),
            own_ordinal: 0,
            own: own.clone(),
            initialised,
            keeps_data,
            accept_loss,
            accepting: None,
            peers: std::collections::BTreeMap::new(),
            sentinels: vec![],
            detection: Duration::from_secs(5),
            sentinels_silent: Duration::ZERO,
            refused: Duration::ZERO,
            unnamed: Duration::ZERO,
            waited: Duration::ZERO,
        };
        let missing = own.is_none() && initialised && keeps_data;
        let expected = match (missing, accept_loss) {
            (false, _) => BootDecision::StartPrimary(PrimaryReason::OnlyNode),
            (true, Some(0)) => BootDecision::StartPrimary(PrimaryReason::LossAccepted),
            (true, _) => BootDecision::Wait(WaitReason::DataMissing),
        };
        assert_eq!(decide(&facts), expected, "{facts:#?}");
    }
}

#[test]
fn a_cut_off_node_whose_peers_stay_silent_does_not_start() {
    let silent = Peer::Silent { time: Duration::from_hours(1) };
    let facts = BootFacts {
        mode: Mode::Sentinel,
        layer_uid: LAYER.to_owned(),
        own_ordinal: 0,
        own: Some(record(1, 1, 10)),
        initialised: true,
        keeps_data: true,
        accept_loss: None,
        accepting: None,
        peers: [(1, silent.clone()), (2, silent)].into(),
        sentinels: vec![SentinelAnswer::Silent; 3],
        detection: Duration::from_secs(5),
        sentinels_silent: Duration::from_hours(1),
        refused: Duration::ZERO,
        unnamed: Duration::ZERO,
        waited: Duration::ZERO,
    };
    assert!(matches!(decide(&facts), BootDecision::Wait(_)));
}
