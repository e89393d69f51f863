//! Where a node's data ends in its history.
//!
//! A record is one or two seconds old when a node ends suddenly, and what its files have beyond that is in no record. Each record is
//! written next to the size that the append-only files had at its offset, so the files themselves tell how much came after. A byte of
//! the append-only file is a byte of the replication stream. The stream has more: `PING`, `REPLCONF GETACK` and `PUBLISH` are in no file.
//! The files have more by one `SELECT` for each that the server began.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::{Offset, ReplicationId};

/// By so many bytes two files may differ that hold the same commands: each begins with a `SELECT` of up to 26.
const SLACK: i64 = 64;
/// As so much longer counts the file of the primary of a history: a server writes a command into its file before it sends it to replicas,
/// and what is in the stream and in no file makes less than this in the two seconds that a record may be old.
const LEADS_BY: i128 = 8 << 20;

/// What the append-only files of a node hold beyond an offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Tail {
    /// Nothing: the offset is that of the last command.
    #[default]
    None,
    /// So many bytes of commands. Negative: so many bytes are missing up to the offset, as after a power cut.
    Bytes(i64),
    /// It is not known: the files were rewritten since, or an older agent wrote the record.
    Unknown,
}

impl Tail {
    /// Its bytes, whether there or missing.
    pub(crate) const fn magnitude(self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.unsigned_abs(),
            Self::None | Self::Unknown => 0,
        }
    }
}

/// Where data ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    /// `master_replid` of the history.
    pub replication_id: ReplicationId,
    /// An offset in it.
    pub offset: Offset,
    /// `config-epoch` of that history's primary, as far as the node knew (0: it did not).
    pub epoch: u64,
    /// Its term, likewise.
    pub term: u64,
    /// What there is beyond the offset.
    #[serde(default)]
    pub tail: Tail,
    /// Whether the node was the primary of that history, and its file has all that it had sent.
    #[serde(default)]
    pub led: bool,
    /// Whether the tail began when it had no link to a primary: then it was promoted, and wrote what no record speaks of.
    #[serde(default)]
    pub went_on: bool,
}

/// An offset of a history, and the size of one node's append-only files at that moment, in bytes. The sizes of one history can be compared
/// with each other only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrailPoint(pub Offset, pub u64);

impl Position {
    /// Bytes beyond the offset that are known of.
    fn tail_bytes(&self) -> i64 {
        match self.tail {
            Tail::Bytes(bytes) => bytes,
            Tail::None | Tail::Unknown => 0,
        }
    }

    /// Whether it ends exactly at its offset.
    fn is_exact(&self) -> bool {
        matches!(self.tail, Tail::None | Tail::Bytes(0))
    }

    /// The offset that it reaches at the least.
    pub(crate) fn reaches(&self) -> Offset {
        let tail = self.tail_bytes();
        let certain = if tail > 0 { (tail - SLACK).max(0) } else { tail };
        Offset(self.offset.0.saturating_add_signed(certain))
    }

    /// Which of two positions in one history is probably the later one. It orders any number of them, without circles.
    pub(crate) fn order(&self, other: &Self) -> Ordering {
        let end = |of: &Self| {
            let leads_by = if (of.led || of.went_on) && !of.is_exact() { LEADS_BY } else { 0 };
            i128::from(of.offset.0) + i128::from(of.tail_bytes()) + leads_by
        };
        end(self).cmp(&end(other)).then(self.offset.cmp(&other.offset))
    }

    /// Whether all that ends at the other position is certainly in what ends here. `trail`: offsets of this data on the way to here.
    pub fn includes(&self, other: &Self, trail: &[TrailPoint]) -> bool {
        if self.replication_id != other.replication_id {
            return false;
        }
        if other.is_exact() && self.tail_bytes() >= 0 {
            return other.offset <= self.reaches();
        }
        let (own, theirs) = match (self.tail, other.tail) {
            (_, Tail::Unknown) => return false,
            _ => (self.tail_bytes(), other.tail_bytes()),
        };
        match self.offset.cmp(&other.offset) {
            // The same size at the same offset: the same commands. A command may be as long as a `SELECT`, which the other lacks: then it
            // is one that only a server had which was started within the second before its end.
            Ordering::Equal if own == theirs && self.tail != Tail::Unknown => true,
            Ordering::Equal | Ordering::Greater => {
                own.saturating_add(between(trail, other.offset, self.offset)) >= theirs.saturating_add(SLACK)
            }
            Ordering::Less => {
                let gap = i64::try_from(other.offset.0 - self.offset.0).unwrap_or(i64::MAX);
                own >= theirs.saturating_add(gap).saturating_add(SLACK)
            }
        }
    }
}

/// Whether the primary of a history, which started again from its own files, has what ended there: nothing shows that the other went on.
pub fn is_of_its_primary(started: &Position, ended: &Position) -> bool {
    let has_more = ended.includes(started, &[]) && !started.includes(ended, &[]);
    started.replication_id == ended.replication_id && started.led && !ended.went_on && !has_more
}

/// Bytes of commands between two offsets, at the least.
fn between(trail: &[TrailPoint], from: Offset, to: Offset) -> i64 {
    let inside = || trail.iter().filter(|point| from <= point.0 && point.0 <= to).map(|point| point.1);
    let (first, last) = (inside().min().unwrap_or(0), inside().max().unwrap_or(0));
    i64::try_from(last - first).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(offset: u64, tail: Tail, led: bool) -> Position {
        Position {
            replication_id: ReplicationId("a".to_owned()),
            offset: Offset(offset),
            epoch: 1,
            term: 1,
            tail,
            led,
            went_on: false,
        }
    }

    /// Both records said 946, and one file had 200 writes more.
    #[test]
    fn of_two_equal_records_the_longer_file_is_later() {
        let (short, long) = (at(946, Tail::Bytes(0), false), at(946, Tail::Bytes(6_000), false));
        assert_eq!(long.order(&short), Ordering::Greater);
        assert!(long.includes(&short, &[]) && !short.includes(&long, &[]));
    }

    /// A volume that took no record any more, and went on taking commands.
    #[test]
    fn an_old_record_next_to_a_long_file_is_later_than_a_new_record() {
        let (stuck, other) = (at(101, Tail::Bytes(400_000), false), at(26_000, Tail::Bytes(0), false));
        assert_eq!(stuck.order(&other), Ordering::Greater);
        assert!(stuck.includes(&other, &[]) && !other.includes(&stuck, &[]));
    }

    #[test]
    fn the_primary_of_a_history_is_later_than_its_replicas_unless_they_have_far_more() {
        let replica = at(1_200, Tail::Bytes(600), false);
        assert_eq!(at(1_000, Tail::Bytes(700), true).order(&replica), Ordering::Greater);
        assert_eq!(at(1_000, Tail::Bytes(700), false).order(&replica), Ordering::Less);
        assert_eq!(at(1_000, Tail::Bytes(0), true).order(&replica), Ordering::Less, "its file took nothing after that");
        assert_eq!(at(1_000, Tail::Bytes(700), true).order(&at(20 << 20, Tail::None, false)), Ordering::Less);
        // Promoted, it confirmed writes of its own, and ended before its record said so.
        let promoted = Position { went_on: true, ..at(1_900, Tail::Bytes(150), false) };
        assert_eq!(promoted.order(&at(1_000, Tail::Bytes(700), true)), Ordering::Greater);
        assert!(!is_of_its_primary(&at(1_000, Tail::Bytes(700), true), &promoted));
        assert!(is_of_its_primary(&at(1_000, Tail::Bytes(700), true), &replica));
    }

    /// A command, and whether it is in the append-only file.
    type Command = (u16, bool);

    /// A node's end and an earlier moment in a stream.
    #[derive(Clone, Debug)]
    struct Cut {
        sampled: usize,
        ended: usize,
        selects: u8,
    }

    fn cut(commands: usize) -> impl Strategy<Value = Cut> {
        (0..=commands, 0..=commands, 0..=1_u8).prop_map(|(first, second, selects)| Cut {
            sampled: first.min(second),
            ended: first.max(second),
            selects,
        })
    }

    fn size(stream: &[Command], in_file: bool) -> u64 {
        stream.iter().filter(|(_, is_written)| *is_written || !in_file).map(|(bytes, _)| u64::from(*bytes)).sum()
    }

    fn position(stream: &[Command], cut: &Cut) -> Position {
        let tail = size(&stream[cut.sampled..cut.ended], true)
            + if cut.sampled < cut.ended { 23 * u64::from(cut.selects) } else { 0 };
        at(size(&stream[..cut.sampled], false), Tail::Bytes(tail.try_into().unwrap()), false)
    }

    /// Commands that the files hold up to there.
    fn held(stream: &[Command], end: usize) -> usize {
        stream[..end].iter().filter(|(_, is_written)| *is_written).count()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

        /// Whatever was written, and whenever the records were: nothing that is missing counts as included.
        #[test]
        fn what_is_called_included_is_there(
            (stream, cuts) in prop::collection::vec((24..90_u16, prop::bool::weighted(0.7)), 1..40)
                .prop_flat_map(|stream| { let all = stream.len(); (Just(stream), prop::collection::vec(cut(all), 2)) }),
            looks in prop::collection::vec(0..40_usize, 0..6),
        ) {
            let (own, other) = (&cuts[0], &cuts[1]);
            let seen = looks.iter().copied().filter(|look| *look <= own.sampled && *look <= stream.len());
            let trail: Vec<TrailPoint> =
                seen.map(|look| TrailPoint(Offset(size(&stream[..look], false)), size(&stream[..look], true))).collect();
            let (mine, theirs) = (position(&stream, own), position(&stream, other));
            if mine.includes(&theirs, &trail) {
                prop_assert!(held(&stream, own.ended) >= held(&stream, other.ended), "{mine:?} {theirs:?}");
            }
            prop_assert!(mine.includes(&mine, &trail));
        }

        /// Else each of three nodes may wait for another.
        #[test]
        fn the_order_has_no_circles(
            nodes in prop::collection::vec((0..60_u64, prop_oneof![Just(Tail::None), Just(Tail::Unknown), (-20..60_i64).prop_map(Tail::Bytes)], any::<bool>()), 3),
        ) {
            let nodes: Vec<Position> = nodes.into_iter().map(|(offset, tail, led)| at(offset, tail, led)).collect();
            let is_before = |first: usize, second: usize| nodes[first].order(&nodes[second]) == Ordering::Less;
            prop_assert!(!(is_before(0, 1) && is_before(1, 2) && is_before(2, 0)));
            prop_assert_eq!(nodes[0].order(&nodes[1]), nodes[1].order(&nodes[0]).reverse());
        }
    }
}
