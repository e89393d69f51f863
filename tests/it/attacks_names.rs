//! Names that a connection holds and that no limit of a server counts.

use std::time::Duration;

use redoubt::model::NodeId;
use redoubt::redis::{Connection, Endpoint, server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::support::engine_process::engines;
use crate::support::eventually;
use crate::support::layer::{Layer, Options, SOON};

/// A little less than the least `proto-max-bulk-len`.
const NAME: usize = 900_000;
const MAXMEMORY: u64 = 32 << 20;
/// Words of a command, connections, and commands on each.
type Holders = (&'static [&'static str], usize, usize);
const ON_DATA: [Holders; 4] =
    [(&["SUBSCRIBE"], 1, 90), (&["PSUBSCRIBE"], 1, 90), (&["WATCH"], 1, 90), (&["CLIENT", "SETNAME"], 90, 1)];
const ON_SENTINEL: [Holders; 2] = [(&["PSUBSCRIBE"], 1, 60), (&["CLIENT", "SETNAME"], 60, 1)];
/// Connections without a login that fill a Sentinel by half a command each.
const WITHOUT_LOGIN: usize = 450;
/// The most words of a command before the login, and the longest of them, bytes.
const WORDS_BEFORE_LOGIN: (usize, usize) = (10, 16_384);

fn command(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}

/// A connection of the application that sends `words` with `count` long names, one command each, and reads whatever comes. It ends with
/// the connection.
fn hold(endpoint: &Endpoint, words: &'static [&'static str], count: usize) -> JoinHandle<()> {
    let address = format!("{}:{}", endpoint.address, endpoint.port);
    let login = command(&["AUTH", &endpoint.username, endpoint.password.reveal()]);
    tokio::spawn(async move {
        let (mut from, mut to) = TcpStream::connect(address).await.unwrap().into_split();
        let read = tokio::spawn(async move {
            let mut buffer = vec![0; 65_536];
            while from.read(&mut buffer).await.is_ok_and(|bytes| bytes > 0) {}
        });
        to.write_all(&login).await.unwrap();
        for number in 0..count {
            let name = format!("{number:06}{}", "n".repeat(NAME));
            let words: Vec<&str> = words.iter().copied().chain([name.as_str()]).collect();
            if to.write_all(&command(&words)).await.is_err() {
                break;
            }
        }
        read.await.unwrap();
    })
}

async fn used(agent: &Connection) -> u64 {
    server::info(agent).await.unwrap().number("used_memory").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_hold_long_names_are_ended_before_they_fill_the_pod() {
    let settings = &[("maxmemory", "33554432"), ("proto-max-bulk-len", "1048576"), ("maxmemory-clients", "8388608")];
    let layer = Layer::in_sync(&Options { detection: 10_000, settings, ..Options::default() }).await;
    let (primary, endpoint) = (layer.primary().await.unwrap(), layer.endpoint(layer.primary().await.unwrap()));
    let agent = Connection::open(&layer.operator_on(primary)).await.unwrap();
    let full_syncs = server::info(&agent).await.unwrap().number("sync_full");
    let engine = layer.engine_pids(primary);
    for (words, connections, names) in ON_DATA {
        let held: Vec<_> = (0..connections).map(|_| hold(&endpoint, words, names)).collect();
        // Some engines count a connection's own name, and end connections themselves.
        let took = eventually("the memory is given back", SOON, async || {
            held.iter().any(JoinHandle::is_finished) && used(&agent).await < MAXMEMORY
        })
        .await;
        println!("{words:?}: given back after {took:.2?}");
        let application = Connection::open(&endpoint).await.unwrap();
        application.query::<()>(redis::cmd("SET").arg("key").arg(1)).await.unwrap();
    }
    let notices = layer.lineage(primary).await.unwrap().notices;
    assert_eq!(notices, ["connections of app were ended: they held memory that no limit counts"]);
    assert_eq!((layer.engine_pids(primary), layer.primary().await), (engine, Some(primary)));
    assert_eq!(server::info(&agent).await.unwrap().number("sync_full"), full_syncs, "no replica was cut");
}

/// Sends commands of the application in one go, and reads the answers until it has them all or is ended.
async fn send(endpoint: &Endpoint, commands: impl Iterator<Item = Vec<u8>>) {
    let mut stream = TcpStream::connect(format!("{}:{}", endpoint.address, endpoint.port)).await.unwrap();
    let mut all = command(&["AUTH", &endpoint.username, endpoint.password.reveal()]);
    all.extend(commands.flatten());
    all.extend(command(&["QUIT"]));
    let (mut from, mut to) = stream.split();
    let read = async {
        let mut buffer = vec![0; 65_536];
        while from.read(&mut buffer).await.is_ok_and(|bytes| bytes > 0) {}
    };
    // A server that ends the connection takes no more.
    let (_, ()) = tokio::join!(to.write_all(&all), read);
}

/// What a client leaves behind on a server when its connection has ended: names of keys that it tracked, its scripts, and counts of the
/// errors that these made up. Redis 7.0 keeps as many scripts and counts as come.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_leaves_behind_fills_no_server_and_keeps_it_from_nothing() {
    let settings = &[
        ("maxmemory", "33554432"),
        ("proto-max-bulk-len", "1048576"),
        ("maxmemory-clients", "8388608"),
        ("tracking-table-max-keys", "1"),
    ];
    let redis_7 = engines().into_iter().find(|engine| engine.name.starts_with("redis-7"));
    let engine = redis_7.unwrap_or_else(|| engines().remove(0));
    let layer =
        Layer::in_sync(&Options { detection: 10_000, settings, engine: Some(engine), ..Options::default() }).await;
    let (primary, endpoint) = (layer.primary().await.unwrap(), layer.endpoint(layer.primary().await.unwrap()));
    let agent = Connection::open(&layer.operator_on(primary)).await.unwrap();
    let pids = layer.engine_pids(primary);
    let takes_writes = async || {
        let application = Connection::open(&endpoint).await.unwrap();
        application.query::<()>(redis::cmd("SET").arg("key").arg(1)).await.is_ok()
    };
    let name = |number: usize| format!("{number:06}{}", "n".repeat(NAME));

    let mut listener = TcpStream::connect(format!("{}:{}", endpoint.address, endpoint.port)).await.unwrap();
    let mut hello = command(&["AUTH", &endpoint.username, endpoint.password.reveal()]);
    hello.extend(command(&["CLIENT", "ID"]));
    hello.extend(command(&["SUBSCRIBE", "__redis__:invalidate"]));
    listener.write_all(&hello).await.unwrap();
    let mut text = String::new();
    while !text.contains("subscribe") {
        let mut buffer = [0; 512];
        let bytes = listener.read(&mut buffer).await.unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..bytes]));
    }
    let id = text.lines().find_map(|line| line.strip_prefix(':')).unwrap().to_owned();
    let drained = tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        while listener.read(&mut buffer).await.is_ok_and(|bytes| bytes > 0) {}
    });
    let tracks = std::iter::once(command(&["CLIENT", "TRACKING", "ON", "REDIRECT", &id]));
    send(&endpoint, tracks.chain((0..60).map(|number| command(&["GET", &name(number)])))).await;
    drained.abort();
    eventually("tracked names are given back", SOON, async || used(&agent).await < MAXMEMORY && takes_writes().await)
        .await;

    let script = |number: usize| format!("return '{}'", name(number));
    send(&endpoint, (0..60).map(|number| command(&["SCRIPT", "LOAD", &script(number)]))).await;
    eventually("the scripts are gone", SOON, async || {
        let kept = server::info(&agent).await.unwrap().number("number_of_cached_scripts");
        kept.is_some_and(|kept| kept < 10) && used(&agent).await < MAXMEMORY && takes_writes().await
    })
    .await;

    let error =
        |number: usize| command(&["EVAL", "return redis.error_reply(ARGV[1])", "0", &format!("E{number} made up")]);
    send(&endpoint, (0..30_000).map(error)).await;
    eventually("no more counts are kept than a server tells at once", SOON, async || {
        let counts: String = agent.query(redis::cmd("INFO").arg("errorstats")).await.unwrap();
        counts.lines().count() < 2_000
    })
    .await;
    assert!(takes_writes().await);
    assert_eq!((layer.engine_pids(primary), layer.primary().await), (pids, Some(primary)), "no failover");

    let no_text = command(&["EVAL", "return redis.error_reply('\\255\\254 made up')", "0"]);
    // Later engines keep no counts at all after many, until they are set to zero; which the agent may be about to do as well.
    let system = Connection::open(&layer.agent_on(primary)).await.unwrap();
    eventually("the server repeats a word that is no text", SOON, async || {
        system.query::<()>(redis::cmd("CONFIG").arg("RESETSTAT")).await.unwrap();
        send(&endpoint, std::iter::once(no_text.clone())).await;
        let counts: Vec<u8> = agent.query(redis::cmd("INFO").arg("errorstats")).await.unwrap();
        counts.windows(12).any(|word| word == b"errorstat_\xff\xfe")
    })
    .await;
    server::info_with_commands(&agent).await.unwrap();
    let metrics = layer.metrics(primary).await.unwrap();
    assert!(metrics.contains("\nredis_up 1"), "one word hides the server: {metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_fill_a_sentinel_are_ended() {
    let layer = Layer::in_sync(&Options { detection: 10_000, ..Options::default() }).await;
    let sentinel = NodeId::sentinel(0);
    let (engine, endpoint) = (layer.engine_pids(sentinel), layer.endpoint(sentinel));
    for (words, connections, names) in ON_SENTINEL {
        let held: Vec<_> = (0..connections).map(|_| hold(&endpoint, words, names)).collect();
        let took =
            eventually("the connections are ended", SOON, async || held.iter().all(JoinHandle::is_finished)).await;
        println!("Sentinel, {words:?}: ended after {took:.2?}");
        tokio::time::timeout(Duration::from_secs(5), Connection::open(&endpoint)).await.unwrap().unwrap();
    }
    assert_eq!(layer.engine_pids(sentinel), engine);
}

/// A connection that sends all of a command but its last word, and reads until it ends. It never logs in.
fn hold_half_a_command(endpoint: &Endpoint) -> JoinHandle<()> {
    let address = format!("{}:{}", endpoint.address, endpoint.port);
    let (words, longest) = WORDS_BEFORE_LOGIN;
    let word = format!("${longest}\r\n{}\r\n", "x".repeat(longest));
    tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let half = format!("*{words}\r\n{}", word.repeat(words - 1));
        if stream.write_all(half.as_bytes()).await.is_ok() {
            let mut buffer = [0; 256];
            while stream.read(&mut buffer).await.is_ok_and(|bytes| bytes > 0) {}
        }
    })
}

/// The agent ended connections of users only, so these stayed until the kernel ended the Sentinel.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_command_of_many_without_a_login_fills_no_sentinel() {
    let layer = Layer::in_sync(&Options { detection: 10_000, ..Options::default() }).await;
    let sentinel = NodeId::sentinel(0);
    let (engine, endpoint) = (layer.engine_pids(sentinel), layer.endpoint(sentinel));
    let held: Vec<_> = (0..WITHOUT_LOGIN).map(|_| hold_half_a_command(&endpoint)).collect();
    // Those that come after the first round, and no longer fill it, stay.
    let took = eventually("they are ended", SOON, async || held.iter().any(JoinHandle::is_finished)).await;
    println!("Sentinel, half commands without a login: ended after {took:.2?}");
    eventually("it takes a login", SOON, async || Connection::open(&endpoint).await.is_ok()).await;
    assert_eq!(layer.engine_pids(sentinel), engine);
}
