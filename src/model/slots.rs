//! The slots of a Cluster: which server owns which part of all keys. Plain sets of numbers.

use std::fmt;

/// How many slots a Cluster has (Redis Cluster specification, "Key distribution model").
pub const SLOTS: u16 = 16_384;

/// One slot, 0 to 16,383.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// `None`: there is no slot of this number.
    pub const fn new(number: u16) -> Option<Self> {
        if number < SLOTS { Some(Self(number)) } else { None }
    }

    /// Its number.
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Neighbouring slots, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotRange {
    first: Slot,
    last: Slot,
}

impl SlotRange {
    /// `None`: it ends before it begins.
    pub fn new(first: Slot, last: Slot) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The first of them.
    pub const fn first(self) -> Slot {
        self.first
    }

    /// The last of them.
    pub const fn last(self) -> Slot {
        self.last
    }

    /// How many they are: 1 to 16,384.
    pub const fn count(self) -> u16 {
        self.last.0 - self.first.0 + 1
    }
}

impl From<Slot> for SlotRange {
    fn from(slot: Slot) -> Self {
        Self { first: slot, last: slot }
    }
}

impl fmt::Display for SlotRange {
    /// As `CLUSTER NODES` writes it: `0-5460`, or `5461`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first.fmt(formatter)
        } else {
            write!(formatter, "{}-{}", self.first, self.last)
        }
    }
}

/// A set of slots, as the fewest ranges: ordered, and no two of them overlap or touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotSet(Vec<SlotRange>);

impl SlotSet {
    /// Every slot.
    pub fn all() -> Self {
        Self(vec![SlotRange { first: Slot(0), last: Slot(SLOTS - 1) }])
    }

    /// Its ranges in order.
    pub fn ranges(&self) -> &[SlotRange] {
        &self.0
    }

    /// Whether no slot is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many slots are in it: 0 to 16,384.
    pub fn count(&self) -> u16 {
        self.0.iter().map(|range| range.count()).sum()
    }

    /// Its slots in order.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.0.iter().flat_map(|range| (range.first.0..=range.last.0).map(Slot))
    }

    /// Whether the slot is in it.
    pub fn contains(&self, slot: Slot) -> bool {
        let at = self.0.partition_point(|range| range.last < slot);
        self.0.get(at).is_some_and(|range| range.first <= slot)
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.0.iter().chain(&other.0).copied().collect()
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let overlaps = self.0.iter().flat_map(|range| {
            let from = other.0.partition_point(|it| it.last < range.first);
            let others = other.0[from..].iter().take_while(|it| it.first <= range.last);
            others.filter_map(|it| SlotRange::new(range.first.max(it.first), range.last.min(it.last)))
        });
        Self(overlaps.collect())
    }

    /// What is in this one and not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.intersection(&other.complement())
    }

    /// Every slot that is not in it.
    fn complement(&self) -> Self {
        let begins = std::iter::once(0).chain(self.0.iter().map(|range| range.last.0 + 1));
        let ends = self.0.iter().map(|range| range.first.0).chain([SLOTS]);
        let gaps = begins.zip(ends).filter(|(begin, end)| begin < end);
        Self(gaps.map(|(begin, end)| SlotRange { first: Slot(begin), last: Slot(end - 1) }).collect())
    }

    /// Its highest slots, as many as are asked for and there.
    #[must_use]
    pub fn highest(&self, most: u16) -> Self {
        let mut left = most;
        let mut taken: Vec<SlotRange> = Vec::new();
        for range in self.0.iter().rev() {
            let count = range.count().min(left);
            if count == 0 {
                break;
            }
            left -= count;
            taken.push(SlotRange { first: Slot(range.last.0 - (count - 1)), last: range.last });
        }
        taken.reverse();
        Self(taken)
    }

    /// Its lowest slots, as many as are asked for and there.
    #[must_use]
    pub fn lowest(&self, most: u16) -> Self {
        self.difference(&self.highest(self.count().saturating_sub(most)))
    }
}

impl FromIterator<SlotRange> for SlotSet {
    fn from_iter<I: IntoIterator<Item = SlotRange>>(ranges: I) -> Self {
        let mut ranges: Vec<SlotRange> = ranges.into_iter().collect();
        ranges.sort_unstable();
        let mut merged: Vec<SlotRange> = Vec::new();
        for range in ranges {
            match merged.last_mut() {
                Some(before) if range.first.0 <= before.last.0 + 1 => before.last = before.last.max(range.last),
                Some(_) | None => merged.push(range),
            }
        }
        Self(merged)
    }
}

impl FromIterator<Slot> for SlotSet {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        slots.into_iter().map(SlotRange::from).collect()
    }
}

impl fmt::Display for SlotSet {
    /// `0-5460,5462`; an empty set has no text.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.0.iter().enumerate() {
            if at > 0 {
                formatter.write_str(",")?;
            }
            range.fmt(formatter)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// What the set is checked against: each slot or not.
    fn plain(set: &SlotSet) -> BTreeSet<u16> {
        set.slots().map(Slot::number).collect()
    }

    fn slot(number: u16) -> Slot {
        Slot::new(number).unwrap()
    }

    /// Ranges that often overlap, touch, and reach both ends.
    fn any_set() -> impl Strategy<Value = SlotSet> {
        let end = prop_oneof![0..40_u16, SLOTS - 40..SLOTS];
        let range = (end.clone(), end).prop_map(|(a, b)| SlotRange::new(slot(a.min(b)), slot(a.max(b))).unwrap());
        prop::collection::vec(range, 0..6).prop_map(|ranges| ranges.into_iter().collect())
    }

    proptest! {
        #[test]
        fn a_set_does_what_a_set_of_numbers_does(a in any_set(), b in any_set(), most in 0..60_u16) {
            let (of_a, of_b) = (plain(&a), plain(&b));
            prop_assert_eq!(plain(&a.union(&b)), &of_a | &of_b);
            prop_assert_eq!(plain(&a.intersection(&b)), &of_a & &of_b);
            prop_assert_eq!(plain(&a.difference(&b)), &of_a - &of_b);
            prop_assert_eq!(usize::from(a.count()), of_a.len());
            prop_assert_eq!(a.is_empty(), of_a.is_empty());
            let of_end = usize::from(most);
            prop_assert_eq!(plain(&a.highest(most)), of_a.iter().rev().take(of_end).copied().collect());
            prop_assert_eq!(plain(&a.lowest(most)), of_a.iter().take(of_end).copied().collect());
            for number in [0, 1, 20, 39, 40, SLOTS - 41, SLOTS - 40, SLOTS - 1] {
                prop_assert_eq!(a.contains(slot(number)), of_a.contains(&number));
            }
        }

        #[test]
        fn equal_sets_are_the_same_however_they_were_made(a in any_set(), b in any_set()) {
            let all: SlotSet = a.slots().chain(b.slots()).collect();
            prop_assert_eq!(&a.union(&b), &all);
            prop_assert_eq!(&b.union(&a), &all);
            prop_assert_eq!(&a.difference(&b).union(&a.intersection(&b)), &a);
            let apart = all.ranges().windows(2).all(|pair| pair[0].last.0 + 1 < pair[1].first.0);
            prop_assert!(apart, "{}", all);
        }
    }

    #[test]
    fn there_are_16384_slots_and_a_range_is_written_as_redis_writes_it() {
        assert_eq!((SlotSet::all().count(), Slot::new(SLOTS)), (SLOTS, None));
        assert_eq!(SlotRange::new(slot(2), slot(1)), None);
        let set: SlotSet = [slot(7), slot(0), slot(1)].into_iter().collect();
        assert_eq!((set.to_string(), SlotSet::default().to_string()), ("0-1,7".to_owned(), String::new()));
    }
}
