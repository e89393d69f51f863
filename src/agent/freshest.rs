//! Which replica has most of a dead primary's stream, and that the Sentinels know it.
//!
//! Of several replicas a Sentinel elects the one with the largest offset in its last `INFO`, which is up to a second old: it
//! may take one that lacks what another has, and what only that one had is lost. The primary is dead, so what a replica has
//! does not change any more, unless it is started again: then it has what its files had, and a Sentinel still goes by what it
//! saw before. Where they differ, or one is no replica yet, the Sentinels are made to look before one of them is told to fail over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, timeout};

use super::state::State;
use crate::model::node_config::NodeConfig;
use crate::model::{Address, Offset};
use crate::redis::sentinel::ReplicaView;
use crate::redis::{Connection, Endpoint, info_window, sentinel, server};

/// Time for a server's answer. Who takes longer is busy, and most likely behind.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// How long replicas may take to read what the dead primary still sent, and one of them to answer at all: it lies in the buffers
/// of their own sockets, and who is promoted gives up what it has not read. Who is a second behind can lose a second of writes.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// How long a Sentinel may take to see it: it looks in each tick, every 50 to 100 ms.
const SEEN_WITHIN: Duration = Duration::from_millis(400);
/// Between two polls.
const POLL_EVERY: Duration = Duration::from_millis(10);

/// Which Sentinels would elect a replica that has most of what the dead primary sent. The first that does ends the waiting;
/// where none does in time it is left at that, because writers wait.
pub(super) async fn known_to(state: &State, config: &NodeConfig, replicas: &[Address]) -> BTreeSet<Address> {
    let offsets = offsets(state, replicas).await;
    // Of the other data nodes, each without us.
    let are_all = offsets.len() + 1 >= config.data_nodes.len();
    if are_all && offsets.len() == replicas.len() && offsets.values().min() == offsets.values().max() {
        return config.sentinels.values().cloned().collect();
    }
    let told: Vec<String> = offsets.iter().map(|(address, offset)| format!("{address} {}", offset.0)).collect();
    tracing::info!(offsets = told.join(", "), "replicas differ, or one is missing: the Sentinels are made to look");
    let opened = join_all(config.sentinels.values().map(async |address| {
        let endpoint = state.sentinel_endpoint(address);
        Some((address, Connection::open_with(&endpoint, ANSWER_WITHIN, ANSWER_WITHIN).await.ok()?))
    }));
    let sentinels: Vec<(&Address, Connection)> = opened.await.into_iter().flatten().collect();
    let first = timeout(SEEN_WITHIN, first_to_see(&sentinels, &config.master_name, &offsets)).await;
    // With the pace of the polls it would hold each replica for unfit between two of them, and elect no replica.
    join_all(sentinels.iter().map(async |(address, connection)| {
        if let Err(error) = sentinel::set_info_period(connection, info_window::PERIOD).await {
            tracing::info!(sentinel = %address, %error, "its agent sets its pace");
        }
    }))
    .await;
    let first = first.ok().flatten();
    if first.is_none() {
        tracing::warn!("the Sentinels might elect a replica that lacks something");
    }
    first.into_iter().collect()
}

/// The first Sentinel that would elect who has most; `None`: all of them fell silent.
async fn first_to_see(
    sentinels: &[(&Address, Connection)],
    master_name: &str,
    offsets: &BTreeMap<Address, Offset>,
) -> Option<Address> {
    let mut looking: FuturesUnordered<_> = sentinels
        .iter()
        .map(async |(address, connection)| {
            let seen = is_seen(connection, master_name, offsets).await;
            seen.ok().map(|()| (*address).clone())
        })
        .collect();
    while let Some(seen) = looking.next().await {
        if seen.is_some() {
            return seen;
        }
    }
    None
}

/// What each replica has, once it has read all that there is; who is silent is left out, unless all are: a server that does not
/// answer cannot be promoted either.
async fn offsets(state: &State, replicas: &[Address]) -> BTreeMap<Address, Offset> {
    let began = Instant::now();
    loop {
        let asked = replicas.iter().map(async |address| {
            let read = has_read_all(state.data_endpoint(address), began + READ_WITHIN).await;
            read.map(|offset| (address.clone(), offset)).map_err(|error| {
                tracing::info!(replica = %address, %error, "does not say what it has");
            })
        });
        let offsets: BTreeMap<_, _> = join_all(asked).await.into_iter().flatten().collect();
        if !offsets.is_empty() || replicas.is_empty() || began.elapsed() > READ_WITHIN {
            return offsets;
        }
        sleep(POLL_EVERY).await;
    }
}

/// A link that is down has been read to its end. It may stay up although the primary is dead, while a child of it that writes a
/// file holds its sockets: then two polls with the same answer tell, because a server that answers us also reads what is
/// there from others. Read, and not only executed: of a long command many pieces are read before its offset counts.
async fn has_read_all(endpoint: Endpoint, until: Instant) -> crate::redis::Result<Offset> {
    let connection = Connection::open_with(&endpoint, ANSWER_WITHIN, ANSWER_WITHIN).await?;
    let mut before = None;
    loop {
        let info = server::replication(&connection).await?;
        let read = info.read_offset();
        let is_down = !info.primary_link().is_some_and(|link| link.up);
        if is_down || before.replace(read) == Some(read) || Instant::now() > until {
            return Ok(info.offset());
        }
        sleep(POLL_EVERY).await;
    }
}

/// Returns once this Sentinel would; it is made to look in each of its ticks if it would not yet.
async fn is_seen(
    connection: &Connection,
    master_name: &str,
    offsets: &BTreeMap<Address, Offset>,
) -> crate::redis::Result<()> {
    let would = async || {
        let views = sentinel::replica_views(connection, master_name).await?;
        crate::redis::Result::Ok(elects_the_freshest(&views, offsets))
    };
    if would().await? {
        return Ok(());
    }
    sentinel::set_info_period(connection, info_window::EACH_TICK).await?;
    while !would().await? {
        sleep(POLL_EVERY).await;
    }
    Ok(())
}

/// Whether a Sentinel with these views elects a replica that has as much as any, also if it looks at others once more before it
/// elects: it has seen one of those that really have most beyond all that each of the others has, and beyond all that it believes of
/// them. Of one that did not say what it has, and of one that was started again, that is more.
fn elects_the_freshest(views: &[ReplicaView], offsets: &BTreeMap<Address, Offset>) -> bool {
    let most = offsets.values().max();
    let has_most = |view: &ReplicaView| offsets.get(&view.address).is_some_and(|offset| Some(offset) == most);
    let seen = views.iter().filter(|view| view.electable && has_most(view)).map(|view| view.offset).max();
    let behind = offsets.values().filter(|offset| Some(*offset) != most).max().copied();
    let may_be_elected =
        |view: &&ReplicaView| view.electable || (view.is_cut_off && view.info_age <= info_window::LONGEST_VALID);
    let believed = views.iter().filter(may_be_elected).filter(|view| !has_most(view)).map(|view| view.offset).max();
    seen.is_some() && seen > behind.max(believed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(number: u64, electable: bool, offset: u64) -> ReplicaView {
        let address = Address(format!("10.0.0.{number}"));
        ReplicaView { address, electable, is_cut_off: false, info_age: Duration::ZERO, offset: Offset(offset) }
    }

    #[test]
    fn a_sentinel_that_saw_too_little_of_the_freshest_polls_again() {
        let offsets = BTreeMap::from([1, 2].map(|number| (view(number, true, 0).address, Offset(100 * number))));
        let elects = |views: &[ReplicaView]| elects_the_freshest(views, &offsets);
        assert!(elects(&[view(1, true, 100), view(2, true, 200)]));
        assert!(!elects(&[view(1, true, 100), view(2, true, 90)]), "an old poll of the freshest");
        assert!(!elects(&[view(1, true, 90), view(2, true, 90)]), "either might be elected");
        assert!(elects(&[view(1, true, 90), view(2, true, 150)]), "an old poll, but beyond all that the other has");
        assert!(!elects(&[view(1, true, 90), view(2, true, 95)]), "the next poll of the other would turn it round");
        assert!(!elects(&[view(2, false, 200), view(1, true, 90)]), "who has most cannot be elected");
        assert!(
            !elects(&[view(1, true, 100), view(3, true, 150)]),
            "one that did not answer us is not trusted to be it"
        );
        assert!(!elects(&[view(1, true, 200), view(2, true, 200)]), "an old poll of one that was started again");
        let away = |age| ReplicaView { is_cut_off: true, info_age: Duration::from_millis(age), ..view(3, false, 200) };
        assert!(!elects(&[view(2, true, 200), away(100)]), "it may be back before the election");
        assert!(elects(&[view(2, true, 200), away(2_500)]), "what was seen of it counts no more");
    }
}
