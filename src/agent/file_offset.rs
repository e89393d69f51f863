//! How much of what a server has is in its append-only file.
//!
//! The command in whose turn a volume has no room any more is acknowledged and replicated, and is in memory only until there is room. A
//! record on the volume that spoke of it would have the node replace one that has it in a file.

use super::held::Sample;
use crate::model::Offset;
use crate::model::lineage::Lineage;
use crate::redis::info::Info;

/// The offset up to which the file has all.
#[derive(Debug, Default)]
pub(super) struct FileOffset {
    offset: Offset,
    /// How long the file was then.
    sample: Option<Sample>,
    is_behind: bool,
}

impl FileOffset {
    /// Of a server that has the data of the record before. `sample`: how long its file was at that record's offset.
    pub(super) const fn new(sample: Option<Sample>) -> Self {
        Self { offset: Offset(0), sample, is_behind: false }
    }

    /// Notes the result of a poll. `sample`: how long the file was then.
    pub(super) fn note(&mut self, info: &Info, sample: Option<Sample>) {
        self.is_behind = info.append_only_is_behind();
        if self.is_behind {
            // Another node may have what its file lacks.
            self.sample = self.sample.take().map(|sample| Sample { led: false, ..sample });
        } else {
            (self.offset, self.sample) = (info.offset(), sample);
        }
    }

    /// The record of what the volume has, where this is the record of what the server has, and how long the file was at its offset.
    pub(super) fn on_volume(&self, lineage: Lineage) -> (Lineage, Option<Sample>) {
        if !self.is_behind {
            return (lineage, self.sample.clone());
        }
        (Lineage { offset: lineage.offset.min(self.offset), clean_stop: false, ..lineage }, self.sample.clone())
    }
}
