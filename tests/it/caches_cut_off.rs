//! A process that keeps copies of entries, by the documented example, and is really cut off from the server for a while.

use std::process::Stdio;
use std::time::{Duration, Instant};

use redis::cmd;
use redoubt::dataplane::{cache_library, load};
use redoubt::model::UseKind;
use redoubt::redis::users;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::support::bound_layer::{BoundLayer, CHANNEL, PREFIX, connect, installed, python};
use crate::support::cache_calls::{policy, tell};
use crate::support::cut_way::{Cut, Way};
use crate::support::engine_process::{PORT, engines};
use crate::support::eventually;
use crate::support::function_calls::number;

const KEY: &str = "web:{0}product 42";
const SOON: Duration = Duration::from_secs(30);
/// How long it is cut off.
const AWAY: Duration = Duration::from_secs(5);
/// How often the example asks for the position: so long a lost message stays unnoticed.
const ASKS_EVERY: Duration = Duration::from_secs(5);

/// `tests/clients/python/cache_copies.py`. It ends when dropped.
struct Copies {
    _child: Child,
    input: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Copies {
    fn start(mut program: Command) -> Self {
        program.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = program.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { _child: child, input, answers: BufReader::new(output).lines() }
    }

    async fn ask(&mut self, line: &str) -> String {
        self.input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let answer = tokio::time::timeout(SOON, self.answers.next_line()).await;
        answer.expect("it answers").unwrap().expect("it goes on")
    }

    async fn is_copied(&mut self) -> bool {
        self.ask(&format!("copied {KEY}")).await == "yes"
    }

    /// Reads until it keeps a copy, and answers what it read last.
    async fn read_until_copied(&mut self) -> String {
        let mut value = String::new();
        eventually("it keeps a copy", SOON, async || {
            value = self.ask(&format!("read {KEY}")).await;
            self.is_copied().await
        })
        .await;
        value
    }
}

/// The entry is invalidated and has another value, in the source too.
async fn change(layer: &BoundLayer, copies: &mut Copies, value: &str) {
    copies.ask(&format!("source {value}")).await;
    number(&layer.observer, "cache_invalidate", &[KEY], &[]).await;
    tell(&layer.observer, "set", KEY, &["", value]).await;
}

async fn subscribers(layer: &BoundLayer) -> i64 {
    let reply: (String, i64) = layer.observer.query(cmd("PUBSUB").arg("NUMSUB").arg(CHANNEL)).await.unwrap();
    reply.1
}

/// Cut off for five seconds, in which the entry changes: no copy of before outlives it, and messages are heard again.
async fn is_cut_off(layer: &BoundLayer, way: &Way, copies: &mut Copies, cut: Cut) {
    change(layer, copies, "one").await;
    eventually("it follows the change", SOON, async || copies.read_until_copied().await == "one").await;
    assert_eq!(subscribers(layer).await, 1);

    let lost = way.lost();
    way.cut(cut);
    let began = Instant::now();
    if cut == Cut::Connections {
        eventually("the server has lost it", SOON, async || subscribers(layer).await == 0).await;
    }
    change(layer, copies, "two").await;
    for number_of_change in 0..3 {
        number(&layer.observer, "cache_invalidate", &[&format!("web:{{0}}other {number_of_change}")], &[]).await;
    }
    if cut == Cut::Connections {
        eventually("it drops its copies while it is away", AWAY, async || !copies.is_copied().await).await;
    }
    tokio::time::sleep(AWAY.saturating_sub(began.elapsed())).await;
    if cut == Cut::Messages {
        assert!(way.lost() > lost, "the stage is not set");
        assert_eq!(subscribers(layer).await, 1, "the connection stayed: nothing but a number can tell");
    }
    way.cut(Cut::Nothing);
    // No message comes now: it has to ask.
    eventually("it notices what it missed", ASKS_EVERY + SOON, async || !copies.is_copied().await).await;
    println!("{cut:?}: no copy is left {:.1?} after the cut", began.elapsed());
    assert_eq!(copies.read_until_copied().await, "two", "{cut:?}");

    eventually("it listens again", SOON, async || subscribers(layer).await == 1).await;
    assert!(copies.is_copied().await || copies.read_until_copied().await == "two");
    change(layer, copies, "three").await;
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
