//! What a scrape costs: the agent's `/metrics` beside Debian's `prometheus-redis-exporter`, on the same server, in one run.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use redoubt::model::node_config::AGENT_PORT;
use redoubt::redis::{Connection, Endpoint};

use crate::support::eventually;
use crate::support::layer::{Layer, Options, SOON};

const SCRAPES: u32 = 200;
/// The agent is this build's.
const BUILT: &str = if cfg!(debug_assertions) { "an agent without optimisation" } else { "an agent with optimisation" };
const PAGE: &str = "docs/promises.md";
const BEGIN: &str = "<!-- scrapes: written by `make bench` -->";
const END: &str = "<!-- end of scrapes -->";

async fn get(address: &str, path: &str) -> Option<String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

/// Commands that the server carried out, and the microseconds that they took.
async fn work_done(endpoint: &Endpoint) -> (u64, u64) {
    let connection = Connection::open(endpoint).await.unwrap();
    let text: String = connection.query(redis::cmd("INFO").arg("commandstats")).await.unwrap();
    let field = |line: &str, name: &str| {
        let value = line.split([':', ',']).find_map(|part| part.strip_prefix(name)?.strip_prefix('='))?;
        value.parse::<u64>().ok()
    };
    let sum = |name: &str| text.lines().filter_map(|line| field(line, name)).sum();
    (sum("calls"), sum("usec"))
}

/// Wall time, commands and server microseconds of each scrape.
async fn cost(server: &Endpoint, address: &str) -> (Duration, f64, f64) {
    let before = work_done(server).await;
    let began = Instant::now();
    for _ in 0..SCRAPES {
        assert!(
            get(address, "/metrics").await.is_some_and(|text| text.contains("redis_up 1")),
            "no scrape at {address}"
        );
    }
    let (elapsed, after) = (began.elapsed(), work_done(server).await);
    let each = |difference: u64| f64::from(u32::try_from(difference).unwrap()) / f64::from(SCRAPES);
    (elapsed / SCRAPES, each(after.0 - before.0), each(after.1 - before.1))
}

/// Calls of one command since the server's start.
async fn calls(connection: &Connection, command: &str) -> u64 {
    let info = redoubt::redis::server::info_with_commands(connection).await.unwrap();
    info.commands().find(|known| known.name == command).map_or(0, |known| known.calls)
}

/// A scrape opens no connection and logs in nowhere: the one that is kept is asked, and a new one is made when it was cut.
#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_is_one_info_on_a_connection_that_is_kept() {
    let layer = Layer::in_sync(&Options::default()).await;
    let server = layer.operator_on(layer.primary().await.unwrap());
    let address = format!("{}:{AGENT_PORT}", server.address);
    assert!(get(&address, "/").await.is_some_and(|text| text.contains("/metrics")), "a person finds the way");
    let connection = Connection::open(&server).await.unwrap();
    let scrape = async || get(&address, "/metrics").await.is_some_and(|text| text.contains("redis_up 1"));
    assert!(scrape().await);
    let (logins, infos) = (calls(&connection, "auth").await, calls(&connection, "info").await);
    for _ in 0..SCRAPES {
        assert!(scrape().await);
    }
    let logins = calls(&connection, "auth").await - logins;
    assert!(logins < u64::from(SCRAPES) / 4, "{logins} logins in {SCRAPES} scrapes");
    assert!(calls(&connection, "info").await - infos >= u64::from(SCRAPES));
    redoubt::redis::server::cut_clients(&connection).await.unwrap();
    assert!(scrape().await, "a connection that was cut is replaced within the scrape");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a figure: make bench"]
async fn scrapes_are_measured_and_written() {
    let layer = Layer::in_sync(&Options::default()).await;
    let primary = layer.primary().await.unwrap();
    let server = layer.operator_on(primary);
    let exporter = "127.0.0.1:19121";
    let mut process = Command::new("prometheus-redis-exporter")
        .args(["-redis.addr", &format!("redis://{}:{}", server.address, server.port), "-web.listen-address", exporter])
        .env("REDIS_USER", &server.username)
        .env("REDIS_PASSWORD", server.password.reveal())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("Debian's package prometheus-redis-exporter");
    eventually("the exporter answers", SOON, async || {
        get(exporter, "/metrics").await.is_some_and(|text| text.contains("redis_up 1"))
    })
    .await;
    // The same connection set-up, agents' looks and Sentinels' questions go on during both.
    let theirs = cost(&server, exporter).await;
    let ours = cost(&server, &format!("{}:{AGENT_PORT}", server.address)).await;
    process.kill().unwrap();
    process.wait().unwrap();
    let ratio = theirs.0.as_secs_f64() / ours.0.as_secs_f64();
    let text = format!(
        "{BEGIN}\n\n{SCRAPES} scrapes of the same primary one after the other, Redis 7.0, {BUILT}; commands of Sentinels, \
         replicas and the agent's own looks in that time are counted in both.\n\n\
         | | commands per scrape | server time per scrape | wall time per scrape |\n|---|---|---|---|\n\
         | agent `/metrics` | {:.1} | {:.0} µs | {:.2} ms |\n| `prometheus-redis-exporter` | {:.1} | {:.0} µs | {:.2} ms |\n\n\
         Ratio of wall times: {ratio:.1}.\n\n{END}",
        ours.1,
        ours.2,
        ours.0.as_secs_f64() * 1e3,
        theirs.1,
        theirs.2,
        theirs.0.as_secs_f64() * 1e3,
    );
    println!("{text}");
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (head, rest) = page.split_once(BEGIN).expect("the page has a place for this");
    let (_, tail) = rest.split_once(END).expect("the place has an end");
    std::fs::write(PAGE, format!("{head}{text}{tail}")).unwrap();
}
