use proptest::prelude::*;

use super::*;
use crate::model::slots::{SLOTS, SlotRange};

fn id(node: NodeId) -> ClusterNodeId {
    ClusterNodeId::parse(&format!("{:040x}", node.ordinal)).unwrap()
}

fn address(node: NodeId) -> Address {
    Address(format!("10.0.0.{}", node.ordinal))
}

fn slots(first: u16, last: u16) -> SlotSet {
    [SlotRange::new(Slot::new(first).unwrap(), Slot::new(last).unwrap()).unwrap()].into_iter().collect()
}

/// Three shards of two nodes each: the first of each owns a third.
fn members() -> BTreeMap<NodeId, Member> {
    let mut members = BTreeMap::new();
    for (number, part) in [slots(0, 5_460), slots(5_461, 10_922), slots(10_923, SLOTS - 1)].into_iter().enumerate() {
        let shard = Shard(u16::try_from(number).unwrap());
        let epoch = ConfigEpoch(u64::from(shard.0) + 1);
        for (index, part) in [part, SlotSet::default()].into_iter().enumerate() {
            let node = shard.node(u16::try_from(index).unwrap());
            let primary = (index > 0).then(|| id(shard.node(0)));
            let member = Member { address: Some(address(node)), primary, flags: BTreeSet::new(), epoch, slots: part };
            members.insert(node, member);
        }
    }
    members
}

fn declared() -> BTreeMap<NodeId, Address> {
    members().into_keys().map(|node| (node, address(node))).collect()
}

/// What a node believes that believes this.
fn view(own: NodeId, members: &BTreeMap<NodeId, Member>) -> ClusterView {
    ClusterView {
        own: id(own),
        members: members.iter().map(|(node, member)| (id(*node), member.clone())).collect(),
        migrating: BTreeMap::new(),
        importing: BTreeMap::new(),
        serves: true,
        current_epoch: ConfigEpoch(6),
    }
}

fn views() -> BTreeMap<NodeId, ClusterView> {
    let members = members();
    members.keys().map(|node| (*node, view(*node, &members))).collect()
}

/// What keeps a Cluster from being settled that was changed so.
fn unsettled(change: impl FnOnce(&mut BTreeMap<NodeId, ClusterView>)) -> Vec<Unsettled> {
    let mut views = views();
    change(&mut views);
    Topology::of(&declared(), &views).unsettled.into_iter().collect()
}

const OWNER: NodeId = NodeId::data(0);
const REPLICA: NodeId = NodeId::data(1);
const OTHER: NodeId = NodeId::data(10);

fn member(views: &mut BTreeMap<NodeId, ClusterView>, viewer: NodeId, of: NodeId) -> &mut Member {
    views.get_mut(&viewer).unwrap().members.get_mut(&id(of)).unwrap()
}

#[test]
fn a_cluster_whose_servers_agree_is_settled() {
    let topology = Topology::of(&declared(), &views());
    assert!(topology.is_settled(), "{:?}", topology.unsettled);
    let owners: Vec<Option<NodeId>> = topology.shards.values().map(|shard| shard.owner).collect();
    assert_eq!(owners, [0, 10, 20].map(|ordinal| Some(NodeId::data(ordinal))));
    assert_eq!(topology.shards[&Shard(1)].slots, slots(5_461, 10_922));
    assert_eq!((topology.unowned, topology.strangers), (SlotSet::default(), BTreeMap::new()));
}

#[test]
fn each_thing_in_which_servers_differ_is_told_of_the_one_that_says_so() {
    let viewer = OTHER;
    for (change, told) in [
        (
            (|views| _ = views.remove(&REPLICA)) as fn(&mut BTreeMap<NodeId, ClusterView>),
            Unsettled::Silent { node: REPLICA },
        ),
        (
            |views| _ = views.get_mut(&OTHER).unwrap().members.remove(&id(REPLICA)),
            Unsettled::Unmet { viewer, node: REPLICA },
        ),
        (
            |views| member(views, OTHER, OWNER).address = Some(Address("10.9.9.9".to_owned())),
            Unsettled::Unmet { viewer, node: OWNER },
        ),
        (
            |views| _ = member(views, OTHER, OWNER).flags.insert(MemberFlag::Suspected),
            Unsettled::Doubted { viewer, node: OWNER },
        ),
        (|views| member(views, OTHER, REPLICA).primary = None, Unsettled::Disputed { viewer, node: REPLICA }),
        (|views| member(views, OTHER, OWNER).slots = slots(0, 5_000), Unsettled::Disputed { viewer, node: OWNER }),
        (|views| views.get_mut(&OTHER).unwrap().serves = false, Unsettled::NotServing { node: OTHER }),
        (
            |views| _ = views.get_mut(&OTHER).unwrap().importing.insert(Slot::new(5).unwrap(), id(OWNER)),
            Unsettled::Open { node: OTHER, slot: Slot::new(5).unwrap() },
        ),
    ] {
        assert_eq!(unsettled(change), [told]);
    }
}

#[test]
fn a_replica_that_is_no_candidate_unsettles_nothing() {
    let change = |views: &mut BTreeMap<NodeId, ClusterView>| {
        for viewer in declared().keys() {
            member(views, *viewer, REPLICA).flags.insert(MemberFlag::NoFailover);
        }
    };
    assert_eq!(unsettled(change), []);
}

#[test]
fn the_higher_epoch_owns_what_two_claim_and_the_other_is_disputed() {
    // The replica was promoted. The old primary was cut off and has not heard of it.
    let mut members = members();
    let part = std::mem::take(&mut members.get_mut(&OWNER).unwrap().slots);
    members.get_mut(&OWNER).unwrap().primary = Some(id(REPLICA));
    let promoted = members.get_mut(&REPLICA).unwrap();
    (promoted.primary, promoted.slots, promoted.epoch) = (None, part.clone(), ConfigEpoch(9));
    let mut views: BTreeMap<NodeId, ClusterView> = members.keys().map(|node| (*node, view(*node, &members))).collect();
    let settled = Topology::of(&declared(), &views);
    assert!(settled.is_settled(), "{:?}", settled.unsettled);
    let own = views.get_mut(&OWNER).unwrap();
    *own = super::tests::views().remove(&OWNER).unwrap();
    let topology = Topology::of(&declared(), &views);
    let shard = &topology.shards[&Shard(0)];
    assert_eq!((shard.owner, shard.epoch, &shard.slots), (Some(REPLICA), ConfigEpoch(9), &part));
    assert!(topology.unsettled.contains(&Unsettled::Astray { node: OWNER }));
    assert!(topology.unsettled.contains(&Unsettled::Disputed { viewer: OWNER, node: REPLICA }));
    assert_eq!(topology.unowned, SlotSet::default());
}

#[test]
fn an_owner_that_does_not_answer_owns_what_the_others_say() {
    let mut views = views();
    views.remove(&OWNER);
    let topology = Topology::of(&declared(), &views);
    assert_eq!(topology.shards[&Shard(0)].owner, Some(OWNER));
    assert_eq!(topology.unowned, SlotSet::default());
    assert_eq!(topology.unsettled, BTreeSet::from([Unsettled::Silent { node: OWNER }]));
    // Nothing is known where no server answers: every slot counts as unowned, and the Cluster as unsettled.
    let nothing = Topology::of(&declared(), &BTreeMap::new());
    assert_eq!(nothing.unowned, SlotSet::all());
    assert!(declared().keys().all(|node| nothing.unsettled.contains(&Unsettled::Silent { node: *node })));
}

#[test]
fn a_server_of_no_declared_node_is_a_stranger_with_its_slots() {
    let stranger = NodeId::data(30);
    let mut members = members();
    let part = members[&OWNER].slots.highest(100);
    let owner = members.get_mut(&OWNER).unwrap();
    owner.slots = owner.slots.difference(&part);
    let its = Member {
        address: Some(address(stranger)),
        primary: None,
        flags: BTreeSet::new(),
        epoch: ConfigEpoch(8),
        slots: part.clone(),
    };
    members.insert(stranger, its);
    let views: BTreeMap<NodeId, ClusterView> = declared().keys().map(|node| (*node, view(*node, &members))).collect();
    let topology = Topology::of(&declared(), &views);
    assert_eq!(topology.strangers, BTreeMap::from([(id(stranger), part)]));
    assert_eq!(topology.unowned, SlotSet::default(), "a stranger's slots are not free");
    assert_eq!(topology.unsettled.len(), declared().len(), "each remembers it: {:?}", topology.unsettled);
}

#[test]
fn a_server_at_the_address_of_a_node_that_does_not_answer_may_be_that_nodes() {
    // It came back without its files: the others have both names at its address for a moment.
    let (mut members, lost) = (members(), REPLICA);
    let old = members.remove(&lost).unwrap();
    let mut views: BTreeMap<NodeId, ClusterView> = members.keys().map(|node| (*node, view(*node, &members))).collect();
    let [first, second] = ["e", "f"].map(|digit| ClusterNodeId::parse(&digit.repeat(40)).unwrap());
    for view in views.values_mut() {
        view.members.insert(first.clone(), old.clone());
        view.members.insert(second.clone(), Member { primary: None, ..old.clone() });
    }
    let topology = Topology::of(&declared(), &views);
    assert_eq!(topology.strangers, BTreeMap::new());
    assert!(topology.unsettled.contains(&Unsettled::Silent { node: lost }));
    // Once it answers, the name that it has no more is a stranger's.
    let mut own = views[&OWNER].clone();
    own.own = second;
    views.insert(lost, own);
    let topology = Topology::of(&declared(), &views);
    assert_eq!(topology.strangers.into_keys().collect::<Vec<_>>(), [first]);
}

#[test]
fn two_owners_of_one_epoch_or_of_one_shard_are_told() {
    let one_epoch = unsettled(|views| {
        for viewer in declared().keys() {
            member(views, *viewer, OTHER).epoch = ConfigEpoch(1);
        }
    });
    assert_eq!(one_epoch, [Unsettled::SharedEpoch { node: OWNER, other: OTHER }]);
    let divided = unsettled(|views| {
        for viewer in declared().keys() {
            let part = slots(0, 99);
            let owner = member(views, *viewer, OWNER);
            owner.slots = owner.slots.difference(&part);
            let second = member(views, *viewer, REPLICA);
            (second.primary, second.slots) = (None, part);
        }
    });
    assert!(divided.contains(&Unsettled::Divided { shard: Shard(0) }), "{divided:?}");
}

proptest! {
    /// A view that is missing never makes a slot owned, never changes who owns a shard to a node that no view names, and never settles.
    #[test]
    fn what_is_not_known_is_never_taken_for_good(silent in prop::collection::btree_set(0_usize..6, 1..6)) {
        let all: Vec<NodeId> = declared().into_keys().collect();
        let mut views = views();
        for at in &silent {
            views.remove(&all[*at]);
        }
        let (whole, partial) = (Topology::of(&declared(), &super::tests::views()), Topology::of(&declared(), &views));
        prop_assert!(!partial.is_settled());
        for (shard, known) in &partial.shards {
            prop_assert!(known.owner.is_none() || known == &whole.shards[shard]);
        }
    }
}
