//! Data that nodes keep aside on their volumes, until a person drops it or it is known to be in the layer.

use std::collections::BTreeMap;

use super::Facts;
use crate::api::data_layer_status::{KeptFolder, NodeStatus};
use crate::api::names;
use crate::model::NodeId;
use crate::model::lineage::{Aside, AsideReason};

/// The reason of `Degraded`, and of an event for each folder.
pub(super) const DATA_KEPT_ASIDE: &str = "DataKeptAside";

pub(super) type KeptFolders = BTreeMap<NodeId, Vec<KeptFolder>>;

/// What each declared node keeps. A volume has what it had while the agent of its node does not answer. `old`: the nodes as they were
/// told last.
pub(super) fn of(facts: Facts<'_>, old: &[NodeStatus]) -> KeptFolders {
    let of_node = |node: &NodeId| -> Vec<KeptFolder> {
        let seen = facts.observed.nodes.get(node).and_then(|seen| seen.aside.as_ref());
        let name = names::node(&facts.desired.layer.name, *node);
        let before = || old.iter().find(|told| told.name == name).map(|told| told.kept_aside.clone());
        seen.map_or_else(|| before().unwrap_or_default(), |aside| aside.iter().map(kept_folder).collect())
    };
    facts.desired.nodes.keys().map(|node| (*node, of_node(node))).collect()
}

fn kept_folder(aside: &Aside) -> KeptFolder {
    let why = match aside.reason {
        AsideReason::Damaged => "the engine did not load it, and the node was filled from another",
        AsideReason::Replaced => "the primary that the node follows is not known to have all of it",
        AsideReason::LossAccepted => "a person chose which node's data to go on with",
    };
    KeptFolder {
        folder: aside.folder.clone(),
        bytes: i64::try_from(aside.bytes).unwrap_or(i64::MAX),
        why: why.to_owned(),
    }
}

/// Where it is, why, and what ends it.
pub(super) fn sentence(node: &str, kept: &KeptFolder) -> String {
    let KeptFolder { folder, bytes, why } = kept;
    format!(
        "{node}: /data/aside/{folder} holds {bytes} bytes of data: {why}; once it is not needed, name it in redoubt.dev/drop-aside"
    )
}

/// Of each folder that was not told before, its name and the sentence.
pub(super) fn news(old: &[NodeStatus], new: &[NodeStatus]) -> Vec<(String, String)> {
    let is_known = |name: &str, folder: &str| {
        let before = old.iter().filter(|told| told.name == name);
        before.flat_map(|told| &told.kept_aside).any(|known| known.folder == folder)
    };
    let all = new.iter().flat_map(|node| node.kept_aside.iter().map(move |kept| (node.name.as_str(), kept)));
    let fresh = all.filter(|(name, kept)| !is_known(name, &kept.folder));
    fresh.map(|(name, kept)| (kept.folder.clone(), sentence(name, kept))).collect()
}
