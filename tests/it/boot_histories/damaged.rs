//! Files that do not load, as `redoubt::agent::unloadable` treats them.

use redoubt::model::boot::{PeerData, in_force, replaces_damaged};
use redoubt::model::{Role, lineage::Lineage};

use super::world::{Files, NODES, World};
use crate::boot_rule::LAYER;

/// As `unloadable::ENDS`.
const ENDS: u32 = 2;

impl World {
    pub fn damage(&mut self, node: u16) {
        self.node_mut(node).files.are_damaged = self.keeps_data && self.node(node).data.is_some();
    }

    /// A person repairs the files, or there are others.
    pub fn repair(&mut self, node: u16) {
        self.node_mut(node).files = Files::default();
    }

    /// An engine that was started ends over the files.
    pub fn ends_over_files(&mut self, node: u16, role: Role) {
        let own = self.node_mut(node);
        own.files.ends += 1;
        if let Some(data) = &mut own.data {
            (data.record.role, data.record.clean_stop) = (role, false);
        }
    }

    /// As `Unloadable::set_aside_damaged`: the files give way to a node that has as much, or that a person chose.
    pub fn give_way_or_repair(&mut self, node: u16) {
        let Some(data) = self.node(node).data.clone() else {
            self.repair(node);
            return;
        };
        if !self.node(node).files.are_damaged || self.node(node).files.ends < ENDS {
            return;
        }
        let told: Vec<(u16, Option<Lineage>)> =
            (0..NODES).filter(|peer| *peer != node).map(|peer| (peer, self.record_heard(peer, node))).collect();
        let others: Vec<PeerData<'_>> = told
            .iter()
            .map(|(peer, record)| PeerData {
                ordinal: *peer,
                record: record.as_ref(),
                is_loaded: record.is_some() && self.node(*peer).engine.is_some(),
            })
            .collect();
        let Some(from) = replaces_damaged((node, &data.record), LAYER, self.accept_loss, &others) else {
            self.node_mut(node).files.are_unusable = true;
            return;
        };
        // They are in a folder. It counts only what was decided against, and what a person, or who forged an answer, had put there.
        let chosen = in_force(self.accept_loss, LAYER, std::iter::once(&data.record));
        let is_decided = chosen == Some(from) || self.node(from).forged > 0;
        let kept = if is_decided { data.writes.clone() } else { data.writes.and(&self.contested) };
        self.kept_aside.add(&kept);
        let own = self.node_mut(node);
        (own.data, own.written) = (None, Vec::new());
        self.repair(node);
    }
}
