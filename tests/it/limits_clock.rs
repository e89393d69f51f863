//! Each algorithm on a server whose clock is set by an hour, back and forward (`tests/engines/clock.c`): what is then admitted, and for how long
//! a subject is kept out. `limits_oracles` has the same to the microsecond, with a clock that the library is given.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::cmd;
use redoubt::dataplane::{limit_library, load};
use redoubt::model::limit_policy::{Algorithm, LimitPolicy};
use redoubt::redis::Connection;

use crate::support::engine_process::{Engine, Process, engines};
use crate::support::eventually;
use crate::support::limit_calls::{MINUTE, admit, algorithms, one_of_each, peek};

const QUOTA: u64 = 20;
/// One unit is free again after this time, milliseconds.
const INTERVAL: i64 = 3_000;
const WINDOW: i64 = 60_000;
const HOUR: i64 = 3_600_000;
const SOON: Duration = Duration::from_secs(10);

/// A server whose clock differs from this machine's by what a file says.
struct ClockedServer {
    _process: Process,
    connection: Connection,
    file: PathBuf,
}

impl ClockedServer {
    async fn start(engine: &Engine, policies: &[LimitPolicy]) -> Self {
        let output = Command::new("tests/engines/clock").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let library = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        let file = std::env::temp_dir().join(format!("redoubt-clock-{}-{}", std::process::id(), engine.name));
        fs::write(&file, 0_i64.to_ne_bytes()).unwrap();
        let mut engine = engine.clone();
        for (name, value) in [("LD_PRELOAD", library.as_str()), ("CLOCK_FILE", file.to_str().unwrap())] {
            engine.environment.insert(name.to_owned(), value.to_owned());
        }
        let process = Process::server(&engine, &[]).await;
        let connection = process.connect().await;
        load(&connection, &limit_library(policies)).await.unwrap();
        Self { _process: process, connection, file }
    }

    /// Sets its clock to ours and these milliseconds.
    async fn set(&self, milliseconds: i64) {
        // In place: the server has the file in its memory.
        let file = fs::File::options().write(true).open(&self.file).unwrap();
        file.write_all_at(&(milliseconds * 1_000).to_ne_bytes(), 0).unwrap();
        eventually("the clock is set", SOON, async || {
            let (seconds, micros): (i64, i64) = self.connection.query(&cmd("TIME")).await.unwrap();
            let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
            let differs = seconds * 1_000 + micros / 1_000 - i64::try_from(ours).unwrap();
            (differs - milliseconds).abs() < 900
        })
        .await;
    }

    /// Calls until one is denied; how many were admitted, and for how many milliseconds the denial says to wait.
    async fn spend(&self, key: &str) -> (i64, i64) {
        for admitted in 0..100 {
            let answer = admit(&self.connection, key, &[]).await;
            if answer.allowed == 0 {
                return (admitted, answer.retry);
            }
        }
        panic!("{key} has no end");
    }
}

impl Drop for ClockedServer {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

/// Whether an algorithm counts by time that is worked off: it goes on at its rate whatever the clock did.
fn is_meter(algorithm: Algorithm) -> bool {
    algorithm.burst().is_some()
}

/// Whether it counts by windows of the clock: a window that is more than one ahead is none of its own.
fn forgets(algorithm: Algorithm) -> bool {
    matches!(algorithm, Algorithm::FixedWindow | Algorithm::SlidingCounter)
}

/// After the clock was set back from `from` to `to`, of a subject that had used all.
async fn is_back(server: &ClockedServer, algorithm: Algorithm, key: &str, to: i64) {
    let first = admit(&server.connection, key, &[]).await;
    assert_eq!(first.allowed == 1, forgets(algorithm), "{key}: {first:?}");
    let (more, retry) = server.spend(key).await;
    let extra = first.allowed + more;
    // A new quota at most, and of a fixed window another one if the window ends just now.
    assert!(extra <= if forgets(algorithm) { 2 * 20 } else { 1 }, "{key}: {extra} at once after the clock went back");
    let longest = match algorithm {
        Algorithm::SlidingCounter => 2 * WINDOW,
        _ if is_meter(algorithm) => INTERVAL,
        _ => WINDOW,
    };
    assert!((1..=longest).contains(&retry), "{key}: kept out for {retry} ms");
    let kept: i64 = {
        let names: Vec<String> = server.connection.query(cmd("KEYS").arg(format!("{key}*"))).await.unwrap();
        server.connection.query(cmd("PTTL").arg(&names[0])).await.unwrap()
    };
    assert!((1..=2 * WINDOW).contains(&kept), "{key}: its state is kept for {kept} ms");

    // In the window that follows it is held to its rate.
    let mut admitted = 0;
    for step in 0..i64::try_from(QUOTA).unwrap() {
        server.set(to + step * INTERVAL).await;
        for _ in 0..3 {
            admitted += admit(&server.connection, key, &[]).await.allowed;
        }
    }
    let quota = i64::try_from(QUOTA).unwrap();
    let most =
        if is_meter(algorithm) || matches!(algorithm, Algorithm::SlidingLog { .. }) { quota + 2 } else { 2 * quota };
    assert!(admitted <= most, "{key}: {admitted} in the window after the clock went back");
    let (_, retry) = server.spend(key).await;
    let now = to + (i64::try_from(QUOTA).unwrap() - 1) * INTERVAL;
    server.set(now + retry).await;
    assert_eq!(peek(&server.connection, key, &[]).await.allowed, 1, "{key}: refused after {retry} ms");
}

#[tokio::test]
async fn a_clock_that_is_set_by_an_hour_keeps_no_subject_out_and_admits_at_most_a_quota_more() {
    for engine in engines() {
        let server = ClockedServer::start(&engine, &one_of_each(QUOTA, MINUTE)).await;
        for algorithm in algorithms(QUOTA) {
            for (from, to, case) in [(0, -HOUR, "back"), (HOUR, 0, "forward and back"), (0, HOUR, "forward")] {
                let key = format!("{}:{{{case}}}", algorithm.letter());
                server.set(0).await;
                let (used, _) = server.spend(&key).await;
                assert!((20..=40).contains(&used), "{} {key}: {used} at first", engine.name);
                if from != 0 {
                    server.set(from).await;
                    server.spend(&key).await;
                }
                server.set(to).await;
                if to < from {
                    is_back(&server, algorithm, &key, to).await;
                } else {
                    let (admitted, retry) = server.spend(&key).await;
                    assert!((20..=40).contains(&admitted), "{} {key}: {admitted} after the clock went on", engine.name);
                    assert!(retry <= 2 * WINDOW, "{} {key}: kept out for {retry} ms", engine.name);
                }
                println!("{} {key}", engine.name);
            }
        }
    }
}
