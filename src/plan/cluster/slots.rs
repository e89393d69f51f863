//! Which slots go to which shard: as few as possible, and none of them twice.
//!
//! Of S shards that stay, each is to own 16,384 / S slots, and one more where that leaves a rest; who owns most keeps the rest. The total
//! that moves is then the least there is, and each piece that has moved lowers it by its size. So a plan that is made again after any of
//! them moves nothing back.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::cluster::Shard;
use crate::model::slots::{SLOTS, SlotSet};

/// Slots on their way from one shard to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotMove {
    /// The shard that owns them.
    pub from: Shard,
    /// The shard that is to own them.
    pub to: Shard,
    /// Which they are.
    pub slots: SlotSet,
}

/// How many slots each shard is to own. `owned`: what each owns now; one that is not in it owns none. `staying`: the shards that are
/// declared. A shard that leaves is to own none.
fn quotas(owned: &BTreeMap<Shard, SlotSet>, staying: &BTreeSet<Shard>) -> BTreeMap<Shard, u16> {
    let mut quotas: BTreeMap<Shard, u16> = owned.keys().map(|shard| (*shard, 0)).collect();
    let Some(count) = u16::try_from(staying.len()).ok().filter(|count| *count > 0) else { return quotas };
    let (each, rest) = (SLOTS / count, SLOTS % count);
    let mut most_first: Vec<Shard> = staying.iter().copied().collect();
    most_first.sort_by_key(|shard| (std::cmp::Reverse(owned.get(shard).map_or(0, SlotSet::count)), *shard));
    let more = |at: usize| u16::from(at < usize::from(rest));
    quotas.extend(most_first.into_iter().enumerate().map(|(at, shard)| (shard, each + more(at))));
    quotas
}

fn count(owned: &BTreeMap<Shard, SlotSet>, shard: Shard) -> u16 {
    owned.get(&shard).map_or(0, SlotSet::count)
}

/// The slots that no shard owns, each given to one that has too few. Only a Cluster that was never whole is completed so.
pub fn shares(
    unowned: &SlotSet,
    owned: &BTreeMap<Shard, SlotSet>,
    staying: &BTreeSet<Shard>,
) -> BTreeMap<Shard, SlotSet> {
    let mut left = unowned.clone();
    let mut shares = BTreeMap::new();
    for (shard, quota) in quotas(owned, staying) {
        let share = left.lowest(quota.saturating_sub(count(owned, shard)));
        left = left.difference(&share);
        if !share.is_empty() {
            shares.insert(shard, share);
        }
    }
    shares
}

/// The pieces that are to move, in order, each at most `largest` slots (1 and up). Empty: the shards own what they should, or no shard stays.
pub fn moves(owned: &BTreeMap<Shard, SlotSet>, staying: &BTreeSet<Shard>, largest: u16) -> Vec<SlotMove> {
    let quotas = quotas(owned, staying);
    let mut missing: Vec<(Shard, u16)> = quotas
        .iter()
        .filter(|(shard, _)| staying.contains(shard))
        .map(|(shard, quota)| (*shard, quota.saturating_sub(count(owned, *shard))))
        .filter(|(_, missing)| *missing > 0)
        .rev()
        .collect();
    // Shards that leave give first: their pods are waited for.
    let mut donors: Vec<Shard> = quotas.keys().copied().collect();
    donors.sort_by_key(|shard| (staying.contains(shard), *shard));
    let mut moves = Vec::new();
    for from in donors {
        let Some(mut left) = owned.get(&from).cloned() else { continue };
        let mut surplus = left.count().saturating_sub(quotas.get(&from).copied().unwrap_or_default());
        while surplus > 0
            && let Some((to, lacks)) = missing.last_mut()
        {
            let size = surplus.min(*lacks).min(largest.max(1));
            let slots = left.highest(size);
            left = left.difference(&slots);
            (surplus, *lacks) = (surplus - size, *lacks - size);
            moves.push(SlotMove { from, to: *to, slots });
            if *lacks == 0 {
                missing.pop();
            }
        }
    }
    moves
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::slots::Slot;

    type Owned = BTreeMap<Shard, SlotSet>;

    fn shards(numbers: impl IntoIterator<Item = u16>) -> BTreeSet<Shard> {
        numbers.into_iter().map(Shard).collect()
    }

    /// The least number of slots that have to move, found without quotas: what each owns above its part, the larger parts where they save most.
    fn optimum(owned: &Owned, staying: &BTreeSet<Shard>) -> u32 {
        let parts = u32::try_from(staying.len()).unwrap();
        let (each, rest) = (u32::from(SLOTS) / parts, u32::from(SLOTS) % parts);
        let kept: Vec<u32> = staying.iter().map(|shard| u32::from(count(owned, *shard))).collect();
        let mut larger: Vec<u32> = kept.iter().filter(|kept| **kept > each).map(|_| 1).collect();
        larger.truncate(usize::try_from(rest).unwrap());
        let stays: u32 = kept.iter().map(|kept| (*kept).min(each)).sum::<u32>() + u32::try_from(larger.len()).unwrap();
        u32::from(SLOTS) - stays
    }

    fn carry_out(owned: &mut Owned, piece: &SlotMove) {
        let from = owned.get_mut(&piece.from).unwrap();
        assert_eq!(from.intersection(&piece.slots), piece.slots, "the donor owns what it gives");
        *from = from.difference(&piece.slots);
        let to = owned.entry(piece.to).or_default();
        *to = to.union(&piece.slots);
    }

    fn is_balanced(owned: &Owned, staying: &BTreeSet<Shard>) -> bool {
        let counts: Vec<u16> = staying.iter().map(|shard| count(owned, *shard)).collect();
        let leaves_nothing = owned.iter().all(|(shard, slots)| staying.contains(shard) || slots.is_empty());
        leaves_nothing && counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1
    }

    /// Who owns the slots, in blocks or scattered, and which shards are declared.
    fn any_history() -> impl Strategy<Value = (Owned, BTreeSet<Shard>)> {
        let blocks = prop::collection::vec((0..12_u16, 1..3_000_u16), 1..30);
        let staying = prop::collection::btree_set(0..12_u16, 1..12);
        (blocks, staying, any::<bool>()).prop_map(|(blocks, staying, scattered)| {
            let mut owned = Owned::new();
            let mut owners =
                blocks.iter().flat_map(|(shard, count)| std::iter::repeat_n(*shard, usize::from(*count))).cycle();
            let mut slots: BTreeMap<Shard, Vec<Slot>> = BTreeMap::new();
            for number in 0..SLOTS {
                // A number that shares no divisor with 16,384 reaches each slot once.
                let number = if scattered { number.wrapping_mul(4_099) % SLOTS } else { number };
                slots.entry(Shard(owners.next().unwrap())).or_default().push(Slot::new(number).unwrap());
            }
            owned.extend(slots.into_iter().map(|(shard, slots)| (shard, slots.into_iter().collect())));
            (owned, shards(staying))
        })
    }

    proptest! {
        // Scattered slots are thousands of ranges.
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Each piece is planned again, as after a pass that was cut short: the total is the least there is, and no slot moves twice.
        #[test]
        fn the_fewest_slots_move_and_none_twice_wherever_a_plan_is_made_again(
            (mut owned, staying) in any_history(), largest in 300..3_000_u16, done in prop::collection::vec(1..5_usize, 1..40),
        ) {
            let least = optimum(&owned, &staying);
            let (mut moved, mut done) = (SlotSet::default(), done.into_iter().cycle());
            let mut total = 0_u32;
            loop {
                let pieces = moves(&owned, &staying, largest);
                if pieces.is_empty() {
                    break;
                }
                for piece in pieces.iter().take(done.next().unwrap()) {
                    prop_assert!(piece.slots.intersection(&moved).is_empty(), "moved twice: {:?}", piece);
                    prop_assert!(piece.slots.count() <= largest && !piece.slots.is_empty());
                    moved = moved.union(&piece.slots);
                    total += u32::from(piece.slots.count());
                    carry_out(&mut owned, piece);
                }
            }
            prop_assert_eq!(total, least);
            prop_assert!(is_balanced(&owned, &staying));
        }

        /// Whichever shards own a part already, the rest makes the Cluster whole, and no slot is given that is owned.
        #[test]
        fn a_cluster_that_was_formed_in_part_is_completed((owned, staying) in any_history(), kept in prop::collection::btree_set(0..12_u16, 0..4)) {
            let quotas = quotas(&owned, &staying);
            let part: Owned = owned
                .iter()
                .filter(|(shard, _)| staying.contains(shard) && kept.contains(&shard.0))
                .map(|(shard, slots)| (*shard, slots.lowest(quotas[shard].min(1_000))))
                .collect();
            let unowned = SlotSet::all().difference(&part.values().fold(SlotSet::default(), |all, it| all.union(it)));
            let mut whole = part.clone();
            let mut given = SlotSet::default();
            for (shard, share) in shares(&unowned, &part, &staying) {
                prop_assert!(staying.contains(&shard) && given.intersection(&share).is_empty());
                prop_assert_eq!(&share.difference(&unowned), &SlotSet::default());
                given = given.union(&share);
                let slots = whole.entry(shard).or_default();
                *slots = slots.union(&share);
            }
            prop_assert_eq!(given, unowned);
            prop_assert!(is_balanced(&whole, &staying));
        }
    }

    #[test]
    fn three_shards_begin_with_neighbouring_slots_and_balanced_ones_are_left_alone() {
        let staying = shards(0..3);
        let begun = shares(&SlotSet::all(), &Owned::new(), &staying);
        let text: Vec<String> = begun.values().map(ToString::to_string).collect();
        assert_eq!(text, ["0-5461", "5462-10922", "10923-16383"]);
        assert_eq!(moves(&begun, &staying, 1_024), []);
        // The rest of one slot stays where it is.
        assert_eq!(moves(&begun, &BTreeSet::new(), 1_024), []);
    }

    #[test]
    fn a_shard_that_leaves_gives_all_and_first() {
        let begun = shares(&SlotSet::all(), &Owned::new(), &shards(0..3));
        let pieces = moves(&begun, &shards([0, 2]), 1_024);
        assert!(pieces.iter().all(|piece| piece.from == Shard(1)), "{pieces:?}");
        assert_eq!(pieces.iter().map(|piece| u32::from(piece.slots.count())).sum::<u32>(), 5_461);
    }
}
