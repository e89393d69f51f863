//! Where the data in a node's files ends, while no engine runs.

use std::fs;

use serde::{Deserialize, Serialize};

use super::append_files::Sizes;
use super::config::Environment;
use super::{ancestry, rdb_head};
use crate::model::lineage::Lineage;
use crate::model::position::{Position, Tail};
use crate::model::{Offset, Role};

/// How long the append-only files were when the server had the offset of the record, by its own word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sample {
    /// Name of the first of the files: a rewrite takes another one.
    pub base: String,
    /// Bytes of them all, and of what was still to be written.
    pub bytes: u64,
    /// Whether the server was the primary of that history.
    pub led: bool,
    /// Which start of the machine it was: a power cut takes the end of a file.
    pub boot: String,
}

/// Which start of the machine this is. Empty: it is not known.
pub(crate) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// Where the data ends that an engine would load. `None`: where the record says, as after a clean stop.
pub(super) fn position(
    environment: &Environment,
    record: &Lineage,
    sample: Option<&Sample>,
    append_only: bool,
) -> Option<Position> {
    if record.clean_stop || record.is_of_unknown_origin() {
        None
    } else if append_only {
        Some(of_append_only(record, sample, &Sizes::measure(environment), &boot()))
    } else {
        Some(of_snapshot(environment, record))
    }
}

fn of_append_only(record: &Lineage, sample: Option<&Sample>, present: &Sizes, boot: &str) -> Position {
    let recorded = record.recorded_position();
    let Some(sample) = sample.filter(|sample| present.base() == Some(&sample.base)) else {
        return Position { tail: Tail::Unknown, ..recorded };
    };
    let bytes = i64::try_from(i128::from(present.total()) - i128::from(sample.bytes)).unwrap_or(0);
    let is_same_boot = !boot.is_empty() && sample.boot == boot;
    let led = sample.led && is_same_boot && bytes >= 0;
    Position { tail: Tail::Bytes(bytes), led, went_on: bytes > 0 && !record.link_up, ..recorded }
}

/// A snapshot has what the server had at the fork, and the record is of what it had in memory later on.
fn of_snapshot(environment: &Environment, record: &Lineage) -> Position {
    let recorded = record.recorded_position();
    let Some((replication_id, offset)) = rdb_head::position(&environment.data.join("dump.rdb")) else {
        // A primary has no backlog while it has had no replica for an hour: then its snapshot is later than what any of them has.
        let offset = if record.role == Role::Primary { record.offset } else { Offset(0) };
        return Position { offset, tail: Tail::Unknown, ..recorded };
    };
    if replication_id == recorded.replication_id {
        return Position { offset, ..recorded };
    }
    // Of an earlier history: it has that one's epoch and term, never those of what was in memory.
    let known = ancestry::read(environment).ancestors;
    let of_that = known.iter().map(|ancestor| &ancestor.position).find(|known| known.replication_id == replication_id);
    let (epoch, term) = of_that.map_or((0, 0), |known| (known.epoch, known.term));
    Position { replication_id, offset, epoch, term, tail: Tail::None, led: false, went_on: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::lineage_file;

    fn record() -> Lineage {
        let text = r#"{"format":1,"layerUid":"uid","epoch":106,"term":9,"role":"Replica","replicationId":"b","previousReplicationId":"a",
            "previousOffset":590,"offset":900,"synced":true,"linkUp":true,"keys":7,"cleanStop":false}"#;
        lineage_file::parse(text).unwrap()
    }

    fn sizes(base: &str, bytes: u64) -> Sizes {
        Sizes::of([(format!("{base}.base.rdb"), 88), (format!("{base}.incr.aof"), bytes - 88)])
    }

    #[test]
    fn what_the_files_have_beyond_the_record_counts() {
        let sample = Sample { base: "1.base.rdb".to_owned(), bytes: 1_000, led: true, boot: "x".to_owned() };
        let of = |present: &Sizes, boot| {
            let at = of_append_only(&record(), Some(&sample), present, boot);
            assert_eq!((at.offset, at.epoch), (Offset(900), 106));
            (at.tail, at.led)
        };
        assert_eq!(of(&sizes("1", 1_000), "x"), (Tail::Bytes(0), true));
        assert_eq!(of(&sizes("1", 1_700), "x"), (Tail::Bytes(700), true));
        assert_eq!(of(&sizes("1", 1_700), "y"), (Tail::Bytes(700), false), "the machine was started again");
        assert_eq!(of(&sizes("1", 900), "x"), (Tail::Bytes(-100), false));
        assert_eq!(of(&sizes("2", 1_700), "x"), (Tail::Unknown, false), "rewritten");
        assert_eq!(of_append_only(&record(), None, &sizes("1", 1_000), "x").tail, Tail::Unknown);
    }
}
