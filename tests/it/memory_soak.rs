//! The memory of a data node's process under everything at once, held against the limit of the pod that it was planned for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use redis::{Cmd, cmd};
use redoubt::model::Purpose;
use redoubt::model::memory::MemoryPlan;
use redoubt::model::purpose;
use redoubt::model::settings::{SettingInputs, settings};
use redoubt::redis::{Connection, server};

use crate::support::engine_process::{Engine, Process, engines};
use crate::support::eventually;

/// The default limit of a data pod.
pub const LIMIT: u64 = 256 << 20;
/// Of the limit, what is the agent's and not the server's: it is not in the process that is measured.
pub const AGENT: u64 = 12 << 20;
pub const SOON: Duration = Duration::from_mins(1);

pub fn plan() -> MemoryPlan {
    MemoryPlan::divide(&purpose::defaults(Purpose::Sessions).demand(LIMIT)).unwrap()
}

/// A data node with the settings of a layer of purpose `Sessions` as it is without a word about memory.
async fn node(engine: &Engine, further: &[&str]) -> (Process, Connection) {
    node_with(engine, further, true).await
}

/// The same without an append-only file. Its buffer is in no term and outside `maxmemory`: while the disk is busy with a sync, a
/// server holds the writes of up to two seconds in it, so that what is measured would depend on the disk.
pub async fn node_without_a_file(engine: &Engine) -> (Process, Connection) {
    node_with(engine, &[], false).await
}

async fn node_with(engine: &Engine, further: &[&str], append_only: bool) -> (Process, Connection) {
    let defaults = purpose::defaults(Purpose::Sessions);
    let process = Process::server(engine, further).await;
    let connection = process.connect().await.with_response_timeout(SOON);
    let settings = settings(&SettingInputs {
        defaults,
        memory: plan(),
        eviction_policy: defaults.eviction_policy,
        append_only,
        snapshots: true,
        min_replicas_to_write: 0,
        max_replica_lag: 3,
    });
    assert_eq!(server::config_set_all(&connection, &settings).await.unwrap(), []);
    (process, connection)
}

pub async fn field(connection: &Connection, name: &str) -> u64 {
    let text: String = connection.query(cmd("INFO").arg("everything")).await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().parse().unwrap()
}

/// The most that the process ever held in memory, bytes.
pub fn resident(pid: u64) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().split(' ').next().unwrap().parse::<u64>().unwrap() << 10
}

/// Bytes that are the process' own or its children's alone, each page once: what a container is charged for it.
fn charged(pid: u64) -> u64 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let pids = std::iter::once(pid).chain(children.split_whitespace().filter_map(|child| child.parse().ok()));
    pids.map(|pid| {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or("0 kB");
        pss.trim().split(' ').next().unwrap().parse::<u64>().unwrap() << 10
    })
    .sum()
}

pub async fn fill(connection: &Connection, until: u64) {
    let mut number = 0_u64;
    loop {
        let commands: Vec<Cmd> = (0..500)
            .map(|_| {
                number += 1;
                cmd("SET").arg(format!("key:{number}")).arg("x".repeat(900)).clone()
            })
            .collect();
        connection.query_all(&commands).await.unwrap();
        if field(connection, "used_memory").await >= until {
            return;
        }
    }
}

#[tokio::test]
async fn no_connection_that_the_binding_allows_is_ended_for_memory() {
    for engine in engines() {
        let (process, admin) = node(&engine, &[]).await;
        let allowed = usize::try_from(plan().max_connections).unwrap();
        let mut all = Vec::new();
        for _ in 0..allowed / 50 {
            all.extend(join_all((0..50).map(|_| process.connect())).await);
        }
        for value in ["x".repeat(10), "x".repeat(8_000)] {
            for some in all.chunks(100) {
                let used = some.iter().map(async |connection| {
                    connection.query::<()>(cmd("SET").arg("key").arg(&value)).await?;
                    connection.query::<String>(cmd("GET").arg("key")).await
                });
                assert!(join_all(used).await.iter().all(Result::is_ok), "{}", engine.name);
            }
        }
        // One of them sends and asks for the largest value.
        let largest = "x".repeat(usize::try_from(plan().largest_value).unwrap());
        all[0].query::<()>(cmd("SET").arg("large").arg(&largest)).await.unwrap();
        assert_eq!(all[1].query::<String>(cmd("GET").arg("large")).await.unwrap().len(), largest.len());
        assert_eq!(field(&admin, "evicted_clients").await, 0, "{}", engine.name);
        assert!(field(&admin, "connected_clients").await > u64::from(plan().max_connections));
        for connection in &all {
            connection.query::<String>(&cmd("PING")).await.unwrap();
        }
    }
}

#[tokio::test]
async fn one_command_passes_maxmemory_by_no_more_than_its_term() {
    for engine in engines() {
        let (process, admin) = node_without_a_file(&engine).await;
        fill(&admin, plan().maxmemory / 20 * 19).await;
        let largest = plan().largest_value;
        let client = process.connect().await.with_response_timeout(SOON);
        for words in [
            format!("SETRANGE big {} x", 100 << 20),
            format!("SETRANGE big {largest} x"),
            format!("SETBIT bits {} 1", 8 * largest),
            format!("BITFIELD bits SET u8 {} 1", 8 * largest),
        ] {
            let mut command = Cmd::new();
            command.arg(words.split(' ').collect::<Vec<_>>());
            client.query::<redis::Value>(&command).await.expect_err(&words);
        }
        // The largest that are taken, until no more are.
        let mut number = 0;
        loop {
            number += 1;
            let mut command = cmd("SETRANGE");
            if client.query::<u64>(command.arg(format!("big{number}")).arg(largest - 1).arg("x")).await.is_err() {
                break;
            }
        }
        let (used, highest) = (field(&admin, "used_memory").await, field(&admin, "used_memory_peak").await);
        // The allocator's sizes are up to a quarter apart, which is in the term of fragmentation.
        let bound = plan().maxmemory + plan().largest_command / 4 * 5 + (1 << 20);
        assert!(number > 1 && used <= bound && highest <= bound, "{}: {used} {highest} {bound}", engine.name);
        // A reply that would take more than all clients may together ends the connection that asked for it.
        let many: Vec<&str> = std::iter::repeat_n("big1", 200).collect();
        client.query::<redis::Value>(cmd("MGET").arg(&many)).await.unwrap_err();
        let highest = field(&admin, "used_memory_peak").await;
        assert!(highest <= bound + plan().of_clients() + largest, "{}: {highest}", engine.name);
        let pid = field(&admin, "process_id").await;
        assert!(resident(pid) < LIMIT - AGENT, "{}: {}", engine.name, resident(pid));
    }
}

#[tokio::test]
async fn a_replica_that_takes_nothing_costs_its_primary_no_more_than_its_term() {
    for engine in engines() {
        let (primary, admin) = node_without_a_file(&engine).await;
        let (second, replica) = node_without_a_file(&engine).await;
        second.follow(&replica, &primary).await;
        let pid = field(&replica, "process_id").await.to_string();
        let signal = |name: &str| assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
        signal("-STOP");
        let before = field(&admin, "used_memory").await;
        let value = "x".repeat(1 << 20);
        for _ in 0..100 {
            admin.query::<()>(cmd("SET").arg("one").arg(&value)).await.unwrap();
        }
        let used = field(&admin, "used_memory").await;
        signal("-CONT");
        // The value itself, what a buffer's last block is larger, and what was received.
        let bound = plan().replica_buffers + (8 << 20);
        assert!(used - before < bound, "{}: {} of {bound}", engine.name, used - before);
        // It says that its link is up until it has read that it was cut.
        eventually("the replica has what was written", SOON, async || {
            replica.query::<usize>(cmd("STRLEN").arg("one")).await.is_ok_and(|length| length == value.len())
        })
        .await;
    }
}

/// Stands between a server and its disk: a sync takes three seconds while there is a file of this name.
const SLOW_SYNC: &str = r#"
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
int fdatasync(int file) {
  const char *switch_ = getenv("SLOW_SYNC");
  struct timespec three_seconds = {3, 0};
  if (!switch_ || access(switch_, F_OK)) return fsync(file);
  return nanosleep(&three_seconds, 0);
}
"#;

/// The engine with a disk that is slow while the file is there.
fn on_slow_disk(engine: &Engine, folder: &Path) -> (Engine, PathBuf) {
    let (source, library, switch) = (folder.join("slow.c"), folder.join("slow.so"), folder.join("is-slow"));
    fs::write(&source, SLOW_SYNC).unwrap();
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-nostdlib", "-o"]).arg(&library).arg(&source).status();
    assert!(compiled.unwrap().success());
    let environment = [("LD_PRELOAD", &library), ("SLOW_SYNC", &switch)];
    let environment = environment.map(|(name, path)| (name.to_owned(), path.display().to_string()));
    (Engine { environment: environment.into(), ..engine.clone() }, switch)
}

/// A server holds what is written during a sync in a buffer that `maxmemory` does not count, for two seconds at most. The room for pages
/// that change while a child saves holds it, up to half of that room in a second.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_disk_costs_two_seconds_of_writes_which_the_room_for_saving_holds() {
    const VALUE: u64 = 10_000;
    const BATCH: u64 = 20;
    let room = plan().copy_on_write;
    // Four fifths of what there is room for.
    let pause = Duration::from_micros(2_000_000 * BATCH * VALUE / (room / 5 * 4));
    let value = "x".repeat(usize::try_from(VALUE).unwrap());
    for engine in engines() {
        let folder = std::env::temp_dir().join(format!("redoubt-slow-{}-{}", engine.name, std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (slow, switch) = on_slow_disk(&engine, &folder);
        let (process, admin) = node(&slow, &[]).await;
        fill(&admin, plan().maxmemory / 10 * 9).await;
        // One that ends meanwhile would have its main thread wait for a sync as well.
        let never = BTreeMap::from([("auto-aof-rewrite-percentage".to_owned(), "0".to_owned())]);
        assert_eq!(server::config_set_all(&admin, &never).await.unwrap(), []);
        eventually("no file is written anew", SOON, async || field(&admin, "aof_rewrite_in_progress").await == 0).await;
        let pid = field(&admin, "process_id").await;
        let writer = process.connect().await.with_response_timeout(SOON);
        fs::write(&switch, "").unwrap();
        let (began, lasting) = (Instant::now(), Duration::from_secs(10));
        let (mut held, mut most, mut written) = (0, 0, 0_u64);
        while began.elapsed() < lasting {
            let due = tokio::time::Instant::now() + pause;
            let commands: Vec<Cmd> =
                (0..BATCH).map(|number| cmd("SET").arg(format!("slow:{number}")).arg(&value).clone()).collect();
            for reply in writer.query_all(&commands).await.unwrap() {
                reply.unwrap();
            }
            written += BATCH * VALUE;
            held = held.max(field(&admin, "mem_aof_buffer").await);
            most = most.max(charged(pid));
            tokio::time::sleep_until(due).await;
        }
        let rate = written / began.elapsed().as_secs().max(1);
        println!(
            "{}, 9/10 full, {} MB/s, a sync takes 3 s: at most {} MiB in the buffer, {} of {} MiB in all",
            engine.name,
            rate / 1_000_000,
            held >> 20,
            most >> 20,
            LIMIT >> 20
        );
        assert!(held > rate, "{}: {held}: no sync was slow", engine.name);
        assert!(held < room, "{}: {held} at {rate} in a second", engine.name);
        assert!(most < LIMIT - AGENT, "{}: {most}", engine.name);
        fs::remove_dir_all(&folder).unwrap();
    }
}

/// Data, a replica that takes nothing, a thousand fresh connections, files written again and again, and large values. `make soak` gives
/// it minutes.
#[tokio::test(flavor = "multi_thread")]
async fn everything_at_once_stays_below_the_limit_of_the_pod() {
    let seconds = std::env::var("REDOUBT_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    for engine in engines() {
        // Fresh connections count in `maxmemory`: with nine tenths full, writes are refused until they are idle.
        for (tenths, are_taken) in [(9, false), (5, true)] {
            everything_at_once(&engine, tenths, are_taken, Duration::from_secs(seconds)).await;
        }
    }
}

async fn everything_at_once(engine: &Engine, tenths: u64, are_taken: bool, lasting: Duration) {
    /// Connections that send large values.
    const LARGE: usize = 5;
    let (primary, admin) = node(engine, &[]).await;
    let (second, replica) = node(engine, &[]).await;
    second.follow(&replica, &primary).await;
    fill(&admin, plan().maxmemory / 10 * tenths).await;
    let replica_pid = field(&replica, "process_id").await.to_string();
    let signal = |name: &str| assert!(Command::new("kill").args([name, &replica_pid]).status().unwrap().success());
    signal("-STOP");
    let pid = field(&admin, "process_id").await;
    let connections = usize::try_from(plan().max_connections).unwrap();
    let mut all = Vec::new();
    for _ in 0..connections / 50 {
        all.extend(join_all((0..50).map(|_| primary.connect())).await);
    }
    let (large_ones, small_ones) = all.split_at(LARGE);
    let (mut refused, mut writes, mut large_values) = (0_u64, 0_u64, 0_u64);
    let ended = Arc::new(AtomicBool::new(false));
    let sampled = {
        let ended = Arc::clone(&ended);
        std::thread::spawn(move || {
            let mut most = 0;
            while !ended.load(Ordering::Relaxed) {
                most = most.max(charged(pid));
                std::thread::sleep(Duration::from_millis(20));
            }
            most
        })
    };
    let large = "x".repeat(1 << 20);
    let until = Instant::now() + lasting;
    for some in small_ones.chunks(99).cycle() {
        if Instant::now() > until {
            break;
        }
        // One is under way already, for most of the time.
        let _ = admin.query::<String>(&cmd("BGREWRITEAOF")).await;
        let small = some.iter().enumerate().map(async |(number, connection)| {
            connection.query::<()>(cmd("SET").arg(format!("key:{number}")).arg("y".repeat(900))).await.is_ok()
        });
        let big = large_ones.iter().enumerate().map(async |(number, connection)| {
            connection.query::<()>(cmd("SET").arg(format!("large{number}")).arg(&large)).await.is_ok()
        });
        let (small, big) = tokio::join!(join_all(small), join_all(big));
        large_values += u64::try_from(big.iter().filter(|is_taken| **is_taken).count()).unwrap();
        for is_taken in small.into_iter().chain(big) {
            writes += 1;
            refused += u64::from(!is_taken);
        }
    }
    ended.store(true, Ordering::Relaxed);
    let most = sampled.join().unwrap();
    signal("-CONT");
    assert!(field(&admin, "aof_rewrites").await > 0, "{}: no file was written again", engine.name);
    assert!(!are_taken || large_values > 0, "{}: no large value was taken", engine.name);
    let (own, ended) = (resident(pid), field(&admin, "evicted_clients").await);
    println!(
        "{}, {tenths}/10 full: of {} MiB at most {} with its child, {} alone; {writes} writes, {refused} refused, {ended} connections ended",
        engine.name,
        LIMIT >> 20,
        most >> 20,
        own >> 20
    );
    assert!(most < LIMIT - AGENT && own < LIMIT - AGENT, "{}: {most} {own}", engine.name);
    assert!(!are_taken || refused * 2 < writes, "{}: {refused} of {writes} writes were refused", engine.name);
    for connection in small_ones {
        connection.query::<String>(&cmd("PING")).await.unwrap();
    }
}
