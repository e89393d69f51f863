//! Whether a person's decision still counts.

use crate::model::lineage::Lineage;

/// A person's decision, as far as it holds: it counts for one incident. `records`: the own one and those of the peers that answer.
/// The newest of them say whether it was carried out already ([`Lineage::accepted`]); what an older one says was overtaken.
pub fn in_force<'a>(
    accept_loss: Option<u16>,
    layer_uid: &str,
    records: impl Iterator<Item = &'a Lineage> + Clone,
) -> Option<u16> {
    let of_this_layer = records.filter(|record| record.layer_uid == layer_uid);
    let newest = of_this_layer.clone().map(|record| (record.epoch, record.term)).max();
    let is_spent = of_this_layer
        .filter(|record| Some((record.epoch, record.term)) == newest)
        .any(|record| record.accepted.is_some() && record.accepted == accept_loss);
    accept_loss.filter(|_| !is_spent)
}
