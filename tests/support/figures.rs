//! Measuring what commands cost a server.

use std::time::Instant;

use futures::future::join_all;
use redis::{Cmd, cmd};
use redoubt::redis::Connection;

/// Microseconds of commands since their counting began: of those of one name, or of all.
pub async fn server_micros(connection: &Connection, only: Option<&str>) -> u64 {
    let text: String = connection.query(cmd("INFO").arg("commandstats")).await.unwrap();
    let of = |line: &str| line.split_once(",usec=")?.1.split(',').next()?.parse::<u64>().ok();
    let counts = |line: &&str| match only {
        Some(name) => line.starts_with(&format!("cmdstat_{name}:")),
        None => !line.starts_with("cmdstat_info:") && !line.starts_with("cmdstat_config|"),
    };
    text.lines().filter(counts).filter_map(of).sum()
}

/// Calls per second, and server microseconds for each: those of the commands that are `counted`. `depth`: calls of one connection
/// that are under way at a time; `calls` of all connections together, each the commands that `of` makes.
pub async fn cost(
    connections: &[Connection],
    depth: usize,
    calls: usize,
    counted: &[&str],
    of: impl Fn(usize) -> Vec<Cmd>,
) -> (f64, f64) {
    let admin = &connections[0];
    let each = calls / connections.len();
    let shares = (0..connections.len()).map(|share| (share * each..(share + 1) * each).map(&of).collect::<Vec<_>>());
    let shares: Vec<Vec<Vec<Cmd>>> = shares.collect();
    admin.query::<()>(cmd("CONFIG").arg("RESETSTAT")).await.unwrap();
    let began = Instant::now();
    let workers = connections.iter().cloned().zip(shares).map(|(connection, share)| {
        tokio::spawn(async move {
            for batch in share.chunks(depth) {
                for reply in connection.query_all(&batch.concat()).await.unwrap() {
                    reply.unwrap();
                }
            }
        })
    });
    join_all(workers.collect::<Vec<_>>()).await.into_iter().for_each(Result::unwrap);
    let elapsed = began.elapsed().as_secs_f64();
    let mut micros = 0;
    for name in counted {
        micros += server_micros(admin, Some(name)).await;
    }
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let (calls, micros) = ((each * connections.len()) as f64, micros as f64);
    (calls / elapsed, micros / calls)
}
