//! Carrying out a person's decision (`redoubt.dev/accept-loss`) so that the data that the person chose cannot be overwritten.
//!
//! The chosen node says that it accepts ([`crate::model::lineage::LineageAnswer::accepting`]). Every other node whose document names
//! it as the chosen one ends its engine and keeps off. The Sentinels are told of the chosen node under an epoch above all that
//! is known, so none of them takes it for a replica of another. Then it starts, and says that it no longer accepts once no
//! Sentinel that answers names another. The others follow it by the boot rule, and keep their files aside first.

use std::time::Duration;

use futures::future::join_all;

use super::config::Environment;
use super::lineage_file;
use super::peers::{self, View};
use super::state::State;
use crate::model::Address;
use crate::model::lineage::{LARGEST_NUMBER, Lineage};
use crate::model::node_config::{NodeConfig, REDIS_PORT, SENTINEL_PORT};
use crate::redis::hello::{self, Hello};
use crate::redis::{Connection, sentinel};

/// Time for a Sentinel's answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);

/// An epoch above all that any node or Sentinel knows. `recorded`: the highest of the records that were seen.
pub(super) fn epoch(config: &NodeConfig, own: Option<&Lineage>, recorded: u64, views: &[View]) -> u64 {
    let own = own.filter(|own| own.layer_uid == config.layer.uid).map_or(0, |own| own.epoch);
    recorded.max(own).max(peers::newest_epoch(views)).saturating_add(1).min(LARGEST_NUMBER)
}

/// Has the record of a node whose engine is off forget a decision that its document no longer has: the same one may be made again for
/// another incident, also where no node serves that could clear it.
pub(super) fn forget_overtaken(environment: &Environment, state: &State) {
    let is_overtaken = |own: &Lineage| own.accepted.is_some() && own.accepted != state.config().accept_loss;
    let Some(own) = state.lineage().filter(is_overtaken) else { return };
    let own = Lineage { accepted: None, ..own };
    if let Err(error) = lineage_file::write(environment, &own) {
        tracing::warn!(error = %super::chain(&error), "the record may count a decision as carried out that is made again");
    }
    state.set_lineage(Some(own));
}

/// Whether a Sentinel names another primary than this node, or this one by older knowledge.
pub(super) fn is_unknown_to(views: &[View], own: Option<&Address>, epoch: u64) -> bool {
    views.iter().any(|view| match view {
        View::Names(named, known) => Some(named) != own || *known < epoch,
        View::NamesNone | View::Silent => false,
    })
}

/// The epoch to announce the chosen node under: above that of every Sentinel that names another one. The node may have been chosen while
/// it reached none of them, and none believes an epoch that it has.
pub(super) fn raised(views: &[View], own: Option<&Address>, epoch: u64) -> u64 {
    let others = views.iter().filter_map(|view| match view {
        View::Names(named, known) if Some(named) != own => Some(known.saturating_add(1)),
        View::Names(..) | View::NamesNone | View::Silent => None,
    });
    others.fold(epoch, u64::max).min(LARGEST_NUMBER)
}

/// Tells every Sentinel that names a primary, in the name of another one that it knows, that this node is the primary. One that
/// names no primary is shown the one that serves, by its own agent.
pub(super) async fn announce(state: &State, config: &NodeConfig, epoch: u64) {
    let Some(own) = config.own_address() else { return };
    let told = config.sentinels.values().map(async |address| {
        if let Err(error) = publish(state, config, address, own, epoch).await {
            tracing::info!(sentinel = %address, %error, "not told of the chosen primary yet");
        }
    });
    join_all(told).await;
}

async fn publish(
    state: &State,
    config: &NodeConfig,
    address: &Address,
    primary: &Address,
    epoch: u64,
) -> crate::redis::Result<()> {
    let connection = Connection::open_with(&state.sentinel_endpoint(address), ANSWER_WITHIN, ANSWER_WITHIN).await?;
    let master_name = config.master_name.as_str();
    let Some(theirs) = sentinel::master(&connection, master_name).await? else { return Ok(()) };
    if theirs.address == *primary && theirs.config_epoch >= epoch {
        return Ok(());
    }
    let Some((run_id, sender)) = theirs.other_sentinels.iter().next() else { return Ok(()) };
    let sender_port = SENTINEL_PORT;
    hello::publish(&connection, &Hello { sender, sender_port, run_id, master_name, primary, port: REDIS_PORT, epoch })
        .await?;
    tracing::warn!(sentinel = %address, epoch, "told that this node is the primary");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_node_is_announced_above_any_other_that_is_named() {
        let (own, other) = (Address("10.0.0.1".to_owned()), Address("10.0.0.2".to_owned()));
        let names = |address: &Address, epoch| View::Names(address.clone(), epoch);
        let epoch = |views: &[View]| raised(views, Some(&own), 4);
        assert_eq!(epoch(&[names(&other, 4), View::Silent, View::NamesNone]), 5, "no Sentinel believes what it knows");
        assert_eq!(epoch(&[names(&other, 9), names(&other, 3), names(&own, 4)]), 10);
        assert_eq!(epoch(&[names(&other, 3), names(&own, 4)]), 4, "it is above already");
        assert_eq!(raised(&[names(&other, 5)], Some(&own), 6), 6, "once is enough");
    }
}
