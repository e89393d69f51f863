//! How much of what a server has is in its append-only file.
//!
//! The command in whose turn a volume has no room any more is acknowledged and replicated, and is in memory only until there is room. A
//! record on the volume that spoke of it would have the node replace one that has it in a file.

use crate::model::Offset;
use crate::model::lineage::Lineage;
use crate::redis::info::Info;

/// The offset up to which the file has all.
#[derive(Debug, Default)]
pub(super) struct FileOffset {
    offset: Offset,
    is_behind: bool,
}

impl FileOffset {
    /// Notes the result of a poll.
    pub(super) fn note(&mut self, info: &Info) {
        self.is_behind = info.append_only_is_behind();
        if !self.is_behind {
            self.offset = info.offset();
        }
    }

    /// The record of what the volume has, where this is the record of what the server has.
    pub(super) fn on_volume(&self, lineage: Lineage) -> Lineage {
        if !self.is_behind {
            return lineage;
        }
        Lineage { offset: lineage.offset.min(self.offset), clean_stop: false, ..lineage }
    }
}
