//! Planned moves of the primary on a whole layer under load.

use std::collections::BTreeSet;
use std::time::Duration;

use redoubt::model::NodeId;
use redoubt::model::{Address, Role};
use redoubt::redis::switchover::{Error, Step, Switchover, switchover, switchover_watched};
use redoubt::redis::{Connection, sentinel, server};

use crate::support::history::{Writers, check, keys_of};
use crate::support::layer::{Layer, Options, SOON};
use crate::support::{eventually, spread};

const WRITERS: usize = 3;

/// The order to move the primary away from `from`, as the operator gives it.
fn request(layer: &Layer, from: NodeId) -> Switchover {
    let at = |id: NodeId| (layer.nodes[&id].address.clone(), layer.operator_on(id));
    Switchover {
        master_name: layer.master_name.clone(),
        from: at(from),
        others: layer.data_ids().into_iter().filter(|id| *id != from).map(at).collect(),
        terminating: BTreeSet::new(),
        to: None,
        sentinels: layer.sentinel_ids().into_iter().map(|id| layer.operator_on(id)).collect(),
        failover_timeout: Duration::from_secs(10),
        election_timeout: Duration::from_secs(5),
    }
}

/// One move under load. The longest time without an acknowledged write.
async fn moved_under_load(layer: &Layer) -> Duration {
    let from = layer.primary().await.unwrap();
    let before = layer.keys(from).await.unwrap();
    let writers = Writers::start(WRITERS, &layer.sentinel_endpoints(), &layer.master_name);
    eventually("writes arrive", SOON, async || layer.keys(from).await.unwrap_or(0) > before + 200).await;
    let plain = Connection::open(&layer.endpoint(from)).await.unwrap();
    switchover(&request(layer, from)).await.unwrap();
    assert!(plain.query::<String>(&redis::cmd("PING")).await.is_err(), "clients of the old primary are cut at once");
    eventually("another is primary", SOON, async || layer.primary().await.is_some_and(|id| id != from)).await;
    let to = layer.primary().await.unwrap();
    let at = layer.keys(to).await.unwrap();
    eventually("writes arrive again", SOON, async || layer.keys(to).await.unwrap_or(0) > at + 200).await;
    let verdict = check(&writers.finish().await, &keys_of(&layer.endpoint(to)).await);
    assert_eq!(verdict.lost, Vec::<String>::new());
    assert!(!verdict.two_primaries);
    layer.wait_until_in_sync().await;
    verdict.longest_gap
}

#[tokio::test(flavor = "multi_thread")]
async fn planned_moves_lose_nothing_and_sentinel_aware_writers_hardly_notice() {
    let layer = Layer::in_sync(&Options::default()).await;
    let mut gaps = Vec::new();
    let moves = std::env::var("REDOUBT_MOVES").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    for _ in 0..moves {
        gaps.push(moved_under_load(&layer).await);
    }
    println!("planned moves: gap {}", spread(gaps));
}

/// The Sentinels elect whom they like: by priority, by what it has, and then by an identifier that is drawn.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_asked_for_becomes_it_and_nothing_is_lost() {
    const MOVES: usize = 5;
    let layer = Layer::in_sync(&Options::default()).await;
    let writers = Writers::start(WRITERS, &layer.sentinel_endpoints(), &layer.master_name);
    let mut elected = Vec::new();
    for turn in 0..MOVES {
        let from = layer.primary().await.unwrap();
        let others: Vec<NodeId> = layer.data_ids().into_iter().filter(|id| *id != from).collect();
        let asked = others[turn % others.len()];
        let to = Some(layer.nodes[&asked].address.clone());
        // The move before this one was a moment ago.
        eventually("the primary is moved", SOON, async || {
            let request = Switchover { to: to.clone(), ..request(&layer, from) };
            match switchover(&request).await {
                Ok(moved) => {
                    elected.push((Some(moved.to), to.clone()));
                    true
                }
                Err(error) => {
                    println!("not yet: {error}");
                    false
                }
            }
        })
        .await;
        layer.wait_until_in_sync().await;
        assert_eq!(layer.primary().await, Some(asked), "turn {turn}");
    }
    let to = layer.primary().await.unwrap();
    let verdict = check(&writers.finish().await, &keys_of(&layer.endpoint(to)).await);
    assert_eq!((verdict.lost, verdict.two_primaries), (Vec::<String>::new(), false));
    assert!(elected.iter().all(|(elected, asked)| elected == asked), "{elected:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mover_killed_after_it_passed_a_replica_over_leaves_all_of_them_electable() {
    let layer = Layer::in_sync(&Options::default()).await;
    let from = layer.primary().await.unwrap();
    let asked = layer.data_ids().into_iter().rfind(|id| *id != from).unwrap();
    let request = Switchover { to: Some(layer.nodes[&asked].address.clone()), ..request(&layer, from) };
    let passed_over = tokio::sync::Notify::new();
    let mover = switchover_watched(&request, async |step| {
        if matches!(step, Step::PassedOver(_)) {
            passed_over.notify_one();
            std::future::pending::<()>().await;
        }
    });
    tokio::select! {
        result = mover => panic!("it came to its end: {result:?}"),
        () = passed_over.notified() => {}
    }
    layer.wait_until_in_sync().await;
    assert_eq!(layer.primary().await, Some(from));
}

/// The Sentinels alone demote it after eight seconds or more, in which it would take writes that are lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_was_replaced_behind_its_back_steps_down_by_itself() {
    let layer = Layer::in_sync(&Options { min_replicas: 0, ..Options::default() }).await;
    let from = layer.primary().await.unwrap();
    let acting = Connection::open(&layer.operator_on(NodeId::sentinel(1))).await.unwrap();
    sentinel::failover(&acting, &layer.master_name).await.unwrap();
    let took = eventually("it follows its successor", SOON, async || {
        layer.replication(from).await.is_some_and(|info| info.role() == Some(Role::Replica))
    })
    .await;
    println!("stepped down {took:.2?} after the order");
    assert!(took < Duration::from_secs(6), "{took:?}");
    layer.wait_until_in_sync().await;
}

/// Two moves may fall between two looks of an agent, which has seen no change of its engine's role then. It would keep a term
/// below that of the primary in between, and hold it for its successor.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_was_replaced_and_came_back_between_two_looks_of_its_agent_holds_the_highest_term() {
    let layer = Layer::in_sync(&Options { data_nodes: 2, ..Options::default() }).await;
    let term = async |id| Some(layer.lineage(id).await?.lineage?.term);
    let first = layer.primary().await.unwrap();
    let second = layer.data_ids().into_iter().find(|id| *id != first).unwrap();
    let at_first = term(first).await.unwrap();
    layer.freeze_agent(first, true);
    switchover(&request(&layer, first)).await.unwrap();
    eventually("the second has a term of its own", SOON, async || term(second).await > Some(at_first)).await;
    let in_between = term(second).await;
    eventually("it is moved back", SOON, async || switchover(&request(&layer, second)).await.is_ok()).await;
    // It wakes by moments: in some of them it answers what it is asked and does not yet know better, and nobody may believe that.
    for _ in 0..40 {
        layer.freeze_agent(first, false);
        tokio::time::sleep(Duration::from_millis(1)).await;
        layer.freeze_agent(first, true);
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    layer.freeze_agent(first, false);
    eventually("the first has a higher term again", SOON, async || term(first).await > in_between).await;
    layer.wait_until_in_sync().await;
    assert_eq!(layer.primary().await, Some(first));
    // A replica takes its primary's term at its next look.
    eventually("both hold the same term", SOON, async || term(second).await == term(first).await).await;
    assert!(term(first).await > in_between);
}

/// What the primary took before the pause is on every replica that could be elected before one is.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_does_not_catch_up_with_the_paused_primary_is_not_elected() {
    let layer = Layer::in_sync(&Options { data_nodes: 2, min_replicas: 0, ..Options::default() }).await;
    let from = layer.primary().await.unwrap();
    let to = layer.data_ids().into_iter().find(|id| *id != from).unwrap();
    let primary = Connection::open(&layer.operator_on(from)).await.unwrap();
    let replica = Connection::open(&layer.operator_on(to)).await.unwrap();
    let writer = Connection::open(&layer.endpoint(from)).await.unwrap();
    let moved = switchover_watched(&request(&layer, from), async |step| {
        if step == Step::WritesPaused {
            // The replica answers and stays where it is, and the primary takes one more write.
            server::replica_of(&replica, "127.0.0.1", 1).await.unwrap();
            server::unpause(&primary).await.unwrap();
            writer.query::<()>(redis::cmd("SET").arg("late").arg(1)).await.unwrap();
            server::pause_writes(&primary, 5_000).await.unwrap();
        }
    })
    .await;
    assert!(matches!(moved, Err(Error::Lagging(_))), "{moved:?}");
    layer.wait_until_in_sync().await;
    assert_eq!(layer.primary().await, Some(from));
}

/// A candidate that stalls has its order in its socket and obeys when it goes on. What the old primary took meanwhile would be lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_whose_end_is_not_known_keeps_writers_waiting_and_loses_nothing() {
    let layer =
        Layer::in_sync(&Options { data_nodes: 2, min_replicas: 0, detection: 5_000, ..Options::default() }).await;
    let from = layer.primary().await.unwrap();
    let to = layer.data_ids().into_iter().find(|id| *id != from).unwrap();
    let request = Switchover { election_timeout: Duration::from_secs(1), ..request(&layer, from) };
    let writers = Writers::start(WRITERS, &layer.sentinel_endpoints(), &layer.master_name);
    eventually("writes arrive", SOON, async || layer.keys(from).await.unwrap_or(0) > 200).await;
    let moved = switchover_watched(&request, async |step| {
        if step == Step::FailoverOrdered {
            layer.freeze_engine(to, true);
        }
    })
    .await;
    assert!(matches!(moved, Err(Error::Undecided(_))), "{moved:?}");
    let limit = Duration::from_millis(500);
    let writer = Connection::open_with(&layer.endpoint(from), SOON, limit).await.unwrap();
    let answer = writer.query::<()>(redis::cmd("SET").arg("meanwhile").arg(1)).await;
    assert!(answer.as_ref().is_err_and(|error| error.server_text().is_none()), "nobody writes: {answer:?}");
    layer.freeze_engine(to, false);
    layer.wait_until_in_sync().await;
    assert_eq!(layer.primary().await, Some(to), "the order is obeyed");
    let at = layer.keys(to).await.unwrap();
    eventually("writes arrive again", SOON, async || layer.keys(to).await.unwrap_or(0) > at + 200).await;
    let verdict = check(&writers.finish().await, &keys_of(&layer.endpoint(to)).await);
    assert_eq!(verdict.lost, Vec::<String>::new());
    assert!(!verdict.two_primaries);
}

/// As where a Kubernetes node is drained: a Sentinel on it ends together with the primary.
#[tokio::test(flavor = "multi_thread")]
async fn a_sentinel_that_ends_while_it_is_asked_is_passed_over() {
    let layer = Layer::in_sync(&Options::default()).await;
    let asked = std::sync::atomic::AtomicUsize::new(0);
    // The replica may be put right before the move asks for it: then the move is made again.
    for _ in 0..5 {
        let from = layer.primary().await.unwrap();
        let astray = layer.data_ids().into_iter().find(|id| *id != from).unwrap();
        let connection = Connection::open(&layer.operator_on(astray)).await.unwrap();
        server::replica_of(&connection, "127.0.0.1", 1).await.unwrap();
        switchover_watched(&request(&layer, from), async |step| {
            if step == Step::InfoPaced && asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
                layer.kill_engine(NodeId::sentinel(0));
            }
        })
        .await
        .unwrap();
        layer.wait_until_in_sync().await;
        if asked.load(std::sync::atomic::Ordering::Relaxed) > 0 {
            return;
        }
    }
    panic!("no Sentinel was asked for long enough to end meanwhile");
}

/// Runs a move and ends the mover, connections and all, right after the first step of this kind. Whether there was one.
async fn killed_after(layer: &Layer, from: NodeId, step: &Step) -> bool {
    let request = request(layer, from);
    let killed = tokio::sync::Notify::new();
    let mover = switchover_watched(&request, async |done| {
        if std::mem::discriminant(&done) == std::mem::discriminant(step) {
            killed.notify_one();
            std::future::pending::<()>().await;
        }
    });
    tokio::select! {
        result = mover => {
            let may_pass = match &result {
                // A Sentinel that looked at its replicas at the very moment is not made to look again.
                Ok(_) => *step == Step::InfoPaced,
                // The move before this one was a moment ago.
                Err(error) => {
                    matches!(error, Error::FailoverUnderWay(_) | Error::NoFitSentinel(_) | Error::NoFitReplica(_))
                }
            };
            assert!(may_pass, "the move came to its end without {step:?}: {result:?}");
            false
        }
        () = killed.notified() => true,
    }
}

async fn begins_and_is_killed(layer: &Layer, step: &Step) -> bool {
    let from = layer.primary().await.unwrap();
    // Right before the move: a Sentinel that looks in between would know by itself that it is astray.
    if matches!(step, Step::UnfitMarked(_) | Step::InfoPaced) {
        let astray = layer.data_ids().into_iter().find(|id| *id != from).unwrap();
        let connection = Connection::open(&layer.operator_on(astray)).await.unwrap();
        server::replica_of(&connection, "127.0.0.1", 1).await.unwrap();
    }
    killed_after(layer, from, step).await
}

/// The claim: whatever the mover did last, the layer comes back by itself (one primary, all others its replicas, in sync
/// and electable), takes writes again, and has everything that was acknowledged.
async fn is_in_sync_after(layer: &Layer, step: &Step) {
    println!("the mover is to be killed after {step:?}");
    let from = layer.primary().await.unwrap();
    let before = layer.keys(from).await.unwrap();
    let writers = Writers::start(WRITERS, &layer.sentinel_endpoints(), &layer.master_name);
    eventually("writes arrive", SOON, async || layer.keys(from).await.unwrap_or(0) > before + 200).await;
    eventually("the mover gets so far", SOON, async || {
        layer.wait_until_in_sync().await;
        begins_and_is_killed(layer, step).await
    })
    .await;
    let in_sync = layer.wait_until_in_sync().await;
    let to = layer.primary().await.unwrap();
    let at = layer.keys(to).await.unwrap();
    let resumed = eventually("writes arrive again", SOON, async || layer.keys(to).await.unwrap_or(0) > at + 200).await;
    layer.wait_until_in_sync().await;
    let to = layer.primary().await.unwrap();
    let verdict = check(&writers.finish().await, &keys_of(&layer.endpoint(to)).await);
    println!(
        "mover killed after {step:?}: in sync after {in_sync:.2?}, writes {resumed:.2?} later, gap {:.2?}",
        verdict.longest_gap
    );
    assert_eq!(verdict.lost, Vec::<String>::new());
    assert!(!verdict.two_primaries);
}

async fn is_in_sync_after_each(steps: &[Step]) {
    let layer = Layer::in_sync(&Options::default()).await;
    for step in steps {
        is_in_sync_after(&layer, step).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_is_in_sync_again_whichever_step_its_mover_was_killed_after() {
    let somebody = || Address(String::new());
    // Two layers side by side, because most of the time is spent waiting.
    let (before, after) = (
        [Step::UnfitMarked(somebody()), Step::InfoPaced, Step::WritesPaused, Step::FailoverOrdered],
        [Step::PrimaryDemoted, Step::ReplicaPointed(somebody()), Step::WritesResumed, Step::ClientsCut],
    );
    tokio::join!(is_in_sync_after_each(&before), is_in_sync_after_each(&after));
}
