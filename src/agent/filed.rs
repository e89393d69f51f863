//! How much of what a server has is in its append-only file.
//!
//! The command in whose turn a volume has no room any more is acknowledged and replicated, and is in memory only until there is room. A
//! record on the volume that spoke of it would have the node replace one that has it in a file.

use crate::model::Offset;
use crate::model::lineage::Lineage;
use crate::redis::info::Info;

/// The offset up to which the file has all.
#[derive(Debug, Default)]
pub struct Filed {
    offset: Offset,
    is_behind: bool,
}

impl Filed {
    /// Takes in a look.
    pub fn note(&mut self, info: &Info) {
        self.is_behind = info.append_only_is_behind();
        if !self.is_behind {
            self.offset = info.offset();
        }
    }

    /// The record of what the volume has, where this is the record of what the server has.
    pub fn on_volume(&self, lineage: Lineage) -> Lineage {
        if !self.is_behind {
            return lineage;
        }
        Lineage { offset: lineage.offset.min(self.offset), clean_stop: false, ..lineage }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::lineage_file;

    #[test]
    fn a_record_on_the_volume_speaks_of_what_its_file_has() {
        let look = |offset: u64, status: &str| {
            Info::parse(&format!(
                "role:master\nmaster_repl_offset:{offset}\naof_enabled:1\naof_last_write_status:{status}\n"
            ))
        };
        let record = |offset: u64| {
            let text = format!(
                r#"{{"format":1,"layerUid":"uid","epoch":1,"term":2,"role":"Primary","replicationId":"a","previousReplicationId":null,
                "offset":{offset},"synced":true,"linkUp":true,"keys":1,"cleanStop":true}}"#
            );
            lineage_file::parse(&text).unwrap()
        };
        let mut filed = Filed::default();
        filed.note(&look(100, "ok"));
        assert_eq!(filed.on_volume(record(100)), record(100));
        filed.note(&look(1_200, "err"));
        filed.note(&look(1_300, "err"));
        assert_eq!(filed.on_volume(record(1_300)), Lineage { clean_stop: false, ..record(100) });
        filed.note(&look(1_400, "ok"));
        assert_eq!(filed.on_volume(record(1_400)), record(1_400));
    }
}
