//! A process that keeps copies of entries, by the documented example, and is really cut off from the server for a while, or for good.

use std::time::{Duration, Instant};

use redis::cmd;
use redoubt::dataplane::{cache_library, load};
use redoubt::model::{Role, UseKind};
use redoubt::redis::{Connection, server, users};

use crate::support::bound_layer::{BoundLayer, CHANNEL, OBSERVER, PREFIX, connect, endpoint, installed, python};
use crate::support::cache_calls::{cache_call, policy};
use crate::support::cache_copies::{ASKS_EVERY, Copies, KEY};
use crate::support::cut_way::{Cut, Way};
use crate::support::engine_process::{PORT, engines, signal};
use crate::support::eventually;
use crate::support::function_calls::number;

const SOON: Duration = Duration::from_secs(30);
/// How long it is cut off.
const AWAY: Duration = Duration::from_secs(5);

/// The entry is invalidated and has another value, in the source too.
async fn change(primary: &Connection, copies: &mut Copies, value: &str) {
    copies.ask(&format!("source {value}")).await;
    number(primary, "cache_invalidate", &[KEY], &[]).await;
    cache_call(primary, "set", KEY, &["", value]).await;
}

async fn subscribers(server: &Connection) -> i64 {
    let reply: (String, i64) = server.query(cmd("PUBSUB").arg("NUMSUB").arg(CHANNEL)).await.unwrap();
    reply.1
}

/// Cut off for five seconds, in which the entry changes: no copy of before outlives it, and messages are heard again.
async fn is_cut_off(layer: &BoundLayer, way: &Way, copies: &mut Copies, cut: Cut) {
    change(&layer.observer, copies, "one").await;
    eventually("it follows the change", SOON, async || copies.read_until_copied().await == "one").await;
    assert_eq!(subscribers(&layer.observer).await, 1);

    let lost = way.lost();
    way.cut(cut);
    let began = Instant::now();
    if cut == Cut::Connections {
        eventually("the server has lost it", SOON, async || subscribers(&layer.observer).await == 0).await;
    }
    change(&layer.observer, copies, "two").await;
    for number_of_change in 0..3 {
        number(&layer.observer, "cache_invalidate", &[&format!("web:{{0}}other {number_of_change}")], &[]).await;
    }
    if cut == Cut::Connections {
        eventually("it drops its copies while it is away", AWAY, async || !copies.is_copied().await).await;
    }
    tokio::time::sleep(AWAY.saturating_sub(began.elapsed())).await;
    if cut == Cut::Messages {
        assert!(way.lost() > lost, "the precondition does not hold");
        assert_eq!(subscribers(&layer.observer).await, 1, "the connection stayed: nothing but a number can tell");
    }
    way.cut(Cut::Nothing);
    // No message comes now: it has to ask.
    eventually("it notices what it missed", ASKS_EVERY + SOON, async || !copies.is_copied().await).await;
    println!("{cut:?}: no copy is left {:.1?} after the cut", began.elapsed());
    assert_eq!(copies.read_until_copied().await, "two", "{cut:?}");

    eventually("it listens again", SOON, async || subscribers(&layer.observer).await == 1).await;
    assert!(copies.is_copied().await || copies.read_until_copied().await == "two");
    change(&layer.observer, copies, "three").await;
    eventually("it is told again", SOON, async || !copies.is_copied().await).await;
    assert_eq!(copies.read_until_copied().await, "three", "{cut:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_that_is_cut_off_for_five_seconds_drops_its_copies_and_recovers() {
    let of_python = installed("python").await;
    for engine in engines() {
        println!("{}", engine.name);
        let layer = BoundLayer::start_for(&engine, UseKind::CacheNamespace, PREFIX, false).await;
        let operator = connect(&layer.primary, users::OPERATOR).await;
        load(&operator, &cache_library(&[policy("web")])).await.unwrap();
        let way = Way::to(&layer.primary.address).await;
        let mut program = python(&of_python, "tests/clients/python/cache_copies.py");
        program.arg(format!("{}:{PORT}", way.address));
        layer.give_bindings(&mut program);
        let mut copies = Copies::start(program);
        for cut in [Cut::Connections, Cut::Messages] {
            is_cut_off(&layer, &way, &mut copies, cut).await;
        }
    }
}

/// The primary stops answering while its connections stay open, and a Sentinel promotes its replica: no copy of before outlives that, and
/// what the next primary publishes is heard.
#[tokio::test(flavor = "multi_thread")]
async fn the_example_drops_its_copies_at_a_failover_and_hears_the_next_primary() {
    let of_python = installed("python").await;
    for engine in engines() {
        let layer = BoundLayer::start_for(&engine, UseKind::CacheNamespace, PREFIX, false).await;
        let operator = connect(&layer.primary, users::OPERATOR).await;
        load(&operator, &cache_library(&[policy("web")])).await.unwrap();
        let mut program = python(&of_python, "tests/clients/python/cache_copies.py");
        layer.give_bindings(&mut program);
        let mut copies = Copies::start(program);
        change(&layer.observer, &mut copies, "one").await;
        eventually("it follows the change", SOON, async || copies.read_until_copied().await == "one").await;
        assert_eq!(server::wait(&layer.observer, 1, SOON).await.unwrap(), 1, "the replica has it");

        signal(layer.primary.pid(), "STOP");
        let began = Instant::now();
        eventually("no copy is left", ASKS_EVERY + SOON, async || !copies.is_copied().await).await;
        println!("{}: no copy is left {:.1?} after the primary stopped", engine.name, began.elapsed());
        // Each connection of before is cut at the promotion, also one that is just logging in.
        let mut promoted = None;
        eventually("the replica is promoted", SOON, async || {
            let Ok(next) = Connection::open(&endpoint(&layer.replica, OBSERVER)).await else { return false };
            if server::info(&next).await.is_ok_and(|info| info.role() == Some(Role::Primary)) {
                promoted = Some(next);
            }
            promoted.is_some()
        })
        .await;
        let next = promoted.unwrap();
        eventually("it listens to the next primary", SOON, async || subscribers(&next).await == 1).await;
        assert_eq!(copies.read_until_copied().await, "one", "{}", engine.name);
        change(&next, &mut copies, "two").await;
        eventually("it is told", SOON, async || !copies.is_copied().await).await;
        assert_eq!(copies.read_until_copied().await, "two", "{}", engine.name);
        signal(layer.primary.pid(), "CONT");
    }
}
